"""Command line: ``python -m validation [--quick] [--only NAME] [--out DIR] [--seed N]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from numerics import TrainingConfig
from validation.claims import Verdict, all_claims, run_claim, select_claims
from validation.pairs import PAIRS, compare
from validation.report import print_report, write_json
from validation.toy import ToyExperiment, ToySettings


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="Check only the claims whose id starts so; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write validation.json into this folder.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what needs the sampled posterior.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and of the sampler.")] = 0,
) -> None:
    """Cross-check theory, sampling and retraining in the toy model; exit status 1 if a claim that should hold fails."""
    console = Console(width=None if Console().is_terminal else 180)
    try:
        claims = select_claims(only) if only else all_claims()
    except ValueError as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(2) from None
    pairs = () if only else PAIRS
    if quick:
        claims = tuple(claim for claim in claims if not claim.sampled)
        pairs = tuple(pair for pair in pairs if "BIF" not in (pair.reference, pair.measure))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    settings = ToySettings(training=TrainingConfig(seed=seed), seed=seed)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=len(pairs) + len(claims))
        experiment = ToyExperiment(settings, lambda what: progress.update(task, description=what))
        pair_results, claim_results = [], []
        for pair in pairs:
            progress.update(task, description=f"{pair.measure} against {pair.reference}")
            pair_results.append(compare(pair, experiment))
            progress.advance(task)
        for claim in claims:
            progress.update(task, description=claim.identifier)
            claim_results.append(run_claim(claim, experiment))
            progress.advance(task)
    print_report(console, claim_results, pair_results)
    verdicts = [result.verdict for result in pair_results] + [result.verdict for result in claim_results]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in Verdict if v in verdicts)
    console.print(f"\n{len(pair_results)} pairs, {len(claim_results)} claims: {counts}. Seed {seed}.")
    if out is not None:
        write_json(out / "validation.json", settings, claim_results, pair_results)
        console.print(f"Written to {out / 'validation.json'}.")
    if Verdict.FAILS in verdicts:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
