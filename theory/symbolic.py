r"""The closed forms of this package, derived by computer algebra from what defines them.

Each derivation starts from a differential equation, a factorisation or a moment, solves or differentiates it exactly,
and subtracts the formula in use; it holds if the remainder simplifies to zero. Two printed formulas of the paper leave

.. math:: A_{jk} + A_{kj} = \frac{Q_{jk} - Q_{kj}}{s_k - s_j} \ne 0 ,

although A = U^T dU is antisymmetric: these errata are derivations too, with a remainder that must not vanish.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import sympy as sp
from sympy.core.evalf import PrecisionExhausted
from sympy.core.function import AppliedUndef

from theory import checks

__all__ = ["Derivation", "derivation", "derivation_names", "derivation_report", "derivations", "vanishes"]

# Matrices and expressions of sympy carry no types; parts are the remainders and the named formulas of a derivation.
_Parts = tuple[list[Any], dict[str, Any]]
_BINDERS = (sp.Integral, sp.Sum, sp.Product, sp.Limit, sp.Subs)

eps, g, h, t, tau, c = sp.symbols("eps g h t tau c", positive=True)
s, s_j, s_k, g_j, g_k = sp.symbols("s s_j s_k g_j g_k", positive=True)
g0, g0_j, g0_k = sp.symbols("g0 g0_j g0_k", positive=True)
q_jj, q_jk, q_kj, q_kk, q_pj, q_pk = sp.symbols("q_jj q_jk q_kj q_kk q_pj q_pk", real=True)
alpha, alpha_j, alpha_k = sp.symbols("alpha alpha_j alpha_k", real=True)
Q = sp.ImmutableMatrix([[q_jj, q_jk], [q_kj, q_kk]])
S = sp.diag(s_j, s_k)


@dataclass(frozen=True, eq=False)
class Derivation:
    """A formula and what is left when it is subtracted from its derivation.

    Parameters
    ----------
    name
        Short name, see `derivation_names`.
    statement
        The formula in words and symbols.
    source
        Paper equations or reference.
    remainder
        Derived minus stated; an expression, or a matrix of them.
    formulas
        Named expressions of the derivation, for evaluation elsewhere.
    holds
        False for an erratum, whose remainder must not vanish.

    Raises
    ------
    TypeError
        If the remainder is not a sympy expression or matrix.

    Examples
    --------
    >>> x = sp.Symbol("x")
    >>> square = Derivation("square", "(x + 1)^2 = x^2 + 2 x + 1", "school", (x + 1) ** 2 - x**2 - 2 * x - 1)
    >>> square.vanishes
    True
    """

    name: str
    statement: str
    source: str
    remainder: Any
    formulas: Mapping[str, Any] = field(default_factory=dict)
    holds: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.remainder, sp.Expr | sp.MatrixBase):
            raise TypeError(
                f"remainder of {self.name!r} must be a sympy expression or matrix, but it is "
                f"{type(self.remainder).__name__}; build it with sympy."
            )

    @cached_property
    def vanishes(self) -> bool:
        """Whether every entry of the remainder is proven to be zero; False is proven as well."""
        entries = list(self.remainder) if isinstance(self.remainder, sp.MatrixBase) else [self.remainder]
        return all(vanishes(entry) for entry in entries)

    @property
    def nonzero_remainder(self) -> list[sp.Expr]:
        """Factorised entries of the remainder that do not vanish."""
        entries = list(self.remainder) if isinstance(self.remainder, sp.MatrixBase) else [self.remainder]
        return [sp.factor(entry) for entry in entries if not vanishes(entry)]

    def __str__(self) -> str:
        expected = "formula" if self.holds else "erratum"
        lines = [f"{self.name} [{self.source}], {expected}", f"  {self.statement}"]
        if self.vanishes:
            return "\n".join([*lines, "  remainder 0"])
        return "\n".join([*lines, *(f"  remainder {sp.latex(entry)}" for entry in self.nonzero_remainder)])


def vanishes(expression: sp.Expr) -> bool:
    """Decide whether `expression` is identically zero in its symbols and unknown functions.

    Zero is proven by exact simplification only; nonzero by an exact value at a rational point, with digits that sympy
    vouches for. Values of unknown functions and of their derivatives count as independent symbols.

    Raises
    ------
    ArithmeticError
        If neither proof succeeds, or an integral, sum, limit or substitution is left unevaluated.

    Examples
    --------
    >>> x = sp.Symbol("x", positive=True)
    >>> vanishes(sp.exp(2 * x) - 1 - (sp.exp(x) - 1) * (sp.exp(x) + 1)), vanishes(sp.exp(x) - 1 - x)
    (True, False)
    """
    if expression.has(*_BINDERS):
        raise ArithmeticError(f"{expression} holds an unevaluated operation; carry it out, or name its value, first.")
    expression = _with_symbols_for_functions(expression)
    if _as_fraction(expression) == 0:
        return True
    if _nonzero_at_a_rational_point(expression):
        return False
    if sp.simplify(expression) == 0:
        return True
    raise ArithmeticError(
        f"could neither prove nor refute that {expression} is zero; bring it into a simpler form first."
    )


def _with_symbols_for_functions(expression: sp.Expr) -> sp.Expr:
    for kind in (sp.Derivative, AppliedUndef):
        expression = expression.xreplace({atom: sp.Dummy(str(atom)) for atom in expression.atoms(kind)})
    return expression


def _as_fraction(expression: sp.Expr) -> sp.Expr:
    """Return the expression as one fraction in lowest terms, exponentials of sums split into products."""
    return sp.cancel(sp.together(sp.expand_power_exp(expression)))


def _nonzero_at_a_rational_point(expression: sp.Expr) -> bool:
    symbols = sorted(expression.free_symbols, key=str)
    for attempt in range(3):
        point = {x: sp.Rational(sp.prime(i + 1), sp.prime(i + 5 + attempt)) for i, x in enumerate(symbols)}
        value = expression.subs(point)
        if not value.is_number or value.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
            continue
        try:
            if value != 0 and (value.is_Rational or sp.N(value, 15, strict=True) != 0):
                return True
        except PrecisionExhausted:
            continue
    return False


_REGISTRY: dict[str, Callable[[], Derivation]] = {}


def _derives(
    name: str, statement: str, source: str, *, holds: bool = True
) -> Callable[[Callable[[], _Parts]], Callable[[], _Parts]]:
    """Register a function that returns remainders and formulas; it runs when the derivation is first asked for."""

    def register(function: Callable[[], _Parts]) -> Callable[[], _Parts]:
        @cache
        def compute() -> Derivation:
            remainders, formulas = function()
            entries = [e for r in remainders for e in (r if isinstance(r, sp.MatrixBase) else [r])]
            return Derivation(name, statement, source, sp.ImmutableMatrix(entries), formulas, holds)

        _REGISTRY[name] = compute
        return function

    return register


def derivation_names() -> tuple[str, ...]:
    """Return the names of all derivations.

    Examples
    --------
    >>> "mode-strength" in derivation_names()
    True
    """
    return tuple(_REGISTRY)


def derivation(name: str) -> Derivation:
    """Return one derivation by name; it is carried out on the first call.

    Examples
    --------
    >>> print(derivation("sgld-variance"))
    sgld-variance [Euler step of Langevin dynamics], formula
      w <- (1 - eps h / 2) w + sqrt(eps) xi has variance 1 / (h (1 - eps h / 4)), finite for eps h < 4
      remainder 0
    """
    return _REGISTRY[checks.choice("name", name, derivation_names())]()


def derivations() -> tuple[Derivation, ...]:
    """Return all derivations, carried out; about five seconds.

    Examples
    --------
    >>> all(d.vanishes == d.holds for d in derivations())
    True
    """
    return tuple(derivation(name) for name in derivation_names())


def derivation_report() -> str:
    """Return every statement with its remainder, those of errata in LaTeX.

    Examples
    --------
    >>> "q_{jk} - q_{kj}" in derivation_report()
    True
    """
    return "\n\n".join(str(d) for d in derivations())


def _matrix(name: str, rows: int, columns: int) -> sp.ImmutableMatrix:
    return sp.ImmutableMatrix(rows, columns, lambda i, j: sp.Symbol(f"{name}_{i + 1}{j + 1}", real=True))


def _skew(*entries: sp.Expr) -> sp.ImmutableMatrix:
    """Return the antisymmetric 3 x 3 matrix with these entries at 12, 13 and 23."""
    x, y, z = entries
    return sp.ImmutableMatrix([[0, x, y], [-x, 0, z], [-y, -z, 0]])


def _first_order(expression: Any) -> Any:
    return sp.diff(expression, eps).subs(eps, 0)


# --- learning dynamics ------------------------------------------------------------------------------------------------


def _explicit_strength(value: sp.Expr, start: sp.Expr) -> sp.Expr:
    decay = sp.exp(-2 * value * t / tau)
    return value * start / (value * decay + start * (1 - decay))


@_derives(
    "mode-strength",
    "tau dg/dt = 2 g (s - g) from g0 has g = s g0 / (s e^{-2st/tau} + g0 (1 - e^{-2st/tau})), g = s/2 at "
    "t = tau/(2s) ln(s/g0 - 1), and g -> g0 / (1 + 2 g0 t/tau) as s -> 0",
    "paper Eq. 30; Saxe et al. 2014",
)
def _mode_strength() -> _Parts:
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
    d_first, d_second, drive = _matrix("x", 2, 3), _matrix("y", 3, 2), _matrix("f", 3, 3)
    moment = _matrix("m", 3, 3)
    d_target = drive + second * first * moment

    def velocity(w1: Any, w2: Any, syx: Any, sxx: Any) -> tuple[Any, Any]:
        error = syx - w2 * w1 * sxx
        return w2.T * error, error * w1.T

    v_first, v_second = velocity(first, second, target, sp.eye(3))
    w1, w2 = first + eps * d_first, second + eps * d_second
    dv_first, dv_second = map(_first_order, velocity(w1, w2, target + eps * d_target, sp.eye(3) + eps * moment))
    change = d_second * first + second * d_first
    rate = dv_second * first + d_second * v_first + v_second * d_first + second * dv_first
    balance = _first_order(w1 * w1.T - w2.T * w2)
    v1, v2 = v_first + eps * dv_first, v_second + eps * dv_second
    balance_rate = _first_order(v1 * w1.T + w1 * v1.T - v2.T * w2 - w2.T * v2)
    d_map = _matrix("d", 3, 3)
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


@_derives(
    "linearised-flow",
    "around aligned balanced weights the symmetric, skew, diagonal and perpendicular parts of dW obey one linear "
    "equation each, tau d(dW)/dt = a(t) F + b(t) dW, and balance is kept to first order",
    "gradient flow of both layers, tau dW1/dt = W2^T (Syx - W Sxx), tau dW2/dt = (Syx - W Sxx) W1^T",
)
def _flow() -> _Parts:
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


@_derives(
    "fixed-init",
    "with the initial weights kept, dW_jk = (g_j - g_k)/(s_j - s_k) sym(Q)_jk + (g_j + g_k)/(s_j + s_k) "
    "(1 - e^{-(s_j+s_k)t/tau}) skew(Q)_jk, and g_k/s_k (1 - e^{-s_k t/tau}) outside; dg/ds on the diagonal",
    "extends paper Eqs. 57-58",
)
def _fixed_init() -> _Parts:
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


@_derives(
    "sample-weight",
    "for any drive F(t): sym H_jk int (g_j + g_k) F / H_jk du/tau with H_jk = g_j g_k e^{-(s_j+s_k)t/tau}, skew "
    "(g_j + g_k) int e^{-(s_j+s_k)(t-u)/tau} F du/tau, perp g_k int e^{-s_k(t-u)/tau} F du/tau; for one sample the "
    "diagonal is alpha^2 t dg/dt",
    "derivative of weighted retraining",
)
def _sample_weight() -> _Parts:
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
    integrand = _as_fraction(2 * mode * (s - mode) * alpha**2 / factor / tau)
    diagonal = factor * sp.integrate(integrand.subs(t, u), (u, 0, t))
    remainders.append(diagonal - alpha**2 * t * sp.diff(mode, t))
    return remainders, {"diagonal": diagonal}


def _symmetric_kernel() -> sp.Expr:
    x_j, x_k, middle = sp.exp(-h * s_j), sp.exp(-h * s_k), sp.exp(-h * (s_j + s_k) / 2)
    phi_j, phi_k = (1 - x_j) / s_j, (1 - x_k) / s_k
    top = g0_j * (x_k - middle) + g0_k * (middle - x_j) + g0_j * g0_k * (phi_k - phi_j)
    return top / ((s_j - s_k) * (x_j + g0_j * phi_j) * (x_k + g0_k * phi_k))


@_derives(
    "symmetric-kernel",
    "for own initial strengths H_jk int (g_j + g_k) / H_jk du/tau = [g0_j (e^{-h s_k} - e^{-h m}) + g0_k (e^{-h m} - "
    "e^{-h s_j}) + g0_j g0_k (phi_k - phi_j)] / ((s_j - s_k) D_j D_k), m = (s_j + s_k)/2, h = 2t/tau; equal strengths "
    "give (g_j - g_k)/(s_j - s_k), equal values and strengths dg/ds",
    "extends the sample-weight integrals",
)
def _kernel() -> _Parts:
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


@_derives(
    "input-moment-kernel",
    "for one sample F_jk = (s_j - g_j) alpha_j alpha_k, and its part from the input moment has the convolution "
    "integrands (g0_j D_k + g0_k D_j)^2 / (D_j D_k)(u) / (D_j D_k)(t) and (g_j + g_k)(t) (g_j - g_k)(u), halved",
    "extends the sample-weight integrals",
)
def _input_moment() -> _Parts:
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


# --- response of the singular value decomposition ---------------------------------------------------------------------


@cache
def _svd_solution() -> tuple[Any, Any, Any, Any]:
    """Differentiate C = U S V^T (3 x 2) and the orthonormality of U and V; solve for A, B, dS and U_perp^T dU."""
    change = sp.ImmutableMatrix([*Q.tolist(), [q_pj, q_pk]])
    d_left, d_right, d_values = _matrix("u", 3, 2), _matrix("v", 2, 2), _matrix("z", 2, 1)
    u, v = sp.eye(3)[:, :2] + eps * d_left, sp.eye(2) + eps * d_right
    values = S + eps * sp.diag(*d_values)
    conditions = [_first_order(e) for e in (u.T * u, v.T * v, u * values * v.T - eps * change)]
    unknown = [*d_left, *d_right, *d_values]
    solution = sp.solve([e for block in conditions for e in block], unknown, dict=True)[0]
    d_left, d_right, d_values = (m.subs(solution).applyfunc(sp.factor) for m in (d_left, d_right, d_values))
    return d_left[:2, :], d_right.T, sp.diag(*d_values), d_left[2, :]


def _exact_rotations() -> tuple[sp.Expr, sp.Expr]:
    gap = s_k**2 - s_j**2
    return (s_k * q_jk + s_j * q_kj) / gap, -(s_j * q_jk + s_k * q_kj) / gap


@_derives(
    "svd-response",
    "Q = A S + dS + S B with antisymmetric A, B has A_jk = (s_k Q_jk + s_j Q_kj)/(s_k^2 - s_j^2), "
    "B_jk = -(s_j Q_jk + s_k Q_kj)/(s_k^2 - s_j^2), dS = diag Q, and U_perp^T dU = U_perp^T E V / S",
    "paper Eqs. 40-49, solved exactly",
)
def _svd_response() -> _Parts:
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

    @_derives(
        f"printed-svd-response-{_variant}",
        f"A_jk = Q_jk/(s_k - s_j), B_jk = {_line} are antisymmetric and solve Q = A S + dS + S B",
        "paper Eqs. 50-51",
        holds=False,
    )
    def _printed_response(variant: str = _variant) -> _Parts:
        a, b = _printed(variant)
        return _printed_defects(variant), {"A": a[0, 1], "B": b[0, 1]}

    @_derives(
        f"printed-svd-response-{_variant}-symmetric",
        f"the printed A_jk = Q_jk/(s_k - s_j), B_jk = {_line} are right where Q_jk = Q_kj",
        "paper Eqs. 50-51",
    )
    def _printed_symmetric(variant: str = _variant) -> _Parts:
        return [m.subs(q_kj, q_jk) for m in _printed_defects(variant)], {}

    @_derives(
        f"printed-influence-{_variant}",
        f"dW = U (A G + G' dS + G B) V^T with A_jk = Q_jk/(s_k - s_j), B_jk = {_line}, for Q = S alpha alpha^T",
        "paper Eqs. 50-51, 58",
        holds=False,
    )
    def _printed_influence(variant: str = _variant) -> _Parts:
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
    a1, b1, ds = _skew(*left), _skew(*right), sp.diag(*splits)
    first = sp.solve(list(a1 * values + ds + values * b1 - change), [*left, *right[1:], *splits], dict=True)[0]
    a1, b1, ds = (m.subs(first) for m in (a1, b1, ds))
    a2, b2 = _skew(*sp.symbols("A_1:4")), _skew(*sp.symbols("B_1:4"))
    # U = exp(eps a1 + eps^2 a2), V^T = exp(eps b1 + eps^2 b2); C has no second order
    second = (a2 + a1**2 / 2) * values + values * (b2 + b1**2 / 2) + a1 * values * b1 + a1 * ds + ds * b1
    together = sp.solve(sp.expand(second[0, 1] + second[1, 0]), right[0])[0]
    return sp.factor(a1[0, 1].subs(right[0], together)), sp.factor(together), ds[0, 0] - l_1


@_derives(
    "degenerate-block",
    "two equal values s split into the eigenvalues of sym(Q), and A = B = K/(2s) with K = skew(Q), if there is no mode "
    "outside the block; U f(S) V^T changes by f'(s) sym(Q) + f(s)/s K",
    "paper Eqs. 52-56",
)
def _degenerate_block() -> _Parts:
    block = s * sp.eye(2) + eps * Q
    # s1^2 + s2^2 = |C|^2 and s1 s2 = det C, so that (s1 +- s2)^2 = |C|^2 +- 2 det C
    size, volume = sum(e**2 for e in block), block.det()
    total, spread = sp.sqrt(sp.expand(size + 2 * volume)), sp.sqrt(sp.factor(size - 2 * volume))
    spread_slope = sp.limit(spread / eps, eps, 0, "+")
    symmetric, skew = (Q + Q.T) / 2, (Q - Q.T) / 2
    shift, gap = symmetric.trace() / 2, sp.sqrt(symmetric.trace() ** 2 / 4 - symmetric.det())
    splits = [(sp.cancel(_first_order(total)) + side * spread_slope) / 2 for side in (1, -1)]
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
        _first_order(rotation) - skew / s,
        split,
        a - k / (2 * s),
        b - k / (2 * s),
        core - sp.diff(f, s) * sp.diag(l_1, l_2) - f / s * k * turn,
    ], {"high": splits[0], "low": splits[1]}


@_derives(
    "printed-degenerate-block",
    "A = B = K/(2s) in a degenerate block with modes outside it (what is left turns U and V alike: vectors differ, "
    "products U f(S) V^T do not)",
    "paper Eq. 55",
    holds=False,
)
def _printed_degenerate_block() -> _Parts:
    a, b, _ = _degenerate_pair(outside=True)
    k = sp.Symbol("k", real=True)
    return [a - k / (2 * s), b - k / (2 * s)], {"A": a, "B": b}


@_derives(
    "spectral-derivative",
    "d(U f(S) V^T) = U [G1 o sym(Q) + G2 o skew(Q)] V^T + U_perp U_perp^T E V (f/S) V^T, G1 = (f_j - f_k)/(s_j - s_k), "
    "G2 = (f_j + f_k)/(s_j + s_k), with f'(s) and f/s where values meet",
    "Daleckii-Krein; paper Eqs. 57-58",
)
def _spectral_derivative() -> _Parts:
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


@_derives(
    "loss-influence",
    "the loss l = |y - W x|^2 / 2 of a query changes by r^T dW x with r = W x - y",
    "paper Eq. 59",
)
def _loss_influence() -> _Parts:
    weights, change, x, y = _matrix("w", 2, 2), _matrix("e", 2, 2), _matrix("x", 2, 1), _matrix("y", 2, 1)
    residual = y - (weights + eps * change) * x
    return [_first_order((residual.T * residual)[0] / 2) - ((weights * x - y).T * change * x)[0]], {}


# --- mixtures, posteriors, phases -------------------------------------------------------------------------------------


def _mixture(n_phases: int) -> tuple[sp.Expr, sp.Expr]:
    """Return the covariance of a mixture from its moments, and the law of total covariance."""
    free = sp.symbols(f"pi_1:{n_phases}", positive=True)
    weights = [*free, 1 - sum(free)]
    mu, nu, within = (sp.symbols(f"{name}_1:{n_phases + 1}", real=True) for name in ("mu", "nu", "C"))
    product = sum(p * (cov + m * n) for p, cov, m, n in zip(weights, within, mu, nu, strict=True))
    first, second = (sum(p * m for p, m in zip(weights, means, strict=True)) for means in (mu, nu))
    pairs = [(k, m) for k in range(n_phases) for m in range(k + 1, n_phases)]
    between = sum(weights[k] * weights[m] * (mu[k] - mu[m]) * (nu[k] - nu[m]) for k, m in pairs)
    return product - first * second, sum(p * cov for p, cov in zip(weights, within, strict=True)) + between


@_derives(
    "total-covariance",
    "Cov = sum_k pi_k Cov_k + sum_{k<l} pi_k pi_l (mu_ik - mu_il)(mu_jk - mu_jl), for two and three phases",
    "paper appendix A",
)
def _total_covariance() -> _Parts:
    derived = {n: _mixture(n) for n in (2, 3)}
    return [moments - law for moments, law in derived.values()], {"two": derived[2][0], "three": derived[3][0]}


def _extremum() -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """Return the weight at which two phases' total covariance is stationary, and the terms it depends on."""
    weight, mu_1, mu_2, nu_1, nu_2, cov_1, cov_2 = sp.symbols("pi_1 mu_1 mu_2 nu_1 nu_2 C_1 C_2")
    moments = _mixture(2)[0].xreplace({x: sp.Symbol(x.name) for x in _mixture(2)[0].free_symbols})
    stationary = sp.solve(sp.diff(moments, weight), weight)[0]
    product = (mu_1 - mu_2) * (nu_1 - nu_2)
    return stationary - sp.Rational(1, 2), (cov_1 - cov_2) / (2 * product), sp.diff(moments, weight, 2) + 2 * product


@_derives(
    "mixture-extremum",
    "the total is stationary at pi_U = 1/2 + (Cov_U - Cov_V)/(2 d_i d_j) with curvature -2 d_i d_j",
    "corrects paper section 2.3",
)
def _mixture_extremum() -> _Parts:
    offset, stated, curvature = _extremum()
    return [offset - stated, curvature], {"offset": offset}


@_derives(
    "printed-mixture-extremum",
    "the total peaks where the between-phase term does, at pi_U = 1/2",
    "paper section 2.3",
    holds=False,
)
def _printed_extremum() -> _Parts:
    return [_extremum()[0]], {}


@_derives(
    "sgld-variance",
    "w <- (1 - eps h / 2) w + sqrt(eps) xi has variance 1 / (h (1 - eps h / 4)), finite for eps h < 4",
    "Euler step of Langevin dynamics",
)
def _sgld_variance() -> _Parts:
    w, xi, variance = sp.symbols("w xi variance")
    step = sp.Poly(sp.expand((w - eps / 2 * h * w + sp.sqrt(eps) * xi) ** 2), w, xi)
    moments = {(2, 0): variance, (0, 2): sp.Integer(1), (1, 1): sp.Integer(0)}
    after = sum(coefficient * moments[powers] for powers, coefficient in step.terms())
    stationary = sp.solve(after - variance, variance)[0]
    contraction = sp.diff(after, variance)
    edge = sp.solve(contraction - 1, eps)
    return [stationary - 1 / (h * (1 - eps * h / 4)), edge[0] - 4 / h], {"variance": stationary}


@_derives(
    "free-energy",
    "F(beta) = -ln int exp(-(n_beta/N) sum_i beta_i l_i - gamma w^2 / 2) dw of quadratic losses has "
    "dF/dbeta_i = (n_beta/N) E[l_i], d2F/dbeta_i dbeta_j = -(n_beta/N)^2 Cov(l_i, l_j), and "
    "Cov = g_i Sigma g_j + h_i Sigma h_j Sigma / 2",
    "paper section 2.2",
)
def _free_energy() -> _Parts:
    w, e, pull, mean, variance = sp.symbols("w e pull mean variance", real=True)
    gamma, ratio, precision = sp.symbols("gamma ratio precision", positive=True)
    beta, curvature = sp.symbols("beta_1:3", positive=True), sp.symbols("h_1:3", positive=True)
    losses = [b * w + a * w**2 / 2 for a, b in zip(curvature, sp.symbols("b_1:3", real=True), strict=True)]
    energy = ratio * sum(x * loss for x, loss in zip(beta, losses, strict=True)) + gamma * w**2 / 2
    baseline = {precision: sp.diff(energy, w, 2), pull: -sp.diff(energy, w).subs(w, 0)}  # both affine in beta
    partition = sp.integrate(sp.exp(-precision * w**2 / 2 + pull * w), (w, -sp.oo, sp.oo))
    free = -sp.expand_log(sp.log(partition), force=True)

    def along(weight: sp.Symbol, expression: sp.Expr) -> sp.Expr:
        return sum(sp.diff(expression, x) * sp.diff(affine, weight) for x, affine in baseline.items())

    def expectation(expression: sp.Expr) -> sp.Expr:
        moments = [1, 0, variance, 0, 3 * variance**2]  # of e = w - mean
        terms = sp.Poly(sp.expand(expression.subs(w, mean + e)), e).terms()
        value = sum(coefficient * moments[power] for (power,), coefficient in terms)
        return value.subs({mean: pull / precision, variance: 1 / precision})

    first, second = losses
    covariance = sp.factor(expectation(first * second) - expectation(first) * expectation(second))
    slopes = [sp.diff(loss, w).subs(w, pull / precision) for loss in losses]
    gaussian_limit = slopes[0] * slopes[1] / precision + curvature[0] * curvature[1] / precision**2 / 2
    return [
        along(beta[0], free) - ratio * expectation(first),
        along(beta[0], along(beta[1], free)) + ratio**2 * covariance,
        covariance - gaussian_limit,
    ], {"free_energy": free.subs(baseline), "covariance": covariance.subs(baseline)}


@_derives(
    "singular-monomial",
    "K = w^{2k} under exp(-n K) has n E[K] = Var(n K) = 1/(2k)",
    "Watanabe 2009, learning coefficient 1/(2k)",
)
def _singular_monomial() -> _Parts:
    n, k, x = sp.symbols("n k x", positive=True)  # x = n w^{2k}, on w > 0
    density = sp.exp(-x) * sp.diff((x / n) ** (1 / (2 * k)), x)
    moments = [sp.integrate(sp.powsimp(x**m * density), (x, 0, sp.oo)) for m in range(3)]
    mean, square = (sp.gammasimp(m / moments[0]) for m in moments[1:])
    return [mean - 1 / (2 * k), square - mean**2 - 1 / (2 * k), sp.diff(-sp.log(moments[0]), n) - mean / n], {}


@_derives(
    "transition-sample-size",
    "two phases exchange where ln(n)/n = c, c = -dL/dlambda, with n = exp(-W(-c)) on either real branch of the Lambert "
    "function; ln(n)/n peaks at n = e with 1/e, so c < 1/e",
    "paper appendix A",
)
def _transition() -> _Parts:
    n, root = sp.Symbol("n", positive=True), sp.Symbol("W", real=True)
    loss_u, loss_v, lambda_u, lambda_v = sp.symbols("L_U L_V lambda_U lambda_V")
    log_n = sp.Symbol("log_n")
    exchange = sp.solve(n * (loss_v - loss_u) + log_n * (lambda_v - lambda_u), log_n)[0] / n
    size = sp.exp(-root)  # W is any real number with W e^W = -c
    peak = sp.solve(sp.diff(sp.log(n) / n, n), n)[0]
    return [
        exchange + (loss_v - loss_u) / (lambda_v - lambda_u),
        (sp.log(n) / n).subs(n, size) - (-root * sp.exp(root)),
        peak - sp.E,
        (sp.log(n) / n).subs(n, peak) - sp.exp(-1),
    ], {"n": sp.exp(-sp.LambertW(-c, -1))}
