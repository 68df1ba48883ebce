"""Public functions of numerics and validation answer bad arguments themselves, in sentences that name them."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numerics
import validation

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "numerics_argument_table.py"
NAMES = (
    "import json, numerics_argument_table as t; print(json.dumps([[*t.NUMERICS, *t.VALIDATION], sorted(t.UNTRIED)]))"
)


def run(*arguments):
    """Run in a process without the type checker of these tests, which would answer in place of the functions."""
    path = os.pathsep.join((str(ROOT), str(SCRIPT.parent)))
    environment = os.environ | {"JAXTYPING_DISABLE": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_public_function_is_tried_or_listed_as_untried():
    tried, untried = map(set, run("-c", NAMES))
    functions = {
        name
        for package in (numerics, validation)
        for name in package.__all__
        if inspect.isfunction(getattr(package, name))
    }
    assert functions <= tried | untried
    assert untried <= functions
    assert not tried & untried


def test_bad_arguments_are_answered_in_sentences_of_our_own():
    assert run(str(SCRIPT)) == {}
