"""Sampling per token against exact posteriors, other executors, and itself after an interruption."""

import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import numerics.language.token_sampling as token_sampling
from numerics import (
    MALA,
    SGLD,
    BigramModel,
    CausalTransformer,
    ModuleCheckpoints,
    RMSPropSGLD,
    SamplerDiverged,
    StepSizeWarning,
    TokenDraws,
    TorchModel,
    TransformerConfig,
    UnstableStep,
    as_token_draws,
    next_token_loss,
    sample_tokens,
    token_samples,
)
from numerics.errors import StoreMismatch
from numerics.threads import one_thread
from theory import bigram_covariance

RNG = np.random.default_rng(0)
CORPUS = token_samples(RNG.integers(5, size=(30, 9)))
ASKED = token_samples(RNG.integers(5, size=(3, 7)))
MILD = SGLD(step_size=1e-3, n_beta=50.0, localization=100.0)


def bigrams(epochs=(0, 10), vocabulary=5):
    model = TorchModel(BigramModel(vocabulary, sigma=1.0), next_token_loss)
    weights = torch.stack([model.initial() * (1 + k) for k in range(len(epochs))])
    return ModuleCheckpoints(np.array(epochs, dtype=float), model, weights)


def transformer():
    config = TransformerConfig(vocabulary=5, context=8, width=8, layers=1, heads=2)
    model = TorchModel(CausalTransformer(config), next_token_loss)
    return ModuleCheckpoints(np.array([3.0]), model, model.initial()[None])


def test_the_first_draw_is_the_checkpoint(tmp_path):
    checkpoints = transformer()
    draws = sample_tokens(CORPUS, checkpoints, tmp_path, MILD, recorded=ASKED, chains=2, draws=3)
    with torch.no_grad():
        expected = next_token_loss(checkpoints.model.module(ASKED.inputs), ASKED.targets)
    for chain in draws.at(3.0):
        np.testing.assert_array_equal(chain[0].reshape(3, 6), expected.numpy())
    assert draws.attrs["sequences"] == 30
    assert "-n_beta / (N J)" in draws.attrs["convention"]


@pytest.mark.slow  # 13 s of chains
def test_bigrams_have_their_exact_covariance(tmp_path):
    """Strong localization makes the posterior Gaussian and the losses linear; other contexts do not correlate."""
    checkpoints, (n_beta, gamma) = bigrams((0,)), (200.0, 2000.0)
    sampler = SGLD(step_size=4e-4, n_beta=n_beta, localization=gamma)
    draws = sample_tokens(
        CORPUS, checkpoints, tmp_path, sampler, recorded=ASKED, chains=8, draws=1000, burn_in=50, batch_size=None,
        dtype=torch.float64,
    )  # fmt: skip
    pairs = np.stack([ASKED.inputs.numpy().ravel(), ASKED.targets.numpy().ravel()], axis=1)
    counts = np.zeros((5, 5))
    np.add.at(counts, (CORPUS.inputs.numpy().ravel(), CORPUS.targets.numpy().ravel()), 1)
    table = checkpoints.weights[0].numpy().reshape(5, 5)
    exact = bigram_covariance(table, counts, pairs, n_beta=n_beta, localization=gamma)
    # The chain widens by 1 / (1 - eps h / 4) with eps h = 0.8 to 0.83, the Hessian of L being below 1 / 5 x 1 / 2.
    exact = exact / (1 - 4e-4 * gamma / 4)
    found = np.cov(np.concatenate(draws.at(0.0)).T)
    # Autocorrelation 0.6: (1 - 0.36) / (1 + 0.36) = 0.47 effective products a draw, some 3800; entries of up to
    # 1e-3 have standard errors of 1.4 / sqrt(3800) of the root of their diagonals' product; second-order terms are
    # of relative order 1 / gamma x 10.
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    z = np.abs(found - exact) / scale
    assert z.max() < 5 * 1.4 / np.sqrt(3800) + 0.02
    other = pairs[:, 0][:, None] != pairs[:, 0]
    assert (exact[other] == 0).all()


@pytest.mark.parametrize("sampler", [MILD, RMSPropSGLD(step_size=1e-3, n_beta=50.0, localization=100.0)])
def test_bits_do_not_depend_on_what_else_runs(tmp_path, sampler):
    settings = {"recorded": ASKED, "draws": 6, "burn_in": 2, "thin": 2, "batch_size": 4, "seed": 5}
    whole = sample_tokens(CORPUS, bigrams(), tmp_path / "whole", sampler, chains=3, **settings)
    alone = sample_tokens(CORPUS, bigrams().at([10]), tmp_path / "alone", sampler, chains=1, **settings)
    np.testing.assert_array_equal(alone.at(10)[0], whole.at(10)[0])
    with ThreadPoolExecutor(3) as threads:
        other = sample_tokens(CORPUS, bigrams(), tmp_path / "pool", sampler, chains=3, executor=threads, **settings)
    np.testing.assert_array_equal(other.to_xarray(), whole.to_xarray())
    assert not np.array_equal(whole.at(10)[0], whole.at(10)[1])


def test_an_interrupted_run_goes_on_and_finished_chains_stay(tmp_path, monkeypatch):
    settings = {"recorded": ASKED, "chains": 2, "draws": 4, "batch_size": 4}
    expected = sample_tokens(CORPUS, bigrams(), tmp_path / "whole", MILD, **settings).to_xarray()
    run, calls = token_sampling._run_chain, []

    def dying(task):
        calls.append(task.chain)
        if len(calls) == 3:
            raise KeyboardInterrupt
        run(task)

    monkeypatch.setattr(token_sampling, "_run_chain", dying)
    with pytest.raises(KeyboardInterrupt):
        sample_tokens(CORPUS, bigrams(), tmp_path / "killed", MILD, **settings)
    monkeypatch.setattr(token_sampling, "_run_chain", run)
    with pytest.raises(ValueError, match="chain 0 at epoch 10 is not there yet"):
        TokenDraws.open(tmp_path / "killed").at(10)
    seen = []
    found = sample_tokens(CORPUS, bigrams(), tmp_path / "killed", MILD, progress=seen.append, **settings)
    np.testing.assert_array_equal(found.to_xarray(), expected)
    assert seen == [2, 1, 1]
    opened = TokenDraws.open(tmp_path / "killed")
    np.testing.assert_array_equal(opened.to_xarray(), expected)
    assert opened.attrs["n_beta"] == 50.0


@pytest.mark.parametrize("damage", ["", "[1, 2]", '{"0.0": 3}', '{"0.0": ["a", "b"]}', "\x00"])
def test_a_damaged_note_of_curvatures_is_measured_again(tmp_path, damage):
    settings = {"recorded": ASKED, "chains": 1, "draws": 3, "batch_size": 4}
    expected = sample_tokens(CORPUS, bigrams(), tmp_path, MILD, **settings).to_xarray()
    note = tmp_path / "curvature.json"
    whole = note.read_text()
    note.write_text(damage)
    np.testing.assert_array_equal(sample_tokens(CORPUS, bigrams(), tmp_path, MILD, **settings).to_xarray(), expected)
    assert note.read_text() == whole


def test_other_calls_and_other_weights_are_refused(tmp_path):
    settings = {"recorded": ASKED, "chains": 1, "draws": 4, "batch_size": 4}
    sample_tokens(CORPUS, bigrams(), tmp_path, MILD, **settings)
    with pytest.raises(StoreMismatch, match="holds the draws of a call with other arguments"):
        sample_tokens(CORPUS, bigrams(), tmp_path, MILD, **(settings | {"seed": 1}))
    other = bigrams()
    (tmp_path / "epoch-10" / "chain-0.npy").unlink()
    moved = ModuleCheckpoints(other.epochs, other.model, other.weights + 1)
    with pytest.raises(StoreMismatch, match="holds chains of other weights at epoch 10"):
        sample_tokens(CORPUS, moved, tmp_path, MILD, **settings)
    with pytest.raises(ValueError, match="epoch 7 was not sampled"):
        TokenDraws.open(tmp_path).at(7)
    with pytest.raises(ValueError, match="no draws of tokens"):
        TokenDraws.open(tmp_path / "nowhere")
    (tmp_path / "epoch-0" / "chain-0.npy").write_bytes(b"x")
    with pytest.raises(ValueError, match="is damaged; delete it"):
        TokenDraws.open(tmp_path).at(0)
    (tmp_path / "call.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged; delete the folder"):
        TokenDraws.open(tmp_path)


def test_a_chain_that_diverges_is_named_and_others_stay(tmp_path, monkeypatch):
    # Token 4 is never used: its row has no gradient, so that the stability constant alone stands below the step.
    corpus = token_samples(RNG.integers(4, size=(30, 9)))
    sampler = RMSPropSGLD(step_size=1e-3, n_beta=50.0, localization=100.0, stability=1e-4, initial_square=0.0)
    settings = {"recorded": ASKED, "chains": 1, "draws": 60, "batch_size": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StepSizeWarning)  # which says that it may diverge
        with pytest.raises(SamplerDiverged, match=r"chain 0 at epoch 0 diverged.*rarely used weights.*stability"):
            sample_tokens(corpus, bigrams(), tmp_path / "a", sampler, **settings)
    assert not (tmp_path / "a" / "epoch-0" / "chain-0.npy").exists()
    run = token_sampling._chain

    def second_diverges(task, start, kept):
        run(task, torch.full_like(start, torch.nan) if task.chain == 1 else start, kept)

    monkeypatch.setattr(token_sampling, "_chain", second_diverges)
    settings |= {"chains": 2, "draws": 3}
    with pytest.raises(SamplerDiverged, match="chain 1 at epoch 0 diverged: a token's loss at draw 0"):
        sample_tokens(corpus, bigrams(), tmp_path / "b", MILD, **settings)
    monkeypatch.undo()
    first = np.load(tmp_path / "b" / "epoch-0" / "chain-0.npy")
    done = []
    found = sample_tokens(corpus, bigrams(), tmp_path / "b", MILD, progress=done.append, **settings)
    np.testing.assert_array_equal(found.at(0)[0], first.reshape(3, -1))
    assert done[0] == 1, "the chain that was finished is not run again"


def test_a_flat_loss_has_no_curvature_and_one_that_is_not_finite_is_named(tmp_path, monkeypatch):
    sure = torch.full((5, 5), -500.0)
    sure[:, 0] = 500.0
    checkpoints = ModuleCheckpoints(np.array([3.0]), bigrams().model, sure.reshape(1, -1))
    corpus = token_samples(np.zeros((4, 6), dtype=int))
    draws = sample_tokens(corpus, checkpoints, tmp_path / "flat", MILD, chains=1, draws=2)
    assert (draws.at(3)[0] == 0).all()
    lost = ModuleCheckpoints(np.array([3.0]), bigrams().model, 3e38 * sure.reshape(1, -1).sign())
    with pytest.raises(SamplerDiverged, match="at epoch 3 diverged: a token's loss at draw 0 is not finite"):
        sample_tokens(CORPUS, lost, tmp_path / "lost", MILD, chains=1, draws=2)
    slope = token_sampling.LiveModel.curvature_product
    monkeypatch.setattr(
        token_sampling.LiveModel, "curvature_product", lambda *data: lambda v: torch.nan * slope(*data)(v)
    )
    with pytest.raises(ValueError, match="the loss or its curvature is not finite at epoch 3"):
        sample_tokens(corpus, checkpoints, tmp_path / "broken", MILD, chains=1, draws=2)


@pytest.mark.parametrize(
    ("sampler", "more", "error", "match"),
    [
        (MALA(), {}, ValueError, "MALA accepts or refuses a step by the loss over all samples"),
        (SGLD(step_size=0.1, localization=100.0), {}, UnstableStep, "outside the stable range"),
        (RMSPropSGLD(adaptation=5), {}, ValueError, "burn_in is 0, but the preconditioner adapts for 5"),
        (MILD, {"draws": 0}, ValueError, "draws must be at least 1"),
        (MILD, {"dtype": torch.float16}, TypeError, "dtype must be"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, sampler, more, error, match):
    with pytest.raises(error, match=match):
        sample_tokens(CORPUS, bigrams(), tmp_path, sampler, recorded=ASKED, **more)


def test_a_loss_that_is_not_of_tokens_is_refused(tmp_path):
    model = TorchModel(BigramModel(5), lambda logits, targets: next_token_loss(logits, targets).mean(1))
    checkpoints = ModuleCheckpoints(np.array([0.0]), model, model.initial()[None])
    with pytest.raises(ValueError, match="but one number for each is needed; use next_token_loss"):
        sample_tokens(CORPUS, checkpoints, tmp_path, MILD)


def test_arrays_in_memory_are_read_like_files():
    values = RNG.normal(size=(2, 3, 4, 5, 6))
    draws = as_token_draws(values)
    np.testing.assert_array_equal(draws.to_xarray(), values)
    np.testing.assert_array_equal(as_token_draws(draws.to_xarray().transpose()).at(1)[2], values[1, 2].reshape(4, 30))
    with pytest.raises(ValueError, match="are needed"):
        as_token_draws(values[0])


@pytest.mark.slow  # it times half a minute, on a machine that has nothing else to do
def test_recording_costs_what_the_bare_loop_costs(tmp_path):
    """Gradient and recording by hand, in the same process and in turn: 1.15 times is the bar, by the median round."""
    config = TransformerConfig()
    model = TorchModel(CausalTransformer(config), next_token_loss)
    checkpoints = ModuleCheckpoints(np.array([0.0]), model, model.initial()[None])
    corpus = token_samples(RNG.integers(256, size=(64, 65)))
    asked = token_samples(RNG.integers(256, size=(8, 65)))
    sampler = SGLD(step_size=1e-4, n_beta=1024.0, localization=5000.0)
    module = CausalTransformer(config)
    anchor = [p.detach().clone() for p in module.parameters()]

    def bare(draws):
        kept = np.empty((draws, 8, 64), np.float32)
        for k in range(draws):
            with torch.no_grad():
                kept[k] = next_token_loss(module(asked.inputs), asked.targets).numpy()
            chosen = torch.randint(64, (8,))
            loss = next_token_loss(module(corpus.inputs[chosen]), corpus.targets[chosen]).mean()
            gradients = torch.autograd.grad(loss, list(module.parameters()))
            with torch.no_grad():
                for p, g, a in zip(module.parameters(), gradients, anchor, strict=True):
                    p += -0.5e-4 * (1024 * g + 5000 * (p - a)) + 1e-2 * torch.randn_like(p)

    # The step check and the files come once a checkpoint, not once a draw: the chain itself is timed.
    seconds, run_chain = [], token_sampling._chain

    def timed(*arguments):
        start = time.process_time()
        run_chain(*arguments)
        seconds.append(time.process_time() - start)

    ratios = []
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setattr(token_sampling, "_chain", timed)
        for k in range(10):
            start = time.process_time()
            bare(15)
            by_hand = time.process_time() - start
            sample_tokens(
                corpus,
                checkpoints,
                tmp_path / str(k),
                sampler,
                recorded=asked,
                chains=1,
                draws=15,
                batch_size=8,
                seed=k,
            )
            ratios.append(seconds[-1] / by_hand)
    # Here every signature is checked at every call, which costs ours, of more calls, a tenth; and where others share
    # the cores a round strays by a tenth and more, the median of ten by a twentieth.
    assert np.median(ratios) < 1.15 + 0.1 + 0.05, ratios
