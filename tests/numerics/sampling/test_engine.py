"""How chains of a module are evaluated: the same draws by every way, in chunks or not, and parts beside samples."""

import dataclasses

import numpy as np
import pytest
import torch

import numerics.sampling.captured
import numerics.sampling.engine
import numerics.sampling.module_target
import numerics.sampling.stability
from numerics import (
    MALA,
    SGLD,
    ChainState,
    ModuleCheckpoints,
    Parts,
    RMSPropSGLD,
    Samples,
    TorchModel,
    bayesian_influence,
    sample,
)
from numerics.curvature.module import hessian_matrix
from numerics.sampling.settings import ChainSettings

SAMPLERS = {"sgld": SGLD(1e-3, 20.0, 50.0), "rmsprop": RMSPropSGLD(1e-3, 20.0, 50.0), "mala": MALA(1e-3, 20.0, 50.0)}


def checkpoints_of(module, loss, epochs=2):
    model = TorchModel(module.double(), loss)
    start = model.initial()
    return ModuleCheckpoints(np.arange(epochs) * 10.0, model, torch.stack([start * (1 + k / 7) for k in range(epochs)]))


def some_module():
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    samples = Samples(torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64))
    return checkpoints_of(module, lambda out, y: (out - y).square().sum(1) / 2), samples


def tokens():
    """Two outputs a sample as its parts, of which one sample lacks one, whose target is not a number."""
    torch.manual_seed(2)
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    present = torch.ones(5, 2, dtype=torch.bool)
    present[3, 1] = False
    names = tuple("abcde")
    samples = Samples(torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64), names, present)
    return checkpoints_of(module, lambda out, y: (out - y).square() / 2), samples, Parts(samples, ("left", "right"))


def drawn(checkpoints, samples, sampler, **more):
    settings = {"chains": 2, "draws": 9, "dtype": torch.float64, "seed": 3} | more
    return sample(samples, checkpoints, SAMPLERS[sampler], **settings)


def first_norm(parameters):
    return parameters["0.weight"].square().sum()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("asked", ["none", "samples", "function"])
def test_recorded_or_not_the_bits_are_the_same(sampler, batch_size, asked, monkeypatch):
    if sampler == "mala" and batch_size:
        return
    checkpoints, samples = some_module()
    others = Samples(samples.inputs[:3] + 1, samples.targets[:3])
    more = {"none": {}, "samples": {"observables": others}, "function": {"observables": {"size": first_norm}}}[asked]
    monkeypatch.setattr(numerics.sampling.module_target, "_CALLS_WORTH_RECORDING", 10**9)
    plain = drawn(checkpoints, samples, sampler, batch_size=batch_size, **more)
    monkeypatch.setattr(numerics.sampling.module_target, "_CALLS_WORTH_RECORDING", 1)
    original, kept = numerics.sampling.captured.captured, []
    monkeypatch.setattr(
        numerics.sampling.module_target, "captured", lambda *a, **k: kept.append(original(*a, **k)) or kept[-1]
    )
    recorded = drawn(checkpoints, samples, sampler, batch_size=batch_size, **more)
    assert kept
    assert all(replay is not None for replay in kept)
    np.testing.assert_array_equal(recorded, plain)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("numbers", [1, 40])
def test_chain_by_chain_and_in_chunks_of_samples_the_draws_are_the_same(sampler, numbers, monkeypatch):
    checkpoints, samples = some_module()
    batched = drawn(checkpoints, samples, sampler)
    assert batched.attrs["engine"] == "vmap"
    monkeypatch.setattr(numerics.sampling.engine, "_NUMBERS_TOGETHER", 1)
    alone = drawn(checkpoints, samples, sampler)
    assert alone.attrs["engine"] == "chain by chain"
    # Some hundred float64 operations a step on numbers of order 1, and steps that contract.
    np.testing.assert_allclose(alone, batched, rtol=1e-11)
    monkeypatch.setattr(numerics.sampling.engine, "_NUMBERS_AT_ONCE", numbers)  # rows of one and of a few samples
    np.testing.assert_allclose(drawn(checkpoints, samples, sampler), batched, rtol=1e-11)


def test_threads_do_not_see_each_others_weights(monkeypatch):
    """A call puts its weights into the module: with one module for all threads, draws would depend on their number."""
    checkpoints, samples = some_module()
    monkeypatch.setattr(numerics.sampling.engine, "_NUMBERS_TOGETHER", 1)
    alone = drawn(checkpoints, samples, "sgld", chains=4, draws=40, workers=1)
    np.testing.assert_array_equal(drawn(checkpoints, samples, "sgld", chains=4, draws=40, workers=8), alone)


def test_a_module_without_a_batching_rule_goes_chain_by_chain():
    torch.manual_seed(3)

    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = torch.nn.GRU(2, 3, batch_first=True), torch.nn.Linear(3, 1)

        def forward(self, x):
            return self.head(self.cell(x)[0][:, -1])

    module = Last()
    samples = Samples(torch.randn(4, 5, 2, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64))
    checkpoints = checkpoints_of(module, lambda out, y: (out - y).square().sum(1) / 2)
    found = drawn(checkpoints, samples, "sgld", draws=80)
    assert found.attrs["engine"] == "chain by chain, for lack of vmap"
    # The first two draws by hand: the checkpoint, and one step from it with the first noise of each chain's generator.
    plan = plan_of(checkpoints, samples)
    sampler = SAMPLERS["sgld"]
    for chain in range(4):
        w = checkpoints.weights_at(chain // 2).clone().requires_grad_()
        losses = checkpoints.model.losses(w, samples)
        np.testing.assert_allclose(found[chain // 2, chain % 2, 0], losses.detach(), rtol=1e-12)
        (slope,) = torch.autograd.grad(losses.mean(), w)
        noise = torch.empty(4 * len(w), dtype=torch.float64)
        noise.normal_(generator=numerics.sampling.chains._generator(plan, chain))
        moved = w - sampler.step_size * sampler.n_beta / 2 * slope + sampler.step_size**0.5 * noise[: len(w)]
        after = checkpoints.model.losses(moved.detach(), samples)
        np.testing.assert_allclose(found[chain // 2, chain % 2, 1], after, rtol=1e-11)


def plan_of(checkpoints, samples, **more):
    recorded = numerics.sampling.plan.Recorded(samples)
    settings = {"chains": 2, "draws": 80, "burn_in": 0, "thin": 1, "weights": None, "batch_size": None, "seed": 3}
    settings |= {"dtype": torch.float64, "device": "cpu"} | more
    return numerics.sampling.sample.make_plan(
        samples, recorded, checkpoints, SAMPLERS["sgld"], ChainSettings(**settings)
    )


def test_states_of_checkpoints_go_with_their_chains():
    torch.manual_seed(4)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)).double()
    model = TorchModel(module, lambda out, y: (out - y).square().sum(1) / 2)
    samples = Samples(torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64))
    weights = model.initial().expand(3, -1)
    states = {"1.running_mean": torch.randn(3, 4, dtype=torch.float64)}
    all_three = ModuleCheckpoints(np.arange(3.0), model, weights, states)
    found = drawn(all_three, samples, "sgld", draws=70)
    for t in range(3):
        alone = drawn(all_three.at([float(t)]), samples, "sgld", draws=70)
        np.testing.assert_allclose(alone[0], found[t], rtol=1e-11)
    assert not np.allclose(found[0, :, 0], found[1, :, 0])


def test_parts_are_recorded_beside_samples():
    checkpoints, samples, parts = tokens()
    whole = drawn(checkpoints, samples, "sgld")
    found = drawn(checkpoints, samples, "sgld", observables=parts)
    assert list(found.indexes["sample"].names) == ["sample_name", "sample_part"]
    assert [*found.indexes["sample"]] == list(parts.labels)
    np.testing.assert_allclose(found[0, 0, 0].sel(sample_name="b"), [found[0, 0, 0, 2], found[0, 0, 0, 3]])
    for i, name in enumerate(samples.names):  # a sample's loss is the mean over the parts it has
        np.testing.assert_allclose(found.sel(sample_name=name).mean("sample_part"), whole[..., i], rtol=1e-11)


@pytest.mark.parametrize("numbers", [2**27, pytest.param(40, marks=pytest.mark.slow)])
def test_influence_of_parts(numbers, monkeypatch):
    """Covariances of what `sample` records, times -n_beta / (N k_i); parts of one sample sum to its influence."""
    checkpoints, samples, parts = tokens()
    if numbers == 40:
        monkeypatch.setattr(numerics.sampling.engine, "_NUMBERS_TOGETHER", 1)
        monkeypatch.setattr(numerics.sampling.engine, "_NUMBERS_AT_ONCE", numbers)
    settings = {"chains": 2, "draws": 40, "dtype": torch.float64, "seed": 3}
    of_parts = drawn(checkpoints, samples, "sgld", draws=40, observables=parts).values.reshape(2, -1, len(parts))
    of_samples = drawn(checkpoints, samples, "sgld", draws=40).values.reshape(2, -1, 5)
    found = bayesian_influence(samples, checkpoints, SAMPLERS["sgld"], sources=parts, queries=samples, **settings)
    n_beta = SAMPLERS["sgld"].n_beta
    for t in range(2):
        expected = np.cov(of_parts[t].T, of_samples[t].T)[: len(parts), len(parts) :]
        np.testing.assert_allclose(found["covariance"][t], expected, rtol=1e-8, atol=1e-11)
        share = -n_beta / 5 * parts.share[:, None]
        np.testing.assert_allclose(found["influence"][t], share * expected, rtol=1e-8, atol=1e-11)
    alone = bayesian_influence(samples, checkpoints, SAMPLERS["sgld"], **settings)
    for i, name in enumerate(samples.names):
        summed = found["influence"].sel(source_name=name).sum("source_part")
        np.testing.assert_allclose(summed, alone["influence"][:, i], rtol=1e-8, atol=1e-11)
    both = bayesian_influence(samples, checkpoints, SAMPLERS["sgld"], sources=parts, keep_draws=True, **settings)
    assert both["influence"].indexes["query"].names == ["query_name", "query_part"]
    np.testing.assert_allclose(both["draws"].values.reshape(2, -1, len(parts)), of_parts, rtol=1e-11)


def test_parts_that_do_not_exist_are_refused():
    checkpoints, samples = some_module()
    with pytest.raises(ValueError, match=r"the loss returned shape \(1,\)"):
        sample(samples, checkpoints, SAMPLERS["sgld"], observables=Parts(samples, 2))
    checkpoints, samples, _ = tokens()
    without = Samples(samples.inputs, samples.targets)
    with pytest.raises(ValueError, match="one number for each of the 1 samples and 3 parts"):
        sample(without, checkpoints, SAMPLERS["sgld"], observables=Parts(without, 3))


def test_a_store_and_a_state_see_the_module_its_loss_and_its_buffers(tmp_path):
    class Scaled(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1).double()
            self.register_buffer("factor", torch.tensor(factor, dtype=torch.float64))

        def forward(self, x):
            return self.layer(x) * self.factor

    samples = Samples(torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64))
    weights = torch.ones(1, 3, dtype=torch.float64)

    def half(out, y):
        return (out - y).square().sum(1) / 2

    def cubic(out, y):
        return (out - y).abs().pow(3).sum(1)

    def at(factor, loss):
        return ModuleCheckpoints(np.zeros(1), TorchModel(Scaled(factor), loss), weights)

    sampler, settings = SGLD(1e-4, 1.0, 10.0), {"chains": 1, "draws": 8}
    state = ChainState()
    bayesian_influence(samples, at(1.0, half), sampler, store=tmp_path / "store", **settings)
    sample(samples, at(1.0, half), sampler, state=state, **settings)
    for other in (at(3.0, half), at(1.0, cubic)):
        with pytest.raises(ValueError, match="other arguments"):
            bayesian_influence(samples, other, sampler, store=tmp_path / "store", **settings)
        with pytest.raises(ValueError, match="the state is of a call with other data"):
            sample(samples, other, sampler, state=state, **settings)
    functions = [{"norm": lambda p: p["layer.weight"].sum()}, {"norm": lambda p: p["layer.weight"].square().sum()}]
    bayesian_influence(samples, at(1.0, half), sampler, store=tmp_path / "other", queries=functions[0], **settings)
    with pytest.raises(ValueError, match="other arguments"):
        bayesian_influence(samples, at(1.0, half), sampler, store=tmp_path / "other", queries=functions[1], **settings)


# --- The step check ---


def curvature_of(checkpoints, samples, **more):
    plan = plan_of(checkpoints, samples, **more)
    numerics.sampling.stability._known.clear()
    return plan, numerics.sampling.stability._module_bounds(plan)


@pytest.mark.parametrize("numbers", [2**22, 1])
def test_the_curvature_of_the_check_is_that_of_the_hessian(numbers, monkeypatch):
    monkeypatch.setattr(numerics.sampling.engine, "_NUMBERS_TOGETHER", numbers)
    checkpoints, samples = some_module()
    beta = np.array([0.0, 2, 1, 1, 0.5, 1, 3])
    _, (low, high, steepest) = curvature_of(checkpoints, samples, weights=beta, draws=400)
    for t in range(2):
        w = checkpoints.weights_at(t).clone().requires_grad_()
        mean = lambda v: (torch.tensor(beta) * checkpoints.model.losses(v, samples)).mean()  # noqa: E731
        largest = torch.linalg.eigvalsh(torch.autograd.functional.hessian(mean, w.detach())).max().item()
        # Differences of gradients over 1e-8 of the weights are off by about as much; a Ritz value is never larger.
        assert low[t] <= largest * (1 + 1e-6)
        assert low[t] >= largest * (1 - 1e-2)
        assert high[t] >= largest
        np.testing.assert_allclose(steepest[t], torch.autograd.grad(mean(w), w)[0].abs().max().item(), rtol=1e-10)


def test_the_check_is_remembered_by_what_it_depends_on(monkeypatch):
    checkpoints, samples = some_module()
    plan, first = curvature_of(checkpoints, samples)
    counted = []
    original = numerics.sampling.stability._curvatures
    monkeypatch.setattr(
        numerics.sampling.stability, "_curvatures", lambda p, todo, s: counted.append(todo) or original(p, todo, s)
    )
    again = numerics.sampling.stability._module_bounds(plan)
    np.testing.assert_array_equal(again, first)
    assert not counted
    heavier = dataclasses.replace(plan, weights=np.full(7, 2.0))
    np.testing.assert_allclose(numerics.sampling.stability._module_bounds(heavier)[0], 2 * first[0], rtol=1e-4)
    moved = ModuleCheckpoints(checkpoints.epochs, checkpoints.model, checkpoints.weights * torch.tensor([[1.0], [2.0]]))
    numerics.sampling.stability._module_bounds(dataclasses.replace(plan, checkpoints=moved))
    assert counted == [[0, 1], [1]]


def test_with_batches_the_check_takes_some_samples_and_its_bound_from_below_is_unbiased(monkeypatch):
    """Of a thousand samples of two kinds: no more than a share are looked at, and the truth lies between the bounds."""
    torch.manual_seed(5)
    module = torch.nn.Linear(2, 1, bias=False)
    samples = Samples(torch.randn(1000, 2, dtype=torch.float64), torch.zeros(1000, 1, dtype=torch.float64))
    checkpoints = checkpoints_of(module, lambda out, y: (out - y).square().sum(1) / 2, epochs=1)
    seen = []
    original = numerics.sampling.stability._part
    monkeypatch.setattr(
        numerics.sampling.stability, "_part", lambda p, s, rows, k: seen.append(len(rows)) or original(p, s, rows, k)
    )
    _, (low, high, _) = curvature_of(checkpoints, samples, batch_size=4, draws=20)
    assert seen == 2 * [128, 128]  # by make_plan, and again
    largest = torch.linalg.eigvalsh(hessian_matrix(checkpoints.model, checkpoints.weights_at(0), samples)).max().item()
    # A mean of squares of 128 normal numbers has a standard error of sqrt(2 / 128) = 1/8.
    assert largest * (1 - 4 / 8) < low[0] < largest * (1 + 4 / 8)
    assert high[0] > largest * (1 - 4 / 8)
