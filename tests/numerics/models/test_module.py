"""Modules as functions of flat weights: against the module itself, against the closed-form network, and refusals."""

import functools

import numpy as np
import pytest
import torch

from numerics import (
    Checkpoints,
    ModuleCheckpoints,
    Samples,
    TorchModel,
    gradient_kernel,
    linear_as_module,
    per_sample_losses,
)
from theory import hierarchical_dataset

DATA = hierarchical_dataset(levels=2)


def some_module(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Dropout(0.5), torch.nn.Linear(6, 3))


def classes(n=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Samples(torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator))


CROSS_ENTROPY = functools.partial(torch.nn.functional.cross_entropy, reduction="none")


def test_losses_are_those_of_the_module_itself():
    module, samples = some_module(), classes()
    model = TorchModel(module, CROSS_ENTROPY)
    logits = module.eval()(samples.inputs)
    expected = -torch.log_softmax(logits, -1)[torch.arange(5), samples.targets]
    # float32, a few dozen operations of numbers of order 1.
    torch.testing.assert_close(model.losses(model.initial(), samples), expected, rtol=1e-5, atol=1e-6)


def test_weights_are_flattened_in_the_order_of_the_parameters():
    module = some_module()
    model = TorchModel(module)
    assert list(model.shapes) == [name for name, _ in module.named_parameters()]
    for name, value in module.named_parameters():
        assert torch.equal(model.parameters_of(model.initial())[name], value)
    assert model.n_parameters == sum(p.numel() for p in module.parameters())


def test_the_users_module_is_left_alone():
    module = some_module()
    before = [p.clone() for p in module.parameters()]
    model = TorchModel(module.train())
    model.losses(torch.zeros(model.n_parameters), Samples(torch.ones(2, 4), torch.ones(2, 3)))
    assert module.training
    assert all(p.requires_grad and torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))


def test_a_linear_network_as_a_module_has_the_losses_of_the_maps():
    rng = np.random.default_rng(0)
    run = Checkpoints(
        np.array([0.0, 5.0]), torch.tensor(rng.normal(size=(2, 5, 4))), torch.tensor(rng.normal(size=(2, 7, 5)))
    )
    module = linear_as_module(run)
    samples = Samples.of(DATA)
    losses = torch.vmap(lambda w: module.model.losses(w, samples))(module.weights)
    # Sums of at most 35 products of float64 numbers of order 1.
    torch.testing.assert_close(losses, per_sample_losses(run.maps, DATA), rtol=1e-13, atol=1e-13)
    assert torch.equal(module.at([5.0]).weights[0], module.weights[1])


def test_samples_follow_the_weights():
    moved = classes().like(torch.zeros(1, dtype=torch.float64))
    assert moved.inputs.dtype == torch.float64
    assert moved.targets.dtype == torch.int64
    assert Samples.of(DATA).names == DATA.names


MODEL = TorchModel(some_module(), CROSS_ENTROPY)
WEIGHTS = torch.zeros(2, MODEL.n_parameters)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Samples(np.zeros((2, 3)), torch.zeros(2)), TypeError, "inputs"),
        (
            lambda: Samples(torch.zeros(0, 3), torch.zeros(0)),
            ValueError,
            r"inputs holds no sample: its shape is \(0, 3\)",
        ),
        (
            lambda: Samples(torch.tensor([[np.nan]]), torch.zeros(1)),
            ValueError,
            "inputs holds a value that is not finite",
        ),
        (lambda: Samples(torch.zeros(2, 1), torch.zeros(3)), ValueError, "inputs hold 2 samples, but targets 3"),
        (lambda: Samples(torch.zeros(2), torch.zeros(2), ("a",)), ValueError, "1 names were given for 2 samples"),
        (lambda: Samples(torch.zeros(2), torch.zeros(2), ("a", "a")), ValueError, "'a' stands twice"),
        (lambda: classes().index("x"), KeyError, "no sample is called 'x'"),
        (lambda: TorchModel("linear"), TypeError, "module"),
        (lambda: TorchModel(torch.nn.Identity()), ValueError, "there are none"),
        (lambda: TorchModel(torch.nn.LazyLinear(2)), ValueError, "'weight' has no shape yet .a lazy module."),
        (
            lambda: TorchModel(torch.nn.Linear(2, 2, device="meta")),
            ValueError,
            "'weight' holds no numbers .device 'meta'",
        ),
        (lambda: TorchModel(hooked()), ValueError, "Linear cannot be copied: .*parametrizations instead"),
        (
            lambda: TorchModel(torch.nn.Linear(4, 3), lambda out, y: (out.argmax(1) != y).long()).losses(
                torch.zeros(15), classes()
            ),
            TypeError,
            "real numbers that have a gradient, but it returned torch.int64",
        ),
        (
            lambda: TorchModel(torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1).double())),
            ValueError,
            "share one real dtype.*float32 on cpu, torch.float64 on cpu",
        ),
        (lambda: ModuleCheckpoints(np.array([0, 1]), MODEL, WEIGHTS.half()), TypeError, "must be float32 or float64"),
        (
            lambda: ModuleCheckpoints(np.array([0]), MODEL, WEIGHTS),
            ValueError,
            r"\(epochs, parameters\) = \(1, 51\) is needed",
        ),
        (lambda: ModuleCheckpoints(np.array([1, 0]), MODEL, WEIGHTS), ValueError, "strictly increasing"),
        (lambda: ModuleCheckpoints(np.array([0, 7]), MODEL, WEIGHTS / 0), ValueError, "not finite at epoch 0"),
        (lambda: ModuleCheckpoints(np.array([0, 7]), MODEL, WEIGHTS).at([3]), ValueError, "epoch 3 was not saved"),
        (
            lambda: ModuleCheckpoints(np.array([0, 7]), MODEL, WEIGHTS).check_fits(
                Samples(torch.zeros(2, 9), torch.zeros(2).long())
            ),
            ValueError,
            r"cannot evaluate inputs of shape \(2, 9\)",
        ),
        (
            lambda: ModuleCheckpoints(
                np.array([0]), TorchModel(some_module(), torch.nn.functional.mse_loss), WEIGHTS[:1]
            ).check_fits(Samples(torch.zeros(2, 4), torch.zeros(2, 3))),
            ValueError,
            r'the loss returned shape \(\) for 2 samples.*reduction="none"',
        ),
    ],
)
def test_bad_input_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_what_stands_around_a_module_is_left_out():
    module = some_module()
    for wrapped in (torch.compile(module, backend="eager"), torch.nn.DataParallel(module)):
        model = TorchModel(wrapped, CROSS_ENTROPY)
        assert list(model.shapes) == list(MODEL.shapes)
        assert torch.equal(model.losses(model.initial(), classes()), MODEL.losses(MODEL.initial(), classes()))


def hooked():
    """Return a layer that holds the result of a computation, which torch does not copy."""
    layer = torch.nn.Linear(2, 2)
    layer.shown = layer.weight * 2
    return layer


def test_a_sparse_gradient_is_that_of_a_dense_one():
    words = Samples(torch.tensor([0, 3, 3]), torch.zeros(3, 2, dtype=torch.float64))
    slopes = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = TorchModel(torch.nn.Embedding(5, 2, sparse=sparse).double())
        where = ModuleCheckpoints(np.array([0]), model, model.initial()[None])
        slopes.append(gradient_kernel(words, where).values)
    # rows 0 and 3, looked up once and twice: K_ij = y_i . y_j where words agree
    assert np.array_equal(*slopes)
    assert slopes[0][0, 0, 1] == 0 < slopes[0][0, 1, 2]


def test_weights_need_not_be_contiguous():
    every_other = torch.stack([MODEL.initial(), MODEL.initial()], dim=1)[:, 0]
    assert not every_other.is_contiguous()
    assert torch.equal(MODEL.losses(every_other, classes()), MODEL.losses(MODEL.initial(), classes()))


def test_a_class_that_is_not_there_is_refused():
    wrong = Samples(torch.zeros(2, 4), torch.tensor([0, 7]))
    with pytest.raises(ValueError, match="cannot evaluate inputs"):
        ModuleCheckpoints(np.array([0, 7]), MODEL, WEIGHTS).check_fits(wrong)


def test_a_loss_that_is_not_finite_names_its_sample():
    model = TorchModel(torch.nn.Linear(1, 1), lambda outputs, targets: torch.log(targets[:, 0]) + outputs[:, 0])
    samples = Samples(torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]]), ("good", "bad"))
    with pytest.raises(ValueError, match="the loss of sample 'bad' is not finite at epoch 3"):
        ModuleCheckpoints(np.array([3]), model, torch.zeros(1, 2)).check_fits(samples)
