"""Figure 9: classical influence of dog with the damped Hessian, over training."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from paper_figs.damping import SOURCE, describe_indefinite, describe_kernel_limit, describe_spikes, draw_damped
from paper_figs.results import Results, computed_once

__all__ = ["caption", "data", "draw"]


def caption(results: Results) -> str:
    """Return the caption."""
    shown = data(results)
    ratio = float((shown["min_eigenvalue"] / shown["max_abs_eigenvalue"]).min())
    return (
        "Figure 9 (after the paper's Figure 9). Classical influence of dog, -(1/N) grad l_j (H + c max|eig H| I)^-1 "
        "grad l_dog, with the exact Hessian H of the mean loss at every checkpoint, for five damping constants c; "
        "negative = dog helps. (f) Extreme eigenvalues of H; the smallest is down to "
        f"{ratio:.3f} of the largest absolute one; dark bar above a panel: checkpoints where the damped matrix still "
        f"is, so that no local posterior corresponds to the influence drawn ({describe_indefinite(shown)}, of "
        f"{shown.sizes['epoch']}). {describe_spikes(shown)} "
        "Pearson of influence times damping with minus the gradient kernel, the instantaneous influence, over all "
        "pairs "
        f"and checkpoints, {describe_kernel_limit(results.hessian, results.toy.kernel)}. Thin verticals: half-rise "
        f"times of the closed-form modes. Seed {results.settings.toy.training.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    return results.hessian.sel(source=SOURCE).assign(half_rise_time=results.transitions)


def draw(results: Results) -> Figure:
    """Draw a panel a damping constant, and the eigenvalues."""
    shown = data(results)
    return draw_damped(shown, shown["half_rise_time"], matrix="Hessian", last_epoch=results.last_shown_epoch)
