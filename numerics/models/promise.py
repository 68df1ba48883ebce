r"""The promise that every loss is of its own sample alone, tested when a model and its samples first meet.

Sample weights, influence and per-sample gradients mean something only if

.. math:: \ell_i(w; x_1, \dots, x_n) = \ell_i(w; x_i) .

Losses that were broadcast to pairs, statistics of a batch, contrastive losses and means that were expanded to n numbers
break it and pass every check of shapes.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float

from numerics.models.module import TorchModel
from numerics.models.samples import Samples
from numerics.models.trees import leaves

__all__ = ["check_own_losses", "in_double_if_possible", "spread_out"]

_TRIED = 4  # samples whose losses are taken together and one at a time
# Losses of float64 are rounded to 1e-16 times what they sum over; of float32, where nothing else works, to 1e-7. What
# breaks the promise changes losses by a share of their spread, far above the square root of either.
_ROOT = {torch.float64: 1e-8, torch.float32: 3e-4}


def check_own_losses(model: TorchModel, weights: Float[torch.Tensor, " d"], samples: Samples) -> None:
    """Refuse a loss that depends on other samples of its batch, or on chance.

    Losses of a few samples together are held against those of each alone, at the given weights and at weights a tenth
    of their size away; where the module can be evaluated in float64, in float64. A model and a kind of samples are
    tested once.

    Raises
    ------
    ValueError
        If a loss changes; the sentence names the usual causes.

    Examples
    --------
    >>> centred = TorchModel(torch.nn.Linear(1, 1), lambda out, y: (out - out.mean() - y).square()[:, 0])
    >>> check_own_losses(centred, torch.ones(2), Samples(torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1)))
    Traceback (most recent call last):
    ...
    ValueError: the loss of sample 'sample-0' depends on the other samples of its batch: it is 0.25 among 2 and 0 ...
    """
    if len(samples) < 2:
        return
    kind = tuple(
        (name, tuple(leaf.shape[1:]), leaf.dtype) for name, leaf in leaves("", (samples.inputs, samples.targets))
    )
    if kind in (tested := model.kinds_of_samples):
        return
    few = spread_out(samples)
    generator = torch.Generator().manual_seed(0)
    size = 0.1 * weights.square().mean().sqrt().clamp(min=1e-3)
    moved = weights + size * torch.randn(len(weights), generator=generator).to(weights)
    for at in (weights, moved):
        _compare(*in_double_if_possible(model, at.detach(), few), alone_only=at is moved)
    tested.add(kind)


def spread_out(samples: Samples) -> Samples:
    """Return a few samples from all over, those most unlike each other in number of parts first."""
    n = len(samples)
    return samples[sorted({round(k * (n - 1) / (_TRIED - 1)) for k in range(_TRIED)})]


def in_double_if_possible(
    model: TorchModel, weights: torch.Tensor, samples: Samples
) -> tuple[TorchModel, torch.Tensor, Samples]:
    """Return weights and samples in float64, or in the weights' dtype where the module does not go along."""
    double = weights.double()
    try:
        model.losses(double, samples.like(double))
    except (RuntimeError, TypeError, ValueError):  # a tensor that forward makes in float32 does not mix with float64
        return model, weights, samples.like(weights)
    return model, double, samples.like(double)


def _compare(model: TorchModel, weights: torch.Tensor, samples: Samples, *, alone_only: bool) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # statistics of a batch of one, say: what they do to a loss is seen below
        together = model.losses(weights, samples)
        again = model.losses(weights, samples)
        alone = torch.cat([model.evaluated(weights, samples[[i]]) for i in range(len(samples))])
    if alone_only and not (torch.isfinite(together).all() and torch.isfinite(alone).all()):
        return  # weights that nobody asked for may have no loss
    if not torch.equal(together, again):
        name = samples.names[int((together != again).nonzero()[0])]
        raise ValueError(
            f"the loss of sample {name!r} is random: two evaluations at the same weights differ by "
            f"{float((together - again).abs().max()):.3g}. Switch off what draws numbers, such as functional dropout "
            "without training=self.training."
        )
    scale = together.abs().max().clamp(min=torch.finfo(together.dtype).tiny)
    apart = (together - alone).abs() / scale
    if not bool((apart <= _ROOT[together.dtype]).all()):
        worst = int(apart.argmax())
        raise ValueError(
            f"the loss of sample {samples.names[worst]!r} depends on the other samples of its batch: it is "
            f"{float(together[worst]):.6g} among {len(samples)} and {float(alone[worst]):.6g} alone. Losses must be of "
            "their own sample: outputs and targets of one shape, no mean over the batch, no batch statistics "
            "(BatchNorm with track_running_stats=True, in evaluation mode), no contrast between samples."
        )
