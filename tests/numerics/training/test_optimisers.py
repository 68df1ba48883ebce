"""Optimisers and schedules against torch.optim, step by step, and their derivatives against autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from numerics import SGD, Adam, AdamW, CosineDecay, LinearDecay, NotDifferentiable, Optimiser, StepDecay, TrainingConfig

EPS = np.finfo(float).eps
# Ours, torch's class and its keywords.
PAIRS = {
    "plain": (SGD(), torch.optim.SGD, {}),
    "decay": (SGD(weight_decay=0.3), torch.optim.SGD, {"weight_decay": 0.3}),
    "momentum": (SGD(momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (
        SGD(momentum=0.8, nesterov=True, weight_decay=0.1),
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ),
    "Adam": (Adam(), torch.optim.Adam, {}),
    "Adam with decay": (
        Adam(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2),
        torch.optim.Adam,
        {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2},
    ),
    "AdamW": (AdamW(), torch.optim.AdamW, {}),
    "AdamW with decay": (
        AdamW(betas=(0.5, 0.9), eps=1e-2, weight_decay=0.5),
        torch.optim.AdamW,
        {"betas": (0.5, 0.9), "eps": 1e-2, "weight_decay": 0.5},
    ),
}


@pytest.mark.parametrize("case", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_step_is_torch_optims(case, dtype):
    ours, theirs, keywords = PAIRS[case]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(9, generator=generator, dtype=dtype)
    reference = torch.nn.Parameter(start.clone())
    optimiser = theirs([reference], lr=0.05, foreach=False, **keywords)
    weights, memory = start.clone(), [torch.zeros_like(start) for _ in range(ours.memories)]
    for count in range(25):
        gradient = torch.randn(9, generator=generator, dtype=dtype)
        gradient[3] = 0.0  # a weight that never gets a gradient
        reference.grad = gradient.clone()
        optimiser.step()
        ours.step(weights, gradient, memory, 0.05, count)
        # A dozen roundings of numbers of order one each step.
        bound = 12 * (count + 1) * torch.finfo(dtype).eps
        torch.testing.assert_close(weights, reference.detach(), rtol=0, atol=bound)


@pytest.mark.parametrize("case", PAIRS)
@given(count=st.integers(0, 30), rate=st.floats(1e-3, 1.0), seed=st.integers(0, 10_000))
def test_jacobians_are_those_of_autograd(case, count, rate, seed):
    optimiser = PAIRS[case][0]
    generator = torch.Generator().manual_seed(seed)
    weights, gradient, *memory = (
        torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2 + optimiser.memories)
    )
    if optimiser.memories == 2:  # a mean square is not negative; bounded away from 0, where the root bends
        memory[1] = (memory[1].detach().square() + 0.1).requires_grad_()
    inputs = [weights, *memory, gradient]
    moved, *kept = (tensor.clone() for tensor in (weights, *memory))
    optimiser.step(moved, gradient, kept, rate, count)
    found = optimiser.jacobian(weights.detach(), gradient.detach(), [m.detach() for m in memory], rate, count)
    for row, output in zip(found, [moved, *kept], strict=True):
        expected = torch.autograd.grad(output.sum(), inputs, retain_graph=True, materialize_grads=True)
        for entry, wanted in zip(row, expected, strict=True):
            entry = torch.as_tensor(entry, dtype=torch.float64).expand(4)
            # Quotients of a dozen factors; (1 - beta2)^(1/2) cancels at count 0 to 1 eps / 1e-3.
            torch.testing.assert_close(entry, wanted, rtol=1e5 * EPS, atol=1e3 * EPS)


def test_adams_derivative_where_no_gradient_has_ever_been():
    """One step from memory 0: w moves by -lr g / (|g| + eps), whose derivative at g = 0 is -lr / eps."""
    zero = torch.zeros(1, dtype=torch.float64)
    found = Adam(eps=0.5).jacobian(zero, zero, [zero, zero], 0.1, 0)
    np.testing.assert_allclose(float(found[0][-1]), -0.1 / 0.5, rtol=8 * EPS)
    assert all(torch.isfinite(torch.as_tensor(entry)).all() for row in found for entry in row)


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        (CosineDecay(), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20)),
        (CosineDecay(end=0.1), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20, eta_min=0.03)),
        (LinearDecay(), lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 1e-300, total_iters=20)),
        (LinearDecay(end=0.5), lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.5, total_iters=20)),
        (LinearDecay(warmup=4, end=1.0), lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.25, 1.0, total_iters=3)),
        (StepDecay(every=6, factor=0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=6, gamma=0.5)),
    ],
)
def test_schedules_are_torchs(schedule, theirs):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = theirs(optimiser)
    config = TrainingConfig(lr=0.3, epochs=20, schedule=schedule)
    for step in range(20):
        # torch multiplies from step to step, so that roundings add up.
        assert config.rate(step, 20) == pytest.approx(optimiser.param_groups[0]["lr"], rel=100 * EPS, abs=20 * EPS)
        optimiser.step()
        scheduler.step()


def test_a_warm_up_is_followed_by_the_decay_of_what_is_left():
    for decay in (LinearDecay, CosineDecay):
        factors = [decay(warmup=5)(step, 25) for step in range(25)]
        np.testing.assert_allclose(factors[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
        np.testing.assert_allclose(factors[5:], [decay()(step, 20) for step in range(20)], rtol=8 * EPS)


class Signs(Optimiser):
    """Steps of the size of the rate."""

    @property
    def memories(self):
        return 0

    def step(self, weights, gradient, memory, rate, count):
        weights.sub_(gradient.sign(), alpha=rate)


def test_a_rule_of_ones_own_without_derivative_says_so():
    zero = torch.zeros(1)
    with pytest.raises(NotDifferentiable, match="Signs has no derivative, so a run with it cannot be unrolled; give"):
        Signs().jacobian(zero, zero, [], 0.1, 0)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: SGD(momentum=1.0), ValueError, "momentum must be at least 0 and less than 1, but 1.0"),
        (lambda: SGD(momentum=-0.1), ValueError, "momentum must be at least 0"),
        (lambda: SGD(weight_decay=-1.0), ValueError, "weight_decay must not be negative"),
        (lambda: SGD(nesterov=True), ValueError, "nesterov needs a momentum above 0"),
        (lambda: Adam(betas=(0.9, 1.0)), ValueError, r"betas\[1\] must be at least 0 and less than 1"),
        (lambda: Adam(eps=0.0), ValueError, "eps must be a positive number"),
        (lambda: AdamW(weight_decay=np.nan), ValueError, "weight_decay holds a non-finite value"),
        (lambda: LinearDecay(warmup=-1), ValueError, "warmup must be at least 0"),
        (lambda: CosineDecay(end=1.5), ValueError, "end must lie between 0 and 1, but 1.5"),
        (lambda: StepDecay(every=0), ValueError, "every must be at least 1"),
        (lambda: StepDecay(every=1, factor=2.0), ValueError, "factor must be at most 1, but 2.0"),
        (lambda: TrainingConfig(optimiser="adam"), TypeError, "optimiser"),
        (lambda: TrainingConfig(schedule="cosine"), TypeError, "schedule"),
        (lambda: TrainingConfig(batch_size=0), ValueError, "batch_size must be at least 1"),
        (lambda: TrainingConfig(max_memory=0.0), ValueError, "max_memory must be a positive number"),
        (
            lambda: TrainingConfig(schedule=lambda t, n: -1.0).rate(3, 9),
            ValueError,
            "the schedule must return a number that is not negative, but it returned -1.0 for step 3 of 9",
        ),
        (lambda: TrainingConfig(schedule=lambda t, n: None).rate(0, 9), ValueError, "it returned None for step 0"),
    ],
)
def test_bad_input_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
