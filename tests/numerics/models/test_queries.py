"""What is asked of a model: measures of outputs and functions of weights against autograd, and what is refused."""

import functools
import math

import mpmath
import numpy as np
import pytest
import torch

from numerics import Parts, Query, Samples, TorchModel, correct_logit, log_odds, margin
from numerics.models.queries import Queries
from theory import hierarchical_dataset

EPS = np.finfo(float).eps
MODEL = TorchModel(torch.nn.Linear(3, 4).double())
SAMPLES = Samples(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 1, 2]))


def test_measures_are_what_their_names_say():
    outputs = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([0, 1, 2, 3, 0, 1])
    p = outputs.softmax(1)[torch.arange(6), targets]
    assert torch.equal(correct_logit(outputs, targets), outputs[torch.arange(6), targets])
    # log p / (1 - p) of p known to a few eps, divided by 1 - p.
    torch.testing.assert_close(log_odds(outputs, targets), (p / (1 - p)).log(), rtol=0, atol=1e3 * EPS)
    for row in range(6):
        others = [float(outputs[row, c]) for c in range(4) if c != targets[row]]
        assert float(margin(outputs, targets)[row]) == float(outputs[row, targets[row]]) - max(others)


def test_log_odds_keep_their_digits_where_the_probability_is_1():
    outputs = torch.tensor([[50.0, 1.0, 2.0]], dtype=torch.float64)
    exact = 50 - mpmath.log(mpmath.exp(1) + mpmath.exp(2))
    assert abs(float(log_odds(outputs, torch.tensor([0]))) - float(exact)) <= 50 * 2 * EPS
    assert math.isinf(float(torch.special.logit(outputs.softmax(1)[:, 0])))


@pytest.mark.parametrize("measure", [margin, log_odds, correct_logit])
def test_measures_have_first_and_second_derivatives(measure):
    outputs = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    targets = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda o: measure(o, targets), outputs)
    assert torch.autograd.gradgradcheck(lambda o: measure(o, targets).square(), outputs)
    both = torch.func.jacrev(torch.func.jacrev(lambda o: measure(o, targets).square().sum()))(outputs.detach())
    assert torch.isfinite(both).all()


def test_tokens_have_one_measure_each():
    outputs = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    targets = torch.randint(4, (2, 5), generator=torch.Generator().manual_seed(2))
    for measure in (margin, log_odds, correct_logit):
        each = measure(outputs.flatten(0, 1), targets.flatten())
        assert torch.equal(measure(outputs, targets).flatten(), each)


def test_a_query_takes_the_place_of_the_loss_and_leaves_the_model_alone():
    query = Query(SAMPLES.like(MODEL.initial()), margin, tuple("abcde"))
    weights = MODEL.initial()
    expected = margin(MODEL.outputs(weights, query.samples.inputs), query.samples.targets)
    assert torch.equal(query.on(MODEL).losses(weights, query.samples), expected)
    assert MODEL.loss.__name__ == "half_squared_error"
    alone = torch.func.vmap(lambda x, y: query.on(MODEL).sample_losses(weights, x[None], y[None])[0])
    torch.testing.assert_close(alone(query.samples.inputs, query.samples.targets), expected, rtol=0, atol=64 * EPS)


def test_everything_asked_is_one_vector():
    samples = SAMPLES.like(MODEL.initial())
    mixed = Queries.of(
        [
            Query(samples, margin, tuple("abcde")),
            {"bias": lambda p: p["bias"].sum(), "one": lambda p: p["weight"][0, 1]},
        ]
    )
    assert mixed.names == (*"abcde", "bias", "one")
    assert mixed.measured == "margin, function of the parameters"
    values = mixed.values(MODEL, MODEL.initial())
    module = MODEL.module
    expected = [*margin(module(samples.inputs), samples.targets), module.bias.sum(), module.weight[0, 1]]
    torch.testing.assert_close(values, torch.stack(expected), rtol=0, atol=64 * EPS)
    assert Queries.of(None, SAMPLES).names == SAMPLES.names
    assert Queries.of(mixed) is mixed
    assert len(Queries.of(Query(hierarchical_dataset()))) == 8
    assert Queries.of(SAMPLES).measured == "loss"


def mean_of_all(outputs, targets):
    return outputs.mean()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: Query(torch.zeros(3)), TypeError, "a query is about Samples or a Dataset, but Tensor was given"),
        (lambda: Query(SAMPLES, "margin"), TypeError, "measure"),
        (lambda: Query(SAMPLES, margin, ("a",)), ValueError, "1 names were given for the queries about 5 samples"),
        (lambda: Query(SAMPLES, margin, ("a",) * 5), ValueError, "must have distinct names, but 'a' stands twice"),
        (lambda: Queries.of([SAMPLES, Query(SAMPLES, margin)]), ValueError, "'sample-0' stands twice; give names="),
        (lambda: Queries.of([{"a": abs}, {"a": abs}]), ValueError, "'a' stands twice"),
        (lambda: Queries.of({}), ValueError, "queries is empty"),
        (lambda: Queries.of([]), ValueError, "queries is empty"),
        (lambda: Queries.of({"a": 3}), TypeError, "function"),
        (lambda: Queries.of({"a": Query(SAMPLES)}), TypeError, "function"),
        (lambda: Queries.of(3), TypeError, "queries must be samples, a Query or functions of the parameters by name"),
        (
            lambda: Queries.of({"a": lambda p: p["bias"]}).values(MODEL, MODEL.initial()),
            ValueError,
            r"query 'a' must return one number as a tensor, but it returned shape \(4,\)",
        ),
        (
            lambda: Queries.of({"a": lambda p: 1.0}).values(MODEL, MODEL.initial()),
            ValueError,
            "it returned float",
        ),
        (
            lambda: Queries.of(Query(SAMPLES.like(MODEL.initial()), mean_of_all)).values(MODEL, MODEL.initial()),
            ValueError,
            r"measure mean_of_all returned shape \(\) for 5 samples, but one number for each is needed; use",
        ),
        (
            lambda: Queries.of(Query(SAMPLES.like(MODEL.initial()), lambda o, t: o.tolist())).values(
                MODEL, MODEL.initial()
            ),
            TypeError,
            "must return a tensor, but it returned list",
        ),
        (
            lambda: margin(torch.zeros(3, 2), torch.zeros(3)),
            ValueError,
            r"shape \(3, 2\) and targets \(3,\) of torch.f",
        ),
        (lambda: margin(torch.zeros(3, 1), torch.zeros(3).long()), ValueError, "at least two classes"),
        (lambda: log_odds(torch.zeros(3, 2), torch.zeros(3, 2).long()), ValueError, "a class number for each row"),
    ],
)
def test_bad_input_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_measure_with_settings_is_named_by_its_function():
    smooth = functools.partial(torch.nn.functional.cross_entropy, reduction="none", label_smoothing=0.1)
    query = Query(SAMPLES.like(MODEL.initial()), smooth)
    assert query.measured == "cross_entropy"
    assert query.on(MODEL).losses(MODEL.initial(), query.samples).shape == (5,)


def test_parts_are_queries_of_their_own():
    """Outputs of a regression as parts, of which one is absent and holds nonsense."""
    model = TorchModel(torch.nn.Linear(3, 4).double(), lambda outputs, targets: (outputs - targets).square())
    targets = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    present = torch.ones(5, 4, dtype=torch.bool)
    present[2, 1] = False
    data = Samples(SAMPLES.inputs.double(), targets, tuple("abcde"), present)
    asked = Queries.of(Parts(data, ("w", "x", "y", "z")))
    assert len(asked) == 19
    assert asked.names[:5] == ("a/w", "a/x", "a/y", "a/z", "b/w")
    assert "c/x" not in asked.names
    expected = (model.module(data.inputs) - targets).square()[present]
    torch.testing.assert_close(asked.values(model, model.initial()), expected, rtol=0, atol=64 * EPS)
    capped = Query(Parts(data, 4), lambda outputs, targets: outputs.clamp(max=0.0))
    expected = model.module(data.inputs).clamp(max=0.0)[present]
    torch.testing.assert_close(Queries.of(capped).values(model, model.initial()), expected, rtol=0, atol=64 * EPS)
