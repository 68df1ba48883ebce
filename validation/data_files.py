"""A user's own data: reading and writing it as .npz or .csv, and whitening it.

.npz
    Arrays ``inputs`` (N, P) and ``targets`` (N, O), and optionally ``names``, N strings.
.csv
    A header line, then a line a sample. Columns whose header starts with ``x`` are inputs, with ``y`` targets; a column
    ``name`` is optional. ``name,x1,x2,y1`` is a header; empty lines are passed over.

The closed forms need whitened inputs, :math:`X^T X = I`. `whiten` replaces X by :math:`X (X^T X)^{-1/2}`, of all
whitened inputs those nearest to X.
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from theory import Dataset

__all__ = ["load_dataset", "save_dataset", "whiten"]


def load_dataset(path: str | Path) -> Dataset:
    r"""Read a data set from an .npz or .csv file, in the format that the module describes.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        If the file cannot be read, has another suffix, lacks a column or an array, or holds something that is not a
        finite number; the sentence names the line, or the array.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "pets.csv"
    ...     _ = file.write_text("name,x1,x2,y1\ndog,1,0,3\ncat,0,1,2\n")
    ...     data = load_dataset(file)
    >>> data.names, data.targets.ravel()
    (('dog', 'cat'), array([3., 2.]))
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".csv": _read_csv}
    if path.suffix not in readers:
        raise ValueError(f"{path} is neither .npz nor .csv; the two formats are described in validation.data_files.")
    try:
        return readers[path.suffix](path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}.") from None


def save_dataset(path: str | Path, dataset: Dataset) -> None:
    """Write a data set as .npz, for `load_dataset` and ``python -m validation --data``.

    Examples
    --------
    >>> import tempfile
    >>> from theory import hierarchical_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_dataset(Path(folder) / "tree.npz", hierarchical_dataset())
    ...     load_dataset(Path(folder) / "tree.npz").names[0]
    'dog'
    """
    np.savez(path, inputs=dataset.inputs, targets=dataset.targets, names=np.array(dataset.names))


def whiten(dataset: Dataset) -> Dataset:
    """Return the data set with its inputs replaced by the nearest whitened ones, X (X^T X)^{-1/2}.

    A linear network on the new inputs is one on the old with another first layer, so the same maps can be learned, from
    other initial weights.

    Raises
    ------
    ValueError
        If the inputs have linearly dependent columns: no whitening exists. Leave columns out, or combine them.

    Examples
    --------
    >>> raw = Dataset(np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0]]), np.eye(3))
    >>> bool(abs(whiten(raw).sxx - np.eye(2)).max() < 1e-12)
    True
    """
    n, p = dataset.inputs.shape
    u, s, vt = np.linalg.svd(dataset.inputs, full_matrices=False)
    rank = int(np.sum(s > max(n, p) * np.finfo(float).eps * s[0])) if s.size else 0
    if rank < p:
        raise ValueError(
            f"the {p} input columns of {n} samples have rank {rank}, so they cannot be whitened; leave out or combine "
            "columns until they are linearly independent."
        )
    return Dataset(u @ vt, dataset.targets, dataset.names)


def _read_npz(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a valid .npz file: {error}.") from None
    for name in ("inputs", "targets"):
        if name not in arrays:
            raise ValueError(f"{path} has no array {name!r}; it has {', '.join(arrays) or 'none'}.")
    names = tuple(str(name) for name in arrays["names"]) if "names" in arrays else ()
    try:
        return Dataset(arrays["inputs"], arrays["targets"], names)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _read_csv(path: Path) -> Dataset:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        lines = [(reader.line_num, [field.strip() for field in row]) for row in reader if any(f.strip() for f in row)]
    if not lines:
        raise ValueError(f"{path} is empty; its first line must name the columns: name,x1,x2,...,y1,y2,...")
    (first, header), *rows = lines
    kinds = [_kind(path, first, title) for title in header]
    for kind, what in (("x", "input"), ("y", "target")):
        if kind not in kinds:
            raise ValueError(f"{path}, line {first}: no {what} column; name at least one {kind}1, {kind}2, ...")
    if kinds.count("name") > 1:
        raise ValueError(f"{path}, line {first}: two columns are called name.")
    if not rows:
        raise ValueError(f"{path} has a header and no samples.")
    inputs, targets, names = [], [], []
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: {len(row)} fields, but the header has {len(header)}.")
        fields = list(zip(kinds, header, row, strict=True))
        inputs.append(_numbers(path, line, [(title, text) for kind, title, text in fields if kind == "x"]))
        targets.append(_numbers(path, line, [(title, text) for kind, title, text in fields if kind == "y"]))
        names += [text for kind, _, text in fields if kind == "name"]
        if names and names[-1] in names[:-1]:
            raise ValueError(f"{path}, line {line}: the name {names[-1]!r} occurs for the second time.")
    return Dataset(np.array(inputs), np.array(targets), tuple(names))


def _kind(path: Path, line: int, title: str) -> str:
    if title == "name":
        return "name"
    if title[:1] in ("x", "y"):
        return title[0]
    raise ValueError(
        f"{path}, line {line}: column {title!r} is neither 'name' nor an input (x...) nor a target (y...); rename "
        "it or "
        "leave it out."
    )


def _numbers(path: Path, line: int, fields: Sequence[tuple[str, str]]) -> list[float]:
    values = []
    for title, text in fields:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{path}, line {line}, column {title}: {text!r} is not a number.") from None
        if not math.isfinite(value):
            raise ValueError(f"{path}, line {line}, column {title}: {text!r} is not finite.")
        values.append(value)
    return values
