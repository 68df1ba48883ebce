"""The engine for any module against what a user would write for one model, on one thread; run by ``make bench``.

Peers are a loop of torch.func and randn, a scan of vmap in jax, and the bare forward and backward passes of a small
transformer and a small convolutional network. Every test first checks, with one noise, that both draw the same.
"""

from importlib import import_module

import numpy as np
import pytest
import torch
from benchmarks.networks import convolutional, transformer
from benchmarks.timing import cpu_seconds_of_each
from torch.func import functional_call, grad_and_value, vmap

import numerics.sampling.chains
import numerics.sampling.stability
from numerics import (
    SGLD,
    LinearNetwork,
    ModuleCheckpoints,
    Samples,
    TorchModel,
    half_squared_error,
    initial_weights,
    sample,
    train,
)
from numerics.sampling.plan import Recorded
from numerics.sampling.sample import make_plan
from numerics.sampling.settings import ChainSettings
from theory import hierarchical_dataset

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

DATA = Samples.of(hierarchical_dataset())
X, Y = DATA.inputs, DATA.targets
STEP, N_BETA, GAMMA = 1e-4, 1e3, 5e3
LANGEVIN = SGLD(STEP, N_BETA, GAMMA)


def toy():
    w1, w2 = initial_weights(hierarchical_dataset(), sigma=0.1)
    model = TorchModel(LinearNetwork(w1, w2))
    return ModuleCheckpoints(np.zeros(1), model, model.initial()[None])


def noise_of_first_chain(checkpoints, samples, steps):
    """Return the normal numbers of our first chain of seed 0 in float64, shape (steps, d)."""
    settings = (1, steps, 0, 1, None, None, 0, torch.float64, "cpu")
    plan = make_plan(samples, Recorded(samples), checkpoints, LANGEVIN, ChainSettings(*settings))
    generator = numerics.sampling.chains._generator(plan, 0)
    d = checkpoints.model.n_parameters
    return torch.cat([torch.empty(4, d, dtype=torch.float64).normal_(generator=generator) for _ in range(steps // 4)])


def ours(checkpoints, samples, chains, draws, **more):
    return sample(samples, checkpoints, LANGEVIN, chains=chains, draws=draws, workers=1, **more).values[0]


def bare_loop(checkpoints, chains, draws, noise=None, dtype=torch.float32):
    """SGLD by torch.func, as in its tutorials: a dictionary of stacked parameters, vmap of grad, randn."""
    module, x, y = checkpoints.model.module, X.to(dtype), Y.to(dtype)
    start = {name: p.detach().to(dtype).expand(chains, *p.shape) for name, p in module.named_parameters()}
    w = {name: p.clone() for name, p in start.items()}

    def mean(parameters):
        losses = half_squared_error(functional_call(module, parameters, (x,)), y)
        return losses.mean(), losses

    slopes, recorded = vmap(grad_and_value(mean, has_aux=True)), torch.empty(draws, chains, len(x), dtype=dtype)
    for draw in range(draws):
        gradient, (_, recorded[draw]) = slopes(w)
        xi = iter(()) if noise is None else iter(noise[draw].split([p[0].numel() for p in w.values()]))
        for name, p in w.items():
            z = torch.randn_like(p) if noise is None else next(xi).view(p.shape)
            w[name] = p - STEP / 2 * (N_BETA * gradient[name] + GAMMA * (p - start[name])) + STEP**0.5 * z
    return recorded


def jax_scan(jax, checkpoints, chains, draws, noise=None):
    """Return the same as a user of jax would write it: one chain as a scan, vmapped and compiled."""
    numbers = jax.numpy
    start = {name: numbers.asarray(p.detach().numpy()) for name, p in checkpoints.model.module.named_parameters()}
    x, y = numbers.asarray(X.numpy()), numbers.asarray(Y.numpy())
    if noise is None:
        start, x, y = jax.tree.map(lambda v: v.astype(numbers.float32), (start, x, y))

    def mean(w):
        losses = ((x @ w["w1"].T @ w["w2"].T - y) ** 2).sum(1) / 2
        return losses.mean(), losses

    def step(state, given):
        w, key = state
        (_, losses), slope = jax.value_and_grad(mean, has_aux=True)(w)
        if noise is None:
            key, *keys = jax.random.split(key, 1 + len(w))
            xi = {name: jax.random.normal(k, w[name].shape, w[name].dtype) for k, name in zip(keys, w, strict=True)}
        else:
            split = w["w1"].size
            xi = {"w1": given[:split].reshape(w["w1"].shape), "w2": given[split:].reshape(w["w2"].shape)}
        move = lambda p, g, a, z: p - STEP / 2 * (N_BETA * g + GAMMA * (p - a)) + STEP**0.5 * z  # noqa: E731
        return (jax.tree.map(move, w, slope, start, xi), key), losses

    scan = jax.jit(jax.vmap(lambda key: jax.lax.scan(step, (start, key), noise, length=draws)[1]))
    keys = jax.random.split(jax.random.key(0), chains)
    scan(keys).block_until_ready()  # compiled, which its time does not count
    return lambda: scan(keys).block_until_ready()


@pytest.mark.parametrize(("chains", "draws"), [(4, 1000), (404, 400)])
def test_sgld_of_the_toy_network(benchmark, chains, draws):
    """The target is 1.0 times a bare loop and jax's compiled scan at 404 chains, and at 4 as near as it gets."""
    checkpoints = toy()
    noise = noise_of_first_chain(checkpoints, DATA, 12)
    expected = ours(checkpoints, DATA, 1, 12, dtype=torch.float64)[0]
    # A few hundred float64 operations a draw.
    np.testing.assert_allclose(bare_loop(checkpoints, 1, 12, noise, torch.float64)[:, 0], expected, rtol=1e-11)
    run = lambda: ours(checkpoints, DATA, chains, draws)  # noqa: E731
    few = max(draws // 10, 20)
    functions = {"a bare loop of torch.func": (lambda: bare_loop(checkpoints, chains, few), few)}
    try:
        jax = import_module("jax")
    except ImportError:
        benchmark.extra_info["jax"] = "not installed (make bench-env)"
    else:
        with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
            drawn = jax_scan(jax, checkpoints, 1, 12, jax.numpy.asarray(noise.numpy()))()
        np.testing.assert_allclose(np.asarray(drawn)[0], expected, rtol=1e-11)
        functions["jax.jit of scan and vmap"] = (jax_scan(jax, checkpoints, chains, draws), draws)
    spent = cpu_seconds_of_each([run, *(function for function, _ in functions.values())], 3)
    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["ours, draws per CPU-second"] = chains * draws / spent[0]
    for (name, (_, count)), seconds in zip(functions.items(), spent[1:], strict=True):
        benchmark.extra_info[f"{name}, draws per CPU-second"] = chains * count / seconds
        benchmark.extra_info[f"ours to {name}"] = (draws / spent[0]) / (count / seconds)
    assert benchmark.extra_info["ours to a bare loop of torch.func"] >= 1


def test_the_step_check_over_the_checkpoints_of_the_toy(benchmark):
    """The target is 5 % of 400 draws of four chains at each of 101 checkpoints; a second call costs nothing."""
    run = train(hierarchical_dataset()).checkpoints
    model = TorchModel(LinearNetwork(run.w1[0], run.w2[0]))
    checkpoints = ModuleCheckpoints(run.epochs, model, run.flat)
    settings = (4, 400, 0, 1, None, None, 0, torch.float32, "cpu")
    plan = make_plan(DATA, Recorded(DATA), checkpoints, LANGEVIN, ChainSettings(*settings))

    def check():
        numerics.sampling.stability._known.clear()
        numerics.sampling.stability.check_steps(plan, stacklevel=2)

    check()
    checked, sampled = cpu_seconds_of_each([check, lambda: ours(checkpoints, DATA, 4, 400)], 3)
    benchmark.pedantic(check, rounds=2)
    benchmark.extra_info["share of the sampling"] = checked / sampled
    assert checked / sampled < 0.1


@pytest.mark.parametrize(
    ("name", "draws"),
    [("transformer, width 32", 300), ("transformer, width 128", 100), ("32 images", 300), ("128 images", 150)],
)
def test_a_step_against_the_bare_passes(benchmark, name, draws):
    """Four chains, all losses recorded; the target is 1.15 times the forward and backward passes of each, alone."""
    torch.manual_seed(0)
    kind, size = (
        (transformer, int(name.split()[-1])) if "transformer" in name else (convolutional, int(name.split()[0]))
    )
    module, samples, loss = kind(size)
    model = TorchModel(module, loss)
    checkpoints = ModuleCheckpoints(np.zeros(1), model, model.initial()[None])
    sampler = SGLD(1e-7, 10.0, 10.0)
    run = lambda: sample(samples, checkpoints, sampler, chains=4, draws=draws, workers=1)  # noqa: E731
    recorded, modules = torch.empty(4, len(samples)), [model.module for _ in range(4)]

    def passes():
        for _ in range(few):
            for row, each in zip(recorded, modules, strict=True):
                losses = loss(each(samples.inputs), samples.targets)
                row.copy_(losses.detach())
                losses.mean().backward()
                each.zero_grad(set_to_none=True)

    few = 1
    passes()
    drawn = run()
    np.testing.assert_allclose(drawn[0, :, 0], recorded, rtol=1e-4)  # float32 through some ten layers
    few = max(draws // 10, 10)
    ours_spent, bare_spent = cpu_seconds_of_each([run, passes], 3)
    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["engine"] = drawn.attrs["engine"]
    benchmark.extra_info["milliseconds a chain and step"] = 1e3 * ours_spent / (4 * draws)
    ratio = benchmark.extra_info["ratio to the bare passes"] = (ours_spent / draws) / (bare_spent / few)
    assert ratio <= 1.25
