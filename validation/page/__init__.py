"""The report as one self-contained HTML file, readable without the code."""

from validation.page.document import write_html

__all__ = ["write_html"]
