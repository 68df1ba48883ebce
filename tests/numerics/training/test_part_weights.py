"""Tokens, pixels and outputs as sources of retraining and unrolled influence, against loops written out by hand."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from numerics import (
    SGD,
    AdamW,
    Parts,
    Query,
    Samples,
    TorchModel,
    TrainingConfig,
    batch_order,
    leave_one_out,
    timed_ablation,
    unrolled_influence,
)
from theory import hierarchical_dataset

N, K, EPOCHS, LR, MOMENTUM = 4, 3, 6, 0.1, 0.5


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.last = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5)

    def forward(self, x):
        return self.last(torch.tanh(self.table(x)).cumsum(1))


def token_losses(f, y):
    return torch.nn.functional.cross_entropy(f.mT, y, reduction="none")


def data(masked):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, (N, K + 1), generator=generator)
    present = None
    if masked:
        present = torch.ones(N, K, dtype=torch.bool)
        present[0, 2] = present[3, 1] = present[3, 2] = False
    return Samples(ids[:, :-1], ids[:, 1:], ("a", "b", "c", "d"), present)


def config(**options):
    return TrainingConfig(epochs=EPOCHS, checkpoint_every=3, lr=LR, seed=3, **options)


def run(samples, beta, batch_size, momentum):
    """Yield flat weights at every epoch of a loop written out, with weights (N, K) of parts."""
    module = Tagger().double()
    names = [name for name, _ in module.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in module.parameters()]
    memory = [torch.zeros_like(v) for v in values]
    present = torch.ones(N, K, dtype=torch.float64) if samples.present is None else samples.present.double()
    share = present / present.sum(1, keepdim=True)

    def losses(values, rows):
        outputs = torch.func.functional_call(module, dict(zip(names, values, strict=True)), (samples.inputs[rows],))
        return token_losses(outputs, samples.targets[rows])

    for epoch in range(EPOCHS + 1):
        if epoch % 3 == 0:
            yield (losses(values, slice(None)) * share).sum(1)
        for batch in batch_order(N, batch_size or N, epoch, 3):
            rows = torch.as_tensor(batch)
            mean = (beta[rows] * share[rows] * losses(values, rows)).sum() / len(rows)
            slopes = torch.autograd.grad(mean, values, create_graph=True)
            memory = [momentum * m + s for m, s in zip(memory, slopes, strict=True)]
            values = [v - LR * m for v, m in zip(values, memory, strict=True)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("batch_size", "momentum"), [(None, 0.0), (3, MOMENTUM)])
def test_leaving_parts_out_is_retraining_without_them(masked, batch_size, momentum):
    samples = data(masked)
    parts, settings = Parts(samples, K), config(batch_size=batch_size, optimiser=SGD(momentum=momentum))
    found = leave_one_out(samples, settings, model=TorchModel(Tagger().double(), token_losses), sources=parts)
    base = torch.stack(list(run(samples, torch.ones(N, K), batch_size, momentum)))
    assert list(found.indexes["source"]) == list(parts.labels)
    for number, (i, k) in enumerate(zip(parts.sample, parts.part, strict=True)):
        beta = torch.ones(N, K)
        beta[i, k] = 0
        expected = base - torch.stack(list(run(samples, beta, batch_size, momentum)))
        # Losses of order 1 after at most 12 steps of a few hundred roundings each, not amplified: 1e-13 and to spare.
        np.testing.assert_allclose(found.values[:, number], expected.detach(), rtol=0, atol=1e-13)
    assert np.abs(found.values).max() > 1e-2


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("queries", [None, "one"])  # fewer queries than sources: covectors go backward
@pytest.mark.parametrize(("batch_size", "momentum"), [(None, 0.0), (3, MOMENTUM)])
def test_unrolled_influence_of_parts_is_the_derivative_of_the_loop(masked, queries, batch_size, momentum):
    samples = data(masked)
    parts, settings = Parts(samples, K), config(batch_size=batch_size, optimiser=SGD(momentum=momentum))
    asked = None if queries is None else samples[[1]]
    model = TorchModel(Tagger().double(), token_losses)
    found = unrolled_influence(samples, settings, model=model, sources=parts, queries=asked)
    beta = torch.ones(N, K, dtype=torch.float64, requires_grad=True)
    rows = range(N) if queries is None else [1]
    for t, losses in enumerate(run(samples, beta, batch_size, momentum)):
        for column, row in enumerate(rows):
            (slope,) = torch.autograd.grad(losses[row], beta, retain_graph=True, materialize_grads=True)
            expected = slope[torch.as_tensor(parts.sample), torch.as_tensor(parts.part)]
            np.testing.assert_allclose(found.values[t, :, column], expected, rtol=0, atol=1e-13)  # as above
    whole = unrolled_influence(samples, settings, model=model, queries=asked)
    summed = np.stack([found.values[:, parts.sample == i].sum(1) for i in range(N)], 1)
    np.testing.assert_allclose(summed, whole.values, rtol=0, atol=1e-13)


def test_adam_stretches_of_exposure_and_some_parts_of_some_samples():
    samples = data(True)
    some = Parts(samples[[2, 1]], K)
    settings = config(batch_size=2, optimiser=AdamW())
    model = TorchModel(Tagger().double(), token_losses)
    found = unrolled_influence(samples, settings, model=model, sources=some)
    h = 1e-4
    ends = [leave_one_out(samples, settings, model=model, sources=some, epsilon=e).values for e in (h, -h)]
    # Central difference of a function with third derivatives of order 1 to 100: h^2 of them, and eps / h of rounding.
    np.testing.assert_allclose(found.values, sum(ends) / 2, rtol=0, atol=1e-6)
    parts = unrolled_influence(samples, settings, model=model, sources=some, exposure_every=2)
    np.testing.assert_allclose(parts.sum("exposure").values, found.values, rtol=0, atol=1e-12)
    assert list(found.indexes["source"]) == list(some.labels)


def test_seeds_stores_executors_and_other_queries(tmp_path):
    samples, settings = data(True), config(batch_size=2)
    model = TorchModel(Tagger().double(), token_losses)
    some = Parts(samples[[0]], K)

    def hardest(outputs, targets):
        return outputs.amax((1, 2))

    options = {"model": model, "sources": some, "seeds": [0, 1], "queries": Query(samples, hardest)}
    plain = leave_one_out(samples, settings, **options)
    assert plain.dims == ("seed", "epoch", "source", "query")
    with ThreadPoolExecutor(3) as pool:
        kept = leave_one_out(samples, settings, executor=pool, store=tmp_path, **options)
    np.testing.assert_array_equal(plain, kept)
    assert plain.attrs["engine"] == kept.attrs["engine"] == "weights by vmap"


def test_what_does_not_fit_is_refused():
    samples, toy = data(True), hierarchical_dataset()
    model = TorchModel(Tagger().double(), token_losses)
    with pytest.raises(TypeError, match="linear network's losses do not have; give model="):
        leave_one_out(toy, sources=Parts(Samples.of(toy), 15))
    with pytest.raises(TypeError, match="fit takes weights of samples, but Parts were given"):
        leave_one_out(samples, sources=Parts(samples, K), fit=lambda w, seed: {})
    everything = Samples(samples.inputs, samples.targets, samples.names)
    with pytest.raises(ValueError, match="part '2' of sample 'a' is absent from the data set"):
        leave_one_out(samples, config(), model=model, sources=Parts(everything, K))
    with pytest.raises(ValueError, match="part '2' of sample 'a' is absent from the data set"):
        unrolled_influence(samples, config(), model=model, sources=Parts(everything, K))
    one = TorchModel(Tagger().double(), lambda f, y: token_losses(f, y).mean(1))
    with pytest.raises(ValueError, match=r"returned shape \(4,\), but weights of parts need .* \(n, k\)"):
        leave_one_out(everything, config(), model=one, sources=Parts(everything, K))


# --- timed ablation on any pool, and of one's own training ---------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"batch_size": 2, "optimiser": SGD(momentum=0.5)}])
@pytest.mark.parametrize("linear", [False, True])
def test_timed_ablation_on_an_executor_is_that_in_one_batch(options, linear, tmp_path):
    if linear:
        samples, extra = hierarchical_dataset(), {"hidden": 6, "sigma": 0.3}
        model, names = None, ["dog", "oak"]
    else:
        samples, extra, names = data(True), {}, ["a", "d"]
        model = TorchModel(Tagger().double(), token_losses)
    settings = TrainingConfig(epochs=7, checkpoint_every=7, lr=0.1, seed=3, **extra, **options)
    asked = {"window": 3, "every": 2, "sources": names, "model": model}
    together = timed_ablation(samples, settings, **asked)
    with ThreadPoolExecutor(2) as pool:
        apart = timed_ablation(samples, settings, executor=pool, store=tmp_path, **asked)
    # The same steps in batches of another size: losses of order 1 to 10, rounded differently in each of ten steps.
    np.testing.assert_allclose(apart, together, rtol=0, atol=1e-12)
    assert np.abs(together.values).max() > 1e-4
    assert apart.sizes == together.sizes
    assert apart.attrs["engine"] == together.attrs["engine"]


def test_timed_ablation_of_a_function():
    """The mean of three numbers, learned by descent: a loop of one's own with weights by epoch."""
    x = np.array([1.0, 2.0, 6.0])

    def fit(weights, seed):
        m, losses = 0.0, {}
        for epoch in range(len(weights) + 1):
            losses[epoch] = (x - m) ** 2 / 2
            if epoch < len(weights):
                m += 0.3 * np.mean(weights[epoch] * (x - m))
        return losses

    numbers = Samples(torch.tensor(x)[:, None], torch.zeros(3, 1), ("a", "b", "c"))
    found = timed_ablation(numbers, fit=fit, epochs=8, window=2, every=3)
    assert list(found.epoch) == [0, 3, 6]
    for start in (0, 3, 6):
        for k in range(3):
            beta = np.ones((8, 3))
            beta[start : start + 2, k] = 0
            whole, without = fit(np.ones((8, 3)), 0), fit(beta, 0)
            expected = sum(whole[e] - without[e] for e in (start, start + 1))
            np.testing.assert_allclose(found.sel(epoch=start)[k], expected, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="fit alone does not say how many epochs it takes"):
        timed_ablation(numbers, fit=fit, window=2, every=3)
    with pytest.raises(ValueError, match="fit returned losses at 1 of the 2 epochs from epoch 0 on"):
        timed_ablation(numbers, fit=lambda w, s: {e: v for e, v in fit(w, s).items() if e % 2 == 0}, epochs=8, window=2)
    with pytest.raises(ValueError, match=r"epochs is the length of fit; that of our own training is config.epochs"):
        timed_ablation(numbers, model=TorchModel(torch.nn.Linear(1, 1)), epochs=8)
