r"""Covariance of losses under a posterior that is a mixture of phases (law of total covariance, paper 2.3).

.. math::
    \mathrm{Cov} = \underbrace{\sum_k \pi_k \mathrm{Cov}_k}_{\text{within}}
    + \underbrace{\sum_{k < l} \pi_k \pi_l\, (\mu_k - \mu_l)(\mu_k - \mu_l)^T}_{\text{between}} .

Written with differences of means, the between term keeps its digits whatever offset the means share. Between two
phases the total is a quadratic in the weight: its extremum lies at 1/2, as the paper has it, only where the covariances
within the phases agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from theory import checks

__all__ = [
    "MixtureCovariance",
    "PhaseTransition",
    "SampledMixture",
    "decompose_covariance",
    "phase_transition",
    "quadratic_loss_moments",
    "sampled_decomposition",
    "total_covariance_gradient",
    "total_covariance_hessian",
]

EPS = float(np.finfo(float).eps)
_CHUNK_ENTRIES = 2**21  # 16 MiB of products of losses at a time


@dataclass(frozen=True, eq=False)
class MixtureCovariance:
    """Covariance of d observables under a mixture, split by the law of total covariance.

    Parameters
    ----------
    within, between, total
        Mean covariance within the components, covariance of the component means, and their sum, shape (..., d, d).
    between_root
        One row sqrt(pi_k pi_l) (mu_k - mu_l) a pair k < l, shape (..., pairs, d); between = root^T root.
    """

    within: Float[np.ndarray, "*batch d d"]
    between: Float[np.ndarray, "*batch d d"]
    total: Float[np.ndarray, "*batch d d"]
    between_root: Float[np.ndarray, "*batch pairs d"]

    @property
    def between_rank(self) -> Int[np.ndarray, "*batch"]:
        """Numerical rank of the between term, at most K - 1; counted on its root, so eps and not sqrt(eps) resolves it.

        A row of the root is off by at most 3 eps of itself: singular values of the root below 4 eps max(pairs, d) times
        the largest are taken for rounding.
        """
        root = self.between_root
        values = np.linalg.svd(root, compute_uv=False)
        largest = values.max(axis=-1, initial=0.0, keepdims=True)
        return np.asarray(np.sum(values > 4 * EPS * max(root.shape[-2:]) * largest, axis=-1))


@dataclass(frozen=True, eq=False)
class PhaseTransition:
    """Total covariance T(p) of each pair of observables as the weight p of phase U goes from 0 (all V) to 1 (all U).

    T(p) = p Cov_U + (1 - p) Cov_V + p (1 - p) D_ij, with D_ij = d_i d_j and d = mu_U - mu_V.

    Parameters
    ----------
    position
        Stationary point 1/2 + (Cov_U - Cov_V) / (2 D), nan where T is linear (D = 0). The paper's 1/2 is right only
        where the covariances within the phases agree.
    value
        T at the stationary point, also where that lies outside (0, 1); nan where T is linear.
    is_maximum, is_minimum
        D > 0 and D < 0.
    inside
        Whether the stationary point lies in (0, 1): |Cov_U - Cov_V| < |D|.
    peaks
        Whether |T| is larger at an interior extremum than at both ends: the stationary point is inside and
        sign(D) (Cov_U + Cov_V) + (|D| - |Cov_U - Cov_V|)^2 / (4 |D|) > 0.
    sign_flips
        Weights in (0, 1) at which T changes its sign, ascending, nan where there is none; last axis of length 2.
        Ends of opposite sign give one. Ends of one sign give two if D has the other sign and
        |D| > (sqrt|Cov_U| + sqrt|Cov_V|)^2, else none. With one end zero there is one if D has the sign opposite to the
        other end and is larger in size. With both zero there is none.
    """

    position: Float[np.ndarray, "*batch d d"]
    value: Float[np.ndarray, "*batch d d"]
    is_maximum: Bool[np.ndarray, "*batch d d"]
    is_minimum: Bool[np.ndarray, "*batch d d"]
    inside: Bool[np.ndarray, "*batch d d"]
    peaks: Bool[np.ndarray, "*batch d d"]
    sign_flips: Float[np.ndarray, "*batch d d 2"]


@dataclass(frozen=True, eq=False)
class SampledMixture:
    """Estimate of a mixture's moments and of its split covariance from n draws.

    Parameters
    ----------
    weights, means, covariances
        Moments of the components, shapes (K,), (K, d), (K, d, d); covariances divide by the weight (ddof = 0).
    within, between, total
        Estimates, shape (d, d); `total` is their sum and the covariance of all draws with ddof = 0.
    within_error, between_error, total_error
        Standard errors for independent draws, to first order in 1 / sqrt(n).
    """

    weights: Float[np.ndarray, " k"]
    means: Float[np.ndarray, "k d"]
    covariances: Float[np.ndarray, "k d d"]
    within: Float[np.ndarray, "d d"]
    between: Float[np.ndarray, "d d"]
    total: Float[np.ndarray, "d d"]
    within_error: Float[np.ndarray, "d d"]
    between_error: Float[np.ndarray, "d d"]
    total_error: Float[np.ndarray, "d d"]


def decompose_covariance(weights: ArrayLike, means: ArrayLike, covariances: ArrayLike) -> MixtureCovariance:
    """Return the covariance within and between the components of a mixture, and their sum (paper 2.3).

    Parameters
    ----------
    weights
        pi, shape (..., K), on the simplex (corners included); the sum may be off 1 by K eps, the rounding of K numbers
        divided by their sum.
    means
        mu_k of d observables, shape (..., K, d).
    covariances
        Cov_k, shape (..., K, d, d), symmetric and positive semidefinite up to rounding (64 d eps of the largest entry).
        Leading axes of the three broadcast.

    Raises
    ------
    ValueError
        If the shapes do not fit, the weights leave the simplex, or a covariance is asymmetric or indefinite.

    Examples
    --------
    >>> parts = decompose_covariance([0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]], [np.eye(2), np.eye(2)])
    >>> parts.between
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    >>> int(parts.between_rank)
    1
    """
    return _decompose(*_components(weights, means, covariances))


def total_covariance_gradient(
    weights: ArrayLike, means: ArrayLike, covariances: ArrayLike
) -> Float[np.ndarray, "*batch k d d"]:
    r"""Return the derivative of the total covariance as the weights move towards each component.

    Along e_k - pi, which stays on the simplex, with m_k = mu_k - mean,

    .. math:: G_k = \mathrm{Cov}_k - \text{within} + m_k m_k^T - \text{between}, \qquad \sum_k \pi_k G_k = 0 .

    The derivative along any tangent v of the simplex is :math:`\sum_k v_k G_k`.

    Parameters
    ----------
    weights, means, covariances
        As for `decompose_covariance`.

    Returns
    -------
    numpy.ndarray
        G, shape (..., K, d, d).

    Examples
    --------
    >>> total_covariance_gradient([1.0, 0.0], [[0.0], [2.0]], [[[1.0]], [[4.0]]])[:, 0, 0]
    array([0., 7.])
    """
    pi, mu, cov = _components(weights, means, covariances)
    centred = _centred(pi, mu)
    # differences first, so that nothing is lost near a corner, where Cov_k is nearly the mean covariance
    excess = np.stack(
        [np.einsum("...l,...lij->...ij", pi, cov[..., k : k + 1, :, :] - cov) for k in range(cov.shape[-3])], axis=-3
    )
    between = _decompose(pi, mu, cov).between[..., None, :, :]
    return excess + (centred[..., :, None] * centred[..., None, :] - between)


def total_covariance_hessian(weights: ArrayLike, means: ArrayLike) -> Float[np.ndarray, "*batch k k d d"]:
    r"""Return the second derivative of the total covariance in the weights, along e_k - pi and e_l - pi.

    The total is quadratic in the weights, so with G from `total_covariance_gradient` and H from here

    .. math::
        T(\pi + \textstyle\sum_k a_k (e_k - \pi)) = T + \sum_k a_k G_k + \tfrac12 \sum_{kl} a_k a_l H_{kl}, \qquad
        H_{kl} = -(m_k m_l^T + m_l m_k^T)

    exactly. Within-phase covariances do not enter.

    Parameters
    ----------
    weights, means
        As for `decompose_covariance`.

    Returns
    -------
    numpy.ndarray
        H, shape (..., K, K, d, d).

    Examples
    --------
    >>> total_covariance_hessian([0.5, 0.5], [[0.0], [2.0]])[:, :, 0, 0]
    array([[-2.,  2.],
           [ 2., -2.]])
    """
    centred = _centred(*_weights_and_means(weights, means))
    outer = centred[..., :, None, :, None] * centred[..., None, :, None, :]
    return -(outer + np.swapaxes(outer, -1, -2))


def phase_transition(mean_u: ArrayLike, mean_v: ArrayLike, cov_u: ArrayLike, cov_v: ArrayLike) -> PhaseTransition:
    """Return where each covariance of a two-phase posterior is extremal, whether it peaks, and where its sign flips.

    Parameters
    ----------
    mean_u, mean_v
        Expected losses in phases U and V, shape (..., d).
    cov_u, cov_v
        Covariances within the phases, shape (..., d, d). Leading axes broadcast.

    Returns
    -------
    PhaseTransition
        For every pair of observables; its docstring has the exact conditions.

    Raises
    ------
    ValueError
        As for `decompose_covariance`.

    Examples
    --------
    >>> found = phase_transition([2.0], [0.0], [[1.0]], [[3.0]])
    >>> found.position, found.value, found.peaks
    (array([[0.25]]), array([[3.25]]), array([[ True]]))
    """
    mean_u, cov_u = _moments("mean_u", mean_u, "cov_u", cov_u)
    mean_v, cov_v = _moments("mean_v", mean_v, "cov_v", cov_v)
    if mean_u.shape[-1] != mean_v.shape[-1]:
        raise ValueError(f"mean_u has {mean_u.shape[-1]} observables but mean_v has {mean_v.shape[-1]}.")
    d = mean_u - mean_v
    jump, u, v = np.broadcast_arrays(d[..., :, None] * d[..., None, :], cov_u, cov_v)
    change, size = u - v, np.abs(jump)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        position = np.where(jump == 0, np.nan, 0.5 + change / jump / 2)
        value = np.where(jump == 0, np.nan, (u + v) / 2 + (jump + change / jump * change) / 4)
        room = size - np.abs(change)
        excess = np.sign(jump) * (u + v) + room * (room / size) / 4
    inside = room > 0
    return PhaseTransition(
        position, value, jump > 0, jump < 0, inside, inside & (excess > 0), _sign_flips(u, u + v + jump, v)
    )


def sampled_decomposition(losses: ArrayLike, phases: ArrayLike) -> SampledMixture:
    r"""Estimate the covariance within and between phases, with standard errors, from draws of a posterior.

    With responsibilities r_k of a draw x, estimates have the influence functions
    :math:`\psi_{within} = \sum_k r_k (x - \mu_k)(x - \mu_k)^T - \text{within}`,
    :math:`\psi_{total} = (x - \mu)(x - \mu)^T - \text{total}` and their difference for between; the standard error is
    :math:`(\sum \psi^2 / (n (n - 1)))^{1/2}`. Draws of a chain are correlated: thin them to about their effective
    number first.

    Parameters
    ----------
    losses
        Losses of d samples at n >= 2 draws, shape (n, d).
    phases
        Either the phase of each draw, whole numbers 0..K-1 of shape (n,), each phase at least once; or responsibilities
        of shape (n, K), each row on the simplex, each column with a positive entry.

    Raises
    ------
    ValueError
        If the shapes do not fit, there are fewer than two draws, or a phase has no draw.
    TypeError
        If labels are not whole numbers.

    Examples
    --------
    >>> sampled = sampled_decomposition([[0.0], [2.0], [5.0], [7.0]], [0, 0, 1, 1])
    >>> sampled.within, sampled.between, sampled.total
    (array([[1.]]), array([[6.25]]), array([[7.25]]))
    """
    losses = checks.matrix("losses", losses)
    n, d = losses.shape
    if n < 2:
        raise ValueError("losses has one draw, but a covariance needs at least two.")
    share = _responsibilities(phases, n)
    mass = share.sum(axis=0)
    if mass.min() == 0:
        raise ValueError(
            f"phase {int(mass.argmin())} has no draw, so it has no mean; number the phases that occur 0..K-1."
        )
    origin = losses.mean(axis=0)
    x = losses - origin
    x -= x.mean(axis=0)  # a second pass removes what rounding left of a large offset
    means = share.T @ x / mass[:, None]
    rooted = np.sqrt(share).T[:, :, None] * (x - means[:, None])
    covariances = np.swapaxes(rooted, 1, 2) @ rooted / mass[:, None, None]
    weights = mass / mass.sum()
    parts = _decompose(weights, means, covariances)
    squares = np.zeros((3, d, d))
    step = max(1, _CHUNK_ENTRIES // d**2)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        total = x[rows, :, None] * x[rows, None, :] - parts.total
        within = np.einsum("kni,knj->nij", rooted[:, rows], rooted[:, rows]) - parts.within
        for square, influence in zip(squares, (within, total - within, total), strict=True):
            square += np.sum(influence**2, axis=0)
    errors = np.sqrt(squares / n / (n - 1))
    return SampledMixture(
        weights, origin + means, covariances, parts.within, parts.between, parts.total, errors[0], errors[1], errors[2]
    )


def quadratic_loss_moments(
    component_means: ArrayLike,
    component_covariances: ArrayLike,
    hessians: ArrayLike,
    gradients: ArrayLike,
    constants: ArrayLike,
) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, "k n n"]]:
    r"""Return mean and covariance of quadratic losses in each Gaussian component of a mixture over weights, exactly.

    For :math:`l_i(w) = \tfrac12 w^T H_i w + b_i^T w + c_i` and w ~ N(m, S), with :math:`g_i = H_i m + b_i`,

    .. math::
        E\, l_i = l_i(m) + \tfrac12 \mathrm{tr}(H_i S), \qquad
        \mathrm{Cov}(l_i, l_j) = g_i^T S g_j + \tfrac12 \mathrm{tr}(H_i S H_j S) .

    Parameters
    ----------
    component_means, component_covariances
        m (K, p) and S (K, p, p) of the components in weight space; S may be singular.
    hessians, gradients, constants
        H (n, p, p) symmetric, b (n, p) and c (n,): Hessian, gradient at w = 0 and value at w = 0 of each loss.

    Returns
    -------
    tuple of numpy.ndarray
        Means (K, n) and covariances (K, n, n) for `decompose_covariance`.

    Raises
    ------
    ValueError
        If the shapes do not fit, an S is not a covariance, or an H is asymmetric.

    Examples
    --------
    >>> means, covariances = quadratic_loss_moments([[1.0]], [[[2.0]]], [[[1.0]]], [[0.0]], [0.0])
    >>> means, covariances.round(12)
    (array([[1.5]]), array([[[4.]]]))
    """
    m = checks.matrix("component_means", component_means)
    s = _covariances("component_covariances", component_covariances)
    b = checks.matrix("gradients", gradients, (None, m.shape[1]))
    c, h = checks.array("constants", constants, ndim=1), checks.array("hessians", hessians, ndim=3)
    p = m.shape[1]
    for name, value, shape in (
        ("component_covariances", s, (len(m), p, p)),
        ("hessians", h, (len(b), p, p)),
        ("constants", c, (len(b),)),
    ):
        if value.shape != shape:
            raise ValueError(f"{name} has shape {value.shape}, but {shape} is needed.")
    _symmetric("hessians", h)
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]  # S = R R^T makes both terms Gram matrices
    slope = np.einsum("npq,kq->knp", h, m)
    curvature = np.einsum("kpa,npq,kqb->knab", root, h, root, optimize=True)
    means = np.einsum("knp,kp->kn", slope / 2 + b, m) + c + np.trace(curvature, axis1=2, axis2=3) / 2
    features = np.concatenate([(slope + b) @ root, curvature.reshape(*curvature.shape[:2], p * p) / np.sqrt(2)], axis=2)
    return means, features @ np.swapaxes(features, 1, 2)


def _decompose(
    pi: Float[np.ndarray, "*b k"], mu: Float[np.ndarray, "*m k d"], cov: Float[np.ndarray, "*c k d d"]
) -> MixtureCovariance:
    first, second = np.triu_indices(pi.shape[-1], 1)
    root = np.sqrt(pi[..., first] * pi[..., second])[..., None] * (mu[..., first, :] - mu[..., second, :])
    between = np.einsum("...pi,...pj->...ij", root, root)
    within = np.einsum("...k,...kij->...ij", pi, cov)
    return MixtureCovariance(within, between, within + between, root)


def _centred(pi: Float[np.ndarray, "*b k"], mu: Float[np.ndarray, "*m k d"]) -> Float[np.ndarray, "*n k d"]:
    return np.einsum("...l,...kld->...kd", pi, mu[..., :, None, :] - mu[..., None, :, :])


def _sign_flips(u: np.ndarray, b: np.ndarray, v: np.ndarray) -> Float[np.ndarray, "*batch 2"]:
    """Solve u p^2 + b p q + v q^2 = 0 with q = 1 - p for simple roots p / q > 0."""
    double = 2 * np.sqrt(np.abs(u)) * np.sqrt(np.abs(v))
    opposite = np.sign(u) * np.sign(v) < 0
    gap = np.abs(b) - double
    root = np.where(opposite, np.hypot(b, double), np.sqrt(np.maximum(gap, 0)) * np.sqrt(np.abs(b) + double))
    larger = -(b + np.copysign(root, b)) / 2  # the sum that does not cancel; the roots are larger / u and v / larger
    simple = opposite | (gap > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        flips = [
            np.where(simple & (np.sign(top) * np.sign(bottom) > 0), top / (top + bottom), np.nan)
            for top, bottom in ((larger, u), (v, larger))
        ]
    return np.sort(np.stack(flips, axis=-1), axis=-1)


def _components(
    weights: ArrayLike, means: ArrayLike, covariances: ArrayLike
) -> tuple[Float[np.ndarray, "*b k"], Float[np.ndarray, "*m k d"], Float[np.ndarray, "*c k d d"]]:
    pi, mu = _weights_and_means(weights, means)
    cov = _covariances("covariances", covariances)
    if cov.shape[-3:] != (*mu.shape[-2:], mu.shape[-1]):
        raise ValueError(
            f"covariances has shape {cov.shape}, but (..., {mu.shape[-2]}, {mu.shape[-1]}, {mu.shape[-1]}) is needed."
        )
    return _broadcast(pi, mu.shape[:-2], cov.shape[:-3]), mu, cov


def _weights_and_means(
    weights: ArrayLike, means: ArrayLike
) -> tuple[Float[np.ndarray, "*b k"], Float[np.ndarray, "*m k d"]]:
    pi, mu = _simplex("weights", weights), checks.array("means", means)
    if mu.ndim < 2 or mu.shape[-2] != pi.shape[-1] or mu.shape[-1] == 0:
        raise ValueError(f"means has shape {mu.shape}, but (..., {pi.shape[-1]}, observables) is needed.")
    return _broadcast(pi, mu.shape[:-2]), mu


def _broadcast(pi: Float[np.ndarray, "*b k"], *batches: tuple[int, ...]) -> Float[np.ndarray, "*m k"]:
    try:
        batch = np.broadcast_shapes(pi.shape[:-1], *batches)
    except ValueError:
        raise ValueError(
            f"the leading axes {(pi.shape[:-1], *batches)} of weights and moments do not broadcast."
        ) from None
    return np.broadcast_to(pi, (*batch, pi.shape[-1]))


def _simplex(name: str, value: ArrayLike) -> Float[np.ndarray, "*batch k"]:
    result = checks.nonnegative(name, value)
    if result.ndim == 0 or result.shape[-1] == 0:
        raise ValueError(f"{name} must hold a weight for each component, but its shape is {result.shape}.")
    off = float(np.abs(result.sum(axis=-1) - 1).max(initial=0.0))
    if off > EPS * result.shape[-1]:
        raise ValueError(
            f"{name} must sum to 1, but the sum is off by {off:.3g}; divide by the sum in double precision."
        )
    return result


def _covariances(name: str, value: ArrayLike) -> Float[np.ndarray, "*batch d d"]:
    result = checks.array(name, value)
    if result.ndim < 2 or result.shape[-1] != result.shape[-2] or result.shape[-1] == 0:
        raise ValueError(f"{name} must hold square matrices, but its shape is {result.shape}.")
    tolerance = _symmetric(name, result)
    smallest = np.linalg.eigvalsh(result)[..., 0]
    if np.any(smallest < -tolerance):
        raise ValueError(f"{name} must be positive semidefinite, but has the eigenvalue {smallest.min():.3g}.")
    return result


def _symmetric(name: str, value: Float[np.ndarray, "*batch d d"]) -> Float[np.ndarray, "*batch"]:
    tolerance = 64 * EPS * value.shape[-1] * np.abs(value).max(axis=(-2, -1))
    skew = np.abs(value - np.swapaxes(value, -1, -2)).max(axis=(-2, -1))
    if np.any(skew > tolerance):
        raise ValueError(
            f"{name} must be symmetric, but mirrored entries differ by {skew.max():.3g}; use (x + x^T) / 2."
        )
    return np.asarray(tolerance)


def _moments(
    mean_name: str, mean: ArrayLike, cov_name: str, cov: ArrayLike
) -> tuple[Float[np.ndarray, "*m d"], Float[np.ndarray, "*c d d"]]:
    mean, cov = checks.array(mean_name, mean), _covariances(cov_name, cov)
    if mean.ndim == 0 or mean.shape[-1] != cov.shape[-1]:
        raise ValueError(f"{mean_name} has shape {mean.shape}, but {cov_name} has shape {cov.shape}.")
    return mean, cov


def _responsibilities(phases: ArrayLike, n: int) -> Float[np.ndarray, "n k"]:
    value = np.asarray(phases)
    if value.ndim not in (1, 2) or len(value) != n:
        raise ValueError(f"phases has shape {value.shape}, but ({n},) or ({n}, phases) is needed for {n} draws.")
    if value.ndim == 2:
        return _simplex("phases", value)
    if value.dtype.kind not in "iu":
        raise TypeError(f"phases must hold whole numbers if it has one axis, but its dtype is {value.dtype}.")
    found = np.unique(value)
    if not np.array_equal(found, np.arange(len(found))):
        raise ValueError(f"phases must use every number from 0 to K - 1, but it holds {found}.")
    return np.eye(len(found))[value]
