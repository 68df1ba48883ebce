"""Derivations of the response of a singular value decomposition, exact and as the paper prints it."""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy as sp

from theory.symbolic.registry import Parts, derives
from theory.symbolic.symbols import (
    Q,
    S,
    alpha_j,
    alpha_k,
    eps,
    first_order,
    q_jj,
    q_jk,
    q_kj,
    q_kk,
    q_pj,
    q_pk,
    s,
    s_j,
    s_k,
    skew_matrix,
    symbol_matrix,
)


@cache
def _svd_solution() -> tuple[Any, Any, Any, Any]:
    """Differentiate C = U S V^T (3 x 2) and the orthonormality of U and V; solve for A, B, dS and U_perp^T dU."""
    change = sp.ImmutableMatrix([*Q.tolist(), [q_pj, q_pk]])
    d_left, d_right, d_values = symbol_matrix("u", 3, 2), symbol_matrix("v", 2, 2), symbol_matrix("z", 2, 1)
    u, v = sp.eye(3)[:, :2] + eps * d_left, sp.eye(2) + eps * d_right
    values = S + eps * sp.diag(*d_values)
    conditions = [first_order(e) for e in (u.T * u, v.T * v, u * values * v.T - eps * change)]
    unknown = [*d_left, *d_right, *d_values]
    solution = sp.solve([e for block in conditions for e in block], unknown, dict=True)[0]
    d_left, d_right, d_values = (m.subs(solution).applyfunc(sp.factor) for m in (d_left, d_right, d_values))
    return d_left[:2, :], d_right.T, sp.diag(*d_values), d_left[2, :]


def _exact_rotations() -> tuple[sp.Expr, sp.Expr]:
    gap = s_k**2 - s_j**2
    return (s_k * q_jk + s_j * q_kj) / gap, -(s_j * q_jk + s_k * q_kj) / gap


@derives(
    "svd-response",
    "Q = A S + dS + S B with antisymmetric A, B has A_jk = (s_k Q_jk + s_j Q_kj)/(s_k^2 - s_j^2), "
    "B_jk = -(s_j Q_jk + s_k Q_kj)/(s_k^2 - s_j^2), dS = diag Q, and U_perp^T dU = U_perp^T E V / S",
    "paper Eqs. 40-49, solved exactly",
)
def _svd_response() -> Parts:
    a, b, ds, perp = _svd_solution()
    stated_a, stated_b = _exact_rotations()
    return [
        a[0, 1] - stated_a,
        b[0, 1] - stated_b,
        ds - sp.diag(q_jj, q_kk),
        perp - sp.Matrix([[q_pj / s_j, q_pk / s_k]]),
        a + a.T,
        b + b.T,
        a * S + ds + S * b - Q,
    ], {"A": a[0, 1], "B": b[0, 1], "perp": perp[1]}


def _printed(variant: str) -> tuple[Any, Any]:
    """Return A and B as the paper prints them, B with Q_jk (P1) or Q_kj (P2)."""
    gap = s_k - s_j
    a = sp.ImmutableMatrix([[0, q_jk / gap], [q_kj / -gap, 0]])
    one, two = (q_jk, q_kj) if variant == "P1" else (q_kj, q_jk)
    return a, sp.ImmutableMatrix([[0, one / -gap], [two / gap, 0]])


def _printed_defects(variant: str) -> list[Any]:
    a, b = _printed(variant)
    return [(a * S + sp.diag(q_jj, q_kk) + S * b - Q).applyfunc(sp.factor), a + a.T, b + b.T]


def _core(a: Any, ds: Any, b: Any) -> sp.ImmutableMatrix:
    """Return U^T dF V for F = U f(S) V^T with an unknown function f."""
    f = sp.Function("f")
    values = sp.diag(f(s_j), f(s_k))
    slopes = sp.diag(sp.diff(f(s_j), s_j), sp.diff(f(s_k), s_k))
    return sp.ImmutableMatrix(a * values + slopes * ds + values * b)


for _variant, _line in (("P1", "Q_jk/(s_j - s_k)"), ("P2", "Q_kj/(s_j - s_k)")):

    @derives(
        f"printed-svd-response-{_variant}",
        f"A_jk = Q_jk/(s_k - s_j), B_jk = {_line} are antisymmetric and solve Q = A S + dS + S B",
        "paper Eqs. 50-51",
        holds=False,
    )
    def _printed_response(variant: str = _variant) -> Parts:
        a, b = _printed(variant)
        return _printed_defects(variant), {"A": a[0, 1], "B": b[0, 1]}

    @derives(
        f"printed-svd-response-{_variant}-symmetric",
        f"the printed A_jk = Q_jk/(s_k - s_j), B_jk = {_line} are right where Q_jk = Q_kj",
        "paper Eqs. 50-51",
    )
    def _printed_symmetric(variant: str = _variant) -> Parts:
        return [m.subs(q_kj, q_jk) for m in _printed_defects(variant)], {}

    @derives(
        f"printed-influence-{_variant}",
        f"dW = U (A G + G' dS + G B) V^T with A_jk = Q_jk/(s_k - s_j), B_jk = {_line}, for Q = S alpha alpha^T",
        "paper Eqs. 50-51, 58",
        holds=False,
    )
    def _printed_influence(variant: str = _variant) -> Parts:
        a, b, ds, _ = _svd_solution()
        sample = dict(zip(Q, S * sp.Matrix([alpha_j, alpha_k]) * sp.Matrix([[alpha_j, alpha_k]]), strict=True))
        difference = _core(*(m.subs(sample) for m in (_printed(variant)[0], ds, _printed(variant)[1])))
        return [(difference - _core(*(m.subs(sample) for m in (a, ds, b)))).applyfunc(sp.factor)], {}


@cache
def _degenerate_pair(outside: bool) -> tuple[Any, Any, sp.Expr]:
    """Expand sI (+) r + eps Q to second order; return the pair's A_12 and B_12, and the split remainder.

    The pair's basis is the one in which sym(Q) is diagonal. First order fixes A_12 + B_12, second order A_12 - B_12.
    """
    r, k, l_1, l_2 = sp.symbols("r k l_1 l_2", real=True)
    q_13, q_23, q_31, q_32, q_33 = sp.symbols("q_13 q_23 q_31 q_32 q_33", real=True)
    change = sp.ImmutableMatrix([[l_1, k, q_13], [-k, l_2, q_23], [q_31, q_32, q_33]])
    if not outside:
        change = change.subs({q_13: 0, q_23: 0, q_31: 0, q_32: 0})
    values = sp.diag(s, s, r)
    left, right, splits = (sp.symbols(f"{name}_1:4", real=True) for name in "abd")
    a1, b1, ds = skew_matrix(*left), skew_matrix(*right), sp.diag(*splits)
    first = sp.solve(list(a1 * values + ds + values * b1 - change), [*left, *right[1:], *splits], dict=True)[0]
    a1, b1, ds = (m.subs(first) for m in (a1, b1, ds))
    a2, b2 = skew_matrix(*sp.symbols("A_1:4")), skew_matrix(*sp.symbols("B_1:4"))
    # U = exp(eps a1 + eps^2 a2), V^T = exp(eps b1 + eps^2 b2); C has no second order
    second = (a2 + a1**2 / 2) * values + values * (b2 + b1**2 / 2) + a1 * values * b1 + a1 * ds + ds * b1
    together = sp.solve(sp.expand(second[0, 1] + second[1, 0]), right[0])[0]
    return sp.factor(a1[0, 1].subs(right[0], together)), sp.factor(together), ds[0, 0] - l_1


@derives(
    "degenerate-block",
    "two equal values s split into the eigenvalues of sym(Q), and A = B = K/(2s) with K = skew(Q), if there is no mode "
    "outside the block; U f(S) V^T changes by f'(s) sym(Q) + f(s)/s K",
    "paper Eqs. 52-56",
)
def _degenerate_block() -> Parts:
    block = s * sp.eye(2) + eps * Q
    # s1^2 + s2^2 = |C|^2 and s1 s2 = det C, so that (s1 +- s2)^2 = |C|^2 +- 2 det C
    size, volume = sum(e**2 for e in block), block.det()
    total, spread = sp.sqrt(sp.expand(size + 2 * volume)), sp.sqrt(sp.factor(size - 2 * volume))
    spread_slope = sp.limit(spread / eps, eps, 0, "+")
    symmetric, skew = (Q + Q.T) / 2, (Q - Q.T) / 2
    shift, gap = symmetric.trace() / 2, sp.sqrt(symmetric.trace() ** 2 / 4 - symmetric.det())
    splits = [(sp.cancel(first_order(total)) + side * spread_slope) / 2 for side in (1, -1)]
    rotation = (block + block.adjugate().T) / total  # U V^T of a 2 x 2 matrix with positive determinant
    a, b, split = _degenerate_pair(outside=False)
    k, f = sp.Symbol("k", real=True), sp.Function("f")(s)
    l_1, l_2 = sp.symbols("l_1 l_2", real=True)
    turn = sp.ImmutableMatrix([[0, 1], [-1, 0]])
    core = f * a * turn + sp.diff(f, s) * sp.diag(l_1, l_2) + f * b * turn
    return [
        splits[0] - shift - gap,
        splits[1] - shift + gap,
        *((symmetric - (shift + side * gap) * sp.eye(2)).det() for side in (1, -1)),
        first_order(rotation) - skew / s,
        split,
        a - k / (2 * s),
        b - k / (2 * s),
        core - sp.diff(f, s) * sp.diag(l_1, l_2) - f / s * k * turn,
    ], {"high": splits[0], "low": splits[1]}


@derives(
    "printed-degenerate-block",
    "A = B = K/(2s) in a degenerate block with modes outside it (what is left turns U and V alike: vectors differ, "
    "products U f(S) V^T do not)",
    "paper Eq. 55",
    holds=False,
)
def _printed_degenerate_block() -> Parts:
    a, b, _ = _degenerate_pair(outside=True)
    k = sp.Symbol("k", real=True)
    return [a - k / (2 * s), b - k / (2 * s)], {"A": a, "B": b}


@derives(
    "spectral-derivative",
    "d(U f(S) V^T) = U [G1 o sym(Q) + G2 o skew(Q)] V^T + U_perp U_perp^T E V (f/S) V^T, G1 = (f_j - f_k)/(s_j - s_k), "
    "G2 = (f_j + f_k)/(s_j + s_k), with f'(s) and f/s where values meet",
    "Daleckii-Krein; paper Eqs. 57-58",
)
def _spectral_derivative() -> Parts:
    a, b, ds, perp = _svd_solution()
    f = sp.Function("f")
    f_j, f_k = f(s_j), f(s_k)
    divided, mean = (f_j - f_k) / (s_j - s_k), (f_j + f_k) / (s_j + s_k)
    diagonal = [sp.diff(f_j, s_j) * q_jj, sp.diff(f_k, s_k) * q_kk]
    symmetric, skew = (q_jk + q_kj) / 2, (q_jk - q_kj) / 2
    upper, lower = divided * symmetric + mean * skew, divided * symmetric - mean * skew
    stated = sp.ImmutableMatrix([[diagonal[0], upper], [lower, diagonal[1]]])
    # f(s + x) = f + f' x + O(x^2) is all the limit of a divided difference needs
    slope, rest, x = sp.symbols("slope rest x")
    near = ((f_k + slope * x + rest * x**2) - f_k) / x
    return [
        _core(a, ds, b) - stated,
        perp * sp.diag(f_j, f_k) - sp.Matrix([[q_pj * f_j / s_j, q_pk * f_k / s_k]]),
        sp.limit(sp.cancel(near), x, 0) - slope,
        mean.subs(s_j, s_k) - f_k / s_k,
    ], {"G1": divided, "G2": mean}


@derives(
    "loss-influence",
    "the loss l = |y - W x|^2 / 2 of a query changes by r^T dW x with r = W x - y",
    "paper Eq. 59",
)
def _loss_influence() -> Parts:
    weights, change, x, y = (
        symbol_matrix("w", 2, 2),
        symbol_matrix("e", 2, 2),
        symbol_matrix("x", 2, 1),
        symbol_matrix("y", 2, 1),
    )
    residual = y - (weights + eps * change) * x
    return [first_order((residual.T * residual)[0] / 2) - ((weights * x - y).T * change * x)[0]], {}


@derives(
    "second-order-values",
    "s_j(eps) = s_j + eps q_jj + eps^2 [(q_jk + q_kj)^2 / (4 (s_j - s_k)) + (q_jk - q_kj)^2 / (4 (s_j + s_k)) "
    "+ q_pj^2 / (2 s_j)], the sum over the other modes k and the directions p outside",
    "Hadamard; second order of paper Eq. 49",
)
def _second_order_values() -> Parts:
    change = sp.ImmutableMatrix([*Q.tolist(), [q_pj, q_pk]])
    moved = sp.ImmutableMatrix([[s_j, 0], [0, s_k], [0, 0]]) + eps * change
    gram = moved.T * moved
    first, second = sp.symbols("first second")
    value = (s_j + eps * first + eps**2 * second) ** 2  # an eigenvalue of C^T C
    characteristic = sp.Poly(sp.expand(value**2 - gram.trace() * value + gram.det()), eps)
    slope = sp.solve(characteristic.coeff_monomial(eps), first)[0]
    curvature = sp.solve(characteristic.coeff_monomial(eps**2).subs(first, slope), second)[0]
    stated = (q_jk + q_kj) ** 2 / (4 * (s_j - s_k)) + (q_jk - q_kj) ** 2 / (4 * (s_j + s_k)) + q_pj**2 / (2 * s_j)
    return [slope - q_jj, curvature - stated], {"curvature": curvature}
