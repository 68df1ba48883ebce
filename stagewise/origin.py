"""Whether the four packages are ours, and not modules of the same names in the user's folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["PACKAGES", "ForeignModule", "refuse_foreign_modules"]

PACKAGES = ("theory", "numerics", "validation", "paper_figs")


class ForeignModule(ImportError):
    """A module of another project stands under the name of one of our packages."""


def refuse_foreign_modules() -> None:
    """Refuse to go on if Python would import another module under the name of one of our packages.

    Nothing is imported to find out, so that no foreign code runs.

    Raises
    ------
    ForeignModule
        The sentence names the module and the file that is in the way.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = find_spec(name)
        where = None if spec is None else spec.origin
        if where is None or Path(where).resolve() != home / name / "__init__.py":
            found = where or "no file"
            raise ForeignModule(
                f"the name {name!r} stands for {found} here, not for stagewise's own package in {home}: rename that "
                "file or folder, or call the command from another folder."
            )
