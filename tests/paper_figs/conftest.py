"""Quick results that all tests of figures share; each measure is computed once a session."""

import pytest

from paper_figs import FigureSettings, Results


@pytest.fixture(scope="session")
def results():
    return Results(FigureSettings.seeded(0, quick=True))
