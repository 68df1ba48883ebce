"""The command line: what it prints and writes, its exit status, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import validation.__main__
import validation.experiments.base
from theory import Dataset
from validation import Cost, all_claims, save_dataset, settings_for
from validation.registry import Check, claim, numerics, theory

ROOT = Path(__file__).parents[2]


def run_command(*arguments):
    app = validation.__main__.typer.Typer()
    app.command()(validation.__main__.main)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def words(result):
    return " ".join(result.output.split())


def test_chosen_claims_are_checked_in_full_and_written(tmp_path):
    out = tmp_path / "not" / "there yet"
    result = run_command("--only", "matrix-solution", "--only", "singular", "--out", out, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "0 pairs, 4 claims in" in words(result)
    assert "4 holds. Seed 3." in words(result)
    assert "the solution assumes balanced layers" in words(result)
    document = json.loads((out / "validation.json").read_text())
    assert {c["id"] for c in document["claims"]} >= {"matrix-solution", "singular-structure"}
    assert document["settings"]["training"]["seed"] == 3
    assert "matrix-solution" in (out / "validation.html").read_text()


def test_a_family_is_a_choice_too():
    assert "claims in" in words(run_command("--only", "learning_coefficient", "--quick"))


def test_the_command_fails_when_a_claim_does(monkeypatch):
    wrong = lambda *_, **__: np.zeros((101, 15, 8))  # noqa: E731
    monkeypatch.setattr(validation.experiments.base, "linear_network_solution", wrong)
    result = run_command("--only", "matrix-solution")
    assert result.exit_code == 1
    assert "✗ fails" in result.output


def test_quick_leaves_out_what_takes_minutes(monkeypatch):
    seen = {}

    def run(console, settings, claims, reading, *, whole):
        seen.update(claims=claims, whole=whole)
        return validation.run_ledger("nothing", validation.ToyExperiment())

    monkeypatch.setattr(validation.__main__, "_run", run)
    assert run_command("--quick").exit_code == 0
    assert seen["whole"]
    assert seen["claims"] == tuple(c for c in all_claims() if c.cost is Cost.QUICK)
    run_command()
    assert seen["claims"] == all_claims()


def test_an_unknown_claim_is_refused_with_the_nearest():
    result = run_command("--only", "matrx")
    assert result.exit_code == 2
    assert "no claim is called 'matrx'; did you mean 'matrix-solution'?" in words(result)


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    result = run_command("--only", "matrix-solution", "--out", tmp_path / "file" / "below")
    assert result.exit_code == 2
    assert "cannot be made: Not a directory. Choose another --out." in words(result)


def test_an_interrupted_run_writes_a_partial_report_and_says_so(tmp_path, monkeypatch):
    def interrupting(_):
        yield Check("q", 1.0, high=2.0, why="because")
        raise KeyboardInterrupt

    monkeypatch.setattr("validation.registry._REGISTRY", dict(validation.registry._REGISTRY))
    claim("zz-last", "S.", source="ours", compares=(theory("a"), numerics("b")), metric="m")(interrupting)
    result = run_command("--only", "singular-structure", "--only", "zz-last", "--out", tmp_path)
    assert result.exit_code == 130
    assert "Interrupted: 1 not measured." in words(result)
    assert json.loads((tmp_path / "validation.json").read_text())["unfinished"] == ["zz-last"]
    page = (tmp_path / "validation.html").read_text()
    assert "Partial report." in page
    assert "not measured: zz-last." in page


@pytest.mark.slow  # a process of its own, interrupted by a real signal within a long claim
def test_control_c_ends_a_real_run(tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "validation",
        "--only",
        "singular-structure",
        "--only",
        "measured",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        for _ in range(1200):  # the folder is made just before the run begins
            if out.exists():
                break
            time.sleep(0.1)
        time.sleep(8)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, text
    document = json.loads((out / "validation.json").read_text())
    assert document["unfinished"] == ["measured-coefficients"]
    assert [c["id"] for c in document["claims"]] == ["singular-structure"]


def two_samples():
    return Dataset(np.eye(2), np.array([[2.0, 0.5, 0.0], [1.0, 0.0, 1.0]]), ("a", "b"))


def test_own_data_are_cross_checked_with_a_report(tmp_path, monkeypatch):
    def shorter(dataset, *, seed):
        settings = settings_for(dataset, seed=seed)
        training = replace(settings.training, epochs=2000, checkpoint_every=100)
        return replace(settings, training=training, draws=50)

    monkeypatch.setattr(validation.__main__, "settings_for", shorter)
    save_dataset(tmp_path / "own.npz", two_samples())
    result = run_command("--data", tmp_path / "own.npz", "--out", tmp_path / "out")
    document = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert document["claims"] == []
    assert document["title"] == "Cross-check of 2 samples, 2 inputs, 3 outputs"
    verdicts = [p["verdict"] for p in document["pairs"]]
    assert "holds" in verdicts
    assert result.exit_code == int("fails" in verdicts), result.output
    page = (tmp_path / "out" / "validation.html").read_text()
    assert "Cross-check of 2 samples" in page
    assert "Strongest influences" in page
    assert {e["source"] for e in document["strongest"]} == {"a", "b"}
    assert "Strongest influences" in result.output
    assert "The paper, sentence by sentence" not in page  # the data are not the paper's


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x1,y1\n2,1\n0,1\n", "X^T X differs from I by 3"),
        ("x1,y1\n1,one\n", "line 2, column y1: 'one' is not a number"),
        ("x1,y1\n1,2\n", "the data set has one sample, but influence on another needs two"),
        ("x1,x2,y1\n1,0,1e300\n0,1,1e300\n", "the largest target is 1e+300, and its powers overflow"),
    ],
)
def test_own_data_that_do_not_fit_are_refused(tmp_path, text, sentence):
    (tmp_path / "own.csv").write_text(text)
    result = run_command("--data", tmp_path / "own.csv")
    assert result.exit_code == 2
    assert sentence in words(result)


def test_choosing_claims_and_own_data_do_not_go_together(tmp_path):
    save_dataset(tmp_path / "own.npz", two_samples())
    for more in (("--quick",), ("--only", "stages-loo")):
        result = run_command("--data", tmp_path / "own.npz", *more)
        assert result.exit_code == 2
        assert "choose claims about the toy model" in words(result)


def test_what_was_read_is_said_and_columns_go_with_data(tmp_path):
    (tmp_path / "own.csv").write_text("pet;legs;age;speed\ndog;1,0;7;2\ncat;1,0;9;3\n")
    result = run_command("--data", tmp_path / "own.csv", "--inputs", "legs", "--targets", "speed", "--names", "pet")
    assert result.exit_code == 2
    assert "(separated by semicolons, decimal commas): inputs legs; targets speed; names pet; left out age." in words(
        result
    )
    assert "X^T X differs from I" in words(result)
    result = run_command("--inputs", "legs")
    assert result.exit_code == 2
    assert "say what the columns of --data are; give it too" in words(result)


def test_claims_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "my_claims.py").write_text("1 / 0")
    result = run_command("--claims", tmp_path / "my_claims.py")
    assert result.exit_code == 2
    assert "ZeroDivisionError in line 1: division by zero" in words(result)
