"""Chains: two engines on one noise, bits that nothing else can change, and runs that stop and go on."""

import dataclasses
import threading

import numpy as np
import pytest
import torch

import numerics.sampling.chains
import numerics.sampling.plan
import numerics.sampling.sample
from numerics import (
    MALA,
    SGLD,
    ChainState,
    Checkpoints,
    ModuleCheckpoints,
    RMSPropSGLD,
    Samples,
    TorchModel,
    bayesian_influence,
    linear_as_module,
    per_sample_losses,
    sample,
)
from numerics.sampling.block_moments import BlockMoments
from numerics.sampling.settings import ChainSettings
from theory import Dataset, hierarchical_dataset

RNG = np.random.default_rng(5)
DATA = hierarchical_dataset(levels=2)
GENERAL = Dataset(RNG.normal(size=(6, 3)), RNG.normal(size=(6, 4)))
SAMPLERS = {
    "sgld": SGLD(1e-4, 50.0, 500.0),
    "rmsprop": RMSPropSGLD(1e-4, 50.0, 500.0, 0.8, 0.3),
    "frozen": RMSPropSGLD(1e-4, 50.0, 500.0, 0.8, 0.3, adaptation=3),
    "mala": MALA(4e-3, 50.0, 500.0),
}


def some_weights(data, hidden=5, checkpoints=2, scale=0.4):
    w1 = torch.tensor(scale * RNG.normal(size=(checkpoints, hidden, data.n_inputs)))
    w2 = torch.tensor(scale * RNG.normal(size=(checkpoints, data.n_outputs, hidden)))
    return Checkpoints(np.arange(checkpoints) * 100.0, w1, w2)


@pytest.mark.parametrize("data", [DATA, GENERAL], ids=["one-hot", "general"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("more", [{}, {"weights": [0.0, 2.0, 1.0, 0.5]}], ids=["plain", "weighted"])
def test_both_engines_draw_the_same_from_the_same_noise(data, sampler, more):
    if more:
        more = {"weights": np.resize(more["weights"], len(data))}
    weights = some_weights(data)
    settings = {"chains": 2, "draws": 8, "burn_in": 4, "thin": 2, "seed": 3, "dtype": torch.float64} | more
    special = sample(data, weights, SAMPLERS[sampler], **settings)
    general = sample(data, linear_as_module(weights), SAMPLERS[sampler], **settings)
    # Some hundred float64 operations a step on numbers of order 1, and steps that contract.
    np.testing.assert_allclose(general, special, rtol=1e-11)
    assert special.attrs.get("acceptance") == general.attrs.get("acceptance")


@pytest.mark.parametrize("data", [DATA, GENERAL], ids=["one-hot", "general"])
def test_batches_of_samples_follow_the_noise(data):
    """Gradients by autograd from the samples whose further normal numbers are the largest, beside both engines."""
    weights, sampler, beta = some_weights(data, checkpoints=1), SAMPLERS["sgld"], np.linspace(0, 2, len(data))
    settings = {"chains": 1, "draws": 8, "dtype": torch.float64, "batch_size": 2, "weights": beta}
    drawn = sample(data, weights, sampler, **settings)
    w, n, d = weights.flat[0].clone(), len(data), weights.flat.shape[1]
    rule = sampler.rule([sampler], [w[None]])
    plan = numerics.sampling.sample.make_plan(
        data,
        numerics.sampling.plan.Recorded(data),
        weights,
        sampler,
        ChainSettings(1, 2, 0, 1, None, 2, 0, torch.float64, "cpu"),
    )
    generator = numerics.sampling.chains._generator(plan, 0)
    split = weights.w1[0].numel()
    for k in range(8):
        if k % 4 == 0:
            noise = torch.empty(4, d + n, dtype=torch.float64).normal_(generator=generator)
        flat = w.clone().requires_grad_()
        losses = per_sample_losses(flat[split:].view_as(weights.w2[0]) @ flat[:split].view_as(weights.w1[0]), data)
        np.testing.assert_allclose(drawn[0, 0, k], losses.detach(), rtol=1e-11)
        chosen = np.argsort(noise[k % 4, d:].numpy())[-2:]
        (gradient,) = torch.autograd.grad(sum(beta[i] * losses[i] for i in chosen) / 2, flat)
        rule.move([w[None]], [gradient[None]], [noise[k % 4, None, :d]])
    general = sample(data, linear_as_module(weights), sampler, **settings)
    np.testing.assert_allclose(general, drawn, rtol=1e-11)


@pytest.mark.parametrize("kind", ["sgld", "rmsprop", "mala"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_settings_beside_each_other_change_no_bit(kind, dtype):
    weights = some_weights(hierarchical_dataset(), hidden=50, scale=0.05)
    data, one = hierarchical_dataset(), SAMPLERS[kind]
    settings = [
        type(one)(step, n_beta, gamma) for step, n_beta, gamma in ((1e-4, 50, 500), (1e-5, 1e3, 5e3), (1e-4, 1, 0))
    ]
    together = sample(data, weights, settings, chains=3, draws=7, dtype=dtype)
    assert together.dims == ("setting", "epoch", "chain", "draw", "sample")
    assert list(together.coords["n_beta"].values) == [50, 1e3, 1]
    for k, alone in enumerate(settings):
        np.testing.assert_array_equal(
            together.sel(setting=k), sample(data, weights, alone, chains=3, draws=7, dtype=dtype)
        )


def test_influence_of_several_settings():
    weights = some_weights(DATA)
    settings = [SGLD(1e-4, 50.0, 500.0), SGLD(1e-4, 5.0, 100.0)]
    together = bayesian_influence(DATA, weights, settings, chains=2, draws=40)
    for k, alone in enumerate(settings):
        own = bayesian_influence(DATA, weights, alone, chains=2, draws=40)
        for name in own:
            np.testing.assert_array_equal(together[name].sel(setting=k), own[name])


@pytest.mark.parametrize("module", [False, True], ids=["linear", "module"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_chains_go_on_from_a_file_with_the_same_bits(tmp_path, sampler, module):
    weights = some_weights(DATA)
    weights = linear_as_module(weights) if module else weights
    settings = {"chains": 2, "burn_in": 5, "thin": 3}
    whole = sample(DATA, weights, SAMPLERS[sampler], draws=11, **settings)
    state = ChainState()
    first = sample(DATA, weights, SAMPLERS[sampler], draws=6, state=state, **settings)
    state.save(tmp_path / "chains.pt")
    resumed = ChainState.load(tmp_path / "chains.pt")
    second = sample(DATA, weights, SAMPLERS[sampler], draws=5, state=resumed, **settings)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=2), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["chains.pt"]


def test_a_state_goes_with_its_own_call(tmp_path):
    weights, state = some_weights(DATA), ChainState()
    sample(DATA, weights, SAMPLERS["sgld"], chains=1, draws=2, state=state)
    for change in ({"seed": 1}, {"chains": 2}, {"thin": 2}, {"weights": [1, 1, 1, 0]}, {"dtype": torch.float64}):
        with pytest.raises(numerics.StoreMismatch, match="the state is of a call with other data"):
            sample(DATA, weights, SAMPLERS["sgld"], **{"chains": 1, "draws": 2, "state": state} | change)
    (tmp_path / "noise.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"noise.pt is not a saved state of chains"):
        ChainState.load(tmp_path / "noise.pt")
    with pytest.raises(FileNotFoundError):
        ChainState.load(tmp_path / "missing.pt")


def test_an_interrupted_influence_goes_on_from_its_store(tmp_path, monkeypatch):
    monkeypatch.setattr(numerics.sampling.chains, "_CHAINS_TOGETHER", 2)
    weights = some_weights(DATA, checkpoints=6)
    settings = {"chains": 2, "draws": 30, "workers": 1, "store": tmp_path / "influence.npz"}
    whole = bayesian_influence(DATA, weights, SAMPLERS["rmsprop"], chains=2, draws=30, workers=1)
    done = []

    def interrupt(chains):
        done.append(chains)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bayesian_influence(DATA, weights, SAMPLERS["rmsprop"], progress=interrupt, **settings)
    again = []
    resumed = bayesian_influence(DATA, weights, SAMPLERS["rmsprop"], progress=again.append, **settings)
    assert 0 < sum(again) <= 12 - sum(done)
    np.testing.assert_array_equal(resumed["covariance"], whole["covariance"])
    with pytest.raises(numerics.StoreMismatch, match="holds the chains of a call with other arguments"):
        bayesian_influence(DATA, weights, SAMPLERS["rmsprop"], seed=1, **settings)
    (tmp_path / "influence.npz").write_bytes(b"PK broken")
    with pytest.raises(ValueError, match="is damaged: delete it"):
        bayesian_influence(DATA, weights, SAMPLERS["rmsprop"], **settings)


def test_every_damage_of_a_store_is_refused_or_changes_nothing(tmp_path):
    """A bit changed at every tenth byte, and the file cut there: five hundred files, of which none misleads."""
    store, weights = tmp_path / "influence.npz", some_weights(DATA, hidden=1, checkpoints=1)
    recorded = numerics.sampling.plan.Recorded(DATA)
    settings = ChainSettings(2, 4, 0, 1, None, None, 0, torch.float64, "cpu")
    plan = numerics.sampling.sample.make_plan(DATA, recorded, weights, SAMPLERS["sgld"], settings)
    arguments = (plan, slice(0, 1), slice(1, 2), store)
    kept = BlockMoments(*arguments)
    for draw in range(4):
        kept.record(slice(0, 2), draw, RNG.normal(size=(2, 1, 4)))
    kept.finished(slice(0, 2))
    whole = store.read_bytes()
    refused = 0
    for place in range(0, len(whole), 10):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        for content in (bytes(changed), whole[:place]):
            store.write_bytes(content)
            try:
                found = BlockMoments(*arguments)
            except ValueError as error:
                refused += "damaged" in str(error)
                continue
            np.testing.assert_equal(vars(found), vars(kept))
    # The rest are bits of names, dates and rights in the archive that nobody reads, and no bit of a number.
    assert refused > 0.85 * 2 * len(whole) / 10


def test_a_batch_that_fails_stops_the_others(monkeypatch):
    """Ten million draws would take minutes; cancelled chains end at their next step."""
    events = []

    class Watched(threading.Event):
        def __init__(self):
            super().__init__()
            events.append(self)

    monkeypatch.setattr(numerics.sampling.chains, "Event", Watched)
    threading.Timer(0.5, lambda: events[0].set()).start()
    with pytest.raises(InterruptedError, match="the call was interrupted, or another batch"):
        bayesian_influence(DATA, some_weights(DATA), SAMPLERS["sgld"], chains=2, draws=10_000_000)


def test_another_device_takes_all_chains_at_once():
    """The grid of Figure 6, 216 settings x 404 chains of 1150 weights, is one batch of 1e8 numbers."""
    weights = Checkpoints(np.arange(101.0), torch.zeros(101, 50, 8), torch.zeros(101, 15, 50))
    data = hierarchical_dataset()
    plan = numerics.sampling.sample.make_plan(
        data,
        numerics.sampling.plan.Recorded(data),
        weights,
        SGLD(),
        ChainSettings(4, 2, 0, 1, None, None, 0, torch.float32, "cpu"),
    )
    grid = dataclasses.replace(plan, device=torch.device("cuda"), samplers=(SGLD(),) * 216)
    assert numerics.sampling.chains._batches(grid, 2, set()) == [slice(0, 216 * 404)]
    assert len(numerics.sampling.chains._batches(plan, 2, set())) == 4


def test_functions_of_the_parameters_are_observables():
    weights = some_weights(DATA)
    functions = {"norm": lambda p: p["w1"].square().sum(), "corner": lambda p: p["w2"][0, 0]}
    for checkpoints in (weights, linear_as_module(weights)):
        drawn = sample(
            DATA, checkpoints, SAMPLERS["sgld"], chains=2, draws=30, observables=functions, dtype=torch.float64
        )
        assert list(drawn.coords["sample"].values) == [*DATA.names, "norm", "corner"]
        np.testing.assert_allclose(drawn[:, 0, 0, -2], weights.w1.square().sum((1, 2)), rtol=1e-12)
        np.testing.assert_allclose(drawn[:, 1, 0, -1], weights.w2[:, 0, 0], rtol=1e-12)
        result = bayesian_influence(
            DATA, checkpoints, SAMPLERS["sgld"], chains=2, draws=30, queries=functions, dtype=torch.float64
        )
        flat = drawn.values.reshape(2, -1, 6)
        expected = [np.cov(one.T)[:4, 4:] for one in flat]
        np.testing.assert_allclose(result["covariance"], expected, rtol=1e-9, atol=1e-12)


def test_sources_that_are_not_trained_on_have_weight_zero():
    """A sample of weight 0 in the training set, and the same sample outside it, have one influence up to N."""
    weights, beta = some_weights(GENERAL), np.array([1.0, 1, 1, 1, 1, 0])
    inside = bayesian_influence(GENERAL, weights, SAMPLERS["sgld"], draws=50, weights=beta, dtype=torch.float64)
    seen = GENERAL.without(GENERAL.names[5])
    new = Dataset(GENERAL.inputs[5:], GENERAL.targets[5:], ("new",))
    # The mean over five instead of six: n_beta 5 / 6 as large is the same posterior, and the same derivative.
    smaller = SGLD(1e-4, 50.0 * 5 / 6, 500.0)
    outside = bayesian_influence(seen, weights, smaller, draws=50, sources=new, queries=GENERAL, dtype=torch.float64)
    np.testing.assert_allclose(outside["influence"][:, 0], inside["influence"][:, 5], rtol=1e-9)


def test_drawn_samples_on_request():
    weights = some_weights(DATA)
    result = bayesian_influence(DATA, weights, SAMPLERS["sgld"], draws=25, keep_draws=True)
    np.testing.assert_array_equal(result["draws"], sample(DATA, weights, SAMPLERS["sgld"], draws=25))


def test_within_chain_covariance_does_not_see_between_chains():
    weights = some_weights(DATA)
    result = bayesian_influence(DATA, weights, SAMPLERS["sgld"], chains=3, draws=45, keep_draws=True)
    for t in range(2):
        expected = np.mean([np.cov(chain.T) for chain in result["draws"].values[t].astype(float)], axis=0)
        np.testing.assert_allclose(
            result["within_chain_covariance"][t], expected, rtol=1e-9, atol=1e-9 * expected.max()
        )


def test_a_nonlinear_module_with_classes():
    """A tanh network with cross-entropy: first draws, divergence and refusals as for the linear one."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    model = TorchModel(module, lambda out, y: torch.nn.functional.cross_entropy(out, y, reduction="none"))
    samples = Samples(torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]))
    weights = ModuleCheckpoints(np.array([0.0, 9.0]), model, torch.stack([model.initial(), 0.5 * model.initial()]))
    drawn = sample(samples, weights, SGLD(1e-4, 10.0, 100.0), chains=2, draws=3, dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(module(samples.inputs), samples.targets, reduction="none")
    np.testing.assert_allclose(drawn[0, 0, 0], expected.detach(), rtol=1e-5)  # float32 on the right
    with pytest.raises(numerics.UnstableStep, match=r"outside the stable range.*at epoch 0"):
        sample(samples, weights, SGLD(0.1, 10.0, 100.0))
    with pytest.raises(TypeError, match="linear network go with a theory"):
        sample(samples, some_weights(DATA), SGLD(1e-4, 10.0, 100.0))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sampler": []}, "no sampler was given"),
        ({"sampler": [SAMPLERS["sgld"], SAMPLERS["mala"]]}, "of one class, but MALA, SGLD were given"),
        ({"sampler": [SAMPLERS["rmsprop"], SAMPLERS["frozen"]], "burn_in": 9}, "adapt for the same number of steps"),
        ({"sampler": SAMPLERS["frozen"], "burn_in": 2}, "burn_in is 2, but the preconditioner adapts for 3 steps"),
        ({"sampler": SAMPLERS["mala"], "batch_size": 2}, "MALA accepts or refuses a step by the loss over all samples"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 9}, "a batch of 9 samples cannot be drawn from 4"),
        ({"weights": [1.0, 1.0]}, r"weights has shape \(2,\), but the data set has 4 samples"),
        ({"weights": [1.0, 1.0, -1.0, 0.0]}, "weights must not be negative"),
    ],
)
def test_bad_arguments_are_refused(change, match):
    arguments = {"sampler": SAMPLERS["sgld"]} | change
    for call in (sample, bayesian_influence):
        with pytest.raises(ValueError, match=match):
            call(DATA, some_weights(DATA), **arguments)


def test_bad_observables_are_refused():
    weights = some_weights(DATA)
    with pytest.raises(ValueError, match=r"observable 'w' must return one number, but it returned shape \(5, 4\)"):
        sample(DATA, weights, SAMPLERS["sgld"], observables={"w": lambda p: p["w1"]})
    with pytest.raises(ValueError, match="queries holds no function"):
        bayesian_influence(DATA, weights, SAMPLERS["sgld"], queries={})
