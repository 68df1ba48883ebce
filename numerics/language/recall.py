r"""Which class a token belongs to, said by the tokens of highest influence on it (paper D.1.3, Fig. 14).

.. math:: \hat y(x_i) = \mathrm{argmax}_a \frac{1}{r_a(x_i)} \sum_{x_j \in \eta_i} 1_a(x_j)

eta_i are the k tokens whose losses correlate most with that of token i, r_a(x_i) the share of class a among the tokens
not equal to x_i. The recall of a class is the share of its tokens that are predicted to belong to it. Draws without any
information do not give 0 for recall minus class rate: a random eta predicts class a at a rate of its own, whatever the
token, which `chance_recall` has in closed form and a permutation of the classes measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.special import gammaln

from numerics.language.token_draws import TokenDraws, as_token_draws
from numerics.language.token_groups import membership_matrix
from theory import checks
from theory.trajectories import labelled_array

__all__ = ["chance_recall", "class_recall", "top_influences"]

_ROWS_TOGETHER = 1024  # queries whose correlations with all tokens are held at once


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Tokens sorted by id, so that those equal to a token are a stretch of columns."""

    order: Int[np.ndarray, " tokens"]
    first: Int[np.ndarray, " tokens"]
    last: Int[np.ndarray, " tokens"]

    @classmethod
    def of(cls, ids: Int[np.ndarray, " tokens"]) -> _Tokens:
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        return cls(order, np.searchsorted(ordered, ordered, "left"), np.searchsorted(ordered, ordered, "right"))


def top_influences(
    chains: Sequence[Float[np.ndarray, "draws tokens"]],
    ids: Int[np.ndarray, " tokens"],
    *,
    k: int = 30,
    queries: Int[np.ndarray, " q"] | None = None,
    within: bool = False,
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """Return the k tokens whose losses correlate most with that of each query, and the correlations, highest first.

    Parameters
    ----------
    chains
        Draws of every chain, shape (draws, tokens).
    ids
        Label of every token; tokens with the query's own label do not count.
    k
        How many.
    queries
        Which tokens; all if not given.
    within
        Whether deviations are from each chain's own mean.

    Raises
    ------
    ValueError
        If k is larger than the number of tokens that count for some query.

    Examples
    --------
    >>> losses = np.random.default_rng(0).normal(size=(100, 3))
    >>> losses[:, 2] = losses[:, 0]
    >>> top_influences([losses], np.arange(3), k=1)[0].ravel().tolist()
    [2, 0, 0]
    """
    sorted_tokens = _Tokens.of(ids)
    fewest = len(ids) - int((sorted_tokens.last - sorted_tokens.first).max())
    if checks.integer("k", k, at_least=1) > fewest:
        raise ValueError(f"some token has only {fewest} tokens that differ from it, but k is {k}; lower k.")
    z = _standardised(chains, sorted_tokens.order, within)
    place = np.empty(len(ids), np.int64)
    place[sorted_tokens.order] = np.arange(len(ids))
    asked = np.arange(len(ids)) if queries is None else np.asarray(queries)
    by_id = np.argsort(place[asked], kind="stable")
    rows = place[asked][by_id]
    found = np.empty((len(asked), k), np.int64)
    values = np.empty((len(asked), k), np.float32)
    for start in range(0, len(rows), _ROWS_TOGETHER):
        at = rows[start : start + _ROWS_TOGETHER]
        products = z[torch.from_numpy(at)] @ z.T
        for row, (a, b) in enumerate(zip(sorted_tokens.first[at], sorted_tokens.last[at], strict=True)):
            products[row, a:b] = -torch.inf
        best = products.topk(k, dim=1)
        found[by_id[start : start + len(at)]] = sorted_tokens.order[best.indices.numpy()]
        values[by_id[start : start + len(at)]] = best.values.numpy()
    return found, values


def class_recall(
    draws: TokenDraws | xr.DataArray | np.ndarray,
    classes: Mapping[str, ArrayLike],
    ids: ArrayLike,
    *,
    k: int = 30,
    permutations: int = 20,
    within: bool = False,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Return the recall of every class, predicted from the k tokens of highest influence.

    Parameters
    ----------
    draws
        What `sample_tokens` returns, or an array with dims (epoch, chain, draw, sequence, position).
    classes
        Which tokens belong to each class, shape (N, J) of booleans.
    ids
        Token ids, shape (N, J); tokens with the same id as a query are none of its neighbours.
    k
        Neighbours.
    permutations
        Random permutations of the classes among the tokens, for the baseline.
    within
        Whether correlations are within chains.
    seed
        Of the permutations.
    progress
        Called with the number of checkpoints done since the last call.

    Returns
    -------
    xarray.Dataset
        dims (epoch, class): ``recall``; ``predicted``, the share of all queries predicted to belong to the class;
        ``permuted``, mean recall with permuted classes, and ``permuted_spread``, the standard deviation over
        permutations; dims (class,): ``rate``, the share of tokens in the class (the paper's baseline), and ``chance``,
        recall without information in closed form where classes do not overlap (NaN where they do). Queries are the
        tokens of some class. A query none of whose neighbours has a class is predicted to belong to none.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> factor = rng.normal(size=(200, 2))
    >>> of = rng.integers(2, size=(4, 25))
    >>> losses = factor[:, of] + 0.1 * rng.normal(size=(200, 4, 25))
    >>> found = class_recall(losses[None, None], {"a": of == 0, "b": of == 1}, np.arange(100).reshape(4, 25), k=9)
    >>> found["recall"].values.tolist()
    [[1.0, 1.0]]
    """
    given = as_token_draws(draws)
    membership = membership_matrix(classes, given.shape)
    labels = np.asarray(ids)
    if labels.shape != given.shape:
        raise ValueError(f"ids have shape {labels.shape}, but there are (sequences, positions) = {given.shape} tokens.")
    labels = np.unique(labels.ravel(), return_inverse=True)[1].ravel()
    checks.integer("permutations", permutations, at_least=0)
    queries = np.flatnonzero(membership.any(axis=0))
    names = list(classes)
    results: dict[str, list[np.ndarray]] = {name: [] for name in ("recall", "predicted", "permuted", "permuted_spread")}
    for epoch in given.epochs:
        neighbours, _ = top_influences(given.at(float(epoch)), labels, k=k, queries=queries, within=within)
        answer = _predictions(membership, labels, neighbours, queries)
        results["recall"].append(_recall(answer, membership[:, queries]))
        results["predicted"].append(np.array([(answer == a).mean() for a in range(len(names))]))
        generator = np.random.default_rng(seed)
        shuffled = []
        for _ in range(permutations):
            # Neighbours keep their places and queries their classes; what is permuted is who the neighbours are.
            other = membership[:, generator.permutation(membership.shape[1])]
            shuffled.append(_recall(_predictions(other, labels, neighbours, queries), membership[:, queries]))
        table = np.array(shuffled).reshape(permutations, len(names))
        results["permuted"].append(table.mean(axis=0) if permutations else np.full(len(names), np.nan))
        results["permuted_spread"].append(
            table.std(axis=0, ddof=1) if permutations > 1 else np.full(len(names), np.nan)
        )
        if progress is not None:
            progress(1)
    rate = membership.mean(axis=1)
    chance = (
        chance_recall(membership.sum(axis=1), membership.shape[1], k)
        if (membership.sum(axis=0) <= 1).all()
        else np.full(len(names), np.nan)
    )
    attrs = {**given.attrs, "k": k, "correlations": "within chains" if within else "over all draws"}
    coords = {"epoch": given.epochs, "class": names}
    arrays = {name: labelled_array(np.stack(value), coords, name, attrs) for name, value in results.items()}
    for name, value in (("rate", rate), ("chance", chance)):
        arrays[name] = labelled_array(value, {"class": names}, name)
    return xr.Dataset(arrays, attrs=arrays["recall"].attrs)


def chance_recall(sizes: ArrayLike, tokens: int, k: int = 30) -> Float[np.ndarray, " a"]:
    r"""Return how often a random set of k neighbours predicts each class, which is its recall without information.

    Counts of disjoint classes in k of M tokens are hypergeometric, so the probability of class a having the largest
    count over its rate is

    .. math:: \binom{M}{k}^{-1} \sum_x \binom{n_a}{x} [t^{k - x}] \prod_{b \ne a} \sum_{j: j / n_b < x / n_a}
        \binom{n_b}{j} t^j ,

    with those in no class as one more factor without a bound. Equal ratios go to the class that stands first, as
    predictions do.

    Parameters
    ----------
    sizes
        Numbers of tokens of the classes, which do not overlap, shape (A,).
    tokens
        Number of tokens M.
    k
        Neighbours.

    Examples
    --------
    >>> chance_recall([500, 500], 1000, k=1).round(9).tolist()
    [0.5, 0.5]
    >>> chance_recall([100, 800], 1000).round(2).tolist()  # neither 0.1 nor 0.8
    [0.49, 0.51]
    """
    n = np.asarray(sizes, dtype=np.int64)
    if not n.size:
        raise ValueError("sizes is empty; give the number of tokens of each class.")
    tokens, k = checks.integer("tokens", tokens, at_least=1), checks.integer("k", k, at_least=1)
    if n.ndim != 1 or (n < 1).any() or n.sum() > tokens or k > tokens:
        raise ValueError(f"classes of {n.tolist()} tokens and {k} neighbours do not fit into {tokens} tokens.")
    counts = np.arange(k + 1)
    log_choose = [_log_choose(int(size), counts) for size in (*n, tokens - n.sum())]
    total = _log_choose(tokens, np.array([k]))[0]
    result = np.zeros(len(n))
    for a in range(len(n)):
        for x in range(1, k + 1):
            log_product = log_choose[-1]
            for b in range(len(n)):
                if b != a:
                    # j / n_b against x / n_a in whole numbers; a tie goes to the class that stands first.
                    below = counts * n[a] < x * n[b] if b < a else counts * n[a] <= x * n[b]
                    log_product = _log_convolve(log_product, np.where(below, log_choose[b], -np.inf))
            result[a] += np.exp(log_choose[a][x] + log_product[k - x] - total)
    return result


def _log_choose(n: int, j: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    inside = np.minimum(j, n)
    value = gammaln(n + 1) - gammaln(inside + 1) - gammaln(n - inside + 1)
    return np.where(j <= n, value, -np.inf)


def _log_convolve(a: Float[np.ndarray, " m"], b: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Return the logarithm of the first m coefficients of the product of two polynomials given by logarithms."""
    m = len(a)
    result = np.full(m, -np.inf)
    for j in range(m):
        result = np.logaddexp(result, np.concatenate([np.full(j, -np.inf), b[j] + a[: m - j]]))
    return result


def _standardised(
    chains: Sequence[Float[np.ndarray, "draws tokens"]], order: Int[np.ndarray, " tokens"], within: bool
) -> Float[torch.Tensor, "tokens all_draws"]:
    """Return unit vectors of the draws of every token, float32: their products are correlations to some 1e-6."""
    pieces = []
    for chain in chains:
        values = np.asarray(chain, dtype=np.float32)[:, order].T
        pieces.append(values - values.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32) * within)
    z = np.concatenate(pieces, axis=1)
    z -= z.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    length = np.sqrt(np.square(z, dtype=np.float64).sum(axis=1, keepdims=True)).astype(np.float32)
    return torch.from_numpy(np.divide(z, length, out=np.zeros_like(z), where=length > 0))


def _predictions(
    membership: Bool[np.ndarray, "a tokens"],
    labels: Int[np.ndarray, " tokens"],
    neighbours: Int[np.ndarray, "q k"],
    queries: Int[np.ndarray, " q"],
) -> Int[np.ndarray, " q"]:
    """Return the number of the predicted class of every query, -1 for none."""
    sizes = np.bincount(labels)
    best = np.zeros(len(queries))
    answer = np.full(len(queries), -1)
    for a, row in enumerate(membership):
        equal = np.bincount(labels, weights=row, minlength=len(sizes))
        rate = ((row.sum() - equal) / (len(labels) - sizes))[labels[queries]]
        count = row[neighbours].sum(axis=1)
        ratio = np.divide(count, rate, out=np.zeros(len(queries)), where=rate > 0)
        answer, best = np.where(ratio > best, a, answer), np.maximum(ratio, best)
    return answer


def _recall(answer: Int[np.ndarray, " q"], members: Bool[np.ndarray, "a q"]) -> Float[np.ndarray, " a"]:
    return np.array([(answer[row] == a).mean() for a, row in enumerate(members)])
