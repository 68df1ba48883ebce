"""Cosines of token gradients: against plain autograd, a closed form, all pairs, and strongly localised draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import numerics.language.gradient_cosine as gradient_cosine_module
from numerics import (
    SGLD,
    BigramModel,
    CausalTransformer,
    ModuleCheckpoints,
    TorchModel,
    TransformerConfig,
    class_gradient_cosine,
    gradient_cosine,
    next_token_loss,
    sample_tokens,
    token_influence,
    token_samples,
)
from numerics.language.live_model import LiveModel
from theory import bigram_covariance

CONFIG = TransformerConfig(vocabulary=11, context=6, width=8, layers=2, heads=2, mlp=16)
SAMPLES = token_samples(np.random.default_rng(0).integers(11, size=(3, 6)))
SHAPE = (3, 5)
TOKENS = np.stack(np.unravel_index(np.arange(15), SHAPE), axis=1)


def checkpoints_of(module, count=2):
    model = TorchModel(module.double(), next_token_loss)
    weights = torch.stack([model.initial() * (1 + 0.3 * k) for k in range(count)])
    return ModuleCheckpoints(np.arange(count) * 10.0, model, weights)


def looped(checkpoints, t, samples=SAMPLES):
    """Return the gradient of every token by one plain backward pass each, shape (N J, d)."""
    torch.nn.utils.vector_to_parameters(checkpoints.weights_at(t), checkpoints.model.module.parameters())
    rows = []
    for i in range(len(samples)):
        for k in range(samples.targets.shape[1]):
            checkpoints.model.module.zero_grad()
            outputs = checkpoints.model.module(samples.inputs[i : i + 1])
            logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
            (-logits[0, k].log_softmax(-1)[samples.targets[i, k]]).backward()
            rows.append(torch.cat([p.grad.flatten() for p in checkpoints.model.module.parameters()]))
    return torch.stack(rows).numpy().copy()


def test_pairs_are_those_of_a_loop_of_autograd():
    checkpoints = checkpoints_of(CausalTransformer(CONFIG, seed=1))
    found = gradient_cosine(SAMPLES, checkpoints, dtype=torch.float64)
    assert found["correlation"].dims == ("epoch", "source", "query")
    assert found["source"].values.tolist()[:6] == ["0:0", "0:1", "0:2", "0:3", "0:4", "1:0"]
    for t in range(2):
        rows = looped(checkpoints, t)
        length = np.linalg.norm(rows, axis=1)
        # Products of some thousand float64 numbers.
        np.testing.assert_allclose(found["covariance"][t], rows @ rows.T, atol=1e-12 * length.max() ** 2)
        np.testing.assert_allclose(found["correlation"][t], rows @ rows.T / np.outer(length, length), atol=1e-12)
    single = gradient_cosine(SAMPLES, checkpoints)
    # Gradients in float32 go through some hundred operations.
    np.testing.assert_allclose(single["correlation"], found["correlation"], atol=1e-5)


@pytest.mark.parametrize("max_memory", [None, 1, 40_000])
def test_blocks_and_either_side_give_the_same(max_memory):
    checkpoints = checkpoints_of(CausalTransformer(CONFIG), 1)
    whole = gradient_cosine(SAMPLES, checkpoints, dtype=torch.float64)["correlation"][0].values
    chosen = TOKENS[[7, 2, 13, 2]]
    for sources, queries, expected in (
        (chosen, None, whole[[7, 2, 13, 2]]),
        (None, chosen, whole[:, [7, 2, 13, 2]]),
        (chosen, TOKENS[[5]], whole[[7, 2, 13, 2]][:, [5]]),
    ):
        found = gradient_cosine(SAMPLES, checkpoints, sources, queries, dtype=torch.float64, max_memory=max_memory)
        np.testing.assert_allclose(found["correlation"][0], expected, atol=1e-13)


def test_a_table_of_bigrams_has_them_in_closed_form():
    """Without data the covariance under a table's local posterior is the product of gradients over the localization."""
    checkpoints = checkpoints_of(BigramModel(11, sigma=1.0), 1)
    found = gradient_cosine(SAMPLES, checkpoints, dtype=torch.float64)["covariance"][0]
    table = checkpoints.weights_at(0).numpy().reshape(11, 11)
    asked = np.stack([SAMPLES.inputs.numpy().ravel(), SAMPLES.targets.numpy().ravel()], axis=1)
    exact = bigram_covariance(table, np.ones((11, 11)), asked, n_beta=0.0, localization=1.0)
    np.testing.assert_allclose(found, exact, atol=1e-13)


@settings(max_examples=6)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["position", "sequence", "ids"]),
    max_memory=st.sampled_from([None, 1, 40_000]),
)
def test_classes_average_over_the_pairs(seed, kind, max_memory):
    rng = np.random.default_rng(seed)
    classes = {name: rng.random(SHAPE) < 0.5 for name in "abc"}
    for members in classes.values():
        members[tuple(rng.integers(SHAPE))] = True
    grid = np.arange(15).reshape(SHAPE)
    labels = {"position": grid, "sequence": grid // 5, "ids": rng.integers(4, size=SHAPE)}[kind]
    checkpoints = checkpoints_of(CausalTransformer(CONFIG, seed=seed % 1000))
    pairs = gradient_cosine(SAMPLES, checkpoints, dtype=torch.float64)
    found = class_gradient_cosine(
        SAMPLES, checkpoints, classes, apart=labels if kind == "ids" else kind, dtype=torch.float64,
        max_memory=max_memory,
    )  # fmt: skip
    for a, in_a in classes.items():
        for b, in_b in classes.items():
            counted = np.outer(in_a.ravel(), in_b.ravel()) & (labels.ravel()[:, None] != labels.ravel())
            assert found["pairs"].sel(source=a, query=b) == counted.sum()
            for name in ("correlation", "covariance"):
                for t in range(2):
                    matrix = pairs[name][t].values
                    expected = matrix[counted].mean() if counted.any() else np.nan
                    value = found[name].isel(epoch=t).sel(source=a, query=b)
                    # Sums of 225 products, from which those of equal labels are subtracted.
                    np.testing.assert_allclose(value, expected, atol=1e-12 * 225 * np.abs(matrix).max())


def test_strongly_localised_draws_tend_to_it(tmp_path):
    """With step x localization = 2 each step forgets the last, so all draws are independent."""
    gamma, chains, draws = 1e6, 2, 400
    checkpoints = checkpoints_of(CausalTransformer(CONFIG, seed=2), 1)
    sampler = SGLD(step_size=2 / gamma, n_beta=1.0, localization=gamma)
    found = sample_tokens(
        SAMPLES, checkpoints, tmp_path, sampler, chains=chains, draws=draws, burn_in=2, batch_size=None, seed=1,
        dtype=torch.float64,
    )  # fmt: skip
    sampled = token_influence(found, TOKENS, TOKENS)
    limit = gradient_cosine(SAMPLES, checkpoints, dtype=torch.float64)
    for name, scale in (("correlation", 1.0), ("covariance", 2 / gamma)):  # SGLD widens by 1 / (1 - 2 / 4)
        value, expected = sampled[name][0].values, limit[name][0].values * scale
        deviation = np.sqrt(np.diag(limit["covariance"][0]) * 2 / gamma)
        unit = 1.0 if name == "correlation" else np.outer(deviation, deviation)
        cosine = limit["correlation"][0].values
        # A correlation c of 800 independent draws has standard error (1 - c^2) / sqrt(800), a covariance
        # sqrt(1 + c^2) / sqrt(800) of both deviations; five of the largest of 225. Terms of second order have
        # deviation |Hessian| / gamma, some 1e-3 of the first's |g| / sqrt(gamma).
        error = 1 - cosine**2 if name == "correlation" else np.sqrt(1 + cosine**2)
        assert (np.abs(value - expected) / unit <= 5 * error / np.sqrt(chains * draws) + 5e-3).all()
    off = ~np.eye(15, dtype=bool)
    slope = np.polyfit(limit["correlation"][0].values[off], sampled["correlation"][0].values[off], 1)[0]
    assert slope == pytest.approx(1, abs=0.1)


def test_models_that_torch_cannot_batch_go_one_by_one():
    class Counting(torch.autograd.Function):
        """A square whose backward pass has no batching rule."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, slope):
            (x,) = ctx.saved_tensors
            if slope.detach().numpy().shape != x.shape:  # numpy sees no batched tensor
                raise AssertionError
            return 2 * x * slope

    class Squaring(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = CausalTransformer(CONFIG)

        def forward(self, ids):
            return Counting.apply(self.inner(ids))

    checkpoints = checkpoints_of(Squaring(), 1)
    live = LiveModel(checkpoints.model, checkpoints.weights_at(0))
    live.token_gradients(SAMPLES.inputs[0], SAMPLES.targets[0], [0])
    assert live._batched is False
    rows = looped(checkpoints, 0)
    found = gradient_cosine(SAMPLES, checkpoints, dtype=torch.float64)["covariance"][0]
    np.testing.assert_allclose(found, rows @ rows.T, atol=1e-12 * np.square(rows).sum(1).max())


def test_models_of_transformers():
    torch.manual_seed(0)
    config = GPTNeoXConfig(**CONFIG.as_neox() | {"attention_bias": True})
    checkpoints = checkpoints_of(GPTNeoXForCausalLM(config).eval(), 1)
    live = LiveModel(checkpoints.model, checkpoints.weights_at(0))
    live.token_gradients(SAMPLES.inputs[0], SAMPLES.targets[0], [0])
    assert live._batched is True
    rows = looped(checkpoints, 0)
    found = gradient_cosine(SAMPLES, checkpoints, dtype=torch.float64)["covariance"][0]
    np.testing.assert_allclose(found, rows @ rows.T, atol=1e-12 * np.square(rows).sum(1).max())


def test_a_token_whose_gradient_vanishes_has_no_cosine():
    checkpoints = checkpoints_of(BigramModel(11), 1)
    weights = checkpoints.weights_at(0).clone().reshape(11, 11)
    first, second = int(SAMPLES.inputs[0, 0]), int(SAMPLES.targets[0, 0])
    weights[first] = -1e3
    weights[first, second] = 1e3  # certain: probability 1 to the last digit
    checkpoints = ModuleCheckpoints(np.array([0.0]), checkpoints.model, weights.reshape(1, -1))
    found = gradient_cosine(SAMPLES, checkpoints, [[0, 0]])
    assert np.isnan(found["correlation"]).all()
    assert (found["covariance"] == 0).all()
    classes = class_gradient_cosine(SAMPLES, checkpoints, {"all": np.ones(SHAPE)})
    assert classes["still"].item() >= 1
    assert np.isfinite(classes["correlation"]).all()


def test_what_does_not_fit_is_refused():
    checkpoints = checkpoints_of(BigramModel(11), 1)
    with pytest.raises(ValueError, match="sources asks for token \\(3, 0\\)"):
        gradient_cosine(SAMPLES, checkpoints, [[3, 0]])
    with pytest.raises(ValueError, match="class 'a' has shape"):
        class_gradient_cosine(SAMPLES, checkpoints, {"a": np.ones((2, 2))})
    weights = checkpoints.weights_at(0).clone()
    weights[int(SAMPLES.inputs[1, 2]) * 11] = 1e308
    weights[int(SAMPLES.inputs[1, 2]) * 11 + 1] = -1e308
    broken = ModuleCheckpoints(np.array([7.0]), checkpoints.model, weights[None])
    with pytest.raises(ValueError, match="the gradient of the loss of token \\(1, 2\\) is not finite at epoch 7"):
        gradient_cosine(SAMPLES, broken, [[1, 2]])


def test_a_result_that_memory_cannot_hold_is_refused(monkeypatch):
    checkpoints = checkpoints_of(BigramModel(11), 1)
    monkeypatch.setattr(
        gradient_cosine_module,
        "refuse_too_large",
        lambda numbers, what, remedy: (_ for _ in ()).throw(ValueError(what)),
    )
    with pytest.raises(ValueError, match="1 checkpoints x 15 sources x 15 queries"):
        gradient_cosine(SAMPLES, checkpoints)
