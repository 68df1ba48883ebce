"""Groups, schedules, seeds and windows of retraining, against runs made one by one and the gradient kernel."""

import numpy as np
import pytest
import torch

from numerics import (
    TrainingConfig,
    TrainingDiverged,
    leave_group_out,
    leave_one_out,
    retrain,
    timed_ablation,
    train,
)
from theory import Dataset, hierarchical_dataset

EPS = np.finfo(float).eps
SMALL = TrainingConfig(hidden=6, sigma=0.3, lr=0.1, epochs=30, checkpoint_every=10, seed=3)
# 30 epochs, each a few dozen operations on numbers of order one to ten.
ROUNDING = 30 * 100 * EPS


def general_data(n=5, seed=0):
    rng = np.random.default_rng(seed)
    return Dataset(rng.normal(size=(n, 3)), rng.normal(size=(n, 4)))


def test_a_group_left_out_is_the_difference_to_training_without_it():
    data = general_data()
    groups = {"pair": ["sample-1", "sample-3"], "one": ["sample-3"]}
    found = leave_group_out(data, groups, SMALL)
    everything = train(data, SMALL).losses
    for name, members in groups.items():
        without = data.without(members)
        # Fewer samples in the mean: the step per sample is the same with the learning rate scaled by their number.
        config = TrainingConfig(hidden=6, sigma=0.3, lr=0.1 * len(without) / 5, epochs=30, checkpoint_every=10, seed=3)
        alone = train(without, config, queries=data).losses
        np.testing.assert_allclose(found.sel(source=name), everything - alone, rtol=0, atol=ROUNDING)
    single = leave_one_out(data, SMALL, sources=["sample-3"])
    np.testing.assert_array_equal(found.sel(source="one"), single.sel(source="sample-3"))


def test_any_change_of_weight_and_queries_elsewhere():
    data, queries = general_data(), general_data(3, seed=8)
    found = leave_one_out(data, SMALL, epsilon=0.7, sources=["sample-2"], queries=queries)
    more = train(data, SMALL, weights=[1, 1, 1.7, 1, 1], queries=queries).losses
    expected = (more - train(data, SMALL, queries=queries).losses) / 0.7
    np.testing.assert_allclose(found.sel(source="sample-2"), expected, rtol=0, atol=2 * ROUNDING)
    final = train(data, SMALL).checkpoints.maps[-1].numpy()
    errors = 0.5 * np.sum((queries.targets - queries.inputs @ final.T) ** 2, axis=1)
    np.testing.assert_allclose(train(data, SMALL, queries=queries).losses[-1], errors, rtol=1e-13)


def test_runs_of_several_seeds_are_those_of_each_seed():
    data = general_data()
    together = leave_one_out(data, SMALL, seeds=[4, 0, 9], sources=["sample-1", "sample-4"])
    assert together.dims == ("seed", "epoch", "source", "query")
    assert list(together["seed"].values) == [4, 0, 9]
    assert "seed" not in together.attrs
    windows = timed_ablation(data, SMALL, seeds=[4, 9], window=5, every=6)
    assert windows.sizes == {"seed": 2, "epoch": 5, "source": 5, "query": 5}
    for seed in (4, 9):
        config = TrainingConfig(hidden=6, sigma=0.3, lr=0.1, epochs=30, checkpoint_every=10, seed=seed)
        alone = leave_one_out(data, config, sources=["sample-1", "sample-4"])
        np.testing.assert_allclose(together.sel(seed=seed), alone, rtol=0, atol=ROUNDING)
        alone = timed_ablation(data, config, window=5, every=6)
        np.testing.assert_allclose(windows.sel(seed=seed), alone, rtol=0, atol=5 * ROUNDING)


def test_schedules_change_weights_from_epoch_to_epoch():
    data = general_data()
    rng = np.random.default_rng(1)
    schedule = rng.uniform(0, 2, size=(30, 5))
    late = np.ones((30, 5))
    late[:17, 2] = 0.0
    runs = retrain(data, {"random": schedule, "late": late, "constant": schedule[0]}, SMALL)
    assert runs.dims == ("epoch", "run", "query")
    for name, weights in (("random", schedule), ("late", late), ("constant", schedule[0])):
        np.testing.assert_allclose(
            runs.sel(run=name), train(data, SMALL, weights=weights).losses, rtol=0, atol=ROUNDING
        )
    # A schedule that does not change is the constant, and one that changes is a run stopped and gone on.
    still = train(data, SMALL, weights=np.tile(schedule[0], (30, 1))).losses
    np.testing.assert_array_equal(still, train(data, SMALL, weights=schedule[0]).losses)
    half = TrainingConfig(hidden=6, sigma=0.3, lr=0.1, epochs=17, checkpoint_every=17, seed=3)
    first = train(data, half, weights=late[0]).checkpoints
    rest = TrainingConfig(hidden=6, lr=0.1, epochs=13, checkpoint_every=13)
    second = train(data, rest, w1=first.w1[-1], w2=first.w2[-1]).losses
    np.testing.assert_allclose(runs.sel(run="late", epoch=30), second[-1], rtol=0, atol=ROUNDING)


def test_brief_ablation_is_the_gradient_kernel_at_every_start():
    """At D = 100 on the paper's network: -lr 2 / (N O) D (D - 1) / 2 K_ij, to first order in the window."""
    data, window = hierarchical_dataset(), 100
    config = TrainingConfig(checkpoint_every=200)
    found = timed_ablation(data, config, window=window, every=200)
    weights = train(data, config).checkpoints.at(found["epoch"].values)
    w1, w2 = weights.w1.numpy(), weights.w2.numpy()
    error = data.targets - data.inputs @ np.swapaxes(w2 @ w1, 1, 2)
    hidden, back = data.inputs @ np.swapaxes(w1, 1, 2), error @ w2
    kernel = (error @ np.swapaxes(error, 1, 2)) * (hidden @ np.swapaxes(hidden, 1, 2))
    kernel += (data.inputs @ data.inputs.T) * (back @ np.swapaxes(back, 1, 2))
    predicted = -config.lr * 2 / data.targets.size * window * (window - 1) / 2 * kernel
    measured = found.values
    assert np.corrcoef(measured.ravel(), predicted.ravel())[0, 1] >= 0.99
    # A step at a moves the loss at b by K(a, b), on average half a window after the start, when K has changed by a
    # share of at most 2 s / tau D / 2 = 0.32, up as often as down.
    slope = np.sum(measured * predicted) / np.sum(predicted**2)
    assert 1 / 1.32 < slope < 1.32


def test_divergence_names_the_run_that_did():
    data = general_data()
    heavy = {"even": np.ones(5), "heavy": np.array([1.0, 1.0, 1e4, 1.0, 1.0])}
    with pytest.raises(TrainingDiverged, match=r"loss of run heavy is not finite at epoch 10 with lr=0\.1"):
        retrain(data, heavy, SMALL)


def test_an_interrupted_run_leaves_nothing_behind():
    data, w1, w2 = general_data(), np.ones((2, 3)), np.ones((4, 2))
    expected = train(data, SMALL, w1=w1, w2=w2).losses

    def interrupt(epoch):
        if epoch == 20:
            raise KeyboardInterrupt

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        leave_one_out(data, SMALL, w1=w1, w2=w2, progress=interrupt)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert (w1 == 1).all()
    assert (w2 == 1).all()
    np.testing.assert_array_equal(train(data, SMALL, w1=w1, w2=w2).losses, expected)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda d: leave_one_out(d, SMALL, sources=[]), ValueError, "sources is empty; name at least one sample"),
        (lambda d: leave_one_out(d, SMALL, sources=["sample-0"] * 2), ValueError, "sources names 'sample-0' twice"),
        (lambda d: leave_one_out(d, SMALL, sources=["dog"]), KeyError, "no sample is called 'dog'"),
        (lambda d: leave_one_out(d, SMALL, epsilon=np.nan), ValueError, "epsilon holds a non-finite value"),
        (lambda d: leave_one_out(d, SMALL, queries=hierarchical_dataset()), ValueError, "queries have inputs of shape"),
        (lambda d: leave_group_out(d, {}, SMALL), ValueError, "groups is empty"),
        (lambda d: leave_group_out(d, {"g": []}, SMALL), ValueError, "group 'g' is empty"),
        (lambda d: leave_group_out(d, {"g": ["sample-1"] * 2}, SMALL), ValueError, "group 'g' names 'sample-1' twice"),
        (lambda d: retrain(d, {}, SMALL), ValueError, "weights is empty; name at least one run"),
        (
            lambda d: retrain(d, {"a": np.ones((7, 5))}, SMALL),
            ValueError,
            r"weights\['a'\] has shape \(7, 5\), but the data set has 5 samples: give \(5,\), or \(30, 5\)",
        ),
        (lambda d: retrain(d, {"a": -np.ones(5)}, SMALL), ValueError, r"weights\['a'\] must not be negative"),
        (
            lambda d: leave_one_out(d, SMALL, seeds=[0], w1=np.ones((2, 3)), w2=np.ones((4, 2))),
            ValueError,
            "give seeds, which draw the initial weights, or w1 and w2",
        ),
        (lambda d: timed_ablation(d, SMALL, window=5, sources=[]), ValueError, "sources is empty"),
    ],
)
def test_bad_input_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call(general_data())
