"""Do the unit tests notice the subtle faults of the ledger? ``make subtle-faults`` plants each and runs its tests.

One process imports the libraries once and forks for every fault of `tests/validation/test_subtle_faults.py`. The child
plants it before any test is imported, and runs the test files that name the spoiled function, those that name it most
first, then the others of its wing, up to the first failure. The ledger's own tests of detection take no part.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "validation")]
LEDGER = {"test_detection.py", "test_subtle_faults.py", "test_full_report.py", "test_command.py", "test_runner.py"}


def files_for(target: str) -> list[str]:
    """Return the test files to run on a fault, the likeliest first."""
    module, _, path = target.partition(":")
    package, wing = module.split(".")[0], "/".join(module.split(".")[:2])
    outer, _, name = path.rpartition(".")
    words = re.compile(rf"\b({'|'.join(filter(None, (outer, name)))})\b")
    found = {}
    for file in sorted((ROOT / "tests" / package).rglob("test_*.py")):
        if file.name in LEDGER:
            continue
        mentions = len(words.findall(file.read_text()))
        # a private function is known to the file of its module only
        mentions += 5 * (file.stem.removeprefix("test_") == module.rsplit(".", 1)[-1])
        near = str(file.relative_to(ROOT / "tests")).startswith(wing)
        if mentions or near:
            found[str(file)] = (-mentions, not near)
    return sorted(found, key=lambda file: found[file])


def judge(fault: object | None, tests: list[str], limit: float) -> tuple[str, float]:
    """Plant a fault in a child, run these tests, and return the verdict and the seconds."""
    begin = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_the_child(fault, tests, writing)
    os.close(writing)
    done = 0
    while not done and time.monotonic() < begin + limit:
        time.sleep(0.05)
        done, _ = os.waitpid(child, os.WNOHANG)
    if not done:
        os.kill(child, 9)
        os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    return answer or ("timed out" if not done else "the process died"), time.monotonic() - begin


def _be_the_child(fault: object | None, tests: list[str], answer: int) -> None:
    try:
        import pytest
        from planting import planted

        if fault is not None:
            planted(pytest.MonkeyPatch(), fault)
        log = os.open(os.devnull, os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        failed: list[str] = []

        class Listener:
            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                if report.failed:
                    failed.append(report.nodeid)

            def pytest_sessionstart(self) -> None:
                from hypothesis import Phase, settings

                profile = settings(
                    settings.get_profile("stagewise"), phases=(Phase.explicit, Phase.generate), database=None
                )
                settings.register_profile("subtle", profile)
                settings.load_profile("subtle")

        options = ["-q", "-x", "-n0", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        options += ["--benchmark-disable", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = pytest.main([*options, *tests], plugins=[Listener()])
        other = {0: "survived", 5: "no test"}.get(int(code), f"exit status {int(code)}")
        text = failed[0] if failed else other
        os.write(answer, text.encode())
    finally:
        os._exit(0)


def main() -> None:
    """Judge the faults, and print and store the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of the names to choose from")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one fault")
    parser.add_argument("--out", type=Path, default=Path("out/subtle_faults.jsonl"), help="one verdict a line")
    options = parser.parse_args()
    out = options.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    os.environ["MPLBACKEND"] = "Agg"
    for library in [
        "numpy",
        "scipy.stats",
        "sympy",
        "torch",
        "xarray",
        "hypothesis",
        "pytest",
        "jaxtyping",
        "beartype",
        "matplotlib.pyplot",
    ]:
        importlib.import_module(library)
    faults = [f for f in importlib.import_module("test_subtle_faults").FAULTS if options.only in f.name]
    found = {}
    if out.exists():  # a run that was stopped goes on
        found = {row["fault"]: row["verdict"] for row in map(json.loads, out.read_text().splitlines())}
    with out.open("a") as lines:
        for k, fault in enumerate(faults, start=1):
            if fault.name not in found:
                found[fault.name], seconds = judge(fault, files_for(fault.target), options.limit)
                row = {"fault": fault.name, "verdict": found[fault.name], "seconds": round(seconds, 1)}
                lines.write(json.dumps(row) + "\n")
                lines.flush()
            if "::" not in found[fault.name]:
                sys.stdout.write(f"{k}/{len(faults)} {found[fault.name]}: {fault.name}\n")
                sys.stdout.flush()
    killers = {found[fault.name] for fault in faults if "::" in found[fault.name]}
    without, _ = judge(None, sorted(killers), options.limit)
    sys.stdout.write(f"the same tests without any fault: {without.replace('survived', 'all pass')}\n")
    caught = sum("::" in found[fault.name] for fault in faults)
    sys.stdout.write(f"{caught} of {len(faults)} subtle faults noticed by the unit tests\n")


if __name__ == "__main__":
    main()
