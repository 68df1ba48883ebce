"""The command: light to ask for help, deaf to what lies in the user's folder, and quiet when interrupted."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import stagewise
from stagewise import command
from stagewise.origin import PACKAGES


def call(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "stagewise", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_command_and_imports_no_engine(tmp_path):
    code = (
        "import sys; from typer.testing import CliRunner; from stagewise.command import app;"
        "print(CliRunner().invoke(app, ['--help']).output);"
        "print([name for name in ('torch', 'numpy', 'xarray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("check", "data", "figures", "list", "--version", "Examples"))
    assert done.stdout.rstrip().endswith("[]")


def test_the_version_is_that_of_the_package():
    result = CliRunner().invoke(command.app, ["--version"])
    assert result.output == f"stagewise {stagewise.__version__}\n"
    assert result.exit_code == 0


def test_what_there_is_is_listed():
    lines = CliRunner().invoke(command.app, ["list"]).output.splitlines()
    assert sum(line.startswith("claim ") for line in lines) > 80
    assert sum(line.startswith("figure ") for line in lines) >= 18
    assert any("stages-loo" in line for line in lines)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_module_in_the_users_folder_is_not_looked_at(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('foreign code was run')")
    done = call("--version", cwd=tmp_path)
    assert done.returncode == 0
    assert "foreign" not in done.stdout + done.stderr


def test_a_foreign_module_that_comes_first_is_refused_unread(tmp_path):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "numerics.py").write_text("raise SystemExit('foreign code was run')")
    done = call("list", cwd=tmp_path, PYTHONPATH=str(tmp_path / "path"))
    if done.returncode == 0:  # an editable installation may stand before PYTHONPATH
        pytest.skip("stagewise comes before PYTHONPATH here, so that nothing can stand in its way")
    assert done.returncode == 2
    assert "the name 'numerics' stands for" in done.stderr
    assert "foreign code" not in done.stderr


def test_an_interruption_ends_in_a_word(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "app", interrupted)
    with pytest.raises(SystemExit) as stopped:
        command.run()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_data_that_cannot_be_read_end_in_a_sentence(tmp_path):
    result = CliRunner().invoke(command.app, ["data", str(tmp_path / "none.csv"), "--whiten", str(tmp_path / "w.npz")])
    assert result.exit_code == 2
    assert "none.csv" in result.output


def test_packages_are_found_by_their_names():
    assert stagewise.theory.hierarchical_dataset().names[0] == "dog"
    assert set(dir(stagewise)) >= {*PACKAGES, "__version__"}
    with pytest.raises(AttributeError, match="stagewise has no 'numeric'"):
        stagewise.numeric  # noqa: B018
