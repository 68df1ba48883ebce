"""Smallest faults: what stands on record belongs to claims, has a size, and reads well."""

import json
from importlib.resources import files

import numpy as np
import pytest
import torch
import xarray as xr
from measure_faults import PROBES, Probe, Spoiler, spoiled

from numerics import Checkpoints
from validation import Cost, ToyExperiment, all_claims, select_claims
from validation.smallest_faults import SmallestFault, smallest_fault


def test_every_record_belongs_to_a_claim_and_has_a_size():
    known = {claim.identifier for claim in all_claims()}
    record = json.loads(files("validation").joinpath("smallest_faults.json").read_text())
    assert set(record) <= known
    for name in record:
        fault = smallest_fault(name)
        assert (fault.what, fault.kind) == (PROBES[name].what, PROBES[name].kind)
        assert fault.down is not None or fault.up is not None, name
        assert fault.down is None or fault.down < 0 < (fault.up or 1), name


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (SmallestFault("a", "scale", -0.5, None), "a scaled by -50 %"),
        (SmallestFault("a", "offset", -0.5, 0.12), "a off by -50 % or +12 % of its largest entry"),
        (SmallestFault("a", "shift", -300.0, 100.0), "a moved by -300 or +100 epochs"),
        (SmallestFault("a", "error", -0.25, 0.5), "standard error of a times 0.75 or 1.5"),
    ],
)
def test_a_fault_reads_well(fault, text):
    assert str(fault) == text


FLOOR = 2e-13  # of what is tried: a claim with exact numbers sees any fault
CHEAP = ("singular-structure", "printed-rotations", "algorithm-1-step-by-step")


@pytest.fixture(scope="module")
def base():
    return ToyExperiment()


def probed(name):
    return pytest.param(name, marks=() if name in CHEAP else pytest.mark.slow)


@pytest.mark.parametrize(
    "name", [probed(c.identifier) for c in all_claims() if c.cost is Cost.QUICK and smallest_fault(c.identifier)]
)
def test_a_fault_of_the_recorded_size_turns_its_claim(name, base):
    """The record is the upper end of a bisection to a factor 10^0.12 = 1.32; as much again is for rounding."""
    (claim,) = (c for c in select_claims([name]) if c.identifier == name)
    spoiler, fault = Spoiler(claim, PROBES[name], base), smallest_fault(name)
    for size in (fault.down, fault.up):
        if size is not None:
            assert spoiler.turns(1.3 * size if abs(size) < 0.7 or fault.kind == "shift" else size)
            if abs(size) > FLOOR:
                assert not spoiler.turns(size / 1.6)


def test_faults_do_what_their_kind_says():
    line = xr.DataArray(np.arange(0.0, 600.0, 100.0), dims="epoch", coords={"epoch": np.arange(0.0, 600.0, 100.0)})
    np.testing.assert_allclose(spoiled(line, "shift", 50.0), [0, 50, 150, 250, 350, 450], atol=1e-10)
    np.testing.assert_allclose(spoiled(line, "scale", 0.1), 1.1 * line)
    np.testing.assert_allclose(spoiled(line, "offset", -0.1), line - 50)
    both = xr.Dataset({"influence": line, "standard_error": line})
    assert float(spoiled(both, "error", 1.0)["standard_error"][1]) == 200.0
    assert spoiled((1.0, 2.0), "scale", 0.5, 1) == (1.0, 3.0)
    run = Checkpoints(np.array([0.0, 1.0]), torch.ones(2, 3, 4), torch.ones(2, 2, 3))
    np.testing.assert_allclose(spoiled(run, "scale", 0.21).maps, 1.21 * run.maps)
    np.testing.assert_allclose(spoiled(run, "scale", 0.21, "w1").maps, 1.1 * run.maps)


def test_a_claim_whose_measurement_is_not_used_is_refused(base):
    (claim,) = select_claims(["deep-chains"])
    with pytest.raises(AssertionError, match="does not call"):
        Spoiler(claim, Probe("", "scale", "tracin()"), base)


def test_a_claim_without_a_record_has_none():
    assert smallest_fault("no-such-claim") is None
