"""Embeddings against the distances they keep, and branching against the modes that make it."""

import numpy as np
import pytest
import torch

from numerics import (
    Checkpoints,
    ModuleCheckpoints,
    Samples,
    TorchModel,
    TrainingConfig,
    branching_epochs,
    classical_mds,
    gradient_flow,
    hidden_representations,
    linear_as_module,
    representation_embedding,
    train,
)
from theory import (
    half_rise_time,
    hierarchical_dataset,
    hierarchical_structure,
    linear_network_factors,
    mode_strength,
)

EPS = np.finfo(float).eps
DATA = hierarchical_dataset()
EXACT = hierarchical_structure()
TAU = 1200.0


def halves(mode):
    """Return the names on the two sides of a distinction of the tree."""
    side = EXACT.right[:, mode]
    return tuple([name for name, v in zip(DATA.names, side, strict=True) if v * sign > 0] for sign in (1, -1))


BRANCHES = {f"mode {mode}": halves(mode) for mode in range(1, 8)}


def pairwise(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def aligned_start(strengths, hidden=10):
    """Return balanced weights that hold mode k of the tree at the given strength."""
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(hidden, 8)))[0]
    root = np.sqrt(strengths)
    return frame * root @ EXACT.right.T, EXACT.left * root @ frame.T


@pytest.fixture(scope="module")
def trained():
    return train(DATA, TrainingConfig(seed=2)).checkpoints


# --- classical scaling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5, 40])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_euclidean_distances_are_kept(n, d):
    points = np.random.default_rng(n + d).normal(size=(n, d))
    placed = classical_mds(pairwise(points), dims=min(n, d))
    # Eigenvalues of B carry n eps times its size, at most n times the squared diameter; coordinates are their roots.
    diameter = pairwise(points).max()
    np.testing.assert_allclose(pairwise(placed), pairwise(points), rtol=0, atol=np.sqrt(n * n * EPS) * diameter)
    np.testing.assert_allclose(placed.mean(0), 0, atol=n * EPS * diameter)


def test_fewer_axes_keep_the_largest_spreads():
    points = np.random.default_rng(0).normal(size=(30, 5)) * [5, 4, 3, 2, 1]
    placed = classical_mds(pairwise(points), dims=2)
    leading = np.linalg.eigvalsh(np.cov(points.T, bias=True))[::-1][:2]
    # Gaps between the variances are of their own order, so both eigenproblems are good to a few hundred eps.
    np.testing.assert_allclose(placed.T @ placed / 30, np.diag(leading), rtol=1e-12, atol=1e-12 * leading[0])


def test_equal_spreads_are_settled_by_the_points_themselves():
    square = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    # The first corner gives the first axis, the next corner that is not on it the second.
    np.testing.assert_allclose(classical_mds(pairwise(square)), square, atol=8 * EPS)
    turned = square @ np.array([[0.6, 0.8], [-0.8, 0.6]])
    np.testing.assert_allclose(classical_mds(pairwise(turned)), square, atol=8 * EPS)


def test_the_first_far_point_lies_on_the_positive_side():
    line = np.array([0.1, -1.0, 1.2, -0.3])
    placed = classical_mds(pairwise(line[:, None]), dims=1)[:, 0]
    np.testing.assert_allclose(placed, -line, atol=32 * EPS)


@pytest.mark.parametrize(
    ("distances", "dims", "match"),
    [
        (np.ones((2, 3)), 1, r"of shape \(2, 3\) is not"),
        ([[0.0, 1.0], [2.0, 0.0]], 1, "must be a symmetric square matrix"),
        ([[1.0, 1.0], [1.0, 0.0]], 1, "zeros on its diagonal"),
        ([[0.0, -1.0], [-1.0, 0.0]], 1, "distances must not be negative"),
        ([[0.0, np.nan], [np.nan, 0.0]], 1, "distances holds a non-finite value"),
        ([[0.0, 1.0], [1.0, 0.0]], 3, "2 points span fewer than 3 dimensions"),
        ([[0.0, 1.0], [1.0, 0.0]], 0, "dims must be at least 1"),
        ([[0.0, 1.0, 9.0], [1.0, 0.0, 1.0], [9.0, 1.0, 0.0]], 3, "no points in 3 dimensions.*at most 1 dimensions"),
    ],
)
def test_what_are_not_distances_is_refused(distances, dims, match):
    with pytest.raises(ValueError, match=match):
        classical_mds(distances, dims=dims)


# --- hidden representations ------------------------------------------------------------------------------------


def test_a_linear_network_and_its_module_have_the_same_hidden_layer(trained):
    hidden = hidden_representations(DATA, trained)
    assert hidden.dims == ("epoch", "sample", "unit")
    # One-hot inputs: the representations are the columns of W_1.
    np.testing.assert_array_equal(hidden.values, trained.w1.mT.numpy())

    class Named(torch.nn.Module):
        def __init__(self, w1, w2):
            super().__init__()
            self.below, self.above = (torch.nn.Linear(*w.shape[::-1], bias=False).double() for w in (w1, w2))

        def forward(self, inputs):
            return self.above(self.below(inputs))

    weights = linear_as_module(trained).weights
    module = ModuleCheckpoints(trained.epochs, TorchModel(Named(trained.w1[0], trained.w2[0])), weights)
    np.testing.assert_allclose(hidden_representations(DATA, module, layer="below"), hidden, rtol=1e-15)


def test_any_layer_of_any_shape_can_be_asked_for():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(6, 2))
    samples = Samples(torch.randn(4, 1, 5), torch.zeros(4, 2))
    model = TorchModel(net)
    checkpoints = ModuleCheckpoints(np.array([0, 9]), model, torch.stack([model.initial(), 2 * model.initial()]))
    hidden = hidden_representations(samples, checkpoints, layer="1")
    expected = net[1](net[0](samples.inputs)).flatten(1).detach().numpy()
    np.testing.assert_array_equal(hidden.sel(epoch=0), expected)
    assert not model.module[1]._forward_hooks


def test_layers_that_are_not_there_are_refused(trained):
    def branching(layer):
        model = TorchModel(torch.nn.Sequential(torch.nn.Linear(8, 3), torch.nn.Linear(3, 15)).double())
        run = ModuleCheckpoints(np.array([0]), model, model.initial()[None])
        return hidden_representations(DATA, run, layer=layer)

    assert branching("0").sizes["unit"] == 3
    for layer in (None, "2"):
        with pytest.raises(ValueError, match=r"no layer called .*; there are 0, 1"):
            branching(layer)
    with pytest.raises(ValueError, match="a linear network has one hidden layer, but layer='0'"):
        hidden_representations(DATA, trained, layer="0")
    with pytest.raises(ValueError, match="reads 8 inputs, but the samples have shape"):
        hidden_representations(Samples(torch.zeros(2, 5), torch.zeros(2, 15)), trained)

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.step, self.unused = torch.nn.Linear(8, 8), torch.nn.Linear(1, 1)

        def forward(self, inputs):
            return self.step(self.step(inputs))

    model = TorchModel(Twice())
    run = ModuleCheckpoints(np.array([0]), model, model.initial()[None])
    for layer in ("step", "unused"):
        with pytest.raises(ValueError, match=f"layer '{layer}' must be called once a forward pass"):
            hidden_representations(Samples(torch.zeros(2, 8), torch.zeros(2, 8)), run, layer=layer)


# --- embedding over training -----------------------------------------------------------------------------------


def test_the_embedding_is_classical_scaling_of_all_epochs_together(trained):
    few = trained.at([0, 2000, 4000, 7000, 10_000])
    placed = representation_embedding(DATA, few, dims=3)
    assert placed.dims == ("epoch", "sample", "axis")
    pooled = few.w1.mT.reshape(-1, few.w1.shape[1]).numpy()
    expected = classical_mds(pairwise(pooled), dims=3)
    found = placed.values.reshape(-1, 3)
    signs = np.sign(np.sum(found * expected, axis=0))
    # Spreads of different axes differ by 1e-2 relative or more, so vectors are good to n eps / 1e-2.
    np.testing.assert_allclose(found, expected * signs, rtol=0, atol=40 * EPS / 1e-2 * np.abs(expected).max())
    total = np.sum((pooled - pooled.mean(0)) ** 2)
    np.testing.assert_allclose(placed["explained"], np.sum(expected**2, axis=0) / total, rtol=1e-12)


def test_each_axis_shows_a_distinction_of_the_tree():
    """Equal strengths in a level give equal spreads, and the samples in order give the branches in order."""
    w1, w2 = aligned_start(np.full(8, 1e-3))
    flow = gradient_flow(DATA, w1, w2, [0.0, 2000.0, 4000.0, 20_000.0], tau=TAU)
    placed = representation_embedding(DATA, flow, dims=3)
    g = mode_strength(flow.epochs[:, None], EXACT.values, 1e-3, TAU)
    expected = np.sqrt(g[:, None, 1:4]) * np.abs(EXACT.right[:, 1:4]) * np.sign(EXACT.right[:, 1:4])
    # Representations to the flow's error of 1e-10 a step, a few hundred steps; the block of level 2 is settled by dog
    # and pine, the first samples of its two branches.
    np.testing.assert_allclose(placed.values, expected, rtol=0, atol=1e-7)


def test_embedding_refuses_too_many_axes(trained):
    with pytest.raises(ValueError, match="span fewer than 51 dimensions; ask for at most 50"):
        representation_embedding(DATA, trained, dims=51)
    still = Checkpoints(np.array([0]), torch.zeros(1, 2, 8), torch.zeros(1, 15, 2))
    assert not representation_embedding(DATA, still).values.any()


# --- branching -------------------------------------------------------------------------------------------------


def test_a_level_branches_at_the_half_rise_time_of_its_mode():
    strengths = np.array([1e-3, 2e-3, 1e-3, 3e-3, 1e-3, 2e-3, 3e-3, 4e-3])
    every = 20.0
    epochs = np.arange(0.0, 20_001.0, every)
    flow = gradient_flow(DATA, *aligned_start(strengths), epochs, tau=TAU)
    found = branching_epochs(DATA, flow, BRANCHES)
    s = EXACT.values[1:]
    expected = half_rise_time(s, strengths[1:], TAU)
    # Linear interpolation in [0, D] misses by at most D^2 / 8 |g''| / g', and within D of the inflection at s / 2
    # |g''| / g' = 2 |s - 2 g| / tau <= 2 s^2 D / tau^2. Integration adds 1e-10 a step, a few hundred steps, over g'.
    bound = every**3 * s**2 / (4 * TAU**2) + 1e-7 * 2 * TAU / s
    assert np.all(np.abs(found.values - expected) < bound)
    # It is also where the squared distance rises fastest: the steepest interval holds it.
    for mode, half in enumerate(expected, start=1):
        first, second = (flow.w1.mT.numpy()[:, [DATA.index(n) for n in side]].mean(1) for side in halves(mode))
        steepest = int(np.argmax(np.diff(np.sum((first - second) ** 2, axis=1))))
        # The rise over an interval is symmetric about the inflection, so its centre is within D / 2 of it.
        assert abs(epochs[steepest] + every / 2 - half) <= every / 2 + 1e-6


def test_descent_from_random_weights_branches_as_the_exact_solution_says(trained):
    every = 100
    found = branching_epochs(DATA, trained, BRANCHES).values
    fine = np.arange(0, 10_001.0)
    w1 = linear_network_factors(trained.w1[0].numpy(), trained.w2[0].numpy(), DATA.syx, fine, TAU)[0]
    for mode, epoch in enumerate(found, start=1):
        contrast = np.zeros(8)
        for side, sign in zip(halves(mode), (1, -1), strict=True):
            contrast[[DATA.index(n) for n in side]] = sign / len(side)
        apart = np.sum((w1 @ contrast) ** 2, axis=1)
        expected = fine[np.argmax(apart >= apart[-1] / 2)]
        s = EXACT.values[mode]
        # Descent grows at log(1 + s / tau) an epoch where the flow grows at s / tau: s / (2 tau) slower, relatively.
        # Interpolation as above, with twice its bound for blocks of two and more strengths; a grid of one epoch.
        assert -1 - every**3 * s**2 / (2 * TAU**2) <= epoch - expected
        assert epoch - expected <= expected * s / (2 * TAU) + 1 + every**3 * s**2 / (2 * TAU**2)


def test_branches_follow_the_hierarchy(trained):
    found = branching_epochs(DATA, trained, BRANCHES)
    by_level = [found.values[EXACT.levels[1:] == level] for level in (1, 2, 3)]
    assert by_level[0].max() < by_level[1].min()
    assert by_level[1].max() < by_level[2].min()
    assert list(found["branch"].values) == list(BRANCHES)


def test_groups_apart_from_the_start_have_no_branching_epoch(trained):
    late = trained.at([9000, 10_000])
    assert np.isnan(branching_epochs(DATA, late, {"top": halves(1)}).values).all()


@pytest.mark.parametrize(
    ("branches", "fraction", "error", "match"),
    [
        ({}, 0.5, ValueError, "branches is empty"),
        ({"a": ([], ["dog"])}, 0.5, ValueError, "branch 'a' has an empty group"),
        ({"a": (["dog", "cat"], ["cat"])}, 0.5, ValueError, "'cat' is in both groups of branch 'a'"),
        ({"a": (["dog"], ["whale"])}, 0.5, KeyError, "no sample is called 'whale'"),
        ({"a": (["dog"], ["cat"])}, 1.0, ValueError, "fraction must lie between 0 and 1, but 1.0"),
        ({"a": (["dog"], ["cat"])}, 0.0, ValueError, "fraction must be a positive number"),
    ],
)
def test_bad_branches_are_refused(trained, branches, fraction, error, match):
    with pytest.raises(error, match=match):
        branching_epochs(DATA, trained, branches, fraction=fraction)


def test_groups_that_never_part_are_refused():
    still = Checkpoints(np.array([0, 1]), torch.ones(2, 2, 8), torch.ones(2, 15, 2))
    with pytest.raises(ValueError, match="branch 'top' never part: their centroids are the same"):
        branching_epochs(DATA, still, {"top": halves(1)})
