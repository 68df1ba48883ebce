r"""Sampling per token: losses of every token under the local posterior of checkpoints (paper 4, D.1.2, D.2).

.. math:: p(w) \propto \exp\Bigl(-\frac{n_\beta}{N J} \sum_{i,k} \ell_{ik}(w) - \tfrac{\gamma}{2} \|w - w^*\|^2\Bigr)

The sum runs over the tokens of a corpus, from which every step takes the gradient of a batch of sequences. Losses are
recorded on other sequences that do not enter the gradient, or on the corpus itself. The influence of the weight of
token i on the loss of token j is -n_beta / (N J) Cov(l_i, l_j).
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from numerics.devices import usable_device
from numerics.errors import SamplerDiverged, StepSizeWarning, StoreMismatch
from numerics.executors import run_tasks
from numerics.language.live_model import LiveModel
from numerics.language.token_draws import TokenDraws, chain_path
from numerics.language.tokens import token_tensors
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.digest import digest
from numerics.models.given import check_tokens_given
from numerics.models.samples import Samples
from numerics.models.slopes import check_gradients
from numerics.sampling.samplers import SGLD, Sampler
from numerics.stores import read_object, write_whole
from numerics.threads import one_thread
from theory import checks

__all__ = ["sample_tokens"]

_CURVATURE_TOLERANCE = 0.05  # relative error of the largest eigenvalue, which the batch blurs by more
_CURVATURE_SEQUENCES = 64  # sequences that stand for the corpus, a batch if that is larger
_CURVATURES = "curvature.json"


def sample_tokens(
    corpus: Samples,
    checkpoints: ModuleCheckpoints,
    folder: str | os.PathLike[str],
    sampler: Sampler | None = None,
    *,
    recorded: Samples | None = None,
    chains: int = 4,
    draws: int = 200,
    burn_in: int = 0,
    thin: int = 1,
    batch_size: int | None = 64,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    executor: Executor | None = None,
    progress: Callable[[int], object] | None = None,
) -> TokenDraws:
    """Draw the losses of every token under the local posterior of every checkpoint, into a folder.

    Parameters
    ----------
    corpus
        Sequences whose mean loss over all tokens is sampled; see `token_samples`.
    checkpoints
        Weights at which chains start and to which they are pulled, of a model whose loss returns (n, J) numbers, such
        as `next_token_loss`.
    folder
        Where the draws are kept, 4 bytes a token and draw. A call with the same arguments goes on with the chains that
        are missing.
    sampler
        `SGLD` or `RMSPropSGLD`; its ``n_beta`` multiplies the mean over sequences and tokens.
    recorded
        Sequences whose losses are recorded; they enter no gradient unless they are the corpus itself, which is recorded
        if not given.
    chains, draws
        Chains a checkpoint and draws a chain. The first draw is the checkpoint itself unless there is a burn-in.
    burn_in, thin
        Steps before the first draw, and steps from one draw to the next.
    batch_size
        Sequences of each step's gradient, drawn afresh without replacement; None for all of them.
    seed
        The bits of a chain depend on the seed, its epoch and its number alone, whatever else runs and wherever.
    dtype, device
        Of the chains. Recorded losses are float32.
    executor
        Any `concurrent.futures.Executor`, whose workers must see the folder; a task is one chain. This process, one
        chain after the other, if not given.
    progress
        Called with the number of chains finished since the last call.

    Returns
    -------
    TokenDraws
        The draws, mapped from their files.

    Raises
    ------
    SamplerDiverged
        If a chain leaves the finite numbers; it names checkpoint, chain and draw. Chains finished before are kept.
    UnstableStep
        If the step size is outside the stable range at some checkpoint.
    StoreMismatch
        If the folder holds another call.
    ValueError
        If an argument does not fit.

    Warns
    -----
    StepSizeWarning
        If the step size may be outside the stable range.

    Examples
    --------
    >>> import tempfile
    >>> from numerics.language.bigram import BigramModel
    >>> from numerics.language.tokens import next_token_loss, token_samples
    >>> from numerics.models.module import TorchModel
    >>> model = TorchModel(BigramModel(4), next_token_loss)
    >>> checkpoints = ModuleCheckpoints(np.array([0]), model, model.initial()[None])
    >>> corpus = token_samples([[0, 1, 2], [3, 2, 1], [1, 1, 0]])
    >>> draws = sample_tokens(corpus, checkpoints, tempfile.mkdtemp(), draws=10, chains=2, batch_size=2)
    >>> draws.at(0)[0].shape
    (10, 6)
    """
    check_tokens_given(corpus, checkpoints)
    sampler = sampler or SGLD()
    checks.instance("sampler", sampler, Sampler, made_by="SGLD(...) or RMSPropSGLD(...)")
    plan = _plan(corpus, recorded, sampler, chains, draws, burn_in, thin, batch_size, seed, dtype, device)
    shape = _token_shape(plan.recorded)
    check_gradients(checkpoints.model_at(0), checkpoints.weights_at(0), corpus, all_move=True)
    result = TokenDraws(np.asarray(checkpoints.epochs), plan.chains, plan.draws, shape, plan.attributes(), Path(folder))
    result.save_call(plan.key(checkpoints))
    _check_steps(plan, checkpoints, Path(folder), executor)
    tasks = [
        _Task(plan, checkpoints.at([epoch]), chain, Path(folder))
        for epoch in checkpoints.epochs
        for chain in range(plan.chains)
        if not chain_path(Path(folder), float(epoch), chain).exists()
    ]
    if progress is not None and len(tasks) < plan.chains * len(checkpoints):
        progress(plan.chains * len(checkpoints) - len(tasks))
    _each(_run_chain, tasks, executor, lambda _, __: progress(1) if progress is not None else None)
    return result


@dataclass(frozen=True, eq=False)
class _Plan:
    corpus: Samples
    recorded: Samples
    sampler: Sampler
    chains: int
    draws: int
    burn_in: int
    thin: int
    batch_size: int | None
    seed: int
    dtype: torch.dtype
    device: str

    def attributes(self) -> dict[str, object]:
        """Return how the draws are made."""
        n, j = _token_shape(self.corpus)
        return {
            "estimator": type(self.sampler).__name__,
            **asdict(self.sampler),
            "convention": "n_beta multiplies the mean over sequences and tokens: influence = -n_beta / (N J) Cov",
            "sequences": n,
            "positions": j,
            "recorded": "the corpus" if self.recorded is self.corpus else "other sequences",
            **{key: getattr(self, key) for key in ("chains", "draws", "burn_in", "thin", "batch_size", "seed")},
            "dtype": str(self.dtype).removeprefix("torch."),
            "torch_version": str(torch.__version__),
        }

    def key(self, checkpoints: ModuleCheckpoints) -> str:
        """Return a digest of everything that decides on the bits, the weights apart: each checkpoint keeps its own."""
        data = [(samples.inputs, samples.targets) for samples in (self.corpus, self.recorded)]
        model = checkpoints.model
        code = [model.loss, model.call, model.free, model.state, [type(m) for m in model.module.modules()]]
        return digest((self.attributes(), self.device, checkpoints.epochs, str(model.module), code, data))


@dataclass(frozen=True, eq=False)
class _Task:
    plan: _Plan
    checkpoint: ModuleCheckpoints
    chain: int
    folder: Path


def _plan(
    corpus: Samples,
    recorded: Samples | None,
    sampler: Sampler,
    chains: int,
    draws: int,
    burn_in: int,
    thin: int,
    batch_size: int | None,
    seed: int,
    dtype: torch.dtype,
    device: str | torch.device,
) -> _Plan:
    for name, value, least in (("chains", chains, 1), ("draws", draws, 1), ("burn_in", burn_in, 0), ("thin", thin, 1)):
        checks.integer(name, value, at_least=least)
    checks.integer("seed", seed, at_least=0)
    if sampler.adjusts:
        raise ValueError(
            f"{type(sampler).__name__} accepts or refuses a step by the loss over all samples, which no batch gives; "
            "use SGLD or RMSPropSGLD, or numerics.sample."
        )
    if sampler.adaptation_steps > burn_in:
        raise ValueError(
            f"burn_in is {burn_in}, but the preconditioner adapts for {sampler.adaptation_steps} steps, which belong "
            "to no stationary law; use a burn_in of at least that many."
        )
    if batch_size is not None and checks.integer("batch_size", batch_size, at_least=1) >= len(corpus):
        batch_size = None
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64, but {dtype} was given.")
    asked = corpus if recorded is None else recorded
    return _Plan(
        corpus, asked, sampler, chains, draws, burn_in, thin, batch_size, seed, dtype, str(usable_device(device))
    )


def _token_shape(samples: Samples) -> tuple[int, int]:
    """Return the numbers of sequences and of positions, refusing samples that are not sequences of tokens."""
    _, targets = token_tensors(samples)
    return targets.shape[0], targets.shape[1]


def _each(
    function: Callable, tasks: list[_Task], executor: Executor | None, finished: Callable[[int, object], object]
) -> None:
    if executor is not None:
        run_tasks(function, tasks, finished, executor)
        return
    for number, task in enumerate(tasks):
        finished(number, function(task))


# --- whether the step is stable ----------------------------------------------------------------------------------


def _known_curvatures(path: Path) -> dict[str, list[float]]:
    """Return what was measured before, by epoch; nothing where the file is damaged, so that it is measured again."""
    try:
        found = read_object(path) if path.exists() else {}
        return {epoch: [float(curvature), float(slope)] for epoch, (curvature, slope) in found.items()}
    except (ValueError, TypeError):
        return {}


def _check_steps(plan: _Plan, checkpoints: ModuleCheckpoints, folder: Path, executor: Executor | None) -> None:
    """Refuse a step that is unstable at some checkpoint; warn once where it may be. Curvatures are kept in a file."""
    path = folder / _CURVATURES
    known = _known_curvatures(path)
    tasks = [_Task(plan, checkpoints.at([e]), 0, folder) for e in checkpoints.epochs if repr(float(e)) not in known]

    def finished(number: int, result: object) -> None:
        assert isinstance(result, tuple)
        known[repr(float(tasks[number].checkpoint.epochs[0]))] = list(result)
        write_whole(path, json.dumps(known))

    _each(_measure_curvature, tasks, executor, finished)
    doubts = []
    for epoch in checkpoints.epochs:
        largest, slope = known[repr(float(epoch))]
        spread = 5 * max(largest, 0.0) / plan.sampler.localization**0.5 if plan.sampler.localization else float("inf")
        bounds = (largest, largest * (1 + _CURVATURE_TOLERANCE))
        doubts.append(plan.sampler.check_step(bounds, slope + spread, float(epoch)))
    if found := [doubt for doubt in doubts if doubt]:
        where = f" (and at {len(found) - 1} more checkpoints)" if len(found) > 1 else ""
        warnings.warn(found[0] + where, StepSizeWarning, stacklevel=3)


def _measure_curvature(task: _Task) -> tuple[float, float]:
    """Return the largest eigenvalue of the Hessian, and the largest |gradient entry|, on some sequences of the corpus.

    The largest eigenvalue is a convex function of the matrix, so that of a part is on average no smaller than that of
    the whole; of a handful of sequences it is twice that.
    """
    plan = task.plan
    with one_thread():
        live = LiveModel(task.checkpoint.model_at(0), _weights(task))
        count = min(len(plan.corpus), max(_CURVATURE_SEQUENCES, plan.batch_size or 0))
        chosen = torch.from_numpy(np.random.default_rng(plan.seed).permutation(len(plan.corpus))[:count])
        inputs, targets = (x[chosen].to(plan.device) for x in token_tensors(plan.corpus))
        product = live.curvature_product(inputs, targets)
        slope = float(live.gradient.abs().max())
        size = len(live.weights)

        def apply(vector: np.ndarray) -> np.ndarray:
            return product(live.weights.new_tensor(vector.ravel())).double().cpu().numpy()

        if size < 3:
            matrix = np.stack([apply(row) for row in np.eye(size)])
            return float(np.linalg.eigvalsh(matrix)[-1]), slope
        operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
        start = np.random.default_rng(0).normal(size=size)
        first = apply(start)
        if not np.isfinite(first).all():
            raise ValueError(
                f"the loss or its curvature is not finite at epoch {float(task.checkpoint.epochs[0]):g}; leave out "
                "that checkpoint."
            )
        if not first.any():
            return 0.0, slope
        try:
            found = eigsh(
                operator,
                k=1,
                which="LA",
                v0=start,
                tol=_CURVATURE_TOLERANCE,
                ncv=min(size, 12),
                return_eigenvectors=False,
            )
            return float(found[0]), slope
        except ArpackNoConvergence as stopped:  # what was reached is still a bound from below
            return float(np.max(stopped.eigenvalues, initial=0.0)), slope


# --- one chain ---------------------------------------------------------------------------------------------------


def _weights(task: _Task) -> Float[torch.Tensor, " d"]:
    return task.checkpoint.weights_at(0).to(task.plan.device, task.plan.dtype)


def _run_chain(task: _Task) -> None:
    """Run one chain and leave its draws in its file."""
    plan, epoch = task.plan, float(task.checkpoint.epochs[0])
    path = chain_path(task.folder, epoch, task.chain)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = _weights(task)
    _same_weights(path.parent / "weights.digest", weights, epoch)
    partial = path.with_name(f"{path.name}.partial")
    kept = np.lib.format.open_memmap(
        partial, mode="w+", dtype=np.float32, shape=(plan.draws, *_token_shape(plan.recorded))
    )
    with one_thread(), torch.no_grad():
        _chain(task, weights, kept)
    kept.flush()
    os.replace(partial, path)


def _chain(task: _Task, start: Float[torch.Tensor, " d"], kept: np.ndarray) -> None:
    plan, epoch = task.plan, float(task.checkpoint.epochs[0])
    live = LiveModel(task.checkpoint.model_at(0), start)
    inputs, targets = (x.to(plan.device) for x in token_tensors(plan.corpus))
    recorded = plan.recorded.like(start)
    entropy = np.random.SeedSequence([plan.seed, int(np.float64(epoch).view(np.uint64)), task.chain])
    for_noise, for_batches = entropy.spawn(2)
    noise_of = torch.Generator(plan.device).manual_seed(int(for_noise.generate_state(1, np.uint64)[0]))
    batches = np.random.default_rng(for_batches)
    rule = type(plan.sampler).rule([plan.sampler], [start[None].clone()])
    w, gradient, noise = live.weights[None], live.gradient[None], torch.empty_like(start)
    for step in range(plan.burn_in + (plan.draws - 1) * plan.thin + 1):
        draw, rest = divmod(step - plan.burn_in, plan.thin)
        if draw >= 0 and rest == 0:
            kept[draw] = live.record(recorded).cpu().numpy()
            if not np.isfinite(kept[draw].sum()):
                raise SamplerDiverged(
                    f"chain {task.chain} at epoch {epoch:g} diverged: a token's loss at draw {draw} is not finite. Use "
                    f"a smaller step_size than {plan.sampler.step_size:g}, a stronger localization than "
                    f"{plan.sampler.localization:g}, or, where a preconditioner divides by squared gradients of rarely "
                    "used weights, a larger stability or initial_square.",
                    *(0, epoch, task.chain, draw),
                )
        if plan.batch_size is None:
            live.mean_loss_and_gradient(inputs, targets)
        else:
            chosen = torch.from_numpy(batches.choice(len(inputs), plan.batch_size, replace=False, shuffle=False))
            live.mean_loss_and_gradient(inputs[chosen], targets[chosen])
        noise.normal_(generator=noise_of)
        rule.move([w], [gradient], [noise[None]])


def _same_weights(path: Path, weights: Float[torch.Tensor, " d"], epoch: float) -> None:
    """Refuse to add chains of other weights to those that are there."""
    found = digest(weights)
    if path.exists() and path.read_text() != found:
        raise StoreMismatch(
            f"{path.parent} holds chains of other weights at epoch {epoch:g}; name another folder for this model."
        )
    write_whole(path, found)  # chains of one checkpoint run side by side, and read it
