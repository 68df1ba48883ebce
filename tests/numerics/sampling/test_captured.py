"""Recorded functions: the same bits as the function, or no recording."""

from itertools import count

import pytest
import torch
from torch.func import grad_and_value, vmap

from numerics.sampling.captured import captured

torch.manual_seed(0)
LAYER = torch.randn(4, 6)
IMAGES, LABELS = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 1, 0])


def mlp(w):
    hidden = torch.tanh(LAYER @ w[:18].view(6, 3))
    return (torch.nn.functional.gelu(hidden) @ w[18:].view(3, 1)).square().mean()


def cnn(w):
    hidden = torch.nn.functional.relu(torch.conv2d(IMAGES, w[:9].view(1, 1, 3, 3)), inplace=True)
    hidden = torch.nn.functional.layer_norm(torch.max_pool2d(hidden, 2).flatten(1), (9,))
    return torch.nn.functional.cross_entropy(hidden @ w[9:].view(9, 3), LABELS)


def attention(w):
    q, k = (LAYER @ w[:36].view(6, 6)).view(1, 2, 4, 3), (LAYER @ w[36:].view(6, 6)).view(1, 2, 4, 3)
    return torch.nn.functional.scaled_dot_product_attention(q, k, q, is_causal=True).square().sum()


def scattered(w):
    return (
        torch.zeros(3, dtype=w.dtype).index_add(0, torch.tensor([0, 2, 0]), w).square().sum() + w.exp().cumsum(0).sum()
    )


CASES = {"mlp": (mlp, 21), "cnn": (cnn, 36), "attention": (attention, 72), "scattered": (scattered, 3)}


def slope_and_value(function, batched):
    if batched:
        return lambda w: vmap(grad_and_value(function))(w)

    def by_autograd(w):
        leaf = w.detach().requires_grad_()
        with torch.enable_grad():
            value = function(leaf)
            return (torch.autograd.grad(value, leaf)[0], value.detach())

    return by_autograd


# Attention on the CPU has no batching rule of its own: there chains go one by one.
@pytest.mark.parametrize(
    ("case", "batched"), [(c, b) for c in CASES for b in (False, True) if (c, b) != ("attention", True)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_recording_gives_the_functions_bits_at_any_weights(case, batched, dtype, monkeypatch):
    function, size = CASES[case]
    for name in ("LAYER", "IMAGES"):
        monkeypatch.setitem(globals(), name, globals()[name].to(dtype))
    whole = slope_and_value(function, batched)
    w = torch.randn(*([3] if batched else []), size, dtype=dtype)
    into, start = torch.empty_like(w), w.clone()
    with torch.no_grad():
        replay = captured(whole, (w,), into=into)
        assert replay is not None
        assert torch.equal(w, start)
        for _ in range(3):
            w.normal_()
            expected = [value.clone() for value in whole(w)]
            found = replay(w)
            assert found[0] is into
            for a, b in zip(found, expected, strict=True):
                assert torch.equal(a, b)


def test_further_arguments_and_buffers_change_from_call_to_call():
    w, scale, into = torch.ones(3), torch.full((3,), 2.0), torch.zeros(3)

    def function(w, scale, x):
        return w * scale + x, (w * x).sum(), torch.ones_like(x)

    replay = captured(function, (w, scale), (torch.arange(3.0),), into=into)
    scale.fill_(5.0)
    first, second, third = replay(w, scale, torch.tensor([7.0, 8.0, 9.0]))
    assert first.tolist() == [12.0, 13.0, 14.0]
    assert second.item() == 24.0
    assert third.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "function",
    [
        lambda w: (w if w.sum() > 0 else -w,),  # asks for the value of a number
        lambda w: (w[w > 0].sum()[None].expand(3),),  # a shape that depends on the weights
        lambda w: (w + torch.rand(3),),  # chance
        lambda w: (w * next(COUNTER),),  # counts its calls
        lambda w: (w.add_(1.0),),  # changes the weights
        lambda w: (KEPT.add_(w),),  # changes what lives longer
    ],
    ids=["branch", "shape", "chance", "counter", "weights", "constant"],
)
def test_what_cannot_be_replayed_is_not_recorded(function):
    w = torch.tensor([1.0, 2.0, 3.0])
    assert captured(function, (w,), into=torch.empty(3)) is None
    assert w.tolist() == [1.0, 2.0, 3.0]


COUNTER = count(1)
KEPT = torch.zeros(3)
