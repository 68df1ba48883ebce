r"""Training with a weight for every part of a sample: tokens, pixels or outputs left out one by one.

.. math:: L(w; \beta) = \frac1N \sum_i \frac1{k_i} \sum_k \beta_{ik} \ell_{ik}(w) .

The weights go along as targets, so that whatever trains on samples trains on weighted parts: mini-batches, optimisers
and masks are the same. A part that is absent has no weight.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from numerics.models.module import TorchModel
from numerics.models.queries import Queries
from numerics.models.samples import Parts, Samples
from theory.hierarchy import Dataset

__all__ = ["PartWeights", "part_positions", "refuse_without_model"]


@dataclass(frozen=True, eq=False)
class PartWeights:
    """What is trained on instead of samples where their parts have weights.

    Parameters
    ----------
    samples
        Training set.
    parts
        All its parts.
    """

    samples: Samples
    parts: Parts

    @classmethod
    def of(cls, dataset: Dataset | Samples, sources: Parts) -> PartWeights:
        """Return it for parts named as those of the sources."""
        samples = Samples.of(dataset)
        return cls(samples, Parts(samples, sources.names))

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self.parts)

    def weighted(self, beta: Float[np.ndarray, " m"]) -> Samples:
        """Return the samples with the weights of their parts among the targets."""
        assert not isinstance(self.parts.names, int)
        weights = torch.ones(len(self.samples), len(self.parts.names), dtype=torch.float64)
        weights[torch.as_tensor(self.parts.sample), torch.as_tensor(self.parts.part)] = torch.tensor(beta)
        return _with_weights(self.samples, weights)

    @staticmethod
    def model(model: TorchModel) -> TorchModel:
        """Return the model whose loss multiplies those of parts by their weights."""
        held = model.loss if isinstance(model.loss, functools.partial) else functools.partial(model.loss)
        return model.with_loss(functools.partial(_weighted, held.func, *held.args, **held.keywords))

    @staticmethod
    def queries(queries: Queries) -> Queries:
        """Return the queries as that model reads them: losses with all weights 1, other measures as they are."""
        about = [
            query
            if query.measure is not None
            else replace(query, samples=_with_weights(query.samples, torch.ones(len(query), 1, dtype=torch.float64)))
            for query in queries.about
        ]
        return Queries(tuple(about), queries.functions)


def part_positions(dataset: Dataset | Samples, sources: Parts) -> Int[np.ndarray, " n"]:
    """Return where parts stand among all parts of a data set, refusing those that it does not have."""
    places = {label: k for k, label in enumerate(PartWeights.of(dataset, sources).parts.labels)}
    for name, part in sources.labels:
        dataset.index(name)
        if (name, part) not in places:
            raise ValueError(f"part {part!r} of sample {name!r} is absent from the data set, so it has no weight.")
    return np.array([places[label] for label in sources.labels])


def _with_weights(samples: Samples, weights: torch.Tensor) -> Samples:
    return Samples(samples.inputs, (samples.targets, weights), samples.names, samples.present)


def _weighted(loss: Any, *arguments: Any, **keywords: Any) -> torch.Tensor:
    """Return the losses of parts times their weights, which are the last of the targets."""
    *first, outputs, (targets, weights) = arguments
    losses = loss(*first, outputs, targets, **keywords)
    if losses.ndim != 2:
        raise ValueError(
            f"the loss returned shape {tuple(losses.shape)}, but weights of parts need one number for each part, "
            "(n, k); let it return the losses of the parts, not their mean."
        )
    return losses * weights


def refuse_without_model(model: TorchModel | None, fit: object, sources: Sequence[str] | Parts | None) -> None:
    """Refuse parts as sources where nothing of ours is trained that has parts."""
    if not isinstance(sources, Parts):
        return
    if fit is not None:
        raise TypeError(
            "fit takes weights of samples, but Parts were given as sources; give model= and config, or names of "
            "samples."
        )
    if model is None:
        raise TypeError("Parts were given as sources, which a linear network's losses do not have; give model=.")
