"""The list of rooms in ARCHITECTURE.md, made from what each file says of itself; `make architecture` writes it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
PACKAGES = ("theory", "numerics", "validation", "paper_figs")
# What stands above this line is written by hand.
RULE = "## The rooms\n"


def said(path: Path) -> str:
    """Return the first sentence of a file."""
    text = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    return " ".join(text.split())


def rooms() -> str:
    """Return the list of all files, wing by wing, from the ground of each package."""
    parts = [RULE, "\nEach line is a file's own first sentence; `make architecture` writes them anew.\n"]
    for package in PACKAGES:
        parts.append(f"\n### {package}\n")
        folders = [ROOT / package, *sorted(path.parent for path in (ROOT / package).rglob("*/__init__.py"))]
        for folder in folders:
            files = [path for path in sorted(folder.glob("*.py")) if path.name not in ("__init__.py", "__main__.py")]
            if not files:
                continue
            if folder != ROOT / package:
                parts.append(f"\n**{folder.relative_to(ROOT)}/** {said(folder / '__init__.py')}\n")
            parts.append("\n| file | holds |\n| --- | --- |\n")
            parts += [f"| {path.name} | {said(path)} |\n" for path in files]
    return "".join(parts)


def by_hand() -> str:
    """Return what stands above the list."""
    return PAGE.read_text().partition(RULE)[0]


def named_files() -> list[str]:
    """Return the files that the part written by hand names."""
    return re.findall(r"`((?:theory|numerics|validation|paper_figs|tests)/[\w/]+\.py)`", by_hand())


if __name__ == "__main__":
    PAGE.write_text(by_hand() + rooms())
