"""Quick results that all tests of figures share; each measure is computed and each figure drawn once a session."""

import matplotlib
import numpy as np
import pytest

from paper_figs import FIGURES, FigureSettings, Results

# Nothing may reach a screen, whatever the machine's default is.
matplotlib.use("Agg")


@pytest.fixture(scope="session")
def results():
    return Results(FigureSettings.seeded(0, quick=True))


@pytest.fixture(scope="session")
def drawn(results):
    """Return a function that draws a figure by its identifier, once."""
    pictures = {}

    def draw(identifier):
        if identifier not in pictures:
            pictures[identifier] = FIGURES[identifier].draw(results)
        return pictures[identifier]

    return draw


@pytest.fixture(scope="session")
def has_line():
    """Return a function that says whether the axes hold a line through exactly these points."""

    def found(axes, x, y):
        x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        return any(
            len(line.get_xdata()) == len(x)
            and np.array_equal(np.asarray(line.get_xdata(), dtype=float), x)
            and np.array_equal(np.asarray(line.get_ydata(), dtype=float), y, equal_nan=True)
            for line in axes.lines
        )

    return found
