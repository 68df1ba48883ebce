"""Measures the smallest fault that turns each claim: ``python tests/measure_faults.py [CLAIM ...]``.

Every claim has a probe: one measurement that it compares, and a way to spoil it. The claim is measured once, with what
the probe's function gave kept; then the kept numbers are spoiled by ever smaller amounts, and the size at which the
verdict turns is bisected on a logarithmic scale, to a third, in both directions. Nothing is simulated again. What is
found is written to ``validation/smallest_faults.json``.
"""

import json
import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from scipy.interpolate import CubicSpline

import validation
from numerics import Checkpoints
from validation import ToyExperiment, run_claim, select_claims
from validation.expectations import smooth

LOWEST, HIGHEST = {"scale": -13.0, "offset": -13.0, "shift": -1.0, "error": -3.0}, {
    "scale": 0.0, "offset": 0.0, "shift": 3.3, "error": 1.0}  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """What is spoiled for a claim.

    Parameters
    ----------
    what
        The measurement in words.
    kind
        "scale" (by a share of itself), "offset" (by a share of its largest entry), "shift" (epochs) or "error" (a
        factor on its standard error).
    target
        An attribute of the experiment; one of its variants, "variant.retrained"; or a function of the claim's module,
        "train()".
    part
        Field, variable, query or place in a tuple of what is spoiled; all of it if not given.
    call
        Which call of the function is spoiled; all of them if not given.
    """

    what: str
    kind: str
    target: str
    part: str | int | None = None
    call: int | None = None


LOO, LOCAL, BRIEF = "leave-one-out by retraining", "Bayesian influence", "brief ablation by retraining"
MAP, TRAINED, SOLVED = "map of the trained network", "weights of the trained network", "exact matrix solution"
KERNEL, DERIVATIVE, TENTH = "gradient kernel", "retrained derivative", "retraining at weight 0.9"
VECTORS, TEMPERED = "exact response of singular vectors", "covariance within the exact posterior"

PROBES = {
    "singular-structure": Probe("tree distance", "scale", "tree_distance()"),
    "losses-in-modes": Probe(SOLVED, "scale", "linear_network_solution()"),
    "mode-strengths": Probe("mode strengths of the trained network", "scale", "strengths", "simulation"),
    "printed-initial-strength": Probe("weights of the integrated flow", "scale", "gradient_flow()"),
    "matrix-solution": Probe(SOLVED, "scale", "solved_maps"),
    "flow-is-descent": Probe(TRAINED, "shift", "checkpoints"),
    "balance-is-conserved": Probe("first layer of the trained network", "scale", "checkpoints", "w1"),
    "modes-align": Probe(SOLVED, "scale", "variant.solved_maps"),
    "learns-the-map": Probe(TRAINED, "scale", "checkpoints"),
    "singular-values-respond": Probe("exact response of singular values", "scale", "svd_response()", "ds"),
    "printed-rotations": Probe(VECTORS, "scale", "svd_response()", "du"),
    "printed-span": Probe(VECTORS, "scale", "svd_response()", "du"),
    "printed-block-rotation": Probe(VECTORS, "scale", "svd_response()", "du"),
    "printed-influence-on-the-map": Probe("exact response of the map", "scale", "map_response()"),
    "near-degenerate": Probe("exact response of the map", "scale", "spectral_derivative()"),
    "derivative-of-the-flow": Probe("sample-weight formula", "scale", "influence_trajectory()"),
    "weights-follow-the-data": Probe("sample-weight formula", "scale", "influence_trajectory()"),
    "printed-moment": Probe(DERIVATIVE, "shift", "retrained_derivative"),
    "closed-form-loo": Probe(LOO, "shift", "retrained"),
    "closed-form-reweighting": Probe(TENTH, "shift", "slightly_ablated"),
    "masking-is-weight-zero": Probe("weights of the network without dog's row", "scale", "train()", "checkpoints", 2),
    "small-weights-are-linear": Probe(DERIVATIVE, "scale", "retrained_derivative"),
    "unrolled-is-the-derivative": Probe("unrolled derivative", "scale", "unrolled"),
    "printed-downweighting": Probe(TENTH, "scale", "slightly_ablated"),
    "groups-are-not-sums": Probe("closed form without the group", "scale", "leave_group_out_trajectory()"),
    "tracin-adds-up": Probe("TracIn", "scale", "tracin()"),
    "classical-at-convergence": Probe("retrained derivative at the end", "scale", "leave_one_out()"),
    "brief-ablation-is-the-kernel": Probe(BRIEF, "scale", "briefly_ablated"),
    "brief-ablation-closed-form": Probe(BRIEF, "scale", "briefly_ablated"),
    "critical-windows": Probe(LOCAL, "shift", "bayesian", "covariance"),
    "printed-critical-epochs": Probe(BRIEF, "shift", "briefly_ablated"),
    "dog-on-cat-peaks": Probe(LOO, "shift", "retrained"),
    "when-matters": Probe("effect of leaving dog out at a time", "scale", "_left_out_at()"),
    "exposure-kernel-of-descent": Probe("exposure kernel", "scale", "exposure_influence()", "closed_form"),
    "stages-loo": Probe(LOO, "shift", "retrained"),
    "stages-analytic": Probe(DERIVATIVE, "offset", "retrained_derivative"),
    "stages-bif": Probe(LOCAL, "shift", "bayesian", "covariance"),
    "instantaneous-influence-from-modes": Probe(KERNEL, "scale", "kernel"),
    "class-decides-sign": Probe(LOO, "shift", "retrained"),
    "printed-same-early": Probe(KERNEL, "shift", "kernel"),
    "specific-to-the-pair": Probe("leave-one-out, loss of cat,", "shift", "retrained", "cat"),
    "other-sources": Probe("leave-one-out, loss of cat,", "shift", "retrained", "cat"),
    "bif-is-not-loo": Probe(LOCAL, "shift", "bayesian", "influence"),
    "levels-in-order": Probe(TRAINED, "shift", "checkpoints"),
    "peaks-mark-levels": Probe(LOO, "shift", "retrained"),
    "highest-at-the-transition": Probe(LOO, "shift", "retrained"),
    "branches-and-peaks": Probe(LOCAL, "shift", "bayesian", "covariance"),
    "hidden-distances": Probe(TRAINED, "scale", "checkpoints"),
    "bif-is-the-kernel": Probe(LOCAL, "scale", "bayesian", "covariance"),
    "bif-is-damped-hessian": Probe(LOCAL, "scale", "bayesian", "influence"),
    "bif-gaussian-limit": Probe("sampled covariance", "error", "_gaussian_comparison()", 1),
    "bif-exists-everywhere": Probe("smallest eigenvalue of the Hessian", "scale", "hessian", "min_eigenvalue"),
    "held-out-queries": Probe("covariance with unseen queries", "scale", "bayesian_influence()", "covariance"),
    "normalised-is-steadier": Probe("correlation of losses", "scale", "bayesian", "correlation"),
    "singular-at-the-minimum": Probe("Hessian", "scale", "hessian()"),
    "indefinite-hessian": Probe("smallest eigenvalue of the Hessian", "scale", "hessian", "min_eigenvalue"),
    "damping-restores": Probe("damped influence", "scale", "hessian", "influence"),
    "gauss-newton-is-hessian-late": Probe("Gauss-Newton matrix", "scale", "gauss_newton()"),
    "classical-shows-stages": Probe("damped influence", "shift", "hessian", "influence"),
    "sgld-law": Probe("variance of the chains", "scale", "_variance()", 0),
    "stability-limit": Probe("draws of the chains", "scale", "_chains()"),
    "printed-algorithm": Probe("variance of the chains", "scale", "_variance()", 0),
    "printed-step": Probe("draws of the chains", "scale", "_chains()"),
    "robust-to-the-step": Probe("variance of the chains", "scale", "_variance()", 0),
    "decay-rate-does-not-matter": Probe("sampled covariance of SGLD", "scale", "bayesian_influence()", "covariance", 1),
    "mala-is-exact": Probe("sampled influence", "scale", "sampled_influence()", "influence"),
    "free-energy-gradient": Probe("sampled losses", "scale", "sampled_losses()"),
    "bif-is-a-susceptibility": Probe("sampled influence", "scale", "sampled_influence()", "influence"),
    "unseen-samples": Probe("sampled influence", "scale", "sampled_influence()", "influence"),
    "regular-posterior": Probe(TEMPERED, "scale", "tempered_posterior()", "phase_covariances"),
    "bif-tends-to-classical": Probe(TEMPERED, "scale", "tempered_posterior()", "phase_covariances"),
    "total-covariance": Probe("part within the phases", "error", "sampled_decomposition()", "within_error"),
    "between-peaks-at-half": Probe("losses in the phases", "scale", "two_phases()", "phase_log_evidences"),
    "printed-peak": Probe("place of the extremum", "scale", "phase_transition()", "position"),
    "sign-flips": Probe("weights at which the influence changes sign", "scale", "phase_transition()", "sign_flips"),
    "spikes-name-samples": Probe("sampled part between the phases", "error", "sampled_decomposition()",
                                 "between_error"),
    "free-energy-expansion": Probe("expansion of the free energy", "scale", "free_energy()"),
    "half-the-parameters": Probe("moments of powers", "scale", "power_moments()", 1),
    "coarse-graining": Probe("log evidence of the phases", "scale", "two_wells()", "phase_log_evidences"),
    "type-a-transition": Probe("predicted sample size", "scale", "transition_sample_size()"),
    "type-b-transition": Probe("predicted log n", "scale", "type_b_transition()", "log_n"),
    "transitions-change-generalisation": Probe("weights of the phases", "scale", "phase_weights()"),
    "susceptibility-at-transition": Probe("variance of the test loss", "scale", "_direct_variance()"),
    "smallest-networks": Probe("exact log evidence", "scale", "product_moments()", 0),
    "toy-coefficient": Probe("Hessian", "scale", "hessian()"),
    "rmsprop-against-sgld": Probe("estimated coefficient", "scale", "estimate_learning_coefficient()",
                                  "learning_coefficient"),
    "measured-coefficients": Probe("estimated coefficient", "scale", "measured_coefficients()", "extrapolated"),
    "moments-are-those-of-the-draws": Probe("streamed covariance", "scale", "bayesian_influence()", "covariance"),
    "chains-are-what-is-asked-for": Probe("draws with a burn-in", "scale", "sample()", None, 5),
    "algorithm-1-step-by-step": Probe("weights after forty steps", "scale", "_follow()", 0),
    "mini-batches-are-unbiased": Probe("mean losses with mini-batches", "scale", "sample()", None, 2),
    "one-answer-from-both-engines": Probe("damped influence", "scale", "hessian_influence()", "influence"),
    "layers-and-axes": Probe("layers of the exact solution", "scale", "linear_network_factors()"),
    "deep-chains": Probe("closed form of a chain", "scale", "deep_mode_strength()"),
    "diagnostics-are-honest": Probe("standard error of the mean", "scale", "diagnose()", "mcse_mean"),
    "agreement-is-a-slope": Probe("slope", "scale", "agreement()", "slope"),
    "any-seed": Probe(LOO, "shift", "variant.retrained"),
    "any-learning-rate": Probe(LOO, "shift", "variant.retrained"),
    "any-size-of-the-start": Probe(LOO, "shift", "variant.retrained"),
    "any-width": Probe(LOO, "shift", "variant.retrained"),
    "sweep-of-the-sampler": Probe("sampled covariance", "scale", "bayesian_influence()", "covariance"),
}  # fmt: skip


def spoiled(value, kind, size, part=None):
    """Return a measurement with a fault of this size."""
    if isinstance(value, xr.Dataset):
        name = "standard_error" if kind == "error" and part is None else part
        return value.assign({name: spoiled(value[name], kind, size)})
    if isinstance(value, Checkpoints):
        if kind == "shift":
            at = np.clip(value.epochs - size, value.epochs[0], value.epochs[-1])
            return Checkpoints(value.epochs, *(torch.tensor(CubicSpline(value.epochs, w.numpy())(at))
                                               for w in (value.w1, value.w2)))  # fmt: skip
        root = (1 + size) ** 0.5  # of the map
        return Checkpoints(value.epochs, root * value.w1, value.w2 if part == "w1" else root * value.w2)
    if is_dataclass(value):
        assert part in {field.name for field in fields(value)}, part
        return replace(value, **{part: spoiled(getattr(value, part), kind, size)})
    if isinstance(value, tuple):
        return tuple(spoiled(v, kind, size) if part is None or part == k else v for k, v in enumerate(value))
    if part is not None:  # one query of a trajectory
        return xr.where(value["query"] == part, spoiled(value, kind, size), value).transpose(*value.dims)
    if kind == "shift":
        first = value.transpose("epoch", ...)
        return first.copy(data=smooth(first)(first["epoch"].values - size)).transpose(*value.dims)
    return value + size * abs(value).max() if kind == "offset" else value * (1 + size)


class Replayed:
    """A function of a claim's module whose results are kept at the first run and spoiled in later ones."""

    def __init__(self, right, probe):
        self.right, self.probe, self.kept, self.size, self.calls = right, probe, [], None, 0

    def __call__(self, *args, **more):
        """Return what the call of this number gave, spoiled if it is to be."""
        k, self.calls = self.calls, self.calls + 1
        if self.size is None:
            self.kept.append(self.right(*args, **more))
            return self.kept[-1]
        if self.probe.call not in (None, k):
            return self.kept[k]
        return spoiled(self.kept[k], self.probe.kind, self.size, self.probe.part)


class Spoiler:
    """Measures one claim with faults of any size, after one run without."""

    def __init__(self, claim, probe, base):
        self.claim, self.probe, self.base = claim, probe, base
        self.replayed, self.name = None, probe.target.removesuffix("()")
        self.module = sys.modules[claim.measure.__module__]
        if probe.target.endswith("()"):
            self.right = getattr(self.module, self.name)
            self.replayed = Replayed(self.right, probe)
            setattr(self.module, self.name, self.replayed)
        found = run_claim(claim, base)
        self.close()
        assert found.verdict == claim.expected, (claim.identifier, found.verdict, found.problem)
        if self.replayed:
            assert self.replayed.kept, f"{claim.identifier} does not call {probe.target}"

    def close(self):
        """Put the right function back."""
        if self.replayed:
            setattr(self.module, self.name, self.right)

    def turns(self, size):
        """Return whether a fault of this size turns the claim."""
        probe, experiment = self.probe, self.base.twin()
        if self.replayed:
            self.replayed.size, self.replayed.calls = size, 0
            setattr(self.module, self.name, self.replayed)
        elif probe.target.startswith("variant."):
            name = probe.target.removeprefix("variant.")
            for settings, variant in self.base._variants.items():
                twin = variant.twin()
                twin.__dict__[name] = spoiled(getattr(variant, name), probe.kind, size, probe.part)
                experiment._variants[settings] = twin
        else:
            right = getattr(self.base, probe.target)
            experiment.__dict__[probe.target] = spoiled(right, probe.kind, size, probe.part)
        try:
            return run_claim(self.claim, experiment).verdict != self.claim.expected
        finally:
            self.close()

    def smallest(self, sign):
        """Return the smallest size in one direction that turns the claim, to a third; None if none tried does."""
        low, high = LOWEST[self.probe.kind], HIGHEST[self.probe.kind]
        if sign < 0 and self.probe.kind in ("scale", "error"):
            high = np.log10(0.99)  # of all of it
        if not self.turns(sign * 10**high):
            return None
        while high - low > 0.12:
            middle = (low + high) / 2
            if self.turns(sign * 10**middle):
                high = middle
            else:
                low = middle
        return sign * float(f"{10**high:.2g}")


def main(names):
    """Measure the claims with these names, all with a probe if none is given."""
    path = Path(validation.__file__).with_name("smallest_faults.json")
    base = ToyExperiment()
    for name in names or PROBES:
        probe = PROBES[name]
        (claim,) = (c for c in select_claims([name]) if c.identifier == name)
        spoiler = Spoiler(claim, probe, base)
        down, up = (spoiler.smallest(sign) for sign in (-1, 1))
        kept = json.loads(path.read_text())
        kept.pop(name, None)
        if down is not None or up is not None:
            kept[name] = {"what": probe.what, "kind": probe.kind, "down": down, "up": up}
        path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
        sys.stdout.write(f"{name}: {kept.get(name)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    np.seterr(all="ignore")
    main(sys.argv[1:])
