"""How a long run tells what it is doing: nothing by default, bars on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

__all__ = ["ProgressBars", "Reporter"]

Advance = Callable[[int], object]


class Reporter:
    """What a computation tells while it runs; this one passes nothing on.

    Examples
    --------
    >>> with Reporter().counted("sampling", 10) as advance:
    ...     advance(3)
    """

    def announce(self, what: str) -> None:
        """Say what begins."""

    @contextmanager
    def counted(self, what: str, total: int) -> Iterator[Advance]:
        """Say what begins and how many steps it has, and hand over a function that counts steps done."""
        yield lambda _: None


class ProgressBars(Reporter):
    """One bar for the figures and, below it, one for what is computed at the moment.

    Parameters
    ----------
    console
        Where to draw.
    total
        Number of figures.

    Examples
    --------
    >>> import io
    >>> with ProgressBars(Console(file=io.StringIO()), total=2) as bars:
    ...     bars.figure("figure 3")
    ...     bars.figure_done()
    """

    def __init__(self, console: Console, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Bars(*columns, console=console, transient=True)
        self._figures = self._bars.add_task("starting", total=total)
        self._now = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> ProgressBars:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bars away."""
        self._bars.stop()

    def figure(self, what: str) -> None:
        """Say which figure is drawn."""
        self._bars.update(self._figures, description=what)
        self._bars.update(self._now, visible=False)

    def figure_done(self) -> None:
        """Count a figure."""
        self._bars.advance(self._figures)

    def announce(self, what: str) -> None:
        """Say what begins, without a count."""
        self._bars.reset(self._now, description=f"  {what}", total=None, visible=True)

    @contextmanager
    def counted(self, what: str, total: int) -> Iterator[Advance]:
        """Show a bar of `total` steps."""
        self._bars.reset(self._now, description=f"  {what}", total=total, visible=True)
        yield lambda steps: self._bars.advance(self._now, steps)
        self._bars.update(self._now, visible=False)
