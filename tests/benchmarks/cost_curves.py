"""How CPU time and peak memory of a call grow with its size, one axis at a time (x1, x4, x16).

    PYTHONPATH=tests python -m benchmarks.cost_curves [NAME ...]

Every point runs in a process of its own, forked from one that has only imported the packages, on one thread. Memory is
the peak beyond what the process held before the call: inputs and imports do not count, results do. (Linux hands the
peak in ``getrusage`` down from parent to child, so it is read from /proc/self/status, where it can be reset.)
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rich.table
import torch
from benchmarks.timing import cpu_seconds

from numerics import (
    SGLD,
    Checkpoints,
    LinearNetwork,
    Samples,
    TorchModel,
    TrainingConfig,
    bayesian_influence,
    gauss_newton_influence,
    hessian_influence,
    leave_one_out,
    linear_as_module,
    unrolled_influence,
)
from theory import Dataset

__all__ = ["CURVES", "FACTORS", "Curves", "Point", "measured"]

FACTORS = (1, 4, 16)
INPUTS, OUTPUTS = 8, 15
DAMPING = np.logspace(-3, 1, 5)
Call = Callable[[], object]


def random_data(samples: int) -> Dataset:
    """Return samples with inputs and targets of about unit length."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(samples, INPUTS)), rng.normal(size=(samples, OUTPUTS))
    return Dataset(x / INPUTS**0.5, y / OUTPUTS**0.5)


def random_weights(checkpoints: int, hidden: int) -> Checkpoints:
    """Return weights whose layers are of about unit norm, whatever the width: steps stay in their stable range."""
    rng = np.random.default_rng(1)
    w1, w2 = (torch.tensor(rng.normal(size=s)) for s in ((checkpoints, hidden, INPUTS), (checkpoints, OUTPUTS, hidden)))
    return Checkpoints(np.arange(checkpoints), w1 / hidden**0.5, w2 / hidden**0.5)


def bayesian(draws: int, chains: int, samples: int, hidden: int, checkpoints: int) -> Call:
    data, weights, settings = random_data(samples), random_weights(checkpoints, hidden), SGLD()
    return lambda: bayesian_influence(data, weights, settings, chains=chains, draws=draws, workers=1)


def bayesian_module(draws: int, chains: int, samples: int, hidden: int, checkpoints: int) -> Call:
    data, weights = Samples.of(random_data(samples)), linear_as_module(random_weights(checkpoints, hidden))
    return lambda: bayesian_influence(data, weights, SGLD(), chains=chains, draws=draws, workers=1)


def hessian(samples: int, hidden: int, checkpoints: int) -> Call:
    data, weights = random_data(samples), random_weights(checkpoints, hidden)
    return lambda: hessian_influence(data, weights, relative_damping=DAMPING)


def hessian_module(samples: int, hidden: int, checkpoints: int) -> Call:
    data, weights = Samples.of(random_data(samples)), linear_as_module(random_weights(checkpoints, hidden))
    return lambda: hessian_influence(data, weights, relative_damping=DAMPING)


def gauss_newton(samples: int, hidden: int, checkpoints: int) -> Call:
    data, weights = random_data(samples), random_weights(checkpoints, hidden)
    return lambda: gauss_newton_influence(data, weights, relative_damping=DAMPING)


def gauss_newton_module(samples: int, hidden: int, checkpoints: int) -> Call:
    data, weights = Samples.of(random_data(samples)), linear_as_module(random_weights(checkpoints, hidden))
    return lambda: gauss_newton_influence(data, weights, relative_damping=DAMPING)


def training(epochs: int, hidden: int, checkpoints: int) -> TrainingConfig:
    return TrainingConfig(hidden=hidden, sigma=0.1, epochs=epochs, checkpoint_every=max(1, epochs // checkpoints))


def retraining(epochs: int, samples: int, hidden: int, checkpoints: int) -> Call:
    data, config = random_data(samples), training(epochs, hidden, checkpoints)
    return lambda: leave_one_out(data, config)


def retraining_module(epochs: int, samples: int, hidden: int, checkpoints: int) -> Call:
    data, config = Samples.of(random_data(samples)), training(epochs, hidden, checkpoints)
    start = random_weights(1, hidden)
    model = TorchModel(LinearNetwork(start.w1[0], start.w2[0]))
    return lambda: leave_one_out(data, config, model=model)


def unrolled(epochs: int, samples: int, hidden: int, checkpoints: int) -> Call:
    data, config = random_data(samples), training(epochs, hidden, checkpoints)
    return lambda: unrolled_influence(data, config)


@dataclass(frozen=True)
class Curves:
    """One public function, its smallest size, and how it may grow.

    Parameters
    ----------
    prepare
        Takes a size and returns the call to measure.
    base
        Smallest size along every axis.
    powers
        Powers of axes that time and memory may grow with, 1 where nothing is said. Where the answer has all pairs of
        samples it is 2; where a matrix is factorised whose side is the axis, 3.
    constant
        Axes along which memory does not grow at all.
    """

    prepare: Callable[..., Call]
    base: dict[str, int]
    powers: dict[str, int] = field(default_factory=dict)
    constant: tuple[str, ...] = ()


CHAINS = {"draws": 500, "chains": 4, "samples": 8, "hidden": 50, "checkpoints": 4}
TOY = {"samples": 8, "hidden": 50, "checkpoints": 8}
RUN = {"epochs": 1000, "samples": 8, "hidden": 50, "checkpoints": 20}
PAIRS = {"samples": 2}
CURVES = {
    "bayesian_influence, linear network": Curves(bayesian, CHAINS, PAIRS, ("draws",)),
    "bayesian_influence, any module": Curves(bayesian_module, CHAINS | {"draws": 50}, PAIRS, ("draws",)),
    "hessian_influence, linear network": Curves(hessian, TOY, PAIRS, ("hidden", "checkpoints")),
    "hessian_influence, any module": Curves(
        hessian_module, {"samples": 8, "hidden": 4, "checkpoints": 2}, PAIRS | {"hidden": 3}, ("checkpoints",)
    ),
    "gauss_newton_influence, linear network": Curves(gauss_newton, TOY, {"samples": 3}, ("hidden",)),
    "gauss_newton_influence, any module": Curves(
        gauss_newton_module, TOY | {"checkpoints": 2}, {"samples": 3}, ("checkpoints",)
    ),
    "leave_one_out, linear network": Curves(retraining, RUN, PAIRS, ("epochs", "hidden", "checkpoints")),
    "leave_one_out, any module": Curves(retraining_module, RUN | {"epochs": 100}, PAIRS, ("epochs", "checkpoints")),
    "unrolled_influence": Curves(unrolled, RUN | {"epochs": 500}, PAIRS, ("epochs", "hidden", "checkpoints")),
}


@dataclass(frozen=True)
class Point:
    """CPU-seconds of a call, the least of some, and the MiB it needed beyond its arguments at its peak."""

    seconds: float
    mebibytes: float


def _status(key: str) -> float:
    """Return a size of this process in MiB as Linux reports it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].removesuffix("kB")) / 1024


def _measure(name: str, size: dict[str, int]) -> Point:
    torch.set_num_threads(1)
    curves = CURVES[name]
    curves.prepare(**dict.fromkeys(curves.base, 2))()  # what torch loads and keeps at a first call
    call = curves.prepare(**size)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    least = cpu_seconds(call, 1)
    peak = _status("VmHWM")
    repeats = min(9, 1 + int(0.3 / least))
    return Point(min(least, cpu_seconds(call, repeats)), peak - before)


def measured(name: str) -> Iterator[tuple[str, list[Point]]]:
    """Measure a function along every axis, and return each with its points at `FACTORS`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["numerics", "theory", "rich.table"])
    base = CURVES[name].base
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        first = pool.submit(_measure, name, base).result()
        for axis in base:
            sizes = [base | {axis: factor * base[axis]} for factor in FACTORS[1:]]
            yield axis, [first, *(pool.submit(_measure, name, size).result() for size in sizes)]


def main() -> None:
    """Print the curves of the functions named, all if none is."""
    result = rich.table.Table("function", "axis", "CPU s", "peak MiB")
    for name in sys.argv[1:] or CURVES:
        for axis, points in measured(name):
            start = CURVES[name].base[axis]
            sizes = ", ".join(str(start * factor) for factor in FACTORS)
            result.add_row(
                name,
                f"{axis} {sizes}",
                " ".join(f"{p.seconds:.3f}" for p in points),
                " ".join(f"{p.mebibytes:.1f}" for p in points),
            )
    rich.print(result)


if __name__ == "__main__":
    main()
