"""Speed against what a user would run otherwise, in the same process and on one thread; run by ``make bench``.

Peers come with the extra: ``pip install -e '.[bench]'``; the benchmarks of a peer that is not installed are skipped.
Every test first checks that both compute the same numbers, for a ratio means nothing otherwise. Expensive peers get a
part of the job and their time is scaled to the whole of it. Rates and ratios are printed; asserted is that ours is at
least as fast wherever it is specialised to the problem.
"""

from importlib import import_module
from itertools import chain as chained

import numpy as np
import pytest
import torch
from benchmarks.timing import cpu_seconds, cpu_seconds_of_each
from torch.func import functional_call, grad, hessian, vmap

import numerics.sampling.chains
import numerics.sampling.plan
import numerics.sampling.sample
from numerics import (
    SGLD,
    LinearNetwork,
    RMSPropSGLD,
    Samples,
    TrainingConfig,
    gauss_newton_influence,
    half_squared_error,
    hessian_influence,
    leave_one_out,
    linear_as_module,
    sample,
    train,
)
from numerics.sampling.settings import ChainSettings
from theory import hierarchical_dataset

pytestmark = [
    pytest.mark.slow,
    # Deprecated interfaces of torch: of posteriors and linear_operator (curvlinops), and torch.func.hessian itself.
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
]

DATA = hierarchical_dataset()
ANY_DATA = Samples.of(DATA)
X, Y = ANY_DATA.inputs, ANY_DATA.targets
N, D = len(DATA), 1150
STEP, N_BETA, GAMMA, DECAY, STABILITY = 1e-4, 1e3, 5e3, 0.9, 1.0
ALGORITHM_1 = RMSPropSGLD(STEP, N_BETA, GAMMA, DECAY, STABILITY, bias_correction=False)
LANGEVIN = SGLD(STEP, N_BETA, GAMMA)
DAMPING = np.logspace(-3, 1, 5)


@pytest.fixture(scope="module")
def checkpoints():
    return train(DATA).checkpoints


@pytest.fixture
def peer():
    """Return what imports a module of a peer, or skips the test."""

    def find(module):
        try:
            return import_module(module)
        except ImportError as error:
            return pytest.skip(f"{module} cannot be imported ({error}); pip install -e '.[bench]' brings the peers")

    return find


def network(checkpoints, t=0, dtype=torch.float64):
    return LinearNetwork(checkpoints.w1[t], checkpoints.w2[t]).to(dtype)


# --- Sampling: eight losses recorded for every draw, full batch, float32 ---


def noise_of_first_chain(checkpoint, steps):
    """Return the normal numbers of our first chain of seed 0, a pair (W_1, W_2) for each step."""
    recorded = numerics.sampling.plan.Recorded(DATA)
    settings = (1, steps, 0, 1, None, None, 0, torch.float64, "cpu")
    plan = numerics.sampling.sample.make_plan(DATA, recorded, checkpoint, ALGORITHM_1, ChainSettings(*settings))
    generator = numerics.sampling.chains._generator(plan, 0)
    rows = torch.cat([torch.empty(4, D, dtype=torch.float64).normal_(generator=generator) for _ in range(steps // 4)])
    return [(row[:400].view(50, 8), row[400:].view(15, 50)) for row in rows]


def losses_with_noise(patch, function, checkpoint, record, steps=12):
    """Return what `record(steps)` gives while `function` of torch hands out the noise of our chain."""
    noise = iter(list(chained.from_iterable(noise_of_first_chain(checkpoint, steps))))
    with patch.context() as patched:
        patched.setattr(torch, function, lambda *args, **kwargs: next(noise))
        return record(steps)


def our_chain(checkpoint, sampler, steps=12):
    return sample(DATA, checkpoint, sampler, chains=1, draws=steps, dtype=torch.float64).values[0, 0]


def rates(benchmark, run, draws, peers):
    """Time `run` of so many draws and functions of peers by name with theirs; report rates and return ratios."""
    seconds = cpu_seconds_of_each([run, *(function for function, _ in peers.values())], 3)
    benchmark.pedantic(run, rounds=2)
    benchmark.extra_info["ours, draws per CPU-second"] = draws / seconds[0]
    ratios = {}
    for (name, (_, count)), spent in zip(peers.items(), seconds[1:], strict=True):
        benchmark.extra_info[f"{name}, draws per CPU-second"] = count / spent
        ratios[name] = benchmark.extra_info[f"ours to {name}"] = (draws / seconds[0]) / (count / spent)
    return ratios


def test_algorithm_1_at_one_checkpoint_against_devinterp(benchmark, checkpoints, peer, monkeypatch):
    """Four chains of 1000 draws, of devinterp one: its sampler with a callback, and its optimiser alone in a loop."""
    sampler, optim = peer("devinterp.slt.sampler"), peer("devinterp.optim")
    method = optim.SGMCMC.rmsprop_sgld
    settings = {"lr": STEP, "nbeta": N_BETA, "localization": GAMMA, "alpha": DECAY, "eps": STABILITY}
    checkpoint = checkpoints.at([3000])

    def by_sampler(draws, dtype=torch.float32):
        recorded = torch.empty(draws, N)

        def record(loss, draw, **_):
            recorded[draw] = loss

        sampler.sample_single_chain(
            network(checkpoint, dtype=dtype),
            [{"input_ids": x, "target": y} for x, y in zip(X.to(dtype), Y.to(dtype), strict=True)],
            lambda model, batch: (half_squared_error(model(batch["input_ids"]), batch["target"]), {}),
            {"w1": None, "w2": None},
            num_draws=draws,
            sampling_method=method,
            sampling_method_kwargs=settings,
            callbacks=[record],
            batch_size=N,
            shuffle=False,
        )
        return recorded

    def by_optimiser(draws, dtype=torch.float32):
        model, x, y = network(checkpoint, dtype=dtype), X.to(dtype), Y.to(dtype)
        optimiser, recorded = method(model.parameters(), **settings), torch.empty(draws, N, dtype=dtype)
        for draw in range(draws):
            losses = half_squared_error(model(x), y)
            recorded[draw] = losses.detach()
            losses.mean().backward()
            optimiser.step()
            optimiser.zero_grad()
        return recorded

    expected = our_chain(checkpoint, ALGORITHM_1)
    # The sampler records float32, of unit roundoff 6e-8; the loop float64, a few hundred operations a draw.
    for run, rtol in ((by_sampler, 1e-7), (by_optimiser, 1e-11)):
        drawn = losses_with_noise(monkeypatch, "normal", checkpoint, lambda steps, run=run: run(steps, torch.float64))
        np.testing.assert_allclose(drawn, expected, rtol=rtol)

    ratios = rates(
        benchmark,
        lambda: sample(DATA, checkpoint, ALGORITHM_1, chains=4, draws=1000, workers=1),
        4000,
        {"devinterp's sampler": (lambda: by_sampler(1000), 1000), "its optimiser": (lambda: by_optimiser(500), 500)},
    )
    assert min(ratios.values()) >= 1


@pytest.mark.parametrize(("chains", "draws"), [(4, 250), (404, 50)])
def test_sgld_against_posteriors(benchmark, checkpoints, peer, monkeypatch, chains, draws):
    """Chains of one checkpoint, vmapped there: few, and as many as Figure 3 has. Our engine for any module beside."""
    posteriors = peer("posteriors")
    checkpoint = checkpoints.at([3000])
    model = network(checkpoint)

    def log_posterior(weights, batch):
        x, y, anchor = batch
        losses = half_squared_error(functional_call(model, weights, (x,)), y)
        pull = sum((weights[key] - anchor[key]).square().sum() for key in weights)
        return -N_BETA * losses.mean() - GAMMA / 2 * pull, losses

    def run(draws, chains, dtype=torch.float32):
        x, y = X.to(dtype), Y.to(dtype)
        anchor = {
            key: w.to(dtype).expand(chains, -1, -1).clone()
            for key, w in (("w1", checkpoint.w1[0]), ("w2", checkpoint.w2[0]))
        }
        # Its step is half of ours: w + lr grad log p + sqrt(2 lr) xi.
        transform = posteriors.sgmcmc.sgld.build(log_posterior, lr=STEP / 2)
        state = vmap(transform.init)(anchor)
        update = vmap(lambda state, anchor: transform.update(state, (x, y, anchor)), randomness="different")
        recorded = torch.empty(draws, chains, N, dtype=dtype)
        for draw in range(draws):
            state, recorded[draw] = update(state, anchor)
        return recorded

    drawn = losses_with_noise(monkeypatch, "randn_like", checkpoint, lambda steps: run(steps, 2, torch.float64))
    # A few hundred float64 operations a draw; both chains were given the same noise.
    np.testing.assert_allclose(drawn, our_chain(checkpoint, LANGEVIN)[:, None].repeat(2, axis=1), rtol=1e-11)

    module = linear_as_module(checkpoint)
    general = lambda: sample(ANY_DATA, module, LANGEVIN, chains=chains, draws=4 * draws, workers=1)  # noqa: E731
    ratios = rates(
        benchmark,
        lambda: sample(DATA, checkpoint, LANGEVIN, chains=chains, draws=4 * draws, workers=1),
        4 * draws * chains,
        {
            "posteriors": (lambda: run(draws, chains), draws * chains),
            "our engine for any module": (general, 4 * draws * chains),
        },
    )
    both = "our engine for any module"
    benchmark.extra_info[f"{both} to posteriors"] = ratios["posteriors"] / ratios[both]
    assert min(ratios.values()) >= 1


# --- Curvature: influence of all pairs at 101 checkpoints for five damping constants, float64 ---


def losses_at(w, x, y):
    return (x @ w[:400].view(50, 8).mT @ w[400:].view(15, 50).mT - y).square().sum(-1) / 2


def gradients_at(w):
    return vmap(grad(losses_at), in_dims=(None, 0, 0))(w, X, Y)


def decomposed(matrix, gradients):
    """Return the influence for every damping constant by an eigendecomposition, and what rounding may do to it.

    Two matrices that differ by d eps max|eig| have solutions that differ by that over the square of the smallest
    |eig + lambda|, times the gradients' norms.
    """
    values, vectors = torch.linalg.eigh(matrix)
    largest, turned = values.abs().max(), gradients @ vectors
    norm = gradients.norm(dim=1).max() ** 2 / N
    found, doubt = [], []
    for shift in DAMPING * largest.item():
        found.append(-(turned / (values + shift)) @ turned.mT / N)
        doubt.append(2 * D * torch.finfo(torch.float64).eps * largest * norm / (values + shift).abs().min() ** 2)
    return torch.stack(found), torch.stack(doubt)


def by_functorch(checkpoints, t):
    w = checkpoints.flat[t]
    return decomposed(hessian(lambda w: losses_at(w, X, Y).mean())(w), gradients_at(w))


def curvlinops_operator(curvlinops, kind, checkpoints, t):
    model = network(checkpoints, t)
    summed = torch.nn.MSELoss(reduction="sum")  # 2 N times the mean of the l_i
    return kind(model, summed, list(model.parameters()), [(X, Y)], check_deterministic=False) * (1 / (2 * N))


def by_curvlinops_matrix(curvlinops, kind, checkpoints, t):
    matrix = curvlinops_operator(curvlinops, kind, checkpoints, t) @ torch.eye(D, dtype=torch.float64)
    return decomposed(matrix, gradients_at(checkpoints.flat[t]))


def by_curvlinops_solver(curvlinops, operator, inverse, gradients, shift):
    identity = curvlinops.examples.IdentityLinearOperator([(50, 8), (15, 50)], torch.device("cpu"), torch.float64)
    return -(inverse(operator + shift * identity) @ gradients.mT).mT @ gradients.mT / N


def scaled(benchmark, run, checkpoints, peers):
    """Time `run` at 101 checkpoints and peers at each of the given ones; report seconds at 101 and return ratios."""
    spent = cpu_seconds(run)
    benchmark.pedantic(run, rounds=2)
    benchmark.extra_info["ours, CPU-seconds"] = spent
    ratios = {}
    for name, function in peers.items():
        each = [cpu_seconds(lambda t=t, f=function: f(t), 2) for t in range(len(checkpoints))]
        benchmark.extra_info[f"{name}, CPU-seconds"] = 101 * np.mean(each)
        ratios[name] = benchmark.extra_info[f"{name} to ours"] = 101 * np.mean(each) / spent
    return ratios


def assert_same(found, doubt, ours, t):
    for k, bound in enumerate(doubt):
        np.testing.assert_allclose(found[k], ours["influence"].values[k, t], rtol=0, atol=float(bound))


def test_hessian_influence_against_a_dense_factorisation(benchmark, checkpoints):
    """The Hessian by torch.func and its eigendecomposition. Our own path for any module is nothing else."""
    some = checkpoints.at([1000, 2500, 5000])
    ours = hessian_influence(DATA, some, relative_damping=DAMPING)
    for t in range(len(some)):
        assert_same(*by_functorch(some, t), ours, t)
    module = [linear_as_module(some.at([epoch])) for epoch in some.epochs]
    ratios = scaled(
        benchmark,
        lambda: hessian_influence(DATA, checkpoints, relative_damping=DAMPING),
        some,
        {
            "torch.func.hessian and eigh": lambda t: by_functorch(some, t),
            "our engine for any module": lambda t: hessian_influence(ANY_DATA, module[t], relative_damping=DAMPING),
        },
    )
    assert min(ratios.values()) >= 1


@pytest.mark.parametrize("curvature", ["hessian", "gauss-newton"])
def test_influence_against_curvlinops(benchmark, checkpoints, peer, curvature):
    """Its operator as a matrix with an eigendecomposition, and its iterative inverses at one damping constant.

    Conjugate gradients suit the Hessian only where the damping exceeds all eigenvalues (at c = 0.1 they stop at a
    residual above 100, with a warning), so c = 10 is what all get, their best case. There |M + lambda| >= 9 max|eig|
    bounds what a relative residual of `tolerance` does.
    """
    curvlinops = peer("curvlinops")
    peer("curvlinops.examples")
    kinds = {
        "hessian": (curvlinops.HessianLinearOperator, hessian_influence),
        "gauss-newton": (curvlinops.GGNLinearOperator, gauss_newton_influence),
    }
    kind, function = kinds[curvature]
    some = checkpoints.at([1000, 2500, 5000])
    ours = function(DATA, some, relative_damping=DAMPING)
    shifts = DAMPING[-1] * ours["max_abs_eigenvalue"].values
    tolerance = 1e-4  # below 1e-5 linear_cg takes the square of the residual for zero and stands still

    def matrix(t):
        return by_curvlinops_matrix(curvlinops, kind, some, t)

    def conjugate_gradients(operator):
        return curvlinops.CGInverseLinearOperator(operator, tolerance=tolerance, max_iter=D, max_tridiag_iter=0)

    def lsmr(operator):
        return curvlinops.LSMRInverseLinearOperator(operator, atol=tolerance, btol=tolerance, maxiter=D)

    def solver(inverse, t):
        operator = curvlinops_operator(curvlinops, kind, some, t)
        return by_curvlinops_solver(curvlinops, operator, inverse, gradients_at(some.flat[t]), shifts[t])

    for t in range(len(some)):
        assert_same(*matrix(t), ours, t)
        largest_norm = gradients_at(some.flat[t]).norm(dim=1).max().item()
        for inverse in (conjugate_gradients, lsmr):
            # CG stops by the mean over N columns. LSMR adds atol |A|_F |x|, at most 11 / 9 sqrt(D) of |g|.
            factor = N if inverse is conjugate_gradients else 1 + 11 / 9 * D**0.5
            atol = factor * tolerance * largest_norm**2 / (9 * shifts[t] / 10) / N
            np.testing.assert_allclose(solver(inverse, t), ours["influence"].values[-1, t], rtol=0, atol=atol)
    ratios = scaled(
        benchmark,
        lambda: function(DATA, checkpoints, relative_damping=DAMPING),
        some,
        {
            "curvlinops as a matrix and eigh": matrix,
            "curvlinops CG for one damping constant": lambda t: solver(conjugate_gradients, t),
            "curvlinops LSMR for one damping constant": lambda t: solver(lsmr, t),
        },
    )
    assert min(ratios.values()) >= 1


# --- Training: the baseline and eight runs without a sample ---


def test_leave_one_out_against_a_loop_for_each_training(benchmark, checkpoints):
    """Nine runs of torch's SGD on a module; 300 of their 10,000 epochs are timed."""
    weights = torch.ones(N + 1, N, dtype=torch.float64)
    weights[range(1, N + 1), range(N)] = 0

    def loop(beta, epochs):
        model, losses = network(checkpoints), []
        optimiser = torch.optim.SGD(model.parameters(), lr=TrainingConfig().lr)
        for epoch in range(epochs + 1):
            errors = (model(X) - Y).square()
            if epoch % 100 == 0:
                losses.append(errors.detach().sum(1) / 2)
            (beta[:, None] * errors).mean().backward()
            optimiser.step()
            optimiser.zero_grad()
        return torch.stack(losses)

    epochs = 300
    losses = torch.stack([loop(beta, epochs) for beta in weights])
    ours = leave_one_out(DATA, TrainingConfig(epochs=epochs)).transpose("source", "epoch", "query")
    # Losses of about 2; 300 steps round by 1e-15 each, and the leading mode grows by exp(2 x 3.9 x 300 / 1200) = 7.
    np.testing.assert_allclose(ours, losses[0] - losses[1:], rtol=0, atol=2 * 300 * 7 * 1e-15)

    run = lambda: leave_one_out(DATA)  # noqa: E731
    spent, part = cpu_seconds_of_each([run, lambda: loop(weights[1], epochs)])
    benchmark.pedantic(run, rounds=3)
    benchmark.extra_info["ours, CPU-seconds"] = spent
    benchmark.extra_info["loops of torch, CPU-seconds"] = nine = (N + 1) * part * 10_000 / epochs
    benchmark.extra_info["loops of torch to ours"] = nine / spent
    assert nine >= spent
