"""Command line: ``python -m paper_figs [2 3 a e1 ...] [--out DIR] [--seed N] [--quick] [--device NAME]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from numerics.threads import one_thread
from paper_figs.cache import ResultCache
from paper_figs.progress import ProgressBars
from paper_figs.registry import FIGURES, find_figures, save_figure
from paper_figs.results import FigureSettings, Results
from validation.terminal import degrade_output, make_writable


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Which figures: {', '.join(FIGURES)}; all of them if none is named.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out/figures"),
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and of the samplers.", min=0)] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Coarser settings, to see that everything runs.")] = False,
    device: Annotated[str, typer.Option(help="Where chains run: cpu, or cuda.")] = "cpu",
    corpus: Annotated[str, typer.Option(help="Folder of text for Figures 5 and 14; Python's own if not given.")] = "",
    checkpoints: Annotated[
        str, typer.Option(help="Folder of revisions (step1000/...) for Figures 5 and 14; a model trained here if not.")
    ] = "",
) -> None:
    """Draw the paper's figures, analytic beside empirical: PNG, PDF, the numbers (netCDF) and the caption.

    Finished results are kept in OUT/.results, so that an interrupted run goes on where it was.

    Figure 6 takes minutes, all the others together about one.
    """
    degrade_output()
    console = Console()
    try:
        chosen = find_figures(names)
        settings = FigureSettings.seeded(seed, quick=quick, device=device, corpus=corpus, checkpoints=checkpoints)
        make_writable(out)
    except ValueError as error:
        console.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2) from None
    cache = ResultCache(out / ".results", lambda note: console.print(f"[yellow]{note}[/]", soft_wrap=True))
    written = 0
    with one_thread(), ProgressBars(console, len(chosen)) as bars:
        results = Results(settings, cache, bars)
        try:
            for figure in chosen:
                bars.figure(f"figure {figure.identifier}: {figure.about}")
                for path in save_figure(figure, results, out):
                    console.print(f"Written to {path}", highlight=False, soft_wrap=True)
                written += 1
                bars.figure_done()
        except KeyboardInterrupt:
            console.print(
                f"[yellow]Interrupted after {written} of {len(chosen)} figures. The same command goes on from here: "
                "what was finished is kept.[/]",
                soft_wrap=True,
            )
            raise typer.Exit(130) from None
        except OSError as error:
            console.print(
                f"After {written} of {len(chosen)} figures a file could not be written: {error.strerror or error} "
                f"({error.filename or out}). The same command goes on from here: what was finished is kept.",
                style="red",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            raise typer.Exit(2) from None
    cache.shrink()


if __name__ == "__main__":
    typer.run(main)
