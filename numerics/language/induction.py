r"""How strongly each attention head copies: induction and previous-token scores (Olsson et al. 2022; paper D.2).

On a sequence of period P whose second half repeats the first, an induction head attends from position t of the second
half to t - P + 1, the token after the earlier appearance; a previous-token head attends from t to t - 1. A score is the
mean attention there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from numerics.language.repeated import RepeatedSequences
from numerics.models.checkpoints import ModuleCheckpoints
from theory.trajectories import labelled_array

__all__ = ["attention_patterns", "head_scores", "induction_scores"]

_TOGETHER = 2**26  # numbers of attention held at once: 256 MB in float32


def attention_patterns(
    module: torch.nn.Module, ids: Int[torch.Tensor, "n t"]
) -> Float[torch.Tensor, "layers n heads t t"]:
    """Return the attention patterns of a model: query positions along the next to last axis, keys along the last.

    Parameters
    ----------
    module
        A `CausalTransformer`, any module with a method ``attention_patterns(ids)``, or a model of transformers.
    ids
        Token ids, shape (n, T).

    Raises
    ------
    TypeError
        If the module gives no patterns.

    Examples
    --------
    >>> from numerics.language.transformer import CausalTransformer, TransformerConfig
    >>> patterns = attention_patterns(CausalTransformer(TransformerConfig()), torch.zeros(1, 3, dtype=torch.int64))
    >>> patterns.shape, torch.allclose(patterns.sum(-1), torch.ones(2, 1, 2, 3))
    (torch.Size([2, 1, 2, 3, 3]), True)
    """
    with torch.no_grad():
        if hasattr(module, "attention_patterns"):
            return module.attention_patterns(ids)  # type: ignore[operator]
        if hasattr(module, "set_attn_implementation"):
            return _of_transformers(module, ids)
    raise TypeError(
        f"{type(module).__name__} gives no attention patterns; add a method attention_patterns(ids) that returns them "
        "with shape (layers, n, heads, T, T), or use a model of transformers."
    )


def _of_transformers(module: Any, ids: Int[torch.Tensor, "n t"]) -> Float[torch.Tensor, "layers n heads t t"]:
    """Return the patterns of a model of transformers, whose faster kernels never form them."""
    if getattr(module.config, "_attn_implementation", None) != "eager":
        module = copy.deepcopy(module)
        module.set_attn_implementation("eager")
    return torch.stack(tuple(module(ids, output_attentions=True).attentions))


def induction_scores(
    module: torch.nn.Module, sequences: RepeatedSequences
) -> tuple[Float[np.ndarray, "layers heads"], Float[np.ndarray, "layers heads"]]:
    """Return the induction and the previous-token score of every head, shapes (layers, heads), from 0 to 1.

    Examples
    --------
    >>> from numerics.language.repeated import repeated_sequences
    >>> from numerics.language.transformer import CausalTransformer, TransformerConfig
    >>> scores, _ = induction_scores(CausalTransformer(TransformerConfig()), repeated_sequences(4, 16, 256))
    >>> scores.shape, bool((scores < 0.2).all())
    ((2, 2), True)
    """
    parameter = next(module.parameters())
    ids = torch.from_numpy(sequences.ids).to(parameter.device)
    length, period = ids.shape[1], sequences.period
    later, all_but_first = torch.arange(period, length), torch.arange(1, length)
    induction: list[np.ndarray] = []
    previous: list[np.ndarray] = []
    for piece in ids.split(max(1, _TOGETHER // (length * length * 64))):
        patterns = attention_patterns(module, piece)
        for found, at, to in (
            (induction, later, later - period + 1),
            (previous, all_but_first, all_but_first - 1),
        ):
            found.append(patterns[..., at, to].double().mean(-1).sum(1).cpu().numpy())
    return sum(induction) / len(ids), sum(previous) / len(ids)  # type: ignore[return-value]


def head_scores(
    checkpoints: ModuleCheckpoints,
    sequences: RepeatedSequences,
    *,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Return the scores of every head at every checkpoint.

    Parameters
    ----------
    checkpoints
        Weights of a model that gives attention patterns; see `attention_patterns`.
    sequences
        See `repeated_sequences`.
    progress
        Called with the number of checkpoints done since the last call.

    Returns
    -------
    xarray.Dataset
        ``induction`` and ``previous token``, dims (epoch, layer, head).

    Examples
    --------
    >>> from numerics.language.repeated import repeated_sequences
    >>> from numerics.language.tokens import next_token_loss
    >>> from numerics.language.transformer import CausalTransformer, TransformerConfig
    >>> from numerics.models.module import TorchModel
    >>> model = TorchModel(CausalTransformer(TransformerConfig()), next_token_loss)
    >>> checkpoints = ModuleCheckpoints(np.array([0]), model, model.initial()[None])
    >>> dict(head_scores(checkpoints, repeated_sequences(2, 8, 256)).sizes)
    {'epoch': 1, 'layer': 2, 'head': 2}
    """
    found = []
    for t in range(len(checkpoints)):
        found.append(induction_scores(module_at(checkpoints, t), sequences))
        if progress is not None:
            progress(1)
    values = np.array(found)
    coords = {"epoch": checkpoints.epochs, "layer": range(values.shape[2]), "head": range(values.shape[3])}
    attrs = {"sequences": len(sequences.ids), "period": sequences.period}
    return xr.Dataset(
        {
            name: labelled_array(values[:, k], coords, name, attrs)
            for k, name in enumerate(("induction", "previous token"))
        }
    )


def module_at(checkpoints: ModuleCheckpoints, t: int) -> torch.nn.Module:
    """Return a copy of the module that holds the weights of checkpoint number `t`.

    Examples
    --------
    >>> from numerics.models.module import TorchModel
    >>> checkpoints = ModuleCheckpoints(np.array([0]), TorchModel(torch.nn.Linear(1, 1)), torch.ones(1, 2))
    >>> module_at(checkpoints, 0).bias.item()
    1.0
    """
    model = checkpoints.model_at(t)
    module = copy.deepcopy(model.module)
    free = model.parameters_of(checkpoints.weights_at(t))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in free:
                parameter.copy_(free[name])
    return module
