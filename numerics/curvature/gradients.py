r"""Gradients of the losses of samples at the checkpoints of a module, in float64, refused where they are not finite.

.. math:: g_i(t) = \nabla \ell_i(w_t) , \qquad K_{ij}(t) = g_i(t) \cdot g_j(t) .
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from numerics.curvature.module import in_double, sample_gradients
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.samples import Samples

__all__ = ["check_finite", "gradients_at", "module_kernel", "pieces"]

_NUMBERS = 2**24  # gradient entries held at a time where gradients stream


def check_finite(checkpoints: ModuleCheckpoints, *read: Samples) -> None:
    """Refuse samples that do not fit or have a loss that is not finite at some checkpoint, in float64."""
    for samples in read:
        checkpoints.check_fits(samples)
    for t, epoch in enumerate(checkpoints.epochs):
        model, weights = in_double(checkpoints.model_at(t), checkpoints.weights_at(t))
        for samples in read:
            _refuse_not_finite("loss", model.evaluated(weights, samples.like(weights)), samples, epoch)


def gradients_at(checkpoints: ModuleCheckpoints, t: int, samples: Samples) -> Float[torch.Tensor, "n d"]:
    """Return the gradient of the loss of every sample at the t-th checkpoint, shape (n, d)."""
    gradients = sample_gradients(checkpoints.model_at(t), checkpoints.weights_at(t), samples)
    _refuse_not_finite("gradient of the loss", gradients.sum(1), samples, checkpoints.epochs[t])
    return gradients


def module_kernel(
    samples: Samples, queries: Samples, checkpoints: ModuleCheckpoints, sources: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "t n q"]:
    """Return the gradient kernel of the samples at the positions `sources` with every query."""
    check_finite(checkpoints, samples, queries)
    kernel = np.empty((len(checkpoints), len(sources), len(queries)))
    for t in range(len(checkpoints)):
        asked = gradients_at(checkpoints, t, queries)
        for rows in pieces(len(sources), checkpoints):
            kernel[t, rows] = (gradients_at(checkpoints, t, samples[sources[rows]]) @ asked.mT).cpu().numpy()
    return kernel


def pieces(count: int, checkpoints: ModuleCheckpoints) -> list[slice]:
    """Return slices of 0..count whose gradients fit into memory one after the other."""
    size = max(1, _NUMBERS // checkpoints.model.n_parameters)
    return [slice(first, first + size) for first in range(0, count, size)]


def _refuse_not_finite(what: str, values: Float[torch.Tensor, " n"], samples: Samples, epoch: float) -> None:
    finite = torch.isfinite(values)
    if not finite.all():
        name = samples.names[int((~finite).nonzero()[0])]
        raise ValueError(
            f"the {what} of sample {name!r} is not finite at epoch {epoch:g}; leave out the sample or the checkpoint."
        )
