"""A model whose weights are one flat vector that is changed in place: what a loop over many steps runs fastest on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int

from numerics.language.pretraining import logits_of
from numerics.models.attention import elementary_attention
from numerics.models.module import TorchModel
from numerics.models.samples import Samples

__all__ = ["LiveModel"]

_LOGITS_TOGETHER = 2**24  # numbers of logits held at once while losses are recorded: 64 MB in float32


class LiveModel:
    """A copy of a module whose parameters are views of one vector, and so are their gradients.

    Parameters
    ----------
    model
        The module and the loss of its tokens.
    weights
        Flat weights, shape (d,), which decide on dtype and device.

    Examples
    --------
    >>> from numerics.language.bigram import BigramModel
    >>> from numerics.language.tokens import next_token_loss, token_samples
    >>> live = LiveModel(TorchModel(BigramModel(2), next_token_loss), torch.zeros(4))
    >>> samples = token_samples([[0, 1, 1]])
    >>> live.record(samples)
    tensor([[0.6931, 0.6931]])
    >>> live.mean_loss_and_gradient(samples.inputs, samples.targets), live.gradient
    (tensor(0.6931), tensor([ 0.2500, -0.2500,  0.2500, -0.2500]))
    """

    def __init__(self, model: TorchModel, weights: Float[torch.Tensor, " d"]) -> None:
        self._model = model
        self._logits: int | None = None
        self._batched: bool | None = None  # whether many gradients go backward at once; found out at the first ones
        self.module = copy.deepcopy(model.module).to(weights)
        self._free: list[torch.nn.Parameter] = []
        self.weights = weights.detach().clone()
        self.gradient = torch.zeros_like(self.weights)
        first = 0
        for name, parameter in self.module.named_parameters():
            if name not in model.free:
                continue
            piece = slice(first, first + parameter.numel())
            parameter.data = self.weights[piece].view(parameter.shape)
            parameter.grad = self.gradient[piece].view(parameter.shape)
            parameter.requires_grad_(True)
            self._free.append(parameter)
            first = piece.stop

    def _outputs(self, inputs: Int[torch.Tensor, "n t"]) -> Float[torch.Tensor, "n t v"]:
        if self._model.call is not None:
            return self._model.call(self.module, inputs)
        return logits_of(self.module, inputs)

    def token_losses(
        self, inputs: Int[torch.Tensor, "n t"], targets: Int[torch.Tensor, "n t"]
    ) -> Float[torch.Tensor, "n t"]:
        """Return the loss of every token."""
        losses = self._model.loss_of_outputs(self._outputs(inputs), targets)
        if losses.shape != targets.shape:
            raise ValueError(
                f"the loss returned shape {tuple(losses.shape)} for tokens of shape {tuple(targets.shape)}, but one "
                "number for each is needed; use next_token_loss."
            )
        return losses

    def mean_loss_and_gradient(
        self, inputs: Int[torch.Tensor, "n t"], targets: Int[torch.Tensor, "n t"]
    ) -> Float[torch.Tensor, ""]:
        """Return the mean loss, and leave its gradient in `gradient`."""
        self.gradient.zero_()
        with torch.enable_grad():
            mean = self.token_losses(inputs, targets).mean()
            mean.backward()
        return mean.detach()

    def vocabulary(self, inputs: Int[torch.Tensor, "n t"]) -> int:
        """Return how many logits the model gives a token."""
        if self._logits is None:
            with torch.no_grad():
                self._logits = int(self._outputs(inputs[:1]).shape[-1])
        return self._logits

    def token_gradients(
        self, inputs: Int[torch.Tensor, " t"], targets: Int[torch.Tensor, " t"], positions: Sequence[int]
    ) -> Float[torch.Tensor, "k d"]:
        """Return the gradients of the losses at some positions of one sequence, from one forward pass.

        All go backward at once where torch can batch every operation of the module, which is tried on one of them.

        Examples
        --------
        >>> from numerics.language.bigram import BigramModel
        >>> from numerics.language.tokens import next_token_loss
        >>> live = LiveModel(TorchModel(BigramModel(2), next_token_loss), torch.zeros(4))
        >>> live.token_gradients(torch.tensor([0, 1]), torch.tensor([1, 1]), [1])
        tensor([[ 0.0000,  0.0000,  0.5000, -0.5000]])
        """
        with torch.enable_grad(), elementary_attention():
            losses = self.token_losses(inputs[None], targets[None])[0]

            def alone(position: int) -> Float[torch.Tensor, " d"]:
                return self._flat(losses[position])

            if self._batched is None:
                self._batched = self._agrees(losses, positions[0], alone(positions[0]))
            if self._batched and len(positions) > 1:
                return self._backward_together(losses, positions)
            return torch.stack([alone(position) for position in positions])

    def _agrees(self, losses: Float[torch.Tensor, " t"], position: int, expected: Float[torch.Tensor, " d"]) -> bool:
        """Return whether the batched backward pass exists and gives the gradient that the plain one does."""
        try:
            found = self._backward_together(losses, [position])[0]
        except (RuntimeError, NotImplementedError):
            return False
        # Two orders of the same sums: some thousand roundings at most.
        reach = 1e3 * torch.finfo(expected.dtype).eps * expected.norm()
        return bool((found - expected).norm() <= reach)

    def _backward_together(
        self, losses: Float[torch.Tensor, " t"], positions: Sequence[int]
    ) -> Float[torch.Tensor, "k d"]:
        one_hot = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)[list(positions)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            pieces = torch.autograd.grad(
                losses, self._free, one_hot, retain_graph=True, is_grads_batched=True, materialize_grads=True
            )
        return torch.cat([piece.flatten(1) for piece in pieces], dim=1)

    def _flat(self, value: Float[torch.Tensor, ""]) -> Float[torch.Tensor, " d"]:
        pieces = torch.autograd.grad(value, self._free, retain_graph=True, materialize_grads=True)
        return torch.cat([piece.flatten() for piece in pieces])

    def record(self, samples: Samples) -> Float[torch.Tensor, "n t"]:
        """Return the loss of every token of all samples, a fixed number of sequences at a time."""
        assert isinstance(samples.inputs, torch.Tensor)
        assert isinstance(samples.targets, torch.Tensor)
        with torch.no_grad():
            together = max(1, _LOGITS_TOGETHER // (self.vocabulary(samples.inputs) * samples.targets.shape[1]))
            return torch.cat(
                [
                    self.token_losses(inputs, targets)
                    for inputs, targets in zip(
                        samples.inputs.split(together), samples.targets.split(together), strict=True
                    )
                ]
            )

    def curvature_product(
        self, inputs: Int[torch.Tensor, "n t"], targets: Int[torch.Tensor, "n t"]
    ) -> Callable[[Float[torch.Tensor, " d"]], Float[torch.Tensor, " d"]]:
        """Return the product of the Hessian of the mean loss with a vector, as a function of the vector."""
        parameters = self._free
        with torch.enable_grad(), elementary_attention():
            mean = self.token_losses(inputs, targets).mean()
            slopes = torch.autograd.grad(mean, parameters, create_graph=True)
            flat = torch.cat([slope.flatten() for slope in slopes])

        def product(vector: Float[torch.Tensor, " d"]) -> Float[torch.Tensor, " d"]:
            with torch.enable_grad():
                # A parameter that enters linearly, or not at all, has no second derivative.
                return self._flat(flat @ vector)

        self.gradient.copy_(flat.detach())
        return product
