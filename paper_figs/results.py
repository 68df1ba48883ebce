"""What figures share: every measure of the toy experiment, computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TypeVar, cast

import xarray as xr

from numerics import TrainingConfig
from numerics.devices import usable_device
from paper_figs.cache import ResultCache
from paper_figs.progress import Reporter
from validation import ToyExperiment, ToySettings
from validation.experiments.language import InductionRun, InductionSettings, kept_folder
from validation.experiments.learning_coefficients import CoefficientSettings
from validation.experiments.sampler_bias import RELATIVE_STEP, BiasSettings
from validation.experiments.sweeps import SweepSettings, leave_one_out_sweeps
from validation.experiments.text_model import TextRun, TextSettings

__all__ = ["FigureSettings", "Results", "computed_once"]

Result = TypeVar("Result")
Kept = TypeVar("Kept", bound=xr.Dataset | xr.DataArray)

_MEASURES = (
    "retrained",
    "retrained_derivative",
    "closed_leave_one_out",
    "briefly_ablated",
    "closed_brief_ablation",
    "bayesian",
    "hessian",
    "gauss_newton",
)


@dataclass(frozen=True)
class FigureSettings:
    """Settings of all figures.

    Parameters
    ----------
    toy
        Settings of the toy experiment.
    posteriors
        Number of sample sizes at which the exact posteriors of Figures 1 and A are integrated.
    bias
        Settings of the measurement of Algorithm 1's bias.
    coefficients
        Settings of the measurement of learning coefficients.
    sweep
        Grids of the sampler's hyper-parameters.
    induction
        Settings of the language model in which induction heads form.
    text
        Settings of the language model trained on text.
    device
        Where chains run: "cpu", or a CUDA device by torch's name.
    quick
        Whether these are the coarse settings of a trial run; figures and captions say so.
    """

    toy: ToySettings = field(default_factory=ToySettings)
    posteriors: int = 200
    bias: BiasSettings = field(default_factory=BiasSettings)
    coefficients: CoefficientSettings = field(default_factory=CoefficientSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)
    induction: InductionSettings = field(default_factory=InductionSettings)
    text: TextSettings = field(default_factory=TextSettings)
    device: str = "cpu"
    quick: bool = False

    def __post_init__(self) -> None:
        usable_device(self.device)

    @classmethod
    def seeded(
        cls, seed: int, *, quick: bool = False, device: str = "cpu", corpus: str = "", checkpoints: str = ""
    ) -> FigureSettings:
        """Return the settings for one seed; `quick` ones are coarser everywhere and take seconds.

        Figures of language models use the text in the folder `corpus` and the revisions in the folder `checkpoints`, if
        these are given.

        Examples
        --------
        >>> FigureSettings.seeded(3, quick=True).toy.draws
        60
        """
        if not quick:
            return cls(
                toy=ToySettings(training=TrainingConfig(seed=seed), seed=seed),
                bias=BiasSettings(seed=seed),
                coefficients=CoefficientSettings(seed=seed),
                sweep=SweepSettings(seed=seed),
                induction=InductionSettings.seeded(seed),
                text=TextSettings.seeded(seed, corpus=corpus, checkpoints=checkpoints),
                device=device,
            )
        training = TrainingConfig(seed=seed, checkpoint_every=250)
        return cls(
            toy=ToySettings(training=training, chains=2, draws=60, every=1000, seed=seed),
            posteriors=13,
            bias=BiasSettings(
                stabilities=(1e-2, 1.0),
                decays=(0.0, 0.9),
                weights=20,
                chains=2,
                burn_in=100,
                draws=160,
                relative_steps=(RELATIVE_STEP,),
                toy_runs=2,
                toy_chains=1,
                toy_draws=40,
                seed=seed,
            ),
            coefficients=CoefficientSettings(
                cases=(((2, 2, 2), 0), ((2, 2, 2), 1)), n_betas=(5.0, 10.0), lengths=(10.0, 10.0), chains=4, seed=seed
            ),
            sweep=SweepSettings(
                step_sizes=(1e-4, 1e-2),
                n_betas=(1e2, 1e3),
                localizations=(1e2, 1e4),
                chains=(1, 2),
                draws=(20, 40),
                decays=(0.9,),
                stabilities=(1e-1, 1.0),
                side_step_sizes=(1e-5, 1e-4),
                side_chains=1,
                side_draws=20,
                seed=seed,
                processes=False,
            ),
            induction=InductionSettings.seeded(seed, quick=True),
            text=TextSettings.seeded(seed, quick=True, corpus=corpus, checkpoints=checkpoints),
            device=device,
            quick=True,
        )


class Results:
    """Every measure of the toy experiment, and whatever else figures need, kept on disk between runs.

    Parameters
    ----------
    settings
        See `FigureSettings`.
    cache
        Where finished results are kept; nowhere if not given.
    reporter
        Is told what is computed; nobody if not given.

    Examples
    --------
    >>> results = Results(FigureSettings.seeded(0, quick=True))
    >>> results.transitions.values[:2].round(-2)
    array([1900., 2600.])
    """

    def __init__(
        self,
        settings: FigureSettings | None = None,
        cache: ResultCache | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self.settings = settings or FigureSettings()
        self.reporter = reporter or Reporter()
        self.toy = ToyExperiment(self.settings.toy, self.reporter.announce)
        self.memory: dict[object, object] = {}
        self._cache = cache or ResultCache(None)

    def kept(self, name: str, settings: object, compute: Callable[[], Kept]) -> Kept:
        """Return a result from the cache or compute it; `settings` is all it depends on besides the code."""
        return self._cache.get(name, settings, compute)

    # --- the toy experiment --------------------------------------------------------------------------------------

    def _measured(self, name: str) -> xr.DataArray:
        value = self.kept(name, self.settings.toy, lambda: getattr(self.toy, name))
        vars(self.toy)[name] = value  # what the experiment makes of it does not compute it again
        return value

    def _measured_parts(self, name: str) -> xr.Dataset:
        value = self.kept(name, self.settings.toy, lambda: getattr(self.toy, name))
        vars(self.toy)[name] = value
        return value

    @property
    def last_shown_epoch(self) -> float:
        """Right end of epoch axes: nothing happens after epoch 8000."""
        return float(min(8000, self.settings.toy.training.epochs))

    @cached_property
    def transitions(self) -> xr.DataArray:
        """Epochs at which the closed form has each mode at half its strength, with the level of the tree it learns."""
        return self.toy.transitions

    @cached_property
    def retrained(self) -> xr.DataArray:
        """Leave-one-out by retraining."""
        return self._measured("retrained")

    @cached_property
    def retrained_derivative(self) -> xr.DataArray:
        """Derivative of weighted retraining by central difference."""
        return self._measured("retrained_derivative")

    @cached_property
    def closed_leave_one_out(self) -> xr.DataArray:
        """Leave-one-out in closed form from the actual initial weights."""
        return self._measured("closed_leave_one_out")

    @cached_property
    def briefly_ablated(self) -> xr.DataArray:
        """Summed loss difference of a brief ablation at every start, by retraining."""
        return self._measured("briefly_ablated")

    @cached_property
    def closed_brief_ablation(self) -> xr.DataArray:
        """The same from the exact matrix solution."""
        return self._measured("closed_brief_ablation")

    @cached_property
    def bayesian(self) -> xr.Dataset:
        """Bayesian influence at every checkpoint by Algorithm 1."""
        s, device = self.settings.toy, self.settings.device

        def compute() -> xr.Dataset:
            total = s.chains * len(self.toy.checkpoints)
            with self.reporter.counted("sampling the local posterior at every checkpoint", total) as advance:
                return self.toy.sampled_influence(device=device, progress=advance)

        value = self.kept("bayesian", (s, device), compute)
        vars(self.toy)["bayesian"] = value
        return value

    @cached_property
    def hessian(self) -> xr.Dataset:
        """Damped-Hessian influence at every checkpoint and damping constant."""
        return self._measured_parts("hessian")

    @cached_property
    def gauss_newton(self) -> xr.Dataset:
        """Damped Gauss-Newton influence at every checkpoint and damping constant."""
        return self._measured_parts("gauss_newton")

    def measure_everything(self) -> None:
        """Take every measure of the toy experiment from the cache, or compute it."""
        for name in _MEASURES:
            getattr(self, name)

    def reweighted(self, epsilon: float) -> xr.DataArray:
        """Retraining with every sample weight changed by `epsilon`, divided by `epsilon`."""
        key = (self.settings.toy.training, epsilon)
        return self.kept("reweighted", key, lambda: self.toy.reweighted(epsilon))

    @cached_property
    def induction(self) -> InductionRun:
        """A language model trained from scratch while induction heads form; checkpoints and draws are kept."""
        s, device = self.settings.induction, self.settings.device
        folder = kept_folder("induction", s.trained_by) or self._cache.folder("induction", (s, device))
        return InductionRun(s, folder, self.reporter.announce, device, counted=self.reporter.counted)

    @cached_property
    def text(self) -> TextRun:
        """A language model on text, trained here or given; checkpoints and draws are kept."""
        s, device = self.settings.text, self.settings.device
        return TextRun(s, self._cache.folder("text", (s, device)), device, self.reporter.counted)

    @cached_property
    def sweeps(self) -> xr.Dataset:
        """Correlation of the Bayesian influence with leave-one-out over the sampler's hyper-parameters."""
        s, toy, device = self.settings.sweep, self.settings.toy, self.settings.device
        key = (s, toy.training, toy.sampler, device)

        def compute() -> xr.Dataset:
            _ = self.retrained  # the experiment has it from the disk, if it is there
            total = sum(grid.size for grid in s.grids(toy.sampler))
            with self.reporter.counted("sampling every setting of the sweep", total) as advance:
                return leave_one_out_sweeps(
                    self.toy, s, device=device, store=self._cache.folder("sweep", key), progress=advance
                )

        return self.kept("sweep", key, compute)

    @cached_property
    def brief_ablation_of_dog(self) -> xr.DataArray:
        """Brief ablation of dog in closed form, at four times as many starts as are retrained."""
        s = self.settings.toy
        every = max(1, s.every // 4)
        return self.kept("brief ablation of dog", s, lambda: self.toy.solved_brief_ablation(every, ["dog"]))

    def brief_ablation_of_dog_from(self, sigma: float) -> xr.DataArray:
        """Return what `brief_ablation_of_dog` is for the run's initial weights scaled to `sigma`."""
        s = self.settings.toy
        every = max(1, s.every // 4)
        return self.kept(
            "brief ablation of dog",
            (s, sigma),
            lambda: self.toy.variant(sigma=sigma).solved_brief_ablation(every, ["dog"]),
        )


def computed_once(function: Callable[[Results], Result]) -> Callable[[Results], Result]:
    """Decorate a function of `Results` so that it runs once for each of them; drawing, saving and caption share it."""

    @wraps(function)
    def remembered(results: Results) -> Result:
        if function not in results.memory:
            results.memory[function] = function(results)
        return cast("Result", results.memory[function])

    return remembered
