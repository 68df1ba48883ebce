"""Claims about the workings: estimators, chains, the general engine and closed forms that no other claim reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.integrate import solve_ivp

from numerics import (
    SGLD,
    RMSPropSGLD,
    TrainingConfig,
    bayesian_influence,
    diagnose,
    gauss_newton_influence,
    gaussian_learning_coefficient,
    gradient_kernel,
    group_influence,
    hessian_influence,
    hidden_representations,
    representation_embedding,
    sample,
    tracin,
    train,
    unrolled_influence,
)
from numerics.models.linear import linear_as_module
from theory import deep_mode_strength, gaussian_influence, linear_network_factors, quadratic_loss_covariance
from validation.agreement import agreement
from validation.charts import Plot, Series, curves
from validation.experiments.toy import ToyExperiment
from validation.registry import ROUNDING, Check, claim, numerics, theory

__all__: list[str] = []

_ROUNDING = 1e-10


def _exact(
    quantity: str, found: np.ndarray | float, wanted: np.ndarray | float, why: str, high: float = _ROUNDING
) -> Check:
    """Return a check that two arrays agree to rounding, relative to the largest entry."""
    size = float(np.abs(wanted).max())
    apart = float(np.abs(np.asarray(found) - np.asarray(wanted)).max())
    return Check(f"{quantity}: largest relative difference", apart / size, high=high, why=why, roomy=ROUNDING)


@claim(
    "moments-are-those-of-the-draws",
    "The estimates are those of the recorded draws: covariance over all chains and its divisor, correlation, "
    "covariance "
    "within chains, and the standard error by batch means.",
    source="ours (paper Algorithm 1: covariance between L and phi)",
    compares=(
        numerics("streamed moments of blocks"),
        theory("numpy's covariance of the draws that were kept; batch means with divisor one less than their number"),
    ),
    metric="largest relative difference over settings, checkpoints and pairs",
)
def moments_are_those_of_the_draws(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compute every estimate again from few draws, where divisors show."""
    run = experiment.checkpoints.at([1500.0, 3000.0])
    found = bayesian_influence(
        experiment.dataset, run, SGLD(1e-4, 1e3, 5e3), chains=3, draws=6, keep_draws=True, dtype=torch.float64, seed=5
    )
    draws = found["draws"].values  # (epoch, chain, draw, sample)
    flat = draws.reshape(len(draws), -1, draws.shape[-1])
    whole = np.stack([np.cov(d.T) for d in flat])
    own = np.stack([np.mean([np.cov(c.T) for c in d], axis=0) for d in draws])
    yield _exact("covariance", found["covariance"].values, whole, "numpy's, with divisor n - 1 = 17; rounding")
    yield _exact("correlation", found["correlation"].values, np.stack([np.corrcoef(d.T) for d in flat]), "rounding")
    yield _exact("within chains", found["within_chain_covariance"].values, own, "mean over chains of numpy's; rounding")
    influence = -1e3 / len(experiment.dataset) * whole
    yield _exact("influence", found["influence"].values, influence, "-(n_beta / N) times the covariance; rounding")
    # Six draws a chain are six blocks of one: eighteen products about the grand mean.
    centred = flat - flat.mean(axis=1, keepdims=True)
    products = centred[..., :, None] * centred[..., None, :]
    n = products.shape[1]
    error = products.std(axis=1, ddof=1) / np.sqrt(n) * n / (n - 1)
    yield _exact("standard error", found["standard_error"].values, error, "eighteen blocks with divisor 17; rounding")
    pairs = {"one": list(experiment.dataset.names[:3]), "two": list(experiment.dataset.names[2:5])}
    grouped = group_influence(found["draws"], pairs, normalised=False).values
    rows = [[experiment.dataset.index(name) for name in names] for names in pairs.values()]
    wanted = np.array([[[c[np.ix_(a, b)].mean() for b in rows] for a in rows] for c in whole])
    yield _exact("mean covariance of two groups", grouped, wanted, "mean of the block of numpy's; rounding")
    yield Plot(
        "Covariances of few draws",
        "numpy",
        "streamed",
        (Series("", whole.ravel(), found["covariance"].values.ravel(), style="points"),),
    )


@claim(
    "chains-are-what-is-asked-for",
    "Chains are independent of each other and of where they run: other noise at every checkpoint and chain, the same "
    "chain "
    "alone or among settings, after its burn-in or within a longer run.",
    source="ours (paper Algorithm 1, Table 1)",
    compares=(numerics("a run of several settings and checkpoints"), numerics("the same chains one by one, longer")),
    metric="largest relative difference; correlation of noise",
)
def chains_are_what_is_asked_for(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Run chains alone and together, with a burn-in and without, thinned and not."""
    data = experiment.dataset
    run = experiment.checkpoints.at([1500.0, 3000.0])
    settings = [SGLD(1e-4, 1e3, 5e3), SGLD(1e-4, 1e3, 2e3), SGLD(5e-5, 1e3, 5e3)]
    more: dict[str, Any] = {"chains": 2, "draws": 20, "seed": 3, "dtype": torch.float64}
    together = sample(data, run, settings, **more).values
    alone = np.stack([sample(data, run, s, **more).values for s in settings])
    yield _exact(
        "settings together against alone", together, alone, "the same chain; bits are promised within a setting"
    )
    longer = sample(data, run, settings[0], **{**more, "draws": 60}).values
    burnt = sample(data, run, settings[0], burn_in=30, **more).values
    yield _exact("burn-in of 30 against draws 31 to 50", burnt, longer[:, :, 30:50], "the same chain, later; rounding")
    thinned = sample(data, run, settings[0], thin=3, **more).values
    yield _exact("every third draw", thinned, longer[:, :, ::3], "the same chain, thinned; rounding")
    # Where nothing is learned losses follow the noise alone: two checkpoints with the same weights, of other epochs.
    same = experiment.checkpoints.at([0.0, 100.0])
    same = replace(same, w1=same.w1[[0, 0]], w2=same.w2[[0, 0]])
    # at step x gamma / 2 = 1 a step forgets the last one, up to the curvature's fifth of gamma
    forgetful = SGLD(4e-4, 1e3, 5e3)
    noise = sample(data, same, forgetful, chains=8, draws=1000, burn_in=50, thin=2, seed=3, dtype=torch.float64).values
    flat = noise.reshape(2, 8, -1, len(data))
    pairs = {
        "two checkpoints": (flat[0], flat[1]),
        "two chains": (flat[:, ::2], flat[:, 1::2]),
    }
    for name, (a, b) in pairs.items():
        centred = [(x - x.mean(axis=-2, keepdims=True)).ravel() for x in (a, b)]
        count = a.size // len(data)
        yield Check(
            f"correlation of losses between {name}",
            float(np.corrcoef(*centred)[0, 1]),
            low=-5 / np.sqrt(count),
            high=5 / np.sqrt(count),
            why=f"0 for other noise, 1 for the same; {count} independent draws, of which eight losses share the large "
            "part",
            roomy="close to its mean by luck where it is",
        )
    yield Plot("A loss, burnt in and not", "draw", "loss", curves(np.arange(60), from_the_start=longer[0, 0, :, 0]))


@claim(
    "algorithm-1-step-by-step",
    "The samplers make the steps that are printed: V, its bias correction, the step for every weight, the pull and "
    "the noise.",
    source="paper Algorithm 1, Eq. 15",
    compares=(theory("the printed update, written out"), numerics("the samplers' own update with the same noise")),
    metric="largest relative difference of the weights after forty steps",
)
def algorithm_1_step_by_step(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Follow both readings of V and plain SGLD with one noise."""
    random = experiment.random("steps of Algorithm 1")
    noise, start = random.normal(size=(40, 12)), random.normal(size=12)
    curvature = np.linspace(0.5, 3.0, 12)
    n_beta, pull, step, stability, decay = 50.0, 20.0, 1e-2, 0.3, 0.9
    common: dict[str, Any] = {"n_beta": n_beta, "localization": pull}
    lines = []
    for reading, scale, correct in (("mean loss", 1.0, True), ("tempered", n_beta, True), ("mean loss", 1.0, False)):
        sampler = RMSPropSGLD(
            step_size=step, decay=decay, stability=stability, preconditioner=reading, bias_correction=correct, **common
        )
        found, _ = _follow(sampler, start, noise, curvature)
        w, v = start.copy(), np.zeros(12)
        for t, xi in enumerate(noise, start=1):
            gradient = curvature * w
            v = decay * v + (1 - decay) * (scale * gradient) ** 2
            hat = v / (1 - decay**t) if correct else v
            own = step / (np.sqrt(hat) + stability)
            w = w - own / 2 * (n_beta * gradient + pull * (w - start)) + np.sqrt(own) * xi
        name = f"V of the {reading}, {'with' if correct else 'without'} bias correction"
        yield _exact(name, found, w, "the same numbers in another order; rounding")
        lines.append(w)
    found, path = _follow(SGLD(step_size=step / 10, **common), start, noise, curvature)
    w = start.copy()
    for xi in noise:
        w = w - step / 20 * (n_beta * curvature * w + pull * (w - start)) + np.sqrt(step / 10) * xi
    yield _exact("SGLD", found, w, "the same numbers in another order; rounding")
    yield Plot("SGLD, first weight", "step", "w", curves(np.arange(len(path)), sampler=path))


def _follow(
    sampler: SGLD | RMSPropSGLD, start: np.ndarray, noise: np.ndarray, curvature: np.ndarray
) -> tuple[np.ndarray, list]:
    anchor = torch.tensor(start)[None]
    rule = type(sampler).rule([sampler], [anchor.clone()])
    w, path = [anchor.clone()], []
    for xi in noise:
        path.append(float(w[0][0, 0]))
        rule.move(w, [torch.tensor(curvature) * w[0]], [torch.tensor(xi)[None].clone()])
    return w[0][0].numpy(), path


@claim(
    "mini-batches-are-unbiased",
    "With mini-batches and with sample weights the chains have the mean of the full-batch posterior with these "
    "weights.",
    source="paper Algorithm 1 (mini-batch B), B (sample weights)",
    compares=(
        theory("mean losses of the weighted Gaussian limit, by the shift of its mode"),
        numerics("SGLD with batches of four, and with all eight"),
    ),
    metric="shift of mean losses against those without the sample weights",
)
def mini_batches_are_unbiased(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Give half of the samples the weight three, and sample with batches of four."""
    # ten hidden units: forty idle ones more would add noise to every loss, and four times the work
    data, run = experiment.dataset, experiment.variant(hidden=10).checkpoints.at([2000.0])
    weights = np.array([3.0, 1.0] * 4)
    sampler = SGLD(5e-5, 1e3, 5e3)
    more: dict[str, Any] = {"chains": 32, "draws": 1500, "burn_in": 60, "seed": 11, "dtype": torch.float64}
    means, errors = {}, {}
    for name, beta, batch in (("plain", None, None), ("full", weights, None), ("batches", weights, 4)):
        draws = sample(data, run, sampler, weights=beta, batch_size=batch, **more).values[0]
        per_chain = draws.mean(axis=1)
        means[name], errors[name] = per_chain.mean(axis=0), per_chain.std(axis=0, ddof=1) / np.sqrt(len(per_chain))
    moved, wanted = means["batches"] - means["plain"], means["full"] - means["plain"]
    size = float(np.linalg.norm(wanted))
    error = float(np.sqrt(sum(np.square(e).sum() for e in errors.values())) / size)
    yield Check(
        "shift with batches of four along that with all eight",
        float(moved @ wanted / size**2),
        low=0.9,
        high=1.1,
        why="1; noise of batches adds to the spread, eps / 2 n_beta Var(g), second order in the step",
        error=error,
    )
    force = (weights - 1) @ _gradients(experiment, run)
    expected = -_gradients(experiment, run) @ force * sampler.n_beta / len(data) / sampler.localization
    yield Check(
        "shift with all eight along -(n_beta / gamma) sum_i (beta_i - 1) grad l_i . grad l_j / N",
        float(wanted @ expected / (expected @ expected)),
        low=0.75,
        high=1.25,
        why="first order in the shift of the mode; curvature adds up to a fifth to the localisation",
        error=error,
    )
    yield Plot(
        "Shift of mean losses by sample weights",
        "sample",
        "shift",
        (
            Series("batches of four", np.array(data.names), moved, style="bars"),
            Series("all eight", np.array(data.names), wanted, style="points"),
        ),
        zero=True,
    )


def _gradients(experiment: ToyExperiment, run: object) -> np.ndarray:
    """Return the gradients of all losses at a checkpoint by automatic differentiation, (N, parameters)."""
    data = experiment.dataset
    w1, w2 = (w[0].double().clone().requires_grad_() for w in (run.w1, run.w2))  # type: ignore[attr-defined]
    losses = (torch.tensor(data.targets) - torch.tensor(data.inputs) @ w1.mT @ w2.mT).square().sum(1) / 2
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(one, (w1, w2), retain_graph=True)]) for one in losses]
    return np.asarray(torch.stack(rows).numpy())


@claim(
    "one-answer-from-both-engines",
    "The engine for any torch module gives what the engine of linear networks does: training, kernel, TracIn, unrolled "
    "derivative, damped influence dense and matrix-free, also with sample weights.",
    source="ours",
    compares=(
        numerics("linear networks, by their own structure"),
        numerics("the same network as a torch module, by automatic differentiation"),
        theory("definition of the damped influence, solved densely"),
    ),
    metric="largest relative difference",
)
def one_answer_from_both_engines(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Ask both engines the same at three checkpoints of a small network."""
    data = experiment.dataset
    config = TrainingConfig(hidden=10, epochs=2400, checkpoint_every=800, seed=experiment.settings.seed)
    run = train(data, config).checkpoints
    module = linear_as_module(run)
    weights = module.weights
    assert isinstance(weights, torch.Tensor)
    start = weights[0]
    beta = np.linspace(0.5, 2.0, len(data))
    # the mean of the losses of a module against torch's mean squared error, 2 / O of it
    slower = replace(config, lr=2 * config.lr / data.n_outputs)
    general = train(data, slower, model=module.model, initial=start).checkpoints
    flat = torch.cat([run.w1.flatten(1), run.w2.flatten(1)], dim=1)
    trained = general.weights
    assert isinstance(trained, torch.Tensor)
    yield _exact("training", trained.numpy(), flat.numpy(), "rounding, grown by training", 1e-8)
    later = run.at([1600.0, 2400.0])
    later_module = linear_as_module(later)
    cases: tuple[tuple[str, Callable[..., xr.DataArray], dict[str, Any], dict[str, Any]], ...] = (
        ("kernel", gradient_kernel, {}, {}),
        ("TracIn", tracin, {"lr": slower.lr}, {"lr": config.lr}),
    )
    for name, function, general_more, own_more in cases:
        of_module, own = function(data, later_module, **general_more).values, function(data, later, **own_more).values
        yield _exact(name, of_module, own, "the same gradients, by hand and by automatic differentiation; rounding")
    matrices, lines = [], None
    for k in range(2):
        gradients = _gradients(experiment, run.at([later.epochs[k]]))
        matrices.append((gradients, _dense_hessian(experiment, later.w1[k], later.w2[k], beta)))
    largest = [float(np.abs(np.linalg.eigvalsh(h)).max()) for _, h in matrices]
    wanted = np.stack(
        [
            -g @ np.linalg.solve(h + 2 * top * np.eye(len(h)), g.T) / len(data)
            for (g, h), top in zip(matrices, largest, strict=True)
        ]
    )
    for name, at, method in (
        ("linear engine", later, None),
        ("module, dense", later_module, "dense"),
        ("module, matrix-free", later_module, "matrix-free"),
    ):
        found = hessian_influence(data, at, relative_damping=2.0, weights=beta, method=method)["influence"]
        high = 1e-4 if method == "matrix-free" else 1e-8
        why = "-g (H + 2 max|eig| )^-1 g / N with torch's Hessian of the weighted loss; " + (
            "Lanczos' eigenvalue and MINRES to 1e-6" if method == "matrix-free" else "rounding"
        )
        yield _exact(
            f"damped Hessian with sample weights, {name}", found.values.reshape(wanted.shape), wanted, why, high
        )
        lines = found.values.reshape(wanted.shape) if lines is None else lines
    plain, own = (gauss_newton_influence(data, at, damping=0.3)["influence"].values for at in (later_module, later))
    yield _exact("damped Gauss-Newton", plain, own, "output space against parameter space; rounding", 1e-8)
    short = replace(config, epochs=600, checkpoint_every=300)
    unrolled = [
        unrolled_influence(data, short, w1=run.w1[0].numpy(), w2=run.w2[0].numpy()).values,
        unrolled_influence(data, replace(short, lr=slower.lr), model=module.model, initial=start).values,
    ]
    yield _exact(
        "unrolled derivative", unrolled[1], unrolled[0], "the same recursion; rounding, grown by training", 1e-7
    )
    yield Plot(
        "Damped influence with sample weights",
        "dense definition",
        "linear engine",
        (Series("", wanted.ravel(), np.asarray(lines).ravel(), style="points"),),
    )


def _dense_hessian(experiment: ToyExperiment, w1: torch.Tensor, w2: torch.Tensor, beta: np.ndarray) -> np.ndarray:
    data = experiment.dataset
    inputs, targets, weight = torch.tensor(data.inputs), torch.tensor(data.targets), torch.tensor(beta)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        first, second = flat[: w1.numel()].reshape(w1.shape), flat[w1.numel() :].reshape(w2.shape)
        return (weight * (targets - inputs @ first.mT @ second.mT).square().sum(1)).sum() / 2 / len(data)

    return np.asarray(torch.func.hessian(loss)(torch.cat([w1.flatten(), w2.flatten()]).double()).numpy())


@claim(
    "layers-and-axes",
    "The exact solution gives both layers and not only their product, and the embedding of the hidden layer keeps its "
    "axes "
    "while the network learns.",
    source="paper 3, Fig. 4b; ours",
    compares=(
        theory("layers of the exact matrix solution"),
        numerics("integrated flow's layers"),
        numerics("multidimensional scaling with axes common to all epochs"),
    ),
    metric="largest difference of the layers; turning of the axes from checkpoint to checkpoint",
)
def layers_and_axes(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare layers one by one, and follow the embedding."""
    w1, w2 = linear_network_factors(
        *experiment.initial_weights, experiment.dataset.syx, experiment.epochs, experiment.tau
    )
    size = float(np.sqrt(experiment.modes.values[0]))
    start = [np.abs(w).max() for w in experiment.initial_weights]
    for name, found, flow in (("W1", w1, experiment.flow.w1.numpy()), ("W2", w2, experiment.flow.w2.numpy())):
        yield Check(
            f"{name}: largest difference from the flow / size of a learned layer",
            float(np.abs(found - flow).max() / size),
            high=float(max(start)),
            roomy="fifty hidden units share the turn",
            why="the imbalance of random weights is left out, which turns layers by the size of the start over that "
            "of a "
            "learned one",
        )
    points = representation_embedding(experiment.dataset, experiment.checkpoints, dims=3).values
    hidden = hidden_representations(experiment.dataset, experiment.checkpoints).values
    seen = np.concatenate([hidden, np.ones((*hidden.shape[:2], 1))], axis=-1).reshape(-1, hidden.shape[-1] + 1)
    flat = points.reshape(-1, points.shape[-1])
    frame = np.linalg.lstsq(seen, flat, rcond=None)[0]
    yield _exact(
        "coordinates by one linear map of the hidden layer for all epochs", seen @ frame, flat, "common axes", 1e-8
    )
    turn = frame[:-1].T @ frame[:-1]
    yield _exact("products of the map's axes against the unit matrix", turn, np.eye(3), "a projection; rounding", 1e-6)
    for k in range(3):
        along = points[:, :, k] - points[:, :, k].mean(axis=1, keepdims=True)
        speed = np.abs(np.diff(along, axis=0)).max()
        yield Check(
            f"axis {k + 1}: largest move of a point between two checkpoints / its largest distance from the centre",
            float(speed / np.abs(along).max()),
            high=0.5,
            roomy="learning takes ten checkpoints and more",
            why="an axis that flips moves a point by twice its distance; learning takes more than two checkpoints",
        )
    yield Plot(
        "First axis of the embedding",
        "epoch",
        "coordinate",
        tuple(Series(name, experiment.epochs, points[:, k, 0]) for k, name in enumerate(experiment.dataset.names)),
        zero=True,
    )


@claim(
    "deep-chains",
    "In a chain of L balanced layers a mode follows tau dg/dt = L g^(2 - 2 / L) (s - g).",
    source="ours (after Saxe et al. 2013)",
    compares=(
        theory("closed form"),
        numerics("differential equation of the layers by DOP853"),
        numerics("descent of a chain"),
    ),
    metric="largest relative difference over time, three depths",
)
def deep_chains(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Integrate the layers of chains of one unit, with a loss of their product."""
    tau, s, g0 = 1200.0, 3.0, 1e-2
    series = []
    for depth in (1, 2, 3, 4):
        t = np.linspace(0.0, 9000.0 if depth > 2 else 4000.0, 60)

        def velocity(_: float, a: np.ndarray) -> np.ndarray:
            product = np.prod(a)
            return (s - product) * product / a / tau

        solved = solve_ivp(
            velocity, (0, t[-1]), np.full(depth, g0 ** (1 / depth)), method="DOP853", t_eval=t, rtol=1e-12, atol=1e-14
        )
        closed = deep_mode_strength(t, s, g0, tau, depth=depth)
        yield _exact(f"{depth} layers", closed, np.prod(solved.y, axis=0), "DOP853 at 1e-12, grown by s / g0", 1e-8)
        series.append(Series(f"{depth} layers", t, closed))
    yield Plot("One mode in chains of layers", "epoch", "strength", tuple(series))


@claim(
    "diagnostics-are-honest",
    "R-hat, effective sample size and standard error tell what is known of an autoregressive chain; the Gaussian "
    "learning "
    "coefficient is what sampling finds at a regular minimum.",
    source="ours (paper C.2: diagnostics of sampling)",
    compares=(
        theory("autoregressive chain: n (1 - rho) / (1 + rho) effective draws; d / 2 with localisation"),
        numerics("diagnostics of simulated chains; SGLD at a quadratic minimum"),
    ),
    metric="ratio to the known value",
)
def diagnostics_are_honest(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Simulate autoregressive chains, mixed and not, and a learning coefficient."""
    random = experiment.random("autoregressive chains")
    rho, chains, draws, copies = 0.8, 4, 4000, 24
    noise = random.normal(size=(chains, draws, copies)) * np.sqrt(1 - rho**2)
    x = np.empty_like(noise)
    x[:, 0] = random.normal(size=(chains, copies))
    for k in range(1, draws):
        x[:, k] = rho * x[:, k - 1] + noise[:, k]
    dims = ("epoch", "chain", "draw", "sample")
    found = diagnose(xr.DataArray(x[None], dims=dims))
    effective = chains * draws * (1 - rho) / (1 + rho)
    ratio = found["ess_bulk"].values / effective
    yield Check(
        "effective draws over n (1 - rho) / (1 + rho)",
        float(ratio.mean()),
        low=0.9,
        high=1.1,
        why="known exactly for a Gaussian chain",
        error=float(ratio.std(ddof=1) / np.sqrt(copies)),
    )
    errors = found["mcse_mean"].values * np.sqrt(effective)
    yield Check(
        "standard error of the mean over its exact value",
        float(errors.mean()),
        low=0.93,
        high=1.07,
        why="1 / sqrt of the effective draws for variance 1",
        error=float(errors.std(ddof=1) / np.sqrt(copies)),
    )
    apart = x[..., :4] + np.array([0.0, 0.0, 1.0, 1.0])[:, None, None]
    hat = float(diagnose(xr.DataArray(apart[None], dims=dims))["r_hat"].mean())
    between = 1 / 4 * 4 / 3  # variance of the four means 0, 0, 1, 1, each chain split in two of the same mean
    yield Check(
        "R-hat of chains a standard deviation apart over sqrt(1 + between / within)",
        hat / float(np.sqrt(1 + between * 6 / 7)),
        low=0.99,
        high=1.01,
        roomy="four thousand draws a chain",
        why="split in halves: eight means with variance 2 / 7; ranks are normal scores of nearly normal draws",
    )
    # more hidden units than the 8 + 15 directions that carry weight, so that some are idle
    data, run = experiment.dataset, experiment.variant(hidden=25).checkpoints.at([2000.0])
    dense = _dense_hessian(experiment, run.w1[0], run.w2[0], np.ones(len(data)))
    gradients = _gradients(experiment, run)
    n_beta, pull = 1e3, 5e3
    values, vectors = np.linalg.eigh(dense)
    kappa = n_beta * values + pull
    slope = vectors.T @ gradients.mean(axis=0)
    shift, spread = -n_beta * slope / kappa, 1 / kappa
    wanted = n_beta * float(slope @ shift + values @ (shift**2 + spread) / 2)
    sampled = float(gaussian_learning_coefficient(data, run, n_beta=n_beta, localization=pull).values[0])
    yield _exact(
        "Gaussian learning coefficient",
        sampled,
        wanted,
        "n_beta E[L - L(w*)] of the quadratic, by torch's Hessian",
        1e-8,
    )
    limit = gaussian_influence(gradients, dense, n_beta, pull)
    sigma = np.linalg.inv(n_beta * dense + pull * np.eye(len(dense)))
    ahead = gradients - n_beta * (dense @ sigma @ gradients.mean(axis=0))
    turned = dense @ sigma
    wanted_influence = -n_beta / len(data) * (ahead @ sigma @ ahead.T + np.trace(turned @ turned) / 2)
    yield _exact(
        "Gaussian influence",
        limit.influence,
        wanted_influence,
        "-(n_beta / N) (g Sigma g + tr(H Sigma H Sigma) / 2), gradients at the mean; rounding",
        1e-8,
    )
    few = random.normal(size=(3, 5))
    curved = random.normal(size=(3, 5, 5))
    curved, root = curved + np.swapaxes(curved, 1, 2), random.normal(size=(5, 5)) / 3
    sigma = root @ root.T
    pairs = np.einsum("iab,bc,jcd,da->ij", curved, sigma, curved, sigma) / 2 + few @ sigma @ few.T
    yield _exact(
        "covariance of quadratic losses",
        quadratic_loss_covariance(few, curved, sigma),
        pairs,
        "Isserlis: g Sigma g + tr(H Sigma H Sigma) / 2; rounding",
    )
    yield Plot(
        "Effective draws of 24 chains",
        "copy",
        "over the exact",
        (Series("", np.arange(copies), np.ravel(ratio), style="points"),),
    )


@claim(
    "agreement-is-a-slope",
    "A measure that is a scaled and shifted copy of another shows its scale in the slope and not in the correlation: "
    "the slope "
    "has no intercept.",
    source="ours",
    compares=(theory("slope of a line with an offset, by hand"), numerics("the ledger's own comparison")),
    metric="difference of the slope",
)
def agreement_is_a_slope(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Scale and shift leave-one-out, whose trajectories do not average to zero."""
    truth = experiment.closed_leave_one_out
    offset = float(abs(truth).max()) / 4
    changed = 1.5 * truth + offset
    found = agreement(truth, changed)
    x = truth.values.ravel()
    yield _exact("slope through the origin", found.slope, 1.5 + offset * x.sum() / (x @ x), "by hand; rounding")
    yield Check(
        "the same with an intercept would be",
        float(np.polyfit(x, changed.values.ravel(), 1)[0]),
        low=1.5 - 1e-9,
        high=1.5 + 1e-9,
        why="so that the two differ on these data; rounding",
        roomy=ROUNDING,
    )
    yield Check(
        "correlation", found.pearson, low=1 - 1e-12, high=1 + 1e-12, why="blind to both; rounding", roomy=ROUNDING
    )
    yield Plot(
        "Scaled and shifted",
        "leave-one-out",
        "changed",
        (Series("", x[::40], changed.values.ravel()[::40], style="points"),),
    )
