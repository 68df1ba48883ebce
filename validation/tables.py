"""A user's tables: which columns are inputs, targets and names, from text files, pandas and Parquet."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from theory import Dataset

__all__ = ["Columns", "DataReading", "dataset_of", "read_parquet", "read_text"]

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_PATTERN = re.compile(r"[xy]\d*", re.IGNORECASE | re.ASCII)
_SHOWN = 40  # characters of a cell, or columns of a listing, that a sentence quotes


@dataclass(frozen=True)
class Columns:
    """Which columns hold inputs, targets and names, where the user says so."""

    inputs: Sequence[str] | None = None
    targets: Sequence[str] | None = None
    names: str | None = None

    @property
    def given(self) -> bool:
        """Whether anything is said."""
        return any(part is not None for part in (self.inputs, self.targets, self.names))


@dataclass(frozen=True, eq=False)
class DataReading:
    """A data set and where it came from.

    Parameters
    ----------
    dataset
        The data.
    source
        File, or kind of object, with how it was read.
    inputs, targets, ignored
        Names of the columns or arrays that became inputs and targets, and that were left out.
    names
        Column or array of the samples' names; empty if there was none.
    """

    dataset: Dataset
    source: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    names: str = ""
    ignored: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What was read, in one sentence."""
        parts = [f"inputs {_listed(self.inputs)}", f"targets {_listed(self.targets)}"]
        parts.append(f"names {self.names}" if self.names else "no names")
        if self.ignored:
            parts.append(f"left out {_listed(self.ignored)}")
        return f"{len(self.dataset)} samples from {self.source}: {'; '.join(parts)}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:10])}, ..., {names[-1]} ({len(names)})"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def dataset_of(
    table: pd.DataFrame,
    *,
    inputs: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    names: str | None = None,
) -> DataReading:
    """Read a data set from a pandas table.

    Parameters
    ----------
    table
        One row a sample. Rows of an index of strings are named by it, if no column of names is.
    inputs, targets, names
        As for `read_dataset`.

    Raises
    ------
    TypeError
        If a column is not numeric.
    ValueError
        If a column is missing, is repeated or has no clear place, or a number is missing or not finite.

    Examples
    --------
    >>> table = pd.DataFrame({"x1": [1.0, 0.0], "x2": [0.0, 1.0], "y1": [3.0, 2.0]}, index=["dog", "cat"])
    >>> dataset_of(table).dataset.names
    ('dog', 'cat')
    """
    return _of_table(table, "the table", Columns(inputs, targets, names))


def _of_table(table: pd.DataFrame, source: str, columns: Columns) -> DataReading:
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"a pandas DataFrame is needed, but {type(table).__name__} was given.")
    header = [str(name) for name in table.columns]
    places = _places(source, header, columns)
    if not len(table):
        raise ValueError(f"{source} has columns and no samples.")

    def numbers(chosen: list[int]) -> np.ndarray:
        result = []
        for k in chosen:
            column = table.iloc[:, k]
            if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_complex_dtype(column):
                raise TypeError(f"{source}: column {header[k]!r} holds {column.dtype}, not real numbers.")
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values))[0])
                raise ValueError(
                    f"{source}: column {header[k]!r} is missing or not finite in row {row}; remove or impute it first."
                )
            result.append(values)
        return np.stack(result, axis=1)

    named, label = _row_names(table, header, places.names)
    return DataReading(
        _dataset(source, numbers(places.inputs), numbers(places.targets), named),
        source,
        tuple(header[k] for k in places.inputs),
        tuple(header[k] for k in places.targets),
        label,
        tuple(header[k] for k in places.ignored),
    )


def _row_names(table: pd.DataFrame, header: list[str], column: int | None) -> tuple[tuple[str, ...], str]:
    if column is not None:
        return tuple(str(name) for name in table.iloc[:, column]), header[column]
    if all(isinstance(label, str) for label in table.index):
        return tuple(table.index), str(table.index.name or "the index")
    return (), ""


def _dataset(source: str, inputs: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> Dataset:
    if any(not name.strip() for name in names):
        raise ValueError(f"{source}: the name of sample {[bool(n.strip()) for n in names].index(False)} is empty.")
    try:
        return Dataset(inputs, targets, tuple(names))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{source}: {error}") from None


@dataclass(frozen=True)
class _Places:
    inputs: list[int]
    targets: list[int]
    names: int | None
    ignored: list[int]


def _places(where: str, header: list[str], columns: Columns) -> _Places:
    """Return which column is what, by the user's word or by the pattern of its name."""
    for k, title in enumerate(header):
        if not title:
            raise ValueError(
                f"{where}: column {k + 1} has no name; give it one, or leave it out (pandas writes no index with "
                "index=False)."
            )
        if title in header[:k]:
            raise ValueError(f"{where}: two columns are called {_quoted(title)}.")
    asked = [*(columns.inputs or ()), *(columns.targets or ()), *([] if columns.names is None else [columns.names])]
    for k, title in enumerate(asked):
        if title not in header:
            raise ValueError(f"{where} has no column {title!r}; it has {_listed([_quoted(t) for t in header])}.")
        if title in asked[:k]:
            raise ValueError(f"column {title!r} is asked for twice; every column has one place.")
    rest = [title for title in header if title not in asked]
    found = {
        kind: list(given) if given is not None else [t for t in rest if _PATTERN.fullmatch(t) and t[0].lower() == kind]
        for kind, given in (("x", columns.inputs), ("y", columns.targets))
    }
    name = columns.names if columns.names is not None else next((t for t in rest if t.lower() == "name"), None)
    used = {*found["x"], *found["y"], *([name] if name is not None else [])}
    ignored = [title for title in header if title not in used]
    if ignored and not columns.given:
        raise ValueError(
            f"{where}: column {_quoted(ignored[0])} is neither 'name' nor an input (x1, x2, ...) nor a target (y1, y2, "
            "...); rename it or leave it out, or say which columns are what: inputs=, targets= and names=, on the "
            "command line --inputs, --targets and --names."
        )
    for kind, what in (("x", "input"), ("y", "target")):
        if not found[kind]:
            raise ValueError(f"{where}: no {what} column; name at least one {kind}1, {kind}2, ..., or say which it is.")
    at = header.index
    return _Places(
        [at(t) for t in found["x"]],
        [at(t) for t in found["y"]],
        None if name is None else at(name),
        [at(t) for t in ignored],
    )


def read_parquet(path: Path, columns: Columns) -> DataReading:
    """Read a Parquet file by pandas; see `validation.data_files.read_dataset`."""
    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise ValueError(
            f"{path} needs pyarrow to be read, which is not installed: pip install pyarrow, or save the table as .csv."
        ) from None
    except OSError:
        raise
    except Exception as error:  # whatever a Parquet library raises of a file that is none
        raise ValueError(f"{path} is not a valid Parquet file: {error}.") from None
    return _of_table(table, path.name, columns)


def read_text(path: Path, columns: Columns) -> DataReading:
    """Read a table in a text file; see `validation.data_files.read_dataset`."""
    lines, separator = _lines(path)
    if not lines:
        raise ValueError(f"{path} is empty; its first line must name the columns: name,x1,x2,...,y1,y2,...")
    (first, header), *rows = lines
    places = _places(f"{path}, line {first}", header, columns)
    if not rows:
        raise ValueError(f"{path} has a header and no samples.")
    for line, row in rows:
        if len(row) != len(header):
            hint = "; a decimal comma needs semicolons or tabs between columns" if separator == "," else ""
            raise ValueError(f"{path}, line {line}: {len(row)} fields, but the header has {len(header)}{hint}.")
    chosen = places.inputs + places.targets
    decimal = _decimal_comma(path, rows, chosen) if separator != "," else False
    values = np.array([[_number(path, line, header[k], row[k], decimal=decimal) for k in chosen] for line, row in rows])
    names = _text_names(path, rows, places.names)
    how = f"separated by {_SEPARATORS[separator]}{', decimal commas' if decimal else ''}"
    return DataReading(
        _dataset(path.name, values[:, : len(places.inputs)], values[:, len(places.inputs) :], names),
        f"{path.name} ({how})",
        tuple(header[k] for k in places.inputs),
        tuple(header[k] for k in places.targets),
        "" if places.names is None else header[places.names],
        tuple(header[k] for k in places.ignored),
    )


def _lines(path: Path) -> tuple[list[tuple[int, list[str]]], str]:
    """Return the lines that are not empty, by number, and the separator that the header tells."""
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} is a text file in UTF-16; save it in UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}.") from None
    if "\0" in text:
        raise ValueError(f"{path} is not a text file: it has a null character at position {text.index(chr(0))}.")
    records = text.splitlines(keepends=True)
    header = next((record for record in records if record.strip()), "")
    if header.lstrip().startswith("#"):
        raise ValueError(f"{path}: the first line is a comment, {header.strip()[:40]!r}; leave comments out.")
    separator = max(_SEPARATORS, key=header.count)
    if not header.count(separator) and len(re.split(r"[\s|]+", header.strip())) > 1:
        other = "bars" if "|" in header else "spaces"
        raise ValueError(f"{path}: columns are separated by {other}; use commas, semicolons or tabs.")
    reader = csv.reader(re.split(r"(?<=\n)|(?<=\r)(?!\n)", text), delimiter=separator, strict=True)
    lines = []
    try:
        for row in reader:
            if any(field.strip() for field in row):
                lines.append((reader.line_num, [field.strip() for field in row]))
    except csv.Error as error:
        what = str(error)
        if "field larger" in what:
            what = f"a cell is longer than {csv.field_size_limit()} characters; is a quotation mark left open?"
        elif "unexpected end" in what:
            what = "a quotation mark is left open"
        raise ValueError(f"{path}, line {reader.line_num}: {what.rstrip('.')}.") from None
    return lines, separator


def _decimal_comma(path: Path, rows: list[tuple[int, list[str]]], chosen: list[int]) -> bool:
    """Return whether numbers have a decimal comma; refuse a file in which some have a point."""
    commas = [line for line, row in rows if any("," in row[k] for k in chosen)]
    points = [line for line, row in rows if any("." in row[k] for k in chosen)]
    if commas and points:
        raise ValueError(
            f"{path}: numbers have a decimal comma in line {commas[0]} and a point in line {points[0]}; use one."
        )
    return bool(commas)


def _number(path: Path, line: int, title: str, text: str, *, decimal: bool) -> float:
    where = f"{path}, line {line}, column {title}"
    plain = text.replace(",", ".") if decimal else text
    if not _NUMBER.fullmatch(plain):
        if plain.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            raise ValueError(f"{where}: {_quoted(text)} is not finite.")
        raise ValueError(f"{where}: {_quoted(text)} is not a number.")
    value = float(plain)
    if not math.isfinite(value):
        raise ValueError(f"{where}: {_quoted(text)} is not finite.")
    return value


def _text_names(path: Path, rows: list[tuple[int, list[str]]], column: int | None) -> tuple[str, ...]:
    if column is None:
        return ()
    seen: set[str] = set()
    for line, row in rows:
        name = row[column]
        if not name:
            raise ValueError(f"{path}, line {line}: the name is empty.")
        if name in seen:
            raise ValueError(f"{path}, line {line}: the name {_quoted(name)} occurs for the second time.")
        seen.add(name)
    return tuple(row[column] for _, row in rows)
