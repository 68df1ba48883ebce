"""Public functions of numerics and validation x every argument x every kind of bad value; prints what is amiss.

An entry is a good call; the kind of an argument, and with it the bad values that are tried, follows from the good one.
Run as a script, with JAXTYPING_DISABLE=1, since the tests' own type checker would answer in place of the functions.
"""

import json
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import numerics
import validation
from theory import Dataset
from theory.trajectories import trajectory

ROOT = Path(numerics.__file__).parents[1]
OURS = [ROOT / name for name in ("theory", "numerics", "validation", "stagewise", "paper_figs")]
DATA = Dataset(np.eye(2), np.array([[1.0, 0.0, 1.0], [0.5, 0.5, 0.0]]), ("a", "b"))
CONFIG = numerics.TrainingConfig(hidden=3, epochs=4, checkpoint_every=2)
RUN = numerics.train(DATA, CONFIG).checkpoints
LINE = trajectory(np.sin(np.arange(12.0)).reshape(3, 2, 2), [0, 1, 2], ["a", "b"], ["a", "b"])
DRAWS = numerics.sample(DATA, RUN, numerics.SGLD(1e-3, 1.0, 10.0), chains=2, draws=8)
LOGITS, CLASSES = torch.tensor([[1.0, 0.0], [0.5, 2.0]]), torch.tensor([0, 1])
MODEL = numerics.TorchModel(torch.nn.Linear(2, 3, bias=False).double())
SAMPLES = numerics.Samples(torch.eye(2, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64), ("a", "b"))
WEIGHTS = torch.full((6,), 0.1, dtype=torch.float64)
OPERATOR = numerics.hessian_operator(MODEL, WEIGHTS, SAMPLES)
IDS = np.arange(8).reshape(2, 4)
SAMPLING = {"chains": 2, "draws": 8, "burn_in": 0, "thin": 1, "seed": 0}
SGLD = numerics.SGLD(1e-3, 1.0, 10.0)
TOKENS = numerics.token_samples(IDS)
BIGRAM = numerics.TorchModel(numerics.BigramModel(8), numerics.next_token_loss)
BIGRAMS = numerics.ModuleCheckpoints(np.array([0]), BIGRAM, BIGRAM.initial()[None])
PLAIN = {"dataset": DATA, "checkpoints": RUN}
DERIVED = {"model": MODEL, "weights": WEIGHTS, "samples": SAMPLES}

NUMERICS = {
    "Adam": {"eps": 1e-8, "weight_decay": 0.1},
    "AdamW": {"eps": 1e-8, "weight_decay": 0.1},
    "BigramModel": {"vocabulary": 3, "sigma": 0.1, "seed": 0},
    "CosineDecay": {"warmup": 1, "end": 0.1},
    "LinearDecay": {"warmup": 1, "end": 0.1},
    "LearningCoefficientError": {"exact": 1.0},
    "MALA": {"step_size": 1e-3, "n_beta": 1.0, "localization": 1.0},
    "PretrainingConfig": {"steps": 3, "lr": 0.1, "batch_size": 2, "clip": 1.0, "weight_decay": 0.1, "warm_up": 1},
    "RMSPropSGLD": {
        "step_size": 1e-3,
        "n_beta": 1.0,
        "localization": 1.0,
        "decay": 0.5,
        "stability": 1.0,
        "initial_square": 0.1,
    },
    "SGD": {"momentum": 0.1, "weight_decay": 0.1},
    "SGLD": {"step_size": 1e-3, "n_beta": 1.0, "localization": 1.0},
    "StepDecay": {"every": 2, "factor": 0.5},
    "TrainingConfig": {"hidden": 3, "sigma": 0.1, "lr": 0.1, "epochs": 4, "checkpoint_every": 2, "seed": 0},
    "TransformerConfig": {"vocabulary": 8, "context": 4, "width": 8, "layers": 1, "heads": 1, "rotary": 0.5},
    "batch_order": {"n_samples": 4, "batch_size": 2, "epoch": 1, "seed": 0},
    "bayesian_influence": PLAIN | {"sampler": SGLD} | SAMPLING,
    "chance_recall": {"sizes": np.array([2, 3]), "tokens": 10, "k": 3},
    "check_model": {"model": MODEL, "samples": SAMPLES, "checkpoints": 1, "epochs": 2, "chains": 1, "draws": 2},
    "classical_mds": {"distances": np.array([[0.0, 1.0], [1.0, 0.0]]), "dims": 1},
    "covariance_diagnostics": {"draws": DRAWS},
    "damped_solve": {
        "operator": OPERATOR,
        "gradients": WEIGHTS[None],
        "damping": 1.0,
        "rtol": 1e-6,
        "max_iterations": 50,
    },
    "diagnose": {"draws": DRAWS},
    "estimate_learning_coefficient": PLAIN | {"sampler": SGLD} | SAMPLING,
    "extrapolate_learning_coefficient": {
        "n_beta": np.array([10.0, 100.0, 1000.0]),
        "estimates": np.array([1.0, 1.1, 1.2]),
        "standard_errors": np.array([0.1, 0.1, 0.1]),
        "multiplicity": 1,
    },
    "extreme_eigenvalues": {"operator": OPERATOR},
    "gauss_newton_influence": PLAIN | {"damping": 1.0, "sources": ["a"]},
    "gauss_newton_matrix": DERIVED,
    "gauss_newton_operator": DERIVED,
    "gaussian_learning_coefficient": PLAIN | {"n_beta": 1.0, "localization": 10.0},
    "gradient_flow": {
        "dataset": DATA,
        "w1": RUN.w1[0].numpy(),
        "w2": RUN.w2[0].numpy(),
        "epochs": np.array([0.0, 1.0]),
        "tau": 5.0,
        "tolerance": 1e-8,
    },
    "gradient_cosine": {"samples": TOKENS, "checkpoints": BIGRAMS},
    "class_gradient_cosine": {"samples": TOKENS, "checkpoints": BIGRAMS, "classes": {"a": np.ones((2, 3), dtype=bool)}},
    "group_influence": {"draws": DRAWS, "groups": {"g": ["a", "b"]}},
    "gradient_kernel": PLAIN | {"sources": ["a"]},
    "hessian_influence": PLAIN | {"damping": 1.0, "sources": ["a"]},
    "hessian_matrix": DERIVED,
    "hessian_operator": DERIVED,
    "hidden_representations": PLAIN,
    "induction_pattern": {"ids": IDS},
    "initial_weights": {"dataset": DATA, "hidden": 3, "sigma": 0.1, "seed": 0},
    "leave_group_out": {"dataset": DATA, "groups": {"one": ["a"]}, "config": CONFIG, "epsilon": -1.0},
    "leave_one_out": {"dataset": DATA, "config": CONFIG, "epsilon": -1.0, "sources": ["a"]},
    "linear_as_module": {"checkpoints": RUN},
    "log_spaced_steps": {"last": 10, "per_decade": 3},
    "repeated_sequences": {"count": 2, "period": 3, "vocabulary": 16, "seed": 0},
    "representation_embedding": PLAIN | {"dims": 1},
    "retrain": {"dataset": DATA, "weights": {"x": np.array([1.0, 0.5])}, "config": CONFIG},
    "sample": PLAIN | {"sampler": SGLD} | SAMPLING,
    "sample_gradients": DERIVED,
    "timed_ablation": {"dataset": DATA, "config": CONFIG, "window": 2, "every": 2, "epsilon": -1.0, "sources": ["a"]},
    "token_samples": {"ids": IDS, "vocabulary": 8, "context": 4},
    "tracin": PLAIN | {"lr": 0.1, "rule": "trapezoid", "sources": ["a"]},
    "train": {"dataset": DATA, "config": CONFIG},
    "trust": {"result": DRAWS},
    "unrolled_influence": {"dataset": DATA, "config": CONFIG, "exposure_every": 2, "sources": ["a"]},
}
VALIDATION = {
    "agreement": {"reference": LINE, "measure": LINE},
    "clear_signs": {"influence": LINE},
    "dataset_of_arrays": {
        "arrays": xr.Dataset({"inputs": (("pet", "p"), np.eye(2)), "targets": (("pet", "o"), np.eye(2))})
    },
    "extremum_epochs": {"influence": LINE},
    "peaks": {"influence": LINE},
    "settings_for": {"dataset": DATA, "seed": 0},
    "sign_agreement": {"measures": {"a": LINE, "b": LINE}},
    "sign_flips": {"influence": LINE},
    "whiten": {"dataset": DATA},
    "without_self": {"influence": LINE},
}


# Functions that the table does not try yet: they need text, folders, a trained language model or another function.
UNTRIED = {
    "as_token_draws", "attention_patterns", "branching_epochs", "class_influence", "class_recall", "correct_logit",
    "cut_documents", "half_squared_error", "head_scores", "induction_scores", "load_revisions", "load_tokenizer",
    "log_odds", "margin", "next_token_loss", "over_checkpoints", "per_sample_losses", "pretrain", "python_documents",
    "sample_tokens", "sweep", "text_classes", "text_documents", "token_influence", "token_sequences", "top_influences",
    "train_tokenizer",
    "all_claims", "claim", "compare", "correlations", "cross_check", "curves", "dataset_of", "epoch_runs",
    "group_means", "load_claims", "load_dataset", "numerics",
    "planted_fault", "read_dataset", "retraining", "run_claim", "run_ledger",
    "save_dataset", "select_claims", "strongest_influences", "theory",
}  # fmt: skip


def bad_values(good):
    """Yield (what is wrong, value) in place of a good value."""
    nan, inf = float("nan"), float("inf")
    if isinstance(good, bool):
        return
    if isinstance(good, int):
        yield from {"fraction": 1.5, "nan": nan, "text": "3", "list": [3], "negative": -1, "inf": inf}.items()
    elif isinstance(good, float):
        yield from {"nan": nan, "inf": inf, "text": "much", "list": [1.0], "complex": 1j, "object": object()}.items()
    elif isinstance(good, str):
        yield from {"unknown": "nonsense", "number": 3, "list": ["a"]}.items()
    elif isinstance(good, (np.ndarray, torch.Tensor)):
        floats = np.array(good.numpy() if isinstance(good, torch.Tensor) else good, dtype=float)
        for wrong, value in (("nan", nan), ("inf", inf)):
            spoiled = floats.copy()
            spoiled.flat[-1] = value
            yield wrong, torch.from_numpy(spoiled) if isinstance(good, torch.Tensor) else spoiled
        yield from {"text": "much", "object": object(), "more axes": good[..., None, None]}.items()
        yield "empty", good[:0]
    elif isinstance(good, list):
        yield from {"text": "ab", "number": 3.0, "unknown": ["wolf"], "whole": [0]}.items()
    elif isinstance(good, dict):
        yield from {"list": ["a"], "empty": {}, "number": 3.0, "text": "ab"}.items()
    elif isinstance(good, (xr.DataArray, xr.Dataset)):
        yield from {"array": np.eye(2), "text": "line", "number": 3.0, "no labels": xr.DataArray(np.eye(2))}.items()
    else:
        yield from {"array": np.eye(2), "text": "data", "number": 3.0}.items()


LIBRARY_WORDS = (
    "operands",
    "inhomogeneous",
    "ufunc",
    "has no attribute",
    "object is not",
    "unsupported operand",
    "not supported between",
    "must be real number",
    "could not convert",
    "takes exactly",
)


# A list of numbers where one is as good.
ALSO_GOOD = {(name, "damping", "list") for name in ("damped_solve", "gauss_newton_influence", "hessian_influence")}


def complaint(function, argument, call):
    """Return what is amiss with how a bad call is answered, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**call)
    except (ValueError, TypeError, KeyError, LookupError) as error:
        last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        sentence = str(error.args[0]) if error.args else ""
        if not any(last.is_relative_to(package) for package in OURS):
            return f"answered by {last.name}: {error!r}"[:160]
        if any(word in sentence for word in LIBRARY_WORDS):
            return f"a library's words: {error!r}"[:160]
        return None
    except Exception as error:  # every other class is amiss as well
        return f"{type(error).__name__}: {error}"[:160]
    return "accepted"


def main():
    amiss = {}
    for package, table in ((numerics, NUMERICS), (validation, VALIDATION)):
        for name, good in table.items():
            function = getattr(package, name)
            try:
                function(**good)
            except Exception as error:
                amiss[f"{name}"] = f"the good call fails: {error!r}"
                continue
            for argument, value in good.items():
                for wrong, bad in bad_values(value):
                    if (name, argument, wrong) in ALSO_GOOD:
                        continue
                    if (found := complaint(function, argument, good | {argument: bad})) is not None:
                        amiss[f"{name}({argument}: {wrong})"] = found
    json.dump(amiss, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
