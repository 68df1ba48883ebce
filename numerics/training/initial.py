"""Where the training of a module starts: weights given, drawn from seeds, or held; and whether these look new."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from numerics.errors import TrainedWeightsWarning
from numerics.models.checkpoints import refuse_masked
from numerics.models.module import TorchModel
from numerics.models.samples import Samples
from numerics.models.trees import mapped
from numerics.training.descent import distinct_seeds, on_cpu
from theory import checks

__all__ = ["initial_weights_of", "warn_if_trained"]

_TRIED, _SHIFTS = 256, 8


def initial_weights_of(
    model: TorchModel, initial: ArrayLike | torch.Tensor | None, seeds: Sequence[int] | None
) -> Float[torch.Tensor, "runs d"]:
    """Return the initial weights of every run: given, drawn from seeds, or those that the module holds.

    Raises
    ------
    ValueError
        If those given do not fit, or a layer cannot draw its own.
    """
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
    drawn = dict(module.named_parameters())
    return torch.cat([drawn[name].detach().flatten() for name in model.free]).to(model.initial().device)


@torch.no_grad()
def warn_if_trained(model: TorchModel, data: Samples) -> None:
    """Warn if the weights that the module holds know the targets already, so that training from them is no retraining.

    New weights have about the same loss if every sample is given the target of another; trained ones a far larger one.
    The module of a finished training loop is easily handed over by mistake. Losses that can be negative are not judged.

    Examples
    --------
    >>> data = Samples(torch.eye(4), torch.eye(4))
    >>> warn_if_trained(TorchModel(torch.nn.Linear(4, 4)), data)
    """
    weights = model.initial()
    few = data[: min(len(data), _TRIED)].like(weights)
    if len(few) < 2:
        return
    others = []
    try:
        own = model.losses(weights, few)
        for shift in range(1, min(len(few) - 1, _SHIFTS) + 1):
            present = None if few.present is None else few.present.roll(shift, 0)
            targets = mapped(partial(torch.roll, shifts=shift, dims=0), few.targets)
            others.append(model.losses(weights, replace(few, targets=targets, present=present)))
    except (RuntimeError, ValueError, IndexError, TypeError):  # what does not fit is refused elsewhere
        return
    foreign = torch.stack(others)
    if float(own.min()) < 0 or float(foreign.min()) < 0 or not torch.isfinite(foreign).all():
        return
    if float(own.mean()) < float(foreign.mean()) / 2:
        warnings.warn(
            f"retraining starts from the weights that the module holds, and they look trained: the mean loss is "
            f"{float(own.mean()):.3g}, but {float(foreign.mean()):.3g} with the targets of other samples. Give the "
            "weights that training started from as initial=, or seeds= to draw new ones; initial=model.initial() says "
            "that these are meant.",
            TrainedWeightsWarning,
            stacklevel=4,
        )
