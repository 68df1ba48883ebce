"""How the chains of a module are evaluated: many in one call or one by one, and how many samples at a time.

What decides is what one chain's losses and gradient write to memory. As long as all of it stays in cache, many chains
in one call cost little more than one; beyond that, one chain after the other is faster, and samples go in chunks where
even one chain's would not fit in memory. Nothing is timed: the same call takes the same way on every machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from numerics.models.evaluation import ways_of
from numerics.models.module import TorchModel
from numerics.models.samples import Samples

__all__ = ["Engine", "engine_of"]

_CHAINS_TOGETHER = 104  # enough to hide the cost of calls, few enough for their state to stay in cache
_NUMBERS_TOGETHER = 2**22  # that the chains of one call may write: 16 MB in float32
_NUMBERS_ON_DEVICE = 2**28  # the same on another device, which is idle unless it has all there is: 1 GB
_NUMBERS_AT_ONCE = 2**27  # that one call may write before its samples go in chunks: 512 MB in float32
_ENOUGH = 64  # samples that tell what more of them will write


class Engine(NamedTuple):
    """How chains are evaluated.

    Parameters
    ----------
    name
        In words, for attributes.
    together
        Chains in one call.
    rows
        Samples in one call.
    """

    name: str
    together: int
    rows: int


def engine_of(model: TorchModel, weights: Float[torch.Tensor, " d"], samples: Samples, n: int) -> Engine:
    """Return how chains of the model are evaluated, each with gradients of `n` of the samples.

    Examples
    --------
    >>> samples = Samples(torch.ones(2, 3), torch.ones(2, 4))
    >>> engine_of(TorchModel(torch.nn.Linear(3, 4)), torch.zeros(16), samples, 2).together
    104
    """
    few = samples[: min(n, _ENOUGH)].like(weights)
    model.evaluated(weights, few)
    a_sample = max(_Written.by(model, weights, few) // len(few), 1)
    on_cpu = weights.device.type == "cpu"
    numbers, most = (_NUMBERS_TOGETHER, _CHAINS_TOGETHER) if on_cpu else (_NUMBERS_ON_DEVICE, _NUMBERS_ON_DEVICE)
    together = min(numbers // max(a_sample * n, len(weights)), most)
    if together < 2:
        name, together = "chain by chain", 1
    elif ways_of(model, weights, few).weights == "loop":
        name, together = "chain by chain, for lack of vmap", 1
    else:
        name = "vmap"
    return Engine(name, together, max(1, _NUMBERS_AT_ONCE // (a_sample * together)))


class _Written(TorchDispatchMode):
    """Counts the numbers in all results of tensor operations that are not views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @classmethod
    def by(cls, model: TorchModel, weights: Float[torch.Tensor, " d"], samples: Samples) -> int:
        """Return how many numbers the losses and their gradient write."""
        leaf = weights.detach().clone().requires_grad_()
        with torch.enable_grad(), cls() as mode:
            torch.autograd.grad(model.losses(leaf, samples).sum(), leaf, materialize_grads=True)
        return mode.count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in given:
                self.count += leaf.numel()
        return result
