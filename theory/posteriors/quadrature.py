r"""Exact tempered posteriors over one or two weights by adaptive quadrature: evidence, phase weights, influence.

.. math:: p(w) \propto \exp(-n_\beta L(w)) \varphi(w), \qquad
    I_{ij} = -\frac{n_\beta}{N} \mathrm{Cov}(\ell_i, \ell_j) .

One Clenshaw-Curtis mesh in log scale, refined where the embedded rule disagrees, serves all moments at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from jaxtyping import Bool, Float
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike
from scipy import special

from theory import checks

__all__ = ["TemperedPosterior", "tempered_posterior"]

_ORDER = 12  # Clenshaw-Curtis intervals a cell and axis; every other node makes the embedded rule of the error estimate
_START = 4  # cells an axis before refinement
_MOST_SPREAD = 20.0  # a cell over which the density varies by more than e^20 is split whatever its error estimate
_CLOSEST = (1 - np.cos(np.pi / _ORDER)) / 2  # distance of the two nodes at the end of a cell of width 1
_FINEST = 2.0**-40  # of a box: a cell of this width over which the density moves in a single step holds a jump


@dataclass(frozen=True, eq=False)
class TemperedPosterior:
    """Exact posterior expectations of m losses, in total and within K phases; shapes start with that of `n_beta`.

    Parameters
    ----------
    n_beta
        Sample size times inverse temperature.
    phase_log_evidences, phase_means, phase_covariances
        log Z_k (..., K), E[l | k] (..., K, m) and Cov(l_i, l_j | k) (..., K, m, m).
    errors
        Estimated error of log Z_k, of means in standard deviations and of covariances in their products, (..., K).
    """

    n_beta: np.ndarray
    phase_log_evidences: np.ndarray
    phase_means: np.ndarray
    phase_covariances: np.ndarray
    errors: np.ndarray

    @property
    def free_energy(self) -> Float[np.ndarray, "..."]:
        """F = -log Z over all phases."""
        return np.asarray(-special.logsumexp(self.phase_log_evidences, axis=-1))

    @property
    def phase_weights(self) -> Float[np.ndarray, "... phases"]:
        """Posterior weights of the phases."""
        return special.softmax(self.phase_log_evidences, axis=-1)

    @property
    def mean(self) -> Float[np.ndarray, "... m"]:
        """Posterior expectation of each loss."""
        return np.einsum("...k,...ki->...i", self.phase_weights, self.phase_means)

    @property
    def covariance(self) -> Float[np.ndarray, "... m m"]:
        """Posterior covariance of the losses: within the phases plus between them."""
        weights, off = self.phase_weights, self.phase_means - self.mean[..., None, :]
        return np.einsum("...k,...kij->...ij", weights, self.phase_covariances) + np.einsum(
            "...k,...ki,...kj->...ij", weights, off, off
        )

    @property
    def influence(self) -> Float[np.ndarray, "... m m"]:
        """Bayesian influence -(n_beta / m) Cov(l_i, l_j): derivative of E[l_j] with respect to the weight of i."""
        return -self.n_beta[..., None, None] / self.phase_means.shape[-1] * self.covariance


def tempered_posterior(
    losses: Callable[[np.ndarray], np.ndarray],
    boxes: ArrayLike,
    n_beta: ArrayLike,
    *,
    log_prior: Callable[[np.ndarray], np.ndarray] | None = None,
    sample_weights: ArrayLike | None = None,
    points: ArrayLike | None = None,
    rtol: float = 1e-8,
    max_cells: int = 20_000,
) -> TemperedPosterior:
    r"""Return the posterior :math:`p \propto \varphi(w) \exp(-n_\beta \frac1m \sum_i \beta_i l_i(w))` by quadrature.

    Every box is covered by cells with tensor Clenshaw-Curtis rules, halved where the embedded rule disagrees, and where
    the log density could rise between nodes, by as much as it varies over the nodes, to a level that counts. Cells
    therefore thin out geometrically away from a peak, and a peak of width :math:`n^{-1/2}` costs of order log n cells.
    Structure of the losses finer than the first mesh, 48 intervals an axis, must be announced through `points`. A loss
    may jump at an edge of a box or of a cell: each side takes its value from inside. Elsewhere a jump in one dimension
    is closed in on, and one in two dimensions exhausts the cells.

    Parameters
    ----------
    losses
        Takes weights (points, d), returns the m losses (points, m); d is 1 or 2.
    boxes
        One box a phase, shape (K, d, 2) with lower and upper limits; disjoint.
    n_beta
        Sample size times inverse temperature, >= 0, any shape.
    log_prior
        Takes weights (points, d), returns log prior density up to a constant (points,), finite; uniform if not given.
    sample_weights
        beta_i, shape (m,), all one if not given.
    points
        Weights (p, d) on which cell edges are placed, for example known minima.
    rtol
        Error allowed in log Z_k, and in moments relative to standard deviations.
    max_cells
        Most cells for one box.

    Raises
    ------
    ValueError
        If a box is empty or overlaps another, a shape is wrong, or a loss is not finite; or if rounding exceeds `rtol`:
        of n_beta times the loss at the peak, of a loss against its own variation, or of weights far from 0 against the
        width of a peak. The sentence says what to subtract or to shift.
    RuntimeError
        If the tolerance is not reached with `max_cells` cells.

    Examples
    --------
    >>> result = tempered_posterior(lambda w: w**2 / 2, [[[-8.0, 8.0]]], 4.0)
    >>> result.mean.round(6), result.covariance.round(6)
    (array([0.125]), array([[0.03125]]))
    """
    checks.function("losses", losses)
    if log_prior is not None:
        checks.function("log_prior", log_prior)
    boxes = _checked_boxes(boxes)
    n_beta = checks.nonnegative("n_beta", n_beta)
    rtol, max_cells = checks.positive("rtol", rtol), checks.integer("max_cells", max_cells, at_least=1)
    d = boxes.shape[1]
    points = np.empty((0, d)) if points is None else checks.matrix("points", points, (None, d))
    if sample_weights is not None:
        sample_weights = checks.array("sample_weights", sample_weights, ndim=1)

    def evaluate(scale: float, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = _checked_values("losses", losses(w), len(w), 2)
        beta = np.ones(values.shape[1]) if sample_weights is None else sample_weights
        if beta.shape != values.shape[1:]:
            raise ValueError(f"sample_weights has shape {beta.shape}, but there are {values.shape[1]} losses.")
        log_density = -scale / len(beta) * (values @ beta)
        if log_prior is not None:
            log_density = log_density + _checked_values("log_prior", log_prior(w), len(w), 1)
        return values, log_density

    parts = [
        [_integrate(box, partial(evaluate, scale), points, rtol, max_cells) for box in boxes]
        for scale in n_beta.ravel().tolist()
    ]
    stacked = [np.array([[phase[i] for phase in row] for row in parts]) for i in range(4)]
    log_z, means, covariances, errors = (a.reshape(n_beta.shape + a.shape[1:]) for a in stacked)
    return TemperedPosterior(n_beta, log_z, means, covariances, errors)


def _checked_boxes(boxes: ArrayLike) -> Float[np.ndarray, "k d 2"]:
    boxes = checks.array("boxes", boxes, ndim=3)
    if len(boxes) == 0 or boxes.shape[1] not in (1, 2) or boxes.shape[2] != 2:
        raise ValueError(
            f"boxes must have shape (phases, 1 or 2 dimensions, 2 limits), but its shape is {boxes.shape}."
        )
    if np.any(boxes[..., 0] >= boxes[..., 1]):
        raise ValueError("every box needs a lower limit below its upper limit.")
    low, high = boxes[..., 0], boxes[..., 1]
    coarse = (high - low) / _START * _CLOSEST < 4 * np.spacing(np.maximum(np.abs(low), np.abs(high)))
    if coarse.any():
        phase, axis = (int(i) for i in np.argwhere(coarse)[0])
        raise ValueError(
            f"box {phase} reaches from {float(low[phase, axis])!r} to {float(high[phase, axis])!r}, too few doubles "
            "for the quadrature's nodes; shift the weights so that the box lies near 0."
        )
    overlap = np.minimum(boxes[:, None, :, 1], boxes[:, :, 1]) - np.maximum(boxes[:, None, :, 0], boxes[:, :, 0])
    pairs = np.argwhere(np.triu(np.all(overlap > 0, axis=-1), 1))
    if len(pairs):
        raise ValueError(f"boxes {pairs[0][0]} and {pairs[0][1]} overlap; phases must be disjoint.")
    return boxes


def _checked_values(name: str, values: ArrayLike, n_points: int, ndim: int) -> np.ndarray:
    values = checks.plain(f"what {name} returned", values)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name} must return real numbers, but the dtype is {values.dtype}.")
    values = values.astype(np.float64, copy=False)
    if values.ndim != ndim or len(values) != n_points:
        wanted = f"({n_points}, m)" if ndim == 2 else f"({n_points},)"
        raise ValueError(f"{name} returned shape {values.shape} for {n_points} points; {wanted} is needed.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is not finite everywhere in the boxes; shrink the boxes to where it is.")
    return values


@cache
def _rules(d: int) -> tuple[Float[np.ndarray, "q d"], Float[np.ndarray, " q"], Float[np.ndarray, "q d"]]:
    """Return nodes on [0, 1]^d, weights, and the weights' differences from the rule with fewer nodes along one axis."""

    def clenshaw_curtis(order: int) -> Float[np.ndarray, " q"]:
        k = np.arange(order + 1)
        moments = np.where(k % 2 == 0, 1 / (1 - k**2 + (k == 1)), 0.0)
        return np.linalg.solve(chebyshev.chebvander(np.cos(np.pi * k / order), order).T, moments)

    nodes = (1 + np.cos(np.pi * np.arange(_ORDER + 1) / _ORDER)) / 2
    fine = clenshaw_curtis(_ORDER)
    change = fine.copy()
    change[::2] -= clenshaw_curtis(_ORDER // 2)
    if d == 1:
        return nodes[:, None], fine, change[:, None]
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    changes = np.stack([np.outer(change, fine).ravel(), np.outer(fine, change).ravel()], axis=-1)
    return grid, np.outer(fine, fine).ravel(), changes


def _integrate(
    box: Float[np.ndarray, "d 2"],
    evaluate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    points: Float[np.ndarray, "p d"],
    rtol: float,
    max_cells: int,
) -> tuple[float, Float[np.ndarray, " m"], Float[np.ndarray, "m m"], float]:
    d = len(box)
    nodes, fine, changes = _rules(d)

    def values_in(lower: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        upper = lower + width
        # inside by what rounding may put the edges apart: a loss that jumps there is asked on this side of it
        inside = 2 * np.spacing(np.maximum(np.abs(lower), np.abs(upper)))
        w = np.clip(lower[:, None] + width[:, None] * nodes, (lower + inside)[:, None], (upper - inside)[:, None])
        values, log_density = evaluate(w.reshape(-1, d))
        return values.reshape(len(w), len(nodes), -1), log_density.reshape(len(w), len(nodes))

    box_width = np.diff(box)[:, 0]
    lower, width = _first_cells(box, points)
    values, log_density = values_in(lower, width)
    while True:
        top = log_density.max()
        log_volume = np.log(width).sum(axis=1)
        mass = np.exp(log_density - top + log_volume[:, None])
        z = float(np.sum(mass @ fine))
        share = mass * fine / z
        origin = values.reshape(-1, values.shape[-1])[log_density.argmax()]
        off = share.ravel() @ (values - origin).reshape(-1, values.shape[-1])
        centred = values - origin - off
        flat = centred.reshape(-1, values.shape[-1])
        covariance = (share.reshape(-1, 1) * flat).T @ flat
        # a loss that varies by its rounding only cannot be resolved relative to its own standard deviation
        rounding = np.finfo(float).eps * np.abs(origin) / rtol
        smallest = 1e-100 * np.abs(centred).max(axis=(0, 1)) + np.finfo(float).tiny  # squares must not overflow
        scaled = centred / np.maximum(np.sqrt(np.diag(covariance)), np.maximum(rounding, smallest))
        monitors = (mass / z)[..., None] * np.concatenate([np.ones_like(scaled[..., :1]), (1 + scaled) ** 2], axis=-1)
        errors = np.abs(changes.T @ monitors).max(axis=-1)
        error = float(errors.sum())

        highest = log_density.max(axis=1)
        spread = highest - log_density.min(axis=1)
        noise = _rounding(log_density[highest.argmax()], lower[highest.argmax()], width[highest.argmax()], rtol)
        counts = highest + spread + log_volume > top + np.log(z) + np.log(rtol) - np.log(1e3 * len(width))
        unresolved = counts & (spread > _MOST_SPREAD)
        unresolved[unresolved] = ~_hold_jumps(log_density[unresolved], width[unresolved] / box_width)
        if error <= rtol and not unresolved.any():
            break
        # standard deviations, and with them the error estimates, mean nothing before the peak is resolved
        split = unresolved if unresolved.any() else errors.sum(axis=1) > rtol / (2 * len(width))
        if len(width) + split.sum() > max_cells:
            worst = int(np.where(unresolved, spread + _MOST_SPREAD, errors.sum(axis=1)).argmax())
            remedy = "give minima as points, narrower boxes, a larger rtol or more cells."
            if _largest_step(log_density[worst : worst + 1])[0] > 0.9 * spread[worst] > 0:
                remedy = (
                    f"the density seems to jump near w = {lower[worst].tolist()}; put the jump on an edge of the boxes "
                    "or on points, or make the losses continuous."
                )
            raise RuntimeError(
                f"the quadrature needs more than {max_cells} cells: its error estimate is {error:.2g}, not "
                f"{rtol:.2g}; {remedy}"
            )
        variation = np.stack(
            [np.ptp(log_density.reshape(-1, *[_ORDER + 1] * d), axis=1 + a).reshape(len(width), -1) for a in range(d)],
            axis=1,
        ).max(axis=-1)
        axis = np.where(unresolved[:, None], variation, errors).argmax(axis=1)[split]
        half = np.where(np.arange(d) == axis[:, None], width[split] / 2, width[split])
        second = lower[split] + np.where(half < width[split], half, 0.0)
        _refuse_too_fine(lower[split], half, log_density[split])
        new_lower, new_width = np.concatenate([lower[split], second]), np.concatenate([half, half])
        new_values, new_log_density = values_in(new_lower, new_width)
        lower, width = np.concatenate([lower[~split], new_lower]), np.concatenate([width[~split], new_width])
        values = np.concatenate([values[~split], new_values])
        log_density = np.concatenate([log_density[~split], new_log_density])
    deviation, level = np.sqrt(np.diag(covariance)), np.finfo(float).eps * np.abs(origin)
    lost = np.divide(level, 2 * deviation, out=np.zeros_like(level), where=deviation > 8 * level)  # else it is constant
    if lost.max(initial=0.0) > rtol:
        i = int(lost.argmax())
        raise ValueError(
            f"loss {i} is about {origin[i]:.3g} and varies by {deviation[i]:.3g}, so rounding alone makes its moments "
            f"wrong by {lost[i]:.2g}, more than rtol = {rtol:.2g}; subtract a constant from that loss, or raise rtol."
        )
    return float(top + np.log(z)), origin + off, covariance, error + noise + float(lost.max(initial=0.0))


def _rounding(
    log_density: Float[np.ndarray, " q"], lower: Float[np.ndarray, " d"], width: Float[np.ndarray, " d"], rtol: float
) -> float:
    """Return what rounding makes of the density at its peak, from the cell that holds it, refused above `rtol`.

    Of the log density itself, 4 eps; and of the weights, half their spacing times the mean slope. Either is known once
    the density varies by less than e^20 over the cell, or by no more than rounding.
    """
    top, spread = float(log_density.max()), float(np.ptp(log_density))
    noise = 4 * np.finfo(float).eps * abs(top)
    if spread > max(_MOST_SPREAD, 4 * noise):
        return 0.0
    if noise > rtol:
        raise ValueError(
            f"the log density at its peak is {top:.3g}, so rounding alone makes it wrong by {noise:.2g}, more than "
            f"rtol = {rtol:.2g}; subtract the smallest loss from the losses, or raise rtol."
        )
    d = len(width)
    density = np.exp(log_density - top).reshape([_ORDER + 1] * d)
    shift = 0.0
    for axis, (low, side) in enumerate(zip(lower, width, strict=True)):
        spacing = float(np.spacing(max(abs(low), abs(low + side))))
        # |dp| over p, summed over the nodes of the cell: the mean slope of log p times the distance of nodes
        change = np.abs(np.diff(density, axis=axis)).sum() / density.sum() * _ORDER
        shift += float(change / side) * spacing / 2
    if shift > rtol:
        raise ValueError(
            f"the density peaks at w = {lower.tolist()} within {_listed(width)}, so near the spacing of doubles there "
            f"that the rounding of w makes it wrong by {shift:.2g}, more than rtol = {rtol:.2g}; shift the weights so "
            "that the peak lies at 0, or raise rtol."
        )
    return noise + shift


def _refuse_too_fine(
    lower: Float[np.ndarray, "c d"], width: Float[np.ndarray, "c d"], log_density: Float[np.ndarray, "c q"]
) -> None:
    """Refuse cells whose nodes would be closer than doubles are spaced there."""
    spacing = np.spacing(np.maximum(np.abs(lower), np.abs(lower + width)))
    fine = np.any(width * _CLOSEST < 4 * spacing, axis=1)
    if not fine.any():
        return
    cell = int(np.flatnonzero(fine)[0])
    what = f"the log density changes by {np.ptp(log_density[cell]):.3g} within {_listed(width[cell])} of w = "
    raise ValueError(
        f"{what}{lower[cell].tolist()}, which doubles do not resolve there; if that is a peak, shift the weights so "
        "that it lies at 0, and if the losses jump there, put the jump on an edge of the boxes or on points."
    )


def _listed(width: Float[np.ndarray, " d"]) -> str:
    return " x ".join(f"{side:.2g}" for side in width)


def _largest_step(log_density: Float[np.ndarray, "c q"]) -> Float[np.ndarray, " c"]:
    """Return the largest change of the log density from a node to its neighbour, in each cell."""
    d = 1 if log_density.shape[1] == _ORDER + 1 else 2
    grid = log_density.reshape(len(log_density), *[_ORDER + 1] * d)
    steps = [np.abs(np.diff(grid, axis=1 + axis)).max(axis=tuple(range(1, d + 1))) for axis in range(d)]
    return np.asarray(np.max(steps, axis=0))


def _hold_jumps(
    log_density: Float[np.ndarray, "c q"], relative_width: Float[np.ndarray, "c d"]
) -> Bool[np.ndarray, " c"]:
    """Whether nothing but a jump is left to resolve in cells: they are tiny, and all variation is in a single step."""
    tiny = np.any(relative_width < _FINEST, axis=1)
    return np.asarray(tiny & (_largest_step(log_density) > 0.999 * np.ptp(log_density, axis=1)))


def _first_cells(
    box: Float[np.ndarray, "d 2"], points: Float[np.ndarray, "p d"]
) -> tuple[Float[np.ndarray, "c d"], Float[np.ndarray, "c d"]]:
    lowers, widths = [], []
    for axis, (low, high) in enumerate(box):
        inside = points[(points[:, axis] > low) & (points[:, axis] < high), axis]
        edges = np.unique(np.concatenate([np.linspace(low, high, _START + 1), inside]))
        lowers.append(edges[:-1])
        widths.append(np.diff(edges))
    return tuple(  # type: ignore[return-value]
        np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, len(box)) for sides in (lowers, widths)
    )
