"""The figures there are, and how one is saved: image, numbers and caption side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from paper_figs import figure_02, figure_03
from validation import ToyExperiment

__all__ = ["FIGURES", "PaperFigure", "save_figure"]


@dataclass(frozen=True)
class PaperFigure:
    """One figure of the paper.

    Parameters
    ----------
    number
        Its number in the paper.
    draw, data, caption
        Functions of the shared results that give the picture, the numbers in it, and what it shows. All figures of one
        run share one `ToyExperiment`, which computes every measure once.
    """

    number: int
    draw: Callable[[ToyExperiment], Figure]
    data: Callable[[ToyExperiment], xr.Dataset]
    caption: Callable[[ToyExperiment], str]


FIGURES: Mapping[int, PaperFigure] = {
    number: PaperFigure(number, module.draw, module.data, module.caption)
    for number, module in ((2, figure_02), (3, figure_03))
}


def save_figure(figure: PaperFigure, results: ToyExperiment, folder: Path) -> list[Path]:
    """Write ``figure_NN`` as PNG and PDF, its numbers as netCDF and its caption as text; return the paths."""
    stem = folder / f"figure_{figure.number:02d}"
    drawn = figure.draw(results)
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".pdf", ".nc", ".txt")]
    drawn.savefig(paths[0])
    drawn.savefig(paths[1], metadata={"CreationDate": None})
    figure.data(results).to_netcdf(paths[2], engine="h5netcdf")
    paths[3].write_text(figure.caption(results) + "\n")
    return paths
