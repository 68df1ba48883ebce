"""One data set, measured once in every way and shared by claims, cross-checks and figures.

Everything is computed on first use and kept: one training run and its leave-one-out twins, the closed forms from the
same initial weights, the sampled Bayesian influence, the classical influence at every checkpoint.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import xarray as xr

from numerics import (
    Checkpoints,
    RMSPropSGLD,
    TrainingConfig,
    bayesian_influence,
    gauss_newton_influence,
    gradient_flow,
    gradient_kernel,
    hessian_influence,
    leave_one_out,
    timed_ablation,
    train,
    unrolled_influence,
)
from theory import (
    Dataset,
    Modes,
    aligned_modes,
    brief_ablation_trajectory,
    half_rise_time,
    influence_trajectory,
    leave_one_out_trajectory,
    linear_network_solution,
    mode_strength,
    time_constant,
)
from theory.trajectories import labelled_array

__all__ = ["Experiment", "Settings", "kept"]

AnyExperiment = TypeVar("AnyExperiment", bound="Experiment")
Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


def kept(
    function: Callable[Concatenate[AnyExperiment, Arguments], Value],
) -> Callable[Concatenate[AnyExperiment, Arguments], Value]:
    """Compute a function of an experiment and of positional arguments once, and keep its value with the experiment.

    Examples
    --------
    >>> from theory import hierarchical_dataset
    >>> tau_of = kept(lambda experiment: [experiment.tau])
    >>> tree = Experiment(hierarchical_dataset())
    >>> tau_of(tree) is tau_of(tree), tau_of(tree) is tau_of(tree.twin())
    (True, True)
    """

    @wraps(function)
    def call(experiment: AnyExperiment, *args: Arguments.args, **more: Arguments.kwargs) -> Value:
        key = (function, args, tuple(more.items()))
        if key not in experiment._kept:
            experiment._kept[key] = function(experiment, *args, **more)
        value: Value = experiment._kept[key]
        return value

    return call


@dataclass(frozen=True)
class Settings:
    """Settings of an experiment; the defaults are those of the paper's toy model.

    The paper's Fig. 3 gives n beta = 1000, localisation 5e3 and step 1e-3. Read with the preconditioner of the mean
    loss that step is outside the stable range (step x localisation = 5 > 4), so the step here is 1e-4 with stability
    constant a = 1, the upper end of the paper's Table 1.

    Parameters
    ----------
    training
        Settings of gradient descent.
    sampler
        Algorithm 1 and its hyper-parameters.
    chains, draws, burn_in
        Chains per checkpoint, draws per chain, and steps before the first of them; none in the paper's Algorithm 1.
    damping
        Constants c of the damped Hessian and Gauss-Newton influence, in units of the largest absolute eigenvalue.
    window, every
        Length of the brief ablation and spacing of its starts, in epochs.
    seed
        Seed of the sampler.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampler: RMSPropSGLD = field(
        default_factory=lambda: RMSPropSGLD(step_size=1e-4, n_beta=1e3, localization=5e3, stability=1.0)
    )
    chains: int = 4
    draws: int = 1000
    burn_in: int = 0
    damping: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    window: int = 100
    every: int = 200
    seed: int = 0


class Experiment:
    """Every measure of influence on one data set, each computed once when first asked for.

    Parameters
    ----------
    dataset
        Training set with whitened inputs, X^T X = I.
    settings
        See `Settings`.
    announce
        Called with a short phrase before each longer computation, for progress displays.

    Examples
    --------
    >>> from theory import hierarchical_dataset
    >>> quick = Experiment(hierarchical_dataset(), Settings(training=TrainingConfig(epochs=300)))
    >>> quick.tau
    1200.0
    """

    def __init__(
        self, dataset: Dataset, settings: Settings | None = None, announce: Callable[[str], object] | None = None
    ) -> None:
        self.dataset = dataset
        self.settings = settings or Settings()
        self._announce = announce or (lambda _: None)
        self._variants: dict[Settings, Any] = {}
        self._reweighted: dict[float, xr.DataArray] = {}
        self._kept: dict[Any, Any] = {}

    def with_settings(self: AnyExperiment, settings: Settings) -> AnyExperiment:
        """Return the same data under other settings, with nothing measured yet."""
        return type(self)(self.dataset, settings, self._announce)

    def twin(self: AnyExperiment) -> AnyExperiment:
        """Return a copy that shares what is measured so far, and whose measures may be replaced."""
        result = copy(self)
        result._variants, result._reweighted = dict(self._variants), dict(self._reweighted)
        result._kept = dict(self._kept)
        return result

    def variant(self: AnyExperiment, **training: Any) -> AnyExperiment:
        """Return the same experiment with other settings of gradient descent, kept for the next who asks."""
        settings = replace(self.settings, training=replace(self.settings.training, **training))
        if settings not in self._variants:
            self._variants[settings] = self.with_settings(settings)
        kept: AnyExperiment = self._variants[settings]
        return kept

    def random(self, purpose: str) -> np.random.Generator:
        """Return random numbers that depend on the seed and on what they are for."""
        return np.random.default_rng([self.settings.seed, zlib.crc32(purpose.encode())])

    @property
    def tau(self) -> float:
        """Time constant in epochs."""
        return time_constant(len(self.dataset), self.dataset.n_outputs, self.settings.training.lr)

    @property
    def epochs(self) -> np.ndarray:
        """Epochs of the checkpoints."""
        return self.settings.training.checkpoint_epochs

    @property
    def delay(self) -> float:
        """By how many epochs descent reaches half of the fastest mode later than the flow.

        Euler's method on da/dt = f(a) is late by ln(f(a) / f(a0)) / 2 steps, the integral of f' / 2. Here f is
        proportional to a (s - a^2), g = a^2, and half-way f(a) / f(a0) = (s / (8 g0))^(1/2).
        """
        return float(np.log(self.modes.values[0] / (8 * self.modes.initial_strengths[0]))) / 4

    @property
    def lateness(self) -> float:
        """The delay as a share of the fastest rise, tau / (2 s) epochs."""
        return self.delay * 2 * float(self.modes.values[0]) / self.tau

    @property
    def late_strength(self) -> float:
        """What the delay makes of a mode strength at most: the fastest grows by s^2 / (2 tau) an epoch half-way."""
        return self.delay * float(self.modes.values[0]) ** 2 / (2 * self.tau)

    # --- training and retraining -------------------------------------------------------------------------------

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Weights of the trained network."""
        self._announce("training the network")
        return train(self.dataset, self.settings.training).checkpoints

    @property
    def initial_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """The weights the network starts from, (h, P) and (O, h)."""
        return self.checkpoints.w1[0].numpy(), self.checkpoints.w2[0].numpy()

    @cached_property
    def retrained(self) -> xr.DataArray:
        """Leave-one-out by retraining."""
        self._announce("retraining without each sample")
        return leave_one_out(self.dataset, self.settings.training)

    def reweighted(self, epsilon: float) -> xr.DataArray:
        """Retraining with every sample weight changed by `epsilon`, divided by `epsilon`."""
        if epsilon not in self._reweighted:
            self._announce(f"retraining with sample weights {1 + epsilon:g}")
            self._reweighted[epsilon] = leave_one_out(self.dataset, self.settings.training, epsilon=epsilon)
        return self._reweighted[epsilon]

    @cached_property
    def retrained_derivative(self) -> xr.DataArray:
        """Central difference of weighted retraining at +-1e-3: the derivative, up to 1e-6 times its third one."""
        up, down = self.reweighted(1e-3), self.reweighted(-1e-3)
        return (up + down) / 2

    @cached_property
    def unrolled(self) -> xr.DataArray:
        """Exact derivative of the whole run of descent with respect to every sample weight."""
        self._announce("differentiating the training run")
        return unrolled_influence(self.dataset, self.settings.training)

    @cached_property
    def slightly_ablated(self) -> xr.DataArray:
        """Retraining at sample weight 0.9, the finite change the paper's Fig. 3 uses."""
        return self.reweighted(-0.1)

    @cached_property
    def briefly_ablated(self) -> xr.DataArray:
        """Summed loss difference of a brief ablation at every start."""
        self._announce("ablating briefly at every start")
        s = self.settings
        return timed_ablation(self.dataset, s.training, window=s.window, every=s.every)

    @cached_property
    def flow(self) -> Checkpoints:
        """The gradient flow from the same initial weights, integrated."""
        self._announce("integrating the gradient flow")
        return gradient_flow(self.dataset, *self.initial_weights, self.epochs, tau=self.tau)

    # --- closed forms ------------------------------------------------------------------------------------------

    @cached_property
    def modes(self) -> Modes:
        """Singular modes with the strengths of the actual initial weights, less what is shared with faster modes."""
        return aligned_modes(*self.initial_weights, self.dataset.syx, deflate=True)

    @cached_property
    def strengths(self) -> xr.Dataset:
        """Strength of every mode, in closed form and simulated (u_k^T W(t) v_k), dims (epoch, mode)."""
        modes = self.modes
        predicted = mode_strength(self.epochs[:, None], modes.values, modes.initial_strengths, self.tau)
        simulated = np.einsum("ok,top,pk->tk", modes.left, self.checkpoints.maps.numpy(), modes.right)
        coords = {"epoch": self.epochs, "mode": np.arange(len(modes.values))}
        return xr.Dataset(
            {
                "closed form": labelled_array(predicted, coords, "closed form"),
                "simulation": labelled_array(simulated, coords, "simulation"),
            }
        ).assign_coords(value=("mode", modes.values))

    @property
    def half_rise_times(self) -> np.ndarray:
        """Epochs at which the closed form has each mode at half its strength."""
        return half_rise_time(self.modes.values, self.modes.initial_strengths, self.tau)

    @cached_property
    def mean_strength(self) -> float:
        """One initial strength for all modes: the mean of the effective ones."""
        return float(self.modes.initial_strengths.mean())

    @cached_property
    def solved_maps(self) -> np.ndarray:
        """W(t) by the exact matrix solution from the actual initial weights, shape (T, O, P)."""
        return linear_network_solution(*self.initial_weights, self.dataset.syx, self.epochs, self.tau)

    def closed_form(self, formula: str, g0: float | Modes | None = None) -> xr.DataArray:
        """Influence by one of the closed-form formulas, with the mean effective strength unless `g0` is given."""
        strength = self.mean_strength if g0 is None else g0
        return influence_trajectory(self.dataset, self.epochs, tau=self.tau, g0=strength, formula=formula)

    @cached_property
    def sample_weight(self) -> xr.DataArray:
        """The full sample-weight formula with one strength a mode."""
        return self.closed_form("sample-weight", self.modes)

    @cached_property
    def closed_leave_one_out(self) -> xr.DataArray:
        """Leave-one-out in closed form from the actual initial weights."""
        self._announce("solving leave-one-out in closed form")
        w1, w2 = self.initial_weights
        return leave_one_out_trajectory(self.dataset, self.epochs, tau=self.tau, w1=w1, w2=w2)

    @cached_property
    def closed_brief_ablation(self) -> xr.DataArray:
        """Brief ablation from the actual initial weights, without descent."""
        self._announce("integrating every brief ablation")
        return self.solved_brief_ablation(self.settings.every)

    def solved_brief_ablation(self, every: int, sources: Sequence[str] | None = None) -> xr.DataArray:
        """Brief ablation from the actual initial weights, with a start every so many epochs."""
        w1, w2 = self.initial_weights
        window = self.settings.window
        starts = np.arange(0, self.settings.training.epochs - window + 1, every)
        return brief_ablation_trajectory(
            self.dataset, starts, tau=self.tau, w1=w1, w2=w2, window=window, sources=sources
        )

    # --- sampling and curvature --------------------------------------------------------------------------------

    @cached_property
    def bayesian(self) -> xr.Dataset:
        """Bayesian influence at every checkpoint by Algorithm 1."""
        self._announce("sampling the local posterior at every checkpoint")
        return self.sampled_influence()

    def sampled_influence(self, *, device: str = "cpu", progress: Callable[[int], object] | None = None) -> xr.Dataset:
        """Sample what `bayesian` keeps, on any device; `progress` is told how many chains have just finished."""
        s = self.settings
        return bayesian_influence(
            self.dataset,
            self.checkpoints,
            s.sampler,
            chains=s.chains,
            draws=s.draws,
            burn_in=s.burn_in,
            seed=s.seed,
            device=device,
            progress=progress,
        )

    @cached_property
    def kernel(self) -> xr.DataArray:
        """Gradient kernel K_ij = grad l_i . grad l_j at every checkpoint."""
        return gradient_kernel(self.dataset, self.checkpoints)

    @cached_property
    def hessian(self) -> xr.Dataset:
        """Damped-Hessian influence at every checkpoint and damping constant."""
        self._announce("inverting the damped Hessian at every checkpoint")
        return hessian_influence(self.dataset, self.checkpoints, relative_damping=list(self.settings.damping))

    @cached_property
    def gauss_newton(self) -> xr.Dataset:
        """Damped Gauss-Newton influence at every checkpoint and damping constant."""
        return gauss_newton_influence(self.dataset, self.checkpoints, relative_damping=list(self.settings.damping))

    def posterior_damped(self, influence: Callable[..., xr.Dataset]) -> xr.DataArray:
        """Classical influence by `influence` with the local posterior's own damping, localization / n_beta."""
        sampler = self.settings.sampler
        damping = sampler.localization / sampler.n_beta
        return influence(self.dataset, self.checkpoints, damping=damping)["influence"].sel(damping=damping, drop=True)
