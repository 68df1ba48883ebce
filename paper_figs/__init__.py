"""The paper's figures, redrawn from what validation and numerics computed; no mathematics of its own."""

from paper_figs.cache import ResultCache
from paper_figs.influence_plot import plot
from paper_figs.registry import FIGURES, PaperFigure, find_figures, save_figure
from paper_figs.results import FigureSettings, Results

__all__ = [
    "FIGURES",
    "FigureSettings",
    "PaperFigure",
    "ResultCache",
    "Results",
    "find_figures",
    "plot",
    "save_figure",
]
