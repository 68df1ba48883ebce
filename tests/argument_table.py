"""Every public function of theory x every argument x every kind of bad value, as users call it; prints what is amiss.

Run as a script, without the tests' own type checker, which would answer in place of the functions.
"""

import inspect
import json
import sys
import traceback
from pathlib import Path

import numpy as np

import theory

PACKAGE = Path(theory.__file__).parent
DATA = theory.Dataset(np.eye(2), np.array([[1.0, 0.0, 1.0], [0.5, 0.5, 0.0]]), ("a", "b"))
LAW = theory.stationary_law(np.diag([1.0, 2.0]), 0.1)
W1, W2, SYX = 0.1 * np.ones((3, 2)), 0.1 * np.ones((4, 3)), np.arange(8.0).reshape(4, 2)
MIXTURE = {"weights": [0.5, 0.5], "means": [[0.0, 1.0], [1.0, 0.0]], "covariances": [np.eye(2), np.eye(2)]}
LINEAR = {"w1": (W1, "matrix"), "w2": (W2, "matrix"), "syx": (SYX, "matrix")}
RUN = {"w1": (W1, "matrix"), "w2": (0.1 * np.ones((3, 3)), "matrix")}


def square(w):
    return w**2


def kinds(values, kind):
    return {name: (value, kind) for name, value in values.items()}


# A good call of each function: argument -> (value, kind). The kind says which values are bad.
TABLE = {
    "Dataset": {"inputs": (np.eye(2), "matrix"), "targets": (np.eye(2), "matrix"), "names": (["a", "b"], "own names")},
    "Modes": {
        "left": (np.eye(2), "matrix"),
        "values": ([3.0, 1.0], "list"),
        "right": (np.eye(2), "matrix"),
        "initial_strengths": ([0.1, 0.1], "list"),
    },
    "adaptive_limit": {
        "log_posterior": (lambda w: -50 * w**2, "function"),
        "loss_gradient": (lambda w: w, "function"),
        "damping": (0.1, "number"),
        "bounds": ((-2.0, 2.0), "list"),
    },
    "aligned_modes": LINEAR | {"deflate": (False, "flag")},
    "bigram_covariance": {
        "table": (np.zeros((2, 2)), "matrix"),
        "counts": (np.ones((2, 2)), "matrix"),
        "tokens": ([[0, 0], [0, 1]], "whole list"),
        "n_beta": (1.0, "number"),
        "localization": (1.0, "number"),
    },
    "brief_ablation_trajectory": {
        "dataset": (DATA, "dataset"),
        "starts": ([1.0, 2.0], "list"),
        "tau": (5.0, "number"),
        **RUN,
        "window": (2, "whole"),
        "method": ("exact", "choice"),
        "sources": (["a"], "names"),
    },
    "covariance_standard_error": {"gradients": (np.eye(2), "matrix"), "law": (LAW, "law"), "draws": (10, "whole")},
    "decompose_covariance": kinds(MIXTURE, "array"),
    "deep_mode_strength": {
        "t": ([1.0, 2.0], "broadcast"),
        "s": ([3.0, 2.0], "broadcast"),
        "g0": ([0.1, 0.1], "broadcast"),
        "tau": (1.0, "number"),
        "depth": (3, "whole"),
    },
    "deep_mode_time": {
        "g": ([1.0, 1.5], "broadcast"),
        "s": ([3.0, 2.0], "broadcast"),
        "g0": ([0.1, 0.1], "broadcast"),
        "tau": (1.0, "number"),
        "depth": (3, "whole"),
    },
    "entropy_rate": {"transition": ([[0.5, 0.5], [0.5, 0.5]], "matrix")},
    "exposure_kernel": {
        "dataset": (DATA, "dataset"),
        "epochs": ([1.0, 2.0], "list"),
        "exposures": ([0.5, 1.5], "list"),
        "tau": (5.0, "number"),
        "g0": (1e-3, "strengths"),
        "sources": (["a"], "names"),
        "queries": (DATA, "queries"),
    },
    "free_energy": {
        "n": ([10.0, 20.0], "broadcast"),
        "losses": ([0.0, 1.0], "broadcast"),
        "lambdas": ([1.0, 0.5], "broadcast"),
        "multiplicities": ([1.0, 2.0], "broadcast"),
        "constants": ([0.0, 1.0], "broadcast"),
    },
    "gate_correlation": {"theta": ([0.0, 1.0], "elements"), "vocabulary": (256, "whole")},
    "gate_losses": {"theta": ([0.0, 1.0], "elements"), "vocabulary": (256, "whole")},
    "gate_posterior": {
        "theta": (-2.8, "number"),
        "vocabulary": (256, "whole"),
        "localization": (1e4, "number"),
        "n_beta": (1.0, "number"),
        "share_repeated": (0.5, "number"),
    },
    "gate_slope": {"theta": ([0.0, 1.0], "elements"), "vocabulary": (256, "whole")},
    "gaussian_influence": {
        "gradients": (np.eye(2), "matrix"),
        "hessians": (np.eye(2), "array"),
        "n_beta": (2.0, "number"),
        "localization": (1.0, "number"),
    },
    "half_rise_time": {"s": ([3.0, 2.0], "broadcast"), "g0": ([0.1, 0.1], "broadcast"), "tau": (1.0, "number")},
    "hierarchical_dataset": {"levels": (2, "whole")},
    "hierarchical_structure": {"levels": (2, "whole")},
    "influence_trajectory": {
        "dataset": (DATA, "dataset"),
        "epochs": ([1.0, 2.0], "list"),
        "tau": (5.0, "number"),
        "g0": (1e-3, "strengths"),
        "formula": ("sample-weight", "choice"),
        "sources": (["a"], "names"),
        "queries": (DATA, "queries"),
    },
    "initial_mode_strength": {
        "w1": (W1, "matrix"),
        "w2": (W2, "matrix"),
        "u": (np.eye(4, 2), "matrix"),
        "v": (np.eye(2), "matrix"),
    },
    "learning_coefficient": {"widths": ([3, 2, 3], "whole list"), "rank": (1, "whole")},
    "leave_group_out_trajectory": {
        "dataset": (DATA, "dataset"),
        "epochs": ([1.0, 2.0], "list"),
        "tau": (5.0, "number"),
        **RUN,
        "groups": ({"one": ["a"]}, "groups"),
        "epsilon": (-1.0, "number"),
        "queries": (DATA, "queries"),
    },
    "leave_one_out_trajectory": {
        "dataset": (DATA, "dataset"),
        "epochs": ([1.0, 2.0], "list"),
        "tau": (5.0, "number"),
        **RUN,
        "epsilon": (-1.0, "number"),
        "sources": (["a"], "names"),
        "queries": (DATA, "queries"),
    },
    "linear_network_factors": LINEAR | {"t": ([1.0, 2.0], "elements"), "tau": (1.0, "number")},
    "linear_network_run": LINEAR | {"t": ([1.0, 2.0], "times"), "tau": (1.0, "number")},
    "linear_network_solution": LINEAR | {"t": ([1.0, 2.0], "times"), "tau": (1.0, "number")},
    "loss_autocorrelation_times": {
        "gradients": (np.eye(2), "matrix"),
        "hessians": (np.eye(2), "array"),
        "law": (LAW, "law"),
    },
    "mode_strength": {
        "t": ([1.0, 2.0], "broadcast times"),
        "s": ([3.0, 2.0], "broadcast"),
        "g0": ([0.1, 0.1], "broadcast"),
        "tau": (1.0, "number"),
    },
    "monomial_learning_coefficient": {"k": ([1, 1], "whole list"), "h": ([0, 0], "whole list")},
    "pair_noise": {"relaxation_times": (0.1, "number"), "chains": (2, "whole"), "draws": (10, "whole")},
    "paper_svd_response": {
        "c": (SYX, "matrix"),
        "dc": (SYX, "matrix"),
        "variant": ("P1", "choice"),
        "tolerance": (1e-9, "optional number"),
    },
    "phase_transition": {
        "mean_u": ([1.0, 2.0], "array"),
        "mean_v": ([0.0, 1.0], "array"),
        "cov_u": (np.eye(2), "array"),
        "cov_v": (np.eye(2), "array"),
    },
    "phase_weights": {
        "n": ([10.0, 20.0], "elements"),
        "losses": ([0.0, 1.0], "array"),
        "lambdas": ([1.0, 0.5], "array"),
        "multiplicities": ([1.0, 2.0], "array"),
        "constants": ([0.0, 1.0], "array"),
    },
    "power_moments": {"n": ([10.0, 20.0], "elements"), "k": (2, "whole"), "bound": (1.0, "number or infinity")},
    "product_moments": {"n": ([10.0, 20.0], "elements")},
    "quadratic_loss_covariance": {
        "gradients": (np.eye(2), "matrix"),
        "hessians": (np.eye(2), "array"),
        "weight_covariance": (np.eye(2), "matrix"),
    },
    "quadratic_loss_moments": {
        "component_means": (np.eye(2), "matrix"),
        "component_covariances": ([np.eye(2), np.eye(2)], "array"),
        "hessians": ([np.eye(2)], "array"),
        "gradients": ([[1.0, 0.0]], "matrix"),
        "constants": ([0.0], "array"),
    },
    "sampled_decomposition": {
        "losses": ([[0.0, 1.0], [2.0, 1.0], [5.0, 0.0], [7.0, 3.0]], "matrix"),
        "phases": ([0, 0, 1, 1], "phases"),
    },
    "spectral_derivative": {
        "c": (SYX, "matrix"),
        "dc": (SYX, "matrix"),
        "g": (lambda s: s**3, "function"),
        "g_prime": (lambda s: 3 * s**2, "function"),
    },
    "stationary_law": {"precision": (np.eye(2), "matrix"), "step": ([0.1, 0.2], "array")},
    "steepest_gate": {"vocabulary": (256, "whole")},
    "svd_response": {"c": (SYX, "matrix"), "dc": (SYX, "matrix"), "tolerance": (1e-9, "optional number")},
    "tempered_posterior": {
        "losses": (square, "function"),
        "boxes": ([[[-1.0, 1.0]]], "array"),
        "n_beta": ([1.0, 2.0], "elements"),
        "log_prior": (lambda w: -w[:, 0], "function or none"),
        "sample_weights": ([1.0], "optional list"),
        "points": ([[0.5]], "optional matrix"),
        "rtol": (1e-8, "number"),
        "max_cells": (1000, "whole"),
    },
    "time_constant": {"n_samples": (8, "whole"), "n_outputs": (15, "whole"), "lr": (0.05, "number")},
    "total_covariance_gradient": kinds(MIXTURE, "array"),
    "total_covariance_hessian": kinds({name: MIXTURE[name] for name in ("weights", "means")}, "array"),
    "transition_sample_size": {
        "delta_loss": ([-0.1, -0.2], "broadcast"),
        "delta_lambda": ([1.0, 1.0], "broadcast"),
        "delta_constant": ([0.0, 0.1], "broadcast"),
    },
    "tree_distance": {"levels": (2, "whole")},
    "type_b_transition": {
        "delta_lambda": (-0.5, "number"),
        "delta_multiplicity": (1.0, "number"),
        "delta_constant": (3.0, "number"),
    },
}
# What the functions return; made by them, not by users.
RESULTS = {
    "AdaptiveLimit",
    "Crossing",
    "GaussianInfluence",
    "LinearNetworkRun",
    "MixtureCovariance",
    "PhaseTransition",
    "PrintedSVDResponse",
    "SVDResponse",
    "SampledMixture",
    "SingularStructure",
    "StationaryLaw",
    "TemperedPosterior",
}


def bad_values(value, kind):
    """Yield (what is wrong, value) for an argument of this kind."""
    nan, inf = float("nan"), float("inf")
    masked = np.ma.masked_array([1.0, -999.0], [False, True])
    if kind in ("number", "optional number", "number or infinity"):
        yield from {"nan": nan, "text": "much", "list": [1.0, 2.0], "empty": [], "masked": np.ma.masked}.items()
        yield from {"complex": 1j, "object": object()}.items()
        if kind != "number or infinity":
            yield "inf", inf
        if kind != "optional number":
            yield "none", None
        return
    if kind == "whole":
        yield from {"fraction": 1.5, "nan": nan, "text": "3", "none": None, "list": [3], "negative": -1}.items()
        yield from {"masked": np.ma.masked, "inf": inf, "true": True}.items()
        return
    if kind == "choice":
        yield from {"unknown": "nonsense", "number": 3, "none": None, "list": ["P1"]}.items()
        return
    if kind in ("function", "function or none"):
        yield from {"number": 3.0, "text": "f", "array": np.eye(2)}.items()
        if kind == "function":
            yield "none", None
        return
    if kind in ("dataset", "law", "queries"):
        yield from {"array": np.eye(2), "text": "data", "number": 3.0}.items()
        if kind != "queries":
            yield "none", None
        else:
            yield "wrong shape", theory.Dataset(np.eye(5), np.eye(5))
        return
    if kind in ("names", "own names"):
        yield from {"text": "ab", "numbers": 3.0, "masked": np.ma.masked_array(["a", "b"], [False, True])}.items()
        yield "repeated", ["a", "a"]
        if kind == "names":
            yield from {"unknown": ["wolf"], "empty": [], "whole": [0]}.items()
        return
    if kind == "groups":
        yield from {"list": ["a"], "none": None, "empty": {}, "empty group": {"x": []}, "text": {"x": "ab"}}.items()
        yield from {"unknown": {"x": ["wolf"]}, "number": {"x": 3}}.items()
        return
    if kind == "flag":
        return
    array = np.asarray(value)
    if kind in ("whole list", "phases"):
        yield from {"fractions": [0.5, 1.5], "negative": -array - 1, "true": array > 0}.items()
        yield "masked", np.ma.masked_array(array, np.arange(array.size) == 1)
    else:
        spoiled = np.array(array, dtype=float)
        spoiled.flat[-1] = nan
        yield "nan", spoiled
        if kind not in ("times", "broadcast times"):
            spoiled = np.array(array, dtype=float)
            spoiled.flat[-1] = inf
            yield "inf", spoiled
        hidden = np.ma.masked_array(np.array(array, dtype=float))
        hidden[(-1,) * hidden.ndim] = np.ma.masked
        yield "masked", hidden
        if array.ndim:
            yield "list of masked", [masked] * 2
        yield "huge", [10**400]
    yield from {"text": "much", "ragged": [[1.0], [1.0, 2.0]], "complex": array * (1 + 1j), "object": object()}.items()
    yield "strings", np.array(["a", "b"])
    if not kind.startswith("optional"):
        yield "none", None
    if kind not in ("elements", "times"):
        yield "wrong shape", np.ones((5, 1, 7)) if kind != "matrix" else np.ones((7, 9))
    if kind in ("matrix", "list", "whole list", "phases", "optional list"):
        yield "more axes", array[..., None, None]
        yield "number", 1.0
    if kind not in ("broadcast", "broadcast times", "elements", "times"):
        yield "empty", np.empty((0,) * max(array.ndim, 1))


# What a sentence may name in place of the argument: the other one that does not fit it, or the sample.
SAID_OTHERWISE = {
    "syx": ("w1",),
    "gradients": ("hessians", "weight_covariance"),
    "component_means": ("gradients",),
    "losses": ("phases",),
    "sources": ("no sample is called",),
    "groups": ("group", "no sample is called"),
}
LIBRARY_WORDS = ("operands", "inhomogeneous", "ufunc", "has no attribute", "object is not", "unsupported operand")


def complaint(name, argument, call, wrong):
    """Return what is amiss with how a bad call is answered, or None."""
    function = getattr(theory, name)
    positional = [p for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_ONLY]
    assert not positional
    try:
        function(**call)
    except (ValueError, TypeError, KeyError) as error:
        last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        sentence = str(error.args[0]) if error.args else ""
        if not last.is_relative_to(PACKAGE):
            return f"answered by {last}: {error!r}"
        if any(word in sentence for word in LIBRARY_WORDS):
            return f"a library's words: {error!r}"
        if not sentence.rstrip().endswith("."):
            return f"no sentence: {error!r}"
        if argument not in sentence and not any(word in sentence for word in SAID_OTHERWISE.get(argument, ())):
            return f"does not say which argument: {error!r}"
        return None
    except Exception as error:  # every other class is amiss as well
        return f"{type(error).__name__}: {error}"
    return "accepted"


def main():
    amiss = {}
    for name, arguments in TABLE.items():
        good = {argument: value for argument, (value, _) in arguments.items()}
        getattr(theory, name)(**good)
        for argument, (value, kind) in arguments.items():
            for wrong, bad in bad_values(value, kind):
                found = complaint(name, argument, good | {argument: bad}, wrong)
                if found is not None:
                    amiss[f"{name}({argument}: {wrong})"] = found
    json.dump(amiss, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
