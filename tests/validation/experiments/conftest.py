"""A coarse toy experiment that all tests of experiments share."""

import pytest

from numerics import TrainingConfig
from validation import ToyExperiment, ToySettings


@pytest.fixture(scope="session")
def toy():
    return ToyExperiment(ToySettings(training=TrainingConfig(checkpoint_every=250), chains=2, draws=60, every=1000))
