"""Command line: ``python -m validation [--quick] [--only NAME] [--seed N] [--out DIR] [--data FILE]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from numerics import TrainingConfig
from theory import Dataset
from validation.cross_check import cross_check
from validation.data_files import load_dataset
from validation.experiments.base import Settings
from validation.experiments.scaled_settings import settings_for
from validation.experiments.toy import ToyExperiment
from validation.page import write_html
from validation.pairs import MATRIX, PAIRS
from validation.registry import Claim, Cost, Verdict, all_claims, select_claims
from validation.report import MARKS, STYLES, print_ledger, summary, write_json
from validation.runner import Ledger, run_ledger

_INTERRUPTED = 130


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
        Path | None, typer.Option(help="Cross-check your own whitened data (.npz or .csv) instead of the toy model.")
    ] = None,
) -> None:
    """Cross-check theory, sampling and retraining; exit status 1 if a claim fails, 2 if one is inconclusive."""
    console = Console(width=None if Console().is_terminal else 180)
    try:
        if data is not None and (only or quick):
            raise ValueError("--only and --quick choose claims about the toy model; leave them out with --data.")
        claims = select_claims(only) if only else all_claims()
        dataset = None if data is None else load_dataset(data)
        settings = Settings(training=TrainingConfig(seed=seed), seed=seed)
        if dataset is not None:
            settings = settings_for(dataset, seed=seed)
        _make_folder(out)
    except ValueError as error:
        console.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from None
    if quick:
        claims = tuple(claim for claim in claims if claim.cost is Cost.QUICK)
    ledger = _run(console, settings, claims, dataset, whole=not only)
    print_ledger(console, ledger, details=bool(only))
    console.print(f"\n{summary(ledger)}", highlight=False)
    if out is not None:
        write_json(out / "validation.json", ledger)
        write_html(out / "validation.html", ledger)
        console.print(f"Written to {out / 'validation.html'} and {out / 'validation.json'}.")
    if ledger.unfinished:
        raise typer.Exit(_INTERRUPTED)
    if ledger.failed:
        raise typer.Exit(1)
    if ledger.inconclusive:
        raise typer.Exit(2)


def _make_folder(out: Path | None) -> None:
    if out is None:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder {out} cannot be made: {error.strerror}. Choose another --out.") from None


def _run(
    console: Console, settings: Settings, claims: tuple[Claim, ...], dataset: Dataset | None, *, whole: bool
) -> Ledger:
    """Measure everything with a progress bar and a line for each claim that is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        total = (len(PAIRS) if whole else 0) + (len(claims) if dataset is None else 0)
        task = progress.add_task("starting", total=total)

        def started(what: str) -> None:
            progress.update(task, description=what)

        def finished(name: str, verdict: Verdict, seconds: float) -> None:
            progress.advance(task)
            if console.is_terminal:
                progress.console.print(f"[{STYLES[verdict]}]{MARKS[verdict]}[/] {name} [dim]{seconds:.1f} s[/]")

        if dataset is not None:
            return cross_check(dataset, settings, started=started, finished=finished)
        return run_ledger(
            "Stagewise influence: does the derivation hold?",
            ToyExperiment(settings, started),
            claims=claims,
            pairs=PAIRS if whole else (),
            measures=MATRIX if whole else (),
            started=started,
            finished=finished,
        )


if __name__ == "__main__":
    typer.run(main)
