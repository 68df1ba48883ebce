r"""Whether a sampler's step is stable at every checkpoint, predicted from the curvature before the first step.

On a quadratic of curvature h a Langevin step eps is stable if and only if eps h < 4, h = n_beta lambda + gamma, so what
is needed is the largest eigenvalue lambda of the Hessian of L at every checkpoint.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from numerics.errors import StepSizeWarning
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.digest import digest
from numerics.models.linear import Checkpoints
from numerics.models.samples import Samples
from numerics.sampling.module_target import ModuleTarget
from numerics.sampling.plan import ChainPlan, Recorded
from theory.hierarchy import Dataset

__all__ = ["check_steps"]

_LANCZOS_TOLERANCE = 1e-2  # relative error of the largest eigenvalue of a module's Hessian
_LANCZOS_STEPS = (5, 30)  # at least and at most
_SHARE = 0.04  # of the gradients that sampling takes, how many the check may take
_FEWEST = 128  # samples, where gradients come from batches
_KEPT = 2**25  # numbers of a basis that is kept: 256 MB
_LARGEST_CACHE = 4096  # checkpoints whose curvature is remembered

_known: dict[str | None, tuple[float, float, float]] = {}  # by digest, for the life of the process


def check_steps(plan: ChainPlan, *, stacklevel: int) -> None:
    """Refuse a step that is unstable at some checkpoint; warn once where it may be."""
    if isinstance(plan.checkpoints, Checkpoints):
        assert isinstance(plan.data, Dataset)
        low, high, slope = _linear_bounds(plan.data, plan.weights, plan.checkpoints)
    else:
        low, high, slope = _module_bounds(plan)
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


def _module_bounds(plan: ChainPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same for a module: the eigenvalue from below, the same with its doubt added, the largest |gradient|.

    Lanczos iteration on a block of checkpoints at once, with products of the Hessian as differences of gradients, which
    every module has that can be sampled at all. Where gradients come from batches, only so many samples are taken as
    keep the cost small: the direction from some of them and its curvature, an unbiased bound from below, from others.
    """
    checkpoints = plan.checkpoints
    assert isinstance(checkpoints, ModuleCheckpoints)
    evaluations = plan.chains * len(plan.samplers) * plan.steps * _SHARE / 2  # float64 costs twice float32
    steps = int(np.clip(evaluations, *_LANCZOS_STEPS))
    keys = _keys(plan, steps)
    todo = [t for t, key in enumerate(keys) if key not in _known]
    found = dict(zip(todo, _curvatures(plan, todo, steps), strict=True)) if todo else {}
    for t, value in found.items():
        if keys[t] is not None:
            _known[keys[t]] = value
    values = np.array([found[t] if t in found else _known[key] for t, key in enumerate(keys)])
    while len(_known) > _LARGEST_CACHE:
        _known.pop(next(iter(_known)))
    return values[:, 0], values[:, 1], values[:, 2]


def _keys(plan: ChainPlan, steps: int) -> list[str | None]:
    """Return a digest of all that the curvature at each checkpoint depends on; None if something has none."""
    checkpoints = plan.checkpoints
    assert isinstance(checkpoints, ModuleCheckpoints)
    try:
        common = digest((checkpoints.model, plan.data, plan.weights, plan.batch_size, plan.dtype, steps))
        each = [(checkpoints.weights_at(t), sorted(checkpoints.state_at(t).items())) for t in range(len(checkpoints))]
        return [digest((common, one)) for one in each]
    except TypeError:
        return [None] * len(checkpoints)


def _curvatures(plan: ChainPlan, todo: list[int], steps: int) -> list[tuple[float, float, float]]:
    samples, n = Samples.of(plan.data), len(plan.data)
    few = n
    if plan.batch_size is not None:
        affordable = plan.chains * len(plan.samplers) * plan.steps * plan.batch_size * _SHARE / steps
        few = int(min(max(affordable, plan.batch_size, _FEWEST), n))
    shuffled = np.random.default_rng(0).permutation(n)
    halves = [np.arange(n)] if 2 * few >= n else [np.sort(shuffled[:few]), np.sort(shuffled[few : 2 * few])]
    first, *others = (_part(plan, samples, rows, steps) for rows in halves)
    together = min(first.engine.together, len(todo))
    result = []
    for k in range(0, len(todo), together):
        block = todo[k : k + together]
        hessians = _Hessians(first, block)
        low, high, vector = _lanczos(hessians, steps, keep=bool(others))
        for other in others:
            low = _dots(vector, _Hessians(other, block).times(vector)) / _dots(vector, vector)
        steepest = hessians.slope.abs().amax(1)
        result += list(zip(low.tolist(), high.tolist(), steepest.tolist(), strict=True))
    return result


def _part(plan: ChainPlan, samples: Samples, rows: np.ndarray, steps: int) -> ChainPlan:
    """Return a plan for gradients of some of the samples, in float64 if the module can."""
    part = samples if len(rows) == len(samples) else samples[rows]
    changed = {"data": part, "weights": plan.weights[rows], "recorded": Recorded(part), "batch_size": None}
    result = replace(plan, **changed, draws=steps + 1, burn_in=0, thin=1)
    try:
        double = replace(result, dtype=torch.float64)
        _ = double.engine
        return double
    except ValueError:
        return result


class _Hessians:
    """Hessians of the mean loss at some checkpoints: products as differences of gradients, a row for each."""

    def __init__(self, plan: ChainPlan, block: list[int]) -> None:
        self._target = ModuleTarget(plan, len(block))
        self._target.load(*plan.starts(block))
        (self._weights,), (self._gradient,) = self._target.weights.parts, self._target.gradient.parts
        self._at = self._weights.clone()
        self.slope = self._slope().clone()
        self._step = torch.finfo(plan.dtype).eps ** 0.5 * (1 + self._at.norm(dim=1, keepdim=True))

    def _slope(self) -> Float[torch.Tensor, "c d"]:
        with torch.no_grad():
            self._target.evaluate(draw=None, mean_loss=False, batch=None)
        return self._gradient

    def times(self, vectors: Float[torch.Tensor, "c d"]) -> Float[torch.Tensor, "c d"]:
        """Return the product of each checkpoint's Hessian with its row."""
        scale = self._step / vectors.norm(dim=1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)
        torch.addcmul(self._at, vectors, scale, out=self._weights)
        return (self._slope() - self.slope) / scale


def _lanczos(
    hessians: _Hessians, steps: int, *, keep: bool
) -> tuple[Float[torch.Tensor, " c"], Float[torch.Tensor, " c"], Float[torch.Tensor, "c d"]]:
    """Return the largest Ritz value, the same with its residual and tolerance added, and its vector if to be kept.

    Without orthogonalisation: what comes back of a direction once found is another copy of its value, no larger one.
    """
    chains, d = hessians.slope.shape
    steps = min(steps, d, max(_LANCZOS_STEPS[0], _KEPT // (chains * d)) if keep else d)
    start = torch.randn(d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = (start / start.norm()).to(hessians.slope).expand(chains, -1)
    before, beta = torch.zeros_like(v), v.new_zeros(chains)
    diagonal: list[torch.Tensor] = []
    beside: list[torch.Tensor] = []
    basis: list[torch.Tensor] = []
    ritz: torch.Tensor | None = None
    for _ in range(steps):
        basis += [v] if keep else []
        u = hessians.times(v) - beta[:, None] * before
        diagonal.append(_dots(u, v))
        u -= diagonal[-1][:, None] * v
        before, beta = v, u.norm(dim=1)
        matrix = torch.diag_embed(torch.stack(diagonal, 1))
        if beside:
            matrix += torch.diag_embed(torch.stack(beside, 1), -1) + torch.diag_embed(torch.stack(beside, 1), 1)
        values, vectors = torch.linalg.eigh(matrix.double().cpu())
        last, ritz = ritz, values[:, -1]
        beside.append(beta)
        v = u / beta[:, None].clamp(min=torch.finfo(u.dtype).tiny)
        if last is not None and bool(((ritz - last).abs() <= _LANCZOS_TOLERANCE / 10 * ritz.abs()).all()):
            break
    assert ritz is not None
    residual = beta.double().cpu() * vectors[:, -1, -1].abs()
    vector = v
    if keep:
        vector = torch.einsum("kcd,ck->cd", torch.stack(basis), vectors[:, :, -1].to(v))
    return ritz, ritz + residual + _LANCZOS_TOLERANCE * ritz.abs(), vector


def _dots(a: Float[torch.Tensor, "c d"], b: Float[torch.Tensor, "c d"]) -> Float[torch.Tensor, " c"]:
    return (a * b).sum(1)
