"""Command line: ``python -m validation [--quick] [--only NAME] [--seed N] [--out DIR] [--data FILE] [--claims FILE]``.

With ``--data``, ``--inputs``, ``--targets`` and ``--names`` say which columns of the file are what.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from numerics import TrainingConfig
from validation.cross_check import cross_check, refuse_unsolvable
from validation.data_files import read_dataset
from validation.experiments.base import Settings
from validation.experiments.scaled_settings import settings_for
from validation.experiments.toy import ToyExperiment
from validation.own_claims import load_claims
from validation.page import write_html
from validation.pairs import MATRIX, PAIRS
from validation.registry import Claim, Cost, Verdict, all_claims, select_claims
from validation.report import MARKS, STYLES, print_ledger, summary, write_json
from validation.runner import Ledger, run_ledger
from validation.tables import DataReading
from validation.terminal import degrade_output, make_writable

_INTERRUPTED = 130
_NOT_WRITTEN = "The report could not be written"
_FILES = {"validation.json": write_json, "validation.html": write_html}


def main(
    only: Annotated[
        list[str] | None,
        typer.Option(help="Check only the claims whose id starts so, or of that family; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write validation.json and validation.html into this folder.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the claims that take minutes.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and of the sampler.", min=0)] = 0,
    data: Annotated[
        Path | None,
        typer.Option(help="Cross-check your own whitened data (.csv, .npz, .nc, ...) instead of the toy model."),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(help="Columns of --data that are inputs, separated by commas; x1, x2, ... if not given."),
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Columns of --data that are targets; y1, y2, ... if not given.")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Column of --data with the samples' names; name if not given.")
    ] = None,
    own_claims: Annotated[
        Path | None,
        typer.Option("--claims", help="A Python file whose claims join the ledger; with --data, measured on the data."),
    ] = None,
) -> None:
    """Cross-check theory, sampling and retraining; exit status 1 if a claim fails, 2 if one is inconclusive."""
    degrade_output()
    console = Console(width=None if Console().is_terminal else 180)
    try:
        if data is not None and (only or quick):
            raise ValueError("--only and --quick choose claims about the toy model; leave them out with --data.")
        if data is None and (inputs or targets or names):
            raise ValueError("--inputs, --targets and --names say what the columns of --data are; give it too.")
        own = () if own_claims is None else load_claims(own_claims)
        claims = own if data is not None else select_claims(only) if only else all_claims()
        if out is not None:
            make_writable(out, *_FILES)
        reading = None
        settings = Settings(training=TrainingConfig(seed=seed), seed=seed)
        if data is not None:
            reading = read_dataset(data, inputs=_split(inputs), targets=_split(targets), names=names)
            console.print(reading.summary, highlight=False, markup=False)
            settings = settings_for(reading.dataset, seed=seed)
            refuse_unsolvable(reading.dataset, settings)
    except ValueError as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        raise typer.Exit(2) from None
    if quick:
        claims = tuple(claim for claim in claims if claim.cost is Cost.QUICK)
    ledger = _run(console, settings, claims, reading, whole=not only)
    said = "" if out is None else _write(out, ledger)  # before the terminal, which may fail to show what was found
    try:
        print_ledger(console, ledger, details=bool(only))
        console.print(f"\n{summary(ledger)}", highlight=False)
        if said:
            console.print(said, highlight=False, markup=False, soft_wrap=True)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if said.startswith(_NOT_WRITTEN):
        raise typer.Exit(2)
    if ledger.unfinished:
        raise typer.Exit(_INTERRUPTED)
    if ledger.failed:
        raise typer.Exit(1)
    if ledger.inconclusive:
        raise typer.Exit(2)


def _split(columns: str | None) -> list[str] | None:
    return None if columns is None else [name.strip() for name in columns.split(",")]


def _write(out: Path, ledger: Ledger) -> str:
    """Write both reports, each whole or not at all, and return a sentence; without room there is still the terminal."""
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as unfinished:
            for name, write in _FILES.items():
                write(Path(unfinished) / name, ledger)
            for name in _FILES:
                os.replace(Path(unfinished) / name, out / name)
    except OSError as error:
        return f"{_NOT_WRITTEN} in {out}: {error.strerror}. What was found stands above."
    return f"Written to {' and '.join(str(out / name) for name in reversed(_FILES))}."


def _run(
    console: Console, settings: Settings, claims: tuple[Claim, ...], reading: DataReading | None, *, whole: bool
) -> Ledger:
    """Measure everything with a progress bar and a line for each claim that is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        total = (len(PAIRS) if whole else 0) + len(claims)
        task = progress.add_task("starting", total=total)

        def started(what: str) -> None:
            progress.update(task, description=what)

        def finished(name: str, verdict: Verdict, seconds: float) -> None:
            progress.advance(task)
            if console.is_terminal:
                progress.console.print(f"[{STYLES[verdict]}]{MARKS[verdict]}[/] {name} [dim]{seconds:.1f} s[/]")

        if reading is not None:
            return cross_check(
                reading.dataset, settings, notes=[reading.summary], claims=claims, started=started, finished=finished
            )
        return run_ledger(
            "Stagewise influence: does the derivation hold?",
            ToyExperiment(settings, started),
            claims=claims,
            pairs=PAIRS if whole else (),
            measures=MATRIX if whole else (),
            processes=min(2, len(os.sched_getaffinity(0))) if whole else 1,
            started=started,
            finished=finished,
        )


if __name__ == "__main__":
    typer.run(main)
