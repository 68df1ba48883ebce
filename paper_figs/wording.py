"""How captions say what was measured: orders, shares and epochs in words that follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["describe_order", "describe_runs", "in_words", "panels_in_words"]


def in_words(parts: Sequence[str]) -> str:
    """Join parts by commas and a last "and".

    Examples
    --------
    >>> in_words(["plants", "birds", "cat"])
    'plants, birds and cat'
    """
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def panels_in_words(letters: str) -> str:
    """Name the panels.

    Examples
    --------
    >>> panels_in_words("ab"), panels_in_words("abcd"), panels_in_words("a")
    ('(a, b)', '(a-d)', '(a)')
    """
    return f"({letters[0]}-{letters[-1]})" if len(letters) > 2 else f"({', '.join(letters)})"


def describe_runs(runs: Sequence[tuple[float, float]]) -> str:
    """Say at which epochs something holds.

    Examples
    --------
    >>> describe_runs([(3900, 4300), (5600, 5600)])
    'epochs 3900-4300 and 5600'
    """
    if not runs:
        return "no epoch"
    words = in_words([f"{a:.0f}" if a == b else f"{a:.0f}-{b:.0f}" for a, b in runs])
    return f"{'epoch' if words.isdigit() else 'epochs'} {words}"


def describe_order(values: Mapping[str, float], unit: str = "epochs") -> str:
    """Say at which epochs named things come, and whether in the order in which they are given.

    Examples
    --------
    >>> describe_order({"plants": 2100, "birds": 3000})
    'in the order plants, birds (epochs 2100, 3000)'
    >>> describe_order({"plants": 3100, "birds": 3000})
    'not in the order plants, birds (epochs 3100, 3000)'
    """
    numbers = np.array(list(values.values()), dtype=float)
    holds = bool(np.all(np.diff(numbers) > 0))
    listed = ", ".join("none" if np.isnan(number) else f"{number:.0f}" for number in numbers)
    return f"{'in' if holds else 'not in'} the order {', '.join(values)} ({unit} {listed})"
