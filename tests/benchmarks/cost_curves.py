"""How CPU time and peak memory of a call grow with its size, one axis at a time (x1, x4, x16; parameters 1e3 to 1e7).

    PYTHONPATH=tests python -m benchmarks.cost_curves [--plot FILE] [NAME ...]

Printed beside them are the powers of the size with which time and memory grow: of a straight line through all points on
logarithmic scales, and from the last point but one to the last, where fixed costs matter least.

Every point runs in a process of its own, forked from one that has only imported the packages, on one thread. Memory is
the peak beyond what the process held before the call: inputs and imports do not count, results do. (Linux hands the
peak in ``getrusage`` down from parent to child, so it is read from /proc/self/status, where it can be reset.)
"""

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rich.console
import rich.table
import torch
from benchmarks.networks import transformer, width_of
from benchmarks.timing import cpu_seconds

from numerics import (
    SGLD,
    Checkpoints,
    LinearNetwork,
    ModuleCheckpoints,
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

__all__ = ["CURVES", "FACTORS", "Curves", "Point", "measured", "powers"]

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


def bayesian_transformer(parameters: int, tokens: int, chains: int, samples: int) -> Call:
    torch.manual_seed(0)
    module, data, loss = transformer(width_of(parameters), tokens, samples=samples)
    model = TorchModel(module, loss)
    checkpoints, sampler = ModuleCheckpoints(np.zeros(1), model, model.initial()[None]), SGLD(1e-8, 10.0, 10.0)
    return lambda: bayesian_influence(data, checkpoints, sampler, chains=chains, draws=8, workers=1)


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
    sizes
        Sizes along axes where they are not `FACTORS` times the smallest.
    """

    prepare: Callable[..., Call]
    base: dict[str, int]
    powers: dict[str, int] = field(default_factory=dict)
    constant: tuple[str, ...] = ()
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def along(self, axis: str) -> tuple[int, ...]:
        """Return the sizes that are measured along an axis."""
        return self.sizes.get(axis, tuple(factor * self.base[axis] for factor in FACTORS))


CHAINS = {"draws": 500, "chains": 4, "samples": 8, "hidden": 50, "checkpoints": 4}
TOY = {"samples": 8, "hidden": 50, "checkpoints": 8}
RUN = {"epochs": 1000, "samples": 8, "hidden": 50, "checkpoints": 20}
PAIRS = {"samples": 2}
CURVES = {
    "bayesian_influence, linear network": Curves(bayesian, CHAINS, PAIRS, ("draws",)),
    "bayesian_influence, any module": Curves(bayesian_module, CHAINS | {"draws": 50}, PAIRS, ("draws",)),
    "bayesian_influence, transformer": Curves(
        bayesian_transformer,
        {"parameters": 10**4, "tokens": 8, "chains": 2, "samples": 4},
        PAIRS | {"tokens": 2},
        sizes={"parameters": tuple(10**k for k in range(3, 8))},
    ),
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
    """Measure a function along every axis, and return each with its points, see `Curves.along`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["numerics", "theory", "rich.table"])
    curves, known = CURVES[name], {}
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for axis in curves.base:
            points = []
            for value in curves.along(axis):
                size = curves.base | {axis: value}
                key = tuple(size.values())
                if key not in known:
                    known[key] = pool.submit(_measure, name, size).result()
                points.append(known[key])
            yield axis, points


def powers(sizes: tuple[int, ...], values: list[float]) -> tuple[float, float]:
    """Return the power of the size with which values grow, over all points and over the last two."""
    x, y = np.log(sizes), np.log(np.maximum(values, 1e-9))
    return float(np.polyfit(x, y, 1)[0]), float((y[-1] - y[-2]) / (x[-1] - x[-2]))


def plot(found: dict[str, dict[str, list[Point]]], file: str) -> None:
    """Draw time and memory of every function along its axes, on logarithmic scales, with the power of the last part."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    columns = max(map(len, found.values()))
    figure = Figure(figsize=(3 * columns, 2.6 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), columns, squeeze=False)
    for row, (name, axes) in zip(panels, found.items(), strict=True):
        for panel in row[len(axes) :]:
            panel.set_axis_off()
        for panel, (axis, points) in zip(row, axes.items(), strict=False):
            sizes, memory = CURVES[name].along(axis), panel.twinx()
            seconds, mebibytes = [p.seconds for p in points], [max(p.mebibytes, 0.1) for p in points]
            panel.loglog(sizes, seconds, "o-", color="C0")
            memory.loglog(sizes, mebibytes, "s--", color="C1", markerfacecolor="none")
            last = powers(sizes, seconds)[1], powers(sizes, mebibytes)[1]
            panel.set_title(f"{axis}: time ^{last[0]:.2f}, memory ^{last[1]:.2f}", fontsize=8)
            panel.set_xlabel(axis)
            panel.set_xticks(sizes, [f"{size:.0e}" if size > 9999 else str(size) for size in sizes], fontsize=7)
            panel.xaxis.set_minor_formatter(NullFormatter())
            for drawn in (panel, memory):  # at least a decade: what hardly grows must not look steep
                middle = np.prod(drawn.get_ylim()) ** 0.5
                low, high = drawn.get_ylim()
                drawn.set_ylim(min(low, middle / 4), max(high, 4 * middle))
                drawn.yaxis.set_minor_formatter(NullFormatter())
            if panel is row[0]:
                panel.set_ylabel(f"{name}\nCPU seconds", color="C0", fontsize=8)
            memory.set_ylabel("peak MiB", color="C1", fontsize=8)
    figure.savefig(file, dpi=200)


def main() -> None:
    """Print the curves of the functions named, all if none is, and draw them on request."""
    parser = argparse.ArgumentParser(description="CPU time and peak memory of public functions by size")
    parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(CURVES))
    parser.add_argument("--plot", metavar="FILE", help="a picture of the curves, of any format matplotlib writes")
    arguments = parser.parse_args()
    result = rich.table.Table("function", "axis", "CPU s", "power (last)", "peak MiB", "power (last)")
    found: dict[str, dict[str, list[Point]]] = {}
    for name in arguments.names or CURVES:
        for axis, points in measured(name):
            found.setdefault(name, {})[axis] = points
            sizes = CURVES[name].along(axis)
            cells = [f"{axis} {', '.join(f'{size:g}' if size > 9999 else str(size) for size in sizes)}"]
            for values, digits in (([p.seconds for p in points], 3), ([p.mebibytes for p in points], 1)):
                whole, last = powers(sizes, values)
                cells += [" ".join(f"{value:.{digits}f}" for value in values), f"{whole:.2f} ({last:.2f})"]
            result.add_row(name, *cells)
    rich.console.Console(width=150).print(result)
    if arguments.plot:
        plot(found, arguments.plot)


if __name__ == "__main__":
    main()
