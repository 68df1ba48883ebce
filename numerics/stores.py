"""A folder that keeps the results of one call, one file a result, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any, BinaryIO

import xarray as xr

from numerics.errors import DamagedResultWarning, StoreMismatch

__all__ = ["ResultStore", "read_object", "whole_file", "write_whole"]


class ResultStore:
    """Results by the setting they belong to, of one configuration.

    Parameters
    ----------
    folder
        Made if it does not exist.
    configuration
        What all results share, in words or digests by name; a store of another configuration is refused.
    kind
        What makes the results, in one word: "sweep", "retraining".

    Raises
    ------
    StoreMismatch
        If the folder belongs to another sweep, or whatever the kind is.
    ValueError
        If it holds something else.

    Examples
    --------
    >>> import tempfile
    >>> store = ResultStore(tempfile.mkdtemp(), {"seed": "0"}, "sweep")
    >>> store.write("a", xr.Dataset({"value": 0.5}))
    >>> float(store.read("a")["value"]), store.read("b")
    (0.5, None)
    """

    def __init__(self, folder: str | os.PathLike[str], configuration: Mapping[str, str], kind: str) -> None:
        self._folder, self._kind = Path(folder), kind
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"the store {self._folder} is a file; give a folder.")
        self._folder.mkdir(parents=True, exist_ok=True)
        header = self._folder / f"{kind}.json"
        if header.exists():
            self._check_header(header, configuration)
        elif any(path.suffix != ".partial" for path in self._folder.iterdir()):  # a writer that was killed leaves these
            raise ValueError(f"the folder {self._folder} holds something else than a {kind}; give a new or empty one.")
        else:
            write_whole(header, json.dumps(dict(configuration), indent=1))

    def _check_header(self, header: Path, configuration: Mapping[str, str]) -> None:
        try:
            stored = read_object(header)
        except ValueError as error:
            raise ValueError(f"{error} Delete {self._folder}, or give another.") from error
        if different := [name for name, value in configuration.items() if stored.get(name) != value]:
            raise StoreMismatch(
                f"the store {self._folder} belongs to another {self._kind}: its {', '.join(different)} "
                f"{'is' if len(different) == 1 else 'are'} not the same. Give another folder, or delete this one."
            )

    def read(self, key: str) -> xr.Dataset | None:
        """Return the result of a setting, None if there is none or, with a warning, if it is damaged."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            checksum, text = path.read_text().split("\n", 1)
            if hashlib.sha256(text.encode()).hexdigest() != checksum:
                raise ValueError("its checksum does not match")
            return xr.Dataset.from_dict(json.loads(text))
        except ValueError as error:  # too few lines, not text, or the checksum
            warnings.warn(f"{path} is damaged ({error}); its setting is computed again.", DamagedResultWarning, 2)
            return None

    def write(self, key: str, result: xr.Dataset) -> None:
        """Keep the result of a setting."""
        text = json.dumps(result.to_dict())  # digits of floats are enough to give back the same bits
        write_whole(self._path(key), f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that is there as a whole or not at all, even if the machine stops or the disk is full."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    ValueError
        If the file holds something else, or is damaged.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers"
    >>> write_whole(path, "[1, 2]")
    >>> read_object(path)
    Traceback (most recent call last):
    ...
    ValueError: ... cannot be read: it holds a list, not an object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not an object.")
    except (ValueError, RecursionError) as error:  # not text, not JSON, something else, or nested without end
        raise ValueError(f"{path} cannot be read: {error}") from error
    return found


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name when the block ends well, and vanishes if it does not.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers"
    >>> with whole_file(path) as file:
    ...     _ = file.write(b"1 2 3")
    ...     path.exists()
    False
    >>> path.read_bytes()
    b'1 2 3'
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
