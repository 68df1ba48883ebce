"""Folders of revisions in the layout of the Pythia models, with random weights, read offline."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from numerics import SGLD, load_revisions, load_tokenizer, sample_tokens, token_samples

SIZES = {
    "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 24, "rotary_pct": 0.25,
}  # fmt: skip
IDS = np.random.default_rng(0).integers(64, size=(3, 11))


@pytest.fixture
def folder(tmp_path):
    for step in (0, 512, 1000):
        torch.manual_seed(step)
        GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)).save_pretrained(tmp_path / f"step{step}")
    words = Tokenizer(models.WordLevel({f"t{k}": k for k in range(60)}, unk_token="t0"))
    words.save(str(tmp_path / "step0" / "tokenizer.json"))
    return tmp_path


def logits_at(checkpoints, t, ids=IDS[:, :-1]):
    return checkpoints.model_at(t).outputs(checkpoints.weights_at(t), torch.as_tensor(ids))


def test_each_revision_gives_what_transformers_gives(folder):
    checkpoints = load_revisions(folder)
    assert checkpoints.epochs.tolist() == [0, 512, 1000]
    for t, step in enumerate((0, 512, 1000)):
        reference = GPTNeoXForCausalLM.from_pretrained(folder / f"step{step}").eval()
        expected = reference(torch.from_numpy(IDS[:, :-1])).logits
        torch.testing.assert_close(logits_at(checkpoints, t), expected, rtol=1e-4, atol=1e-5)  # float32


@pytest.mark.parametrize(
    ("old", "new"), [("lm_head.weight", "embed_out.weight"), ("embed_out.weight", "lm_head.weight")]
)
def test_names_of_the_last_layer_are_read_both_ways(folder, old, new):
    expected = logits_at(load_revisions(folder), 1)
    path = folder / "step512" / "model.safetensors"
    tensors = load_file(path)
    if old in tensors:
        tensors[new] = tensors.pop(old)
    tensors["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)  # as files of the Pythia models hold it
    save_file(tensors, path)
    torch.testing.assert_close(logits_at(load_revisions(folder), 1), expected)
    reference = GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES))
    torch.testing.assert_close(
        logits_at(load_revisions(folder, module=reference, steps=[512]), 0), expected, rtol=1e-4, atol=1e-5
    )


def test_other_models_go_through_transformers(tmp_path):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=24)).eval()
    model.save_pretrained(tmp_path / "step7")
    checkpoints = load_revisions(tmp_path)
    torch.testing.assert_close(logits_at(checkpoints, 0), model(torch.from_numpy(IDS[:, :-1])).logits)
    draws = sample_tokens(
        token_samples(IDS), checkpoints, tmp_path / "draws", SGLD(1e-5, 10.0, 100.0), chains=1, draws=3, batch_size=2
    )
    assert np.isfinite(draws.at(7)[0]).all()


def test_draws_start_from_the_weights_in_the_files(folder, tmp_path):
    checkpoints = load_revisions(folder, steps=[1000, 0])
    draws = sample_tokens(
        token_samples(IDS), checkpoints, tmp_path / "draws", SGLD(1e-5, 10.0, 100.0), chains=1, draws=2, batch_size=2
    )
    logits = logits_at(checkpoints, 1)
    expected = torch.nn.functional.cross_entropy(logits.mT, torch.from_numpy(IDS[:, 1:]), reduction="none")
    np.testing.assert_allclose(draws.at(1000)[0][0], expected.detach().ravel(), rtol=1e-5)


@pytest.mark.slow
def test_pythia_14m_in_size(tmp_path):
    config = GPTNeoXConfig(
        vocab_size=50304, hidden_size=128, num_hidden_layers=6, num_attention_heads=4, intermediate_size=512,
        max_position_embeddings=2048, rotary_pct=0.25,
    )  # fmt: skip
    torch.manual_seed(0)
    reference = GPTNeoXForCausalLM(config).eval()
    reference.save_pretrained(tmp_path / "step1000")
    checkpoints = load_revisions(tmp_path)
    assert checkpoints.model.n_parameters == 14_067_712
    ids = torch.randint(50304, (4, 25))
    with torch.no_grad():
        expected = reference(ids[:, :-1]).logits
    torch.testing.assert_close(logits_at(checkpoints, 0, ids[:, :-1]), expected, rtol=1e-4, atol=1e-5)
    draws = sample_tokens(
        token_samples(ids), checkpoints, tmp_path / "draws", SGLD(1e-6, 256.0, 1000.0), chains=1, draws=2, batch_size=2
    )
    losses = torch.nn.functional.cross_entropy(expected.mT, ids[:, 1:], reduction="none")
    np.testing.assert_allclose(draws.at(1000)[0][0], losses.ravel(), rtol=1e-4)
    assert (draws.at(1000)[0][1] != draws.at(1000)[0][0]).all()


@pytest.mark.slow
def test_workers_of_a_dask_cluster_read_checkpoints_by_path(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    settings = {"sampler": SGLD(1e-5, 10.0, 100.0), "chains": 2, "draws": 3, "batch_size": 2}
    expected = sample_tokens(token_samples(IDS), load_revisions(folder), tmp_path / "here", **settings).to_xarray()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the cluster's own start and end
        cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with cluster, distributed.Client(cluster) as client:
            found = sample_tokens(
                token_samples(IDS),
                load_revisions(folder),
                tmp_path / "there",
                executor=client.get_executor(),
                **settings,
            )
    np.testing.assert_array_equal(found.to_xarray(), expected)


def test_a_tokenizer_fits_the_model_or_is_refused(folder):
    assert load_tokenizer(folder, 64).get_vocab_size() == 60
    with pytest.raises(ValueError, match="token ids up to 59, but the model knows 50 tokens"):
        load_tokenizer(folder / "step0" / "tokenizer.json", 50)
    (folder / "step0" / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a tokenizer, or is damaged"):
        load_tokenizer(folder, 64)
    with pytest.raises(FileNotFoundError, match="there is no tokenizer"):
        load_tokenizer(folder / "step512", 64)


def test_what_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no step3000; there are step0, step512, step1000"):
        load_revisions(folder, steps=[0, 3000])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_revisions(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no revision"):
        load_revisions(tmp_path / "empty")
    (folder / "step0" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="which says what the model is"):
        load_revisions(folder)


def test_weights_that_are_not_finite_are_named(folder):
    path = folder / "step512" / "model.safetensors"
    tensors = load_file(path)
    tensors["gpt_neox.embed_in.weight"][0, 0] = torch.nan
    save_file(tensors, path)
    with pytest.raises(ValueError, match="not finite in the checkpoint of epoch 512"):
        load_revisions(folder).weights_at(1)


def test_a_model_of_another_size_is_refused(folder):
    config = json.loads((folder / "step0" / "config.json").read_text())
    (folder / "step0" / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(ValueError, match="does not fit the module"):
        load_revisions(folder)
    shutil.rmtree(folder / "step0")
