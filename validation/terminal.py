"""What commands owe their user: a folder is tried before any work, and no terminal is too narrow for what is said."""

from __future__ import annotations

import codecs
import os
import sys
import tempfile
import unicodedata
from pathlib import Path

__all__ = ["degrade_output", "in_ascii", "make_writable"]

_HANDLER = "stagewise.spelled-out"
_SPELLED = {
    "✓": "+",
    "✗": "x",
    "≠": "!",
    "≷": "/",
    "≈": "~",
    "·": ".",
    "≤": "<=",
    "≥": ">=",
    "±": "+-",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "→": "->",
    "×": "x",
    "λ": "lambda",
    "γ": "gamma",
    "β": "beta",
    "∑": "sum",
    "“": '"',
    "”": '"',
    "’": "'",
}


def in_ascii(text: str) -> str:
    """Return the text in ASCII: signs spelled out, accents left out, "?" for the rest.

    Examples
    --------
    >>> in_ascii("✓ Pearson ≥ 0.99, café")
    '+ Pearson >= 0.99, cafe'
    """
    letters = unicodedata.normalize("NFKD", "".join(_SPELLED.get(sign, sign) for sign in text))
    return "".join(c if ord(c) < 128 else "?" for c in letters if not unicodedata.combining(c))


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return in_ascii(error.object[error.start : error.end]), error.end


def degrade_output() -> None:
    """Let standard output and error spell out in ASCII what their encoding does not know, instead of failing on it."""
    codecs.register_error(_HANDLER, _spell_out)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not str(stream.encoding).lower().startswith("utf"):
            reconfigure(errors=_HANDLER)


def make_writable(folder: Path, *files: str) -> None:
    """Make the folder, and refuse one in which `files` cannot be written, before anything is computed.

    A file is written for trial and deleted, since permissions do not tell of full disks and read-only mounts.

    Raises
    ------
    ValueError
        If the folder cannot be made or written to, or a folder stands in a file's place.

    Examples
    --------
    >>> make_writable(Path(tempfile.mkdtemp()) / "new")
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder {folder} cannot be made: {error.strerror}. Choose another --out.") from None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".trial-") as trial:
            trial.write(bytes(4096))
            trial.flush()
            os.fsync(trial.fileno())
    except OSError as error:
        raise ValueError(f"the folder {folder} cannot be written to: {error.strerror}. Choose another --out.") from None
    for name in files:
        if (folder / name).is_dir():
            raise ValueError(f"{folder / name} is a folder, but a file is written there. Choose another --out.")
