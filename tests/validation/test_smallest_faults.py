"""Smallest faults: what stands on record belongs to claims, has a size, and reads well."""

import json
from importlib.resources import files

import pytest

from validation import all_claims
from validation.smallest_faults import SmallestFault, smallest_fault


def test_every_record_belongs_to_a_claim_and_has_a_size():
    known = {claim.identifier for claim in all_claims()}
    record = json.loads(files("validation").joinpath("smallest_faults.json").read_text())
    assert set(record) <= known
    for name in record:
        fault = smallest_fault(name)
        assert fault.kind in ("scale", "shift", "error")
        assert fault.down is not None or fault.up is not None, name
        assert fault.down is None or fault.down < 0 < (fault.up or 1), name


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (SmallestFault("a", "scale", -0.5, None), "a scaled by -50 %"),
        (SmallestFault("a", "shift", -300.0, 100.0), "a moved by -300 or +100 epochs"),
        (SmallestFault("a", "error", -0.25, 0.5), "standard error of a times 0.75 or 1.5"),
    ],
)
def test_a_fault_reads_well(fault, text):
    assert str(fault) == text


def test_a_claim_without_a_record_has_none():
    assert smallest_fault("no-such-claim") is None
