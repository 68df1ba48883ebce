"""A small language model trained from scratch while induction heads form, and influence between its tokens (paper D.2).

One run is trained once, with dense checkpoints, and sampled per token at checkpoints before, during and after the
formation; claims and figures take everything from it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import numerics
from numerics import (
    SGLD,
    CausalTransformer,
    ModuleCheckpoints,
    PretrainingConfig,
    RepeatedSequences,
    Sampler,
    SyntheticCorpus,
    TokenDraws,
    TorchModel,
    TransformerConfig,
    class_influence,
    head_scores,
    next_token_loss,
    pretrain,
    repeated_sequences,
    sample_tokens,
    token_samples,
)
from numerics.executors import run_tasks
from numerics.models.digest import digest
from theory import steepest_gate
from theory.trajectories import labelled_array

__all__ = [
    "GROUPS_OF_PAIRS",
    "Counted",
    "InductionRun",
    "InductionSettings",
    "formation_of",
    "induction_run",
    "induction_runs",
    "kept_folder",
    "uncounted",
]

# The three lines of the paper's Fig. 15, as classes of tokens.
GROUPS_OF_PAIRS = {
    "repeated - repeated": ("repeated", "repeated"),
    "fresh - fresh": ("fresh", "fresh"),
    "fresh - repeated": ("fresh", "repeated"),
}


# What shows a long computation: called with a phrase and a number of steps, gives a function that counts steps done.
Counted = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]


@contextmanager
def uncounted(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show nothing."""
    yield lambda _: None


@dataclass(frozen=True)
class InductionSettings:
    """Settings of a run; the defaults form induction heads within some 1,300 steps, a minute and a half of one core.

    Parameters
    ----------
    model, corpus, training
        The transformer, what it is trained on, and how.
    every
        Steps from one checkpoint to the next.
    sequences, period
        Repeated sequences whose losses are recorded, sharing no token.
    around
        Steps before and after the formation at which the local posterior is sampled, beside an early checkpoint and the
        last.
    sampler, chains, draws, burn_in, batch_size
        Of the local posterior.
    corpus_size
        Sequences of the corpus that the sampler takes batches from, none of which was trained on.
    seed
        Of weights, corpus, sequences and chains.
    """

    model: TransformerConfig = field(default_factory=TransformerConfig)
    corpus: SyntheticCorpus = field(default_factory=SyntheticCorpus)
    training: PretrainingConfig = field(default_factory=PretrainingConfig)
    every: int = 25
    sequences: int = 8
    period: int = 32
    around: tuple[int, ...] = (-300, -100, -50, -25, 0, 25, 50, 100, 200, 400)
    sampler: Sampler = field(default_factory=lambda: SGLD(step_size=1e-4, n_beta=1024.0, localization=5000.0))
    chains: int = 4
    draws: int = 200
    burn_in: int = 20
    batch_size: int = 8
    corpus_size: int = 512
    seed: int = 0

    @property
    def trained_by(self) -> tuple[object, ...]:
        """What decides on the checkpoints, which settings that differ in their sampling alone share."""
        return (self.model, self.corpus, self.training, self.every, self.seed)

    @classmethod
    def seeded(cls, seed: int, *, quick: bool = False, brief: bool = False) -> InductionSettings:
        """Return the settings for one seed; `quick` ones take seconds, and no induction heads form.

        `brief` ones train the same model and sample it at half as many steps, half as long: what claims about three
        runs can afford.

        Examples
        --------
        >>> InductionSettings.seeded(3, quick=True).corpus.seed
        3
        """
        if not quick:
            whole = cls(corpus=SyntheticCorpus(seed=seed), seed=seed)
            return replace(whole, around=(-100, 0, 25, 50, 400), draws=100) if brief else whole
        return cls(
            model=TransformerConfig(vocabulary=32, context=16, width=16),
            corpus=SyntheticCorpus(vocabulary=32, length=17, successors=3, longest=8, seed=seed),
            training=PretrainingConfig(steps=40, batch_size=16),
            every=10,
            sequences=4,
            period=8,
            around=(0,),
            chains=2,
            draws=16,
            burn_in=2,
            batch_size=4,
            corpus_size=32,
            seed=seed,
        )


class InductionRun:
    """Everything measured of one run, each once when first asked for, and kept in a folder.

    Parameters
    ----------
    settings
        See `InductionSettings`.
    folder
        Where checkpoints and draws are kept, so that a killed run goes on; see `kept_folder` if not given.
    announce
        Called with a short phrase before each longer computation.
    device
        Where chains run.
    counted
        Called with a phrase and a number of steps, returns a context manager whose function counts steps done.

    Examples
    --------
    >>> run = InductionRun(InductionSettings.seeded(0, quick=True))
    >>> run.checkpoints.epochs.tolist(), run.sequences.ids.shape
    ([0.0, 10.0, 20.0, 30.0, 40.0], (4, 16))
    """

    def __init__(
        self,
        settings: InductionSettings | None = None,
        folder: Path | None = None,
        announce: Callable[[str], object] | None = None,
        device: str = "cpu",
        counted: Counted | None = None,
    ) -> None:
        self.settings = settings or InductionSettings()
        folder = folder or kept_folder("induction", self.settings.trained_by)
        self.folder = folder or Path(tempfile.mkdtemp(prefix="stagewise-language-"))
        if folder is None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._announce = announce or (lambda _: None)
        self._device = device
        self._counted = counted or uncounted

    @cached_property
    def training_loss(self) -> xr.DataArray:
        """Mean loss of the batch of every step, dims (step,)."""
        s = self.settings
        module = CausalTransformer(s.model, seed=s.seed)
        with self._counted("training a language model", s.training.steps) as advance:
            losses = pretrain(module, s.corpus, self.folder / "training", s.training, every=s.every, progress=advance)
        return labelled_array(losses, {"step": np.arange(len(losses))}, "loss", {"units": "nats"})

    @cached_property
    def checkpoints(self) -> ModuleCheckpoints:
        """All saved weights, read one at a time; epochs are steps."""
        _ = self.training_loss
        model = TorchModel(CausalTransformer(self.settings.model), next_token_loss)
        return ModuleCheckpoints.load(self.folder / "training", model)

    @cached_property
    def sequences(self) -> RepeatedSequences:
        """Sequences whose second half repeats the first."""
        s = self.settings
        return repeated_sequences(s.sequences, s.period, s.model.vocabulary, seed=s.seed)

    @cached_property
    def scores(self) -> xr.Dataset:
        """Induction and previous-token score of every head at every checkpoint."""
        self._announce("scoring attention heads")
        return head_scores(self.checkpoints, self.sequences)

    @cached_property
    def best_score(self) -> xr.DataArray:
        """Induction score of the best head at every checkpoint, dims (epoch,)."""
        return self.scores["induction"].max(("layer", "head"))

    @cached_property
    def formation(self) -> float:
        """First step at which the best induction score is more than half of its largest."""
        score = self.best_score.values
        return float(self.checkpoints.epochs[int(np.argmax(score > score.max() / 2))])

    @cached_property
    def losses(self) -> xr.Dataset:
        """Mean loss of repeated and of fresh tokens at every checkpoint, dims (epoch,)."""
        samples, found = token_samples(self.sequences.ids), []
        with torch.no_grad():
            for t in range(len(self.checkpoints)):
                model, weights = self.checkpoints.model_at(t), self.checkpoints.weights_at(t)
                losses = model.part_losses(weights, samples).double().numpy()
                found.append([losses[self.sequences.repeated].mean(), losses[self.sequences.fresh].mean()])
        values, epochs = np.array(found), {"epoch": self.checkpoints.epochs}
        return xr.Dataset(
            {name: labelled_array(values[:, k], epochs, name) for k, name in enumerate(("repeated", "fresh"))}
        )

    @cached_property
    def sampled_steps(self) -> np.ndarray:
        """Steps at which the local posterior is sampled."""
        steps = self.checkpoints.epochs
        wanted = [steps[min(4, len(steps) - 1)], *(self.formation + d for d in self.settings.around), steps[-1]]
        return np.unique([steps[np.abs(steps - step).argmin()] for step in wanted])

    def draws_of(self, name: str, steps: np.ndarray, **changes: object) -> TokenDraws:
        """Return draws at some steps with changed settings of the sampler, kept under a name of their own."""
        s = replace(self.settings, **changes)  # type: ignore[arg-type]
        corpus = s.corpus.batch(s.training.steps + 1, s.corpus_size)
        with self._counted("sampling the local posterior per token", s.chains * len(steps)) as advance:
            return sample_tokens(
                token_samples(corpus),
                self.checkpoints.at(steps),
                self.folder / f"{name}-{digest(repr((replace(s, around=()), steps.tolist())))[:12]}",
                s.sampler,
                recorded=token_samples(self.sequences.ids),
                chains=s.chains,
                draws=s.draws,
                burn_in=s.burn_in,
                batch_size=s.batch_size,
                seed=s.seed,
                device=self._device,
                progress=advance,
            )

    @cached_property
    def draws(self) -> TokenDraws:
        """Losses of every token of the repeated sequences at every draw."""
        return self.draws_of("draws", self.sampled_steps)

    @property
    def classes(self) -> dict[str, np.ndarray]:
        """Which predictions are of repeated tokens, and which of fresh ones."""
        return {"repeated": self.sequences.repeated, "fresh": self.sequences.fresh}

    def influence_of(self, draws: TokenDraws) -> xr.Dataset:
        """Return the influence between repeated and fresh tokens of different sequences."""
        blocks = min(8, draws.draws // 2)
        return class_influence(draws, self.classes, apart="sequence", blocks=blocks)

    @cached_property
    def influence(self) -> xr.Dataset:
        """Influence between repeated and fresh tokens of different sequences; see `class_influence`."""
        return self.influence_of(self.draws)


def formation_of(run: InductionRun) -> xr.Dataset:
    """Return what Figure 15 shows of a run: influence by kind of pair, losses, induction scores and the formation.

    Returns
    -------
    xarray.Dataset
        ``correlation``, ``covariance`` and their ``_error`` (the larger of those by blocks and by chains), dims (pair,
        epoch), at the sampled steps; ``loss_repeated``, ``loss_fresh``, dims (step,), and ``induction``, dims (step,
        layer, head), at all checkpoints; ``formation`` (a step) and ``half_log_v`` (nats).
    """
    influence, found = run.influence, {}
    for name in ("correlation", "covariance"):
        errors = xr.apply_ufunc(np.fmax, influence[f"{name}_error"], influence[f"{name}_chain_error"])
        for key, table in ((name, influence[name]), (f"{name}_error", errors)):
            lines = [table.sel(source=a, query=b).values for a, b in GROUPS_OF_PAIRS.values()]
            coords = {"pair": list(GROUPS_OF_PAIRS), "epoch": influence["epoch"].values}
            found[key] = labelled_array(np.stack(lines), coords, key, influence.attrs)
    steps = {"step": run.checkpoints.epochs}
    for name in ("repeated", "fresh"):
        found[f"loss_{name}"] = labelled_array(run.losses[name].values, steps, f"loss_{name}")
    heads = {key: run.scores[key].values for key in ("layer", "head")}
    found["induction"] = labelled_array(run.scores["induction"].values, steps | heads, "induction")
    found["formation"] = labelled_array(run.formation, {}, "formation")
    found["half_log_v"] = labelled_array(steepest_gate(run.settings.model.vocabulary)[1], {}, "half_log_v")
    return xr.Dataset(found)


@lru_cache(maxsize=8)
def induction_run(settings: InductionSettings) -> InductionRun:
    """Return the run of these settings that this process shares; its folder goes with it unless it is kept."""
    return InductionRun(settings)


def induction_runs(settings: Sequence[InductionSettings]) -> list[InductionRun]:
    """Return the runs of several settings, trained and sampled side by side, one a core, if they are not yet."""
    runs = [induction_run(each) for each in settings]
    missing = [run for run in runs if "influence" not in vars(run)]
    if len(missing) > 1:
        run_tasks(_measure, [(run.settings, run.folder) for run in missing], lambda *_: None)
    return runs


def _measure(task: tuple[InductionSettings, Path]) -> None:
    """Leave checkpoints and draws in the folder, from which the run in the calling process has them at once."""
    _ = InductionRun(*task).draws


def kept_folder(name: str, settings: object) -> Path | None:
    """Return where runs with these settings are kept: in the folder STAGEWISE_CACHE of the environment, if it is set.

    The name of the folder is a digest of the settings and of the code of `numerics`, so that what another code made is
    never taken for this one's.

    Examples
    --------
    >>> kept_folder("induction", 0) is None or "STAGEWISE_CACHE" in os.environ
    True
    """
    root = os.environ.get("STAGEWISE_CACHE")
    return Path(root) / name / digest((repr(settings), _code(), torch.__version__))[:16] if root else None


@lru_cache(maxsize=1)
def _code() -> str:
    """Return a digest of the code that trains and samples."""
    package = Path(numerics.__file__).parent
    return digest([(path.relative_to(package).as_posix(), path.read_text()) for path in sorted(package.rglob("*.py"))])
