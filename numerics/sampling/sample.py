r"""Draws from the local posterior of checkpoints: losses of samples and other functions of the weights.

.. math:: p(w) \propto \exp\bigl(-n_\beta L(w; \beta) - \tfrac{\gamma}{2} \| w - w^* \|^2\bigr), \qquad
    L(w; \beta) = \frac1N \sum_i \beta_i \ell_i(w) .
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.given import check_checkpoints, check_data
from numerics.models.linear import Checkpoints
from numerics.models.samples import Parts, Samples
from numerics.models.slopes import check_gradients
from numerics.sampling.chain_state import ChainState
from numerics.sampling.chains import run_chains
from numerics.sampling.plan import ChainPlan, Data, Items, Observable, Recorded, Weights
from numerics.sampling.samplers import RMSPropSGLD, Sampler
from numerics.sampling.settings import ChainSettings
from numerics.sampling.stability import check_steps
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = ["check_items", "label", "make_plan", "plan_attributes", "sample"]

_BLOCKS = 32  # blocks of draws a chain is handed over in, the batch means of standard errors


def sample(
    dataset: Data,
    checkpoints: Weights,
    sampler: Sampler | Sequence[Sampler] | None = None,
    *,
    chains: int = 4,
    draws: int = 1000,
    burn_in: int = 0,
    thin: int = 1,
    weights: ArrayLike | None = None,
    batch_size: int | None = None,
    observables: Items | Mapping[str, Observable] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    state: ChainState | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Draw losses, and functions of the weights, under the local posterior of every checkpoint.

    Parameters
    ----------
    dataset
        Training set, whose weighted mean loss is sampled.
    checkpoints
        Weights at which chains start and to which they are pulled: `Checkpoints` of a linear network, which have an
        engine of their own, or `ModuleCheckpoints` of any torch module.
    sampler
        Algorithm and hyper-parameters; `RMSPropSGLD()` if not given. Several of one class run in one batch and give the
        result a dimension ``setting``; each chain's bits are those it has alone.
    chains, draws
        Chains per checkpoint and draws per chain. The first draw is the checkpoint itself, as in Algorithm 1, unless
        there is a burn-in.
    burn_in, thin
        Steps before the first draw, and steps from one draw to the next.
    weights
        Sample weights beta, shape (N,), >= 0; all 1 if not given. 0 for a sample not seen yet.
    batch_size
        Number of samples, drawn afresh without replacement for every step and chain, whose gradient stands for the
        mean; all of them if not given.
    observables
        Samples whose losses are recorded, which need not be those of the gradient; `Parts` of samples (tokens, pixels,
        outputs), each of whose losses is recorded; or functions by name of the parameters ("w1", "w2", or the module's
        names), recorded beside the training set's losses. The training set if not given.
    seed
        The same seed gives the same bits on the same machine for every chain, whatever runs beside it.
    dtype
        torch.float32 or torch.float64.
    device
        Device of the chains. On another than the CPU one generator serves a batch of chains.
    workers
        Threads over batches of chains; as many as this process may use cores if not given.
    state
        Where chains left off, see `ChainState`.
    progress
        Called with the number of chains of each finished batch.

    Returns
    -------
    xarray.DataArray
        dims ([setting,] epoch, chain, draw, sample), in the dtype asked for. All draws are held in memory;
        `bayesian_influence` streams. The attribute ``acceptance`` is the share of proposals accepted, where there are
        any; ``engine`` says how chains were evaluated. Parts have a MultiIndex (sample_name, sample_part).

    Raises
    ------
    SamplerDiverged
        If a chain leaves the finite numbers; it names checkpoint, chain and draw.
    UnstableStep
        If the step size is outside the stable range at some checkpoint.
    StoreMismatch
        If `state` is of another call.
    ValueError
        If an argument does not fit.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=200))
    >>> dict(sample(hierarchical_dataset(), run.checkpoints, chains=2, draws=5).sizes)
    {'epoch': 3, 'chain': 2, 'draw': 5, 'sample': 8}
    """
    if isinstance(observables, Mapping):
        recorded = Recorded(dataset, functions=observables)
    else:
        recorded = Recorded(dataset if observables is None else observables)
    settings = ChainSettings(chains, draws, burn_in, thin, weights, batch_size, seed, dtype, device)
    plan = make_plan(dataset, recorded, checkpoints, sampler, settings)
    if state is not None:
        state.check_belongs(plan.fingerprint())
    kept = np.empty((plan.total, draws, len(recorded)), np.float64 if dtype == torch.float64 else np.float32)

    def record(rows: slice, first_draw: int, values: np.ndarray) -> None:
        kept[rows, first_draw : first_draw + values.shape[1]] = values

    acceptance = run_chains(plan, record, workers=workers, progress=progress, state=state)
    tail = {"chain": np.arange(chains), "draw": np.arange(draws), "sample": recorded.labels}
    several = not (sampler is None or isinstance(sampler, Sampler))
    return label(plan, kept, tail, "loss", plan_attributes(plan, acceptance), several=several)


def make_plan(
    dataset: Data,
    recorded: Recorded,
    checkpoints: Weights,
    sampler: Sampler | Sequence[Sampler] | None,
    settings: ChainSettings,
) -> ChainPlan:
    """Put the arguments of a call to a sampler together, refusing what does not fit."""
    check_data(dataset)
    check_checkpoints(checkpoints)
    for items in (dataset, *recorded.groups):
        check_items(items, checkpoints)
    if isinstance(checkpoints, ModuleCheckpoints):
        check_gradients(checkpoints.model_at(0), checkpoints.weights_at(0), Samples.of(dataset), all_move=True)
    if sampler is None:
        sampler = RMSPropSGLD()
    samplers = tuple(sampler) if isinstance(sampler, Sequence) else (sampler,)
    for one in samplers:
        checks.instance("sampler", one, Sampler, made_by="SGLD(...), RMSPropSGLD(...) or MALA(...)")
    _check_samplers(samplers, settings.burn_in, settings.batch_size)
    beta = settings.sample_weights(len(dataset))
    if settings.batch_size is not None and settings.batch_size > len(dataset):
        raise ValueError(
            f"a batch of {settings.batch_size} samples cannot be drawn from {len(dataset)}; lower batch_size."
        )
    plan = ChainPlan(
        data=dataset,
        weights=beta,
        recorded=recorded,
        checkpoints=checkpoints,
        samplers=samplers,
        chains=settings.chains,
        draws=settings.draws,
        burn_in=settings.burn_in,
        thin=settings.thin,
        batch_size=settings.batch_size,
        block=-(-settings.draws // _BLOCKS),
        seed=settings.seed,
        dtype=settings.dtype,
        device=torch.device(settings.device),
    )
    check_steps(plan, stacklevel=4)
    return plan


def check_items(items: Items, checkpoints: Weights) -> None:
    """Refuse samples, or parts of samples, whose losses these checkpoints do not have."""
    if isinstance(checkpoints, Checkpoints):
        if not isinstance(items, Dataset):
            raise TypeError(
                "the checkpoints of a linear network go with a theory.Dataset; for Samples of any kind, and for parts "
                "of them, give the network as a module, see linear_as_module."
            )
        checkpoints.check_fits(items)
        return
    checkpoints.check_fits(items.samples if isinstance(items, Parts) else items)
    if isinstance(items, Parts):
        weights, few = checkpoints.weights_at(0), items.samples[:1]
        with torch.no_grad():
            losses = checkpoints.model_at(0).part_losses(weights, few.like(weights))
        Parts(few, items.names).flattened(losses)


def _check_samplers(samplers: tuple[Sampler, ...], burn_in: int, batch_size: int | None) -> None:
    if not samplers:
        raise ValueError("no sampler was given; give one, or a list that holds at least one.")
    kinds = {type(sampler).__name__ for sampler in samplers}
    if len(kinds) > 1:
        raise ValueError(f"samplers of one batch must be of one class, but {', '.join(sorted(kinds))} were given.")
    adaptations = {sampler.adaptation_steps for sampler in samplers}
    if len(adaptations) > 1:
        raise ValueError(
            "samplers of one batch must adapt for the same number of steps; run the others in another call."
        )
    if max(adaptations) > burn_in:
        raise ValueError(
            f"burn_in is {burn_in}, but the preconditioner adapts for {max(adaptations)} steps, which belong to no "
            "stationary law; use a burn_in of at least that many."
        )
    if batch_size is not None and samplers[0].adjusts:
        raise ValueError(
            f"{type(samplers[0]).__name__} accepts or refuses a step by the loss over all samples; leave out "
            "batch_size."
        )


def label(
    plan: ChainPlan,
    values: np.ndarray,
    tail: Mapping[str, object],
    name: str,
    attrs: Mapping[str, object],
    *,
    several: bool,
) -> xr.DataArray:
    """Label values whose first axis runs over settings, checkpoints and whatever the first of `tail` adds.

    Pairs (sample, part) along a dimension become a MultiIndex of the levels "<dimension>_name" and "<dimension>_part".
    """
    settings, epochs = len(plan.samplers), plan.checkpoints.epochs
    pairs = {dim: labels for dim, labels in tail.items() if isinstance(labels, tuple) and isinstance(labels[0], tuple)}
    plain = {dim: np.arange(len(labels)) if dim in pairs else labels for dim, labels in tail.items()}  # type: ignore[arg-type]
    coords = {"setting": np.arange(settings), "epoch": epochs, **plain}
    if not several:
        del coords["setting"]
    shape = [len(labels) for labels in coords.values()]  # type: ignore[arg-type]
    array = labelled_array(values.reshape(shape), coords, name, attrs)
    for dim, labels in pairs.items():
        levels: Any = [f"{dim}_name", f"{dim}_part"]
        columns = {level: (dim, list(column)) for level, column in zip(levels, zip(*labels, strict=True), strict=True)}
        array = array.drop_vars(dim).assign_coords(columns).set_index({dim: levels})
    if not several:
        return array
    fields = [asdict(sampler) for sampler in plan.samplers]
    varied = {key: ("setting", [f[key] for f in fields]) for key in fields[0] if len({f[key] for f in fields}) > 1}
    return array.assign_coords(varied)


def plan_attributes(plan: ChainPlan, acceptance: float) -> dict[str, object]:
    """Return how draws were made, for the attributes of an array."""
    fields = [asdict(sampler) for sampler in plan.samplers]
    attrs: dict[str, object] = {"estimator": type(plan.samplers[0]).__name__}
    for key in fields[0]:
        values = [f[key] for f in fields]
        attrs[key] = values[0] if len(set(values)) == 1 else values
    if not np.isnan(acceptance):
        attrs["acceptance"] = acceptance
    return attrs | {
        "engine": plan.engine.name,
        "chains": plan.chains,
        "draws": plan.draws,
        "burn_in": plan.burn_in,
        "thin": plan.thin,
        "batch_size": plan.batch_size,
        "sample_weights": plan.weights,
        "seed": plan.seed,
        "dtype": str(plan.dtype).removeprefix("torch."),
    }
