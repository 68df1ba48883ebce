"""Every public measure of every kind of module is equal to a slow independent reference, or refused in a sentence."""

import inspect
import re

import numpy as np
import pytest
import torch
from any_module import MEASURES, MODULES, make

import numerics

# Functions of a data set that are no measure of modules, or whose reference is brute force or chance: each says where
# it is tested. A wing that has a slow reference of its own adds a Measure to tests/any_module.py instead.
ELSEWHERE = {
    "bayesian_influence": "moments of chains: tests/numerics/sampling/test_bayesian_influence.py",
    "branching_epochs": "reads representations that hidden_representations made",
    "estimate_learning_coefficient": "moments of chains: tests/numerics/learning_coefficients/test_estimate.py",
    "gaussian_learning_coefficient": "the spectrum of hessian_matrix: tests/numerics/learning_coefficients",
    "gradient_flow": "of linear networks alone",
    "hidden_representations": "a forward pass: tests/numerics/test_embedding.py",
    "initial_weights": "of linear networks alone",
    "leave_group_out": "retraining is its own reference: tests/numerics/training/test_retraining.py",
    "leave_one_out": "retraining is its own reference: tests/numerics/training/test_retraining.py",
    "representation_embedding": "reads representations that hidden_representations made",
    "retrain": "retraining is its own reference: tests/numerics/training/test_retraining.py",
    "sample": "chains: tests/numerics/sampling/test_module_target.py",
    "sweep": "runs of sample: tests/numerics/fleets/test_sweep.py",
    "timed_ablation": "retraining is its own reference: tests/numerics/training/test_retraining.py",
    "train": "against torch.optim: tests/numerics/training/test_module_training.py",
    "unrolled_influence": "against finite differences of training: tests/numerics/training/test_unrolled_influence.py",
}
DTYPES = [torch.float64, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", MODULES)
def test_right_or_refused(name, measure, dtype):
    case, entry = make(name, dtype), MEASURES[measure]
    refused = case.cell.refused.get(measure, case.cell.refused.get(""))
    if refused is not None:
        with pytest.raises((ValueError, ArithmeticError), match=refused):
            entry.compute(case)
        return
    expected, bound = entry.reference(case)
    found = entry.compute(case)
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 1e3 * bound.max()  # the comparison says something
    off = np.abs(found - expected)
    assert np.all(off <= bound), f"off by {np.max(off / np.where(bound > 0, bound, np.inf)):.3g} bounds"


def measures():
    """Return what numerics exports that measures samples at checkpoints, by its arguments."""
    for name in numerics.__all__:
        value = getattr(numerics, name)
        if inspect.isfunction(value) and list(inspect.signature(value).parameters)[:1] == ["dataset"]:
            yield name


def test_every_public_measure_has_its_row():
    missing = set(measures()) - set(MEASURES) - set(ELSEWHERE)
    assert not missing, f"give {sorted(missing)} an entry in MEASURES of tests/any_module.py, or say where it is tested"
    assert not set(MEASURES) & set(ELSEWHERE)
    assert set(MEASURES) | set(ELSEWHERE) <= set(numerics.__all__)


def test_refusals_are_sentences_of_measures():
    for name, cell in MODULES.items():
        assert set(cell.refused) <= {"", *MEASURES}, name
        assert all(re.compile(sentence) for sentence in cell.refused.values())
