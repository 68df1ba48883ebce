"""The list of files in ARCHITECTURE.md, made from what each says of itself; ``make architecture`` writes it anew."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAD = """# Architecture

```
theory/        closed forms. numpy, scipy, sympy; never imports torch, numerics, validation or paper_figs
numerics/      simulation on torch. Takes data sets, labels and argument checks from theory, never an answer
validation/    cross-checks: theory against numerics against retraining. The only place where the two meet
paper_figs/    figures: draws what validation measured; no mathematics and no measuring of its own
tests/         mirrors the packages; tests/benchmarks (make bench), tests/mutation (make mutation)
```

Imports run downwards only: paper_figs, validation, numerics, theory; a test enforces it. Public names are exported flat
from each package. One idea a file; `make architecture` makes this list from the files' own first sentences.
"""


def document() -> str:
    """Return ARCHITECTURE.md as it should be."""
    parts = [HEAD]
    for package in ("theory", "numerics", "validation", "paper_figs"):
        parts.append(f"\n## {package}\n\n| file | holds |\n| --- | --- |\n")
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name not in ("__init__.py", "__main__.py"):
                said = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
                parts.append(f"| {path.relative_to(ROOT / package)} | {' '.join(said.split())} |\n")
    return "".join(parts)


if __name__ == "__main__":
    (ROOT / "ARCHITECTURE.md").write_text(document())
