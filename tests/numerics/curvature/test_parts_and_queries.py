"""Parts of samples and queries other than losses, as sources and queries of every measure of curvature."""

import numpy as np
import pytest
import torch
from any_module import EPS

from numerics import (
    ModuleCheckpoints,
    Parts,
    Query,
    Samples,
    TorchModel,
    gauss_newton_influence,
    gradient_kernel,
    hessian_influence,
    margin,
    tracin,
)

W = torch.tensor([[1.0, -0.5, 0.3, 0.8], [0.2, 0.7, -1.0, 0.4]], dtype=torch.float64)


def squares(f, y):
    return 0.5 * (f - y) ** 2


@pytest.fixture
def case():
    """Return a linear map of two inputs to two outputs, and three samples; the last has the first output alone."""
    model = TorchModel(torch.nn.Linear(2, 2, bias=False).double(), squares)
    x = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, -0.7]], dtype=torch.float64)
    y = torch.tensor([[0.5, -1.0], [1.0, 0.0], [2.0, 9.0]], dtype=torch.float64)
    present = torch.tensor([[True, True], [True, True], [True, False]])
    samples = Samples(x, y, ("a", "b", "c"), present)
    return samples, Parts(samples, ("left", "right")), ModuleCheckpoints(np.array([0.0, 4.0]), model, W)


def written(samples, t):
    """Return the gradients r_k x of every part that is present, and the mean loss's Hessian, both from the formula."""
    x, y, w = samples.inputs.numpy(), samples.targets.numpy(), W[t].reshape(2, 2).numpy()
    present = samples.present.numpy()
    gradients, hessian = [], np.zeros((4, 4))
    for i, k in zip(*present.nonzero(), strict=True):
        row = np.zeros((2, 2))
        row[k] = (w[k] @ x[i] - y[i, k]) * x[i]
        gradients.append(row.ravel())
        block = np.zeros((2, 2))
        block[k, k] = 1
        hessian += np.kron(block, np.outer(x[i], x[i])) / present[i].sum() / 3
    return np.array(gradients), hessian


@pytest.mark.parametrize("method", ["dense", "matrix-free"])
@pytest.mark.parametrize("measure", [hessian_influence, gauss_newton_influence])
def test_parts_have_their_share_as_sources_and_their_own_loss_as_queries(case, measure, method):
    samples, parts, checkpoints = case
    settings = {"damping": 0.5, "sources": parts, "queries": parts, "method": method, "rtol": 1e-12}
    found = measure(samples, checkpoints, **settings)["influence"]
    for t in range(2):
        gradients, hessian = written(samples, t)
        solved = np.linalg.solve(hessian + 0.5 * np.eye(4), (gradients * parts.share[:, None]).T)
        # Condition below 10, numbers of order 10, rtol 1e-12.
        np.testing.assert_allclose(found.values[0, t], -(solved.T @ gradients.T) / 3, rtol=0, atol=1e-10)
    one = found.sel(source_name="b", source_part="right", query_name="c", query_part="left")
    assert one.size == 2
    assert found.dims == ("damping", "epoch", "source", "query")


def test_parts_of_a_source_add_up_to_the_sample(case):
    samples, parts, checkpoints = case
    whole = gradient_kernel(samples, checkpoints)
    pieces = gradient_kernel(samples, checkpoints, sources=parts)
    added = pieces.groupby("source_name").sum("source")
    # Sums of four products of numbers of order 10.
    added = added.transpose("epoch", "source_name", "query").values
    np.testing.assert_allclose(added, whole.values, rtol=0, atol=1e4 * EPS)
    traced = tracin(samples, checkpoints, lr=0.1, sources=parts)
    assert traced.sel(source_name="c", source_part="left").sizes == {"epoch": 2, "query": 3}


def test_parts_that_the_loss_does_not_have_are_refused(case):
    samples, _, checkpoints = case
    three = Parts(Samples(samples.inputs, samples.targets, samples.names), 3)
    with pytest.raises(ValueError, match=r"the loss has shape \(1, 2\), but one number for each"):
        gradient_kernel(samples, checkpoints, queries=three)
    others = Parts(Samples(samples.inputs, samples.targets), 2)
    with pytest.raises(KeyError, match="no sample is called 'sample-0'"):
        hessian_influence(samples, checkpoints, damping=1.0, sources=others)


def test_queries_that_are_functions_of_outputs_or_weights():
    """The kernel of a linear map: margins and weights have the gradients that the formula says."""
    cross_entropy = torch.nn.CrossEntropyLoss(reduction="none")
    model = TorchModel(torch.nn.Linear(2, 2, bias=False).double(), cross_entropy)
    checkpoints = ModuleCheckpoints(np.array([0.0, 4.0]), model, W)
    x = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], dtype=torch.float64)
    samples = Samples(x, torch.tensor([0, 1]), ("a", "b"))
    asked = [
        Query(samples, margin, ("margin a", "margin b")),
        {"corner": lambda parameters: parameters["weight"][1, 0]},
    ]
    kernel = gradient_kernel(samples, checkpoints, queries=asked)
    assert kernel["query"].values.tolist() == ["margin a", "margin b", "corner"]
    assert kernel.attrs["query_measure"] == "margin, function of the parameters"
    sides = np.array([[1.0, -1.0], [-1.0, 1.0]])  # of the margin in the two logits
    about = [np.outer(side, row).ravel() for side, row in zip(sides, x.numpy(), strict=True)]
    queries = np.array([*about, [0, 0, 1, 0]])
    for t in range(2):
        logits = x.numpy() @ W[t].reshape(2, 2).numpy().T
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        gradients = np.array([np.outer(p[i] - np.eye(2)[i], x[i]).ravel() for i in range(2)])
        np.testing.assert_allclose(kernel.values[t], gradients @ queries.T, rtol=0, atol=1e3 * EPS)
        for measure in (hessian_influence, gauss_newton_influence):
            result = measure(samples, checkpoints, damping=0.5, queries=asked)["influence"]
            curved = sum(np.kron(np.diag(p[i]) - np.outer(p[i], p[i]), np.outer(x[i], x[i])) for i in range(2)) / 2
            solved = np.linalg.solve(curved + 0.5 * np.eye(4), gradients.T)
            np.testing.assert_allclose(result.values[0, t], -(queries @ solved).T / 2, rtol=0, atol=1e4 * EPS)
            assert result.attrs["long_name"] == "influence on the margin, function of the parameters"
