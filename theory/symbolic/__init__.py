r"""The closed forms of this package, derived by computer algebra from what defines them.

Each derivation starts from a differential equation, a factorisation or a moment, solves or differentiates it exactly,
and subtracts the formula in use; it holds if the remainder simplifies to zero. Two printed formulas of the paper leave

.. math:: A_{jk} + A_{kj} = \frac{Q_{jk} - Q_{kj}}{s_k - s_j} \ne 0 ,

although A = U^T dU is antisymmetric: these errata are derivations too, with a remainder that must not vanish.
"""

from theory.symbolic import dynamics, posteriors, response
from theory.symbolic.registry import (
    Derivation,
    derivation,
    derivation_names,
    derivation_report,
    derivations,
    vanishes,
)

__all__ = [
    "Derivation",
    "derivation",
    "derivation_names",
    "derivation_report",
    "derivations",
    "dynamics",
    "posteriors",
    "response",
    "vanishes",
]
