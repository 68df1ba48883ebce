r"""A corpus without text: half Markov chains, half random segments that repeat, made on the fly for every step.

The chain moves from each token to one of `successors` others; its entropy rate is the lowest loss it allows
(`theory.entropy_rate`). In the other half a random segment of random length is tiled, so that from its second
appearance on copying predicts every token: what induction heads are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int

from theory import checks

__all__ = ["SyntheticCorpus"]


@dataclass(frozen=True)
class SyntheticCorpus:
    """Sequences from a Markov chain, and tiled random segments.

    Parameters
    ----------
    vocabulary
        Number of tokens.
    length
        Ids a sequence: predictions + 1.
    successors
        Tokens that can follow each token, with probabilities uniform on the simplex.
    tiled
        Share of sequences that are tiled segments.
    shortest, longest
        Length of a segment.
    seed
        Of the chain and of all sequences.

    Examples
    --------
    >>> corpus = SyntheticCorpus(vocabulary=16, length=9, successors=2)
    >>> corpus.batch(0, 4).shape, bool((corpus.batch(3, 4) == corpus.batch(3, 4)).all())
    (torch.Size([4, 9]), True)
    """

    vocabulary: int = 256
    length: int = 65
    successors: int = 8
    tiled: float = 0.5
    shortest: int = 4
    longest: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("vocabulary", 2), ("length", 2), ("successors", 1), ("shortest", 1), ("longest", 1)):
            checks.integer(name, getattr(self, name), at_least=least)
        checks.integer("seed", self.seed, at_least=0)
        if self.successors > self.vocabulary:
            raise ValueError(f"{self.successors} successors cannot be chosen from {self.vocabulary} tokens.")
        if not 0 <= self.tiled <= 1:
            raise ValueError(f"tiled is a share of the sequences, from 0 to 1, but {self.tiled} was given.")
        if self.shortest > self.longest:
            raise ValueError(f"segments of {self.shortest} to {self.longest} tokens: the first must not be larger.")

    @cached_property
    def transition(self) -> Float[np.ndarray, "v v"]:
        """Probabilities of the chain, rows from each token, shape (V, V)."""
        generator = np.random.default_rng([self.seed, 0])
        matrix = np.zeros((self.vocabulary, self.vocabulary))
        weights = generator.dirichlet(np.ones(self.successors), size=self.vocabulary)
        for row, weight in zip(matrix, weights, strict=True):
            row[generator.choice(self.vocabulary, self.successors, replace=False)] = weight
        return matrix

    @cached_property
    def _cumulative(self) -> Float[np.ndarray, "v v"]:
        return np.cumsum(self.transition, axis=1) / self.transition.sum(axis=1, keepdims=True)

    def batch(self, step: int, size: int) -> Int[torch.Tensor, "b t"]:
        """Return the sequences of a training step, shape (size, length); the same step gives the same ones."""
        generator = np.random.default_rng([self.seed, 1, step])
        tiled = round(self.tiled * size)
        return torch.from_numpy(np.concatenate([self._tiles(generator, tiled), self._chains(generator, size - tiled)]))

    def _tiles(self, generator: np.random.Generator, size: int) -> Int[np.ndarray, "b t"]:
        period = generator.integers(self.shortest, self.longest + 1, size=(size, 1))
        segments = generator.integers(self.vocabulary, size=(size, self.longest))
        return np.take_along_axis(segments, np.arange(self.length) % period, axis=1)

    def _chains(self, generator: np.random.Generator, size: int) -> Int[np.ndarray, "b t"]:
        luck = generator.random((size, self.length))
        ids = np.empty((size, self.length), np.int64)
        ids[:, 0] = (luck[:, 0] * self.vocabulary).astype(np.int64)
        for k in range(1, self.length):
            below = self._cumulative[ids[:, k - 1]] <= luck[:, k, None]
            ids[:, k] = np.minimum(below.sum(axis=1), self.vocabulary - 1)
        return ids
