"""Masked arrays: what is under a mask is not data, and never becomes it."""

import numpy as np
import pytest
import torch

from numerics import (
    Checkpoints,
    TrainingConfig,
    gradient_flow,
    leave_one_out,
    sample,
    train,
)
from theory import hierarchical_dataset

DATA = hierarchical_dataset(levels=1)
SHORT = TrainingConfig(hidden=2, epochs=10, checkpoint_every=5)
RUN = train(DATA, SHORT).checkpoints


def masked(shape):
    """Return ones of a shape, the last of them a -999 under a mask."""
    values = np.ma.masked_array(np.ones(shape), np.zeros(shape, dtype=bool))
    values[(-1,) * len(shape)] = -999.0
    values[(-1,) * len(shape)] = np.ma.masked
    return values


@pytest.mark.parametrize(
    "call",
    [
        lambda: Checkpoints(masked((2,)), torch.ones(2, 2, 2), torch.ones(2, 3, 2)),
        lambda: RUN.at(masked((1,))),
        lambda: train(DATA, SHORT, weights=masked((2,))),
        lambda: train(DATA, SHORT, w1=masked((2, 2)), w2=np.ones((3, 2))),
        lambda: leave_one_out(DATA, SHORT, w1=np.ones((2, 2)), w2=masked((3, 2))),
        lambda: gradient_flow(DATA, masked((2, 2)), np.ones((3, 2)), [1.0], tau=10.0),
        lambda: gradient_flow(DATA, np.ones((2, 2)), np.ones((3, 2)), masked((1,)), tau=10.0),
        lambda: sample(DATA, RUN, draws=2, weights=masked((2,))),
    ],
)
def test_masked_entries_are_refused(call):
    with pytest.raises(ValueError, match=r"1 masked value, and what is under a mask is not data|holds a masked entry"):
        call()


def test_a_mask_of_nothing_is_no_mask():
    assert len(Checkpoints(np.ma.masked_array([0.0], False), torch.ones(1, 2, 2), torch.ones(1, 3, 2))) == 1
