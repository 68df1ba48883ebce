"""The paper's toy experiment, measured once in every way and shared by claims and figures.

Everything is computed on first use and kept: one training run and its leave-one-out twins, the closed forms from the
same initial weights, the sampled Bayesian influence, the classical influence at every checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

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
)
from theory import (
    Dataset,
    Modes,
    aligned_modes,
    brief_ablation_trajectory,
    hierarchical_dataset,
    hierarchical_structure,
    influence_trajectory,
    leave_one_out_trajectory,
    linear_network_solution,
    mode_strength,
    time_constant,
)
from theory.trajectories import labelled_array

__all__ = ["LEVEL_NAMES", "ToyExperiment", "ToySettings"]

_INNER_NODES = ("living thing", "animal", "plant", "mammal", "bird", "tree", "flower")
LEVEL_NAMES = ("all items", "animals | plants", "mammals | birds,\ntrees | flowers", "within pairs")


@dataclass(frozen=True)
class ToySettings:
    """Settings of the toy experiment.

    The paper's Fig. 3 gives n beta = 1000, localisation 5e3 and step 1e-3. Read with the preconditioner of the mean
    loss that step is outside the stable range (step x localisation = 5 > 4), so the step here is 1e-4 with stability
    constant a = 1, the upper end of the paper's Table 1.

    Parameters
    ----------
    training
        Settings of gradient descent.
    sampler
        Algorithm 1 and its hyper-parameters.
    chains, draws
        Chains per checkpoint and draws per chain.
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
    damping: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    window: int = 100
    every: int = 200
    seed: int = 0


class ToyExperiment:
    """Every measure of influence in the toy model, each computed once when first asked for.

    Parameters
    ----------
    settings
        See `ToySettings`.
    announce
        Called with a short phrase before each longer computation, for progress displays.

    Examples
    --------
    >>> quick = ToyExperiment(ToySettings(training=TrainingConfig(epochs=300)))
    >>> quick.tau
    1200.0
    """

    def __init__(self, settings: ToySettings | None = None, announce: Callable[[str], object] | None = None) -> None:
        self.settings = settings or ToySettings()
        self._announce = announce or (lambda _: None)

    @cached_property
    def dataset(self) -> Dataset:
        """The semantic tree."""
        return hierarchical_dataset()

    @property
    def features(self) -> xr.DataArray:
        """The targets Y, dims (item, feature), with the depth of each feature's node in the tree as a coordinate."""
        nodes = [*_INNER_NODES, *self.dataset.names]
        levels = np.floor(np.log2(np.arange(len(nodes)) + 1)).astype(int)
        table = labelled_array(self.dataset.targets, {"item": self.dataset.names, "feature": nodes}, "features")
        return table.assign_coords(depth=("feature", levels))

    @property
    def shared_features(self) -> xr.DataArray:
        """Number of features that two items share, Y Y^T, dims (item, other)."""
        shared = self.dataset.targets @ self.dataset.targets.T
        return labelled_array(shared, {"item": self.dataset.names, "other": self.dataset.names}, "shared features")

    @property
    def tau(self) -> float:
        """Time constant in epochs."""
        return time_constant(len(self.dataset), self.dataset.n_outputs, self.settings.training.lr)

    @property
    def epochs(self) -> np.ndarray:
        """Epochs of the checkpoints."""
        return self.settings.training.checkpoint_epochs

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
        self._announce(f"retraining with sample weights {1 + epsilon:g}")
        return leave_one_out(self.dataset, self.settings.training, epsilon=epsilon)

    @cached_property
    def retrained_derivative(self) -> xr.DataArray:
        """Central difference of weighted retraining at +-1e-3: the derivative, up to 1e-6 times its third one."""
        up, down = self.reweighted(1e-3), self.reweighted(-1e-3)
        return (up + down) / 2

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
    def mode_strengths(self) -> xr.Dataset:
        """Strength of every mode, in closed form and simulated (u_k^T W(t) v_k), dims (epoch, mode).

        Coordinates give each mode's singular value and the level of the tree that it distinguishes.
        """
        modes = self.modes
        predicted = mode_strength(self.epochs[:, None], modes.values, modes.initial_strengths, self.tau)
        simulated = np.einsum("ok,top,pk->tk", modes.left, self.checkpoints.maps.numpy(), modes.right)
        coords = {"epoch": self.epochs, "mode": np.arange(len(modes.values))}
        return xr.Dataset(
            {
                "closed form": labelled_array(predicted, coords, "closed form"),
                "simulation": labelled_array(simulated, coords, "simulation"),
            }
        ).assign_coords(value=("mode", modes.values), level=("mode", hierarchical_structure().levels))

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
        w1, w2 = self.initial_weights
        starts, window = self.briefly_ablated["epoch"].values, self.settings.window
        return brief_ablation_trajectory(self.dataset, starts, tau=self.tau, w1=w1, w2=w2, window=window)

    # --- sampling and curvature --------------------------------------------------------------------------------

    @cached_property
    def bayesian(self) -> xr.Dataset:
        """Bayesian influence at every checkpoint by Algorithm 1."""
        self._announce("sampling the local posterior at every checkpoint")
        s = self.settings
        return bayesian_influence(
            self.dataset, self.checkpoints, s.sampler, chains=s.chains, draws=s.draws, seed=s.seed
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
