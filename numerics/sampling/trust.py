r"""One verdict on a sampled result: good, doubtful, with the entries and why, or not to be used.

Halves of m chains that sample one law give, with S effective draws in all (Vehtari et al. 2021; Vats and Knudson 2021),

.. math:: \hat R^2 \approx 1 + \frac{\chi^2_{2m-1}}{S} .

At the 100 effective draws a chain that are asked for, and 4 chains, noise takes R-hat to 1.05 in one of a million
entries, so that one above 1.05 is doubtful; above 1.1 the chains have not found the same law (Gelman and Rubin 1992).
Below 10 effective draws a chain the standard error is itself not known, by a third and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import xarray as xr

from numerics.sampling.diagnostics import diagnose
from theory import checks

__all__ = ["Trust", "TrustLevel", "trust"]

_DOUBTFUL_R_HAT, WORST_R_HAT = 1.05, 1.1
_DOUBTFUL_ESS, _WORST_ESS = 100.0, 10.0  # effective draws a chain
_NAMED = 3  # entries named in a sentence


class TrustLevel(StrEnum):
    """How far an entry, or a result, can be trusted."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    UNUSABLE = "not to be used"


@dataclass(frozen=True, eq=False)
class Trust:
    """What can be trusted of a sampled result.

    Parameters
    ----------
    level
        Good if every entry is; not to be used if half of the entries or more are not; doubtful otherwise.
    reasons
        A sentence for every kind of trouble, with how many entries have it and which come first; empty if good.
    entries
        The level of every entry as a string, dims as of the result.
    """

    level: TrustLevel
    reasons: tuple[str, ...]
    entries: xr.DataArray

    def __str__(self) -> str:
        """Return the level and the reasons in one line."""
        return f"{self.level}: {'; '.join(self.reasons)}" if self.reasons else str(self.level)


def trust(result: xr.Dataset | xr.DataArray, *, chains: int | None = None) -> Trust:
    """Say whether a sampled result is good, doubtful or not to be used, and why.

    Parameters
    ----------
    result
        What `bayesian_influence`, `estimate_learning_coefficient`, `diagnose` or `covariance_diagnostics` returns: a
        data set with ``r_hat`` and ``ess`` (or ``ess_bulk`` and ``ess_tail``). Or draws, as `sample` returns them,
        which are diagnosed first.
    chains
        Number of chains, if it is not among the attributes of the result.

    Raises
    ------
    ValueError
        If the result has no diagnostics.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(1, 4, 500, 2))
    >>> noise[:, 1:, :, 1] = 0.0
    >>> draws = xr.DataArray(noise, {"sample": ["dog", "cat"]}, ("epoch", "chain", "draw", "sample"))
    >>> print(trust(draws))
    not to be used: 1 of 2 entries are not known: 3 of 4 chains never move: 1, 2, 3 (sample cat)
    """
    checks.instance("result", result, (xr.Dataset, xr.DataArray), made_by="bayesian_influence(...) or sample(...)")
    if isinstance(result, xr.DataArray):
        chains = result.sizes.get("chain", 1) if chains is None else chains
        result = diagnose(result)
    sizes = [result[name] for name in ("ess", "ess_bulk", "ess_tail") if name in result]
    if "r_hat" not in result or not sizes:
        raise ValueError(
            f"the result has {', '.join(map(str, result.data_vars)) or 'no variables'}, but r_hat and ess are needed; "
            "give what bayesian_influence, estimate_learning_coefficient or diagnose returns."
        )
    count = int(result.attrs.get("chains", 1)) if chains is None else chains
    r_hat = result["r_hat"]
    ess = xr.concat(sizes, dim="kind").min("kind", skipna=False) / count
    unknown = (r_hat.isnull() | ess.isnull()).values
    far, few = (r_hat > _DOUBTFUL_R_HAT).values & ~unknown, (ess < _DOUBTFUL_ESS).values & ~unknown
    worst = unknown | (r_hat > WORST_R_HAT).values | (ess < _WORST_ESS).values
    troubles = _unknown(result, unknown)
    if far.any():
        most = float(r_hat.values[far].max())
        troubles.append((f"have an R-hat above {_DOUBTFUL_R_HAT:g}, {most:.3g} at most", far))
    if few.any():
        least = float(ess.values[few].min())
        troubles.append((f"have fewer than {_DOUBTFUL_ESS:g} effective draws a chain, {least:.3g} at least", few))
    level = TrustLevel.GOOD
    if troubles:
        level = TrustLevel.UNUSABLE if 2 * int(worst.sum()) >= worst.size else TrustLevel.DOUBTFUL
    named = np.where(worst, TrustLevel.UNUSABLE.value, np.where(far | few, TrustLevel.DOUBTFUL.value, "good"))
    return Trust(
        level,
        tuple(_sentence(words, mask, r_hat) for words, mask in troubles),
        xr.DataArray(named, coords=r_hat.coords, dims=r_hat.dims, name="trust"),
    )


def _unknown(result: xr.Dataset, unknown: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return the reasons why entries are not known, each with its entries."""
    if not unknown.any():
        return []
    if "reason" not in result:
        return [("are not known: a chain never moves, or draws are too few", unknown)]
    reason = result["reason"].values
    found = sorted({str(why) for why in reason[unknown]})
    return [(f"are not known: {why or 'draws are too few'}", unknown & (reason == why)) for why in found]


def _sentence(words: str, mask: np.ndarray, array: xr.DataArray) -> str:
    if not array.ndim:
        return f"the number {words.replace('have', 'has', 1).replace('are', 'is', 1)}"
    return f"{int(mask.sum())} of {mask.size} entries {words}{_which(array, mask)}"


def _which(array: xr.DataArray, mask: np.ndarray) -> str:
    """Return the first entries of a mask by their labels, in brackets."""
    named = []
    for place in np.argwhere(mask)[:_NAMED]:
        labels: Mapping[str, object] = {
            str(dim): array.coords[dim].values[k] if dim in array.coords else k
            for dim, k in zip(array.dims, place, strict=True)
        }
        named.append(" ".join(f"{dim} {label}" for dim, label in labels.items() if array.sizes[dim] > 1))
    more = ", ..." if mask.sum() > _NAMED else ""
    return f" ({', '.join(named)}{more})" if any(named) else ""
