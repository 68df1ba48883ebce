r"""Influence between classes of tokens, without the matrix of all pairs of tokens (paper 4, D.1, D.2).

With Z the deviations of the draws (tokens x draws; standardised for correlations), kappa a label of every token, and
sums over the tokens of a class,

.. math:: \sum_{i \in a, j \in b, \kappa_i \ne \kappa_j} Z_i \cdot Z_j
    = Z_a \cdot Z_b - \sum_\kappa Z_{a \kappa} \cdot Z_{b \kappa}

and the same with counts in place of sums. kappa = the token's own place leaves out a token paired with itself, kappa =
its id all pairs of equal tokens (two readings of the paper's "the same token in different classes"), kappa = its
sequence all pairs within a sequence (paper D.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy import sparse

from numerics.language.token_draws import TokenDraws, as_token_draws
from numerics.language.token_groups import count_pairs, membership_matrix, pair_labels, sum_groups
from theory import checks
from theory.trajectories import labelled_array

__all__ = ["class_influence", "deviations"]

_NUMBERS_TOGETHER = 2**22  # deviations held at once: 32 MB
_BLOCKS = 8  # blocks of draws a chain behind the standard error


def class_influence(
    draws: TokenDraws | xr.DataArray | np.ndarray,
    classes: Mapping[str, ArrayLike],
    *,
    apart: str | ArrayLike = "position",
    blocks: int = _BLOCKS,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    r"""Return the mean correlation and covariance of losses over all pairs of tokens of every two classes.

    Parameters
    ----------
    draws
        What `sample_tokens` returns, or an array with dims (epoch, chain, draw, sequence, position).
    classes
        For every class which tokens belong to it, shape (N, J) of booleans; a token may belong to several or none.
    apart
        Which pairs do not count: those with equal labels. "position" leaves out a token with itself, "sequence" all
        pairs within a sequence, and labels of shape (N, J), such as token ids, all pairs with the same label.
    blocks
        Blocks of draws a chain whose spread gives a standard error.
    progress
        Called with the number of checkpoints done since the last call.

    Returns
    -------
    xarray.Dataset
        dims (epoch, source, query), of the classes: ``correlation``, each token's deviations from its mean over all
        draws divided by its standard deviation, and ``covariance`` in nats squared; ``correlation_within`` and
        ``covariance_within``, deviations from each chain's own mean, which chains that have not mixed do not inflate.
        Positive = raising the weight of the source lowers the loss of the query; times -n_beta / (N J) a covariance is
        the influence of a token of the source on one of the query. For each X the standard errors ``X_error``, from
        blocks of draws, and ``X_chain_error``, from chains alone (NaN for one chain). ``pairs``, dims (source, query).
        NaN where no pair counts. Tokens whose loss does not vary count as uncorrelated; ``still`` says how many there
        are in each class.

    Raises
    ------
    ValueError
        If there is no class, a class is empty or has another shape than the tokens, labels do, or there are fewer than
        two draws a block.

    Examples
    --------
    >>> losses = np.random.default_rng(0).normal(size=(1, 2, 500, 1, 3))
    >>> losses[..., 1] = losses[..., 0]
    >>> found = class_influence(losses, {"ab": [[1, 1, 0]], "c": [[0, 0, 1]]})
    >>> round(found["correlation"].sel(source="ab", query="ab").item(), 12), found["pairs"].values.tolist()
    (1.0, [[2, 2], [2, 0]])
    """
    found = as_token_draws(draws)
    membership = membership_matrix(classes, found.shape)
    labels = pair_labels(apart, found.shape)
    blocks = checks.integer("blocks", blocks, at_least=1)
    if found.draws < 2 * blocks:
        raise ValueError(
            f"{found.draws} draws a chain do not make {blocks} blocks of at least two; take more draws or fewer blocks."
        )
    pairs = count_pairs(membership, labels)
    names = list(classes)
    results: dict[str, list[np.ndarray]] = {}
    for epoch in found.epochs:
        sums, still = _draw_by_draw(found.at(float(epoch)), membership, labels)
        for name, products in sums.items():
            # Deviations from C chain means leave S - C free numbers, from one mean S - 1.
            free = products.shape[0] * products.shape[1]
            free -= products.shape[0] if name.endswith("within") else 1
            with np.errstate(invalid="ignore", divide="ignore"):
                means = products.sum((0, 1)) / free / pairs
                errors = _errors(products, blocks, pairs)
            for key, value in zip((name, f"{name}_error", f"{name}_chain_error"), (means, *errors), strict=True):
                results.setdefault(key, []).append(value)
        results.setdefault("still", []).append(still)
        if progress is not None:
            progress(1)
    coords = {"epoch": found.epochs, "source": names, "query": names}
    attrs = {**found.attrs, "apart": apart if isinstance(apart, str) else "labels", "blocks": blocks}
    unmoved = labelled_array(np.stack(results.pop("still")), {"epoch": found.epochs, "source": names}, "still")
    arrays = {key: labelled_array(np.stack(value), coords, key, attrs) for key, value in results.items()}
    counted = labelled_array(pairs.astype(np.int64), {"source": names, "query": names}, "pairs")
    return xr.Dataset({**arrays, "still": unmoved, "pairs": counted}, attrs=arrays["correlation"].attrs)


def deviations(
    chains: list[Float[np.ndarray, "draws tokens"]], tokens: Int[np.ndarray, " k"] | slice
) -> Float[np.ndarray, "k c draws"]:
    """Return the losses of some tokens less their mean over all draws, in float64, shape (tokens, chains, draws).

    Examples
    --------
    >>> deviations([np.array([[1.0, 5.0], [3.0, 5.0]])], slice(None))
    array([[[-1.,  1.]],
    <BLANKLINE>
           [[ 0.,  0.]]])
    """
    values = np.stack([np.ascontiguousarray(chain[:, tokens].T) for chain in chains], axis=1).astype(np.float64)
    values -= values.mean(axis=(1, 2), keepdims=True)
    return values


def _draw_by_draw(
    chains: list[Float[np.ndarray, "draws tokens"]],
    membership: Bool[np.ndarray, "a tokens"],
    labels: Int[np.ndarray, " tokens"],
) -> tuple[dict[str, Float[np.ndarray, "c draws a a"]], Int[np.ndarray, " a"]]:
    """Return the sum over the pairs that count at every draw, in each way to standardise; and tokens that stand still.

    Only tokens of some class are read, those with one label together, as many at once as memory allows.
    """
    classes, shape = len(membership), (len(chains), len(chains[0]))
    names = ("correlation", "covariance", "correlation_within", "covariance_within")
    totals = {name: np.zeros((classes, *shape)) for name in names}
    within = {name: np.zeros((*shape, classes, classes)) for name in names}
    still = np.zeros(classes, np.int64)
    upper = list(zip(*np.triu_indices(classes), strict=True))
    for tokens in _together(membership, labels, shape[0] * shape[1]):
        pooled = deviations(chains, tokens)
        members = membership[:, tokens]
        own = pooled - pooled.mean(axis=2, keepdims=True)
        own_labels = np.unique(labels[tokens], return_inverse=True)[1].ravel()
        matrix, of_class, label = sum_groups(members, own_labels)
        rows = [np.flatnonzero(of_class == a) for a in range(classes)]
        shared = [np.intersect1d(label[rows[a]], label[rows[b]], return_indices=True)[1:] for a, b in upper]
        for suffix, values, free in (
            ("", pooled, shape[0] * shape[1] - 1),
            ("_within", own, shape[0] * (shape[1] - 1)),
        ):
            flat = values.reshape(len(tokens), -1)
            spread = np.sqrt(np.einsum("ks,ks->k", flat, flat) / max(free, 1))
            moves = spread > 0
            if not suffix:
                still += (members & ~moves).sum(axis=1)
            inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=moves)
            for name, scale in ((f"correlation{suffix}", inverse), (f"covariance{suffix}", np.ones_like(spread))):
                sums = (matrix * scale) @ flat
                totals[name] += ((sparse.csr_array(members) * scale) @ flat).reshape(classes, *shape)
                for (a, b), (at_a, at_b) in zip(upper, shared, strict=True):
                    product = np.einsum("gs,gs->s", sums[rows[a][at_a]], sums[rows[b][at_b]]).reshape(shape)
                    within[name][..., a, b] += product
    result = {}
    for name in names:
        for a, b in upper:
            within[name][..., b, a] = within[name][..., a, b]
        result[name] = np.einsum("acs,bcs->csab", totals[name], totals[name]) - within[name]
    return result, still


def _together(
    membership: Bool[np.ndarray, "a tokens"], labels: Int[np.ndarray, " tokens"], draws: int
) -> Iterator[Int[np.ndarray, " k"]]:
    """Return tokens of some class, never those of one label apart, about as many at once as memory allows."""
    used = np.flatnonzero(membership.any(axis=0))
    used = used[np.argsort(labels[used], kind="stable")]
    first = np.flatnonzero(np.diff(labels[used], prepend=-1))  # where each label begins
    most = max(1, _NUMBERS_TOGETHER // draws)
    start = 0
    while start < len(used):
        later = first[(first > start) & (first <= start + most)]
        beyond = first[first > start + most]
        stop = len(used) if len(used) - start <= most else int(later[-1] if len(later) else [*beyond, len(used)][0])
        yield used[start:stop]
        start = stop


def _errors(
    products: Float[np.ndarray, "c draws a a"], blocks: int, pairs: Float[np.ndarray, "a a"]
) -> tuple[Float[np.ndarray, "a a"], Float[np.ndarray, "a a"]]:
    """Return the standard error of the mean over draws from blocks of draws, and from chains."""
    chains, draws = products.shape[:2]
    edges = np.linspace(0, draws, blocks + 1).astype(int)
    sizes = np.diff(edges)
    means = np.add.reduceat(products, edges[:-1], axis=1) / sizes[:, None, None] / pairs
    own = means.reshape(chains * blocks, *pairs.shape)
    by_chain = products.mean(axis=1) / pairs
    return _of_mean(own), _of_mean(by_chain)


def _of_mean(values: Float[np.ndarray, "k a a"]) -> Float[np.ndarray, "a a"]:
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))
