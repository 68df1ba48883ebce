"""What single pairs of tokens show: the limit of strong localization, and noise against the length of chains."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from numerics import (
    CausalTransformer,
    TokenDraws,
    TorchModel,
    TransformerConfig,
    class_gradient_cosine,
    next_token_loss,
    token_samples,
)
from numerics.language.live_model import LiveModel
from numerics.language.tokens import token_tensors
from numerics.threads import one_thread
from theory import pair_noise
from theory.trajectories import labelled_array
from validation.experiments.language import GROUPS_OF_PAIRS, InductionRun

__all__ = ["limit_and_noise", "measured_noise", "noise_of_pairs", "recording_times", "some_tokens"]

_SHOWN = 60  # tokens whose pairs stand for all
_LENGTHS = (0.05, 0.1, 0.2, 0.5, 1.0)  # shares of a chain


def some_tokens(run: InductionRun) -> Int[np.ndarray, " k"]:
    """Return the places of repeated and fresh tokens, evenly over all sequences.

    Examples
    --------
    >>> from validation.experiments.language import InductionSettings
    >>> len(some_tokens(InductionRun(InductionSettings.seeded(0, quick=True))))
    56
    """
    places = np.flatnonzero(run.sequences.repeated | run.sequences.fresh)
    return places[:: max(1, len(places) // _SHOWN)]


def measured_noise(draws: TokenDraws, epoch: float, tokens: Int[np.ndarray, " k"], length: int) -> float:
    """Return the standard deviation of a pair's correlation from half of the chains, as both halves differ.

    Only the first `length` draws of each chain count. What all pairs have in common does not: halves agree on it.

    Examples
    --------
    >>> from numerics import as_token_draws
    >>> noise = np.random.default_rng(0).normal(size=(1, 8, 50, 1, 40))
    >>> round(measured_noise(as_token_draws(noise), 0.0, np.arange(40), 50) * (4 * 50 - 1) ** 0.5, 1)
    1.0
    """
    chains = [np.asarray(chain[:length, tokens], dtype=np.float64) for chain in draws.at(epoch)]
    half = len(chains) // 2
    first, second = (np.corrcoef(np.concatenate(part).T) for part in (chains[:half], chains[half : 2 * half]))
    apart = np.asarray(first - second)[np.triu_indices(len(tokens), 1)]
    return float(np.sqrt(np.mean(np.square(apart)) / 2))


def noise_of_pairs(run: InductionRun, *, chains: int = 8) -> xr.Dataset:
    """Return the noise of a pair at the last checkpoint from chains of many lengths, and that of unrelated losses.

    Returns
    -------
    xarray.Dataset
        dims (length,): ``noise``, measured, from half of the chains; ``unrelated``, `theory.pair_noise` of as many;
        coordinates ``relaxation_times`` and ``step_size``.
    """
    s, last = run.settings, run.sampled_steps[-1:]
    localization, found = s.sampler.localization, []
    tokens = some_tokens(run)
    for step_size in (s.sampler.step_size / 50, s.sampler.step_size):
        sampler = replace(s.sampler, step_size=step_size)
        draws = run.draws_of("noise", last, sampler=sampler, chains=chains, burn_in=0)
        for share in _LENGTHS:
            length = max(4, round(share * s.draws))
            times = step_size * localization * length / 2
            measured = measured_noise(draws, float(last[0]), tokens, length)
            found.append((times, step_size, measured, pair_noise(times, chains=chains // 2, draws=length)))
    times, steps, noise, unrelated = np.array(found).T
    coords = {"length": np.arange(len(times))}
    return xr.Dataset(
        {
            "noise": labelled_array(noise, coords, "noise", {"chains": chains // 2, "tokens": len(tokens)}),
            "unrelated": labelled_array(unrelated, coords, "unrelated", {"chains": chains // 2}),
        }
    ).assign_coords(relaxation_times=("length", times), step_size=("length", steps))


def recording_times(
    *, recorded: int = 75, batch_size: int = 8, rounds: int = 9, seed: int = 0
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, " r"], Float[np.ndarray, " r"]]:
    """Return the CPU time of a step that records every token, one that records means of sequences, and a bare one.

    Of the printed 600 sequences and batches of 64 the ratio is kept. Rounds take the three in turn, shape (rounds,).
    """
    model = TorchModel(CausalTransformer(TransformerConfig(), seed=seed), next_token_loss)
    live = LiveModel(model, model.initial())
    generator = np.random.default_rng(seed)
    asked = token_samples(generator.integers(256, size=(recorded, 65)))
    inputs, targets = token_tensors(asked[:batch_size])
    times = np.empty((3, rounds + 1))
    with tempfile.TemporaryFile() as file, one_thread():
        kept = np.memmap(file, np.float32, "w+", shape=(recorded, 64))

        def every_token() -> None:
            kept[:] = live.record(asked).numpy()

        def means() -> None:
            live.record(asked).mean(dim=1)

        for k in range(rounds + 1):
            for row, record in enumerate((every_token, means, None)):
                start = time.process_time()
                live.mean_loss_and_gradient(inputs, targets)
                live.weights.add_(live.gradient, alpha=-1e-4)
                if record is not None:
                    record()
                times[row, k] = time.process_time() - start
    token, sequence, bare = times[:, 1:]  # the first round warms up
    return token, sequence, bare


def limit_and_noise(run: InductionRun) -> xr.Dataset:
    """Return what Figure L1 shows of a run.

    Returns
    -------
    xarray.Dataset
        ``correlation``, ``covariance`` and their ``_error``, dims (pair, epoch), at the sampled steps; the same in the
        limit of strong localization, ``correlation_limit`` and ``covariance_limit``, dims (pair, step), at all
        checkpoints; and what `noise_of_pairs` returns.
    """
    found: dict[str, xr.DataArray] = {}
    limit = class_gradient_cosine(token_samples(run.sequences.ids), run.checkpoints, run.classes, apart="sequence")
    sampled = run.influence
    for name, scale in (("correlation", 1.0), ("covariance", run.settings.sampler.localization)):
        errors = xr.apply_ufunc(np.fmax, sampled[f"{name}_error"], sampled[f"{name}_chain_error"])
        for key, table in ((name, sampled[name]), (f"{name}_error", errors)):
            found[key] = _lines(table, "epoch", key)
        found[f"{name}_limit"] = _lines(limit[name] / scale, "step", f"{name}_limit")
    return xr.Dataset(found | dict(noise_of_pairs(run).data_vars))


def _lines(table: xr.DataArray, along: str, name: str) -> xr.DataArray:
    values: Float[np.ndarray, "pair t"] = np.stack(
        [table.sel(source=a, query=b).values for a, b in GROUPS_OF_PAIRS.values()]
    )
    return labelled_array(values, {"pair": list(GROUPS_OF_PAIRS), along: table["epoch"].values}, name)
