r"""TracIn: the gradient kernel summed over the steps of training (Pruthi et al. 2020).

One epoch of gradient descent moves the loss of query j by -r sum_i beta_i K_ij(t) to first order in the step r on the
sum of losses, so the part of sample i up to epoch t is

.. math:: I_{ij}(t) = - \sum_{u < t} r(u)\, K_{ij}(u) \approx - \int_0^t r(u)\, K_{ij}(u)\, du ,

with the sign of every influence here: negative = sample i helped query j. (Pruthi et al. print the opposite sign.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from numerics.curvature.classical_influence import gradient_kernel
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.given import check_checkpoints, check_data
from numerics.models.linear import Checkpoints
from numerics.models.queries import Asked
from numerics.models.samples import Parts, Samples
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import trajectory

__all__ = ["tracin"]


def tracin(
    dataset: Dataset | Samples,
    checkpoints: Checkpoints | ModuleCheckpoints,
    *,
    lr: ArrayLike,
    rule: str = "trapezoid",
    sources: Sequence[str] | Parts | None = None,
    queries: Asked | Parts = None,
    max_memory: int | None = None,
) -> xr.DataArray:
    """Return TracIn of every source on every query from the first checkpoint up to each of them.

    Parameters
    ----------
    dataset, checkpoints, sources, queries, max_memory
        As for `hessian_influence`; the N samples are those of the training run.
    lr
        Learning rate as `TrainingConfig` has it: of a linear network on the mean squared error, so that r = 2 lr /
        (N O), of a module on the mean loss, so that r = lr / N. One number, or one a checkpoint, shape (T,); >= 0.
    rule
        How the sum over the epochs between checkpoints is taken. "left" holds the kernel of the last checkpoint: exact
        if every epoch is one, otherwise off by h/2 |K(t) - K(0)| r for spacing h. "trapezoid" takes the mean of both
        ends, with an error of order h^2: the integral over the gradient flow, better for checkpoints that are apart.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query), 0 at the first epoch. Summed over all sources it is the change of the query's loss
        since then, to first order in the step.

    Raises
    ------
    ValueError
        If `lr` is negative or of another shape, `rule` is unknown, or as `gradient_kernel`.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=2000))
    >>> traced = tracin(hierarchical_dataset(), run.checkpoints, lr=5e-2)
    >>> change = run.losses.sel(query="cat")[-1] - run.losses.sel(query="cat")[0]
    >>> bool(abs(traced.sel(query="cat")[-1].sum() / change - 1) < 0.01)
    True
    """
    check_data(dataset)
    check_checkpoints(checkpoints)
    checks.choice("rule", rule, ("left", "trapezoid"))
    rates = checks.nonnegative("lr", lr)
    if rates.shape not in ((), (len(checkpoints),)):
        raise ValueError(
            f"lr has shape {rates.shape}, but one number or one for each of the {len(checkpoints)} checkpoints is "
            "needed."
        )
    kernel = gradient_kernel(dataset, checkpoints, sources=sources, queries=queries, max_memory=max_memory)
    n, epochs = len(dataset), checkpoints.epochs
    linear = isinstance(checkpoints, Checkpoints)
    scale = 2 / (n * checkpoints.w2.shape[1]) if isinstance(checkpoints, Checkpoints) else 1 / n
    rate = scale * np.broadcast_to(rates, len(checkpoints))[:, None, None] * kernel.values
    held = rate[:-1] if rule == "left" else (rate[:-1] + rate[1:]) / 2
    values = np.zeros_like(rate)
    np.cumsum(-held * np.diff(epochs)[:, None, None], axis=0, out=values[1:])
    attrs = {"estimator": "TracIn", "rule": rule, "lr": rates, "lr_on": "mean squared error" if linear else "mean loss"}
    attrs |= {name: kernel.attrs[name] for name in ("engine", "query_measure") if name in kernel.attrs}
    plain = ([str(k) for k in range(size)] for size in values.shape[1:])
    result = trajectory(values, epochs, *plain, attrs=attrs)
    return result.drop_vars(["source", "query"]).assign_coords(
        {side: kernel.coords[side] for side in ("source", "query")}
    )
