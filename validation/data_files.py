r"""A user's own data: reading it from files and tables, writing it, and whitening it.

.csv, .tsv, .txt
    A header line, then a line a sample; columns separated by commas, semicolons or tabs, which the header tells. Where
    the separator is no comma, a decimal comma is read.
.npz
    Arrays ``inputs`` (N, P) and ``targets`` (N, O), and optionally ``names``, N strings.
.nc, .parquet
    What xarray and pandas keep; the latter needs pyarrow or fastparquet beside pandas.

In tables the columns x, x1, x2, ... are inputs, y, y1, y2, ... targets, and name the samples' names, unless arguments
say which they are. What became of every column is kept with the data, see `DataReading`.

The closed forms need whitened inputs, :math:`X^T X = I`. `whiten` replaces X by :math:`X (X^T X)^{-1/2}`, of all
whitened inputs those nearest to X.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from numerics.stores import whole_file
from theory import Dataset, checks
from validation.archives import read_netcdf, read_npz
from validation.tables import Columns, DataReading, read_parquet, read_text

__all__ = ["load_dataset", "read_dataset", "save_dataset", "whiten"]

_READERS: dict[str, Callable[[Path, Columns], DataReading]] = {
    ".csv": read_text,
    ".tsv": read_text,
    ".txt": read_text,
    ".npz": read_npz,
    ".nc": read_netcdf,
    ".parquet": read_parquet,
}


def read_dataset(
    path: str | Path,
    *,
    inputs: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    names: str | None = None,
) -> DataReading:
    r"""Read a data set from a file, in one of the formats that the module describes, and say what was read.

    Parameters
    ----------
    path
        The file; its suffix, in letters of either case, tells the format.
    inputs, targets, names
        Columns of a table, or arrays of an archive (one name), that hold them. Other columns are left out if any is
        given; otherwise every column must be one of x1, x2, ..., y1, y2, ..., name.

    Raises
    ------
    ValueError
        If the file cannot be read, has another suffix, lacks a column or an array, has one whose place is not clear, or
        holds something that is not a finite number; the sentence names the line, or the array.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "pets.csv"
    ...     _ = file.write_text("pet;legs;tail;year\ndog;4;0,3;2001\nhen;2;0,1;2002\n")
    ...     reading = read_dataset(file, inputs=["legs"], targets=["tail"], names="pet")
    >>> print(reading.summary)
    2 samples from pets.csv (separated by semicolons, decimal commas): inputs legs; targets tail; names pet; left
    out year.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        more = (
            "; an .npy file holds one array, so save inputs and targets together by np.savez"
            if (path.suffix.lower() == ".npy")
            else ""
        )
        raise ValueError(
            f"{path} is neither .npz nor .csv, nor one of {', '.join(s for s in _READERS if s not in ('.npz', '.csv'))}"
            f"{more}; the formats are described in validation.data_files."
        )
    try:
        return reader(path, Columns(inputs, targets, names))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None


def load_dataset(
    path: str | Path,
    *,
    inputs: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    names: str | None = None,
) -> Dataset:
    r"""Return the data set in a file; arguments and errors as for `read_dataset`.

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
    return read_dataset(path, inputs=inputs, targets=targets, names=names).dataset


def save_dataset(path: str | Path, dataset: Dataset) -> None:
    """Write a data set as .npz, for `load_dataset` and ``python -m validation --data``.

    Raises
    ------
    ValueError
        If the file's name does not end in .npz.

    Examples
    --------
    >>> import tempfile
    >>> from theory import hierarchical_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_dataset(Path(folder) / "tree.npz", hierarchical_dataset())
    ...     load_dataset(Path(folder) / "tree.npz").names[0]
    'dog'
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise ValueError(f"a data set is written as .npz, but {path.name} was given; name it {path.stem}.npz.")
    with whole_file(path) as file:
        np.savez(file, inputs=dataset.inputs, targets=dataset.targets, names=np.array(dataset.names))


def whiten(dataset: Dataset, *, precision: DTypeLike | None = None) -> Dataset:
    """Return the data set with its inputs replaced by the nearest whitened ones, X (X^T X)^{-1/2}.

    A linear network on the new inputs is one on the old with another first layer, so the same maps can be learned, from
    other initial weights.

    Parameters
    ----------
    dataset
        Any data set.
    precision
        Floating-point type that the inputs were measured or stored in. If not given it is single where single precision
        holds every input exactly and some are not whole numbers, and double otherwise.

    Raises
    ------
    ValueError
        If the inputs have columns that depend linearly on each other, up to max(N, P) times the rounding error of their
        precision with every column in units of its own length: no whitening exists, or it would make inputs of rounding
        noise. Leave columns out, or combine them.
    TypeError
        If `precision` is no floating-point type.

    Examples
    --------
    >>> raw = Dataset(np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0]]), np.eye(3))
    >>> bool(abs(whiten(raw).sxx - np.eye(2)).max() < 1e-12)
    True
    """
    checks.instance("dataset", dataset, Dataset, made_by="theory.Dataset(inputs, targets)")
    n, p = dataset.inputs.shape
    kind = np.dtype(_precision(dataset.inputs) if precision is None else precision)
    if kind.kind != "f":
        raise TypeError(f"precision must be a floating-point type such as numpy.float32, but {kind} was given.")
    largest = np.abs(dataset.inputs).max(axis=0)
    rank = 0
    if largest.min() > 0:
        units = largest * np.linalg.norm(dataset.inputs / largest, axis=0)
        # With columns of length 1 the span is found to rounding whatever their units; the units then only choose the
        # basis of it that is nearest to X.
        basis, triangle = np.linalg.qr(dataset.inputs / units)
        s = np.linalg.svd(triangle, compute_uv=False)
        rank = int(np.sum(s > max(n, p) * float(np.finfo(kind).eps) * s[0]))
    else:
        rank = int(np.linalg.matrix_rank(dataset.inputs))
    if rank < p:
        raise ValueError(
            f"the {p} input columns of {n} samples have rank {rank} in {kind} precision, so they cannot be whitened; "
            "leave out or combine columns until they are linearly independent."
        )
    u, _, vt = np.linalg.svd(triangle * (units / units.max()))
    return Dataset(basis @ u @ vt, dataset.targets, dataset.names)


def _precision(inputs: np.ndarray) -> type[np.floating]:
    with np.errstate(over="ignore", under="ignore"):
        single = np.array_equal(inputs.astype(np.float32).astype(np.float64), inputs)
    return np.float32 if single and not np.array_equal(inputs, np.round(inputs)) else np.float64
