"""The figures there are, and how one is saved: image, numbers and caption side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from paper_figs import (
    figure_01,
    figure_02,
    figure_03,
    figure_04,
    figure_05,
    figure_06,
    figure_07,
    figure_08,
    figure_09,
    figure_10,
    figure_11,
    figure_12,
    figure_13,
    figure_14,
    figure_15,
    figure_a,
    figure_e1,
    figure_e2,
    figure_e3,
    figure_e4,
    figure_e5,
    figure_e6,
    figure_l1,
)
from paper_figs.results import Results
from paper_figs.style import figure_style

__all__ = ["FIGURES", "PaperFigure", "find_figures", "save_figure"]


@dataclass(frozen=True)
class PaperFigure:
    """One figure.

    Parameters
    ----------
    identifier
        Its number in the paper, "a" for the one of Appendix A, or "e1", "e2", ... and "l1" for those beyond the paper.
    about
        What it shows, in a few words.
    draw, data, caption
        Functions of the shared results that give the picture, the numbers in it, and what it shows. All figures of one
        run share one `Results`, which computes every measure once.
    """

    identifier: str
    about: str
    draw: Callable[[Results], Figure]
    data: Callable[[Results], xr.Dataset]
    caption: Callable[[Results], str]

    @property
    def stem(self) -> str:
        """Name of its files without suffix."""
        return f"figure_{self.identifier.zfill(2) if self.identifier.isdigit() else self.identifier}"


_MODULES = {
    "1": ("regular against singular posteriors", figure_01),
    "2": ("semantic tree, correlation, modes learned in stages", figure_02),
    "3": ("influence of dog: Bayesian, closed form, leave-one-out", figure_03),
    "4": ("influence peaks while representations branch", figure_04),
    "5": ("influence between classes of tokens", figure_05),
    "a": ("phases, their transition and influence through it", figure_a),
    "6": ("agreement with leave-one-out over hyper-parameters", figure_06),
    "7": ("Bayesian influence of every sample", figure_07),
    "8": ("leave-one-out of every sample", figure_08),
    "9": ("damped Hessian", figure_09),
    "10": ("damped Gauss-Newton matrix", figure_10),
    "11": ("brief ablation of dog", figure_11),
    "12": ("closed-form influence of every sample", figure_12),
    "13": ("classes of tokens", figure_13),
    "14": ("classes predicted from influence", figure_14),
    "15": ("influence between tokens while induction heads form", figure_15),
    "e1": ("erratum: printed against exact response", figure_e1),
    "e2": ("linear response against finite changes of weight", figure_e2),
    "e3": ("influence of when a sample is seen", figure_e3),
    "e4": ("bias of Algorithm 1", figure_e4),
    "e5": ("learning coefficients against Aoyagi's", figure_e5),
    "e6": ("which measures agree", figure_e6),
    "l1": ("single pairs of tokens: noise, and the limit of strong localization", figure_l1),
}

FIGURES: Mapping[str, PaperFigure] = {
    identifier: PaperFigure(identifier, about, module.draw, module.data, module.caption)
    for identifier, (about, module) in _MODULES.items()
}


def find_figures(names: list[str] | None) -> list[PaperFigure]:
    """Return the figures called `names` ("3", "03", "A", "e1"), all there are if none is given.

    Raises
    ------
    ValueError
        If there is no such figure; the sentence lists those there are.

    Examples
    --------
    >>> [figure.identifier for figure in find_figures(["03", "2"])]
    ['3', '2']
    """
    chosen = []
    for name in names or FIGURES:
        identifier = name.lower().lstrip("0")
        if identifier not in FIGURES:
            raise ValueError(f"There is no figure {name!r} here; available are {', '.join(FIGURES)}.")
        chosen.append(FIGURES[identifier])
    return chosen


_QUICK = "quick settings, not for reading numbers"


def save_figure(figure: PaperFigure, results: Results, folder: Path) -> list[Path]:
    """Write the figure as PNG and PDF, its numbers as netCDF and its caption as text; return the paths.

    With quick settings image and caption say so. The four files are finished before any of them replaces an older one.
    """
    drawn, caption = figure.draw(results), figure.caption(results)
    if results.settings.quick:
        _stamp(drawn, _QUICK)
        caption += f" Drawn with {_QUICK}."
    with TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished, figure_style():
        paths = [Path(unfinished) / f"{figure.stem}{suffix}" for suffix in (".png", ".pdf", ".nc", ".txt")]
        drawn.savefig(paths[0])
        drawn.set_layout_engine("none")  # the second image takes the layout of the first, which takes long to find
        drawn.savefig(paths[1], metadata={"CreationDate": None})
        figure.data(results).to_netcdf(paths[2], engine="h5netcdf")
        paths[3].write_text(caption + "\n", encoding="utf-8")
        return [path.rename(folder / path.name) for path in paths]


def _stamp(figure: Figure, words: str) -> None:
    """Write a line along the right edge, in a strip of its own: legends stand above and below, never there."""
    strip = 0.18 / figure.get_size_inches()[0]  # inches
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, 0, 1 - strip, 1))
    figure.text(1 - strip / 4, 0.5, words, ha="right", va="center", rotation=90, fontsize=7, color="#A00000")
