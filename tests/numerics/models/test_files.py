"""Checkpoints from files of every kind give the weights that were saved, and files that do not fit are refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from numerics import ModuleCheckpoints, Samples, TorchModel, gradient_kernel


def net(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def saved_module(step):
    module = net(step)
    with torch.no_grad():
        module[1].running_mean += step
        module[1].running_var += step
    return module


def as_safetensors(module, path):
    save_file(module.state_dict(), path)


def as_torch(module, path):
    torch.save(module.state_dict(), path)


def among_other_things(module, path):
    torch.save({"epoch": 3, "model_state_dict": module.state_dict(), "optimizer": {"lr": 0.1}}, path)


def prefixed(prefix):
    def save(module, path):
        torch.save({prefix + name: value for name, value in module.state_dict().items()}, path)

    return save


def sharded(module, path):
    path.mkdir()
    state = module.state_dict()
    where = {name: f"model-0000{k % 2}.safetensors" for k, name in enumerate(state)}
    for file in set(where.values()):
        save_file({name: value for name, value in state.items() if where[name] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def hugging_face(module, path):
    path.mkdir()
    (path / "config.json").write_text("{}")
    save_file(module.state_dict(), path / "model.safetensors")


WRITERS = {
    "safetensors": (as_safetensors, "step-{}.safetensors"),
    "torch.save": (as_torch, "epoch={}.pt"),
    "among other things": (among_other_things, "run_step{}.ckpt"),
    "DistributedDataParallel": (prefixed("module."), "checkpoint_{}.pth"),
    "torch.compile": (prefixed("_orig_mod."), "{}.pt"),
    "both": (prefixed("module._orig_mod."), "iter{}.pt"),
    "Lightning": (prefixed("model."), "epoch=1-step={}.ckpt"),
    "Hugging Face": (hugging_face, "checkpoint-{}"),
    "sharded": (sharded, "step{}"),
}
STEPS = (0, 100, 20)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_was_saved_is_read(kind, tmp_path):
    write, name = WRITERS[kind]
    for step in STEPS:
        write(saved_module(step), tmp_path / name.format(step))
    model = TorchModel(net())
    run = ModuleCheckpoints.load(tmp_path, model)
    assert run.epochs.tolist() == sorted(STEPS)
    x = torch.randn(5, 3)
    for t, step in enumerate(sorted(STEPS)):
        expected = saved_module(step).eval()(x)
        at = run.model_at(t)
        # The same module with the same numbers: what differs is nothing.
        assert torch.equal(at.outputs(run.weights_at(t), x), expected)
        assert torch.equal(model.outputs(run.weights_at(t), x, run.state_at(t)), expected)
    assert torch.equal(run.at([20.0]).weights_at(0), run.weights_at(1))
    assert torch.equal(run.flat[2], run.weights_at(2))


def test_a_measure_over_files_is_the_one_in_memory(tmp_path):
    modules = [saved_module(step) for step in (0, 1)]
    for step, module in enumerate(modules):
        as_safetensors(module, tmp_path / f"step-{step}.safetensors")
    model = TorchModel(net())
    flat = torch.stack([torch.cat([p.flatten() for p in module.parameters()]) for module in modules]).detach()
    states = {
        name: torch.stack([module.state_dict()[name] for module in modules])
        for name in ("1.running_mean", "1.running_var")
    }
    samples = Samples(torch.randn(4, 3), torch.randn(4, 2))
    in_memory = gradient_kernel(samples, ModuleCheckpoints(np.array([0, 1]), model, flat, states))
    from_files = gradient_kernel(samples, ModuleCheckpoints.load(tmp_path, model))
    np.testing.assert_array_equal(in_memory.values, from_files.values)
    final = gradient_kernel(samples, ModuleCheckpoints(np.array([0, 1]), model, flat))
    assert abs(final - in_memory).max() > 0.01, "statistics of the checkpoints must count"


def test_only_one_checkpoint_is_held_at_a_time(tmp_path, monkeypatch):
    for step in range(3):
        as_safetensors(saved_module(step), tmp_path / f"step-{step}.safetensors")
    run = ModuleCheckpoints.load(tmp_path, TorchModel(net()))
    assert not isinstance(run.weights, torch.Tensor)


def test_epochs_may_be_given_and_are_sorted(tmp_path):
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for step, path in zip((5, 7), paths, strict=True):
        as_torch(saved_module(step), path)
    run = ModuleCheckpoints.load(paths, TorchModel(net()), epochs=[7, 5])
    assert run.epochs.tolist() == [5, 7]
    assert torch.equal(run.weights_at(0), torch.cat([p.flatten() for p in saved_module(7).parameters()]))


def test_frozen_weights_come_from_the_checkpoint(tmp_path):
    for step in (0, 1):
        as_torch(saved_module(step), tmp_path / f"step{step}.pt")
    module = net()
    module[0].requires_grad_(False)
    run = ModuleCheckpoints.load(tmp_path, TorchModel(module))
    x = torch.randn(5, 3)
    assert torch.equal(run.model_at(1).outputs(run.weights_at(1), x), saved_module(1).eval()(x))
    assert len(run.weights_at(1)) == sum(p.numel() for p in [*module[1].parameters(), *module[2].parameters()])


def renamed(module, path):
    torch.save({name.replace("0.", "first."): value for name, value in module.state_dict().items()}, path)


def test_names_may_be_changed_and_left_over(tmp_path):
    renamed(saved_module(1), tmp_path / "step1.pt")
    with pytest.raises(ValueError, match=r"lacks 0.weight, 0.bias and has first.weight, first.bias. Rename="):
        ModuleCheckpoints.load(tmp_path, TorchModel(net()))
    run = ModuleCheckpoints.load(tmp_path, TorchModel(net()), rename=lambda name: name.replace("first.", "0."))
    assert torch.equal(run.weights_at(0)[:12], saved_module(1)[0].weight.flatten())
    more = {**saved_module(2).state_dict(), "ema.0": torch.zeros(1)}
    torch.save(more, tmp_path / "step2.pt")
    with pytest.raises(ValueError, match=r"step2.pt does not fit the module: it has ema.0. Ignore= names"):
        ModuleCheckpoints.load([tmp_path / "step2.pt"], TorchModel(net()))
    assert len(ModuleCheckpoints.load([tmp_path / "step2.pt"], TorchModel(net()), ignore=["ema.*"])) == 1


class _Runs:
    def __reduce__(self):
        return print, ("code was run",)


def _nan(module, path):
    with torch.no_grad():
        module[0].weight[0, 0] = float("nan")
    as_torch(module, path)


BAD = {
    "step1.pt": (lambda path: path.write_bytes(pickle.dumps({"w": _Runs()})), "holds more than tensors|cannot be read"),
    "step2.pt": (lambda path: torch.save(net(), path), "holds more than tensors"),
    "step3.pt": (lambda path: torch.save([1, 2], path), "holds no state dictionary"),
    "step4.safetensors": (lambda path: path.write_bytes(b"x" * 100), "cannot be read as a checkpoint"),
    "step5.pt": (lambda path: path.write_bytes(b""), "cannot be read as a checkpoint"),
    "step6.pt": (lambda path: as_torch(torch.nn.Linear(3, 4), path), "lacks 0.weight"),
    "step7.txt": (lambda path: path.write_text("no"), "its name ends in none of"),
    "nothing.pt": (lambda path: as_torch(net(), path), "the epoch of nothing.pt cannot be told"),
    "a1b2.pt": (lambda path: as_torch(net(), path), "its name has several numbers; give epochs="),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_checkpoint_is_refused(name, tmp_path, capsys):
    write, match = BAD[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=match):
        ModuleCheckpoints.load([tmp_path / name], TorchModel(net()))
    assert "code was run" not in capsys.readouterr().out


def test_a_tensor_of_another_shape_is_named(tmp_path):
    state = net().state_dict()
    state["2.weight"] = torch.zeros(3, 4)
    torch.save(state, tmp_path / "step1.pt")
    with pytest.raises(ValueError, match=r"2.weight has shape \(3, 4\) there, but \(2, 4\) in the module"):
        ModuleCheckpoints.load(tmp_path, TorchModel(net()))


def test_a_number_that_is_not_finite_is_named_when_it_is_read(tmp_path):
    _nan(net(), tmp_path / "step7.pt")
    run = ModuleCheckpoints.load(tmp_path, TorchModel(net()))
    with pytest.raises(ValueError, match="the weights are not finite in the checkpoint of epoch 7"):
        run.weights_at(0)


def test_what_is_missing_is_said(tmp_path):
    model = TorchModel(net())
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        ModuleCheckpoints.load(tmp_path / "none", model)
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*a.pt"):
        ModuleCheckpoints.load([tmp_path / "a.pt"], model)
    with pytest.raises(ValueError, match="no checkpoint was found"):
        ModuleCheckpoints.load(tmp_path, model)
    as_torch(net(), tmp_path / "step1.pt")
    as_torch(net(), tmp_path / "epoch1.pt")
    with pytest.raises(ValueError, match=r"step1.pt and epoch1.pt|epoch1.pt and step1.pt"):
        ModuleCheckpoints.load(tmp_path, model)
    with pytest.raises(ValueError, match="1 epochs were given for 2 checkpoints"):
        ModuleCheckpoints.load(tmp_path, model, epochs=[1])


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ("[]", "does not say in which file"),
        ("{", "cannot be read"),
        ('{"weight_map": {"0.weight": "../other.safetensors"}}', "not a file of its folder"),
        ('{"weight_map": {"0.weight": "absent.safetensors"}}', "lacks the shard absent.safetensors"),
    ],
)
def test_an_index_of_shards_is_not_trusted(index, match, tmp_path):
    folder = tmp_path / "step1"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=match):
        ModuleCheckpoints.load([folder], TorchModel(net()))


@given(st.binary(max_size=300), st.sampled_from([".pt", ".safetensors", ".ckpt"]), st.booleans())
def test_any_bytes_end_in_a_sentence(tmp_path_factory, content, ending, cut):
    path = Path(tmp_path_factory.mktemp("fuzz")) / f"step1{ending}"
    if cut:  # a whole file with bytes of its middle replaced
        (as_safetensors if ending == ".safetensors" else as_torch)(net(), path)
        whole = bytearray(path.read_bytes())
        middle = len(whole) // 3
        whole[middle : middle + len(content)] = content
        path.write_bytes(whole)
    else:
        path.write_bytes(content)
    said = ""
    try:
        ModuleCheckpoints.load([path], TorchModel(net())).weights_at(0)
    except ValueError as error:
        said = str(error)
    assert said == "" or str(path) in said or "epoch 1" in said


def test_states_in_memory_are_read_by_name():
    states = [saved_module(step).state_dict() for step in (0, 3)]
    shuffled = [dict(reversed(list(state.items()))) for state in states]
    run = ModuleCheckpoints.of_states([0, 3], TorchModel(net()), shuffled)
    x = torch.randn(5, 3)
    assert torch.equal(run.model_at(1).outputs(run.weights_at(1), x), saved_module(3).eval()(x))
    for change, match in (
        (lambda state: state.pop("0.bias"), "lacks 0.bias"),
        (lambda state: state.update(more=torch.zeros(1)), "has more, which the module does not have"),
        (lambda state: state.update({"0.bias": torch.zeros(9)}), r"0.bias has shape \(9,\) in a state, but \(4,\)"),
    ):
        wrong = dict(states[0])
        change(wrong)
        with pytest.raises(ValueError, match=match):
            ModuleCheckpoints.of_states([0], TorchModel(net()), [wrong])
