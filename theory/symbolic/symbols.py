"""Symbols and matrices that the derivations share; names as in the paper and in `theory.influence.mode_response`."""

from __future__ import annotations

from typing import Any

import sympy as sp

eps, g, h, t, tau, c = sp.symbols("eps g h t tau c", positive=True)
s, s_j, s_k, g_j, g_k = sp.symbols("s s_j s_k g_j g_k", positive=True)
g0, g0_j, g0_k = sp.symbols("g0 g0_j g0_k", positive=True)
q_jj, q_jk, q_kj, q_kk, q_pj, q_pk = sp.symbols("q_jj q_jk q_kj q_kk q_pj q_pk", real=True)
alpha, alpha_j, alpha_k = sp.symbols("alpha alpha_j alpha_k", real=True)
Q = sp.ImmutableMatrix([[q_jj, q_jk], [q_kj, q_kk]])
S = sp.diag(s_j, s_k)


def symbol_matrix(name: str, rows: int, columns: int) -> sp.ImmutableMatrix:
    """Return a matrix of real symbols called name_11, name_12, ..."""
    return sp.ImmutableMatrix(rows, columns, lambda i, j: sp.Symbol(f"{name}_{i + 1}{j + 1}", real=True))


def skew_matrix(*entries: sp.Expr) -> sp.ImmutableMatrix:
    """Return the antisymmetric 3 x 3 matrix with these entries at 12, 13 and 23."""
    x, y, z = entries
    return sp.ImmutableMatrix([[0, x, y], [-x, 0, z], [-y, -z, 0]])


def first_order(expression: Any) -> Any:
    """Return the coefficient of eps."""
    return sp.diff(expression, eps).subs(eps, 0)
