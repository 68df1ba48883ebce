"""Checkpoints in files, from whatever wrote them: found, checked by name and shape, and read one at a time."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open

from numerics.models.module import TorchModel

__all__ = ["CheckpointFiles"]

_TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")
_ENDINGS = (".safetensors", *_TORCH_FILES)
# What a folder of one checkpoint holds, the most specific first.
_IN_FOLDER = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
# What readers raise at bytes that they do not expect; a damaged file can be wrong in any of these ways.
_DAMAGE = (
    SafetensorError,
    struct.error,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    EOFError,
    OSError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
)
# Where training loops keep the state dictionary among other things.
_WITHIN = ("state_dict", "model_state_dict", "model", "module", "network", "net")
# What DistributedDataParallel, torch.compile and Lightning put before the names of a module's tensors.
_PREFIXES = ("module.", "_orig_mod.", "model.")


@dataclass(frozen=True)
class CheckpointFiles:
    """Checkpoints in files, all checked to hold the tensors of one model.

    Parameters
    ----------
    paths
        A file or folder for each checkpoint.
    model
        The model.
    rename, ignore
        As for `ModuleCheckpoints.load`.
    """

    paths: tuple[Path, ...]
    model: TorchModel
    rename: Callable[[str], str] | None
    ignore: tuple[str, ...]

    @classmethod
    def find(
        cls,
        source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        model: TorchModel,
        epochs: ArrayLike | None,
        rename: Callable[[str], str] | None,
        ignore: Sequence[str],
    ) -> tuple[CheckpointFiles, np.ndarray]:
        """Return the checkpoints of a folder or a list in order of their epochs, and these."""
        if isinstance(source, (str, os.PathLike)):
            paths = _in(Path(source))
        else:
            paths = [Path(path) for path in source]
            if missing := [path for path in paths if not path.exists()]:
                raise FileNotFoundError(f"there is no checkpoint {missing[0]}.")
        if not paths:
            raise ValueError(f"no checkpoint was found in {source}; files end in {', '.join(_ENDINGS)}.")
        if epochs is None:
            found = np.array([_epoch_of(path) for path in paths])
        else:
            found = np.atleast_1d(np.asarray(epochs, dtype=np.float64))
            if found.shape != (len(paths),):
                raise ValueError(f"{found.size} epochs were given for {len(paths)} checkpoints.")
        order = np.argsort(found, kind="stable")
        if twice := [k for k in range(len(order) - 1) if found[order[k]] == found[order[k + 1]]]:
            a, b = (paths[order[k]].name for k in (twice[0], twice[0] + 1))
            raise ValueError(f"{a} and {b} are both of epoch {found[order[twice[0]]]:g}; give epochs=, or one of them.")
        reader = cls(tuple(paths[k] for k in order), model, rename, tuple(ignore))
        for t in range(len(reader)):
            reader._matched(reader.paths[t], _opened(reader.paths[t]).shapes)
        return reader, found[order]

    def __len__(self) -> int:
        """Return the number of checkpoints."""
        return len(self.paths)

    def part(self, positions: Sequence[int]) -> CheckpointFiles:
        """Return some of the checkpoints."""
        return replace(self, paths=tuple(self.paths[k] for k in positions))

    def read(self, t: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return flat weights in the dtype of the model, and frozen parameters and buffers by name."""
        like, state = self.model.initial(), self.model.state
        tensors = _opened(self.paths[t])
        names = self._matched(self.paths[t], tensors.shapes)
        pieces = [tensors.read(names[name]).flatten().to(like) for name in self.model.free]
        rest = {name: tensors.read(names[name]).to(held) for name, held in state.items() if name in names}
        return torch.cat(pieces), rest

    def _matched(self, path: Path, found: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
        """Return the name in the file of each of the module's tensors, or say which do not match."""
        module = self.model.module
        needed = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        own = {**needed, **{name: tuple(value.shape) for name, value in module.named_buffers()}}
        needed_once = self.model.shapes.keys() | self.model.state.keys()
        names = {self.rename(name) if self.rename else name: name for name in found}
        names = _without_prefixes(names, own)
        known = {name: file for name, file in names.items() if name in own}
        missing = [name for name in needed if name in needed_once and name not in known]
        extra = [
            file
            for name, file in names.items()
            if name not in own and not any(fnmatchcase(file, pattern) for pattern in self.ignore)
        ]
        wrong = [name for name, file in known.items() if found[file] != own[name]]
        if missing or extra:
            said = [f"{what} {_some(which)}" for what, which in (("lacks", missing), ("has", extra)) if which]
            advice = "rename= maps names of the file to the module's" if missing else "ignore= names what is left over"
            raise ValueError(
                f"{path} does not fit the module: it {' and '.join(said)}. {advice[0].upper()}{advice[1:]}."
            )
        if wrong:
            name = wrong[0]
            raise ValueError(
                f"{path} does not fit the module: {name} has shape {found[known[name]]} there, but {own[name]} in the "
                f"module{f' (and {len(wrong) - 1} more differ)' if len(wrong) > 1 else ''}."
            )
        return known


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _without_prefixes(names: dict[str, str], own: Mapping[str, object]) -> dict[str, str]:
    """Return the names without what wrappers put before all of them, or with it where the module is wrapped itself."""
    candidates = [names]
    seen = [tuple(names)]
    while candidates:
        tried = candidates.pop(0)
        if any(name in own for name in tried):
            return tried
        for prefix in _PREFIXES:
            # Everything that has the prefix is the module's; what has not is the wrapper's own.
            shorter = {name.removeprefix(prefix): file for name, file in tried.items() if name.startswith(prefix)}
            longer = {prefix + name: file for name, file in tried.items()}
            left = {name: file for name, file in tried.items() if not name.startswith(prefix)}
            for other in ({**left, **shorter} if shorter else {}, longer if len(seen) < 20 else {}):
                if other and tuple(other) not in seen:
                    seen.append(tuple(other))
                    candidates.append(other)
    return names


def _in(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder: files, or folders that hold one; the folder itself if it is one."""
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}.")
    if folder.is_file() or any((folder / name).exists() for name in _IN_FOLDER):
        return [folder]
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in _ENDINGS]
    folders = [
        path
        for path in sorted(folder.iterdir())
        if path.is_dir() and any((path / name).exists() for name in _IN_FOLDER)
    ]
    return files + folders


def _epoch_of(path: Path) -> float:
    """Return the epoch that a file's metadata or the name of the file or folder tells."""
    if path.suffix == ".safetensors" and path.is_file():
        with _refusing_damage(path), safe_open(path, "pt") as file:
            if "epoch" in (metadata := file.metadata() or {}):
                return float(metadata["epoch"])
    stem = path.name if path.is_dir() else path.stem
    for word in ("step", "checkpoint", "ckpt", "iter", "epoch"):
        if named := re.findall(rf"{word}s?[-_=]?(\d+)", stem, re.IGNORECASE):
            return float(named[-1])
    numbers = re.findall(r"\d+", stem)
    if len(numbers) == 1:
        return float(numbers[0])
    what = "no number" if not numbers else "several numbers"
    raise ValueError(f"the epoch of {path.name} cannot be told, since its name has {what}; give epochs=.")


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """Turn what readers say of files that are no checkpoints into our sentence."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and would run code when read; save module.state_dict(), or safetensors."
        ) from error
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error


class _Opened(NamedTuple):
    """Tensors of one checkpoint by name: their shapes at once, their numbers when read."""

    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], torch.Tensor]


def _opened(path: Path) -> _Opened:
    """Open a file, or a folder as Hugging Face writes it."""
    if not path.is_dir():
        return _opened_file(path)
    name = next((name for name in _IN_FOLDER if (path / name).exists()), None)
    if name is None:
        raise ValueError(f"{path} holds no checkpoint; a folder needs one of {', '.join(_IN_FOLDER)}.")
    if not name.endswith(".index.json"):
        return _opened_file(path / name)
    with _refusing_damage(path / name):
        shards = json.loads((path / name).read_text())
    where = shards.get("weight_map") if isinstance(shards, dict) else None
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise ValueError(f"{path / name} does not say in which file each tensor is.")
    if outside := [file for file in where.values() if Path(file).name != file]:
        raise ValueError(f"{path / name} names {outside[0]!r}, which is not a file of its folder.")
    if absent := [file for file in set(where.values()) if not (path / file).exists()]:
        raise ValueError(f"{path} lacks the shard {absent[0]}.")
    opened = {file: _opened_file(path / file) for file in sorted(set(where.values()))}
    if lost := [name for name, file in where.items() if name not in opened[file].shapes]:
        raise ValueError(f"{path}: {lost[0]} is not in {where[lost[0]]}, where the index has it.")
    return _Opened(
        {name: opened[file].shapes[name] for name, file in where.items()}, lambda name: opened[where[name]].read(name)
    )


def _opened_file(path: Path) -> _Opened:
    if path.suffix == ".safetensors":
        with _refusing_damage(path):
            file = safe_open(path, "pt")
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

        def read(name: str) -> torch.Tensor:
            with _refusing_damage(path):
                return file.get_tensor(name)

        return _Opened(shapes, read)
    if path.suffix not in _TORCH_FILES:
        raise ValueError(f"{path} is no checkpoint: its name ends in none of {', '.join(_ENDINGS)}.")
    with _refusing_damage(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other versions of the format: what cannot be read is refused below
        content = torch.load(path, map_location="cpu", weights_only=True)
    tensors = dict(_tensors(path, content))
    return _Opened({name: tuple(value.shape) for name, value in tensors.items()}, tensors.__getitem__)


def _tensors(path: Path, content: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a state dictionary, which may stand among other things under a usual name."""
    if isinstance(content, Mapping):
        inner = next((content[key] for key in _WITHIN if isinstance(content.get(key), Mapping)), content)
        found = [(str(name), value) for name, value in inner.items() if isinstance(value, torch.Tensor)]
        if found:
            yield from found
            return
    raise ValueError(f"{path} holds no state dictionary; save module.state_dict().")
