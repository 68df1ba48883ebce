"""How often a cross-check of sound data fails, and how often one with a planted fault does.

``python -m validation.false_alarms --sets 500 --seed 0`` measures both. Data sets are drawn as users' may be: few
samples, more outputs than inputs, targets that are degenerate, orthogonal, of low rank or nearly so, in units from 1e-3
to 1e3. On each, every pair of measures with bounds is judged; a pair that fails is a false alarm. Then each kind of
fault is planted in one of the measures that it can be made in, chosen at random, and counts as detected if a pair
fails. Training is shorter and chains are fewer than a user's, a second or two a set.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import xarray as xr
from rich.console import Console
from rich.progress import track

from theory import Dataset, brief_ablation_trajectory, influence_trajectory, leave_one_out_trajectory
from validation.cross_check import refuse_unsolvable, too_large
from validation.experiments.base import Experiment, Settings
from validation.experiments.scaled_settings import settings_for
from validation.pairs import MEASURES, PAIRS, Measure, compare
from validation.registry import Verdict
from validation.terminal import degrade_output, make_writable

__all__ = ["FAULTS", "Trial", "random_dataset", "try_dataset"]

_CLOSED = ("LOO closed form", "sample-weight", "brief ablation closed form")
_SAMPLED = ("BIF", "kernel", "Hessian, damping gamma / n_beta", "Gauss-Newton, damping gamma / n_beta")
_VISIBLE = 1e-6  # change of a measure, as a share of it, up to which there is no fault: transposed, but symmetric
_COARSE = 4  # steps of training that many times as long as a user's, and as many fewer
_LONGEST = 2500
_LARGEST_HESSIAN = 500


@dataclass(frozen=True)
class Trial:
    """What a cross-check of one data set found.

    Parameters
    ----------
    seed, kind, shape, scale
        The data set: its seed, how targets were made, (N, P, O), and its unit.
    verdicts
        Verdict of every pair with bounds.
    faults
        By the kind of fault: the measure in which it was planted, and whether a pair failed ("detected"), none did
        ("missed"), or the measure stayed the same within 1e-6 of its largest value ("no change").
    """

    seed: int
    kind: str
    shape: tuple[int, int, int]
    scale: float
    verdicts: Mapping[str, str]
    faults: Mapping[str, tuple[str, str]]

    @property
    def false_alarm(self) -> bool:
        """Whether a pair of this sound data set failed."""
        return Verdict.FAILS in self.verdicts.values()


def random_dataset(seed: int) -> tuple[Dataset, str, float]:
    """Return a sound data set with whitened inputs, how its targets were made, and their unit.

    Examples
    --------
    >>> data, kind, scale = random_dataset(1)
    >>> bool(abs(data.sxx - np.eye(data.n_inputs)).max() < 1e-12)
    True
    """
    random = np.random.default_rng([seed, 20251])
    while True:
        dataset, kind, scale = _drawn(random)
        try:
            refuse_unsolvable(dataset, settings_for(dataset))
        except ValueError:  # refused on entry: a sample whose target is all there is to learn
            continue
        return dataset, kind, scale


def _drawn(random: np.random.Generator) -> tuple[Dataset, str, float]:
    n = int(random.integers(2, 9))
    p, outputs = int(random.integers(1, n + 1)), int(random.integers(1, 41))
    one_hot = bool(random.random() < 0.5)
    if one_hot:
        p = n
    inputs = np.eye(n) if one_hot else np.linalg.qr(random.normal(size=(n, p)))[0]
    kind = str(random.choice(["normal", "binary", "orthogonal", "degenerate", "low rank", "wide spectrum", "fitted"]))
    rank = min(p, outputs)
    left, right = (np.linalg.qr(random.normal(size=(side, rank)))[0] for side in (outputs, p))
    if kind == "normal":
        targets = random.normal(size=(n, outputs))
    elif kind == "binary":
        targets = (random.random((n, outputs)) < 0.5).astype(float)
    elif kind == "orthogonal":
        targets = np.eye(n, outputs) * random.uniform(0.5, 2.0)
    elif kind == "degenerate":
        targets = inputs @ right @ left.T
    elif kind == "low rank":
        few = int(random.integers(1, rank + 1))
        targets = inputs @ (right[:, :few] * random.uniform(0.3, 3.0, few)) @ left[:, :few].T
    elif kind == "wide spectrum":
        targets = inputs @ (right * 10.0 ** random.uniform(-3, 0, rank)) @ left.T
    else:
        targets = inputs @ random.normal(size=(p, outputs)) + 0.1 * random.normal(size=(n, outputs))
    scale = float(10 ** random.uniform(-3, 3))
    if not np.any(targets.T @ inputs):
        targets = targets + random.normal(size=targets.shape)
    return Dataset(inputs, scale * targets), kind, scale


def _settings(dataset: Dataset, seed: int) -> Settings:
    """Return settings of a second: training of a quarter as many steps, ten checkpoints, 1600 draws at each."""
    settings = settings_for(dataset, seed=seed)
    training = settings.training
    every = min(training.epochs // _COARSE, _LONGEST) // 10
    training = replace(training, lr=_COARSE * training.lr, epochs=10 * every, checkpoint_every=every)
    return replace(settings, training=training, draws=400, window=100 // _COARSE, every=every)


def _wrong_tau(name: str) -> Callable[[Experiment], xr.DataArray]:
    """Return a closed form at twice its time constant, as if outputs were counted twice."""

    def compute(experiment: Experiment) -> xr.DataArray:
        data, tau = experiment.dataset, 2 * experiment.tau
        if name == "sample-weight":
            return influence_trajectory(data, experiment.epochs, tau=tau, g0=experiment.modes, formula="sample-weight")
        w1, w2 = experiment.initial_weights
        if name == "LOO closed form":
            return leave_one_out_trajectory(data, experiment.epochs, tau=tau, w1=w1, w2=w2)
        starts, window = experiment.briefly_ablated["epoch"].values, experiment.settings.window
        return brief_ablation_trajectory(data, starts, tau=tau, w1=w1, w2=w2, window=window)

    return compute


def _changed(change: Callable[[xr.DataArray], xr.DataArray]) -> Callable[[str], Callable[[Experiment], xr.DataArray]]:
    return lambda name: lambda experiment: change(MEASURES[name].compute(experiment))


def _transposed(influence: xr.DataArray) -> xr.DataArray:
    return influence.copy(data=influence.transpose("epoch", "query", "source").values)


# By the kind of fault: the measures that it can be made in, and the faulty computation of the measure of a name. The
# sampled and the damped measures are symmetric, so that transposing them is no fault, and know of no time constant.
FAULTS: dict[str, tuple[tuple[str, ...], Callable[[str], Callable[[Experiment], xr.DataArray]]]] = {
    "lost sign": ((*_CLOSED, *_SAMPLED), _changed(lambda influence: -influence)),
    "lost 1/N": ((*_CLOSED, *_SAMPLED), _changed(lambda influence: influence.sizes["source"] * influence)),
    "source and query transposed": (_CLOSED[:2], _changed(_transposed)),
    "wrong tau": (_CLOSED, _wrong_tau),
}


def try_dataset(seed: int) -> Trial:
    """Draw a data set, cross-check it as it is, and with each fault.

    Examples
    --------
    >>> trial = try_dataset(1)
    >>> trial.false_alarm, trial.faults["lost sign"][1]
    (False, 'detected')
    """
    dataset, kind, scale = random_dataset(seed)
    experiment = Experiment(dataset, _settings(dataset, seed))
    left_out = too_large(dataset, experiment.settings, limit=_LARGEST_HESSIAN)
    sound = {name: Measure(measure.way, cache(measure.compute)) for name, measure in MEASURES.items()}
    pairs = [p for p in PAIRS if p.general and not {p.reference, p.measure} & left_out]
    verdicts = {
        f"{p.measure} against {p.reference}": str(compare(p, experiment, measures=sound).verdict) for p in pairs
    }
    random = np.random.default_rng([seed, 20252])
    faults = {}
    for fault, (targets, wrong) in FAULTS.items():
        name = str(random.choice([t for t in targets if t not in left_out]))
        measures = sound | {name: Measure(sound[name].way, cache(wrong(name)))}
        right, faulty = (known[name].compute(experiment) for known in (sound, measures))
        if float(abs(faulty - right).max()) <= _VISIBLE * float(abs(right).max()):
            faults[fault] = (name, "no change")
            continue
        judged = [compare(p, experiment, measures=measures) for p in pairs if name in (p.reference, p.measure)]
        caught = any(result.verdict is Verdict.FAILS for result in judged)
        faults[fault] = (name, "detected" if caught else "missed")
    shape = (len(dataset), dataset.n_inputs, dataset.n_outputs)
    return Trial(seed, kind, shape, scale, verdicts, faults)


def _report(console: Console, trials: list[Trial]) -> None:
    alarms = [trial for trial in trials if trial.false_alarm]
    console.print(f"false alarms: {len(alarms)} of {len(trials)} sound data sets, {len(alarms) / len(trials):.1%}")
    for trial in alarms:
        failed = [name for name, verdict in trial.verdicts.items() if verdict == Verdict.FAILS]
        console.print(f"  seed {trial.seed} {trial.kind} {trial.shape} x {trial.scale:.2g}: {'; '.join(failed)}")
    counts = Counter(verdict for trial in trials for verdict in trial.verdicts.values())
    console.print("verdicts of pairs: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    every: Counter[str] = Counter()
    for fault in FAULTS:
        found = Counter(trial.faults[fault][1] for trial in trials)
        every += found
        console.print(f"{fault}: {_share(found)}")
    console.print(f"all faults: {_share(every)}")
    missed = Counter(
        f"{fault} in {name}" for trial in trials for fault, (name, what) in trial.faults.items() if what == "missed"
    )
    for what, count in missed.most_common():
        console.print(f"  missed {count} times: {what}")


def _share(found: Counter[str]) -> str:
    planted = found["detected"] + found["missed"]
    share = f"{found['detected'] / planted:.1%}" if planted else "-"
    return f"{found['detected']} of {planted} detected, {share}; {found['no change']} changed nothing"


def main(
    sets: Annotated[int, typer.Option(help="Number of data sets.", min=1)] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the first; the others follow.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Write every trial to this file, a JSON line each.")] = None,
) -> None:
    """Measure false alarms on sound data and the detection of planted faults; a second of one core a set."""
    degrade_output()
    console = Console(width=160)
    if out is not None:
        try:
            make_writable(out.parent, out.name)
        except ValueError as error:
            console.print(str(error), style="red", highlight=False, markup=False)
            raise typer.Exit(2) from None
    trials = []
    for number in track(range(seed, seed + sets), description="data sets", console=console, transient=True):
        trials.append(try_dataset(number))
        if out is not None:
            with out.open("a" if len(trials) > 1 else "w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(trials[-1])) + "\n")
    _report(console, trials)


if __name__ == "__main__":
    typer.run(main)
