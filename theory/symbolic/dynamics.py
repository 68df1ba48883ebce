"""Derivations of the learning dynamics: mode strengths, the linearised flow, and what a sample's weight does to it."""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy as sp

from theory.symbolic.registry import Parts, as_fraction, derives
from theory.symbolic.symbols import (
    S,
    alpha,
    alpha_j,
    alpha_k,
    eps,
    first_order,
    g,
    g0,
    g0_j,
    g0_k,
    g_j,
    g_k,
    h,
    s,
    s_j,
    s_k,
    symbol_matrix,
    t,
    tau,
)


def _explicit_strength(value: sp.Expr, start: sp.Expr) -> sp.Expr:
    decay = sp.exp(-2 * value * t / tau)
    return value * start / (value * decay + start * (1 - decay))


@derives(
    "mode-strength",
    "tau dg/dt = 2 g (s - g) from g0 has g = s g0 / (s e^{-2st/tau} + g0 (1 - e^{-2st/tau})), g = s/2 at "
    "t = tau/(2s) ln(s/g0 - 1), and g -> g0 / (1 + 2 g0 t/tau) as s -> 0",
    "paper Eq. 30; Saxe et al. 2014",
)
def _mode_strength() -> Parts:
    a = sp.Symbol("a", positive=True)  # one layer's strength: tau da/dt = a (s - a^2), g = a^2
    speed = sp.expand((2 * a * a * (s - a**2)).subs(a, sp.sqrt(g)))
    passed = sp.integrate(sp.apart(1 / speed, g), g)  # t / tau = passed(g) - passed(g0)
    odds = sp.simplify(sp.exp(sp.expand(2 * s * passed)))
    solved = sp.solve(odds - odds.subs(g, g0) * sp.exp(2 * s * t / tau), g)[0]
    formula = _explicit_strength(s, g0)
    printed = s * sp.exp(2 * s * t / tau) / (sp.exp(2 * s * t / tau) - 1 + s / g0)
    half = sp.solve((sp.log(odds) - sp.log(odds.subs(g, g0))).subs(g, s / 2) - 2 * s * t / tau, t)[0]
    remainders = [
        solved - formula,
        solved - printed,
        tau * sp.diff(formula, t) - 2 * formula * (s - formula),
        formula.subs(t, 0) - g0,
        sp.exp(2 * s * half / tau) - (s / g0 - 1),
        sp.limit(formula, s, 0, "+") - g0 / (1 + 2 * g0 * t / tau),
    ]
    return remainders, {"g": solved, "half_rise_time": tau / (2 * s) * sp.log(s / g0 - 1)}


@cache
def _linearised_flow() -> dict[str, Any]:
    """Differentiate the two-layer flow at aligned balanced weights: two modes and one direction outside each side.

    Returns tau times the velocities of dW for a drive F = dSyx - W dSxx, after elimination of the layers by balance,
    and tau times the rate at which balance is lost, in the entries of the layers.
    """
    a_j, a_k = sp.symbols("a_j a_k", positive=True)
    first = sp.ImmutableMatrix([[a_j, 0, 0], [0, a_k, 0]])
    second, target = first.T, sp.diag(s_j, s_k, 0)
    d_first, d_second, drive = symbol_matrix("x", 2, 3), symbol_matrix("y", 3, 2), symbol_matrix("f", 3, 3)
    moment = symbol_matrix("m", 3, 3)
    d_target = drive + second * first * moment

    def velocity(w1: Any, w2: Any, syx: Any, sxx: Any) -> tuple[Any, Any]:
        error = syx - w2 * w1 * sxx
        return w2.T * error, error * w1.T

    v_first, v_second = velocity(first, second, target, sp.eye(3))
    w1, w2 = first + eps * d_first, second + eps * d_second
    dv_first, dv_second = map(first_order, velocity(w1, w2, target + eps * d_target, sp.eye(3) + eps * moment))
    change = d_second * first + second * d_first
    rate = dv_second * first + d_second * v_first + v_second * d_first + second * dv_first
    balance = first_order(w1 * w1.T - w2.T * w2)
    v1, v2 = v_first + eps * dv_first, v_second + eps * dv_second
    balance_rate = first_order(v1 * w1.T + w1 * v1.T - v2.T * w2 - w2.T * v2)
    d_map = symbol_matrix("d", 3, 3)
    equations = [e for e in [*(change - d_map)[:8], *balance[:2], balance[3]] if e != 0]
    solution = sp.solve(equations, [*d_first, *d_second], dict=True)[0]
    strengths = {a_j: sp.sqrt(g_j), a_k: sp.sqrt(g_k)}
    rate = rate.subs(solution).subs(strengths).applyfunc(sp.cancel)
    return {"rate": rate, "change": d_map, "drive": drive, "balance_rate": balance_rate.applyfunc(sp.expand)}


def _velocities(pair: str, response: sp.Expr, drive: sp.Expr) -> sp.Expr:
    """Return tau d(response)/dt of the linearised flow for one kind of entry, as `_linearised_flow` proves it."""
    if pair == "symmetric":
        return (g_j + g_k) * drive + (s_j + s_k - 2 * g_j - 2 * g_k) * response
    if pair == "skew":
        mixing = ((s_j - g_j) - (s_k - g_k)) * (g_j - g_k) / (g_j + g_k)
        return (g_j + g_k) * drive + (mixing - g_j - g_k) * response
    return g_k * drive + (s_k - 2 * g_k) * response


@derives(
    "linearised-flow",
    "around aligned balanced weights the symmetric, skew, diagonal and perpendicular parts of dW obey one linear "
    "equation each, tau d(dW)/dt = a(t) F + b(t) dW, and balance is kept to first order",
    "gradient flow of both layers, tau dW1/dt = W2^T (Syx - W Sxx), tau dW2/dt = (Syx - W Sxx) W1^T",
)
def _flow() -> Parts:
    flow = _linearised_flow()
    rate, d, f = flow["rate"], flow["change"], flow["drive"]
    symmetric, skew = (rate[0, 1] + rate[1, 0]) / 2, (rate[0, 1] - rate[1, 0]) / 2
    mean, half = (d[0, 1] + d[1, 0]) / 2, (d[0, 1] - d[1, 0]) / 2
    onto = {s_j: s_k, g_j: g_k}
    return [
        symmetric - _velocities("symmetric", mean, (f[0, 1] + f[1, 0]) / 2),
        skew - _velocities("skew", half, (f[0, 1] - f[1, 0]) / 2),
        rate[1, 1] - _velocities("symmetric", d[1, 1], f[1, 1]).subs(onto),
        rate[2, 1] - _velocities("perp", d[2, 1], f[2, 1]),
        rate[1, 2] - _velocities("perp", d[1, 2], f[1, 2]),
        rate[2, 2],
        flow["balance_rate"],
    ], {"rate": rate}


def _rate(expression: sp.Expr) -> sp.Expr:
    """Return tau d/dt of an expression in t and the mode strengths, which follow the logistic equation."""
    strengths = sum(sp.diff(expression, x) * 2 * x * (value - x) for x, value in ((g_j, s_j), (g_k, s_k)))
    return tau * sp.diff(expression, t) + strengths


@derives(
    "fixed-init",
    "with the initial weights kept, dW_jk = (g_j - g_k)/(s_j - s_k) sym(Q)_jk + (g_j + g_k)/(s_j + s_k) "
    "(1 - e^{-(s_j+s_k)t/tau}) skew(Q)_jk, and g_k/s_k (1 - e^{-s_k t/tau}) outside; dg/ds on the diagonal",
    "extends paper Eqs. 57-58",
)
def _fixed_init() -> Parts:
    symmetric = (g_j - g_k) / (s_j - s_k)
    skew = (g_j + g_k) / (s_j + s_k) * (1 - sp.exp(-(s_j + s_k) * t / tau))
    perp = g_k / s_k * (1 - sp.exp(-s_k * t / tau))
    mode = _explicit_strength(s_k, g0)
    diagonal = sp.diff(mode, s_k)
    diagonal_velocity = _velocities("symmetric", diagonal, sp.Integer(1)).subs({s_j: s_k, g_j: g_k}).subs(g_k, mode)
    return [
        _rate(symmetric) - _velocities("symmetric", symmetric, sp.Integer(1)),
        _rate(skew) - _velocities("skew", skew, sp.Integer(1)),
        _rate(perp) - _velocities("perp", perp, sp.Integer(1)),
        tau * sp.diff(diagonal, t) - diagonal_velocity,
        symmetric.subs({g_j: g0, g_k: g0}),
        skew.subs(t, 0),
        perp.subs(t, 0),
        diagonal.subs(t, 0),
    ], {"symmetric": symmetric, "skew": skew, "perp": perp, "diagonal": diagonal}


@derives(
    "sample-weight",
    "for any drive F(t): sym H_jk int (g_j + g_k) F / H_jk du/tau with H_jk = g_j g_k e^{-(s_j+s_k)t/tau}, skew "
    "(g_j + g_k) int e^{-(s_j+s_k)(t-u)/tau} F du/tau, perp g_k int e^{-s_k(t-u)/tau} F du/tau; for one sample the "
    "diagonal is alpha^2 t dg/dt",
    "derivative of weighted retraining",
)
def _sample_weight() -> Parts:
    drive, integral = sp.Function("F")(t), sp.Function("J")(t)
    pair, own = sp.exp(-(s_j + s_k) * t / tau), sp.exp(-s_k * t / tau)
    # dW = factor J with tau dJ/dt = weight F and J(0) = 0 is the integral as stated
    integrals = {
        "symmetric": (g_j * g_k * pair, (g_j + g_k) / (g_j * g_k * pair)),
        "skew": ((g_j + g_k) * pair, 1 / pair),
        "perp": (g_k * own, 1 / own),
    }
    remainders = []
    for kind, (factor, weight) in integrals.items():
        change = _rate(factor * integral).subs(sp.Derivative(integral, t), weight * drive / tau)
        remainders.append(change - _velocities(kind, factor * integral, drive))
    u = sp.Symbol("u", positive=True)
    mode = _explicit_strength(s, g0)
    factor = mode**2 * sp.exp(-2 * s * t / tau)
    integrand = as_fraction(2 * mode * (s - mode) * alpha**2 / factor / tau)
    diagonal = factor * sp.integrate(integrand.subs(t, u), (u, 0, t))
    remainders.append(diagonal - alpha**2 * t * sp.diff(mode, t))
    return remainders, {"diagonal": diagonal}


def _symmetric_kernel() -> sp.Expr:
    x_j, x_k, middle = sp.exp(-h * s_j), sp.exp(-h * s_k), sp.exp(-h * (s_j + s_k) / 2)
    phi_j, phi_k = (1 - x_j) / s_j, (1 - x_k) / s_k
    top = g0_j * (x_k - middle) + g0_k * (middle - x_j) + g0_j * g0_k * (phi_k - phi_j)
    return top / ((s_j - s_k) * (x_j + g0_j * phi_j) * (x_k + g0_k * phi_k))


@derives(
    "symmetric-kernel",
    "for own initial strengths H_jk int (g_j + g_k) / H_jk du/tau = [g0_j (e^{-h s_k} - e^{-h m}) + g0_k (e^{-h m} - "
    "e^{-h s_j}) + g0_j g0_k (phi_k - phi_j)] / ((s_j - s_k) D_j D_k), m = (s_j + s_k)/2, h = 2t/tau; equal strengths "
    "give (g_j - g_k)/(s_j - s_k), equal values and strengths dg/ds",
    "extends the sample-weight integrals",
)
def _kernel() -> Parts:
    kernel = _symmetric_kernel()
    onto_h = {t: h * tau / 2}
    strengths = {
        g_j: _explicit_strength(s_j, g0_j).subs(onto_h),
        g_k: _explicit_strength(s_k, g0_k).subs(onto_h),
    }
    equal = {g0_j: g0, g0_k: g0}
    divided = ((g_j - g_k) / (s_j - s_k)).subs(strengths).subs(equal)
    confluent = sp.limit(sp.cancel(kernel.subs(equal) * (s_j - s_k)).diff(s_j), s_j, s_k)
    return [
        2 * sp.diff(kernel, h) - _velocities("symmetric", kernel, sp.Integer(1)).subs(strengths),
        kernel.subs(h, 0),
        kernel.subs(equal) - divided,
        confluent - sp.diff(strengths[g_k].subs(equal), s_k),
    ], {"kernel": kernel}


@derives(
    "input-moment-kernel",
    "for one sample F_jk = (s_j - g_j) alpha_j alpha_k, and its part from the input moment has the convolution "
    "integrands (g0_j D_k + g0_k D_j)^2 / (D_j D_k)(u) / (D_j D_k)(t) and (g_j + g_k)(t) (g_j - g_k)(u), halved",
    "extends the sample-weight integrals",
)
def _input_moment() -> Parts:
    a = sp.ImmutableMatrix([alpha_j, alpha_k])
    strength = sp.diag(g_j, g_k)
    moment = strength * a * a.T
    drive = S * a * a.T - moment
    symmetric, skew = (moment + moment.T) / 2, (moment - moment.T) / 2
    d_j, d_k, now_j, now_k = sp.symbols("D_j D_k N_j N_k", positive=True)  # D at u and at t
    at_u, at_t = {g_j: g0_j / d_j, g_k: g0_k / d_k}, {g_j: g0_j / now_j, g_k: g0_k / now_k}
    share = alpha_j * alpha_k / 2
    integrand = (g_j * g_k).subs(at_t) * ((g_j + g_k) * symmetric[0, 1] / (g_j * g_k)).subs(at_u)
    stated = (g0_j * d_k + g0_k * d_j) ** 2 / (d_j * d_k) / (now_j * now_k)
    return [
        drive[0, 1] - (s_j - g_j) * alpha_j * alpha_k,
        integrand - share * stated,
        skew[0, 1] - share * (g_j - g_k),
    ], {}
