"""Sequences whose second half repeats the first, to see a model copy and nothing else (paper D.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from theory import checks

__all__ = ["RepeatedSequences", "repeated_sequences"]


@dataclass(frozen=True, eq=False)
class RepeatedSequences:
    """Sequences A B ... A B ... and which of their predictions copying can make.

    Parameters
    ----------
    ids
        Shape (N, 2 P) for a period P.
    """

    ids: Int[np.ndarray, "n j"]

    @property
    def period(self) -> int:
        """Length P of the half that is repeated."""
        return self.ids.shape[1] // 2

    @property
    def repeated(self) -> Bool[np.ndarray, "n j"]:
        """Which of the 2 P - 1 predictions a copy of the first half makes right, shape (N, 2 P - 1).

        The first token of the second half is none of them: nothing before it says that the repetition begins.
        """
        return np.broadcast_to(np.arange(1, self.ids.shape[1]) > self.period, (len(self.ids), self.ids.shape[1] - 1))

    @property
    def fresh(self) -> Bool[np.ndarray, "n j"]:
        """Which predictions are of tokens of the first half, which nothing predicts, shape (N, 2 P - 1)."""
        return np.broadcast_to(np.arange(1, self.ids.shape[1]) < self.period, (len(self.ids), self.ids.shape[1] - 1))

    @property
    def sequence(self) -> Int[np.ndarray, "n j"]:
        """The number of the sequence of every prediction, shape (N, 2 P - 1)."""
        return np.broadcast_to(np.arange(len(self.ids))[:, None], (len(self.ids), self.ids.shape[1] - 1))


def repeated_sequences(
    count: int, period: int, vocabulary: int | ArrayLike, *, seed: int = 0, share_tokens: bool = False
) -> RepeatedSequences:
    """Return sequences of random tokens whose second half repeats the first.

    Parameters
    ----------
    count, period
        Number of sequences N, and length P of the half that is repeated.
    vocabulary
        Number of tokens, or the ids to choose from.
    seed
        Of the choice.
    share_tokens
        Whether different sequences may hold the same token; not if not given, as in the paper. Within a half no token
        stands twice either way.

    Raises
    ------
    ValueError
        If there are too few tokens.

    Examples
    --------
    >>> repeated_sequences(2, 3, 10).ids.tolist()
    [[4, 6, 2, 4, 6, 2], [7, 3, 5, 7, 3, 5]]
    >>> repeated_sequences(4, 3, 10)
    Traceback (most recent call last):
    ...
    ValueError: 4 sequences of period 3 that share no token need 12 distinct tokens, but there are 10; ask for ...
    """
    count, period = checks.integer("count", count, at_least=1), checks.integer("period", period, at_least=2)
    if np.ndim(vocabulary) == 0:
        choice = np.arange(checks.integer("vocabulary", vocabulary, at_least=1))  # type: ignore[arg-type]
    else:
        choice = np.unique(np.asarray(vocabulary, dtype=np.int64))
    needed = period if share_tokens else count * period
    if needed > len(choice):
        how = "" if share_tokens else f"{count} sequences of period {period} that share no token need "
        how = how or f"a half of {period} different tokens needs "
        advice = "" if share_tokens else ", or use share_tokens=True"
        raise ValueError(
            f"{how}{needed} distinct tokens, but there are {len(choice)}; ask for fewer or shorter sequences{advice}."
        )
    generator = np.random.default_rng(checks.integer("seed", seed, at_least=0))
    if share_tokens:
        half = np.stack([generator.permutation(choice)[:period] for _ in range(count)])
    else:
        half = generator.permutation(choice)[:needed].reshape(count, period)
    return RepeatedSequences(np.concatenate([half, half], axis=1).astype(np.int64))
