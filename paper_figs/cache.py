"""Results kept on disk by what was asked for and by the code that answers; a killed run loses no finished one."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache as once
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar, cast

from joblib import Memory

__all__ = ["ResultCache", "code_version"]

Result = TypeVar("Result")

_KEPT_BYTES = 2**30  # older results make room for newer ones beyond this
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

    A file that cannot be read back (cut short, or changed: the stored bytes carry a checksum) is computed again, with a
    note.

    Parameters
    ----------
    folder
        Where to keep results; nothing is kept if None.
    note
        Called with a sentence when a damaged result is computed again.

    Examples
    --------
    >>> import tempfile
    >>> cache = ResultCache(Path(tempfile.mkdtemp()))
    >>> cache.get("answer", "seed 0", lambda: 42), cache.get("answer", "seed 0", lambda: 43)
    (42, 42)
    >>> cache.get("answer", "seed 1", lambda: 43)
    43
    """

    def __init__(self, folder: Path | None, note: Callable[[str], object] | None = None) -> None:
        self._folder = folder
        self._memory = Memory(folder, verbose=0, compress=1)
        self._recall = self._memory.cache(_result, ignore=["compute"], verbose=0)
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
            Computes the result.
        """
        handler = _DamageHandler(lambda: self._note(f"The stored result {name!r} is damaged; computing it again."))
        logger = logging.getLogger("joblib")
        propagates = logger.propagate
        logger.addHandler(handler)
        logger.propagate = False
        try:
            return cast("Result", self._recall(name, repr(settings), code_version(), compute))
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagates

    def folder(self, name: str, settings: object) -> Path | None:
        """Return a folder for a computation that keeps its own parts, by the same key as `get`; None without one."""
        if self._folder is None:
            return None
        key = hashlib.sha256(f"{settings!r}\0{code_version()}".encode()).hexdigest()[:16]
        return self._folder / name.replace(" ", "-") / key

    def shrink(self) -> None:
        """Delete the results used least recently if they take more than 1 GiB together."""
        self._memory.reduce_size(bytes_limit=_KEPT_BYTES)


class _DamageHandler(logging.Handler):
    """joblib's only warning while recalling: a stored result could not be read, and is computed again."""

    def __init__(self, on_damage: Callable[[], object]) -> None:
        super().__init__(logging.WARNING)
        self._on_damage = on_damage

    def emit(self, record: logging.LogRecord) -> None:
        self._on_damage()


def _result(name: str, settings: str, code: str, compute: Callable[[], object]) -> object:
    return compute()


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
