"""Files before the terminal, folders tried before work, and encodings that know no tick spelled out."""

import io
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import validation.__main__
from validation.terminal import degrade_output, in_ascii, make_writable


def run_command(*arguments):
    app = validation.__main__.typer.Typer()
    app.command()(validation.__main__.main)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def words(result):
    return " ".join(result.output.split())


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env={**os.environ, **environment}, capture_output=True, check=False
    )


@pytest.mark.parametrize("encoding", ["cp1252"])
def test_a_narrow_encoding_loses_neither_files_nor_words(tmp_path, encoding):
    out = tmp_path / "café ✓"
    done = command("-m", "validation", "--only", "agreement-is-a-slope", "--out", out, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode(encoding)
    assert "Seed 0." in said
    assert "holds" in said
    assert not done.stderr
    assert json.loads((out / "validation.json").read_text(encoding="utf-8"))["complete"]
    assert (out / "validation.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("arguments", [["list"], ["figures", "2", "--quick"], ["check", "--help"]])
def test_every_command_speaks_ascii(tmp_path, arguments):
    if arguments[0] == "figures":
        arguments = [*arguments, "--out", tmp_path / "≥ drawn"]
    done = command("-m", "stagewise", *arguments, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_files_are_written_before_the_terminal_is_asked(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise UnicodeEncodeError("charmap", "✓", 0, 1, "no tick")

    monkeypatch.setattr(validation.__main__, "print_ledger", broken)
    assert isinstance(run_command("--only", "agreement-is-a-slope", "--out", tmp_path).exception, UnicodeEncodeError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["validation.html", "validation.json"]


def test_a_disk_that_fills_up_costs_the_files_and_not_the_findings(tmp_path, monkeypatch):
    (tmp_path / "validation.json").write_text("older")

    def full(path, ledger):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(validation.__main__._FILES, "validation.html", full)
    result = run_command("--only", "agreement-is-a-slope", "--out", tmp_path)
    assert result.exit_code == 2
    assert "1 claims in" in words(result)
    assert "The report could not be written in" in words(result)
    assert [path.name for path in tmp_path.iterdir()] == ["validation.json"]
    assert (tmp_path / "validation.json").read_text() == "older"


@pytest.mark.parametrize("arguments", [["--only", "agreement-is-a-slope"], ["--data", "none.csv"]])
def test_a_folder_that_cannot_take_files_is_found_before_work(tmp_path, monkeypatch, arguments):
    monkeypatch.setattr(validation.__main__, "run_ledger", lambda *_, **__: pytest.fail("work began"))
    (tmp_path / "validation.html").mkdir()
    result = run_command(*arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert "validation.html is a folder, but a file is written there. Choose another --out." in words(result)


@pytest.mark.skipif(not os.path.isdir("/proc/1"), reason="only Linux has a folder that even root cannot write to")
@pytest.mark.parametrize("module", ["paper_figs", "validation.false_alarms"])
def test_a_folder_that_not_even_root_can_write_to_is_refused(module):
    out = "/proc/1" if module != "validation.false_alarms" else "/proc/1/trials.jsonl"
    done = command("-m", module, "--out", out)
    assert done.returncode == 2
    assert b"the folder /proc/1 cannot be written to" in done.stdout
    assert b"Traceback" not in done.stderr


def test_signs_are_spelled_out():
    assert in_ascii("✗ Pearson ≤ 0.5 ± 0.1 — naïve 猫") == "x Pearson <= 0.5 +- 0.1 - naive ?"


def test_only_what_an_encoding_lacks_is_spelled_out(monkeypatch):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="cp1252"))
    degrade_output()
    sys.stdout.write("café ± ✓")
    sys.stdout.flush()
    assert file.getvalue().decode("cp1252") == "café ± +"


def test_a_trial_leaves_nothing_behind(tmp_path):
    make_writable(tmp_path / "new", "file")
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]
    assert not list((tmp_path / "new").iterdir())
