"""Measures of influence against each other: their correlations, the pairs judged, the strongest influences."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape

import xarray as xr

from validation.page.parts import badge, numeral, table
from validation.page.prose import mathematics
from validation.pairs import PairResult
from validation.registry import Way
from validation.report import bound, number
from validation.strongest import Extreme

__all__ = ["heat_map", "pair_table", "strongest_table"]


def heat_map(matrix: xr.DataArray) -> str:
    """Return the correlation of every two measures, grouped by way; tint and digits say the same."""
    names, ways = matrix["measure"].values, matrix["way"].values
    order = sorted(range(len(names)), key=lambda k: list(Way).index(Way(str(ways[k]))))
    head = "".join(f'<th scope="col"><span>{_upright(str(names[k]))}</span></th>' for k in order)
    rows = []
    for i in order:
        cells = "".join(_heat_cell(float(matrix.values[i, j]), i == j) for j in order)
        label = f'<span class="way {str(ways[i]).split()[0]}">{ways[i]}</span> {mathematics(str(names[i]))}'
        rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    return (
        '<div class="scroll" role="region" aria-label="Correlations of measures" tabindex="0"><table class="heat">'
        '<caption class="away">Pearson correlation of every two measures</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _upright(name: str) -> str:
    """Return a name as text that may be turned by a right angle, as MathML may not in every browser."""
    greek = re.sub(r"(?<![A-Za-z])(beta|gamma|lambda)(?![A-Za-z])", r"&\1;", escape(name))
    return re.sub(r"_(&\w+;|\w)", r"<sub>\1</sub>", greek)


def _heat_cell(value: float, diagonal: bool) -> str:
    if diagonal:
        return '<td class="same"></td>'
    if not math.isfinite(value):
        return '<td title="one of the two does not vary">-</td>'
    tint = f"--t:{100 * min(abs(value), 1.0) ** 2:.0f}%"
    digits = f"{value:.3f}".replace("-", "&minus;").replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.0f}"
    return f'<td class="{"up" if value >= 0 else "down"}" style="{tint}">{digits}</td>'


def pair_table(pairs: Sequence[PairResult]) -> str:
    """Return the pairs of measures with what was expected and found."""
    rows = []
    for result in pairs:
        found, pair = result.found, result.pair
        numbers = ["-"] * 5
        if found is not None:
            numbers = [f"{found.pearson:.4f}", number(found.slope), number(found.relative_max_error)]
            numbers += [number(found.extremum_shift), f"{100 * found.sign_agreement:.0f} %"]
        judged = result.checks or pair.general
        text = f"<b>{escape(pair.expected)}</b>: {mathematics(pair.why)}" if judged else mathematics(pair.why)
        if result.problem:
            text = f"not defined here: {escape(result.problem)}"
        if result.undecided:
            text += f"<br><b>Not decided</b>: {escape(result.undecided)}."
        limits = "; ".join(
            f"{check.quantity} {number(check.measured)}, bound {bound(check)}" for check in result.checks
        )
        if limits:
            derivation = f" ({mathematics(result.checks[0].why)})" if pair.general else ""
            text += f'<br><span class="soft">{escape(limits)}{derivation}</span>'
        both = f"<b>{mathematics(pair.measure)}</b> against {mathematics(pair.reference)}"
        rows.append([both, badge(result.verdict), *map(numeral, numbers), text])
    columns = ["measure against reference", "verdict"]
    columns += ["#Pearson", "#slope", "#rel. max error", "#peak shift", "#same sign", "expected, and why"]
    return table(columns, rows, "pairs", "Pairs of measures")


def strongest_table(extremes: Sequence[Extreme]) -> str:
    """Return the strongest influences by name."""
    rows = [
        [
            escape(e.source),
            "helps" if e.helps else "harms",
            escape(e.query),
            *(numeral(number(value)) for value in (e.retrained, e.epoch, e.solved, e.solved_epoch)),
        ]
        for e in extremes
    ]
    columns = ["source", "effect", "query", "#retrained", "#at epoch", "#closed form", "#at epoch"]
    return table(columns, rows, "strongest", "Strongest influences")
