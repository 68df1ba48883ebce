"""Nothing that was found is lost by how it is written: folders, full disks, narrow terminals, readers that leave."""

import io
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from validation.outputs import make_writable, print_anywhere, write_whole
from validation.report import MARKS

ROOT = Path(__file__).parents[2]


def narrow(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_anywhere(stream)
    return stream


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp437", "utf-8"])
def test_every_mark_is_printed_in_any_encoding(encoding):
    stream = narrow(encoding)
    stream.write("".join(MARKS.values()) + " ≤ ≥ ± café Œuvre 中")
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)
    if encoding == "utf-8":
        assert "✓≠≷≈?✗·" in text
    if encoding == "ascii":
        assert text == "+/=<>~?x. <= >= +- cafe ?uvre ?"
    assert len(text) >= 15


def test_a_stream_with_a_handler_of_its_own_keeps_it():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    print_anywhere(stream)
    assert stream.errors == "backslashreplace"


def test_a_folder_is_made_and_tried(tmp_path, monkeypatch):
    make_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be made: Not a directory\. Choose another --out"):
        make_writable(tmp_path / "file" / "below")

    def read_only(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(ValueError, match=r"cannot be written to: Read-only file system\. Choose another"):
        make_writable(tmp_path)


@contextmanager
def room_for(size):
    """Let files grow to a size and no further, as on a disk that is full."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_leaves_the_file_of_before_and_no_half_one(tmp_path):
    write_whole(tmp_path / "report", "before")
    with room_for(1000), pytest.raises(OSError, match="File too large"):
        write_whole(tmp_path / "report", "x" * 5000)
    assert (tmp_path / "report").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def run(*arguments, encoding="utf-8", **options):
    command = [sys.executable, "-m", "validation", "--only", "singular-structure", *map(str, arguments)]
    env = os.environ | {"PYTHONIOENCODING": encoding}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=300, **options)


@pytest.mark.slow  # a process of its own, 10 s
def test_a_log_in_a_narrow_encoding_loses_nothing(tmp_path):
    result = run("--out", tmp_path, encoding="cp1252")
    assert result.returncode == 0, result.stderr
    text = result.stdout.decode("cp1252")
    assert "+ holds" in text
    assert "<=" in text
    assert {path.name for path in tmp_path.iterdir()} == {"validation.json", "validation.html"}


@pytest.mark.slow  # a process of its own, 10 s
def test_files_are_there_before_anything_is_printed(tmp_path):
    """A reader that has left costs no file."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "validation", "--only", "singular-structure", "--out", str(tmp_path)]
    with os.fdopen(write, "wb") as gone:
        process = subprocess.run(command, cwd=ROOT, stdout=gone, stderr=subprocess.PIPE, timeout=300, check=False)
    assert {path.name for path in tmp_path.iterdir()} == {"validation.json", "validation.html"}
    assert b"Traceback" not in process.stderr, process.stderr


def test_a_file_that_cannot_be_written_costs_neither_the_other_nor_the_table(tmp_path, monkeypatch, capsys):
    import validation.__main__ as command

    def full(path, _):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_html", full)
    with pytest.raises(command.typer.Exit) as ended:
        command.main(only=["singular-structure"], out=tmp_path)
    printed = capsys.readouterr()
    assert ended.value.exit_code == 2
    assert "singular-structure" in printed.out
    assert "validation.html could not be written: No space left on device." in printed.err
    assert (tmp_path / "validation.json").exists()
