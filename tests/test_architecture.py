"""Imports run downwards only: paper_figs -> validation -> numerics -> theory."""

import ast
from pathlib import Path

import pytest
from architecture import document

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "theory": {"theory"},
    "numerics": {"numerics", "theory"},
    "validation": {"validation", "numerics", "theory"},
    "paper_figs": {"paper_figs", "validation", "numerics", "theory"},
}
# What simulation may take from theory: the data, the containers and the argument checks, never an answer.
DATA_ONLY = {"theory.hierarchy", "theory.trajectories", "theory.checks"}


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} uses a relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            is_package = (ROOT / node.module.replace(".", "/")).is_dir()
            found |= submodules if is_package else {node.module}
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_downwards(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        modules = imported_modules(path)
        own = {m for m in modules if m.split(".")[0] in ALLOWED}
        assert {m.split(".")[0] for m in own} <= ALLOWED[package], f"{path} imports upwards: {own}"
        if package == "theory":
            assert not {m for m in modules if m.split(".")[0] == "torch"}, f"{path} imports torch"
        if package == "numerics":
            taken = {m for m in own if m.startswith("theory")}
            assert taken <= DATA_ONLY, f"{path} takes {taken - DATA_ONLY} from theory"


@pytest.mark.parametrize("package", ALLOWED)
def test_public_names_are_exported_and_documented(package):
    module = __import__(package)
    for name in getattr(module, "__all__", []):
        assert getattr(module, name).__doc__, f"{package}.{name} has no docstring"


def test_the_list_of_files_is_up_to_date():
    assert (ROOT / "ARCHITECTURE.md").read_text() == document(), "run `make architecture`"
