"""What each way of sampling a small network gives, in draws per CPU-second: the table in this folder's README.

    PYTHONPATH=tests python -m benchmarks.variants [modules] [linear]

SGLD of the toy network by any module's losses, and Algorithm 1 by the products of a linear network, with eight losses a
draw, float32, one thread. Variants are plain functions that a user might write; those by torch.compile need a compiler.
They run in turns in one process, and each first draws the same losses from the same noise as the first one.
"""

import os
import sys
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import rich.table
import torch
from benchmarks.timing import cpu_seconds_of_each
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

import numerics.sampling.engine
from numerics import (
    SGLD,
    Checkpoints,
    LinearNetwork,
    ModuleCheckpoints,
    RMSPropSGLD,
    Samples,
    TorchModel,
    half_squared_error,
    initial_weights,
    sample,
)
from theory import hierarchical_dataset

STEP, N_BETA, GAMMA, DECAY, STABILITY = 1e-4, 1e3, 5e3, 0.9, 1.0
DRIFT, DIFFUSION, RETURN = -STEP * N_BETA / 2, STEP**0.5, STEP * GAMMA / 2
DATA = hierarchical_dataset()
X, Y = Samples.of(DATA).like(torch.zeros(1)).inputs, Samples.of(DATA).like(torch.zeros(1)).targets
START = initial_weights(DATA, sigma=0.1)
D = sum(w.numel() for w in START)
TOGETHER = 4  # steps in one compiled call, as many as noise is drawn for at once

Run = Callable[[int], torch.Tensor]  # from a number of draws to the losses of the last one, shape (chains, 8)
Noise = Callable[[], torch.Tensor]  # the next normal numbers, shape (4, chains, D)


def module() -> nn.Module:
    return LinearNetwork(*START).float()


def blocks(chains: int, given: torch.Tensor | None) -> Noise:
    """Return what gives the next block of noise: the given one, or a fresh one."""
    block = torch.empty(TOGETHER, chains, D) if given is None else given
    return lambda: block.normal_() if given is None else block


# --- Any module ---


def mean_of(network: nn.Module) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    def mean(parameters: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        losses = half_squared_error(functional_call(network, parameters, (X,)), Y)
        return losses.mean(), losses

    return mean


def flat_slopes(network: nn.Module) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return the function from flat weights (c, d) to their gradients and losses."""
    shapes = {name: p.shape for name, p in network.named_parameters()}
    mean = mean_of(network)

    def flat_mean(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pieces = w.split([shape.numel() for shape in shapes.values()])
        return mean({name: p.view(shape) for (name, shape), p in zip(shapes.items(), pieces, strict=True)})

    def slopes(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gradient, (_, losses) = vmap(grad_and_value(flat_mean, has_aux=True))(w)
        return gradient, losses

    return slopes


def dictionary(chains: int, given: torch.Tensor | None, *, foreach: bool = False) -> Run:
    """Return a run by a dictionary of stacked parameters, a new tensor an operation, as in torch.func's tutorials."""
    network = module()
    slopes = vmap(grad_and_value(mean_of(network), has_aux=True))
    start = {name: p.detach().expand(chains, *p.shape) for name, p in network.named_parameters()}
    noise = blocks(chains, given)

    def run(draws: int) -> torch.Tensor:
        w = {name: p.clone() for name, p in start.items()}
        for draw in range(draws):
            gradient, (_, losses) = slopes(w)
            if given is not None:
                flat = noise()[draw % TOGETHER].split([p[0].numel() for p in w.values()], 1)
                xi = [z.reshape(p.shape) for z, p in zip(flat, w.values(), strict=True)]
            else:
                xi = [torch.randn_like(p) for p in w.values()]
            if foreach:
                values, slope = list(w.values()), [gradient[name] for name in w]
                torch._foreach_lerp_(values, list(start.values()), RETURN)
                torch._foreach_add_(values, slope, alpha=DRIFT)
                torch._foreach_add_(values, xi, alpha=DIFFUSION)
            else:
                for z, (name, p) in zip(xi, w.items(), strict=True):
                    w[name] = p + RETURN * (start[name] - p) + DRIFT * gradient[name] + DIFFUSION * z
        return losses

    return run


def flat(chains: int, given: torch.Tensor | None, *, compiled: str = "") -> Run:
    """Return a run by one buffer, its update in place; or compiled: gradient, step, step and noise, or four steps."""
    slopes = flat_slopes(module())
    start = torch.cat([w.flatten() for w in START]).float().expand(chains, -1).contiguous()
    noise = blocks(chains, given)

    def move(w: torch.Tensor, gradient: torch.Tensor, z: torch.Tensor) -> None:
        w.lerp_(start, RETURN).add_(gradient, alpha=DRIFT).add_(z, alpha=DIFFUSION)

    def step(w: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gradient, losses = slopes(w)
        return w + RETURN * (start - w) + DRIFT * gradient + DIFFUSION * z, losses

    def step_with_noise(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return step(w, torch.randn_like(w))

    def steps(w: torch.Tensor, block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for z in block.unbind():
            w, losses = step(w, z)
        return w, losses

    make = lambda f: torch.compile(f, fullgraph=True, dynamic=False)  # noqa: E731
    if compiled == "gradient":
        slopes = make(slopes)
    one, with_noise, four = make(step), make(step_with_noise), make(steps)

    def run(draws: int) -> torch.Tensor:
        w = start.clone()
        for draw in range(0, draws, TOGETHER):
            block = None if compiled == "noise" and given is None else noise()
            if compiled == "four":
                w, losses = four(w, block)
                continue
            for k in range(min(TOGETHER, draws - draw)):
                if compiled == "noise" and given is None:
                    w, losses = with_noise(w)
                elif compiled in ("step", "noise"):
                    w, losses = one(w, block[k])
                else:
                    gradient, losses = slopes(w)
                    move(w, gradient, block[k])
        return losses

    return run


def ours(chains: int, given: torch.Tensor | None, *, together: int = 104) -> Run:
    model = TorchModel(module())
    checkpoints = ModuleCheckpoints(np.zeros(1), model, model.initial()[None])

    def run(draws: int) -> torch.Tensor:
        numerics.sampling.engine._CHAINS_TOGETHER = together
        drawn = sample(Samples.of(DATA), checkpoints, SGLD(STEP, N_BETA, GAMMA), chains=chains, draws=draws, workers=1)
        return torch.tensor(drawn.values[0, :, -1])

    return run


MODULES = {
    "a dictionary, new tensors (torch.func's tutorials)": dictionary,
    "the same, update by foreach operations": lambda c, z: dictionary(c, z, foreach=True),
    "one flat buffer, update in place": flat,
    "the same, gradient by torch.compile": lambda c, z: flat(c, z, compiled="gradient"),
    "gradient and update by torch.compile": lambda c, z: flat(c, z, compiled="step"),
    "the same with the noise": lambda c, z: flat(c, z, compiled="noise"),
    "four steps a call by torch.compile": lambda c, z: flat(c, z, compiled="four"),
    **{f"numerics.sample, {k} chains together": lambda c, z, k=k: ours(c, z, together=k) for k in (16, 32, 104, 404)},
}


# --- Algorithm 1 of the linear network ---


def products(chains: int, given: torch.Tensor | None, *, compiled: bool) -> Run:
    """Return a run by batched products, four steps of Algorithm 1 in one call, compiled or not."""
    (hidden, inputs), outputs = START[0].shape, len(START[1])
    start = START[0].float().expand(chains, -1, -1).contiguous(), START[1].float().expand(chains, -1, -1).contiguous()
    noise, y, whole = blocks(chains, given), Y.mT.contiguous(), 1 - DECAY

    def moved(w, anchor, v, g, z):  # type: ignore[no-untyped-def]
        v = DECAY * v + whole * g * g
        root = torch.rsqrt((v.sqrt() + STABILITY) / STEP)
        return w + root * (z - 0.5 * root * (N_BETA * g + GAMMA * (w - anchor))), v

    def steps(w1, w2, v1, v2, block):  # type: ignore[no-untyped-def]
        for z in block.unbind():
            errors = torch.bmm(w2, w1) - y
            slope = errors / len(X)
            g1, g2 = torch.bmm(w2.mT, slope), torch.bmm(slope, w1.mT)
            z1, z2 = z[:, : hidden * inputs].view(-1, hidden, inputs), z[:, hidden * inputs :].view(-1, outputs, hidden)
            w1, v1 = moved(w1, start[0], v1, g1, z1)
            w2, v2 = moved(w2, start[1], v2, g2, z2)
        return w1, w2, v1, v2, errors.square().sum(1) / 2

    four = torch.compile(steps, fullgraph=True, dynamic=False) if compiled else steps

    def run(draws: int) -> torch.Tensor:
        state = (*start, *map(torch.zeros_like, start))
        for _ in range(0, draws, TOGETHER):
            *state, losses = four(*state, noise())
        return losses

    return run


def our_products(chains: int, given: torch.Tensor | None) -> Run:
    checkpoints = Checkpoints(np.zeros(1), START[0][None], START[1][None])
    sampler = RMSPropSGLD(STEP, N_BETA, GAMMA, DECAY, STABILITY, bias_correction=False)

    def run(draws: int) -> torch.Tensor:
        drawn = sample(DATA, checkpoints, sampler, chains=chains, draws=draws, workers=1)
        return torch.tensor(drawn.values[0, :, -1])

    return run


LINEAR = {
    "four steps of plain operations": lambda c, z: products(c, z, compiled=False),
    "the same by torch.compile": lambda c, z: products(c, z, compiled=True),
    "numerics.sample": our_products,
}


def normals(chains: int, given: torch.Tensor | None) -> Run:
    """Return a run of nothing but noise."""
    noise = blocks(chains, given)

    def run(draws: int) -> torch.Tensor:
        for _ in range(0, draws, TOGETHER):
            noise()
        return torch.zeros(chains, len(X))

    return run


def check(variants: dict[str, Callable[..., Run]]) -> None:
    """Refuse to time a variant that does not draw what the first one draws from the same noise."""
    given = torch.randn(TOGETHER, 2, D, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, *others = [make(2, given)(12) for name, make in variants.items() if "numerics" not in name]
        for found in others:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)  # float32, some hundred operations a draw


def main() -> None:
    """Time the variants and print a table."""
    torch.set_num_threads(1)
    for title, variants in (("modules", MODULES), ("linear", LINEAR)):
        if len(sys.argv) > 1 and title not in sys.argv:
            continue
        check(variants)
        columns: list[list[float]] = []
        rows = {**variants, "the normal numbers alone": normals}
        for chains, draws in ((4, 400), (404, 100)):
            with torch.no_grad():
                runs = [make(chains, None) for make in rows.values()]
                for run in runs:
                    run(TOGETHER)  # compiled, which its time does not count
                # Twice as many draws less as many: what a call costs once does not count.
                spent = cpu_seconds_of_each([lambda r=r, n=n: r(n) for r in runs for n in (draws, 2 * draws)], 3)
            columns.append([chains * draws / (b - a) for a, b in zip(spent[::2], spent[1::2], strict=True)])
        table = rich.table.Table(title, "4 chains", "404 chains")
        for name, *rates in zip(rows, *columns, strict=True):
            table.add_row(name, *(f"{rate:,.0f}" for rate in rates))
        rich.print(table)


if __name__ == "__main__":
    main()
