"""Settings of the documentation: guides and tutorials in Markdown, and every public function from its docstring.

The reference is not kept by hand: a page for every wing of every package lists what ``__all__`` exports from there.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "stagewise"
author = "The stagewise developers"
version = release = installed_version("stagewise")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "conftest.py"]
html_theme = "furo"
html_title = "stagewise"
html_static_path: list[str] = []
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # shapes and types are in the signature's source; the docstring says them in words
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_preprocess_types = False
suppress_warnings = ["config.cache"]

_PACKAGES = ("theory", "numerics", "validation", "stagewise")
_API = Path(__file__).parent / "api"


def _wing(package: str, value: object) -> str:
    """Return the wing that a public name comes from; the package itself for what is on its ground floor."""
    parts = getattr(value, "__module__", package).split(".")
    return ".".join(parts[:2]) if len(parts) > 2 and parts[0] == package else package


def _entry(package: str, name: str, value: object) -> str:
    full = f"{package}.{name}"
    if isinstance(value, type):
        return f".. autoclass:: {full}\n   :members:\n   :special-members: __getitem__\n"
    return (
        f".. autofunction:: {full}\n" if callable(value) else f".. py:data:: {full}\n   :type: {type(value).__name__}\n"
    )


def write_reference() -> None:
    """Write a page for every wing into docs/api, which git ignores."""
    _API.mkdir(exist_ok=True)
    for old in _API.glob("*.rst"):
        old.unlink()
    pages = []
    for package in _PACKAGES:
        module = import_module(package)
        wings: dict[str, list[str]] = defaultdict(list)
        for name in sorted(module.__all__, key=str.lower):
            value = getattr(module, name)
            if name != "__version__" and getattr(value, "__file__", None) is None:  # not a package of its own
                wings[_wing(package, value)].append(name)
        for wing, names in sorted(wings.items()):
            about = (import_module(wing).__doc__ or "").strip().split("\n\n")[0]
            entries = "\n".join(_entry(package, name, getattr(module, name)) for name in names)
            (_API / f"{wing}.rst").write_text(f"{wing}\n{'=' * len(wing)}\n\n{about}\n\n{entries}")
            pages.append(wing)
    listing = "\n".join(f"   {page}" for page in pages)
    (_API / "index.rst").write_text(
        "Reference\n=========\n\nEvery public name, by the wing it comes from; all are imported from the package "
        f"itself.\n\n.. toctree::\n   :maxdepth: 2\n\n{listing}\n"
    )


_MARKUP = re.compile(r"(``.+?``|:\w+:`.+?`|`.+?`|\\.|(?<!\w)\*{1,2}\w(?:[^*|]*\w)?\*{1,2}(?!\w))")


def escape_mathematics(lines: list[str]) -> list[str]:
    """Return a docstring in which |x| and a * b are what they say, not markup; literals, mathematics and code stay.

    Docstrings are written to be read as they are, in a terminal.
    """
    result, block = [], None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is None and not line.lstrip().startswith((">>>", "...")):
            parts = _MARKUP.split(line)
            result.append(
                "".join(re.sub(r"[*|]", r"\\\g<0>", part) if k % 2 == 0 else part for k, part in enumerate(parts))
            )
        else:
            result.append(line)
        if line.lstrip().startswith(".. ") or line.rstrip().endswith("::"):
            block = indent if block is None else block
    return result


def _process(app, what, name, obj, options, lines):
    lines[:] = escape_mathematics(lines)


def setup(app):
    """Write the reference, and read docstrings as they are meant."""
    app.connect("autodoc-process-docstring", _process, priority=100)
    write_reference()
