r"""Influence between groups of samples, from draws, without the matrix of all pairs (paper 4 and B).

With Z the deviations of the draws (draws x samples), standardised for the normalised influence, and m_a the mean over
the samples of a group, the mean over pairs is

.. math:: \frac{1}{|a| |b|} \sum_{i \in a, j \in b} C_{ij} = \frac{(Z m_a) \cdot (Z m_b)}{S - 1} ,

which takes O(draws x samples x groups). Pairs of the same kind (the same token) are left out by subtracting the same
expression within each kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from numerics.sampling.diagnostics import diagnose
from numerics.sampling.trust import trust
from theory import checks
from theory.trajectories import labelled_array

__all__ = ["group_influence"]

_CHUNK = 2**22  # deviations held at once: 32 MB
_LEAST_DRAWS = 4  # a chain, below which its halves say nothing
_MOST_TERMS = 2**25  # products held to be diagnosed: 256 MB


def group_influence(
    draws: xr.DataArray,
    groups: Mapping[str, Sequence[str]],
    *,
    kinds: Mapping[str, object] | None = None,
    normalised: bool = True,
) -> xr.DataArray:
    """Return the mean covariance of losses, or mean correlation, over all pairs of samples of every two groups.

    Parameters
    ----------
    draws
        What `sample` returns, or ``draws`` of `bayesian_influence`, dims (epoch, chain, draw, sample).
    groups
        Names of the samples of each group; groups may overlap.
    kinds
        Kind of every sample (of every sample that is in a group, at least). Pairs of one kind do not count: the paper
        leaves out pairs of the same token. Without it all pairs count, a sample with itself too.
    normalised
        Whether losses are divided by their standard deviations (normalised BIF), or covariances are averaged.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query), of the groups. NaN where no pair counts. Correlations have the sign of covariances:
        positive where raising the weight of the source lowers the loss of the query. For the influence of a group as a
        whole, sum instead of mean: multiply by the sizes, and by -n_beta / N. The attributes ``r_hat`` and ``ess`` are
        the worst of an entry, the mean over draws of a product of two sums, and ``trust`` is what `trust` makes of all
        entries; nan, with the reason in ``trust``, below 4 draws a chain or above 2^25 products.

    Raises
    ------
    ValueError
        If there is no group, a group is empty, repeats a sample or names one that was not drawn, a kind is missing, or
        the loss of a sample in a group does not vary while correlations are asked for.

    Examples
    --------
    >>> losses = np.random.default_rng(0).normal(size=(1, 1, 1000, 3))
    >>> losses[..., 1] = losses[..., 0]
    >>> draws = xr.DataArray(losses, {"epoch": [0], "sample": ["a", "b", "c"]}, ("epoch", "chain", "draw", "sample"))
    >>> both = group_influence(draws, {"ab": ["a", "b"], "c": ["c"]})
    >>> round(both.sel(source="ab", query="ab").item(), 12)
    1.0
    """
    checks.instance("draws", draws, xr.DataArray, made_by="sample(...)")
    checks.instance("groups", groups, Mapping, made_by="{name: [names of samples]}")
    if set(draws.dims) != {"epoch", "chain", "draw", "sample"}:
        raise ValueError(f"draws have dims {draws.dims}, but (epoch, chain, draw, sample) are needed.")
    ordered = draws.transpose("epoch", "chain", "draw", "sample")
    names = [str(name) for name in ordered.coords["sample"].values]
    membership = _membership(groups, names)
    labels = _labels(kinds, names, membership)
    counted = _pairs(membership, labels)
    epochs, count = ordered.coords["epoch"].values, ordered.sizes["chain"] * ordered.sizes["draw"]
    if count < 2:
        raise ValueError("a covariance needs at least 2 draws.")
    used = membership.any(axis=0)
    upper = np.triu_indices(len(groups))
    terms = np.empty((len(epochs), count, len(upper[0]))) if _diagnosed(ordered, len(upper[0])) else None
    values = np.empty((len(epochs), len(groups), len(groups)))
    for t in range(len(epochs)):
        losses = ordered.values[t].reshape(count, len(names)).astype(np.float64)[:, used]
        scale = losses.std(axis=0, ddof=1) if normalised else np.ones(losses.shape[1])
        if not np.all(scale > 0):
            still = str(np.array(names)[used][scale == 0][0])
            raise ValueError(
                f"the loss of sample {still!r} does not vary at epoch {epochs[t]:g}, so it has no correlation; leave "
                "it out, or use normalised=False."
            )
        deviation = (losses - losses.mean(axis=0)) / scale
        products = _products(deviation, membership[:, used], labels[used])
        values[t] = 0.0
        for first, block in products:
            values[t] += block.sum(axis=0) / (count - 1)
            if terms is not None:
                terms[t, first : first + len(block)] = block[:, upper[0], upper[1]]
    mean = np.divide(values, counted, out=np.full_like(values, np.nan), where=counted > 0)
    coords = {"epoch": epochs, "source": list(groups), "query": list(groups)}
    name = "mean correlation" if normalised else "mean covariance"
    attrs = {**draws.attrs, "pairs": "of different kinds" if kinds else "all"}
    counts = counted[upper] > 0
    return labelled_array(mean, coords, name, attrs | _trusted(terms, ordered, list(groups), upper, counts))


def _diagnosed(draws: xr.DataArray, pairs: int) -> bool:
    """Whether there are enough draws to say how far they can be trusted, and not too many products of them."""
    count = draws.sizes["epoch"] * draws.sizes["chain"] * draws.sizes["draw"]
    return draws.sizes["draw"] >= _LEAST_DRAWS and count * pairs <= _MOST_TERMS


def _trusted(
    terms: Float[np.ndarray, "t s pairs"] | None,
    draws: xr.DataArray,
    groups: list[str],
    upper: tuple[np.ndarray, ...],
    counts: np.ndarray,
) -> dict[str, object]:
    """Return the attributes r_hat, ess and trust of entries whose products these are."""
    if terms is None or not counts.any():
        why = "no pair counts" if terms is not None else "draws are too few or groups too many to be diagnosed"
        return {"r_hat": float("nan"), "ess": float("nan"), "trust": f"not known: {why}"}
    series = terms[:, :, counts].reshape(len(terms), draws.sizes["chain"], draws.sizes["draw"], -1)
    names = [f"{groups[a]} on {groups[b]}" for a, b in zip(upper[0][counts], upper[1][counts], strict=True)]
    found = diagnose(
        xr.DataArray(
            series,
            {"epoch": draws.coords["epoch"].values, "sample": names},
            ("epoch", "chain", "draw", "sample"),
        )
    )
    said = trust(found, chains=draws.sizes["chain"])
    return {
        "r_hat": float(found["r_hat"].max(skipna=False)),
        "ess": float(min(found[name].min(skipna=False) for name in ("ess_bulk", "ess_tail"))),
        "trust": str(said),
    }


def _products(
    deviation: Float[np.ndarray, "s n"], membership: Float[np.ndarray, "g n"], labels: np.ndarray
) -> Iterator[tuple[int, Float[np.ndarray, "b g g"]]]:
    """Yield the sums over pairs of samples that differ in label, by draws, and the first of these draws.

    -1 stands for no label.
    """
    total = deviation @ membership.T
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    edges = np.flatnonzero(np.diff(labels[order], prepend=-1))
    step = max(1, _CHUNK // (len(membership) * max(len(order), len(membership))))
    for first in range(0, len(deviation), step):
        some = slice(first, first + step)
        result = total[some, :, None] * total[some, None]
        if len(order):
            block = deviation[some, None, order] * membership[:, order]
            within = np.add.reduceat(block, edges, axis=2)  # (draws, groups, kinds)
            result -= within @ np.swapaxes(within, 1, 2)
        yield first, result


def _membership(groups: Mapping[str, Sequence[str]], names: list[str]) -> Float[np.ndarray, "g n"]:
    if not groups:
        raise ValueError("groups names no group; give at least one.")
    position = {name: k for k, name in enumerate(names)}
    result = np.zeros((len(groups), len(names)))
    for row, (group, members) in zip(result, groups.items(), strict=True):
        if not members or len(set(members)) < len(members):
            raise ValueError(
                f"group {group!r} must name at least one sample and none twice, but it is {list(members)}."
            )
        if unknown := [member for member in members if member not in position]:
            raise ValueError(f"group {group!r} names {unknown[0]!r}, which was not drawn.")
        row[[position[member] for member in members]] = 1
    return result


def _labels(kinds: Mapping[str, object] | None, names: list[str], membership: Float[np.ndarray, "g n"]) -> np.ndarray:
    """Return a number for the kind of every sample in a group, -1 for the others and where there are no kinds."""
    result = np.full(len(names), -1)
    if kinds is not None:
        numbers: dict[object, int] = {}
        for k in np.flatnonzero(membership.any(axis=0)):
            if names[k] not in kinds:
                raise ValueError(f"kinds does not say of which kind sample {names[k]!r} is.")
            result[k] = numbers.setdefault(kinds[names[k]], len(numbers))
    return result


def _pairs(membership: Float[np.ndarray, "g n"], labels: np.ndarray) -> Float[np.ndarray, "g g"]:
    """Return how many pairs count."""
    sizes = membership.sum(axis=1)
    result = np.outer(sizes, sizes)
    for label in np.unique(labels[labels >= 0]):
        within = membership[:, labels == label].sum(axis=1)
        result -= np.outer(within, within)
    return result
