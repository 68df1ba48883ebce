"""The paper's figures, redrawn from what validation and numerics computed; no mathematics of its own."""

from paper_figs.results import FIGURES, PaperFigure, save_figure

__all__ = ["FIGURES", "PaperFigure", "save_figure"]
