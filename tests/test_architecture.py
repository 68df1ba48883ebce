"""Imports run downwards only: paper_figs -> validation -> numerics -> theory, and from floor to floor within them."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from architecture import PAGE, named_files, rooms

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "theory": {"theory"},
    "numerics": {"numerics", "theory"},
    "validation": {"validation", "numerics", "theory"},
    "paper_figs": {"paper_figs", "validation", "numerics", "theory"},
}
# What simulation may take from theory: the data, the containers and the argument checks, never an answer.
DATA_ONLY = {"theory.hierarchy", "theory.trajectories", "theory.checks"}

# The floors of a package from the ground up: a wing, or a file outside one, imports from its own floor's wing and from
# floors below. Wings on one floor know nothing of each other.
FLOORS = {
    "theory": [
        {"arithmetic", "checks"},
        {"hierarchy", "trajectories"},
        {"dynamics", "posteriors", "symbolic"},
        {"influence"},
    ],
    "numerics": [
        {"devices", "errors", "threads"},
        {"executors", "stores"},
        {"models"},
        {"curvature", "embedding"},
        {"training"},
        {"sampling"},
        {"learning_coefficients"},
        {"fleets", "language", "outlook"},
    ],
    "validation": [
        {"local_law", "paper", "tables", "terminal", "trajectory_marks", "vector_images"},
        {"agreement", "archives", "charts", "paper_sentences", "smallest_faults"},
        {"data_files", "experiments"},
        {"bounds", "expectations", "registry", "strongest"},
        {"claims", "own_claims", "pairs", "sentence_verdicts"},
        {"own_measures", "second_process"},
        {"runner"},
        {"cross_check", "report"},
        {"false_alarms", "page"},
    ],
}
# Wings whose __init__ is more than a sentence: what the package takes from them stands there.
EXPORTING = {"claims", "page", "symbolic"}

# What figures may take from below validation, and why: nothing that trains, samples, estimates or solves.
TAKEN_BY_FIGURES = {
    "numerics.devices.usable_device": "whether there is such a device; it computes nothing",
    "numerics.threads.one_thread": "how many threads there are; it computes nothing",
    "numerics.stores.write_whole": "how a file is written whole or not at all; it computes nothing",
    "numerics.TrainingConfig": "settings of descent, which the settings of all figures contain; it trains nothing",
    "theory.tree_distance": "how far apart two leaves stand, by which lines are averaged and numbered",
    "theory.trajectories.labelled_array": "the container of whatever is shown and saved",
}


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


@pytest.mark.parametrize("package", FLOORS)
def test_wings_stand_on_the_floors_below(package):
    floor_of = {part: height for height, floor in enumerate(FLOORS[package]) for part in floor}
    for path in sorted((ROOT / package).rglob("*.py")):
        part = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        assert part in floor_of, f"{path} stands on no floor; give it one in FLOORS"
        for module in imported_modules(path):
            owner, *rest = module.split(".")
            if owner != package or not rest or rest[0] == part:
                continue
            assert floor_of[rest[0]] < floor_of[part], f"{path} of {part} imports {module}, which is not below it"


def taken_names(path: Path) -> set[str]:
    """Return every name imported from our packages, with the module that it is taken from; whole modules as such."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ALLOWED}


def test_figures_draw_what_validation_measured():
    seen = set()
    for path in sorted((ROOT / "paper_figs").rglob("*.py")):
        for name in taken_names(path):
            module, _, last = name.rpartition(".")
            package = name.split(".")[0]
            if package in ("theory", "numerics"):
                assert name in TAKEN_BY_FIGURES, f"{path} takes {name}; let validation.experiments ask for it"
                seen.add(name)
            elif package == "validation":
                assert module, f"{path} imports all of validation; name what it takes"
                # what a module of ours only imports is not taken through it
                owner = import_module(module)
                assert last in owner.__all__, f"{path} takes {last}, which {module} does not export"
                origin = getattr(getattr(owner, last), "__module__", "validation")
                assert origin.split(".")[0] == "validation", f"{path} takes {origin}.{last} by way of {module}"
    assert seen == set(TAKEN_BY_FIGURES), "the list has what no figure takes"


def test_figures_import_no_engine():
    """Whoever draws does not compute."""
    for path in sorted((ROOT / "paper_figs").rglob("*.py")):
        modules = {m.split(".")[0] for m in imported_modules(path)}
        assert not modules & {"scipy", "sympy", "torch"}, f"{path} solves"


def test_every_floor_is_taken():
    for package, floors in FLOORS.items():
        for part in set().union(*floors):
            assert (ROOT / package / part).is_dir() or (ROOT / package / f"{part}.py").is_file(), f"{package}.{part}"


@pytest.mark.parametrize("package", FLOORS)
def test_a_wing_says_what_it_is_and_exports_nothing(package):
    wings = [
        path for path in (ROOT / package).iterdir() if (path / "__init__.py").is_file() and path.name not in EXPORTING
    ]
    assert wings
    for wing in wings:
        body = ast.parse((wing / "__init__.py").read_text()).body
        assert len(body) == 1, f"{wing} does more than say what it is"
        assert ast.get_docstring(ast.parse((wing / "__init__.py").read_text())), f"{wing} does not say what it is"


@pytest.mark.parametrize("package", ALLOWED)
def test_public_names_are_exported_and_documented(package):
    module = __import__(package)
    for name in getattr(module, "__all__", []):
        assert getattr(module, name).__doc__, f"{package}.{name} has no docstring"


def test_the_list_of_rooms_is_up_to_date():
    assert PAGE.read_text().endswith(rooms()), "run `make architecture`"


def test_the_journey_names_files_that_there_are():
    names = named_files()
    assert len(names) > 10
    for name in names:
        assert (ROOT / name).is_file(), f"ARCHITECTURE.md names {name}"


@pytest.mark.parametrize("package", ["theory", "numerics", "stagewise"])
def test_importing_a_package_imports_no_library_that_takes_time(package):
    code = f"import {package}, sys; print([m for m in ('torch', 'scipy', 'xarray', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_theory_never_imports_torch():
    code = "import theory, sys; [getattr(theory, name) for name in theory.__all__]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"
