r"""Whether a sampler's step is stable at every checkpoint, predicted from the curvature before the first step.

On a quadratic of curvature h a Langevin step eps is stable if and only if eps h < 4, h = n_beta lambda + gamma, so what
is needed is the largest eigenvalue lambda of the Hessian of L at every checkpoint.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from numerics.curvature.operators import hessian_operator
from numerics.errors import StepSizeWarning
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.linear import Checkpoints
from numerics.models.samples import Samples
from numerics.sampling.plan import ChainPlan
from theory.hierarchy import Dataset

__all__ = ["check_steps"]

_LANCZOS_TOLERANCE = 1e-2  # relative error of the largest eigenvalue of a module's Hessian


def check_steps(plan: ChainPlan, *, stacklevel: int) -> None:
    """Refuse a step that is unstable at some checkpoint; warn once where it may be."""
    if isinstance(plan.checkpoints, Checkpoints):
        assert isinstance(plan.data, Dataset)
        low, high, slope = _linear_bounds(plan.data, plan.weights, plan.checkpoints)
    else:
        low, high, slope = _module_bounds(Samples.of(plan.data), plan.weights, plan.checkpoints)
    found = []
    for sampler in dict.fromkeys(plan.samplers):
        # Five standard deviations of a gradient entry around the checkpoint's own: the weights spread by at most
        # localization^(-1/2) in each direction and the gradient by lambda times that.
        spread = high * 5 / np.sqrt(sampler.localization) if sampler.localization else np.full_like(high, np.inf)
        doubts = [
            sampler.check_step((float(a), float(b)), float(g), float(epoch))
            for a, b, g, epoch in zip(low, high, slope + spread, plan.checkpoints.epochs, strict=True)
        ]
        found += [doubt for doubt in doubts if doubt]
    if found:
        where = f" (and in {len(found) - 1} more cases)" if len(found) > 1 else ""
        warnings.warn(found[0] + where, StepSizeWarning, stacklevel=stacklevel)


def _linear_bounds(
    data: Dataset, weights: Float[np.ndarray, " n"], checkpoints: Checkpoints
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bounds of the largest eigenvalue from both sides, and the largest |gradient entry|, each of shape (T,).

    The Hessian of L is the Gauss-Newton matrix plus a part with eigenvalues +-sigma(R) / N, R = Y^T X - W X^T X. The
    former's largest eigenvalue is that of A + max(D) B over N (A = X W_1^T W_1 X^T, B = X X^T, D = W_2 W_2^T), so both
    together bound the largest eigenvalue of the Hessian on either side. Sample weights scale the rows of X and Y by
    their square roots.
    """
    n, root = len(data), np.sqrt(weights)[:, None]
    x, y = torch.tensor(data.inputs * root), torch.tensor(data.targets * root)
    w1, w2 = checkpoints.w1.cpu(), checkpoints.w2.cpu()
    hidden = w1 @ x.T
    output_gain = torch.linalg.eigvalsh(w2 @ w2.mT)[:, -1]
    dual = hidden.mT @ hidden + output_gain[:, None, None] * (x @ x.T)
    gauss_newton = torch.linalg.eigvalsh(dual)[:, -1] / n
    residual = (y.T - w2 @ hidden) @ x
    remainder = torch.linalg.matrix_norm(residual, ord=2) / n
    slopes = (w2.mT @ residual / n, residual @ w1.mT / n)
    steepest = torch.stack([slope.abs().amax((1, 2)) for slope in slopes]).amax(0)
    return (gauss_newton - remainder).numpy(), (gauss_newton + remainder).numpy(), steepest.numpy()


def _module_bounds(
    data: Samples, weights: Float[np.ndarray, " n"], checkpoints: ModuleCheckpoints
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same for a module, the eigenvalue by Lanczos iteration: from below, and with its tolerance added."""
    samples, beta = data.like(checkpoints.like), checkpoints.like.new_tensor(weights)
    low, steepest = np.empty(len(checkpoints)), np.empty(len(checkpoints))
    for t in range(len(checkpoints)):
        model, w = checkpoints.model_at(t), checkpoints.weights_at(t)
        low[t] = _largest_eigenvalue(hessian_operator(model, w, samples, beta))
        leaf = w.clone().requires_grad_()
        (slope,) = torch.autograd.grad((beta * model.losses(leaf, samples)).mean(), leaf)
        steepest[t] = float(slope.abs().max())
    return low, low + _LANCZOS_TOLERANCE * np.abs(low), steepest


def _largest_eigenvalue(operator: LinearOperator) -> float:
    size = operator.shape[0]
    if size < 3:
        return float(np.linalg.eigvalsh(operator @ np.eye(size)).max())
    settings = {"k": 1, "which": "LA", "tol": _LANCZOS_TOLERANCE, "v0": np.random.default_rng(0).normal(size=size)}
    try:
        return float(eigsh(operator, return_eigenvectors=False, **settings)[0])
    except ArpackNoConvergence as stopped:  # what was reached is still a bound from below
        return float(np.max(stopped.eigenvalues, initial=0.0))
