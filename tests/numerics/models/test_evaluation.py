"""Ways of evaluation: every module gives what plain autograd gives, whichever way it is taken, or a sentence."""

import functools

import numpy as np
import pytest
import torch

from numerics import ModuleCheckpoints, Samples, TorchModel, WrongDerivative
from numerics.models.evaluation import Ways, losses_for_weights, sample_gradients_in_dtype, ways_of
from numerics.models.slopes import check_gradients

F = torch.nn.functional


class Gated(torch.nn.Module):
    """Asks for the value of a number, which vmap refuses."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, x):
        y = self.linear(x)
        return y if y.sum() > 0 else 2 * y


class Counting(torch.nn.Module):
    """Writes into a tensor that it makes in forward."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, x):
        out = torch.zeros(len(x), 2, dtype=x.dtype)
        out += self.linear(x)
        return out


def half_squares(outputs, targets):
    first = outputs[0] if isinstance(outputs, tuple) else outputs
    return 0.5 * (first - targets).square().flatten(1).sum(1)


def case(name):
    torch.manual_seed(0)
    x = torch.randn(4, 3)
    sequence = torch.randn(4, 5, 4)
    if name == "linear":
        return TorchModel(torch.nn.Linear(3, 2)), Samples(x, torch.randn(4, 2)), Ways("vmap", "vmap")
    if name == "convolution":
        module = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 2), torch.nn.Tanh(), torch.nn.Flatten())
        return TorchModel(module), Samples(x[:, None], torch.randn(4, 4)), Ways("vmap", "vmap")
    if name in ("RNN", "LSTM", "GRU"):
        module = getattr(torch.nn, name)(4, 3, batch_first=True)
        return TorchModel(module, half_squares), Samples(sequence, torch.randn(4, 5, 3)), Ways("loop", "loop")
    if name == "MultiheadAttention":
        module = torch.nn.MultiheadAttention(4, 2, batch_first=True)
        samples = Samples((sequence, sequence, sequence), torch.randn(4, 5, 4))
        return TorchModel(module, half_squares), samples, None
    if name == "TransformerEncoderLayer":
        module = torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        return TorchModel(module, half_squares), Samples(sequence, torch.randn(4, 5, 4)), None
    if name == "TransformerEncoder":
        module = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)
        return TorchModel(module, half_squares), Samples(sequence, torch.randn(4, 5, 4)), None
    if name == "control flow":
        return TorchModel(Gated(), half_squares), Samples(x[:1].repeat(4, 1), torch.randn(4, 2)), Ways("loop", "loop")
    if name == "tensors made in forward":
        return TorchModel(Counting(), half_squares), Samples(x, torch.randn(4, 2)), None
    if name == "weight norm":
        module = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2))
        return TorchModel(module), Samples(x, torch.randn(4, 2)), None
    if name == "tied embedding":

        class Tied(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.table, self.head = torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6, bias=False)
                self.head.weight = self.table.weight

            def forward(self, ids):
                return self.head(torch.tanh(self.table(ids).sum(1)))

        loss = functools.partial(F.cross_entropy, reduction="none")
        return TorchModel(Tied(), loss), Samples(torch.randint(6, (4, 3)), torch.randint(6, (4,))), None
    if name == "batch norm":
        module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        return TorchModel(module), Samples(x, torch.randn(4, 2)), Ways("vmap", "vmap")
    if name == "mapping":

        class Masked(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = torch.nn.Linear(3, 2)

            def forward(self, values, mask):
                return {"logits": self.linear(values * mask)}

        return (
            TorchModel(Masked()),
            Samples({"values": x, "mask": torch.ones(4, 3)}, torch.randn(4, 2)),
            Ways("vmap", "vmap"),
        )
    raise KeyError(name)


CASES = [
    "linear", "convolution", "RNN", "LSTM", "GRU", "MultiheadAttention", "TransformerEncoderLayer",
    "TransformerEncoder", "control flow", "tensors made in forward", "weight norm", "tied embedding", "batch norm",
    "mapping",
]  # fmt: skip


def reference(model, weights, samples):
    """Return losses and per-sample gradients by loading the weights into the module itself, and backward()."""
    module = model.with_state({}).module
    named = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in model.parameters_of(weights).items():
            named[name].copy_(value)
    losses, gradients = [], []
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for i in range(len(samples)):
            one = samples[[i]]
            if isinstance(one.inputs, dict):
                out = module(**one.inputs)["logits"]
            else:
                out = module(*one.inputs) if isinstance(one.inputs, tuple) else module(one.inputs)
            loss = model.loss(out, one.targets)[0]
            module.zero_grad()
            loss.backward()
            losses.append(loss.detach())
            gradients.append(torch.cat([named[name].grad.flatten() for name in model.free]))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return torch.stack(losses), torch.stack(gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_are_those_of_backward(name, dtype):
    model, samples, expected_ways = case(name)
    weights = (model.initial() + 0.1 * torch.randn(model.n_parameters)).to(dtype)
    model = model.to(weights)
    samples = samples.like(weights)
    ModuleCheckpoints(np.array([0]), model, weights[None]).check_fits(samples)
    ways = ways_of(model, weights, samples)
    if expected_ways is not None:
        assert ways == expected_ways
    losses, gradients = reference(model, weights, samples)
    # Other orders of the same sums: a few hundred operations on numbers of order 1.
    room = 300 * torch.finfo(dtype).eps
    both = torch.stack([weights, weights + 0.1])
    found = losses_for_weights(model, samples, ways.weights)(both)
    torch.testing.assert_close(found[0], losses, rtol=room, atol=room)
    other, _ = reference(model, both[1], samples)
    torch.testing.assert_close(found[1], other, rtol=room, atol=room)
    slopes = sample_gradients_in_dtype(model, weights, samples, ways.samples, chunk=3)
    torch.testing.assert_close(slopes, gradients, rtol=room, atol=room)


def test_the_way_is_tried_once():
    model, samples, _ = case("GRU")
    assert ways_of(model, model.initial(), samples) is ways_of(model, model.initial(), samples[:2])


def test_the_fast_path_is_as_it_was():
    assert torch.backends.mha.get_fastpath_enabled()
    model, samples, _ = case("TransformerEncoderLayer")
    model.losses(model.initial(), samples)
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_cannot_be_differentiated_is_said():
    class Rounded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)

        def forward(self, x):
            return torch.tensor(self.linear(x).detach().numpy())

    model = TorchModel(Rounded(), half_squares)
    samples = Samples(torch.randn(2, 3), torch.randn(2, 2))
    with pytest.raises(WrongDerivative, match="the gradient of Rounded is wrong"):
        check_gradients(model, model.initial(), samples)
    # Its values alone can be had.
    losses = model.losses(model.initial(), samples)
    assert torch.equal(
        losses_for_weights(model, samples, ways_of(model, model.initial(), samples).weights)(model.initial()[None])[0],
        losses,
    )


def test_a_module_that_does_not_read_the_samples_is_named():
    model = TorchModel(torch.nn.LSTM(4, 3), half_squares)
    run = ModuleCheckpoints(np.array([0]), model, model.initial()[None])
    with pytest.raises(ValueError, match=r"LSTM cannot evaluate inputs of shape \(2, 7\)"):
        run.check_fits(Samples(torch.zeros(2, 7), torch.zeros(2, 3)))
