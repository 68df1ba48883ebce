"""The rest of the table of any module: training and sampling against loops written out by hand, in float64.

The loops are stable: a computation in unit roundoff u gives what they give at weights (and, of chains, noise) that are
relatively off by some u. What changes of 100 u make of their results is therefore a bound of the error, which has the
condition of the problem in it; three times the largest of two random ones is taken, for all entries of a measure.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import numpy as np
import torch

from numerics import (
    SGD,
    SGLD,
    TrainingConfig,
    batch_order,
    bayesian_influence,
    estimate_learning_coefficient,
    leave_group_out,
    leave_one_out,
    retrain,
    sample,
    sample_tokens,
    timed_ablation,
    train,
    unrolled_influence,
)

EPOCHS, EVERY, LR, MOMENTUM, BATCH = 4, 2, 0.05, 0.5, 3
CONFIG = TrainingConfig(
    epochs=EPOCHS, checkpoint_every=EVERY, lr=LR, optimiser=SGD(momentum=MOMENTUM), batch_size=BATCH, seed=7
)
SAMPLER = SGLD(step_size=1e-3, n_beta=20.0, localization=10.0)
CHAINS, DRAWS, SEED, NOISE_ROWS = 2, 6, 11, 4  # a chain's numbers are drawn for so many steps in one call


@dataclass(frozen=True, eq=False)
class Measure:
    """A public measure: how the table calls it, and its slow independent reference, of a case and changes of it."""

    compute: Callable
    written: Callable
    coarse: bool = False  # kept in float32 whatever the weights are

    def reference(self, case):
        coarse = self.coarse or case.cell.coarse or case.checkpoints.weights.dtype == torch.float32
        unit = torch.finfo(torch.float32 if coarse else torch.float64).eps
        value, worst = self.written(case, lambda tensor: tensor), 0.0
        for seed in (0, 1):
            generator = torch.Generator().manual_seed(seed)

            def changed(tensor, generator=generator):
                noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                return tensor * (1 + 100 * unit * noise)

            worst = max(worst, np.abs(self.written(case, changed) - value).max())
        return value, np.full_like(value, 3 * worst)


# --- training ------------------------------------------------------------------------------------------------------


def start(case):
    return case.checkpoints.weights[1].double()


def descent(case, w, beta, epochs, memory=None, first=0):
    """Yield weights and momentum before every epoch, from the first on, and at the end."""
    memory = torch.zeros_like(w) if memory is None else memory
    for epoch in range(first, first + epochs):
        yield w, memory
        for batch in batch_order(len(case.samples), BATCH, epoch, CONFIG.seed):
            w = w if w.requires_grad else w.requires_grad_()
            losses = case.losses(1, case.samples[batch], w)
            row = beta if beta.ndim == 1 else beta[epoch - first]
            mean = (row[torch.as_tensor(batch)] * losses).mean()
            (slope,) = torch.autograd.grad(mean, w, create_graph=beta.requires_grad)
            memory = MOMENTUM * memory + slope
            w = w - LR * memory
            if not beta.requires_grad:
                w, memory = w.detach(), memory.detach()
    yield w, memory


def asked(case, w):
    return case.losses(1, case.queries, w)


def along(case, w, beta, every=EVERY):
    """Return the queries at the checkpoints of a run."""
    states = list(descent(case, w.clone(), beta, EPOCHS))
    return np.stack([asked(case, w).detach().numpy() for w, _ in states[::every]])


def ones(case):
    return torch.ones(len(case.samples), dtype=torch.float64)


def without(case, rows):
    beta = ones(case)
    beta[rows] = 0
    return beta


def turns(case):
    return torch.tensor(np.indices((EPOCHS, len(case.samples))).sum(0) % 2 * 2.0)


def trained(case, change):
    states = list(descent(case, change(start(case)), ones(case), EPOCHS))[::EVERY]
    losses = np.stack([asked(case, w).detach().numpy() for w, _ in states])
    return np.concatenate([losses.ravel(), torch.stack([w.detach() for w, _ in states]).numpy().ravel()])


def compute_trained(case):
    run = train(case.samples, CONFIG, model=case.checkpoints.model, queries=case.queries, initial=initial(case))
    return np.concatenate([run.losses.values.ravel(), run.checkpoints.weights.double().numpy().ravel()])


def initial(case):
    return case.checkpoints.weights[1]


def left_out(case, change, groups=([0], [1])):
    # Every run is rounded by itself, so each is changed by itself.
    base = along(case, change(start(case)), ones(case))
    return np.stack([base - along(case, change(start(case)), without(case, rows)) for rows in groups], 1)


def ablated(case, change, window=2):
    """Return the summed change of the queries while a sample is left out for two epochs, from epochs 0 and 2."""
    states = list(descent(case, change(start(case)), ones(case), EPOCHS))
    values = []
    for first in (0, 2):
        w, memory = states[first]

        def summed(beta, w=w, memory=memory, first=first):
            run = list(descent(case, change(w.detach()), beta, window, memory, first))[:window]
            return sum(asked(case, w).detach().numpy() for w, _ in run)

        values.append([summed(ones(case)) - summed(without(case, [k])) for k in (0, 1)])
    return np.array(values)


def unrolled(case, change):
    """Return the derivative of every query along the run by the weight of every sample, through the whole run."""
    beta = ones(case).requires_grad_()
    w = change(start(case)).requires_grad_()
    values = []
    for reached, _ in list(descent(case, w, beta, EPOCHS))[::EVERY]:
        rows = [
            torch.autograd.grad(q, beta, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
            for q in asked(case, reached)
        ]
        values.append(torch.stack(rows, 1).numpy())
    return np.stack(values)


# --- sampling ------------------------------------------------------------------------------------------------------


def normals(case, epoch, chain, width):
    """Yield the rows of a chain's noise, as chains are documented to draw it: from its seed, epoch and number."""
    entropy = np.random.SeedSequence([SEED, int(np.float64(epoch).view(np.uint64)), chain])
    generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
    while True:
        block = torch.empty(NOISE_ROWS, width, dtype=case.checkpoints.weights.dtype)
        yield from block.normal_(generator=generator).double()


def token_normals(case, epoch, chain, width):
    """Yield the same of chains of tokens, which keep another stream for their batches and draw row by row."""
    entropy = np.random.SeedSequence([SEED, int(np.float64(epoch).view(np.uint64)), chain]).spawn(2)[0]
    generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
    while True:
        yield torch.empty(width, dtype=case.checkpoints.weights.dtype).normal_(generator=generator).double()


def chains(case, change, read, normals=normals):
    """Return what `read` says at every draw of SGLD, written out: (epoch, chain, draw, ...)."""
    s, rows = SAMPLER, []
    for t, epoch in enumerate(case.checkpoints.epochs):
        anchor = case.checkpoints.weights[t].double()
        for chain in range(CHAINS):
            w, own = change(anchor), []
            noise = normals(case, epoch, chain, len(w))
            for _ in range(DRAWS):
                own.append(read(w.detach(), t).detach().numpy())
                w = w.detach().requires_grad_()
                (slope,) = torch.autograd.grad(case.losses(t, case.samples, w).mean(), w)
                pull = s.n_beta * slope + s.localization * (w - anchor)
                w = w - s.step_size / 2 * pull + s.step_size**0.5 * change(next(noise))
            rows.append(np.stack(own))
    return np.stack(rows).reshape(len(case.checkpoints), CHAINS, DRAWS, *rows[0].shape[1:])


def drawn(case, change):
    return chains(case, change, lambda w, t: case.losses(t, case.queries, w))


def influence(case, change):
    """Return -(n_beta / N) Cov of all draws of a checkpoint, as numpy has it."""
    both = chains(case, change, lambda w, t: torch.cat([case.losses(t, s, w) for s in (case.samples, case.queries)]))
    n = len(case.samples)
    found = [np.cov(one.reshape(-1, one.shape[-1]), rowvar=False)[:n, n:] for one in both]
    return -SAMPLER.n_beta / n * np.stack(found)


def coefficient(case, change):
    """Return n_beta (mean over draws of L - L at the checkpoint); the mean over draws holds the checkpoint too."""
    mean = chains(case, change, lambda w, t: case.losses(t, case.samples, w).mean()).mean((1, 2))
    weights = [change(w.double()) for w in case.checkpoints.weights]
    here = [float(case.losses(t, case.samples, w).mean().detach()) for t, w in enumerate(weights)]
    return SAMPLER.n_beta * (mean - np.array(here))


def token_draws(case, change):
    def read(w, t):
        logits = case.outputs(t, case.samples, w)
        return torch.nn.functional.cross_entropy(logits.mT, case.samples.targets, reduction="none").flatten()

    return chains(case, change, read, token_normals)


def compute_tokens(case):
    with TemporaryDirectory() as folder:
        draws = sample_tokens(case.samples, case.checkpoints, folder, SAMPLER, **sampling(case))
        return np.stack([np.stack(draws.at(epoch)) for epoch in case.checkpoints.epochs]).astype(np.float64)


def sampling(case):
    return {"chains": CHAINS, "draws": DRAWS, "seed": SEED, "dtype": case.checkpoints.weights.dtype}


def _training(measure, *arguments, **options):
    def compute(case):
        settings = {"model": case.checkpoints.model, "initial": initial(case), "queries": case.queries}
        return measure(case.samples, *arguments, CONFIG, **settings, **options).values

    return compute


def first_two(measure, **options):
    def compute(case):
        return _training(measure, sources=case.samples.names[:2], **options)(case)

    return compute


def compute_groups(case):
    groups = {"pair": case.samples.names[:2], "three": case.samples.names[1:4]}
    return _training(leave_group_out, groups)(case)


def compute_retrained(case):
    weights = {"without": without(case, [2]).numpy(), "turns": turns(case).numpy()}
    return _training(retrain, weights)(case)


RUNS = {
    "train": Measure(compute_trained, trained),
    "retrain": Measure(
        compute_retrained,
        lambda case, change: np.stack(
            [along(case, change(start(case)), beta) for beta in (without(case, [2]), turns(case))], 1
        ),
    ),
    "leave_one_out": Measure(first_two(leave_one_out), left_out),
    "leave_group_out": Measure(compute_groups, functools.partial(left_out, groups=([0, 1], [1, 2, 3]))),
    "timed_ablation": Measure(first_two(timed_ablation, window=2, every=2), ablated),
    "unrolled_influence": Measure(_training(unrolled_influence), unrolled),
    "sample": Measure(
        lambda case: sample(
            case.samples, case.checkpoints, SAMPLER, observables=case.queries, **sampling(case)
        ).values.astype(np.float64),
        drawn,
    ),
    "bayesian_influence": Measure(
        lambda case: (
            bayesian_influence(case.samples, case.checkpoints, SAMPLER, queries=case.queries, **sampling(case))[
                "influence"
            ].values
        ),
        influence,
    ),
    "estimate_learning_coefficient": Measure(
        lambda case: (
            estimate_learning_coefficient(case.samples, case.checkpoints, SAMPLER, burn_in=0, **sampling(case))[
                "learning_coefficient"
            ].values
        ),
        coefficient,
    ),
    "sample_tokens": Measure(compute_tokens, token_draws, coarse=True),
}
# Measures that are of modules of tokens alone.
OF_TOKENS = {"sample_tokens"}
