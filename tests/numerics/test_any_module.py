"""Every public measure of every kind of module is equal to a slow independent reference, or refused in a sentence."""

import inspect
import re

import numpy as np
import pytest
import torch
from any_module import MEASURES, MODULES, NATIVE, make, missing
from any_module_runs import OF_TOKENS, RUNS

import numerics

# Functions of a data set that are no measure of modules, or whose reference is brute force or chance: each says where
# it is tested.
ELSEWHERE = {
    "branching_epochs": "reads representations that hidden_representations made",
    "gradient_flow": "of linear networks alone",
    "hidden_representations": "a forward pass: tests/numerics/test_embedding.py",
    "initial_weights": "of linear networks alone",
    "representation_embedding": "reads representations that hidden_representations made",
    "sweep": "runs of sample: tests/numerics/fleets/test_sweep.py",
}
DTYPES = {"float64": torch.float64, "float32": torch.float32}
ALL = MEASURES | RUNS
# On every run of the tests, within a minute of one core: float64, but for the slowest row, and training and sampling of
# a few rows in float32 (curvature is in float64 whatever the weights are). The rest of the table is marked slow.
SLOWEST = "GPT-NeoX"
QUICK_IN_FLOAT32 = {"MLP", "hidden second derivative", "stop-gradient"}


def cells():
    for name, cell in MODULES.items():
        for measure in ALL:
            if measure in OF_TOKENS and not cell.tokens:
                continue
            for dtype in DTYPES:
                single = name in QUICK_IN_FLOAT32 and measure in RUNS
                quick = name != SLOWEST if dtype == "float64" else single
                yield pytest.param(name, measure, dtype, marks=() if quick else pytest.mark.slow)


def expected_refusal(cell, measure, dtype):
    """Return the sentence that stands in the place of numbers."""
    if NATIVE in cell.refused and dtype == "float64" and measure in {*RUNS, "gaussian_learning_coefficient"}:
        return cell.refused[NATIVE]
    return cell.refused.get(measure, cell.refused.get(""))


@pytest.mark.filterwarnings("ignore::numerics.UntrustedResultWarning")  # of six draws
@pytest.mark.parametrize(("name", "measure", "dtype"), list(cells()))
def test_right_or_refused(name, measure, dtype):
    if missing(name):
        pytest.skip(f"{missing(name)} is not installed")
    case, entry = make(name, DTYPES[dtype]), ALL[measure]
    refused = expected_refusal(case.cell, measure, dtype)
    if refused is not None:
        with pytest.raises((ValueError, ArithmeticError), match=refused):
            entry.compute(case)
        return
    expected, bound = entry.reference(case)
    found = entry.compute(case)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    # The comparison says something; in float32 the worst case of rounding is a larger part of small effects.
    fine = dtype == "float64" and not case.cell.coarse
    assert np.nanmax(np.abs(expected)) > (1e3 if fine else 10) * bound.max()
    off = np.abs(found - expected)
    assert not np.any(off > bound), f"off by {np.nanmax(off / np.where(bound > 0, bound, np.inf)):.3g} bounds"


def measures():
    """Return what numerics exports that measures samples at checkpoints, by its arguments."""
    for name in numerics.__all__:
        value = getattr(numerics, name)
        if inspect.isfunction(value) and next(iter(inspect.signature(value).parameters), "") in ("dataset", "corpus"):
            yield name


def test_every_public_measure_has_its_row():
    absent = set(measures()) - set(ALL) - set(ELSEWHERE)
    assert not absent, f"give {sorted(absent)} an entry in MEASURES of tests/any_module.py or RUNS beside it"
    assert not set(ALL) & set(ELSEWHERE)
    assert set(ALL) | set(ELSEWHERE) <= set(numerics.__all__)


def test_refusals_are_sentences_of_measures():
    for name, cell in MODULES.items():
        assert set(cell.refused) <= {"", NATIVE, *ALL}, name
        assert all(re.compile(sentence) for sentence in cell.refused.values())
