"""The command draws what is asked for, resumes after interruption, and refuses bad input in a sentence."""

import errno
import os

import typer
from typer.testing import CliRunner

import paper_figs.__main__
from paper_figs import registry


def run_command(*arguments):
    app = typer.Typer()
    app.command()(paper_figs.__main__.main)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_the_command_draws_what_is_asked_for(tmp_path):
    out = tmp_path / "new" / "figures"
    result = run_command("02", "--quick", "--out", out)
    assert result.exit_code == 0, result.output
    assert visible(out) == ["figure_02.nc", "figure_02.pdf", "figure_02.png", "figure_02.txt"]
    assert result.output.count("Written to") == 4


def test_an_unknown_figure_is_refused_before_anything_is_computed(tmp_path):
    result = run_command("99", "--out", tmp_path / "figures")
    assert result.exit_code == 2
    assert "There is no figure '99' here; available are" in result.output
    assert not (tmp_path / "figures").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run_command("2", "--out", tmp_path / "file" / "figures")
    assert result.exit_code == 2
    assert "cannot be made" in result.output
    assert "--out" in result.output


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = run_command("2", "--out", tmp_path)
    assert result.exit_code == 2
    assert "cannot be written to: No space left on device." in result.output
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_keeps_what_was_finished(tmp_path, monkeypatch):
    whole = registry.save_figure

    def full(figure, results, folder):
        if figure.identifier == "3":
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "figure_03.png"))
        return whole(figure, results, folder)

    monkeypatch.setattr(paper_figs.__main__, "save_figure", full)
    result = run_command("2", "3", "--quick", "--out", tmp_path)
    assert result.exit_code == 2
    assert "After 1 of 2 figures a file could not be written: No space left on device" in result.output
    assert visible(tmp_path) == ["figure_02.nc", "figure_02.pdf", "figure_02.png", "figure_02.txt"]


def test_an_interrupted_run_says_so_and_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = registry.save_figure

    def interrupted(figure, results, folder):
        if figure.identifier == "3":
            raise KeyboardInterrupt
        return whole(figure, results, folder)

    monkeypatch.setattr(paper_figs.__main__, "save_figure", interrupted)
    first = run_command("2", "3", "--quick", "--out", tmp_path)
    assert first.exit_code == 130
    assert "Interrupted after 1 of 2 figures" in first.output
    assert visible(tmp_path) == ["figure_02.nc", "figure_02.pdf", "figure_02.png", "figure_02.txt"]
    monkeypatch.setattr(paper_figs.__main__, "save_figure", whole)
    assert run_command("3", "--quick", "--out", tmp_path).exit_code == 0
    assert len(visible(tmp_path)) == 8


def test_a_damaged_result_is_noted_and_replaced(tmp_path):
    assert run_command("3", "--quick", "--out", tmp_path).exit_code == 0
    stored = sorted((tmp_path / ".results").glob("*/*.npz"))
    assert stored
    for path in stored:
        path.write_bytes(path.read_bytes()[:20])
    result = run_command("3", "--quick", "--out", tmp_path)
    assert result.exit_code == 0
    assert result.output.count("is damaged; computing it again.") == len(stored)


def test_a_negative_seed_is_refused(tmp_path):
    result = run_command("2", "--seed", "-1", "--out", tmp_path)
    assert result.exit_code == 2


def test_an_unknown_device_is_refused(tmp_path):
    result = run_command("2", "--device", "abacus", "--out", tmp_path)
    assert result.exit_code == 2
    assert "device 'abacus' cannot be used" in result.output


def test_help_lists_the_figures():
    result = run_command("--help")
    assert result.exit_code == 0
    assert "e6" in result.output
