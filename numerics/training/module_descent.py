r"""Descent of any torch module on the mean of its weighted losses.

.. math:: w \leftarrow w - \eta \nabla \frac1N \sum_i \beta_i \ell_i(w) .

A linear network given as a module takes the steps of `LinearDescent` if its learning rate is 2 / O times as large.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch.func import vmap

from numerics.models.checkpoints import ModuleCheckpoints, refuse_masked
from numerics.models.module import TorchModel
from numerics.models.samples import Samples
from numerics.training.descent import Descent, State, distinct_seeds, on_cpu
from theory import checks

__all__ = ["ModuleDescent"]


class ModuleDescent(Descent):
    """Descent of any torch module. The state is the flat weights, (runs, d), in the module's dtype and on its device.

    Parameters
    ----------
    model
        The module and its loss for every sample.
    samples, queries
        Training set and the samples whose losses are asked for.
    lr
        Learning rate on L.
    initial
        Initial weights, shape (d,), or (seeds, d) with `seeds`; those the module holds if neither is given.
    seeds
        A run for each: of initial weights drawn by the module's layers themselves, if none are given.

    Raises
    ------
    ValueError
        If the model cannot read the samples, or a weight or loss is not finite at the start.
    """

    def __init__(
        self,
        model: TorchModel,
        samples: Samples,
        queries: Samples,
        lr: float,
        *,
        initial: ArrayLike | torch.Tensor | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        weights = _initial_weights(model, initial, seeds)
        super().__init__(samples.like(weights), queries.like(weights), (weights,))
        self.model, self.rate = model, lr
        for run in weights:
            at_start = ModuleCheckpoints(np.array([0.0]), model, run[None])
            at_start.check_fits(self.samples)
            at_start.check_fits(self.queries)

    def step(self, state: State, beta: Float[np.ndarray, "runs n"]) -> Callable[[], None]:
        """Return a function that advances `state` in place by one epoch with sample weights `beta`."""
        (weights,) = state
        share = torch.tensor(beta / len(self.samples), dtype=weights.dtype, device=weights.device)
        losses = vmap(lambda w: self.model.losses(w, self.samples))

        @torch.enable_grad()
        def advance() -> None:
            # Runs do not touch one another, so the gradient of the summed risk holds that of every run.
            leaf = weights.detach().requires_grad_()
            (gradient,) = torch.autograd.grad((losses(leaf) * share).sum(), leaf)
            weights.sub_(gradient, alpha=self.rate)

        return advance

    def losses(self, state: State) -> Float[torch.Tensor, "runs m"]:
        """Return the loss of every query in every run."""
        return vmap(lambda w: self.model.losses(w, self.queries))(state[0])

    def checkpoints(self, epochs: np.ndarray, states: State) -> ModuleCheckpoints:
        """Return what a run passed through."""
        return ModuleCheckpoints(epochs, self.model, states[0])

    def threads(self) -> AbstractContextManager[None]:
        """Return a context that leaves threads as they are: a module may be large enough to use them."""
        return nullcontext()


def _initial_weights(
    model: TorchModel, initial: ArrayLike | torch.Tensor | None, seeds: Sequence[int] | None
) -> Float[torch.Tensor, "runs d"]:
    held = model.initial()
    if initial is None:
        return held[None] if seeds is None else torch.stack([_redrawn(model, s) for s in distinct_seeds(seeds)])
    refuse_masked("initial", initial)
    given = checks.array("initial", on_cpu(initial))
    wanted = held.shape if seeds is None else (len(distinct_seeds(seeds)), len(held))
    if given.shape != wanted:
        raise ValueError(
            f"initial has shape {given.shape}, but the module has {len(held)} parameters: {tuple(wanted)} is needed."
        )
    return torch.tensor(given.reshape(-1, len(held)), dtype=held.dtype, device=held.device)


def _redrawn(model: TorchModel, seed: int) -> Float[torch.Tensor, " d"]:
    """Return initial weights drawn anew by every layer's own ``reset_parameters``, from `seed` alone.

    Drawn on the CPU whatever the device, so that a seed means the same weights everywhere.

    Raises
    ------
    ValueError
        If a layer holds parameters and has no ``reset_parameters``.
    """
    module = copy.deepcopy(model.module).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, layer in module.named_modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
            elif any(True for _ in layer.parameters(recurse=False)):
                raise ValueError(
                    f"layer {name!r} ({type(layer).__name__}) holds parameters but has no reset_parameters(), so a "
                    "seed cannot redraw it; give the initial weights of every seed instead."
                )
    return torch.cat([p.flatten() for p in module.parameters()]).to(model.initial().device)
