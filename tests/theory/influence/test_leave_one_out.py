"""Closed-form leave-one-out against integrated flows, retraining and the first-order influence it tends to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import TrainingConfig, gradient_flow, initial_weights, leave_one_out, per_sample_losses
from theory import (
    Dataset,
    Modes,
    hierarchical_dataset,
    influence_trajectory,
    leave_group_out_trajectory,
    leave_one_out_trajectory,
)
from theory.dynamics.singular_modes import singular_modes

TAU = 1200.0
EPOCHS = np.array([0.0, 500.0, 1500.0, 3000.0, 4500.0, 6000.0, 9000.0])


def random_weights(data, sigma, hidden=6, seed=0):
    rng = np.random.default_rng(seed)
    return sigma * rng.normal(size=(hidden, data.n_inputs)), sigma * rng.normal(size=(data.n_outputs, hidden))


def random_dataset(seed, *, n, p, o):
    """Return n samples with X^T X = I (p orthonormal columns) and generic targets."""
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(n, p)))[0]
    return Dataset(x, rng.normal(size=(n, o)) + 2 * x @ np.eye(p, o))


def flow_difference(data, w1, w2, epochs, epsilon):
    """Integrate both runs of every pair from the same weights; shape (epoch, source, query)."""

    def losses(weights):
        run = gradient_flow(data, w1, w2, epochs, tau=TAU, weights=weights, tolerance=1e-12)
        return per_sample_losses(run.maps, data).numpy()

    baseline = losses(np.ones(len(data)))
    changed = [losses(np.ones(len(data)) + epsilon * np.eye(len(data))[p]) for p in range(len(data))]
    return (np.stack(changed, axis=1) - baseline[:, None]) / epsilon


SQUARE = {
    "tree": (hierarchical_dataset(2), 9),
    "more outputs": (random_dataset(1, n=3, p=3, o=5), 4),
    "fewer outputs": (random_dataset(2, n=4, p=4, o=2), 7),
    "bottleneck": (random_dataset(3, n=3, p=3, o=3), 2),
}


@pytest.mark.parametrize("case", SQUARE)
def test_leaving_out_is_a_flow_with_weight_zero(case):
    """The closed form knows unbalanced weights to relative order h sigma^2, and gains by sigma^2."""
    data, hidden = SQUARE[case]
    # every half tau / s of all transitions, for the largest error is where a mode rises, later from smaller weights
    errors, epochs = [], np.linspace(0, 6000, 25)
    for sigma in (1e-3, 1e-4):
        w1, w2 = random_weights(data, sigma, hidden)
        closed = leave_one_out_trajectory(data, epochs, tau=TAU, w1=w1, w2=w2)
        assert closed.attrs["method"] == "exact matrix solution"
        assert closed.attrs["formula"] == "leave-one-out"
        errors.append(np.abs(closed.values - flow_difference(data, w1, w2, epochs, -1.0)).max())
    # a relative error h sigma^2 of W changes losses |y - W x|^2 / 2 by at most |y|^2 h sigma^2
    assert errors[1] <= hidden * 1e-8 * np.square(data.targets).sum(axis=1).max()
    # the law: a factor of 100, within 3 as in the solution itself
    assert 100 / 3 <= errors[0] / errors[1] <= 300


def test_leaving_out_the_only_sample_stops_training():
    data = Dataset(np.eye(1), np.array([[1.5, 0.5]]))
    w1, w2 = random_weights(data, 1e-2, 3)
    loo = leave_one_out_trajectory(data, EPOCHS, tau=TAU, w1=w1, w2=w2)
    untrained = 0.5 * np.sum((data.targets - (w2 @ w1).T) ** 2)
    # the trained loss decays by e^{-4 s t / tau} = e^{-47}; integration to 1e-10 a step, 1e2 steps
    assert loo.values[0, 0, 0] == 0
    assert loo.values[-1, 0, 0] == pytest.approx(-untrained, abs=1e-8)


@pytest.mark.parametrize(
    ("n", "epsilon"),
    [(4, -0.5), (4, -1e-3), (4, 0.3), (4, 1.5), (6, -1.0), (6, -0.5), (6, -1e-3), (6, 0.3), (6, 1.5)],
)
def test_any_reweighting_is_the_integrated_flow(n, epsilon):
    """With four inputs and six samples no sample owns its input: leaving one out is integrated as well."""
    data = random_dataset(4, n=n, p=4, o=3)
    w1, w2 = random_weights(data, 0.1, 5)
    loo = leave_one_out_trajectory(data, EPOCHS, tau=TAU, w1=w1, w2=w2, epsilon=epsilon)
    assert loo.attrs["method"].startswith("gradient flow")
    assert loo.attrs["formula"] == ("leave-one-out" if epsilon == -1 else "finite reweighting")
    assert loo.attrs["epsilon"] == epsilon
    # each run is integrated to 1e-10 a step, a few of which make a transition: losses to 1e-9 of their size |y|^2
    size = np.square(data.targets).sum(axis=1).max()
    assert np.abs(loo.values - flow_difference(data, w1, w2, EPOCHS, epsilon)).max() <= 1e-9 * size / abs(epsilon)


def balanced_modes(data, strengths):
    u, s, v = singular_modes(data.syx)
    g0 = np.full(len(s), strengths[0]) if len(set(strengths)) == 1 else np.linspace(*strengths, len(s))
    hidden = np.linalg.qr(np.random.default_rng(0).normal(size=(len(s) + 1, len(s))))[0]
    return Modes(u, s, v, g0), hidden * np.sqrt(g0) @ v.T, u * np.sqrt(g0) @ hidden.T


@pytest.mark.parametrize(
    ("data", "strengths"),
    [
        (hierarchical_dataset(2), (1e-3, 1e-3)),
        (random_dataset(1, n=3, p=3, o=5), (1e-3, 3e-3)),
        (random_dataset(4, n=6, p=4, o=3), (1e-3, 3e-3)),
    ],
    ids=["tree", "square", "more samples than inputs"],
)
def test_small_reweighting_tends_to_the_influence(data, strengths):
    modes, w1, w2 = balanced_modes(data, strengths)
    exact = influence_trajectory(data, EPOCHS, tau=TAU, g0=modes, formula="sample-weight").values

    def reweighted(epsilon):
        return leave_one_out_trajectory(data, EPOCHS, tau=TAU, w1=w1, w2=w2, epsilon=epsilon).values

    one_sided = {e: reweighted(e) for e in (-4e-2, -2e-2, -1e-2, 1e-2, 2e-2, 4e-2)}
    central = {e: (one_sided[e] + one_sided[-e]) / 2 for e in (1e-2, 2e-2, 4e-2)}
    first = [np.abs(one_sided[e] - exact).max() for e in (2e-2, 1e-2)]
    fourth = [np.abs((4 * central[e] - central[2 * e]) / 3 - exact).max() for e in (2e-2, 1e-2)]
    # one-sided differences miss by a term in epsilon, extrapolated central ones by one in epsilon^4; corrections of
    # relative order epsilon s t / tau = 0.1
    assert first[0] / first[1] == pytest.approx(2, rel=0.1)
    assert fourth[0] / fourth[1] == pytest.approx(16, rel=0.1)
    # epsilon^4 times fifth derivatives over 5!, below (2 s t / tau)^5 / 5! ~ 3e2 near a transition
    assert fourth[1] <= 1e-5


def test_paper_settings_predict_retraining():
    """Every pair of the tree, 10,000 epochs from the very weights: by correlation and by slope."""
    data, config = hierarchical_dataset(), TrainingConfig()
    w1, w2 = (w.numpy() for w in initial_weights(data))
    retrained = leave_one_out(data, config)
    closed = leave_one_out_trajectory(data, config.checkpoint_epochs, tau=TAU, w1=w1, w2=w2)
    assert closed.dims == retrained.dims
    assert closed.sizes == {"epoch": 101, "source": 8, "query": 8}
    for source in data.names:
        for query in data.names:
            x, y = (trajectory.sel(source=source, query=query).values for trajectory in (closed, retrained))
            # One epoch is s / tau <= 3e-3 of a rise time, so the growth rate of a mode is off by 0.2 % and its rise,
            # log(s / g0) = 12 rise times after the start, by 2 % of its duration: slope to 1 %, correlation to 5e-4.
            assert np.corrcoef(x, y)[0, 1] >= 0.9995
            assert abs(np.polyfit(x, y, 1)[0] - 1) <= 0.01


def test_a_sample_helps_itself():
    """Without its sample a one-hot input is never learned: its loss stays at |y - W(0) x|^2 / 2."""
    data = hierarchical_dataset()
    w1, w2 = random_weights(data, 1e-3, 50)
    epochs = np.linspace(0, 20 * TAU, 41)
    loo = leave_one_out_trajectory(data, epochs, tau=TAU, w1=w1, w2=w2)
    own = np.stack([loo.values[:, i, i] for i in range(8)], axis=1)
    assert np.abs(own[0]).max() <= 1e-14
    assert own[1:].max() < 0
    # W x of the unseen input follows the second layer: |W2(t) W1(0) x| <= 3 sigma sqrt(h) |W2| <= 3e-3 * 7 * 2
    assert np.abs(own[-1] + 2.0).max() <= 2 * 3e-3 * 7 * 2


def test_chosen_sources():
    data = hierarchical_dataset(2)
    w1, w2 = random_weights(data, 1e-2)
    for epsilon in (-1.0, 0.2):
        everything = leave_one_out_trajectory(data, EPOCHS, tau=TAU, w1=w1, w2=w2, epsilon=epsilon)
        names = [data.names[2], data.names[0]]
        some = leave_one_out_trajectory(data, EPOCHS, tau=TAU, w1=w1, w2=w2, epsilon=epsilon, sources=names)
        assert some.dims == ("epoch", "source", "query")
        assert list(some.source.values) == names
        assert list(some["query"].values) == list(data.names)
        assert np.array_equal(some.values, everything.sel(source=names).values)


@pytest.mark.parametrize("epsilon", [-1.0, 0.2])
def test_queries_outside_the_training_set(epsilon):
    """A query's loss is that of its own input and target; one that repeats a sample has the sample's."""
    data = hierarchical_dataset(2)
    w1, w2 = random_weights(data, 1e-2)
    rng = np.random.default_rng(2)
    outside = Dataset(np.vstack([data.inputs[2], rng.normal(size=4)]), np.vstack([data.targets[2], rng.normal(size=7)]))
    options = {"tau": TAU, "w1": w1, "w2": w2, "epsilon": epsilon}
    asked = leave_one_out_trajectory(data, EPOCHS, sources=["leaf-0"], queries=outside, **options)
    inside = leave_one_out_trajectory(data, EPOCHS, sources=["leaf-0"], **options)
    assert list(asked["query"].values) == list(outside.names)
    np.testing.assert_allclose(asked[..., 0], inside.sel(query="leaf-2"), rtol=0, atol=1e-13)
    weights = np.ones(4) + epsilon * np.eye(4)[0]
    runs = [gradient_flow(data, w1, w2, EPOCHS, tau=TAU, weights=w, tolerance=1e-12) for w in (np.ones(4), weights)]
    before, after = (per_sample_losses(run.maps, outside).numpy() for run in runs)
    # as for the training set: h sigma^2 = 6e-4 of the losses for the closed form, 1e-9 for the integrated one
    size = (
        np.square(outside.targets).sum(axis=1).max() + np.square(data.targets).sum() * np.square(outside.inputs).sum()
    )
    bound = 6e-4 if epsilon == -1 else 1e-9 / epsilon
    assert np.abs(asked.values[:, 0] - (after - before) / epsilon).max() <= bound * size
    grouped = leave_group_out_trajectory(
        data, EPOCHS, tau=TAU, w1=w1, w2=w2, epsilon=epsilon, groups={"one": ["leaf-0"]}, queries=outside
    )
    np.testing.assert_array_equal(grouped, asked)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_coordinates_do_not_matter(seed):
    """Rotating inputs, outputs and hidden units leaves every loss difference as it was."""
    rng = np.random.default_rng(seed)
    data = random_dataset(seed, n=3, p=3, o=4)
    rotate_in, rotate_out, rotate_hidden = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (3, 4, 5))
    rotated = Dataset(data.inputs @ rotate_in.T, data.targets @ rotate_out.T, data.names)
    w1, w2 = random_weights(data, 0.05, 5, seed)
    base = leave_one_out_trajectory(data, EPOCHS, tau=TAU, w1=w1, w2=w2)
    other = leave_one_out_trajectory(
        rotated, EPOCHS, tau=TAU, w1=rotate_hidden @ w1 @ rotate_in.T, w2=rotate_out @ w2 @ rotate_hidden.T
    )
    # eps |Q| over the smallest overlap (1e-2 of the weights for an unlucky orientation), times a loss of order 10;
    # the hidden rotation between both layers and the unseen direction adds no more. Weights that are too unbalanced for
    # the closed form are integrated, to 1e-9 of the map, whose steps a rotation places elsewhere: again times a loss.
    integrated = "DOP853" in base.attrs["method"]
    assert np.abs(other.values - base.values).max() <= (1e-8 if integrated else 1e-10)


def test_nothing_has_happened_at_time_zero():
    for n in (3, 5):
        data = random_dataset(1, n=n, p=3, o=2)
        w1, w2 = random_weights(data, 0.1)
        loo = leave_one_out_trajectory(data, [0.0], tau=TAU, w1=w1, w2=w2)
        assert np.abs(loo.values).max() <= 1e-14


def good_call(**change):
    arguments = {"dataset": hierarchical_dataset(2), "epochs": [0.0, 10.0], "tau": TAU}
    arguments |= {"w1": np.full((3, 4), 1e-3), "w2": np.full((7, 3), 1e-3)} | change
    return leave_one_out_trajectory(arguments.pop("dataset"), arguments.pop("epochs"), **arguments)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dataset": Dataset(2 * np.eye(4), np.eye(4, 7))}, "leave_one_out_trajectory needs whitened inputs"),
        ({"epsilon": 0.0}, "epsilon must be at least -1"),
        ({"epsilon": -1.5}, "epsilon must be at least -1"),
        ({"epsilon": np.nan}, "epsilon holds a non-finite value"),
        ({"epochs": [10.0, 0.0]}, "epochs must be an increasing list of times"),
        ({"epochs": [1.0, 1.0]}, "epochs must be an increasing list of times"),
        ({"epochs": 5.0}, "epochs must be an increasing list of times"),
        ({"epochs": [-1.0, 0.0]}, "epochs must not be negative"),
        ({"epochs": [0.0, np.inf]}, "epochs holds a non-finite value"),
        ({"tau": 0.0}, "tau must be a positive number"),
        ({"w1": np.ones((3, 5))}, r"w1 has shape \(3, 5\), but \(any, 4\) is needed"),
        ({"w2": np.ones((7, 2))}, r"w2 has shape \(7, 2\), but \(7, 3\) is needed"),
        ({"w2": np.ones((6, 3))}, r"w2 has shape \(6, 3\), but \(7, 3\) is needed"),
        ({"w1": np.full((3, 4), np.nan)}, "w1 holds a non-finite value"),
        ({"queries": Dataset(np.eye(2), np.eye(2))}, "queries have 2 inputs and 2 outputs, but the training set has 4"),
    ],
)
def test_bad_input_is_refused(change, sentence):
    good_call()
    with pytest.raises(ValueError, match=sentence):
        good_call(**change)


def test_unknown_source_is_refused():
    with pytest.raises(KeyError, match="no sample is called 'wolf'"):
        good_call(sources=["wolf"])


def test_leaving_a_group_out_is_a_flow_without_its_members():
    data = hierarchical_dataset(2)
    w1, w2 = random_weights(data, 1e-3, 9)
    groups = {"left": ["leaf-0", "leaf-1"], "ends": ["leaf-3", "leaf-0"], "everything": list(data.names)}
    closed = leave_group_out_trajectory(data, EPOCHS, tau=TAU, w1=w1, w2=w2, groups=groups)
    assert closed["source"].values.tolist() == list(groups)

    def losses(weights):
        run = gradient_flow(data, w1, w2, EPOCHS, tau=TAU, weights=weights, tolerance=1e-12)
        return per_sample_losses(run.maps, data).numpy()

    for name, members in groups.items():
        weights = np.array([float(leaf not in members) for leaf in data.names])
        expected = losses(np.ones(4)) - losses(weights)
        # as in the test of single samples: h sigma^2 of the losses
        assert np.abs(closed.sel(source=name) - expected).max() <= 9e-6 * np.square(data.targets).sum(axis=1).max()


def test_a_group_of_one_is_leaving_one_out_and_groups_do_not_add_up():
    data = hierarchical_dataset(2)
    w1, w2 = random_weights(data, 1e-3, 9)
    single = leave_one_out_trajectory(data, EPOCHS, tau=TAU, w1=w1, w2=w2, sources=["leaf-0", "leaf-1"])
    groups = {"first": ["leaf-0"], "both": ["leaf-0", "leaf-1"]}
    grouped = leave_group_out_trajectory(data, EPOCHS, tau=TAU, w1=w1, w2=w2, groups=groups)
    np.testing.assert_array_equal(grouped.sel(source="first"), single.sel(source="leaf-0"))
    assert np.abs(grouped.sel(source="both") - single.sum("source")).max() > 0.1


def test_reweighting_a_group_is_the_integrated_flow():
    data = hierarchical_dataset(1)
    w1, w2 = random_weights(data, 1e-3)
    out = leave_group_out_trajectory(data, [900.0], tau=TAU, w1=w1, w2=w2, groups={"all": data.names}, epsilon=0.5)
    runs = [gradient_flow(data, w1, w2, [900.0], tau=TAU, weights=np.full(2, c), tolerance=1e-12) for c in (1.0, 1.5)]
    base, changed = (per_sample_losses(run.maps, data).numpy() for run in runs)
    # integration at 1e-10 relative over steps that grow e^{2 s t / tau} = 25 at most
    np.testing.assert_allclose(out.sel(source="all"), (changed - base) / 0.5, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("groups", "error", "match"),
    [
        ({}, ValueError, "groups names no group"),
        ({"none": []}, ValueError, "group 'none' must name at least one sample"),
        ({"twice": ["leaf-0", "leaf-0"]}, ValueError, "group 'twice' must name at least one sample and none twice"),
        ({"alien": ["wolf"]}, KeyError, "no sample is called 'wolf'"),
    ],
)
def test_bad_groups_are_refused(groups, error, match):
    data = hierarchical_dataset(1)
    w1, w2 = random_weights(data, 1e-3)
    with pytest.raises(error, match=match):
        leave_group_out_trajectory(data, [1.0], tau=TAU, w1=w1, w2=w2, groups=groups)
