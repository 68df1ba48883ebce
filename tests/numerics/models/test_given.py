"""Data, checkpoints, samplers, settings and models of a wrong kind are told apart before anything of them is used."""

import json
import os
import subprocess
import sys
from pathlib import Path

# In a process of its own, without the type checker of these tests, which would answer in place of the functions.
CALLS = """
import json, torch
import numerics as n
from theory import hierarchical_dataset

data = hierarchical_dataset(2)
run = n.train(data, n.TrainingConfig(hidden=3, epochs=4, checkpoint_every=2)).checkpoints
sampler = n.SGLD(1e-4, n_beta=10.0, localization=100.0)
measures = {
    "gradient_kernel": (n.gradient_kernel, {}),
    "tracin": (n.tracin, {"lr": 0.1}),
    "hessian_influence": (n.hessian_influence, {"damping": 1.0}),
    "gauss_newton_influence": (n.gauss_newton_influence, {"damping": 1.0}),
    "sample": (n.sample, {"sampler": sampler, "draws": 4}),
    "bayesian_influence": (n.bayesian_influence, {"sampler": sampler, "draws": 4}),
    "estimate_learning_coefficient": (n.estimate_learning_coefficient, {"sampler": sampler, "draws": 4}),
}
trainings = {name: getattr(n, name) for name in ("train", "leave_one_out", "unrolled_influence")}
trainings["leave_group_out"] = lambda d, **more: n.leave_group_out(d, {"g": ["dog"]}, **more)
trainings["retrain"] = lambda d, **more: n.retrain(d, {"all": [1.0] * 4}, **more)
trainings["timed_ablation"] = lambda d, **more: n.timed_ablation(d, window=2, **more)
calls = []
for name, (measure, more) in measures.items():
    calls.append((name, "dataset", lambda m=measure, k=more: m([[1.0]], run, **k)))
    calls.append((name, "checkpoints", lambda m=measure, k=more: m(data, "folder", **k)))
    if "sampler" in more:
        calls.append((name, "sampler", lambda m=measure, k=more: m(data, run, **{**k, "sampler": "SGLD"})))
for name, training in trainings.items():
    calls.append((name, "dataset", lambda t=training: t([[1.0]])))
    calls.append((name, "config", lambda t=training: t(data, config=200)))
    calls.append((name, "model", lambda t=training: t(data, model=torch.nn.Linear(2, 2))))
answers = {}
for name, argument, call in calls:
    try:
        call()
        answers[f"{name}({argument})"] = "accepted"
    except Exception as error:
        answers[f"{name}({argument})"] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""


def test_what_is_of_a_wrong_kind_is_named():
    environment = os.environ | {"JAXTYPING_DISABLE": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    run = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    answers = json.loads(run.stdout)
    assert len(answers) == 7 * 2 + 3 + 6 * 3
    wrong = {
        call: answer
        for call, answer in answers.items()
        if not answer.startswith(f"TypeError: {call.split('(')[1][:-1]} must be a ")
    }
    assert wrong == {}
