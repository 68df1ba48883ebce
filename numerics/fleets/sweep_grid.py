"""The settings of a sweep: every combination of a sampler's hyper-parameters, chains and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from math import prod

import numpy as np

from numerics.models.checkpoints import refuse_masked
from numerics.sampling.samplers import Sampler
from theory import checks

__all__ = ["SweepGrid"]


@dataclass(frozen=True, eq=False)
class SweepGrid:
    """Values of every hyper-parameter; the settings are all their combinations (paper Table 1).

    Parameters
    ----------
    step_size, n_beta, localization
        See `Sampler`; at least one value each, none twice.
    decay, stability
        See `RMSPropSGLD`. If not given the sampler's own value is used and the result has no such dimension.
    chains, draws
        Chains per checkpoint and draws per chain. Fewer of them are a part of more: a setting is sampled once, with the
        most chains and draws, and costs no more for it.

    Raises
    ------
    ValueError
        If an axis is empty or a value stands twice.

    Examples
    --------
    >>> grid = SweepGrid(step_size=np.logspace(-7, -2, 6), n_beta=[10, 100], localization=[1.0], draws=[200, 400])
    >>> grid.size, list(grid.axes)
    (24, ['step_size', 'n_beta', 'localization', 'chains', 'draws'])
    """

    step_size: Sequence[float] | np.ndarray
    n_beta: Sequence[float] | np.ndarray
    localization: Sequence[float] | np.ndarray
    decay: Sequence[float] | np.ndarray | None = None
    stability: Sequence[float] | np.ndarray | None = None
    chains: Sequence[int] | np.ndarray = (4,)
    draws: Sequence[int] | np.ndarray = (1000,)

    def __post_init__(self) -> None:
        for field in fields(self):
            given = getattr(self, field.name)
            if given is None:
                continue
            refuse_masked(field.name, given)
            if len(given) == 0:
                raise ValueError(f"{field.name} holds no value, so the grid is empty; give at least one.")
            values: tuple[float, ...]
            if field.name in ("chains", "draws"):
                values = tuple(checks.integer(field.name, value, at_least=1) for value in given)
            else:
                values = tuple(float(value) for value in checks.array(field.name, np.asarray(given), ndim=1))
            if twice := [value for k, value in enumerate(values) if value in values[:k]]:
                raise ValueError(f"values of {field.name} must be distinct, but {twice[0]:g} stands twice.")
            object.__setattr__(self, field.name, values)

    @property
    def axes(self) -> Mapping[str, tuple[float, ...]]:
        """Values by hyper-parameter, in the order of the result's dimensions."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: values for name, values in given.items() if values is not None}

    @property
    def sampler_axes(self) -> Mapping[str, tuple[float, ...]]:
        """The same without chains and draws."""
        return {name: values for name, values in self.axes.items() if name not in ("chains", "draws")}

    @property
    def size(self) -> int:
        """Number of settings."""
        return prod(len(values) for values in self.axes.values())

    def samplers(self, like: Sampler) -> list[Sampler]:
        """Return a sampler for each combination, the last axis fastest; what the grid leaves open is as in `like`.

        Raises
        ------
        ValueError
            If the sampler lacks a hyper-parameter of the grid or refuses a value.
        """
        known = {field.name for field in fields(like)}
        if missing := [name for name in self.sampler_axes if name not in known]:
            raise ValueError(f"{type(like).__name__} has no {missing[0]}; leave it out of the grid.")
        return [
            replace(like, **dict(zip(self.sampler_axes, values, strict=True)))
            for values in product(*self.sampler_axes.values())
        ]
