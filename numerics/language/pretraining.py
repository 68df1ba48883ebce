"""Training a language model from scratch with dense checkpoints, each written whole, going on where it was killed.

The folder has the layout of published revisions: ``step100/model.safetensors`` and, for a `CausalTransformer`, a
``config.json`` beside it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file

from numerics.errors import StoreMismatch, TrainingDiverged
from numerics.language.tokens import next_token_loss
from numerics.language.transformer import CausalTransformer
from numerics.models.digest import digest
from numerics.models.tree_files import read_tree, write_tree
from theory import checks

__all__ = ["Corpus", "PretrainingConfig", "TokenCorpus", "logits_of", "pretrain"]

_KIND = "a training run"


@runtime_checkable
class Corpus(Protocol):
    """What a model is trained on: the same step gives the same sequences, so that a killed run can go on."""

    def batch(self, step: int, size: int) -> Int[torch.Tensor, "b t"]:
        """Return ids of `size` sequences, shape (size, J + 1)."""
        ...


@dataclass(frozen=True, eq=False)
class TokenCorpus:
    """Sequences of a corpus of text, in a fresh random order every epoch.

    Parameters
    ----------
    ids
        Shape (N, J + 1).
    seed
        Of the order.

    Examples
    --------
    >>> TokenCorpus(np.arange(6).reshape(3, 2)).batch(0, 3).sort(0).values.tolist()
    [[0, 1], [2, 3], [4, 5]]
    """

    ids: Int[np.ndarray, "n t"]
    seed: int = 0

    def batch(self, step: int, size: int) -> Int[torch.Tensor, "b t"]:
        """Return the sequences of a training step; see `Corpus`."""
        places = np.arange(step * size, (step + 1) * size)
        epochs, within = np.divmod(places, len(self.ids))
        chosen = np.empty(size, np.int64)
        for epoch in np.unique(epochs):
            order = np.random.default_rng([self.seed, int(epoch)]).permutation(len(self.ids))
            chosen[epochs == epoch] = order[within[epochs == epoch]]
        return torch.from_numpy(self.ids[chosen])

    def __repr__(self) -> str:
        """Say what it is by its content."""
        return f"TokenCorpus({self.ids.shape}, {digest(self.ids)[:16]}, seed={self.seed})"


@dataclass(frozen=True)
class PretrainingConfig:
    """Settings of training: AdamW with gradients clipped by their length.

    Parameters
    ----------
    steps
        Number of steps.
    lr
        Largest learning rate.
    batch_size
        Sequences a step.
    clip
        Largest length of a gradient.
    weight_decay
        Of AdamW.
    warm_up
        Steps over which the learning rate rises linearly.
    schedule
        "constant", or "cosine": down to a tenth by the last step.

    Examples
    --------
    >>> [round(PretrainingConfig(steps=100, lr=1.0, schedule="cosine").rate(step), 3) for step in (0, 50, 100)]
    [1.0, 0.55, 0.1]
    """

    steps: int = 2000
    lr: float = 1e-2
    batch_size: int = 64
    clip: float = 1.0
    weight_decay: float = 0.01
    warm_up: int = 0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        checks.integer("steps", self.steps, at_least=1)
        checks.integer("batch_size", self.batch_size, at_least=1)
        checks.integer("warm_up", self.warm_up, at_least=0)
        checks.positive("lr", self.lr)
        checks.positive("clip", self.clip)
        checks.nonnegative_number("weight_decay", self.weight_decay)
        checks.choice("schedule", self.schedule, ("constant", "cosine"))

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        share = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        if self.schedule == "cosine":
            share *= 0.55 + 0.45 * math.cos(math.pi * step / self.steps)
        return self.lr * share


def pretrain(
    module: torch.nn.Module,
    corpus: Corpus,
    folder: str | os.PathLike[str],
    config: PretrainingConfig | None = None,
    *,
    save_at: Iterable[int] = (),
    every: int | None = 100,
    progress: Callable[[int], object] | None = None,
) -> Float[np.ndarray, " steps"]:
    """Train a language model on the mean loss of its tokens and save checkpoints on the way.

    A run that was killed goes on from its last checkpoint when called again with the same arguments, and ends with the
    same weights.

    Parameters
    ----------
    module
        Any module that takes ids (n, T) and gives logits (n, T, V), or an output that holds ``logits``. It is trained
        in place.
    corpus
        See `Corpus`; `SyntheticCorpus` and `TokenCorpus` are two.
    folder
        Where checkpoints go: ``step0``, ``step100``, ...
    config
        See `PretrainingConfig`.
    save_at
        Steps to save, beside the first and the last.
    every
        Saves every so many steps too; None for none.
    progress
        Called with the number of steps done since the last call.

    Returns
    -------
    numpy.ndarray
        Mean loss of the batch of every step, in nats, shape (steps,).

    Raises
    ------
    TrainingDiverged
        If the loss is not finite; it names the step. Checkpoints saved before stay.
    StoreMismatch
        If the folder holds another run.
    ValueError
        If the state of the run in the folder is damaged.

    Examples
    --------
    >>> import tempfile
    >>> from numerics.language.bigram import BigramModel
    >>> from numerics.language.synthetic import SyntheticCorpus
    >>> folder = Path(tempfile.mkdtemp())
    >>> corpus = SyntheticCorpus(vocabulary=8, length=9, successors=2, tiled=0.0)
    >>> losses = pretrain(BigramModel(8), corpus, folder, PretrainingConfig(steps=60, lr=0.1), every=30)
    >>> sorted(path.name for path in folder.glob("step*")), bool(losses[-1] < losses[0] - 0.5)
    (['step0', 'step30', 'step60'], True)
    """
    config = config or PretrainingConfig()
    wanted = {0, config.steps, *(int(step) for step in save_at)}
    if every is not None:
        wanted |= set(range(0, config.steps, checks.integer("every", every, at_least=1)))
    if max(wanted) > config.steps or min(wanted) < 0:
        raise ValueError(f"save_at asks for step {max(wanted)}, but there are steps 0 to {config.steps}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key = digest((module, config, repr(corpus)))
    optimiser = torch.optim.AdamW(module.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    losses = np.full(config.steps, np.nan)
    first = _restore(folder / "training.state", key, module, optimiser, losses)
    module.train()
    done = first
    for step in range(first, config.steps + 1):
        if step in wanted and (step > first or step == 0):
            _save_step(folder, step, module)
            _save_state(folder / "training.state", key, step, module, optimiser, losses)
            if progress is not None:
                progress(step - done)
            done = step
        if step == config.steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = config.rate(step)
        ids = corpus.batch(step, config.batch_size)
        loss = next_token_loss(logits_of(module, ids[:, :-1]), ids[:, 1:]).mean()
        losses[step] = loss.item()
        if not math.isfinite(losses[step]):
            raise TrainingDiverged(
                f"the loss is not finite at step {step}; lower lr from {config.lr:g}, or clip gradients at less than "
                f"{config.clip:g}. Checkpoints up to step {done} are in {folder}."
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), config.clip)
        optimiser.step()
    module.eval()
    return losses


def logits_of(module: torch.nn.Module, ids: Int[torch.Tensor, "n t"]) -> Float[torch.Tensor, "n t v"]:
    """Return a module's logits, whether it returns them or an output that holds them.

    Examples
    --------
    >>> from numerics.language.bigram import BigramModel
    >>> logits_of(BigramModel(3), torch.tensor([[2, 0]])).shape
    torch.Size([1, 2, 3])
    """
    outputs = module(ids)
    return outputs if isinstance(outputs, torch.Tensor) else outputs.logits


def _save_step(folder: Path, step: int, module: torch.nn.Module) -> None:
    target = folder / f"step{step}"
    target.mkdir(exist_ok=True)
    if isinstance(module, CausalTransformer):
        (target / "config.json").write_text(json.dumps(module.config.as_neox(), indent=1) + "\n")
    partial = target / "model.safetensors.partial"
    save_file({name: p.detach().contiguous() for name, p in module.state_dict().items()}, partial)
    os.replace(partial, target / "model.safetensors")


def _save_state(
    path: Path, key: str, step: int, module: torch.nn.Module, optimiser: torch.optim.Optimizer, losses: np.ndarray
) -> None:
    content = {
        "key": key,
        "step": step,
        "module": dict(module.state_dict()),
        "optimiser": optimiser.state_dict(),
        "losses": torch.from_numpy(losses),
    }
    write_tree(path, _KIND, content)


def _restore(
    path: Path, key: str, module: torch.nn.Module, optimiser: torch.optim.Optimizer, losses: np.ndarray
) -> int:
    """Put the state of a run that was killed back in place, and return the step it goes on with."""
    if not path.exists():
        return 0
    content = read_tree(path, _KIND)
    if content["key"] != key:
        raise StoreMismatch(
            f"{path.parent} holds a run with another module, initial weights, corpus or settings; name another folder, "
            "or repeat that call."
        )
    module.load_state_dict(content["module"])
    optimiser.load_state_dict(content["optimiser"])
    losses[:] = content["losses"].numpy()
    return int(content["step"])
