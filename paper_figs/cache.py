"""Results kept on disk by what was asked for and by the code that answers; a killed run loses no finished one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from functools import cache as once
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast
from zipfile import BadZipFile

import numpy as np
import xarray as xr

from numerics.stores import write_whole

__all__ = ["ResultCache", "code_version"]

Result = TypeVar("Result", bound=xr.Dataset | xr.DataArray)

_KEPT_BYTES = 2**30  # older results make room for newer ones beyond this
_ARRAY = "__array__"  # the variable of a data set that is an array by itself
# Modules that compute nothing that is kept: what figures keep, they ask of other modules.
_DRAWN_ONLY = (
    "figure_",
    "style",
    "panels",
    "progress",
    "registry",
    "__main__",
    "damping",
    "every_source",
    "influence_plot",
    "wording",
)


class ResultCache:
    """Results of long computations in a folder, one file each, written when finished and then renamed into place.

    A file is an npz archive of plain arrays and JSON, never a pickle, behind its checksum. One that cannot be read back
    (cut short, or changed) is computed again, with a note; one that cannot be written costs a note, not the result.
    Several runs may share a folder.

    Parameters
    ----------
    folder
        Where to keep results; nothing is kept if None.
    note
        Called with a sentence when a damaged result is computed again, or one cannot be kept.

    Examples
    --------
    >>> import tempfile
    >>> cache = ResultCache(Path(tempfile.mkdtemp()))
    >>> [int(cache.get("answer", "seed 0", lambda k=k: xr.DataArray(k))) for k in (42, 43)]
    [42, 42]
    >>> int(cache.get("answer", "seed 1", lambda: xr.DataArray(43)))
    43
    """

    def __init__(self, folder: Path | None, note: Callable[[str], object] | None = None) -> None:
        self._folder = folder
        self._note = note or (lambda _: None)

    def get(self, name: str, settings: object, compute: Callable[[], Result]) -> Result:
        """Return the result called `name` with these `settings`, from the folder or else by calling `compute`.

        Parameters
        ----------
        name
            Names the result; different computations need different names.
        settings
            Everything the result depends on besides the code; two settings are the same if their ``repr`` is.
        compute
            Computes the result, an array or a data set of numbers, truth values and texts.
        """
        folder = self.folder(name, settings)
        if folder is None:
            return compute()
        path = folder.with_suffix(".npz")
        if (kept := self._read(name, path)) is not None:
            return cast("Result", kept)
        result = compute()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, _packed(result))
        except OSError as error:
            self._note(f"The result {name!r} cannot be kept ({error.strerror}); a later run computes it again.")
        return result

    def _read(self, name: str, path: Path) -> xr.Dataset | xr.DataArray | None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note(f"The stored result {name!r} cannot be read ({error.strerror}); computing it again.")
            return None
        try:
            value = _unpacked(content)
        except (ValueError, LookupError, TypeError, BadZipFile, EOFError):
            self._note(f"The stored result {name!r} is damaged; computing it again.")
            return None
        _mark_used(path)
        return value

    def folder(self, name: str, settings: object) -> Path | None:
        """Return a folder for a computation that keeps its own parts, by the same key as `get`; None without one."""
        if self._folder is None:
            return None
        key = hashlib.sha256(f"{settings!r}\0{code_version()}".encode()).hexdigest()[:16]
        folder = self._folder / name.replace(" ", "-") / key
        if folder.is_dir():
            _mark_used(folder)
        return folder

    def shrink(self) -> None:
        """Delete the results, and folders of parts, used least recently if they take more than 1 GiB together."""
        if self._folder is None:
            return
        entries = [(_last_used(path), _size(path), path) for path in self._folder.glob("*/*")]
        excess = sum(size for _, size, _ in entries) - _KEPT_BYTES
        for _, size, path in sorted(entries):
            if excess <= 0:
                return
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            excess -= size


def _mark_used(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        return  # a folder that is only read keeps its times


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another run has deleted it meanwhile
        return 0.0


def _size(path: Path) -> int:
    try:
        files = path.rglob("*") if path.is_dir() else (path,)
        return sum(file.stat().st_size for file in files)
    except OSError:
        return 0


def _packed(result: xr.Dataset | xr.DataArray) -> bytes:
    """Return the checksum of an archive and the archive, of arrays as they are and of what names them as JSON."""
    if not isinstance(result, (xr.Dataset, xr.DataArray)):
        raise TypeError(f"only arrays and data sets of xarray are kept, but {type(result).__name__} was computed.")
    dataset = result.to_dataset(name=_ARRAY) if isinstance(result, xr.DataArray) else result
    arrays: dict[str, Any] = {f"v{k}": variable.values for k, variable in enumerate(dataset.variables.values())}
    if odd := [str(name) for name, v in dataset.variables.items() if v.dtype.kind not in "biufcU"]:
        raise TypeError(f"only numbers, truth values and texts are kept, but {', '.join(odd)} holds something else.")
    told = {
        "array": isinstance(result, xr.DataArray),
        "name": result.name if isinstance(result, xr.DataArray) else None,
        "attrs": dataset.attrs,
        "variables": [[name, v.dims, v.attrs, name in dataset.coords] for name, v in dataset.variables.items()],
    }
    text = json.dumps(told, default=_plain)
    file = io.BytesIO()
    arrays["told"] = np.frombuffer(text.encode(), np.uint8)
    np.savez_compressed(file, **arrays)
    content = file.getvalue()
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _plain(value: object) -> object:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"an attribute is a {type(value).__name__}; only numbers, texts and lists of them are kept.")


def _unpacked(content: bytes) -> xr.Dataset | xr.DataArray:
    checksum, _, archive = content.partition(b"\n")
    if hashlib.sha256(archive).hexdigest().encode() != checksum:
        raise ValueError("its checksum does not match")
    with np.load(io.BytesIO(archive), allow_pickle=False) as stored:
        told = json.loads(stored["told"].tobytes())
        variables = [
            (name, xr.Variable(dims, stored[f"v{k}"], attrs), coordinate)
            for k, (name, dims, attrs, coordinate) in enumerate(told["variables"])
        ]
    dataset = xr.Dataset(
        {name: variable for name, variable, coordinate in variables if not coordinate},
        {name: variable for name, variable, coordinate in variables if coordinate},
        told["attrs"],
    )
    return dataset[_ARRAY].rename(told["name"]) if told["array"] else dataset


@once
def code_version() -> str:
    """Return a digest of the source of everything that computes results, and of the libraries' versions."""
    root = Path(__file__).parent.parent
    sources = [path for package in ("theory", "numerics", "validation") for path in (root / package).rglob("*.py")]
    sources += [path for path in (root / "paper_figs").glob("*.py") if not path.name.startswith(_DRAWN_ONLY)]
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for library in ("numpy", "scipy", "torch", "xarray"):
        digest.update(f"{library} {version(library)}\0".encode())
    return digest.hexdigest()[:16]
