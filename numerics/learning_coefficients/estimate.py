r"""Learning coefficient of a network at its checkpoints, measured by sampling (Lau et al. 2023; Watanabe 2013).

.. math:: \hat\lambda = n_\beta \bigl( E[L(w)] - L(w^*) \bigr), \qquad
    p(w) \propto \exp\bigl(-n_\beta L(w) - \tfrac{\gamma}{2} \| w - w^* \|^2\bigr) .

What a perfect sampler would return is not the learning coefficient lambda itself:

* Finite n_beta. At a minimum of multiplicity m the mean is :math:`\lambda - (m - 1) / (\log n_\beta + c)`, and lambda
  less something of order :math:`n_\beta^{-1/2}` for m = 1; `extrapolate_learning_coefficient` takes it to infinity.
* Localisation. The pull adds its own curvature: where the loss is quadratic with curvatures h_k the mean is
  :math:`\sum_k \tfrac12 n_\beta h_k / (n_\beta h_k + \gamma)`, see `gaussian_learning_coefficient`. It must be weak
  against n_beta h for lambda to be seen. For two layers and the zero map the mean depends on n_beta / gamma^2 alone,
  which must be large.
* Place. The coefficient is that of the most singular minimum which the localisation leaves in reach: where minima meet,
  the smallest lambda has the largest volume. It is never larger at a minimum than at minima close to it. A balanced
  network of minimal norm, whose spare units are zero, shows Aoyagi's value; one whose spare units carry weight may show
  more.
* Steps. SGLD of step eps inflates the variance along h_k by 1 / (1 - eps (n_beta h_k + gamma) / 4), and Algorithm 1 by
  more; `MALA` has no such bias at any step.
* Start. Chains start at the checkpoint and leave it as slowly as the flattest direction, over about 2 / (eps gamma)
  steps; burn in for twice that.

Away from a minimum a chain that goes downhill gives negative estimates. They are returned as they are.

Settings that reach Aoyagi's values of two-layer networks (P, h, O) within 1 %: L = 1/2 |W - W*|^2 at the balanced
minimum of least norm, singular values 1; `MALA` with a pull of 1 at n_beta = 300 and 3000; steps of 2.4 to 4 over
n_beta ((sqrt(h) + sqrt(max(P, O)))^2 + 2), the curvature met on the way, so that two to four in five proposals are
accepted; a burn-in of 1.5 and draws over 0.5 (at the smaller n_beta, 4) times 2 / (eps gamma) steps; 16 chains; and
extrapolation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from numerics.errors import UntrustedResultWarning
from numerics.models.linear import Checkpoints, per_sample_losses
from numerics.models.samples import Samples
from numerics.sampling.diagnostics import diagnose
from numerics.sampling.plan import Data, Weights
from numerics.sampling.sample import sample
from numerics.sampling.samplers import Sampler
from numerics.sampling.trust import WORST_R_HAT, trust
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["coefficient_of_draws", "estimate_learning_coefficient", "losses_at_checkpoints"]


def estimate_learning_coefficient(
    dataset: Data,
    checkpoints: Weights,
    sampler: Sampler | Sequence[Sampler] | None = None,
    *,
    chains: int = 4,
    draws: int = 1000,
    burn_in: int = 1000,
    thin: int = 1,
    weights: ArrayLike | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    r"""Estimate the local learning coefficient at every checkpoint, with its Monte-Carlo error.

    Parameters
    ----------
    dataset, checkpoints, sampler, chains, draws, burn_in, thin, weights, batch_size, seed, dtype, device
        As for `sample`. L is the mean of the losses 1/2 |y - W x|^2 times their weights. `MALA` is the sampler without
        a bias of its own. In float32 the loss is rounded to 6e-8 of its size, which enters times n_beta.
    workers, progress
        As for `sample`.

    Returns
    -------
    xarray.Dataset
        dims ([setting,] epoch):

        ``learning_coefficient``
            n_beta (E[L] - L(w*)), which may be negative.
        ``standard_error``
            Its Monte-Carlo standard error, from the effective sample size.
        ``ess``, ``r_hat``
            Effective sample size of L and rank-normalised split R-hat, by ArviZ. Much above 1.01 it says that the
            chains have not forgotten their start. The attribute ``trust`` sums them up, see `numerics.trust`.
        ``mean_loss``, ``loss``
            E[L] and L(w*).

    Warns
    -----
    UntrustedResultWarning
        If an R-hat is above 1.1, or nothing is known of the draws; or if a coefficient is negative by more than three
        standard errors, which says that the chains went downhill: the checkpoint is no minimum, and the number no
        learning coefficient.

    Raises
    ------
    SamplerDiverged
        If a chain leaves the finite numbers.
    UnstableStep
        If the step size is outside the stable range at some checkpoint.
    ValueError
        If there are fewer than 4 draws, or an argument does not fit.

    Examples
    --------
    At w2 = 10, w1 = 0 the loss 1/2 (w1 w2)^2 is quadratic in w1 and does not depend on w2: lambda = 1/2.

    >>> from numerics import MALA
    >>> data = Dataset(np.eye(1), np.zeros((1, 1)))
    >>> at = Checkpoints(np.zeros(1), torch.zeros(1, 1, 1), torch.full((1, 1, 1), 10.0))
    >>> sampler = MALA(step_size=1e-3, n_beta=10.0, localization=10.0)
    >>> found = estimate_learning_coefficient(data, at, sampler, chains=8, draws=500, burn_in=100)
    >>> bool(abs(found["learning_coefficient"][0] - 0.5) < 4 * found["standard_error"][0] + 0.01)
    True
    """
    checks.integer("draws", draws, at_least=4)  # diagnostics compare halves of chains, whose variance takes two
    losses = sample(
        dataset,
        checkpoints,
        sampler,
        chains=chains,
        draws=draws,
        burn_in=burn_in,
        thin=thin,
        weights=weights,
        batch_size=batch_size,
        seed=seed,
        dtype=dtype,
        device=device,
        workers=workers,
        progress=progress,
    )
    beta = np.ones(len(dataset)) if weights is None else np.asarray(weights, dtype=np.float64)
    found = coefficient_of_draws(losses, losses_at_checkpoints(dataset, checkpoints), beta)
    _warn(found)
    return found


def _warn(found: xr.Dataset) -> None:
    """Warn of numbers that are no learning coefficients, and of those that the draws do not support."""
    value, error, r_hat = found["learning_coefficient"], found["standard_error"], found["r_hat"]
    downhill = value < -3 * error
    if downhill.any():
        lowest = value.where(downhill).min().item()
        warnings.warn(
            f"{int(downhill.sum())} of {downhill.size} learning coefficients are negative, {lowest:.3g} at least: the "
            "chains went downhill, so that the checkpoint is no minimum and the number no learning coefficient; train "
            "longer, or raise the localization.",
            UntrustedResultWarning,
            stacklevel=3,
        )
    apart = r_hat.isnull() | (r_hat > WORST_R_HAT)
    if apart.any():
        warnings.warn(
            f"{int(apart.sum())} of {apart.size} learning coefficients rest on chains that do not agree, "
            f"{found.attrs['trust']}; use a longer burn_in and more draws.",
            UntrustedResultWarning,
            stacklevel=3,
        )


def coefficient_of_draws(
    losses: xr.DataArray, at_start: Float[np.ndarray, "t n"], beta: Float[np.ndarray, " n"]
) -> xr.Dataset:
    """Return the estimate from draws of all training losses, dims ([setting,] epoch, chain, draw, sample).

    Parameters
    ----------
    losses
        What `sample` returns, with ``n_beta`` among its attributes, or its coordinates if it varies.
    at_start
        Losses at the checkpoints, float64.
    beta
        Sample weights.
    """
    share = xr.DataArray(beta / len(beta), dims="sample")
    drawn = xr.dot(losses.astype(np.float64), share, dim="sample")
    start = xr.DataArray(at_start @ share.values, coords={"epoch": losses["epoch"]})
    found = diagnose(drawn.expand_dims(sample=["mean"], axis=-1)).isel(sample=0, drop=True)
    mean = drawn.mean(("chain", "draw"))
    n_beta = losses.coords["n_beta"] if "n_beta" in losses.coords else losses.attrs["n_beta"]
    result = {
        "learning_coefficient": n_beta * (mean - start),
        "standard_error": n_beta * found["mcse_mean"],
        "ess": found["ess_bulk"],
        "r_hat": found["r_hat"],
        "mean_loss": mean,
        "loss": start,
    }
    named = xr.Dataset({name: array.drop_attrs() for name, array in result.items()}, attrs=losses.attrs)
    summary = trust(named.assign(reason=found["reason"]), chains=losses.sizes["chain"])
    return named.assign_attrs(trust=str(summary))


def losses_at_checkpoints(dataset: Data, checkpoints: Weights) -> Float[np.ndarray, "t n"]:
    """Return the loss of every sample at every checkpoint, shape (T, N), float64."""
    if isinstance(checkpoints, Checkpoints):
        assert isinstance(dataset, Dataset)
        return per_sample_losses(checkpoints.maps, dataset).cpu().numpy()
    samples, model = Samples.of(dataset).like(checkpoints.like), checkpoints.model
    rows = []
    with torch.no_grad():
        for t in range(len(checkpoints)):
            losses = model.losses(checkpoints.weights_at(t), samples, checkpoints.state_at(t))
            rows.append(losses.double().cpu().numpy())
    return np.stack(rows)
