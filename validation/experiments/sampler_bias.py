"""What Algorithm 1 samples in place of the posterior: on a quadratic, where it is known, and in the toy model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from numerics import (
    MALA,
    SGLD,
    ModuleCheckpoints,
    RMSPropSGLD,
    Sampler,
    Samples,
    TorchModel,
    bayesian_influence,
    sample,
)
from theory import adaptive_limit, stationary_law
from theory.trajectories import labelled_array
from validation.experiments.base import Experiment

__all__ = ["RELATIVE_STEP", "BiasSettings", "quadratic_bias", "toy_bias"]

# Largest step times curvature; 4 would be unstable. Half of it would halve the widening by 5 %, which is known exactly,
# and would double the burn-in that chains need at the smallest stability constant, which is not.
RELATIVE_STEP = 0.2
_MALA_STEP = 0.1  # step times localization, at which MALA accepts nine in ten proposals of the toy network


@dataclass(frozen=True)
class BiasSettings:
    """Settings of the measurement of Algorithm 1's bias.

    Parameters
    ----------
    stabilities
        Stability constants a.
    decays
        Decay rates b of the running mean of squared gradients.
    n_beta
        Inverse temperature of the quadratic.
    weights, chains, burn_in, draws
        Weights of the quadratic, all alike, and chains, steps before the first draw and draws of each setting. Every
        weight is a chain of its own, so that 400 of them cost less than draws do.
    relative_steps
        Steps of SGLD times curvature.
    toy_runs, toy_chains, toy_draws
        Independent runs of the toy model, and chains and draws of each.
    seed
        Seed of the samplers.
    """

    stabilities: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    decays: tuple[float, ...] = (0.0, 0.9, 0.99)
    n_beta: float = 100.0
    weights: int = 400
    chains: int = 4
    burn_in: int = 800
    draws: int = 1000
    relative_steps: tuple[float, ...] = (RELATIVE_STEP, 1.0, 2.0, 3.0)
    toy_runs: int = 4
    toy_chains: int = 4
    toy_draws: int = 1200
    seed: int = 0


@cache
def quadratic_bias(settings: BiasSettings, *, device: str = "cpu") -> xr.Dataset:
    r"""Return the variance that samplers give the weights of L = |w|^2 / 2, over the posterior's 1 / n_beta.

    Steps are a twentieth of the stable range where the gradient vanishes: eps / a times n_beta is 0.2.

    Returns
    -------
    xarray.Dataset
        ``algorithm_1`` (decay, stability), ``frozen`` (stability), ``mala`` and ``sgld`` (relative_step) measured, and
        their standard errors under ``..._error``. In closed form: ``limit`` (stability) and ``fine_limit``
        (fine_stability), for short steps when the preconditioner follows the weights at once; ``discretised``
        (relative_step), of SGLD with its finite step. A setting's numbers do not depend on what else is asked for.
    """
    a, n_beta, relative = settings.stabilities, settings.n_beta, settings.relative_steps

    def rmsprop(decay: float, stability: float, adaptation: int | None = None) -> RMSPropSGLD:
        return RMSPropSGLD(
            step_size=RELATIVE_STEP * stability / n_beta,
            n_beta=n_beta,
            localization=0.0,
            decay=decay,
            stability=stability,
            adaptation=adaptation,
        )

    # all decay rates in one batch, which takes hardly longer than one of them
    printed = _variance_ratios([rmsprop(b, s) for b in settings.decays for s in a], settings, device)
    frozen = [rmsprop(0.99, s, adaptation=settings.burn_in // 2) for s in a]
    measured = {
        "algorithm_1": printed.reshape(len(settings.decays), len(a), 2),
        "frozen": _variance_ratios(frozen, settings, device),
        "mala": _variance_ratios([MALA(RELATIVE_STEP / n_beta, n_beta, localization=0.0)], settings, device)[0],
        "sgld": _variance_ratios([SGLD(r / n_beta, n_beta, localization=0.0) for r in relative], settings, device),
    }
    discretised = [stationary_law([[n_beta]], r / n_beta).covariance[0, 0] * n_beta for r in relative]
    fine = np.geomspace(a[0], a[-1], 41)
    limits = _limits(n_beta, np.append(a, fine))
    coords: dict[str, dict[str, object]] = {
        "algorithm_1": {"decay": list(settings.decays), "stability": list(a)},
        "frozen": {"stability": list(a)},
        "mala": {},
        "sgld": {"relative_step": list(relative)},
    }
    attrs = {"n_beta": n_beta, "draws": settings.draws, "chains": settings.chains, "seed": settings.seed}
    arrays = {}
    for name, pairs in measured.items():
        arrays[name] = labelled_array(pairs[..., 0], coords[name], name, attrs)
        arrays[f"{name}_error"] = labelled_array(pairs[..., 1], coords[name], f"standard error of {name}", attrs)
    arrays["discretised"] = labelled_array(discretised, coords["sgld"], "frozen preconditioner or SGLD", attrs)
    arrays["limit"] = labelled_array(limits[: len(a)], coords["frozen"], "limit of Algorithm 1", attrs)
    arrays["fine_limit"] = labelled_array(limits[len(a) :], {"fine_stability": fine}, "limit of Algorithm 1", attrs)
    return xr.Dataset(arrays)


def _limits(n_beta: float, stabilities: Float[np.ndarray, " n"]) -> list[float]:
    width = 10 / n_beta**0.5
    laws = (adaptive_limit(lambda w: -n_beta * w**2 / 2, lambda w: w, float(s), (-width, width)) for s in stabilities)
    return [law.variance_ratio for law in laws]


def _variance_ratios(
    samplers: Sequence[Sampler], settings: BiasSettings, device: str
) -> Float[np.ndarray, "settings 2"]:
    """Return n_beta E[w^2], averaged over weights and chains, and its standard error, for every sampler."""
    d = settings.weights
    model = TorchModel(torch.nn.Linear(1, d, bias=False))
    start = ModuleCheckpoints(np.zeros(1), model, torch.zeros(1, d))
    losses = sample(
        Samples(torch.ones(1, 1), torch.zeros(1, d)),
        start,
        samplers,
        chains=settings.chains,
        draws=settings.draws,
        burn_in=settings.burn_in,
        seed=settings.seed,
        device=device,
    )
    ratio = losses.isel(epoch=0, sample=0).transpose("setting", "chain", "draw").values * 2 * samplers[0].n_beta / d
    blocks = ratio.reshape(len(samplers), settings.chains * 8, -1).mean(axis=-1)
    return np.stack([blocks.mean(axis=1), blocks.std(axis=1, ddof=1) / np.sqrt(blocks.shape[1])], axis=-1)


def toy_bias(
    experiment: Experiment,
    settings: BiasSettings,
    *,
    device: str = "cpu",
) -> xr.Dataset:
    """Return what Algorithm 1's bias does to the Bayesian influence of a trained network: its scale relative to MALA's.

    Parameters
    ----------
    experiment
        Taken at its last checkpoint, where gradients are those that the sampler's own noise makes. Of its sampler
        n_beta, localization and decay are used; steps are eps / a = 0.2 / localization.
    settings
        See `BiasSettings`.
    device
        Where chains run.

    Returns
    -------
    xarray.Dataset
        ``algorithm_1`` and ``frozen``, dims (stability): least-squares slope through the origin of the sampled
        covariances of all pairs on those by MALA; ``..._error``: its standard error, from the spread of `toy_runs`
        independent runs, those of MALA included.
    """
    sampler, trained = experiment.settings.sampler, experiment.checkpoints.at([experiment.epochs[-1]])

    def covariances(samplers: Sequence[Sampler]) -> Float[np.ndarray, "runs settings n n"]:
        runs = [
            bayesian_influence(
                experiment.dataset,
                trained,
                samplers,
                chains=settings.toy_chains,
                draws=settings.toy_draws,
                burn_in=settings.toy_draws // 2,
                seed=settings.toy_runs * settings.seed + run,
                device=device,
            )
            for run in range(settings.toy_runs)
        ]
        return np.stack(
            [run["covariance"].isel(epoch=0).transpose("setting", "source", "query").values for run in runs]
        )

    exact = covariances([MALA(_MALA_STEP / sampler.localization, sampler.n_beta, sampler.localization)])
    reference = exact.mean(axis=(0, 1))
    doubt = _standard_error(_slopes(exact, reference))
    coords: dict[str, object] = {"stability": list(settings.stabilities)}
    arrays = {}
    for name, adaptation in (("algorithm_1", None), ("frozen", settings.toy_draws // 4)):
        samplers = [
            replace(sampler, stability=a, step_size=RELATIVE_STEP * a / sampler.localization, adaptation=adaptation)
            for a in settings.stabilities
        ]
        slopes = _slopes(covariances(samplers), reference)
        error = np.hypot(_standard_error(slopes), doubt)
        arrays[name] = labelled_array(slopes.mean(axis=0), coords, name)
        arrays[f"{name}_error"] = labelled_array(error, coords, f"standard error of {name}")
    return xr.Dataset(arrays)


def _slopes(
    covariances: Float[np.ndarray, "runs settings n n"], reference: Float[np.ndarray, "n n"]
) -> Float[np.ndarray, "runs settings"]:
    return np.sum(covariances * reference, axis=(2, 3)) / np.sum(reference**2)


def _standard_error(values: Float[np.ndarray, "runs settings"]) -> Float[np.ndarray, " settings"]:
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))
