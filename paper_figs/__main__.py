"""Command line: ``python -m paper_figs [2 3 ...] [--out DIR] [--seed N]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from numerics import TrainingConfig
from paper_figs.results import FIGURES, save_figure
from validation import ToyExperiment, ToySettings


def main(
    numbers: Annotated[list[int] | None, typer.Argument(help="Numbers of the figures; all there are if none.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out/figures"),
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and of the sampler.", min=0)] = 0,
) -> None:
    """Draw figures of the paper, analytic beside empirical: PNG, PDF, the numbers (netCDF) and the caption."""
    console = Console()
    chosen = numbers or list(FIGURES)
    unknown = [n for n in chosen if n not in FIGURES]
    if unknown:
        available = ", ".join(map(str, FIGURES))
        console.print(f"[red]There is no figure {unknown[0]} here; available are {available}.[/]")
        raise typer.Exit(2)
    out.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    saved = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=len(chosen))
        settings = ToySettings(training=TrainingConfig(seed=seed), seed=seed)
        results = ToyExperiment(settings, lambda what: progress.update(task, description=what))
        for number in chosen:
            progress.update(task, description=f"drawing figure {number}")
            saved += save_figure(FIGURES[number], results, out)
            progress.advance(task)
    for path in saved:
        console.print(f"Written to {path}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
