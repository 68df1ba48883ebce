"""A user's own claims: a Python file whose claims join the ledger, with their plots and planted faults."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

from validation.registry import Claim, all_claims, withdraw

__all__ = ["load_claims"]


def load_claims(path: str | Path) -> tuple[Claim, ...]:
    r"""Run a Python file that registers claims, and return them; they are in the ledger from then on.

    The file decorates functions by `claim`, which say what they found as `Check` and `Plot`, and by `planted_fault`
    what must make them fail::

        from validation import Check, claim, curves, numerics, planted_fault, theory

        @claim(
            "kernel-is-positive", "A sample's influence on itself is a square.", source="ours",
            compares=(theory("a squared norm"), numerics("the gradient kernel")), metric="smallest diagonal entry",
        )
        def kernel_is_positive(experiment):
            own = [float(experiment.kernel.sel(source=n, query=n).min()) for n in experiment.dataset.names]
            yield Check("smallest K_ii", min(own), low=0.0, why="a square")

        @planted_fault("kernel-is-positive", "the kernel's sign lost")
        def lost_sign(experiment):
            experiment.kernel = -experiment.kernel

    Parameters
    ----------
    path
        The file. Its claims form a family named by it.

    Raises
    ------
    ValueError
        If the file cannot be read or run, registers no claim, or one whose name is taken.

    Examples
    --------
    >>> import tempfile
    >>> text = (
    ...     "from validation import Check, claim, numerics, theory\n"
    ...     "@claim('two', '1 + 1 = 2.', source='ours', compares=(theory('2'), numerics('1 + 1')), metric='sum')\n"
    ...     "def two(experiment):\n"
    ...     "    yield Check('sum', 1 + 1, low=2, high=2, why='arithmetic')\n"
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "my_claims.py"
    ...     _ = file.write_text(text)
    ...     [(c.identifier, c.family) for c in load_claims(file)]
    [('two', 'my_claims')]
    """
    path = Path(path)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the claims in {path} cannot be read: {error.strerror or error}.") from None
    withdraw(c.identifier for c in all_claims() if c.measure.__code__.co_filename == str(path))
    before = {c.identifier for c in all_claims()}
    name = f"own_claims.{path.stem}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:  # the user's own code may raise anything; it is named with its line
        withdraw({c.identifier for c in all_claims()} - before)
        raise ValueError(f"the claims in {path} cannot be run: {_where(error, path)}{error}") from None
    found = tuple(c for c in all_claims() if c.identifier not in before)
    if not found:
        raise ValueError(f"{path} registers no claim; decorate a function by validation.claim.")
    return found


def _where(error: Exception, path: Path) -> str:
    """Return the kind of an error, and the line of the user's file that it comes from."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in line {error.lineno}: "
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{type(error).__name__}{f' in line {lines[-1]}' if lines else ''}: "
