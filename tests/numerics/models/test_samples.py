"""Samples as trees of tensors and as parts: rows, joins, shares, and what is refused."""

import time

import numpy as np
import pytest
import torch

from numerics import Parts, Samples, TorchModel

IDS = torch.tensor([[5, 3, 1], [2, 7, 4], [0, 1, 2]])
TREE = Samples({"input_ids": IDS, "more": (torch.ones(3, 2),)}, IDS, ("a", "b", "c"))
PRESENT = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])


def test_rows_of_a_tree_are_rows_of_its_tensors():
    for rows, wanted in ((slice(1, 3), [1, 2]), ([2, 0], [2, 0]), (np.array([1]), [1]), (torch.tensor([0]), [0])):
        some = TREE[rows]
        assert torch.equal(some.inputs["input_ids"], IDS[wanted])
        assert torch.equal(some.inputs["more"][0], torch.ones(len(wanted), 2))
        assert some.names == tuple("abc"[k] for k in wanted)
    partial = Samples(IDS, IDS, (), PRESENT)[[1, 2]]
    assert torch.equal(partial.present, PRESENT[1:])


def test_real_tensors_of_a_tree_follow_the_weights():
    moved = TREE.like(torch.zeros(1, dtype=torch.float64))
    assert moved.inputs["more"][0].dtype == torch.float64
    assert moved.inputs["input_ids"].dtype == torch.int64


def test_trees_are_joined_leaf_by_leaf():
    both = Samples.joined(TREE, TREE[:1])
    assert torch.equal(both.inputs["input_ids"], torch.cat([IDS, IDS[:1]]))
    assert len(set(both.names)) == len(both) == 4
    with pytest.raises(ValueError, match="cannot be joined"):
        Samples.joined(TREE, Samples(IDS, IDS))
    with pytest.raises(ValueError, match="only one of them says which parts"):
        Samples.joined(Samples(IDS, IDS, (), PRESENT), Samples(IDS, IDS))


def test_many_names_are_checked_in_linear_time():
    """Four times as many take about four times as long; quadratic checks would take sixteen times."""

    def seconds(n):
        x = torch.zeros(n, 1)
        begin = time.process_time()
        for _ in range(5):
            samples = Samples(x, x)
            samples.index(f"sample-{n - 1}")
        return time.process_time() - begin

    seconds(1000)
    assert seconds(80_000) / seconds(20_000) < 9


def test_parts_are_those_that_are_present():
    parts = Parts(Samples(IDS, IDS, ("a", "b", "c"), PRESENT), ["x", "y", "z"])
    where = [("a", "x"), ("a", "y"), ("a", "z"), ("b", "x"), ("b", "z"), ("c", "y")]
    assert list(parts.labels) == where
    np.testing.assert_array_equal(parts.share, [1 / 3] * 3 + [1 / 2] * 2 + [1])
    losses = torch.arange(9.0).reshape(3, 3)
    assert parts.flattened(losses).tolist() == [0, 1, 2, 3, 5, 7]
    assert parts.flattened(losses.expand(2, 3, 3)).shape == (2, 6)
    every = Parts(Samples(IDS, IDS), 3)
    assert every.flattened(losses).tolist() == list(range(9))
    assert every.labels[3] == ("sample-1", "0")


def test_a_sample_is_the_mean_of_the_parts_that_it_has():
    def token_losses(outputs, targets):
        return (outputs - targets).square()

    model = TorchModel(torch.nn.Linear(3, 3), token_losses)
    x, y = torch.randn(3, 3), torch.randn(3, 3)
    samples = Samples(x, torch.where(PRESENT, y, torch.tensor(1e6)), (), PRESENT)
    w = model.initial()
    squares = (torch.nn.functional.linear(x, w[:9].reshape(3, 3), w[9:]) - y).square()
    expected = torch.stack([squares[i][PRESENT[i]].mean() for i in range(3)])
    torch.testing.assert_close(model.losses(w, samples), expected)
    gradient = torch.autograd.functional.jacobian(lambda v: model.losses(v, samples).sum(), w)
    assert torch.isfinite(gradient).all()
    assert model.part_losses(w, samples).shape == (3, 3)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Samples({"ids": [1, 2]}, IDS), TypeError, r"inputs\['ids'\]\[0\] must be a torch tensor, but int"),
        (lambda: Samples({}, IDS), ValueError, "inputs holds no tensor"),
        (lambda: Samples({"a": IDS, "b": IDS[:2]}, IDS), ValueError, r"\['a'\] hold 3 samples, but .*\['b'\] 2"),
        (lambda: Samples(IDS, IDS, (), PRESENT.int()), TypeError, "present must be a torch tensor of bool"),
        (lambda: Samples(IDS, IDS, (), PRESENT[:2]), ValueError, r"present has shape \(2, 3\)"),
        (lambda: Samples(IDS, IDS, (), PRESENT & False), ValueError, "'sample-0' has no part that is present"),
        (lambda: Parts(IDS, 3), TypeError, "samples"),
        (lambda: Parts(Samples(IDS, IDS, (), PRESENT), 2), ValueError, "2 parts were named, but samples.present has 3"),
        (lambda: Parts(Samples(IDS, IDS), ["a", "a"]), ValueError, "'a' stands twice"),
        (lambda: Parts(Samples(IDS, IDS), 0), ValueError, "names is empty"),
        (lambda: Parts(Samples(IDS, IDS), 2).flattened(torch.zeros(3, 3)), ValueError, r"the 3 samples and 2 parts"),
        (
            lambda: TorchModel(torch.nn.Linear(3, 3), lambda out, y: out).losses(
                torch.zeros(12), Samples(torch.zeros(3, 3), IDS, (), PRESENT[:, :2])
            ),
            ValueError,
            r"returned shape \(3, 3\) for 3 samples.*\(2 of them\)",
        ),
        (
            lambda: TorchModel(torch.nn.Linear(3, 3)).part_losses(
                torch.zeros(12), Samples(torch.zeros(2, 3), torch.zeros(2, 3))
            ),
            ValueError,
            "parts need",
        ),
    ],
)
def test_bad_input_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()
