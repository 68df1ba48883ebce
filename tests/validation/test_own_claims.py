"""A user's claims and measures: read from a file, measured, with faults that must be noticed; and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import validation.__main__
import validation.registry
from numerics import TrainingConfig
from theory import Dataset
from validation import (
    Experiment,
    Settings,
    Verdict,
    correlations,
    cross_check,
    load_claims,
    run_claim,
    save_dataset,
    settings_for,
)
from validation.own_measures import own_measures

DATA = Dataset(np.eye(2), np.array([[2.0, 0.5, 0.0], [1.0, 0.0, 1.0]]), ("a", "b"))
SHORT = Settings(training=TrainingConfig(epochs=400, checkpoint_every=100), draws=20, every=200)

CLAIMS = """
from validation import Check, Plot, claim, curves, numerics, planted_fault, theory

@claim("own-kernel", "A sample's influence on itself is a square.", source="ours",
       compares=(theory("a squared norm"), numerics("the gradient kernel")), metric="smallest diagonal entry")
def own_kernel(experiment):
    first = experiment.dataset.names[0]
    line = experiment.kernel.sel(source=first, query=first)
    yield Check("smallest K_ii", float(line.min()), low=0.0, why="a square")
    yield Plot("K_ii", "epoch", "K_ii", curves(experiment.epochs, own=line.values))

@planted_fault("own-kernel", "FAULT")
def fault(experiment):
    experiment.kernel = FACTOR * experiment.kernel
"""


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr("validation.registry._REGISTRY", dict(validation.registry._REGISTRY))


def written(folder, *, factor="-1", text=CLAIMS):
    path = folder / "my_claims.py"
    path.write_text(text.replace("FACTOR", factor).replace("FAULT", f"the kernel times {factor}"))
    return path


def test_a_claim_holds_and_its_fault_is_noticed(tmp_path):
    (found,) = load_claims(written(tmp_path))
    experiment = Experiment(DATA, SHORT)
    result = run_claim(found, experiment)
    assert result.verdict is Verdict.HOLDS
    assert result.noticed == ("the kernel times -1",)
    assert len(result.plots) == 1
    assert float(experiment.kernel.sel(source="a", query="a").min()) >= 0  # the fault was planted in a copy


def test_a_claim_that_does_not_notice_its_fault_fails(tmp_path):
    (found,) = load_claims(written(tmp_path, factor="2"))
    result = run_claim(found, Experiment(DATA, SHORT))
    assert result.verdict is Verdict.FAILS
    assert "the planted fault 'the kernel times 2' is not noticed" in result.problem


def test_a_file_may_be_read_again(tmp_path):
    load_claims(written(tmp_path))
    assert [c.identifier for c in load_claims(written(tmp_path))] == ["own-kernel"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1", "registers no claim"),
        ("def (", "SyntaxError in line 1"),
        ("\n\n1 / 0", "ZeroDivisionError in line 3: division by zero"),
        (CLAIMS + CLAIMS, "two claims are called 'own-kernel'"),
        ('from validation import planted_fault\nplanted_fault("nothing", "f")(print)', "no claim is called 'nothing'"),
    ],
)
def test_files_that_do_not_work_are_refused_and_leave_nothing(tmp_path, text, sentence):
    before = validation.all_claims()
    with pytest.raises(ValueError, match=r"my_claims\.py") as error:
        load_claims(written(tmp_path, text=text))
    assert sentence in str(error.value)
    assert validation.all_claims() == before


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        load_claims(tmp_path / "none.py")


def test_the_command_runs_own_claims_on_own_data(tmp_path, monkeypatch):
    def shorter(dataset, *, seed):
        return replace(settings_for(dataset, seed=seed), training=SHORT.training, draws=20, every=200)

    monkeypatch.setattr(validation.__main__, "settings_for", shorter)
    monkeypatch.setattr(validation.__main__, "PAIRS", ())
    save_dataset(tmp_path / "own.npz", DATA)
    app = validation.__main__.typer.Typer()
    app.command()(validation.__main__.main)
    arguments = ["--data", tmp_path / "own.npz", "--claims", written(tmp_path), "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    document = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert [c["id"] for c in document["claims"]] == ["own-kernel"], result.output
    assert document["claims"][0]["noticed"] == ["the kernel times -1"]
    assert document["notes"][0].startswith("2 samples from own.npz")
    page = (tmp_path / "out" / "validation.html").read_text()
    assert "<dt>planted faults noticed</dt><dd>the kernel times -1</dd>" in page
    assert "2 samples from own.npz" in page
    assert "own-kernel" in " ".join(result.output.split())


# --- measures ---------------------------------------------------------------------------------------------------


def array(epochs=(0, 100), sources=("a", "b"), queries=("a", "b"), value=1.0):
    shape = (len(epochs), len(sources), len(queries))
    coords = {"epoch": list(epochs), "source": list(sources), "query": list(queries)}
    return xr.DataArray(np.full(shape, value), coords, ("epoch", "source", "query"))


def test_own_measures_stand_beside_ours():
    def half(experiment):
        return experiment.retrained / 2

    def broken(experiment):
        raise RuntimeError("no luck")

    mine = Experiment(DATA, SHORT).retrained.sel(source="a", query=["b", "a"])[::-1]  # a part, in another order
    seen = cross_check(DATA, SHORT, measures={"half": half, "a part": 3 * mine, "broken": broken})
    found = {(r.pair.reference, r.pair.measure): r for r in seen.pairs}
    assert found["LOO retrained", "half"].found.slope == pytest.approx(0.5, rel=1e-12)
    assert found["LOO retrained", "a part"].found.slope == pytest.approx(3.0, rel=1e-12)
    assert found["LOO retrained", "half"].verdict is Verdict.REPORTED
    assert "raised RuntimeError: no luck" in found["BIF", "broken"].problem
    assert float(seen.matrix.sel(measure="half", other="LOO retrained")) == pytest.approx(1.0, abs=1e-12)
    assert str(seen.matrix["way"].sel(measure="half").values) == "your own"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (array(epochs=(5,)), "shares no epoch with the run: it has 5, and checkpoints are at 0, 100"),
        (array(sources=("a", "z")), "source 'z' is no sample; there are a, b"),
        (array(value=np.inf), "holds an infinite value"),
        (array().rename(query="other"), "but (epoch, source, query) are needed"),
        (array().drop_vars("source"), "has no labels along source"),
        (array(epochs=(0, 0)), "has a label along epoch that stands twice"),
        (array().astype(str), "must hold real numbers"),
        (array().assign_coords(epoch=["x", "y"]), "must have numbers as epochs"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_any_work(value, sentence):
    with pytest.raises(ValueError, match="mine") as error:
        own_measures({"mine": value}, DATA, np.array([0, 100, 200]))
    assert sentence in str(error.value)


def test_names_that_are_taken_and_things_that_are_no_measures_are_refused():
    with pytest.raises(ValueError, match="a measure is called 'BIF' already"):
        own_measures({"BIF": array()}, DATA, np.array([0]))
    with pytest.raises(TypeError):  # by beartype under tests, in a sentence otherwise
        own_measures({"mine": np.eye(2)}, DATA, np.array([0]))


def test_a_function_that_returns_something_else_is_left_out_of_the_table():
    own = own_measures({"mine": lambda experiment: 3}, DATA, np.array([0]))
    assert correlations(Experiment(DATA, SHORT), ["mine"], measures=own).size == 0
