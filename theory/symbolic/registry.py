"""What a derivation is, how it is decided whether its remainder is zero, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import sympy as sp
from sympy.core.evalf import PrecisionExhausted
from sympy.core.function import AppliedUndef

from theory import checks

__all__ = [
    "Derivation",
    "Parts",
    "as_fraction",
    "derivation",
    "derivation_names",
    "derivation_report",
    "derivations",
    "derives",
    "vanishes",
]

# Matrices and expressions of sympy carry no types; parts are the remainders and the named formulas of a derivation.
Parts = tuple[list[Any], dict[str, Any]]
_BINDERS = (sp.Integral, sp.Sum, sp.Product, sp.Limit, sp.Subs)


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
    if as_fraction(expression) == 0:
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


def as_fraction(expression: sp.Expr) -> sp.Expr:
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


def derives(
    name: str, statement: str, source: str, *, holds: bool = True
) -> Callable[[Callable[[], Parts]], Callable[[], Parts]]:
    """Register a function that returns remainders and formulas; it runs when the derivation is first asked for."""

    def register(function: Callable[[], Parts]) -> Callable[[], Parts]:
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
