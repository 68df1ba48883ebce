"""Where a run's results go: folders tried before any work, files whole or not at all, text that any terminal prints."""

from __future__ import annotations

import codecs
import os
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

__all__ = ["make_writable", "print_anywhere", "write_whole"]

# What the reports print beyond ASCII, for a terminal or a log that has no such letters.
_PLAIN = {
    "✓": "+", "≠": "/=", "≷": "<>", "≈": "~", "✗": "x", "·": ".", "◐": "o", "○": "-", "≤": "<=", "≥": ">=", "±": "+-",
    "\N{MULTIPLICATION SIGN}": "x", "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "…": "...",
    "“": '"', "”": '"', "━": "-", "╸": "-", "╺": "-",
}  # fmt: skip
_HANDLER = "stagewise-plain"


def make_writable(folder: Path) -> None:
    """Make a folder and try it, so that one that cannot be written to is refused before any work.

    Raises
    ------
    ValueError
        If it cannot be made, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder {folder} cannot be made: {error.strerror}. Choose another --out.") from None
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"1")
    except OSError as error:
        raise ValueError(f"the folder {folder} cannot be written to: {error.strerror}. Choose another --out.") from None


def write_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8 that is there as a whole or, where writing fails, as it was before.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def print_anywhere(*streams: Any) -> None:
    """Let streams print what their encoding lacks in plain letters instead of failing; stdout and stderr if none given.

    Examples
    --------
    >>> import io
    >>> log = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    >>> print_anywhere(log)
    >>> _ = log.write("✓ 0.1 ≤ 0.5 ± 0.1"), log.flush()
    >>> log.buffer.getvalue().decode("cp1252")
    '+ 0.1 <= 0.5 ± 0.1'
    """
    codecs.register_error(_HANDLER, _plainly)
    for stream in streams or (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors=_HANDLER)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Return plain letters in place of one that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wanted = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(letter) or _without_accents(letter) for letter in wanted)
    return plain, error.end


def _without_accents(letter: str) -> str:
    return unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?"
