"""Measures the smallest fault that turns each claim, by planting ever smaller ones: ``python tests/measure_faults.py``.

Every claim has a probe: one measurement that it compares, scaled or moved along training. The size is bisected on a
logarithmic scale; what is found is written to ``validation/smallest_faults.json``.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from planting import Fault, clear_kept_results, planted

import validation
from validation import ToyExperiment, run_claim, select_claims
from validation.expectations import smooth


@dataclass(frozen=True)
class Probe:
    """What is changed for a claim, in words, how ("scale", "shift", "error"), and where: an attribute or a function."""

    what: str
    kind: str
    target: str
    variables: tuple[str, ...] = ()


LOO, BIF = "numerics.training.retraining:leave_one_out", "Bayesian influence"
EXPERIMENT = {
    "retrained": "leave-one-out by retraining",
    "closed_leave_one_out": "closed-form leave-one-out",
    "briefly_ablated": "brief ablation by retraining",
    "kernel": "gradient kernel",
    "sample_weight": "sample-weight formula",
    "retrained_derivative": "retrained derivative",
    "solved_maps": "exact matrix solution",
    "slightly_ablated": "retraining at weight 0.9",
    "unrolled": "unrolled derivative",
    "closed_brief_ablation": "closed-form brief ablation",
}
MOVED = {
    "critical-windows": ("bayesian", "shift"), "stages-bif": ("bayesian", "shift"), "stages-loo": ("retrained",
    "shift"),
    "levels-in-order": ("solved_maps", "scale"), "dog-on-cat-peaks": ("retrained", "shift"),
    "brief-ablation-closed-form": ("briefly_ablated", "scale"), "brief-ablation-is-the-kernel": ("briefly_ablated",
    "scale"),
    "closed-form-loo": ("retrained", "scale"), "instantaneous-influence-from-modes": ("kernel", "scale"),
    "printed-same-early": ("kernel", "shift"), "other-sources": ("retrained", "shift"),
    "specific-to-the-pair": ("retrained", "shift"), "highest-at-the-transition": ("retrained", "shift"),
    "stages-analytic": ("retrained_derivative", "shift"), "class-decides-sign": ("retrained", "shift"),
    "peaks-mark-levels": ("retrained", "shift"), "bif-is-not-loo": ("bayesian", "shift"),
    "printed-moment": ("retrained_derivative", "shift"), "unrolled-is-the-derivative": ("unrolled", "scale"),
    "printed-downweighting": ("slightly_ablated", "scale"), "groups-are-not-sums": ("retrained", "scale"),
    "tracin-adds-up": ("retrained", "shift"), "matrix-solution": ("solved_maps", "scale"),
    "losses-in-modes": ("solved_maps", "scale"), "bif-is-the-kernel": ("bayesian", "scale"),
    "bif-is-damped-hessian": ("bayesian", "scale"), "branches-and-peaks": ("bayesian", "shift"),
    "classical-shows-stages": ("hessian", "scale"), "indefinite-hessian": ("solved_maps", "scale"),
    "damping-restores": ("solved_maps", "scale"), "learns-the-map": ("checkpoints", "scale"),
}  # fmt: skip
SCALED = {
    "singular-structure": "theory.hierarchy:tree_distance", "flow-is-descent": "theory.dynamics.saxe:time_constant",
    "mode-strengths": "theory.dynamics.saxe:mode_strength",
    "derivative-of-the-flow": "theory.influence.trajectory:_assemble",
    "weights-follow-the-data": "theory.influence.trajectory:_assemble",
    "near-degenerate": "theory.influence.svd_response:spectral_derivative",
    "printed-influence-on-the-map": "theory.influence.svd_response:spectral_derivative",
    "deep-chains": "theory.dynamics.deep_chains:deep_mode_strength",
    "free-energy-expansion": "theory.posteriors.phases:free_energy",
    "type-a-transition": "theory.posteriors.phases:transition_sample_size",
    "exposure-kernel-of-descent": "theory.influence.exposure:exposure_kernel",
    "when-matters": "theory.influence.exposure:exposure_kernel",
    "gauss-newton-is-hessian-late": "numerics.curvature.linear:_second_derivative",
    "transitions-change-generalisation": "theory.posteriors.phases:phase_weights",
    "one-answer-from-both-engines": "numerics.curvature.tracin:tracin",
    "layers-and-axes": "numerics.embedding:representation_embedding",
    "toy-coefficient": "numerics.curvature.linear:_second_derivative",
    "singular-at-the-minimum": "numerics.curvature.linear:_second_derivative",
}  # fmt: skip


def _changed(value, kind, size):
    if kind == "shift":
        return value.copy(data=smooth(value)(value["epoch"].values - size))
    return value * (1 + size) if not isinstance(value, tuple) else tuple(v * (1 + size) for v in value)


def turns(claim, base, kind, target, size):
    """Return whether a fault of this size turns the claim."""
    clear_kept_results()
    experiment = ToyExperiment()
    experiment.__dict__.update(base.__dict__)
    experiment._variants = {}
    patch = pytest.MonkeyPatch()
    try:
        if ":" in target:
            planted(patch, Fault("", target, lambda right: lambda *a, **k: _changed(right(*a, **k), kind, size), ""))
        else:
            value = getattr(base, target)
            if isinstance(value, xr.Dataset):
                names = [n for n in ("influence", "covariance") if n in value]
                experiment.__dict__[target] = value.assign({n: _changed(value[n], kind, size) for n in names})
            elif target == "checkpoints":
                experiment.__dict__[target] = type(value)(
                    value.epochs, value.w1 * (1 + size) ** 0.5, value.w2 * (1 + size) ** 0.5
                )
            else:
                experiment.__dict__[target] = _changed(value, kind, size)
        return run_claim(claim, experiment).verdict != claim.expected
    finally:
        patch.undo()


def smallest(claim, base, kind, target, sign):
    """Return the smallest size of the fault in one direction that turns the claim, to a third; None if none does."""
    low, high = (-13.0, 0.0) if kind != "shift" else (-1.0, 3.3)
    if not turns(claim, base, kind, target, sign * 10**high * (0.99 if sign < 0 and kind != "shift" else 1.0)):
        return None
    while high - low > 0.12:
        middle = (low + high) / 2
        if turns(claim, base, kind, target, sign * 10**middle):
            high = middle
        else:
            low = middle
    return sign * float(f"{10**high:.2g}")


def main(names):
    """Measure the claims with these names, all with a probe if none is given."""
    path = Path(validation.__file__).with_name("smallest_faults.json")
    kept = json.loads(path.read_text())
    base = ToyExperiment()
    probes = {
        c: (
            EXPERIMENT.get(t, {"bayesian": BIF, "hessian": "damped influence", "checkpoints": "trained map"}.get(t, t)),
            k,
            t,
        )
        for c, (t, k) in MOVED.items()
    }
    probes |= {c: (f"result of {t.split(':')[1].strip('_').replace('_', ' ')}", "scale", t) for c, t in SCALED.items()}
    for name, (what, kind, target) in probes.items():
        if names and name not in names:
            continue
        (claim,) = (c for c in select_claims([name]) if c.identifier == name)
        assert run_claim(claim, base).verdict == claim.expected, name  # and what it measures is kept
        down, up = (smallest(claim, base, kind, target, sign) for sign in (-1, 1))
        if down is not None or up is not None:
            kept[name] = {"what": what, "kind": kind, "down": down, "up": up}
        sys.stdout.write(f"{name}: {kept.get(name)}\n")
        sys.stdout.flush()
        path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


if __name__ == "__main__":
    np.seterr(all="ignore")
    main(sys.argv[1:])
