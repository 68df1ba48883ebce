"""Checkpoints written from a training loop of one's own: in two lines, at chosen steps, each whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch.nn.parallel import DistributedDataParallel

from numerics.stores import write_whole
from theory import checks

__all__ = ["CheckpointRecorder", "log_spaced_steps"]

FORMAT = "stagewise-1"
_NAME = re.compile(r"step-(\d+)\.safetensors")


class CheckpointRecorder:
    """Writes the state of a module into a folder, from the training loop, for `ModuleCheckpoints.load` to read.

    A file ``step-000123.safetensors`` holds every parameter and buffer by its name, frozen ones and statistics of batch
    normalisation included, and says its step (as "epoch") and the format in its metadata. A file is there as a whole or
    not at all, even if the process is killed while it writes.

    Parameters
    ----------
    module
        The module that is trained; DistributedDataParallel and torch.compile are looked through.
    folder
        Made if it does not exist.
    at
        Steps at which `step` saves: a list of them, or every so many if a number is given. If not given, every step up
        to 10, then about 10 more from each power of ten to the next (see `log_spaced_steps`).
    resume
        Whether the folder may hold checkpoints already: those of later steps than the first that is counted stay until
        they are written again. If not, a folder that holds some is refused, so that two runs are not mixed.

    Raises
    ------
    ValueError
        If the folder is a file or holds checkpoints, or steps are negative.
    TypeError
        If `module` is no torch module.

    Examples
    --------
    >>> import tempfile
    >>> folder, module = tempfile.mkdtemp(), torch.nn.Linear(3, 2)
    >>> recorder = CheckpointRecorder(module, folder, at=100)
    >>> for batch in range(250):
    ...     saved = recorder.step()  # before the optimiser's step: step 0 is the start
    >>> last = recorder.save()  # the end
    >>> sorted(os.listdir(folder))
    ['step-000000.safetensors', 'step-000100.safetensors', 'step-000200.safetensors', 'step-000250.safetensors']
    """

    def __init__(
        self,
        module: torch.nn.Module,
        folder: str | os.PathLike[str],
        *,
        at: int | Iterable[int] | None = None,
        resume: bool = False,
    ) -> None:
        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, but {type(module).__name__} was given.")
        self._module, self._folder, self._at = module, Path(folder), _steps(at)
        self._count = 0
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"{self._folder} is a file; give a folder for checkpoints.")
        self._folder.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        if held and not resume:
            raise ValueError(
                f"{self._folder} holds checkpoints already ({held[0]} to {held[-1]}); give an empty folder, or "
                "resume=True to go on with them."
            )
        for partial in self._folder.glob("*.partial"):  # what a process that was killed left behind
            partial.unlink(missing_ok=True)

    def step(self, number: int | None = None) -> Path | None:
        """Count a step, and save if it is one of those to save at; return the file if there is one.

        Parameters
        ----------
        number
            The step; one more than the last if not given, 0 at first. Give it where a loop resumes.
        """
        if number is not None:
            self._count = checks.integer("number", number, at_least=0)
        number = self._count
        self._count += 1
        wanted = number % self._at == 0 if isinstance(self._at, int) else number in self._at
        return self._write(number) if wanted else None

    def save(self, number: int | None = None) -> Path:
        """Save now, whatever the step; after the last `step`, that is the end of training."""
        return self._write(self._count if number is None else checks.integer("number", number, at_least=0))

    def __enter__(self) -> CheckpointRecorder:
        """Return the recorder; at the end of the block the last state is saved too."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.save()

    def _write(self, number: int) -> Path:
        tensors = _tensors(self._module)
        for name, value in tensors.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"{name} is not finite at step {number}, so nothing was saved: training has diverged; a smaller "
                    "learning rate may help."
                )
        path = self._folder / f"step-{number:06d}.safetensors"
        metadata = {"epoch": str(number), "format": "pt", "stagewise_format": FORMAT}
        write_whole(path, save(tensors, metadata))
        return path


def log_spaced_steps(last: int, per_decade: int = 10) -> list[int]:
    """Return 0, then whole steps up to `last` spaced about evenly on a logarithmic scale, and `last`.

    Examples
    --------
    >>> log_spaced_steps(100, per_decade=4)
    [0, 1, 2, 3, 6, 10, 18, 32, 56, 100]
    """
    checks.integer("last", last, at_least=1)
    checks.integer("per_decade", per_decade, at_least=1)
    exponents = np.arange(0, np.floor(np.log10(last) * per_decade + 1e-9) + 1) / per_decade
    return sorted({0, last, *(int(step) for step in np.round(10**exponents))})


def _steps(at: int | Iterable[int] | None) -> int | frozenset[int]:
    if at is None:
        return frozenset([*range(11), *log_spaced_steps(10**12)])
    if isinstance(at, (int, np.integer)):
        return checks.integer("at", at, at_least=1)
    steps = frozenset(checks.integer("every step of at", step, at_least=0) for step in at)
    if not steps:
        raise ValueError("at is empty; give the steps to save at, or a number to save every so many.")
    return steps


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return every parameter and buffer by its name in the module that the user wrote, in memory of its own."""
    while True:
        if isinstance(module, DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), torch.nn.Module):
            module = inner
        else:
            break
    held: Mapping[str, Any] = {**module.state_dict(), **dict(module.named_buffers())}
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in held.items()
        if isinstance(value, torch.Tensor)
    }
