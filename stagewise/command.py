"""The command ``stagewise``: check the claims, check your own data, draw the figures, list what there is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stagewise.origin import ForeignModule, refuse_foreign_modules

__all__ = ["app", "run"]

_INTERRUPTED = 130
_OUT = "Write validation.json and validation.html into this folder."

app = typer.Typer(
    name="stagewise",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Influence of one training sample on another while a network learns in stages: is the derivation true?",
    epilog="Examples: stagewise check --quick --out out; stagewise data mine.csv; stagewise figures 3 e1 --out drawn.",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"stagewise {version('stagewise')}")
        raise typer.Exit


@app.callback()
def _face(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def check(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the claims that take minutes.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Check only the claims whose id starts so, or of that family; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and of the sampler.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help=_OUT)] = None,
) -> None:
    """Check every claim of the ledger: theory, sampling and retraining against each other.

    Exit status 1 if a claim that should hold fails, 2 if one is inconclusive.
    """
    from validation.__main__ import main

    main(only=only, out=out, quick=quick, seed=seed)


@app.command()
def data(
    file: Annotated[Path, typer.Argument(help="Your data: .npz, or .csv with columns x1, ..., y1, ... and name.")],
    whiten: Annotated[
        Path | None, typer.Option(help="Whiten the inputs, write the result to this file, and stop.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and of the sampler.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help=_OUT)] = None,
) -> None:
    """Cross-check every measure of influence on your own data."""
    if whiten is not None:
        import validation
        from validation.terminal import make_writable

        try:
            make_writable(whiten.parent, whiten.name)
            validation.save_dataset(whiten, validation.whiten(validation.load_dataset(file)))
        except (ValueError, TypeError, OSError) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(2) from None
        typer.echo(f"Written to {whiten}")
        return
    from validation.__main__ import main

    main(data=file, seed=seed, out=out)


@app.command()
def figures(
    names: Annotated[list[str] | None, typer.Argument(help="Which figures (see list); all of them if none.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out/figures"),
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and of the samplers.", min=0)] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Coarser settings, to see that everything runs.")] = False,
    device: Annotated[str, typer.Option(help="Where chains run: cpu, or cuda.")] = "cpu",
) -> None:
    """Draw the paper's figures, analytic beside empirical: PNG, PDF, the numbers (netCDF) and the caption."""
    from paper_figs.__main__ import main

    main(names=names, out=out, seed=seed, quick=quick, device=device)


@app.command(name="list")
def list_() -> None:
    """List the claims and the figures, a line each."""
    from paper_figs.registry import FIGURES
    from validation.registry import all_claims
    from validation.terminal import degrade_output

    degrade_output()

    for claim in all_claims():
        typer.echo(f"claim   {claim.identifier:<32} {claim.statement}")
    for identifier, figure in FIGURES.items():
        typer.echo(f"figure  {identifier:<32} {figure.about}")


def run() -> None:
    """Run the command; an interruption ends it in a sentence at any time, imports included."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and not str(stream.encoding).lower().startswith("utf"):
            stream.reconfigure(errors="backslashreplace")  # nothing that is said is lost for a narrow encoding
    try:
        _leave_out_the_current_folder()
        refuse_foreign_modules()
        app()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(_INTERRUPTED)
    except ForeignModule as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def _leave_out_the_current_folder() -> None:
    """Look for modules where stagewise is installed, not in the folder from which it is called."""
    home, here = Path(__file__).resolve().parent.parent, Path.cwd().resolve()
    if home != here:
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
