r"""Products and quotients whose intermediate results may leave the range of doubles while their value does not.

.. math:: \frac{a_1 \cdots a_m}{b_1 \cdots b_n} = 2^{\sum e} \frac{\prod m(a_i)}{\prod m(b_j)} , \qquad
    x = m(x)\, 2^{e(x)}, \quad \tfrac12 \le |m| < 1 .
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

__all__ = ["product"]


def product(*factors: ArrayLike, over: tuple[ArrayLike, ...] = ()) -> Float[np.ndarray, "..."]:
    """Return the product of `factors` divided by each of `over`, relative error one eps a factor, broadcast.

    A value beyond the range of doubles becomes infinite or, gradually, zero; only the value, no intermediate result.

    Examples
    --------
    >>> product(1e200, 1e200, over=(1e300,))
    array(1.e+100)
    """
    mantissa, exponent = np.asarray(1.0), np.asarray(0)
    with np.errstate(all="ignore"):
        for factor in factors:
            m, e = np.frexp(factor)
            mantissa, shift = np.frexp(mantissa * m)
            exponent = exponent + e + shift
        for divisor in over:
            m, e = np.frexp(divisor)
            mantissa, shift = np.frexp(mantissa / m)
            exponent = exponent - e + shift
        return np.asarray(np.ldexp(mantissa, exponent))
