"""The response of the learned map against influences of test samples, which are linear in the query's target."""

import numpy as np
import pytest

from theory import Dataset, influence_trajectory
from validation.experiments.map_response import FORMULAS, map_response


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("source", ["dog", "oak"])
def test_the_response_of_the_map_is_what_influence_on_test_samples_says(toy, formula, source):
    """The influence on (x, y) is (W x - y)^T dW x: targets 0 and e_b at x = e_a differ by the entry dW_ba."""
    p, o = toy.dataset.n_inputs, toy.dataset.n_outputs
    inputs, targets = np.repeat(np.eye(p), o + 1, axis=0), np.tile(np.vstack([np.zeros(o), np.eye(o)]), (p, 1))
    epochs = np.array([0.0, 1000.0, 3000.0, 10_000.0])
    influence = influence_trajectory(
        toy.dataset,
        epochs,
        tau=toy.tau,
        g0=toy.mean_strength,
        formula=formula,
        sources=[source],
        queries=Dataset(inputs, targets),
    ).values.reshape(len(epochs), p, o + 1)
    expected = np.swapaxes(influence[..., :1] - influence[..., 1:], 1, 2)
    found = map_response(toy, formula, source=source, epochs=epochs)
    # Differences of influences of order one, at eps each, beside entries of order one.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max() + 1e-13)
    assert found.dims == ("epoch", "output", "input")


def test_epochs_are_those_of_the_checkpoints_unless_given(toy):
    whole = map_response(toy, "spectral")
    np.testing.assert_array_equal(whole["epoch"], toy.epochs)
    np.testing.assert_array_equal(map_response(toy, "spectral", epochs=[1000.0])[0], whole.sel(epoch=1000))


def test_an_unknown_formula_is_refused(toy):
    with pytest.raises(ValueError, match=r"no formula 'paper-P3' .* use spectral, paper-P1, paper-P2"):
        map_response(toy, "paper-P3")
