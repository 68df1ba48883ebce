"""The report of a validation run: tables for the terminal and JSON for everything else."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from validation.claims import Check, ClaimResult, Verdict
from validation.pairs import PairResult
from validation.toy import ToySettings

__all__ = ["print_report", "write_json"]

_STYLE = {Verdict.HOLDS: "green", Verdict.FAILS: "bold red", Verdict.REFUTED: "yellow", Verdict.REPORTED: "dim"}


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) >= 10:
        return f"{value:.0f}"
    return f"{value:.4g}" if 0.99 < abs(value) < 1 else f"{value:.3g}"


def _bound(check: Check) -> str:
    if check.only_reported:
        return "-"
    if math.isinf(check.low):
        return f"<= {_number(check.high)}"
    if math.isinf(check.high):
        return f">= {_number(check.low)}"
    return f"{_number(check.low)} .. {_number(check.high)}"


def print_report(console: Console, claims: Sequence[ClaimResult], pairs: Sequence[PairResult]) -> None:
    """Print the pair table and the claims with every check."""
    if pairs:
        table = Table(
            title="Pairs of measures (measure against reference; negative influence = helps)", show_lines=False
        )
        for column in ("reference", "measure", "Pearson", "slope", "rel. max error", "peak shift", "same sign"):
            table.add_column(column, no_wrap=column in ("Pearson", "slope"))
        table.add_column("expected, and why")
        table.add_column("verdict")
        for result in pairs:
            found = result.found
            table.add_row(
                result.pair.reference,
                result.pair.measure,
                f"{found.pearson:.4f}",
                _number(found.slope),
                _number(found.relative_max_error),
                _number(found.extremum_shift),
                f"{found.sign_agreement:.0%}",
                f"{result.pair.expected}: {result.pair.why}",
                f"[{_STYLE[result.verdict]}]{result.verdict}[/]",
            )
        console.print(table)
    for claim_result in claims:
        style = _STYLE[claim_result.verdict]
        console.print(f"\n[bold]{claim_result.claim.identifier}[/] [{style}]{claim_result.verdict}[/]")
        console.print(f"{claim_result.claim.statement} [dim]({claim_result.claim.source})[/]")
        table = Table(box=None, pad_edge=True, show_header=True, header_style="dim")
        for column in ("", "check", "measured", "bound", "why"):
            table.add_column(column)
        for check in claim_result.checks:
            mark = "·" if check.only_reported else ("✓" if check.holds else "[bold red]✗[/]")
            table.add_row(mark, check.quantity, _number(check.measured), _bound(check), f"[dim]{check.why}[/]")
        console.print(table)


def write_json(path: Path, settings: ToySettings, claims: Sequence[ClaimResult], pairs: Sequence[PairResult]) -> None:
    """Write settings, versions, pairs and claims to a JSON file; numbers that are not finite become null."""
    document = {
        "stagewise_version": version("stagewise"),
        "python": platform.python_version(),
        "torch": version("torch"),
        "settings": asdict(settings),
        "pairs": [
            {
                "reference": result.pair.reference,
                "measure": result.pair.measure,
                "expected": result.pair.expected,
                "why": result.pair.why,
                "bounds": {field: list(bounds) for field, bounds in result.pair.bounds.items()},
                "found": asdict(result.found),
                "verdict": str(result.verdict),
            }
            for result in pairs
        ],
        "claims": [
            {
                "id": result.claim.identifier,
                "statement": result.claim.statement,
                "source": result.claim.source,
                "verdict": str(result.verdict),
                "checks": [asdict(check) | {"holds": check.holds} for check in result.checks],
            }
            for result in claims
        ],
    }
    path.write_text(json.dumps(_finite(document), indent=2) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
