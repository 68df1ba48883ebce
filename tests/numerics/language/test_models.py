"""Small models against transformers' own, induction scores on attention made by hand, tokens, sequences, training."""

import json

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from numerics import (
    BigramModel,
    CausalTransformer,
    ModuleCheckpoints,
    PretrainingConfig,
    SyntheticCorpus,
    TokenCorpus,
    TorchModel,
    TrainingDiverged,
    TransformerConfig,
    attention_patterns,
    cut_documents,
    head_scores,
    induction_scores,
    next_token_loss,
    pretrain,
    repeated_sequences,
    token_samples,
)
from numerics.errors import StoreMismatch
from theory import entropy_rate

SMALL = TransformerConfig(vocabulary=40, context=24, width=16, layers=3, heads=4, mlp=32, bias=True, rotary=0.5)


def neox(config):
    torch.manual_seed(1)
    return GPTNeoXForCausalLM(GPTNeoXConfig(**config.as_neox())).double().eval()


def own_of(reference, config):
    model = CausalTransformer(config).double().eval()
    state = {name.replace("lm_head", "embed_out"): p for name, p in reference.state_dict().items()}
    model.load_state_dict({name: p for name, p in state.items() if name in model.state_dict()})
    return model


@pytest.mark.parametrize("rotary", [0.0, 0.5, 1.0])
def test_own_transformer_is_gpt_neox(rotary):
    config = TransformerConfig(**(vars(SMALL) | {"rotary": rotary}))
    reference = neox(config)
    with torch.no_grad():
        for p in reference.parameters():  # biases and layer norms start at 0 and 1, which would hide a lost one
            p.add_(0.1 * torch.randn(p.shape, dtype=p.dtype))
    own, ids = own_of(reference, config), torch.randint(40, (3, 24))
    with torch.no_grad():
        # Some thousand operations on numbers of order 1 in float64.
        torch.testing.assert_close(own(ids), reference(ids).logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        attention_patterns(own, ids).float(), attention_patterns(reference, ids).float(), rtol=1e-6, atol=1e-7
    )
    assert {name for name, _ in own.named_parameters()} == {
        name.replace("lm_head", "embed_out") for name, _ in reference.named_parameters()
    }


def test_sizes_go_to_config_json_and_back():
    assert TransformerConfig.of_neox(json.loads(json.dumps(SMALL.as_neox()))) == SMALL
    assert TransformerConfig.of_neox(neox(SMALL).config.to_dict()) == SMALL
    with pytest.raises(ValueError, match="model of type 'llama'"):
        TransformerConfig.of_neox(SMALL.as_neox() | {"model_type": "llama"})
    with pytest.raises(ValueError, match="use_parallel_residual = False"):
        TransformerConfig.of_neox(SMALL.as_neox() | {"use_parallel_residual": False})


def test_later_tokens_change_nothing_before_them():
    model, ids = CausalTransformer(SMALL).double(), torch.randint(40, (2, 20))
    changed = ids.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 40
    torch.testing.assert_close(model(ids)[:, :12], model(changed)[:, :12], rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="longer than the model's context 24"):
        model(torch.zeros(1, 25, dtype=torch.int64))


class ByHand(torch.nn.Module):
    """Head 0 attends to the token after the earlier appearance, head 1 to the previous one, head 2 evenly."""

    def __init__(self, period):
        super().__init__()
        self.period, self.nothing = period, torch.nn.Parameter(torch.zeros(1))

    def attention_patterns(self, ids):
        length = ids.shape[1]
        at = torch.arange(length)
        pattern = torch.zeros(3, length, length)
        pattern[0, at, (at - self.period + 1).clamp(min=0)] = 1
        pattern[1, at, (at - 1).clamp(min=0)] = 1
        pattern[2] = torch.ones(length, length).tril() / (at[:, None] + 1)
        return pattern.expand(1, len(ids), 3, length, length)


def test_scores_of_heads_made_by_hand():
    sequences = repeated_sequences(5, 8, 100)
    induction, previous = induction_scores(ByHand(8), sequences)
    even = np.mean([1 / (t + 1) for t in range(8, 16)]), np.mean([1 / (t + 1) for t in range(1, 16)])
    np.testing.assert_allclose(induction, [[1, 0, even[0]]], atol=1e-7)  # patterns are float32
    # Head 0 has no earlier appearance at position 1, where it attends to position 0 like head 1.
    np.testing.assert_allclose(previous, [[1 / 15, 1, even[1]]], atol=1e-7)


def test_scores_over_checkpoints_are_those_of_each():
    config = TransformerConfig(vocabulary=64, context=32, width=16)
    models = [CausalTransformer(config, seed=seed) for seed in (1, 2)]
    weights = torch.stack([torch.cat([p.detach().flatten() for p in m.parameters()]) for m in models])
    checkpoints = ModuleCheckpoints(np.array([5, 9]), TorchModel(models[0], next_token_loss), weights)
    sequences = repeated_sequences(4, 16, 64)
    found = head_scores(checkpoints, sequences)
    for k, model in enumerate(models):
        induction, previous = induction_scores(model, sequences)
        np.testing.assert_array_equal(found["induction"][k], induction)
        np.testing.assert_array_equal(found["previous token"][k], previous)


def test_modules_without_patterns_are_refused():
    with pytest.raises(TypeError, match="Linear gives no attention patterns"):
        attention_patterns(torch.nn.Linear(2, 2), torch.zeros(1, 2, dtype=torch.int64))


def test_repeated_sequences_share_no_token_and_repeat():
    sequences = repeated_sequences(8, 32, 256)
    assert len(np.unique(sequences.ids[:, :32])) == 256
    np.testing.assert_array_equal(sequences.ids[:, :32], sequences.ids[:, 32:])
    assert sequences.repeated.sum(axis=1).tolist() == [31] * 8
    assert sequences.fresh.sum(axis=1).tolist() == [31] * 8
    assert not (sequences.repeated & sequences.fresh).any()
    # The targets marked as repeated are the ones whose predecessor stood before with the same successor.
    inputs, targets = sequences.ids[:, :-1], sequences.ids[:, 1:]
    for row, sequence in enumerate(sequences.repeated):
        for k in np.flatnonzero(sequence):
            assert (inputs[row, k], targets[row, k]) in list(zip(inputs[row, :k], targets[row, :k], strict=True))
    shared = repeated_sequences(100, 8, np.arange(10, 20), share_tokens=True)
    assert set(np.unique(shared.ids)) == set(range(10, 20))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: repeated_sequences(3, 9, 8, share_tokens=True), ValueError, "a half of 9 different tokens needs 9"),
        (lambda: token_samples([[1.5, 2]]), TypeError, "whole numbers"),
        (lambda: token_samples([[1]]), ValueError, "shape \\(1, 1\\)"),
        (lambda: token_samples([[1, -2]]), ValueError, "token id -2 \\(sequence 0, position 1\\) is not a token"),
        (
            lambda: token_samples([[1, 8]], vocabulary=8),
            ValueError,
            "token id 8 \\(sequence 0, position 1\\) is not in",
        ),
        (lambda: repeated_sequences(4, 3, 10), ValueError, "that share no token need 12 distinct tokens"),
        (lambda: token_samples([[1, 2, 3]], context=1), ValueError, "make 2 predictions, but the model's context is 1"),
        (lambda: cut_documents([[1, 2], [3]], 3), ValueError, "3 tokens in 2 documents, which hold 0 sequences of 3"),
        (lambda: cut_documents([], 3), ValueError, "0 tokens in 0 documents"),
        (lambda: cut_documents([[1, 2, 3]], 2, count=2), ValueError, "hold 1 sequences of 2 tokens, but 2 are needed"),
        (lambda: SyntheticCorpus(successors=300), ValueError, "300 successors cannot be chosen from 256"),
        (lambda: SyntheticCorpus(shortest=9, longest=8), ValueError, "9 to 8 tokens"),
        (lambda: TransformerConfig(heads=64, rotary=1.0), ValueError, "an even number"),
        (lambda: PretrainingConfig(schedule="linear"), ValueError, "schedule must be one of"),
    ],
)
def test_bad_input_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_losses_are_those_of_torch_and_of_each_token():
    logits, targets = torch.randn(2, 5, 7, dtype=torch.float64), torch.randint(7, (2, 5))
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    torch.testing.assert_close(next_token_loss(logits, targets), expected)


def test_documents_are_cut_within_their_edges():
    documents = [list(range(7)), list(range(10, 13)), list(range(20, 31))]
    ids, positions = cut_documents(documents, 3, count=4, seed=1)
    everything = np.concatenate(documents)
    np.testing.assert_array_equal(everything[positions], ids)
    assert (np.diff(ids, axis=1) == 1).all()  # no sequence crosses an edge


def test_the_corpus_repeats_and_follows_its_chain():
    corpus = SyntheticCorpus(vocabulary=32, length=65, successors=3, shortest=4, longest=6, seed=2)
    ids = corpus.batch(7, 40).numpy()
    for row in ids[:20]:
        assert any((row[p:] == row[:-p]).all() for p in (4, 5, 6))
    for row in ids[20:]:
        assert (corpus.transition[row[:-1], row[1:]] > 0).all()
    assert (corpus.transition > 0).sum(axis=1).tolist() == [3] * 32
    many = SyntheticCorpus(vocabulary=6, length=2001, successors=3, tiled=0.0).batch(0, 20).numpy()
    counts = np.zeros((6, 6))
    np.add.at(counts, (many[:, :-1].ravel(), many[:, 1:].ravel()), 1)
    expected = SyntheticCorpus(vocabulary=6, successors=3, length=2001, tiled=0.0).transition
    seen = counts.sum(axis=1, keepdims=True)
    # Five standard errors of each share.
    assert (np.abs(counts / seen - expected) <= 5 * np.sqrt(expected * (1 - expected) / seen)).all()


# --- training ------------------------------------------------------------------------------------------------------


def test_bigrams_reach_the_entropy_rate_and_not_less(tmp_path):
    corpus = SyntheticCorpus(vocabulary=8, length=33, successors=3, tiled=0.0)
    losses = pretrain(BigramModel(8), corpus, tmp_path, PretrainingConfig(steps=300, lr=0.1), every=None)
    bound = entropy_rate(corpus.transition)
    last = losses[-50:]
    # 50 batches of 2048 tokens, whose losses spread by less than 1.5 nats: four standard errors of their mean.
    assert bound - 4 * 1.5 / np.sqrt(50 * 2048) < last.mean() < bound + 0.03


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(tmp_path):
    corpus, config = (
        SyntheticCorpus(vocabulary=16, length=17),
        PretrainingConfig(steps=30, schedule="cosine", warm_up=5),
    )
    model = TransformerConfig(vocabulary=16, context=16, width=8, layers=1, heads=1)
    whole = CausalTransformer(model)
    expected = pretrain(whole, corpus, tmp_path / "whole", config, every=10, save_at=[7])

    class Killed(Exception):
        pass

    class Dying(SyntheticCorpus):
        def batch(self, step, size):
            if step == 17:
                raise Killed
            return super().batch(step, size)

        __repr__ = corpus.__class__.__repr__

    dying = Dying(vocabulary=16, length=17)
    object.__setattr__(dying, "__class__", Dying)
    with pytest.raises(Killed):
        pretrain(
            CausalTransformer(model), _Named(dying, repr(corpus)), tmp_path / "killed", config, every=10, save_at=[7]
        )
    resumed, seen = CausalTransformer(model), []
    found = pretrain(
        resumed, _Named(corpus, repr(corpus)), tmp_path / "killed", config, every=10, save_at=[7], progress=seen.append
    )
    np.testing.assert_array_equal(found, expected)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert sorted(p.name for p in (tmp_path / "killed").glob("step*")) == [
        "step0",
        "step10",
        "step20",
        "step30",
        "step7",
    ]
    assert sum(seen) == 20
    assert not list((tmp_path / "killed").rglob("*.partial"))


class _Named:
    def __init__(self, corpus, name):
        self.batch, self._name = corpus.batch, name

    def __repr__(self):
        return self._name


def test_a_folder_of_another_run_and_a_damaged_one_are_refused(tmp_path):
    corpus, config = SyntheticCorpus(vocabulary=8, length=9), PretrainingConfig(steps=2)
    pretrain(BigramModel(8), corpus, tmp_path, config)
    with pytest.raises(StoreMismatch, match="holds a run with another module"):
        pretrain(BigramModel(8), corpus, tmp_path, PretrainingConfig(steps=3))
    (tmp_path / "training.state").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged: delete it and run anew"):
        pretrain(BigramModel(8), corpus, tmp_path, config)


def test_divergence_is_named_and_earlier_checkpoints_stay(tmp_path):
    model = BigramModel(8)

    class Broken(SyntheticCorpus):
        def batch(self, step, size):
            if step == 3:
                with torch.no_grad():
                    model.table.fill_(torch.nan)
            return super().batch(step, size)

    with pytest.raises(TrainingDiverged, match=r"not finite at step 3.*Checkpoints up to step 2"):
        pretrain(model, Broken(vocabulary=8, length=9), tmp_path, PretrainingConfig(steps=5), every=2)
    assert (tmp_path / "step2" / "model.safetensors").exists()


def test_sequences_of_a_text_come_once_an_epoch():
    corpus = TokenCorpus(np.arange(20).reshape(10, 2), seed=3)
    seen = np.concatenate([corpus.batch(step, 4).numpy()[:, 0] for step in range(5)])
    for epoch in (seen[:10], seen[10:]):
        assert sorted(epoch.tolist()) == list(range(0, 20, 2))
    assert seen[:10].tolist() != seen[10:].tolist()
