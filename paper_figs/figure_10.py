"""Figure 10: classical influence of dog with the damped Gauss-Newton matrix, over training."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from paper_figs.damping import SOURCE, describe_indefinite, describe_kernel_limit, describe_spikes, draw_damped
from paper_figs.results import Results, computed_once

__all__ = ["caption", "data", "draw"]


def caption(results: Results) -> str:
    """Return the caption."""
    shown = data(results)
    largest = shown["max_abs_eigenvalue"]
    relative = float((shown["min_eigenvalue"] / largest).min())
    smallest = f"down to {relative:.1g} of the largest" if relative else "0, as for any singular matrix; the largest"
    grows = ", which grows" if relative else " grows"
    return (
        "Figure 10 (after the paper's Figure 10). As Figure 9 with the Gauss-Newton matrix G in place of the Hessian: "
        "-(1/N) grad l_j (G + c max|eig G| I)^-1 grad l_dog; negative = dog helps. (f) Extreme eigenvalues of G: the "
        f"smallest is {smallest}{grows} by a factor of "
        f"{float(largest.max() / largest[0]):.2g} from the start; checkpoints where the damped matrix is indefinite: "
        f"{describe_indefinite(shown)}. {describe_spikes(shown)} Pearson of influence times damping "
        "with minus the gradient kernel, the instantaneous influence, over all pairs and checkpoints, "
        f"{describe_kernel_limit(results.gauss_newton, results.toy.kernel)}. Thin verticals: half-rise times of the "
        f"closed-form modes. Seed {results.settings.toy.training.seed}."
    )


@computed_once
def data(results: Results) -> xr.Dataset:
    """Return what the figure shows."""
    return results.gauss_newton.sel(source=SOURCE).assign(half_rise_time=results.transitions)


def draw(results: Results) -> Figure:
    """Draw a panel a damping constant, and the eigenvalues."""
    shown = data(results)
    return draw_damped(
        shown, shown["half_rise_time"], matrix="Gauss-Newton matrix", last_epoch=results.last_shown_epoch
    )
