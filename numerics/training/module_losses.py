"""Losses of a module at many weights, and their gradients: side by side by vmap, or in turn; in chunks that fit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int

from numerics.models.evaluation import losses_for_weights, ways_of
from numerics.models.module import TorchModel
from numerics.models.samples import Samples

__all__ = ["ModuleLosses"]


class ModuleLosses:
    """Losses of given samples at the weights of many runs.

    Parameters
    ----------
    model, samples
        The module with its loss, and the samples in the dtype and on the device of the weights.
    weights
        Weights at which it is tried what the module allows and needs, shape (d,).
    max_memory
        Bytes that one evaluation may take, about.

    Attributes
    ----------
    engine
        "vmap" if the weights of all runs are evaluated side by side; "loop" if in turn, where the module uses something
        that torch.func cannot batch.
    """

    def __init__(
        self, model: TorchModel, samples: Samples, weights: Float[torch.Tensor, " d"], max_memory: float
    ) -> None:
        self.model, self.samples = model, samples
        self.engine = ways_of(model, weights, samples).weights
        self.bytes = self._bytes_of_a_sample(weights)
        self._max_memory = max_memory

    def losses(self, weights: Float[torch.Tensor, "runs d"]) -> Float[torch.Tensor, "runs n"]:
        """Return the loss of every sample in every run."""
        parts = []
        with torch.no_grad():
            for runs, rows in self.chunks(len(weights), len(self.samples)):
                parts.append((runs, rows, self.of(weights[runs], rows)))
        if len(parts) == 1:
            return parts[0][2]
        result = weights.new_empty(len(weights), len(self.samples))
        for runs, rows, part in parts:
            result[runs, rows] = part
        return result

    def gradient(
        self,
        weights: Float[torch.Tensor, "runs d"],
        share: Float[torch.Tensor, "runs b"],
        rows: Int[np.ndarray, " b"] | slice = slice(None),
    ) -> Float[torch.Tensor, "runs d"]:
        """Return the gradient, in every run, of the sum of the losses of some samples times their shares."""
        result = None
        for runs, part in self.chunks(len(weights), share.shape[1]):
            gradient = self._gradient(weights[runs], share[runs, part], _within(rows, part))
            if len(gradient) == len(weights):
                result = gradient if result is None else result.add_(gradient)
                continue
            result = torch.zeros_like(weights) if result is None else result
            result[runs] += gradient
        assert result is not None
        return result

    @torch.enable_grad()
    def gradients(self, weights: Float[torch.Tensor, " d"]) -> Float[torch.Tensor, "n d"]:
        """Return the gradient of the loss of every sample at the weights of one run."""
        parts = []
        for _, rows in self.chunks(1, len(self.samples)):
            leaf = weights.detach().requires_grad_()
            losses = self.of(leaf[None], rows)[0]
            eye = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
            if self.engine == "vmap":
                parts.append(torch.autograd.grad(losses, leaf, eye, is_grads_batched=True, materialize_grads=True)[0])
            else:
                each = [torch.autograd.grad(losses, leaf, row, retain_graph=True) for row in eye]
                parts.append(torch.stack([gradient for (gradient,) in each]))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    @torch.enable_grad()
    def _gradient(
        self,
        weights: Float[torch.Tensor, "runs d"],
        share: Float[torch.Tensor, "runs b"],
        rows: Int[np.ndarray, " b"] | slice,
    ) -> Float[torch.Tensor, "runs d"]:
        if self.engine == "loop" and len(weights) > 1:
            return torch.cat([self._gradient(w[None], s[None], rows) for w, s in zip(weights, share, strict=True)])
        # Runs do not touch one another, so the gradient of the summed risk holds that of every run.
        leaf = weights.detach().requires_grad_()
        return torch.autograd.grad((self.of(leaf, rows) * share).sum(), leaf)[0]

    def of(
        self, weights: Float[torch.Tensor, "runs d"], rows: Int[np.ndarray, " b"] | slice = slice(None)
    ) -> Float[torch.Tensor, "runs b"]:
        """Return the losses of some samples in every run, all at once; differentiable."""
        return losses_for_weights(self.model, self._rows(rows), self.engine)(weights)

    def _rows(self, rows: Int[np.ndarray, " b"] | slice) -> Samples:
        n = len(self.samples)
        return self.samples if isinstance(rows, slice) and rows.indices(n) == (0, n, 1) else self.samples[rows]

    def chunks(self, runs: int, samples: int, graphs: int = 1) -> Iterator[tuple[slice, slice]]:
        """Yield slices of runs and samples whose evaluation fits into the memory, all of them if they do.

        `graphs` says how many times over an evaluation keeps what a gradient does.
        """
        most = max(1, int(self._max_memory / (graphs * self.bytes)))
        together = max(1, min(runs, most // min(samples, 16)))
        rows = max(1, min(samples, most // together))
        for a in range(0, runs, together):
            for b in range(0, samples, rows):
                yield slice(a, min(a + together, runs)), slice(b, min(b + rows, samples))

    def _bytes_of_a_sample(self, weights: Float[torch.Tensor, " d"]) -> float:
        """Return what autograd keeps for one more sample, from what it keeps for one and for two."""

        def kept(n: int) -> int:
            total = 0

            def note(tensor: torch.Tensor) -> torch.Tensor:
                nonlocal total
                total += tensor.numel() * tensor.element_size()
                return tensor

            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                self.model.losses(weights.detach().requires_grad_(), self.samples[:n])
            return total

        if len(self.samples) == 1:
            return float(max(kept(1), 1))
        return float(max(kept(2) - kept(1), 1))


def _within(rows: Int[np.ndarray, " b"] | slice, part: slice) -> Int[np.ndarray, " k"] | slice:
    """Return a part of chosen rows."""
    if isinstance(rows, slice):
        first = rows.start or 0
        return slice(first + part.start, first + part.stop)
    return rows[part]
