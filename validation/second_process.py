"""A second process that measures claims of the ledger from the end of the list while the first starts at its front."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from numerics.threads import one_thread
from validation.experiments.base import Settings
from validation.experiments.toy import ToyExperiment
from validation.registry import Claim, ClaimResult, run_claim, select_claims

__all__ = ["SharedClaims"]

# Families whose claims share runs of minutes, which both processes would make.
_TOGETHER = {"language"}


class SharedClaims:
    """Claims of the ledger that two processes measure, each with shared runs of its own.

    The first process takes them from the front by `next`; a thread hands those at the end to the second. Only claims
    that stand in `validation.claims` go there: it would not know others.

    Parameters
    ----------
    claims
        What is measured, in order.
    settings
        Of the toy experiment in the second process; None for no second process.
    started, finished
        Called with the name of each claim that goes to the second process, and with its result.

    Examples
    --------
    >>> shared = SharedClaims(select_claims(["deep-chains"]), None)
    >>> [shared.claims[k].identifier for k in iter(shared.next, None)]
    ['deep-chains']
    """

    def __init__(
        self,
        claims: Sequence[Claim],
        settings: Settings | None,
        started: Callable[[str], object] = lambda _: None,
        finished: Callable[[ClaimResult], object] = lambda _: None,
    ) -> None:
        self.claims = tuple(claims)
        self.results: dict[int, ClaimResult] = {}
        self._waiting = deque(range(len(self.claims)))
        self._lock = threading.Lock()
        self._begun: dict[str, str] = {}  # families that stay together, and the process that measures them
        self._started, self._finished = started, finished
        self._process: multiprocessing.process.BaseProcess | None = None
        if settings is not None:
            # not forked: this process has threads, of torch and of the progress bar
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            # no daemon: claims about language models start processes of their own
            self._process = context.Process(target=_serve, args=(theirs, settings))
            self._process.start()
            theirs.close()
            self._thread = threading.Thread(target=self._hand_over, daemon=True)
            self._thread.start()

    def next(self) -> int | None:
        """Return the place of the next claim for the first process; None if none is left for it."""
        with self._lock:
            return self._taken(list(self._waiting), "first")

    def _taken(self, places: Sequence[int], process: str) -> int | None:
        """Take the first of some waiting claims whose family the other process has not begun, if it stays together."""
        for k in places:
            family = self.claims[k].family
            if family not in _TOGETHER or self._begun.setdefault(family, process) == process:
                self._waiting.remove(k)
                return k
        return None

    def wait(self) -> None:
        """Wait for what the second process is measuring, or take it back if that process has died."""
        if self._process is not None:
            self._thread.join()

    def stop(self) -> None:
        """End the second process, whatever it is doing."""
        with self._lock:
            self._waiting.clear()
        if self._process is not None:
            self._process.terminate()
            self._process.join()
            self._thread.join()
            self._connection.close()

    def _last(self) -> int | None:
        with self._lock:
            ours = [k for k in self._waiting if self.claims[k].measure.__module__.startswith("validation.claims.")]
            return self._taken(ours[::-1], "second")

    def _hand_over(self) -> None:
        while (k := self._last()) is not None:
            try:
                self._connection.send(self.claims[k].identifier)
                self._started(self.claims[k].identifier)
                self.results[k] = self._connection.recv()
            except (EOFError, OSError):  # it died, or was ended: the first process measures what it had
                with self._lock:
                    self._waiting.append(k)
                    self._begun.clear()
                return
            self._finished(self.results[k])


@one_thread()
def _serve(connection: Connection, settings: Settings) -> None:
    """Measure claims by name until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the first one ends this one
    experiment = ToyExperiment(settings)
    while True:
        try:
            name = connection.recv()
        except (EOFError, OSError):
            return
        (claim,) = (c for c in select_claims([name]) if c.identifier == name)
        connection.send(run_claim(claim, experiment))
