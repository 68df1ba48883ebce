"""Influence from a training function of the user's, on executors and from stores: right, resumable, or refused."""

import functools
import json
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
import xarray as xr

from numerics import (
    SGD,
    Checkpoints,
    DamagedResultWarning,
    FitWarning,
    ModuleCheckpoints,
    Query,
    Samples,
    StoreMismatch,
    TorchModel,
    TrainedWeightsWarning,
    TrainingConfig,
    TrainingDiverged,
    leave_group_out,
    leave_one_out,
    margin,
    retrain,
    timed_ablation,
    train,
    unrolled_influence,
)
from theory import hierarchical_dataset

EPS = np.finfo(float).eps
CROSS_ENTROPY = functools.partial(torch.nn.functional.cross_entropy, reduction="none")
EPOCHS = (0, 4, 8)


def classes(n=6, seed=0, name="s"):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return Samples(inputs, torch.randint(3, (n,), generator=generator), tuple(f"{name}{i}" for i in range(n)))


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()


DATA, OTHERS = classes(), classes(3, seed=5, name="q")
MODEL = TorchModel(network(), CROSS_ENTROPY)
OURS = TrainingConfig(lr=0.1, epochs=8, checkpoint_every=4, optimiser=SGD(momentum=0.5))


def fit(sample_weights, seed):
    """Train with torch's own optimiser; what `OURS` does for the seed that the module was built with."""
    module = network(seed)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.5)
    kept = []
    for epoch in range(9):
        if epoch in EPOCHS:
            kept.append(torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone())
        optimiser.zero_grad()
        (torch.tensor(sample_weights) * CROSS_ENTROPY(module(DATA.inputs), DATA.targets)).mean().backward()
        optimiser.step()
    return ModuleCheckpoints(np.array(EPOCHS), MODEL, torch.stack(kept))


def losses_of(sample_weights, seed):
    run = fit(sample_weights, seed)
    return {epoch: MODEL.losses(run.weights[t], OTHERS) for t, epoch in enumerate(EPOCHS)}


def array_of(sample_weights, seed):
    losses = losses_of(sample_weights, seed)
    values = np.array([row.detach().numpy() for row in losses.values()]).T
    return xr.DataArray(values, dims=("query", "epoch"), coords={"epoch": list(EPOCHS), "query": list(OTHERS.names)})


# 8 epochs of a few hundred operations on numbers of order one.
ROUNDING = 8 * 1000 * EPS


@pytest.mark.parametrize("own", [fit, losses_of, array_of])
def test_it_is_our_own_training_if_it_takes_the_same_steps(own):
    expected = leave_one_out(DATA, OURS, model=MODEL, queries=OTHERS, epsilon=-0.5)
    found = leave_one_out(DATA, fit=own, queries=OTHERS, epsilon=-0.5)
    assert found.dims == ("epoch", "source", "query")
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * ROUNDING)
    assert list(found["query"].values) == list(OTHERS.names)
    assert found.attrs["training"] == "fit"
    assert found.attrs["repeat_difference"] == 0.0
    groups = {"pair": ["s1", "s4"]}
    np.testing.assert_allclose(
        leave_group_out(DATA, groups, fit=own, queries=OTHERS),
        leave_group_out(DATA, groups, OURS, model=MODEL, queries=OTHERS),
        rtol=0,
        atol=4 * ROUNDING,
    )


def test_seeds_are_handed_over_and_queries_may_be_anything():
    asked = [Query(OTHERS, margin), {"size": lambda parameters: parameters["0.weight"].square().sum()}]
    found = leave_one_out(DATA, fit=fit, queries=asked, seeds=[3, 0], sources=["s2"])
    assert found.dims == ("seed", "epoch", "source", "query")
    for seed in (3, 0):
        model = TorchModel(network(seed), CROSS_ENTROPY)
        expected = leave_one_out(DATA, OURS, model=model, queries=asked, sources=["s2"])
        np.testing.assert_allclose(found.sel(seed=seed), expected, rtol=0, atol=20 * ROUNDING)


def test_any_weights_reach_fit_as_they_are():
    seen = []

    def noting(sample_weights, seed):
        seen.append((sample_weights.shape, seed))
        return {0: sample_weights.reshape(-1, 6).sum(0)}

    schedule = np.arange(30.0).reshape(5, 6)
    runs = retrain(DATA, {"whole": np.ones(6), "schedule": schedule}, fit=noting, repeat=False)
    assert seen == [((6,), 0), ((5, 6), 0)]
    np.testing.assert_array_equal(runs.sel(run="schedule", epoch=0), schedule.sum(0))


def linear_fit(sample_weights, seed):
    return train(hierarchical_dataset(), SMALL, weights=sample_weights)


SMALL = TrainingConfig(hidden=4, sigma=0.1, epochs=40, checkpoint_every=20)


def test_linear_networks_may_be_returned():
    data = hierarchical_dataset()
    expected = leave_one_out(data, SMALL, sources=["dog", "oak"])
    for own in (linear_fit, lambda beta, seed: linear_fit(beta, seed).checkpoints):
        found = leave_one_out(data, fit=own, sources=["dog", "oak"])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1000 * EPS * 40)
    assert isinstance(linear_fit(np.ones(8), 0).checkpoints, Checkpoints)


class Spawning(ProcessPoolExecutor):
    def __init__(self):
        super().__init__(2, mp_context=get_context("spawn"))


@pytest.mark.parametrize("pool", [functools.partial(ThreadPoolExecutor, 3), Spawning])
def test_any_executor_gives_the_same_bits(pool):
    data = hierarchical_dataset()
    with pool() as executor:
        together = leave_one_out(data, fit=linear_fit, executor=executor, sources=["dog", "oak"])
        ours = leave_one_out(data, SMALL, executor=executor, sources=["dog", "oak"], seeds=[2, 5])
    np.testing.assert_array_equal(together, leave_one_out(data, fit=linear_fit, sources=["dog", "oak"]))
    np.testing.assert_array_equal(ours, leave_one_out(data, SMALL, sources=["dog", "oak"], seeds=[2, 5]))


@pytest.mark.parametrize("keywords", [{}, {"seeds": [3, 8]}, {"initial": MODEL.initial() * 0.5}])
def test_runs_of_a_module_one_by_one_are_those_side_by_side(keywords, tmp_path):
    config = TrainingConfig(lr=0.1, epochs=8, checkpoint_every=4, optimiser=SGD(momentum=0.5), batch_size=4, seed=9)
    expected = leave_one_out(DATA, config, model=MODEL, queries=OTHERS, **keywords)
    with ThreadPoolExecutor(3) as executor:
        found = leave_one_out(DATA, config, model=MODEL, queries=OTHERS, executor=executor, store=tmp_path, **keywords)
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * ROUNDING)
    assert found.attrs == expected.attrs
    assert found["epoch"].dtype == expected["epoch"].dtype


def test_an_interrupted_call_goes_on_where_it_stopped(tmp_path, monkeypatch):
    done = []

    def stop(count):
        done.append(count)
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_one_out(DATA, fit=losses_of, queries=OTHERS, store=tmp_path, progress=stop)
    assert len(list(tmp_path.glob("*.json"))) == 1 + 3
    made = []
    monkeypatch.setattr("numerics.training.own_training.OwnTraining.__call__", _noting(made))
    found = leave_one_out(DATA, fit=losses_of, queries=OTHERS, store=tmp_path)
    assert len(made) == 7 + 1 - 3
    np.testing.assert_array_equal(found, leave_one_out(DATA, fit=losses_of, queries=OTHERS))
    # More sources cost only their own runs, and the same call none.
    made.clear()
    leave_one_out(DATA, fit=losses_of, queries=OTHERS, store=tmp_path, sources=["s1"])
    leave_group_out(DATA, {"two": ["s1", "s2"]}, fit=losses_of, queries=OTHERS, store=tmp_path)
    assert made == ["two"]


def _noting(made):
    from numerics.training.own_training import OwnTraining

    original = OwnTraining.__call__

    def call(self, name, beta, seed):
        made.append(name)
        return original(self, name, beta, seed)

    return call


def test_a_damaged_result_is_computed_again(tmp_path):
    expected = leave_one_out(DATA, fit=losses_of, queries=OTHERS, store=tmp_path)
    for path in sorted(tmp_path.glob("*.json"))[:2]:
        if path.name != "retraining.json":
            path.write_text(path.read_text()[:-40])
    (tmp_path / "x.json.1.partial").write_text("half")
    with pytest.warns(DamagedResultWarning):
        found = leave_one_out(DATA, fit=losses_of, queries=OTHERS, store=tmp_path)
    np.testing.assert_array_equal(found, expected)


def other_fit(sample_weights, seed):
    return {epoch: 2 * row for epoch, row in losses_of(sample_weights, seed).items()}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"fit": other_fit}, "fit"),
        ({"queries": classes(3, seed=6, name="q")}, "queries"),
        ({"dataset": classes(seed=9)}, "training set"),
    ],
)
def test_a_store_of_another_call_is_refused(tmp_path, change, what):
    call = {"dataset": DATA, "fit": losses_of, "queries": OTHERS, "store": tmp_path, "sources": ["s1"]}
    leave_one_out(**call)
    with pytest.raises(StoreMismatch, match=f"belongs to another retraining: its {what}"):
        leave_one_out(**(call | change))


def test_a_store_of_our_training_sees_settings_and_the_model(tmp_path):
    call = {"dataset": DATA, "config": OURS, "model": MODEL, "store": tmp_path, "sources": ["s1"]}
    first = leave_one_out(**call)
    np.testing.assert_array_equal(leave_one_out(**call), first)
    assert set(json.loads((tmp_path / "retraining.json").read_text())) >= {"settings", "model", "training set"}
    for change, what in (
        ({"config": TrainingConfig(lr=0.2, epochs=8, checkpoint_every=4)}, "settings"),
        ({"model": TorchModel(network(1), CROSS_ENTROPY)}, "model"),
        ({"model": TorchModel(network(), torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1))}, "model"),
    ):
        with pytest.raises(StoreMismatch, match=f"its {what}"):
            leave_one_out(**(call | change))
    # Other initial weights are other runs of the same store.
    other = leave_one_out(**call, initial=MODEL.initial() * 0.5)
    assert abs(other - first).max() > 1e-6


def test_chance_and_blindness_are_warned_of():
    generator = np.random.default_rng(0)

    def noisy(sample_weights, seed):
        return {0: sample_weights + 0.1 * generator.normal(size=6)}

    with pytest.warns(FitWarning, match="two runs of fit with the same sample weights and seed differ by up to 0"):
        found = leave_one_out(DATA, fit=noisy)
    assert found.attrs["repeat_difference"] > 0.01
    with pytest.warns(FitWarning, match="fit gave the same losses for all sample weights; does it multiply"):
        leave_one_out(DATA, fit=lambda sample_weights, seed: {0: np.ones(6)})


def _failing(sample_weights, seed):
    raise RuntimeError("no more disk")


def test_an_error_of_fit_says_in_which_run():
    with pytest.raises(RuntimeError, match="no more disk") as caught:
        leave_one_out(DATA, fit=_failing)
    assert caught.value.__notes__ == ["It was raised by fit in run 'baseline' with seed 0."]


def _without_middle(sample_weights, seed):
    return {0: np.ones(6)} if sample_weights.all() else {0: np.ones(6), 5: np.ones(6)}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"fit": lambda w, s: None}, TypeError, "fit returned nothing for run 'baseline'; it must return ModuleCheck"),
        (
            {"fit": lambda w, s: np.ones((3, 6))},
            TypeError,
            r"fit returned ndarray of shape \(3, 6\) for run 'baseline'",
        ),
        ({"fit": lambda w, s: {}}, TypeError, "fit returned dict"),
        (
            {"fit": lambda w, s: {0: np.ones(5)}},
            ValueError,
            "fit returned 5 losses an epoch .* but there are 6 queries",
        ),
        ({"fit": lambda w, s: {0: np.ones((6, 2))}}, ValueError, r"fit returned losses of shapes \(6, 2\)"),
        ({"fit": lambda w, s: {0: np.ones(6), 1: np.ones(5)}}, ValueError, r"of shapes \(5,\), \(6,\) for run"),
        ({"fit": lambda w, s: {"end": np.ones(6)}}, ValueError, "which are no epochs"),
        ({"fit": lambda w, s: {3: np.ones(6), 1: np.ones(6)}}, ValueError, "strictly increasing"),
        ({"fit": lambda w, s: {0: ["a"] * 6}}, TypeError, "losses that are no numbers for run 'baseline'"),
        ({"fit": lambda w, s: xr.DataArray(np.ones((2, 6)), dims=("t", "q"))}, ValueError, "dims"),
        ({"fit": lambda w, s: {0: w / w.sum() + np.log(w - 0.5)}}, TrainingDiverged, "not finite, at epoch 0 of s0"),
        ({"fit": _without_middle}, ValueError, r"other epochs for run 's0' \(0, 5\) than for 'baseline' \(0\)"),
        ({"fit": 3}, TypeError, "fit"),
        ({"fit": losses_of, "config": OURS}, ValueError, "fit trains by itself, so config would not be used"),
        ({"fit": losses_of, "model": MODEL, "initial": np.ones(43)}, ValueError, "so model, initial would not be"),
        ({"fit": fit, "queries": hierarchical_dataset()}, ValueError, "cannot evaluate inputs of shape"),
        ({"fit": losses_of, "seeds": [1, 1]}, ValueError, "seeds must be distinct"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_fit_should_not_be_is_refused(change, error, match):
    with pytest.raises(error, match=match):
        leave_one_out(**({"dataset": DATA} | change))


def test_what_cannot_be_sent_is_refused_before_any_run():
    with ProcessPoolExecutor(1) as executor:
        with pytest.raises(TypeError, match=r"cannot be sent to worker processes: .* Define fit, module"):
            leave_one_out(DATA, fit=lambda w, s: {0: w}, executor=executor)
        with pytest.raises(ValueError, match="give both w1 and w2 or neither"):
            leave_one_out(hierarchical_dataset(), SMALL, w1=np.ones((4, 8)), executor=executor)
    with pytest.raises(ValueError, match=r"weights.*has shape"):
        retrain(DATA, {"a": np.ones(5)}, fit=losses_of)


def test_weights_that_look_trained_are_warned_of():
    learned = train(DATA, TrainingConfig(lr=1.0, epochs=400, checkpoint_every=400), model=MODEL).checkpoints
    module = network()
    torch.nn.utils.vector_to_parameters(learned.weights[-1], module.parameters())
    trained = TorchModel(module, CROSS_ENTROPY)
    short = TrainingConfig(lr=0.1, epochs=2, checkpoint_every=2)
    calls = [
        functools.partial(leave_one_out, DATA, short, sources=["s1"]),
        functools.partial(timed_ablation, DATA, short, window=2, sources=["s1"]),
        functools.partial(unrolled_influence, DATA, short, sources=["s1"]),
    ]
    for call in calls:
        with pytest.warns(TrainedWeightsWarning, match="retraining starts from the weights that the module holds, and"):
            call(model=trained)
        call(model=trained, initial=trained.initial())
        call(model=MODEL)
    leave_one_out(DATA, short, sources=["s1"], model=trained, seeds=[0])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["classes", "regression", "deep", "two samples", "autoencoder"])
def test_new_weights_do_not_look_trained(kind, seed):
    torch.manual_seed(seed)
    inputs = torch.randn(2 if kind == "two samples" else 40, 6)
    if kind in ("classes", "two samples"):
        samples, loss = Samples(inputs, torch.arange(len(inputs)) % 3), CROSS_ENTROPY
    else:
        targets = inputs if kind == "autoencoder" else torch.randn(40, 3)
        samples, loss = Samples(inputs, targets), lambda out, y: (out - y).square().sum(1)
    width = samples.targets.shape[1] if samples.targets.ndim == 2 else 3
    hidden = [layer for _ in range(6 if kind == "deep" else 1) for layer in (torch.nn.Linear(6, 6), torch.nn.ReLU())]
    model = TorchModel(torch.nn.Sequential(*hidden, torch.nn.Linear(6, width)), loss)
    leave_one_out(samples, TrainingConfig(lr=1e-3, epochs=1), model=model, sources=["sample-0"])


def test_outcomes_travel_between_processes():
    from numerics.training.own_training import OwnTraining
    from numerics.training.runs import Problem

    task = OwnTraining(losses_of, Problem(DATA, queries=OTHERS, fit=losses_of).asked)
    outcome = pickle.loads(pickle.dumps(task))("run", np.ones(6), 0)
    np.testing.assert_array_equal(outcome.values, task("run", np.ones(6), 0).values)
