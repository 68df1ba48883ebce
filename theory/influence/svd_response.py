r"""First-order response of a singular value decomposition, and of functions of it, to a change of the matrix.

For C = U S V^T and a change E, let Q = U^T E V. Between different singular values

.. math::
    dU = U A + \dots, \quad A_{jk} = \frac{s_k Q_{jk} + s_j Q_{kj}}{s_k^2 - s_j^2}, \qquad
    dV^T V = B + \dots, \quad B_{jk} = -\frac{s_j Q_{jk} + s_k Q_{kj}}{s_k^2 - s_j^2} ,

while the paper prints one Q term over s_k - s_j (Eqs. 50-51), which is the same for symmetric Q only. Everything exact
here is computed from the symmetric matrix [[0, C^T], [C, 0]], whose eigenvalues are +-s and 0: perpendicular parts,
degenerate blocks and second order are then the textbook perturbation theory of symmetric matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from theory import checks
from theory.dynamics.singular_modes import augmented_eigenbasis, degenerate_blocks, singular_modes

__all__ = [
    "PrintedSVDResponse",
    "SVDResponse",
    "paper_svd_response",
    "spectral_derivative",
    "svd_response",
]

VARIANTS = ("P1", "P2")
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_NEAR = 1e-3  # relative gap below which a divided difference is integrated instead of subtracted


@dataclass(frozen=True, eq=False)
class SVDResponse:
    """Singular triples of C and their derivatives along E.

    Parameters
    ----------
    u, s, v
        Left vectors (O, r), positive singular values (r,), right vectors (P, r). Inside a degenerate block the basis is
        the one in which E splits the block, the fastest growing value first.
    du, ds, dv
        Their first derivatives.
    second_order
        Coefficient of eps^2 in the singular values: s(eps) = s + eps ds + eps^2 second_order + O(eps^3).
    blocks
        The degenerate blocks as slices of 0..r-1.
    """

    u: Float[np.ndarray, "o r"]
    s: Float[np.ndarray, " r"]
    v: Float[np.ndarray, "p r"]
    du: Float[np.ndarray, "o r"]
    ds: Float[np.ndarray, " r"]
    dv: Float[np.ndarray, "p r"]
    second_order: Float[np.ndarray, " r"]
    blocks: tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class PrintedSVDResponse:
    """Singular triples of C and their derivatives along E by the paper's printed formulas.

    Parameters
    ----------
    u, s, v, du, ds, dv
        As in `SVDResponse`; the printed formulas have no part of du and dv perpendicular to u and v.
    deviation
        Distance of (du, dv) from the exact derivatives in the Frobenius norm, relative to the latter. Rotations within
        degenerate blocks that change no product are left out of the comparison.
    """

    u: Float[np.ndarray, "o r"]
    s: Float[np.ndarray, " r"]
    v: Float[np.ndarray, "p r"]
    du: Float[np.ndarray, "o r"]
    ds: Float[np.ndarray, " r"]
    dv: Float[np.ndarray, "p r"]
    deviation: float


def svd_response(c: ArrayLike, dc: ArrayLike, *, tolerance: float | None = None) -> SVDResponse:
    r"""Return the exact derivatives of singular values and vectors of `c` + eps `dc` at eps = 0.

    In a degenerate block the symmetric part of Q gives the first-order splits and the basis, the skew part K rotates
    left against right by K / (2 s), and the second-order coupling of the split vectors, divided by the difference of
    their splits, rotates both together. Where splits coincide as well, that last rotation is not determined by the
    first order and is set to zero; it changes no product U g(S) V^T.

    Parameters
    ----------
    c, dc
        Matrix and its change, shape (O, P). Only modes with positive singular value are returned: at a zero singular
        value the derivative is one-sided.
    tolerance
        Neighbouring singular values whose difference is at most this times the largest count as equal; 8 eps max(O, P),
        the rounding error of LAPACK's SVD, if not given.

    Examples
    --------
    >>> response = svd_response(np.diag([3.0, 1.0]), np.array([[0.0, 1.0], [0.0, 0.0]]))
    >>> np.abs(response.ds).max().round(12), response.second_order.round(6)
    (np.float64(0.0), array([ 0.1875, -0.0625]))
    """
    c = checks.matrix("c", c)
    dc = checks.matrix("dc", dc, c.shape)
    return _exact_response(c, dc, tolerance, rotate_together=True)


def _exact_response(
    c: Float[np.ndarray, "o p"], dc: Float[np.ndarray, "o p"], tolerance: float | None, *, rotate_together: bool
) -> SVDResponse:
    p = c.shape[1]
    values, basis = augmented_eigenbasis(c, tolerance)
    s = values[values > 0]
    r = len(s)
    if r == 0:
        raise ValueError("c is zero, so it has no singular vectors to differentiate.")
    blocks = tuple(degenerate_blocks(s, tolerance=0.0))

    def coupling() -> Float[np.ndarray, "n n"]:
        cross = basis[p:].T @ dc @ basis[:p]
        return cross + cross.T

    splits = np.empty(r)
    for block in blocks:
        splits[block], rotation = (a[..., ::-1] for a in np.linalg.eigh(coupling()[block, block]))
        basis[:, block] = basis[:, block] @ rotation
    h = coupling()
    derivative, second = np.empty((len(values), r)), np.empty(r)
    for block in blocks:
        gap = values[block.start] - values
        outside = gap != 0
        ratio = h[outside][:, block] / gap[outside, None]
        derivative[:, block] = basis[:, outside] @ ratio
        beyond = h[outside][:, block].T @ ratio
        second[block] = np.diag(beyond)
        if rotate_together:
            split_gap = splits[block] - splits[block][:, None]
            resolved = np.abs(split_gap) > 64 * np.finfo(float).eps * np.abs(h).max() * len(h)
            derivative[:, block] += basis[:, block] @ np.where(resolved, beyond / np.where(resolved, split_gap, 1), 0)
    root2 = np.sqrt(2)
    return SVDResponse(
        root2 * basis[p:, :r],
        s,
        root2 * basis[:p, :r],
        root2 * derivative[p:],
        splits,
        root2 * derivative[:p],
        second,
        blocks,
    )


def paper_svd_response(
    c: ArrayLike, dc: ArrayLike, variant: str, *, tolerance: float | None = None
) -> PrintedSVDResponse:
    """Return the response of singular values and vectors as the paper prints it (Eqs. 45-53).

    Between blocks A_jk = Q_jk / (s_k - s_j); B_jk = Q_jk / (s_j - s_k) in variant "P1", Q_kj / (s_j - s_k) in "P2"
    (the print leaves open which). Within a degenerate block A = B = K / (2 s) with K the skew part of Q. Use
    `svd_response` for the derivative itself; the field ``deviation`` tells how far the print is from it.

    Parameters
    ----------
    c, dc, tolerance
        As for `svd_response`.
    variant
        "P1" or "P2".

    Examples
    --------
    >>> symmetric = np.array([[0.5, 1.0], [1.0, -0.5]])
    >>> paper_svd_response(np.diag([3.0, 1.0]), symmetric, "P1").deviation < 1e-15
    True
    >>> round(paper_svd_response(np.diag([3.0, 1.0]), np.array([[0, 1.0], [0, 0]]), "P1").deviation, 3)
    1.0
    """
    variant = checks.choice("variant", variant, VARIANTS)
    c = checks.matrix("c", c)
    dc = checks.matrix("dc", dc, c.shape)
    exact = _exact_response(c, dc, tolerance, rotate_together=False)
    u, s, v = exact.u, exact.s, exact.v
    q = u.T @ dc @ v
    gap = s - s[:, None]  # s_k - s_j at [j, k]
    within = gap == 0
    away = np.where(within, 1.0, gap)
    skew = (q - q.T) / 2 / (2 * s)
    a = np.where(within, skew, q / away)
    b = np.where(within, skew, (q if variant == "P1" else q.T) / -away)
    du, dv = u @ a, v @ b.T
    difference = np.hypot(np.linalg.norm(du - exact.du), np.linalg.norm(dv - exact.dv))
    size = np.hypot(np.linalg.norm(exact.du), np.linalg.norm(exact.dv))
    deviation = float(difference / size) if size > 0 else 0.0  # vectors that do not turn have Q_jk = Q_kj = 0
    return PrintedSVDResponse(u, s, v, du, np.diag(q).copy(), dv, deviation)


def spectral_derivative(
    c: ArrayLike,
    dc: ArrayLike,
    g: Callable[[np.ndarray], np.ndarray],
    g_prime: Callable[[np.ndarray], np.ndarray],
) -> Float[np.ndarray, "o p"]:
    r"""Return the derivative of F(C) = U g(S) V^T along `dc` (generalised Daleckii-Krein theorem).

    .. math::
        dF = U [G_1 \circ \mathrm{sym}\, Q + G_2 \circ \mathrm{skew}\, Q] V^T
             + U_\perp U_\perp^T E V \tfrac{g}{S} V^T + U \tfrac{g}{S} U^T E V_\perp V_\perp^T ,

    with divided difference G_1 = (g_j - g_k) / (s_j - s_k) and G_2 = (g_j + g_k) / (s_j + s_k). No case is made of
    degenerate blocks: where singular values are closer than 1e-3 of their size, G_1 is the mean of g' between them by
    16-point Gauss-Legendre quadrature, so that nothing cancels.

    Parameters
    ----------
    c, dc
        Matrix and its change, shape (O, P).
    g, g_prime
        A function of the singular values, smooth on a scale of 1e-3 of a singular value and extended oddly to
        negative ones, and its derivative. Both are called with float64 arrays of any shape and return the same shape.

    Raises
    ------
    ValueError
        If `c` has neither full row nor full column rank and g(0) is not 0: the odd extension of g jumps there and F has
        no derivative.

    Examples
    --------
    >>> c, dc = np.diag([2.0, 2.0]), np.array([[0.0, 1.0], [0.0, 0.0]])
    >>> spectral_derivative(c, dc, lambda s: s**3, lambda s: 3 * s**2)
    array([[0., 8.],
           [4., 0.]])
    """
    c = checks.matrix("c", c)
    dc = checks.matrix("dc", dc, c.shape)
    g, g_prime = checks.function("g", g), checks.function("g_prime", g_prime)
    u, s, v = singular_modes(c) if np.any(c) else (np.empty((len(c), 0)), np.empty(0), np.empty((c.shape[1], 0)))
    gs = _values_of("g", g, s)
    if len(s) < min(c.shape) and (at_zero := float(_values_of("g", g, np.zeros(1))[0])) != 0:
        raise ValueError(
            f"c has rank {len(s)}, less than both its sides {c.shape}, and g(0) = {at_zero:.3g} is not 0, so "
            "U g(S) V^T has no derivative there; restrict c to its range first."
        )
    q = u.T @ dc @ v
    divided = _divided_difference(g, g_prime, s)
    with np.errstate(invalid="ignore"):
        mean = (gs[:, None] + gs) / (s[:, None] + s)
    core = divided * (q + q.T) / 2 + mean * (q - q.T) / 2
    left = dc @ v - u @ q  # U_perp U_perp^T E V
    right = u.T @ dc - q @ v.T
    change = u @ core @ v.T + (left * (gs / s)) @ v.T + u @ ((gs / s)[:, None] * right)
    if len(s) < min(c.shape):
        outside = dc - u @ (u.T @ dc)
        change += float(_values_of("g_prime", g_prime, np.zeros(1))[0]) * (outside - outside @ v @ v.T)
    return change


def _divided_difference(
    g: Callable[[np.ndarray], np.ndarray], g_prime: Callable[[np.ndarray], np.ndarray], s: Float[np.ndarray, " r"]
) -> Float[np.ndarray, "r r"]:
    gs = _values_of("g", g, s)
    gap = s[:, None] - s
    near = np.abs(gap) <= _NEAR * np.maximum(s[:, None], s)
    result = (gs[:, None] - gs) / np.where(near, 1.0, gap)
    j, k = np.nonzero(near)
    points = (s[j] + s[k])[:, None] / 2 + gap[j, k][:, None] / 2 * _NODES
    result[j, k] = _values_of("g_prime", g_prime, points) @ _WEIGHTS / 2
    return result


def _values_of(name: str, function: Callable[[np.ndarray], np.ndarray], s: np.ndarray) -> np.ndarray:
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused below
            values = checks.plain(name, function(s)).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} failed at singular values of shape {s.shape}: {error}") from error
    if values.shape != s.shape:
        raise ValueError(f"{name} returned shape {values.shape} for singular values of shape {s.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is not finite at singular value {s[~np.isfinite(values)][0]:.6g}.")
    return values
