"""Brief ablation in closed form against integrated flows, retraining, and the gradient kernel."""

import numpy as np
import pytest

from numerics import (
    TrainingConfig,
    gradient_flow,
    gradient_kernel,
    initial_weights,
    per_sample_losses,
    timed_ablation,
)
from theory import Dataset, brief_ablation_trajectory, hierarchical_dataset

TAU = 1200.0
DATA = hierarchical_dataset(2)
WIDE = Dataset(
    np.linalg.qr(np.random.default_rng(0).normal(size=(5, 3)))[0], np.random.default_rng(1).normal(size=(5, 4))
)


def small_weights(data, hidden=6, sigma=1e-3, seed=0):
    rng = np.random.default_rng(seed)
    return sigma * rng.normal(size=(hidden, data.n_inputs)), sigma * rng.normal(size=(data.n_outputs, hidden))


@pytest.mark.parametrize("data", [DATA, WIDE], ids=["tree", "more samples than inputs"])
def test_exact_ablation_is_a_flow_whose_weight_is_zero_in_the_window(data):
    w1, w2 = small_weights(data)
    window, starts = 40, [1500.0, 3000.0]
    closed = brief_ablation_trajectory(data, starts, tau=TAU, w1=w1, w2=w2, window=window)
    for k, start in enumerate(starts):
        before = gradient_flow(data, w1, w2, [start], tau=TAU, tolerance=1e-12)
        layers = before.w1[0].numpy(), before.w2[0].numpy()

        def summed(weights, layers=layers):
            run = gradient_flow(data, *layers, np.arange(window), tau=TAU, weights=weights, tolerance=1e-12)
            return per_sample_losses(run.maps, data).numpy().sum(axis=0)

        for i in range(len(data)):
            difference = summed(np.ones(len(data))) - summed(1.0 - np.eye(len(data))[i])
            # The start of the window is known to relative order h sigma^2 = 6e-6 from unbalanced weights, and a few
            # times that where it is steep in time.
            assert np.abs(closed.values[k, i] - difference).max() < 1e-4 * np.abs(difference).max()


def test_exact_ablation_predicts_retraining():
    data, config = hierarchical_dataset(), TrainingConfig(epochs=6000)
    w1, w2 = (w.numpy() for w in initial_weights(data))
    retrained = timed_ablation(data, config, window=100, every=1000)
    closed = brief_ablation_trajectory(data, retrained["epoch"].values[1:], tau=TAU, w1=w1, w2=w2, window=100)
    x, y = retrained.values[1:].ravel(), closed.values.ravel()
    # Descent lags the flow by 3 epochs, of stages that last about tau / s_max = 300 or more: 1 % of the influence, so
    # 1 - 0.01^2 / 2 if it were all noise.
    assert np.corrcoef(x, y)[0, 1] > 1 - 1e-4 / 2
    assert x @ y / (x @ x) == pytest.approx(1, abs=0.02)


def test_the_kernel_is_the_inner_product_of_gradients():
    w1, w2 = small_weights(DATA)
    starts = np.array([1500.0, 3000.0])
    closed = brief_ablation_trajectory(DATA, starts, tau=TAU, w1=w1, w2=w2, window=30, method="kernel")
    kernel = gradient_kernel(DATA, gradient_flow(DATA, w1, w2, starts, tau=TAU, tolerance=1e-12))
    expected = -30 * 29 / (2 * TAU) * kernel.values
    # The matrix solution from unbalanced weights: relative order h sigma^2, and a few of the losses' size.
    np.testing.assert_allclose(closed.values, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_kernel_is_the_limit_of_short_windows():
    w1, w2 = small_weights(DATA)
    errors = []
    for window in (10, 20, 40):
        exact, kernel = (
            brief_ablation_trajectory(DATA, [2000.0], tau=TAU, w1=w1, w2=w2, window=window, method=method)
            for method in ("exact", "kernel")
        )
        errors.append(np.abs(exact - kernel).max().item() / np.abs(exact).max().item())
    # First order in D (strictly in about 2 D / 3, the mean age of what is summed).
    assert errors[1] / errors[0] == pytest.approx(2, rel=0.2)
    assert errors[2] / errors[1] == pytest.approx(2, rel=0.2)


def test_a_window_of_one_epoch_changes_nothing_yet():
    w1, w2 = small_weights(DATA)
    for method in ("exact", "kernel"):
        brief = brief_ablation_trajectory(DATA, [1000.0], tau=TAU, w1=w1, w2=w2, window=1, method=method)
        assert np.abs(brief).max() < 1e-14


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"window": 0}, ValueError, "window must be at least 1, but 0"),
        ({"method": "fast"}, ValueError, "method must be one of 'exact', 'kernel'"),
        ({"starts": [3.0, 2.0]}, ValueError, "starts must be an increasing list"),
        ({"sources": ["wolf"]}, KeyError, "no sample is called 'wolf'"),
        ({"w1": np.zeros((2, 3))}, ValueError, r"w1 has shape \(2, 3\)"),
        ({"dataset": Dataset(2 * np.eye(4), np.eye(4))}, ValueError, "needs whitened inputs"),
    ],
)
def test_bad_input_is_refused(change, error, match):
    w1, w2 = small_weights(DATA)
    arguments = {"dataset": DATA, "starts": [1.0], "tau": TAU, "w1": w1, "w2": w2}
    with pytest.raises(error, match=match):
        brief_ablation_trajectory(**(arguments | change))
