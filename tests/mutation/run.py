"""Does the test suite notice small faults? ``make mutation`` plants some in a copy of the tree and runs the tests.

One process imports the libraries once and forks for every mutant. The child runs, in the copy, the test files of which
some test executes the mutated statement: those tests first, quick ones before slow ones, up to the first failure. The
sample is drawn from all mutants of a package by a seed, without replacement, so that a run can be repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from mutation.mutants import Mutant, mutants_of  # noqa: E402

TREE = ("theory", "numerics", "validation", "paper_figs", "tests", "pyproject.toml")
LIBRARIES = (
    "numpy scipy.integrate scipy.linalg scipy.optimize scipy.special scipy.stats sympy mpmath torch xarray h5netcdf "
    "matplotlib.pyplot hypothesis pytest jaxtyping beartype pytest_benchmark.logger"
)
MEMORY = 6 * 2**30  # a fault may ask for any size
LOG = "pytest.log"  # of the latest run, in the copy
FAR = 1e6  # seconds by which tests that miss the mutated line are put behind those that execute it


class Recorder:
    """Plugin that times every test and notes which lines of a package it executes, line 0 standing for any."""

    def __init__(self, root: Path, package: str) -> None:
        self.root, self.package = root, f"{root / package}{os.sep}"
        self.caches: list[functools._lru_cache_wrapper] = []
        self.seconds: dict[str, float] = {}
        self.tests: dict[str, set[str]] = defaultdict(set)

    def pytest_collection_finish(self) -> None:
        own = (os.path.basename(self.package[:-1]), "tests")
        found = [o for o in gc.get_objects() if type(o) is functools._lru_cache_wrapper]
        self.caches = [cache for cache in found if str(cache.__module__).startswith(own)]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        for cache in self.caches:  # else what is computed once would be booked on the first test that asks
            cache.cache_clear()
        self.begin, self.now = time.perf_counter(), nodeid
        sys.settrace(self._enter)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        sys.settrace(None)
        self.seconds[nodeid] = time.perf_counter() - self.begin

    def _enter(self, frame: FrameType, event: str, _: object) -> Callable | None:
        name = frame.f_code.co_filename
        if not name.startswith(self.package):
            return None
        path = os.path.relpath(name, self.root)
        self.tests[f"{path}:0"].add(self.now)

        def line(frame: FrameType, event: str, _: object) -> Callable:
            self.tests[f"{path}:{frame.f_lineno}"].add(self.now)
            return line

        return line

    def answer(self) -> dict:
        tests = {line: sorted(names) for line, names in self.tests.items()}
        return {"seconds": self.seconds, "tests": tests}


class Judge:
    """Plugin that keeps the chosen tests in the chosen order, and spares hypothesis from shrinking what it found."""

    def __init__(self, order: dict[str, float]) -> None:
        self.order, self.killer = order, ""

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings

        profile = settings(settings.get_profile("stagewise"), phases=(Phase.explicit, Phase.generate), database=None)
        settings.register_profile("mutation", profile)
        settings.load_profile("mutation")

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda i: self.order[i.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.killer = self.killer or report.nodeid

    def answer(self) -> dict:
        return {"killer": self.killer}


def run_tests(targets: list[str], plugin: Recorder | Judge, limit: float) -> dict | None:
    """Run pytest in a forked child; return the plugin's answer and the exit code, or None after `limit` seconds."""
    with tempfile.NamedTemporaryFile() as answer:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            _be_the_child(targets, plugin, answer.name)
        end, done = time.monotonic() + limit, 0
        while not done and time.monotonic() < end:
            time.sleep(0.02)
            done, _ = os.waitpid(child, os.WNOHANG)
        if not done:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        text = Path(answer.name).read_text()
        return json.loads(text) if text else {"code": 3, "killer": "the process died"}


def _be_the_child(targets: list[str], plugin: Recorder | Judge, answer: str) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        import pytest

        options = ["-q", "-n0", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--benchmark-disable"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is imported already
        options += ["-x"] if isinstance(plugin, Judge) else []
        code = pytest.main([*options, *targets], plugins=[plugin])
        Path(answer).write_text(json.dumps(plugin.answer() | {"code": int(code)}))
    finally:
        os._exit(0)  # never back into the parent's loop


def stages_for(mutant: Mutant, record: dict) -> list[dict[str, float]]:
    """Return the tests to run on a mutant with the key by which to sort them: the file that knows it best, the rest."""
    seconds, tests = record["seconds"], record["tests"]
    first, last = mutant.lines
    near = [test for line in range(first, last + 1) for test in tests.get(f"{mutant.path}:{line}", ())]
    # a statement of module level runs at import, before any test: all tests of the module are near
    near = near or tests.get(f"{mutant.path}:0", [])
    files = [name for name, _ in Counter(test.split("::")[0] for test in near).most_common()]
    # what a fixture of the module computed is booked on the first test that used it: the rest of the file runs as well
    order = {test: cost + FAR * (test not in near) for test, cost in seconds.items()}
    groups = [[name for name in files if name == files[0]], [name for name in files if name != files[0]]]
    return [{test: key for test, key in order.items() if test.split("::")[0] in group} for group in groups if group]


def judge(mutant: Mutant, copy: Path, record: dict) -> str:
    """Plant a mutant, run its tests, and return "survived", "timed out" or the test that failed."""
    path = copy / mutant.path
    source = path.read_bytes()
    path.write_bytes(mutant.apply(source))
    try:
        for order in stages_for(mutant, record):
            limit = 60 + 1.5 * sum(key % FAR for key in order.values())  # measured while tracing, which is slower
            found = run_tests(sorted({test.split("::")[0] for test in order}), Judge(order), limit)
            if found is None:
                return "timed out"
            if found["code"] not in (0, 5):
                return found["killer"] or "the tests could not be collected"
    finally:
        path.write_bytes(source)
    return "survived"


def main() -> None:
    """Draw a sample, judge it, and print and store the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", default="theory", help="package to plant faults in")
    parser.add_argument("--sample", type=int, default=300, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--only", default=[""], nargs="+", help="parts of the paths to choose from: svd_response")
    parser.add_argument("--tests", nargs="+", help="tests to ask, for a quick sample; all of the package if not given")
    parser.add_argument("--out", type=Path, default=Path("out/mutation.jsonl"), help="one verdict a line")
    options = parser.parse_args()
    out = options.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    package = options.package
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py"))
    everything = [mutant for path in files for mutant in mutants_of(ROOT, path) if any(p in path for p in options.only)]
    sample = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))
    os.nice(10)
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        copy = Path(place).resolve()
        for name in TREE:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        sys.dont_write_bytecode = True
        os.environ["MPLBACKEND"] = "Agg"
        for library in LIBRARIES.split():
            importlib.import_module(library)
        begin = time.monotonic()
        record = run_tests(options.tests or [f"tests/{package}", package], Recorder(copy, package), 3600)
        if record is None or record["code"]:
            sys.exit(f"{Path(LOG).read_text()[-4000:]}\nthe tests fail without any fault")
        _say(f"{len(record['seconds'])} tests, {time.monotonic() - begin:.0f} s; {len(everything)} mutants")
        verdicts = []
        with out.open("w") as lines:
            for k, mutant in enumerate(sample, start=1):
                begin = time.monotonic()
                verdict = judge(mutant, copy, record)
                took = time.monotonic() - begin
                verdicts.append((mutant, verdict))
                lines.write(json.dumps({"mutant": str(mutant), "verdict": verdict, "seconds": round(took, 1)}) + "\n")
                lines.flush()
                if verdict in ("survived", "timed out"):
                    _say(f"{k}/{len(sample)} {verdict} ({took:.0f} s): {mutant}")
        os.chdir(ROOT)
    count = Counter("killed" if v not in ("survived", "timed out") else v for _, v in verdicts)
    share = 1 - count["survived"] / len(verdicts)
    _say(f"seed {options.seed}: {dict(count)}; {share:.1%} of {len(verdicts)} noticed")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
