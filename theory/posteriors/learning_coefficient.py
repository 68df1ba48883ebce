r"""Learning coefficients of singular models in exact fractions: deep linear networks and monomials.

The free energy of n samples grows like :math:`\lambda \log n - (m - 1) \log\log n`, so that
:math:`\int e^{-n K(w)} \varphi(w)\, dw` decays like :math:`n^{-\lambda} (\log n)^{m-1}`: lambda is the learning
coefficient (half the effective number of parameters) and m its multiplicity.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from theory import checks

__all__ = ["learning_coefficient", "monomial_learning_coefficient"]


def learning_coefficient(widths: Sequence[int] | np.ndarray, rank: int) -> tuple[Fraction, int]:
    r"""Return learning coefficient and multiplicity of a deep linear network (Aoyagi 2024).

    The network :math:`W_L \cdots W_1` without biases learns a map of rank r under squared loss, from inputs of full
    rank and a prior that is positive at the solutions. With :math:`M_s = H_s - r` in ascending order, let the first
    :math:`\ell + 1` of them be the longest run in which the sum is at least :math:`\ell` times the last; S is that sum,
    and :math:`a = S - (\lceil S / \ell \rceil - 1)\, \ell`. Then

    .. math::
        \lambda = \frac{r (H_0 + H_L) - r^2}{2} + \frac{a (\ell - a)}{4 \ell} - \frac{\ell - 1}{4 \ell} S^2
        + \frac12 \sum_{i < j \le \ell + 1} M_i M_j, \qquad m = a (\ell - a) + 1 .

    Parameters
    ----------
    widths
        H_0, ..., H_L: inputs, hidden layers, outputs. At least two, each at least 1.
    rank
        Rank r of the true map, from 0 to the smallest width.

    Returns
    -------
    tuple[Fraction, int]
        lambda, a multiple of 1/2, and m >= 1. The order of the hidden widths does not matter.

    Raises
    ------
    ValueError
        If there are fewer than two widths, one is below 1, or no network of these widths has that rank.
    TypeError
        If widths or rank are not whole numbers.

    Examples
    --------
    >>> learning_coefficient((2, 2, 2), rank=1)
    (Fraction(2, 1), 2)
    >>> learning_coefficient((8, 50, 15), rank=7)
    (Fraction(60, 1), 1)
    """
    sizes = _whole_numbers("widths", widths, at_least=1)
    if len(sizes) < 2:
        raise ValueError(f"widths must name at least the inputs and the outputs, but only {sizes} was given.")
    r = checks.integer("rank", rank, at_least=0)
    if r > min(sizes):
        raise ValueError(f"rank {r} is more than the smallest width {min(sizes)}, so no such network reaches it.")
    excess = sorted(size - r for size in sizes)
    count = max(k for k in range(2, len(excess) + 1) if sum(excess[:k]) >= (k - 1) * excess[k - 1])
    ell, total = count - 1, sum(excess[:count])
    a = total - (-(-total // ell) - 1) * ell
    pairs = total**2 - sum(m**2 for m in excess[:count])  # twice the sum over i < j
    coefficient = (
        Fraction(r * (sizes[0] + sizes[-1]) - r**2, 2)
        + Fraction(a * (ell - a), 4 * ell)
        - Fraction((ell - 1) * total**2, 4 * ell)
        + Fraction(pairs, 4)
    )
    return coefficient, a * (ell - a) + 1


def monomial_learning_coefficient(k: Sequence[int] | np.ndarray, h: Sequence[int] | np.ndarray) -> tuple[Fraction, int]:
    r"""Return learning coefficient and multiplicity of a monomial, the normal crossing every model resolves to.

    For :math:`K(w) = \prod_j w_j^{2 k_j}` and the prior :math:`\prod_j |w_j|^{h_j}` near the origin,

    .. math:: \lambda = \min_j \frac{h_j + 1}{2 k_j}, \qquad m = \#\{j : \text{the minimum is attained}\} .

    Parameters
    ----------
    k
        Whole exponents k_j >= 0, shape (d,), not all zero. A coordinate with k_j = 0 does not enter K and is never the
        minimiser.
    h
        Whole exponents h_j >= 0, shape (d,).

    Raises
    ------
    ValueError
        If the lengths differ, an exponent is negative, or every k_j is zero.
    TypeError
        If an exponent is not a whole number.

    Examples
    --------
    >>> monomial_learning_coefficient(k=[1, 1], h=[0, 0])
    (Fraction(1, 2), 2)
    >>> monomial_learning_coefficient(k=[1, 3], h=[0, 1])
    (Fraction(1, 3), 1)
    """
    powers, prior = _whole_numbers("k", k, at_least=0), _whole_numbers("h", h, at_least=0)
    if len(powers) != len(prior):
        raise ValueError(f"k has {len(powers)} exponents but h has {len(prior)}; give one of each a coordinate.")
    if not any(powers):
        raise ValueError("every k_j is zero, so K is 1 everywhere and has no zero to learn; give a positive exponent.")
    ratios = [Fraction(h_j + 1, 2 * k_j) for k_j, h_j in zip(powers, prior, strict=True) if k_j > 0]
    return min(ratios), ratios.count(min(ratios))


def _whole_numbers(name: str, value: Sequence[int] | np.ndarray, *, at_least: int) -> list[int]:
    numbers = checks.plain(name, value)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(f"{name} must be a non-empty list of whole numbers, but its shape is {numbers.shape}.")
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold whole numbers, but its dtype is {numbers.dtype}.")
    if numbers.min() < at_least:
        raise ValueError(f"every entry of {name} must be at least {at_least}, but the smallest is {numbers.min()}.")
    return [int(number) for number in numbers]
