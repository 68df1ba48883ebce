"""Every public function answers every kind of bad argument itself, in a sentence that names it, before any work."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from argument_table import RESULTS, TABLE, bad_values, complaint

import theory
from theory import checks

SCRIPT = Path(__file__).parents[1] / "argument_table.py"


def test_every_public_function_and_argument_has_an_entry():
    assert set(TABLE) | RESULTS == set(theory.__all__)
    assert not set(TABLE) & RESULTS
    for name, arguments in TABLE.items():
        assert list(arguments) == list(inspect.signature(getattr(theory, name)).parameters), name


def test_bad_arguments_are_answered_in_sentences_of_our_own():
    """In a process of its own, with warnings as errors and without the type checker that answers in these tests."""
    command = [sys.executable, "-W", "error", str(SCRIPT)]
    environment = os.environ | {"JAXTYPING_DISABLE": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {}


def test_the_table_tries_what_it_says():
    """NaN, infinity, a wrong shape, a wrong type, nothing and a masked entry, in every array."""
    for name, arguments in TABLE.items():
        for argument, (value, kind) in arguments.items():
            tried = {wrong for wrong, _ in bad_values(value, kind)}
            if kind in ("matrix", "array", "list"):
                assert {"nan", "inf", "wrong shape", "text", "empty", "masked"} <= tried, (name, argument)


def test_the_table_notices_what_is_accepted_or_answered_by_a_library(monkeypatch):
    def careless(levels):
        return np.zeros(3) + levels

    monkeypatch.setattr(theory, "tree_distance", careless)
    assert complaint("tree_distance", "levels", {"levels": np.nan}, "nan") == "accepted"
    assert "answered by" in complaint("tree_distance", "levels", {"levels": np.zeros(2)}, "wrong shape")


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_array([1.0, -999.0], [False, True]),
        [1.0, np.ma.masked_array([2.0, -999.0], [False, True])[1]],
        [np.ma.masked_array([2.0, -999.0], [False, True])],
        ([0.0], (np.ma.masked_array(-999.0, True),)),
    ],
)
def test_what_lies_under_a_mask_is_never_used(value):
    for check in (checks.array, checks.nonnegative, checks.times, checks.simplex, checks.increasing):
        with pytest.raises(ValueError, match="holds a masked entry"):
            check("losses", value)


def test_a_masked_array_without_masked_entries_is_an_array():
    assert np.array_equal(checks.array("losses", np.ma.masked_array([1.0, 2.0])), [1.0, 2.0])


@pytest.mark.parametrize("gap", [1e-3, 1e-9, 1e-15])
def test_different_numbers_look_different(gap):
    low, high = checks.told_apart(0.36787944117144233, 0.36787944117144233 + gap)
    assert low != high
    assert float(high) > float(low)
