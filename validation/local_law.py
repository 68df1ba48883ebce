r"""What the chains of a strongly localised sampler should give: covariances of losses, before any is drawn.

Around its mean m the local posterior of curvature :math:`\gamma + n_\beta H` is nearly Gaussian. With gradients g_i and
Hessians H_i of the losses there, and the variance v of a weight, the draws of a two-layer linear network have

.. math:: \mathrm{Cov}(\ell_i, \ell_j) = g_i^T \Sigma\, g_j + \tfrac12 v^2 \operatorname{tr} H_i H_j + (\text{start}),
    \qquad \Sigma = \frac{1}{h (1 - \epsilon h / 4)}, \quad h = \gamma + n_\beta H ,

Sigma being the law of Langevin steps of size epsilon. It is expanded in :math:`n_\beta H / \gamma`, a power series
that products of the gradients with H give to all the orders needed. The start is the way from the checkpoint to m,
which the draws contain where there is no burn-in; it is followed without noise. Written for `validation.bounds`, from
the definitions and not from `numerics`, whose gradients, curvature and chains those bounds judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from numerics import RMSPropSGLD
from theory import Dataset

__all__ = ["LocalLaw", "local_law"]

_ORDERS = 6  # products with H, so that the series runs to the power 12
_STEPS = 200  # of the way from the checkpoint to the mean, at most
_STRONG = 0.7  # curvature at which the rest of the series is 0.7^13 / 0.3 = 3 %


@dataclass(frozen=True, eq=False)
class LocalLaw:
    """Covariances of losses at every checkpoint, (T, N, N) each.

    Parameters
    ----------
    expected
        What the draws should give.
    kernel, hessian, gauss_newton
        What the three deterministic measures are at the checkpoint itself: g_i . g_j / gamma, and g_i . g_j with the
        inverse of gamma + n_beta H, or of the same with the Gauss-Newton matrix.
    curvature
        Bound of n_beta |eigenvalue of H| / gamma over checkpoints; at 1 and above the series has no limit.
    remainder
        What is left out, as a share: the rest of the series; Algorithm 1's preconditioner, 1 / (1 + |q| / a) at a mean
        gradient q, which is taken for the same in all directions, in the term (eps gamma / 4) / (1 - eps gamma / 4);
        and the drift that its fluctuation sd(q) makes, at most half of sd(q) / a by `theory.adaptive_limit`.
    """

    expected: Float[np.ndarray, "t n n"]
    kernel: Float[np.ndarray, "t n n"]
    hessian: Float[np.ndarray, "t n n"]
    gauss_newton: Float[np.ndarray, "t n n"]
    curvature: float
    remainder: float


class _Network:
    """Losses of a two-layer linear network and their derivatives at many weights at once."""

    def __init__(self, dataset: Dataset, w1: np.ndarray, w2: np.ndarray) -> None:
        self.x, self.y, self.sxx = dataset.inputs, dataset.targets, dataset.sxx
        self.w1, self.w2 = w1, w2
        self.hidden = np.einsum("thp,np->tnh", w1, self.x)
        self.residual = np.einsum("toh,tnh->tno", w2, self.hidden) - self.y
        self.error = np.einsum("tno,np->top", self.residual, self.x)

    @property
    def losses(self) -> Float[np.ndarray, "t n"]:
        return 0.5 * np.square(self.residual).sum(axis=-1)

    def mean_gradient(self, variance: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradient of the mean loss, averaged over weights of that variance."""
        n, outputs = len(self.x), self.y.shape[1]
        first = np.einsum("toh,top->thp", self.w2, self.error)
        second = np.einsum("top,thp->toh", self.error, self.w1)
        widened = outputs * self.w1 @ self.sxx, np.trace(self.sxx) * self.w2
        return (first + variance * widened[0]) / n, (second + variance * widened[1]) / n

    def gradients(self, variance: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradient of every loss, averaged over weights of that variance."""
        first = np.einsum("toh,tno,np->tnhp", self.w2, self.residual, self.x)
        second = np.einsum("tno,tnh->tnoh", self.residual, self.hidden)
        if variance:
            lengths = np.square(self.x).sum(axis=1)
            first += variance * self.y.shape[1] * np.einsum("tnh,np->tnhp", self.hidden, self.x)
            second += variance * np.einsum("n,toh->tnoh", lengths, self.w2)
        return first, second

    def curved(self, a: np.ndarray, b: np.ndarray, *, residual: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the Hessian, or the Gauss-Newton matrix, of the mean loss times directions (T, k, ...)."""
        change = (b @ self.w1[:, None] + self.w2[:, None] @ a) @ self.sxx
        first, second = np.swapaxes(self.w2, 1, 2)[:, None] @ change, change @ np.swapaxes(self.w1, 1, 2)[:, None]
        if residual:
            first = first + np.swapaxes(b, 2, 3) @ self.error[:, None]
            second = second + self.error[:, None] @ np.swapaxes(a, 2, 3)
        return first / len(self.x), second / len(self.x)

    def hessian_products(self) -> Float[np.ndarray, "t n n"]:
        """Return tr H_i H_j of the losses' Hessians."""
        overlap = self.x @ self.x.T
        layers = self.hidden @ np.swapaxes(self.hidden, 1, 2)
        gram = np.einsum("toh,tqh->toq", self.w2, self.w2)
        outputs = self.y.shape[1]
        linear = (
            outputs * layers**2
            + 2 * layers * overlap * np.trace(gram, axis1=1, axis2=2)[:, None, None]
            + overlap**2 * np.square(gram).sum(axis=(1, 2))[:, None, None]
        )
        fitted = self.residual + self.y
        mixed = np.einsum("tio,tjo->tij", fitted, self.residual)
        residuals = self.residual @ np.swapaxes(self.residual, 1, 2)
        return linear + 2 * overlap * (mixed + np.swapaxes(mixed, 1, 2)) + 2 * self.w1.shape[1] * residuals * overlap

    def spread(self) -> Float[np.ndarray, " t"]:
        """Return a bound of the absolute eigenvalues of the mean loss's Hessian."""
        norms = [np.linalg.norm(m, ord=2, axis=(1, 2)) for m in (self.w1, self.w2, self.error)]
        return ((norms[0] ** 2 + norms[1] ** 2) * np.linalg.norm(self.sxx, ord=2) + norms[2]) / len(self.x)


def local_law(
    dataset: Dataset,
    w1: Float[np.ndarray, "t h p"],
    w2: Float[np.ndarray, "t o h"],
    sampler: RMSPropSGLD,
    *,
    draws: int,
    chains: int,
    burn_in: int = 0,
) -> LocalLaw:
    """Return what the chains should give at every checkpoint, and what the deterministic measures are.

    Parameters
    ----------
    dataset
        Training set.
    w1, w2
        Weights of the checkpoints.
    sampler
        Algorithm 1.
    draws, chains, burn_in
        Draws a chain, chains a checkpoint, and steps before the first draw.

    Examples
    --------
    At zero weights the mean loss of targets of zero is flat, and so is every loss but for its fourth order.

    >>> one = Dataset(np.eye(1), np.ones((1, 1)))
    >>> w1, w2 = np.zeros((1, 1, 1)), np.zeros((1, 1, 1))
    >>> law = local_law(one, w1, w2, RMSPropSGLD(1e-4, 1.0, 5e3), draws=10**6, chains=4)
    >>> round(float(law.expected.item() * 5e3**2), 2)  # tr H^2 / 2 = 1, and (1 / (1 - eps gamma / 4))^2 = 1.31
    1.31
    """
    n_beta, localization = sampler.n_beta, sampler.localization
    start = _Network(dataset, w1, w2)
    ratio = n_beta / localization
    curvature = float(ratio * start.spread().max())
    if not curvature < _STRONG:
        raise ValueError(
            f"n_beta times the curvature is up to {curvature:.3g} times the localization: the law of the chains is "
            f"known below {_STRONG:g} only; raise the localization or lower n_beta."
        )
    mean, way, step, steepest = _mean(dataset, start, sampler)
    quarter = step * localization / 4
    variance = 1 / localization / (1 - quarter)
    moments = _moments(mean, mean.gradients(variance), residual=True)
    rho = 1 - 2 * quarter
    # Variance builds up from none at the start; the pooled mean takes the variance of the mean with it.
    share = 1 - (rho ** (2 * burn_in) / (1 - rho**2) + (1 + rho) / (1 - rho) / chains) / draws
    law = _law_series(ratio, localization, quarter)
    stationary = np.einsum("k,ktij->tij", law, moments) + variance**2 / 2 * mean.hessian_products()
    inverse = (-ratio) ** np.arange(2 * _ORDERS + 1) / localization
    own = start.gradients()
    plain, positive = (_moments(start, own, residual=residual) for residual in (True, False))
    fluctuation = sampler.gradient_scale * curvature / ratio * variance**0.5 / sampler.stability
    remainder = (
        curvature ** (2 * _ORDERS + 1) / (1 - curvature)
        + quarter / (1 - quarter) * steepest / sampler.stability
        + fluctuation / 2
    )
    return LocalLaw(
        share * stationary + _start(way, burn_in, draws),
        plain[0] / localization,
        np.einsum("k,ktij->tij", inverse, plain),
        np.einsum("k,ktij->tij", inverse, positive),
        curvature,
        remainder,
    )


def _mean(dataset: Dataset, start: _Network, sampler: RMSPropSGLD) -> tuple[_Network, list[np.ndarray], float, float]:
    """Follow the chains without noise: return their mean, the losses on the way, the typical step, the largest |q|."""
    variance, scale = 1 / sampler.localization, sampler.gradient_scale
    anchors = (start.w1, start.w2)
    network, way, steepest = start, [start.losses], 0.0
    for _ in range(_STEPS):
        gradient = network.mean_gradient(variance)
        steps = [sampler.step_size / (sampler.stability + scale * np.abs(g)) for g in gradient]
        steepest = max(steepest, *(scale * float(np.abs(g).max()) for g in gradient))
        moved = [
            w - e / 2 * (sampler.n_beta * g + sampler.localization * (w - anchor))
            for w, e, g, anchor in zip((network.w1, network.w2), steps, gradient, anchors, strict=True)
        ]
        network = _Network(dataset, *moved)
        way.append(network.losses)
        if np.abs(way[-1] - way[-2]).max() <= 1e-5 * np.abs(way[-1] - way[0]).max():
            break
    squares = [np.square(g).sum(axis=1) for g in network.gradients()]
    weights = sum(float(s.sum()) for s in squares)
    weighted = sum(float((s * e).sum()) for s, e in zip(squares, steps, strict=True))
    return network, way, weighted / weights if weights > 0 else sampler.step_size / sampler.stability, steepest


def _moments(
    network: _Network, gradients: tuple[np.ndarray, np.ndarray], *, residual: bool
) -> Float[np.ndarray, "k t n n"]:
    """Return g_i . H^k g_j for k = 0, 1, ..., 2 _ORDERS."""
    powers = [gradients]
    for _ in range(_ORDERS):
        powers.append(network.curved(*powers[-1], residual=residual))

    def product(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        flat = [[part.reshape(*part.shape[:2], -1) for part in pair] for pair in (one, other)]
        return sum(a @ np.swapaxes(b, 1, 2) for a, b in zip(*flat, strict=True))

    return np.stack([product(powers[k // 2], powers[k - k // 2]) for k in range(2 * _ORDERS + 1)])


def _law_series(ratio: float, localization: float, quarter: float) -> Float[np.ndarray, " k"]:
    """Return the Taylor coefficients in H of 1 / (h (1 - eps h / 4)) = 1/h + (eps/4) / (1 - eps h / 4)."""
    k = np.arange(2 * _ORDERS + 1)
    room = 1 - quarter
    return ((-ratio) ** k + quarter / room * (quarter * ratio / room) ** k) / localization


def _start(way: list[np.ndarray], burn_in: int, draws: int) -> Float[np.ndarray, "t n n"]:
    """Return what the way to the mean adds to the covariance over all draws."""
    path = np.stack(way)[burn_in : burn_in + draws] - way[-1]
    mean = path.sum(axis=0) / draws
    return np.einsum("sti,stj->tij", path, path) / draws - mean[:, :, None] * mean[:, None, :]
