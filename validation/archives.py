"""A user's archives of arrays: which are inputs, targets and names, from .npz files, xarray and NetCDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from theory import Dataset
from validation.tables import Columns, DataReading

__all__ = ["dataset_of_arrays", "read_netcdf", "read_npz"]


def read_npz(path: Path, columns: Columns) -> DataReading:
    """Read an .npz file; see `validation.data_files.read_dataset`."""
    wanted = _wanted(path.name, columns)
    try:
        with path.open("rb") as file:  # np.load leaves a damaged archive open that it opened itself
            stored = np.load(file, allow_pickle=False)
            if not hasattr(stored, "files"):
                raise ValueError("it holds one array without a name, like an .npy file; save all by np.savez")
            present = tuple(stored.files)
            arrays = {name: _member(path, stored, name) for name in wanted.values() if name in present}
    except OSError:
        raise
    except _Refused as refused:
        raise ValueError(str(refused)) from None
    except Exception as error:  # whatever zipfile, zlib and numpy raise of a file that is damaged or no archive
        raise ValueError(f"{path} is not a valid .npz file: {error or type(error).__name__}.") from None
    return _reading(path.name, wanted, arrays, present, columns)


class _Refused(Exception):
    """What is wrong with one array, in a sentence."""


def _member(path: Path, stored: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(stored[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        remedy = "names as np.array(names, dtype=str)" if name == "names" else "it as an array of numbers"
        raise _Refused(
            f"{path}: array {name!r} holds Python objects, which are not loaded because they may run code; save "
            f"{remedy}."
        ) from None


def read_netcdf(path: Path, columns: Columns) -> DataReading:
    """Read a NetCDF file by xarray; see `validation.data_files.read_dataset`."""
    try:
        with h5py.File(path, "r") as file:  # what is damaged is found here, quietly: h5netcdf would leave it half open
            dict(file.attrs)
            file.visititems(lambda _, part: dict(part.attrs) and None)
        with xr.open_dataset(path, engine="h5netcdf") as stored:
            table = stored.load()
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever HDF5 raises of a file that is none
        raise ValueError(f"{path} is not a valid NetCDF file: {error or type(error).__name__}.") from None
    return _of_arrays(table, path.name, columns)


def dataset_of_arrays(
    arrays: xr.Dataset, *, inputs: str = "inputs", targets: str = "targets", names: str | None = None
) -> DataReading:
    """Read a data set from the variables of an xarray data set.

    Parameters
    ----------
    arrays
        Variables of two dimensions, the first of which they share; its coordinate names the samples.
    inputs, targets
        Names of the variables.
    names
        Name of a variable or coordinate with the samples' names, instead.

    Examples
    --------
    >>> arrays = xr.Dataset({"inputs": (("pet", "p"), np.eye(2)), "targets": (("pet", "o"), [[3.0], [2.0]])})
    >>> dataset_of_arrays(arrays.assign_coords(pet=["dog", "cat"])).dataset.names
    ('dog', 'cat')
    """
    if not isinstance(arrays, xr.Dataset):
        raise TypeError(f"an xarray Dataset is needed, but {type(arrays).__name__} was given.")
    return _of_arrays(arrays, "the data set", Columns([inputs], [targets], names))


def _of_arrays(table: xr.Dataset, source: str, columns: Columns) -> DataReading:
    wanted = _wanted(source, columns)
    present = tuple(str(name) for name in (*table.data_vars, *table.coords))
    arrays = {name: table[name] for name in wanted.values() if name in present}
    for role in ("inputs", "targets"):
        array = arrays.get(wanted[role])
        if array is not None and array.ndim != 2:
            raise ValueError(f"{source}: {wanted[role]!r} has dims {array.dims}, but samples and features are needed.")
    if all(wanted[role] in arrays for role in ("inputs", "targets")):
        first = arrays[wanted["inputs"]]
        rows = first.dims[0]
        arrays[wanted["targets"]] = arrays[wanted["targets"]].transpose(rows, ..., missing_dims="ignore")
        if wanted["names"] not in arrays and rows in first.coords and first.coords[rows].dtype.kind in "UTO":
            wanted["names"] = str(rows)
            arrays[str(rows)] = first.coords[rows]
    return _reading(source, wanted, {name: np.ma.asarray(a.values) for name, a in arrays.items()}, present, columns)


def _wanted(source: str, columns: Columns) -> dict[str, str]:
    wanted = {"names": columns.names or "names"}
    for role, given in (("inputs", columns.inputs), ("targets", columns.targets)):
        if given is not None and len(given) != 1:
            raise ValueError(f"{source} holds arrays: give one as {role}, but {len(given)} were given.")
        wanted[role] = given[0] if given is not None else role
    return wanted


def _reading(
    source: str,
    wanted: dict[str, str],
    arrays: dict[str, np.ndarray],
    present: Sequence[str],
    columns: Columns,
) -> DataReading:
    for role in ("inputs", "targets"):
        if wanted[role] not in arrays:
            raise ValueError(f"{source} has no array {wanted[role]!r}; it has {', '.join(present) or 'none'}.")
    if columns.names is not None and columns.names not in arrays:
        raise ValueError(f"{source} has no array {columns.names!r}; it has {', '.join(present) or 'none'}.")
    inputs, targets = arrays[wanted["inputs"]], arrays[wanted["targets"]]
    named = wanted["names"] in arrays
    for role, array in (("inputs", inputs), ("targets", targets)):
        if array.ndim != 2:
            remedy = f"; {wanted[role]}[:, None] makes one column of it" if array.ndim == 1 else ""
            raise ValueError(
                f"{source}: {wanted[role]} must have 2 dimensions, samples and features, but its shape is "
                f"{array.shape}{remedy}."
            )
    try:
        names = _strings(wanted["names"], arrays[wanted["names"]], len(inputs)) if named else ()
        dataset = Dataset(inputs, targets, names)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None
    used = {wanted["inputs"], wanted["targets"], *([wanted["names"]] if named else [])}
    kinds = f"{inputs.dtype} and {targets.dtype}"
    return DataReading(
        dataset,
        f"{source} ({kinds})",
        (f"{wanted['inputs']} {inputs.shape}",),
        (f"{wanted['targets']} {targets.shape}",),
        wanted["names"] if named else "",
        tuple(name for name in present if name not in used),
    )


def _strings(name: str, array: np.ndarray, count: int) -> tuple[str, ...]:
    """Return names from an array of strings, bytes or numbers, in one dimension or one column."""
    if array.ndim == 2 and 1 in array.shape:
        array = array.ravel()
    if array.ndim != 1 or len(array) != count:
        raise ValueError(f"{name} has shape {array.shape}, but {count} names are needed, one a sample.")
    if np.ma.is_masked(array):
        raise ValueError(f"{name} has masked entries; name every sample.")
    try:
        names = tuple(n.decode("utf-8") if isinstance(n, bytes) else str(n) for n in array.tolist())
    except UnicodeDecodeError:
        raise ValueError(f"{name} holds bytes that are not UTF-8; save it as np.array(names, dtype=str).") from None
    if empty := [k for k, text in enumerate(names) if not text.strip()]:
        raise ValueError(f"{name}: the name of sample {empty[0]} is empty.")
    return names
