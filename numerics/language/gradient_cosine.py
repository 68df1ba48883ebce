r"""The limit of strong localization, without a sampler: correlations of losses are cosines of the tokens' gradients.

.. math:: \gamma\, \mathrm{Cov}(\ell_i, \ell_j) \to g_i \cdot g_j , \qquad
    \mathrm{Corr}(\ell_i, \ell_j) \to \frac{g_i \cdot g_j}{\|g_i\| \|g_j\|} , \qquad g_i = \nabla \ell_i(w^*) ,

as gamma grows beyond n_beta times the curvature: the local posterior is then a ball around the checkpoint. Tokens of
a sequence share one forward pass, and classes need sums of gradients alone, never a gradient for each pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from numerics.curvature.memory import allowed_bytes, refuse_too_large
from numerics.devices import usable_device
from numerics.language.live_model import LiveModel
from numerics.language.token_groups import count_pairs, membership_matrix, pair_labels, token_places
from numerics.language.tokens import token_tensors
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.given import check_tokens_given
from numerics.models.samples import Samples
from numerics.models.slopes import check_gradients
from theory.trajectories import labelled_array

__all__ = ["class_gradient_cosine", "gradient_cosine"]


def gradient_cosine(
    samples: Samples,
    checkpoints: ModuleCheckpoints,
    sources: ArrayLike | None = None,
    queries: ArrayLike | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    max_memory: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Return what the correlation and the covariance of two tokens' losses tend to under strong localization.

    Parameters
    ----------
    samples
        Sequences of tokens; see `token_samples`.
    checkpoints
        Weights of a model whose loss returns (n, J) numbers, such as `next_token_loss`.
    sources, queries
        Tokens as (sequence, position), shape (m, 2) and (k, 2); all tokens if not given.
    dtype, device
        Of the gradients; their products are summed in float64.
    max_memory
        Bytes that gradients may take at a time; 1 GiB, or a quarter of what is free, if not given.
    progress
        Called with the number of checkpoints done since the last call.

    Returns
    -------
    xarray.Dataset
        dims (epoch, source, query): ``correlation``, the cosine of both gradients, NaN for a token whose gradient is 0,
        and ``covariance``, their product in nats squared, which has to be divided by the localization.

    Raises
    ------
    ValueError
        If a token is not there, a gradient is not finite (it names token and epoch), or the result is too large.

    Examples
    --------
    >>> from numerics.language.bigram import BigramModel
    >>> from numerics.language.tokens import next_token_loss, token_samples
    >>> from numerics.models.module import TorchModel
    >>> model = TorchModel(BigramModel(3), next_token_loss)
    >>> checkpoints = ModuleCheckpoints(np.array([0]), model, model.initial()[None])
    >>> found = gradient_cosine(token_samples([[0, 1, 2], [0, 2, 1]]), checkpoints, [[0, 0]], [[0, 0], [0, 1], [1, 0]])
    >>> found["correlation"].values.round(3).tolist()  # after the same token another one; after another token
    [[[1.0, 0.0, -0.5]]]
    """
    place = _checked(samples, checkpoints, device)
    shape = _shape(samples)
    everything = np.stack(np.unravel_index(np.arange(shape[0] * shape[1]), shape), axis=1)
    rows, columns = (
        token_places(name, everything if value is None else value, shape)
        for name, value in (("sources", sources), ("queries", queries))
    )
    refuse_too_large(
        2 * len(checkpoints) * len(rows) * len(columns),
        f"{len(checkpoints)} checkpoints x {len(rows)} sources x {len(columns)} queries",
        "name fewer tokens, or take class_gradient_cosine",
    )
    products, cosine = [], []
    for t in range(len(checkpoints)):
        gradients = _Gradients(samples, checkpoints, t, dtype, place, max_memory)
        # The fewer of both are held, as many at once as fit, while the others pass by.
        product = (
            gradients.products(rows, columns) if len(rows) <= len(columns) else gradients.products(columns, rows).T
        )
        scale = np.sqrt(np.outer(gradients.squares[rows], gradients.squares[columns]))
        products.append(product)
        cosine.append(np.divide(product, scale, out=np.full_like(product, np.nan), where=scale > 0))
        if progress is not None:
            progress(1)
    label = [f"{i}:{k}" for i, k in np.ndindex(shape)]
    coords = {"epoch": checkpoints.epochs, "source": [label[k] for k in rows], "query": [label[k] for k in columns]}
    return xr.Dataset(_arrays(np.stack(cosine), np.stack(products), coords, dtype))


def class_gradient_cosine(
    samples: Samples,
    checkpoints: ModuleCheckpoints,
    classes: Mapping[str, ArrayLike],
    *,
    apart: str | ArrayLike = "position",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    max_memory: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Return what the mean correlation and covariance over the pairs of two classes tend to under strong localization.

    Parameters
    ----------
    samples, checkpoints, dtype, device, max_memory, progress
        See `gradient_cosine`.
    classes, apart
        Members of each class, and which pairs do not count: see `class_influence`.

    Returns
    -------
    xarray.Dataset
        dims (epoch, source, query), of the classes: ``correlation``, the mean cosine, and ``covariance``, the mean
        product in nats squared, which has to be divided by the localization; NaN where no pair counts. Tokens whose
        gradient is 0 count as uncorrelated; ``still`` says how many there are in each class. ``pairs``, dims (source,
        query).

    Raises
    ------
    ValueError
        If classes or labels do not fit, or a gradient is not finite.

    Examples
    --------
    >>> from numerics.language.bigram import BigramModel
    >>> from numerics.language.tokens import next_token_loss, token_samples
    >>> from numerics.models.module import TorchModel
    >>> model = TorchModel(BigramModel(3), next_token_loss)
    >>> checkpoints = ModuleCheckpoints(np.array([0]), model, model.initial()[None])
    >>> samples = token_samples([[0, 1, 2], [0, 2, 1]])
    >>> found = class_gradient_cosine(samples, checkpoints, {"first": [[1, 0]] * 2, "last": [[0, 1]] * 2})
    >>> found["correlation"].values.round(3).tolist()
    [[[-0.5, 0.0], [0.0, 0.0]]]
    """
    place = _checked(samples, checkpoints, device)
    shape = _shape(samples)
    membership = membership_matrix(classes, shape)
    labels = pair_labels(apart, shape)
    pairs, names = count_pairs(membership, labels), list(classes)
    found: dict[str, list[np.ndarray]] = {"correlation": [], "covariance": [], "still": []}
    for t in range(len(checkpoints)):
        gradients = _Gradients(samples, checkpoints, t, dtype, place, max_memory)
        cosine, product = gradients.class_sums(membership, labels)
        with np.errstate(invalid="ignore", divide="ignore"):
            found["correlation"].append(cosine / pairs)
            found["covariance"].append(product / pairs)
        found["still"].append((membership & (gradients.squares == 0)).sum(axis=1))
        if progress is not None:
            progress(1)
    coords = {"epoch": checkpoints.epochs, "source": names, "query": names}
    arrays = _arrays(np.stack(found["correlation"]), np.stack(found["covariance"]), coords, dtype)
    unmoved = labelled_array(np.stack(found["still"]), {"epoch": checkpoints.epochs, "source": names}, "still")
    counted = labelled_array(pairs.astype(np.int64), {"source": names, "query": names}, "pairs")
    return xr.Dataset({**arrays, "still": unmoved, "pairs": counted})


class _Gradients:
    """Gradients of single tokens at one checkpoint, a sequence at a time; their squared lengths are kept."""

    def __init__(
        self,
        samples: Samples,
        checkpoints: ModuleCheckpoints,
        t: int,
        dtype: torch.dtype,
        device: torch.device,
        max_memory: int | None,
    ) -> None:
        self._live = LiveModel(checkpoints.model_at(t), checkpoints.weights_at(t).to(device, dtype))
        self._inputs, self._targets = (x.to(device) for x in token_tensors(samples))
        self._epoch = float(checkpoints.epochs[t])
        self.squares = np.full(self._targets.numel(), np.nan)
        allowed = allowed_bytes(max_memory, self._live.weights.device)
        size = 8 * len(self._live.weights)
        # A backward pass of k tokens holds k gradients of all logits of the sequence, some three times over.
        passing = 3 * self._live.weights.itemsize * self._targets.shape[1] * self._live.vocabulary(self._inputs)
        self._together = max(1, allowed // 2 // (2 * size + passing))
        self._held = max(1, allowed // 2 // size)

    def pieces(self, tokens: Int[np.ndarray, " m"]) -> Iterator[tuple[Int[np.ndarray, " k"], torch.Tensor]]:
        """Yield the gradients of tokens in float64, shape (k, d), with their places among `tokens`."""
        sequence, position = np.divmod(tokens, self._targets.shape[1])
        order = np.argsort(sequence, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(sequence[order])) + 1):
            for places in np.array_split(group, -(-len(group) // self._together)):
                i = int(sequence[places[0]])
                found = self._live.token_gradients(
                    self._inputs[i], self._targets[i], position[places].tolist()
                ).double()
                squares = found.square().sum(dim=1).cpu().numpy()
                if not np.isfinite(squares).all():
                    k = position[places][~np.isfinite(squares)][0]
                    raise ValueError(
                        f"the gradient of the loss of token ({i}, {k}) is not finite at epoch {self._epoch:g}; leave "
                        "out the sequence or the checkpoint."
                    )
                self.squares[tokens[places]] = squares
                yield places, found

    def products(self, few: Int[np.ndarray, " m"], many: Int[np.ndarray, " k"]) -> Float[np.ndarray, "m k"]:
        """Return the products of the gradients of few and of many tokens."""
        result = np.empty((len(few), len(many)))
        for first in range(0, len(few), self._held):
            part = few[first : first + self._held]
            kept = self._live.weights.new_empty((len(part), len(self._live.weights)), dtype=torch.float64)
            for places, found in self.pieces(part):
                kept[torch.from_numpy(places)] = found
            for places, found in self.pieces(many):
                result[first : first + len(part), places] = (kept @ found.mT).cpu().numpy()
        return result

    def class_sums(
        self, membership: Bool[np.ndarray, "a tokens"], labels: Int[np.ndarray, " tokens"]
    ) -> tuple[Float[np.ndarray, "a a"], Float[np.ndarray, "a a"]]:
        """Return the sums of cosines and of products over the pairs with different labels, as in `class_influence`."""
        used = np.flatnonzero(membership.any(axis=0))
        _, first, number = np.unique(labels, return_index=True, return_inverse=True)
        # One label after the other, labels in the order of the text, so that a sequence's come in one piece.
        ordered = used[np.argsort(first[number.ravel()[used]], kind="stable")]
        classes, weights = len(membership), self._live.weights
        total = weights.new_zeros((2, classes, len(weights)), dtype=torch.float64)
        within = weights.new_zeros((2, classes, classes), dtype=torch.float64)
        own: dict[int, torch.Tensor] = {}  # sums over the tokens of the label at hand, of the classes that have some

        def close() -> None:
            rows = torch.tensor(sorted(own))
            sums = torch.stack([own[int(a)] for a in rows], dim=1)
            total[:, rows] += sums
            within[:, rows[:, None], rows] += sums @ sums.mT
            own.clear()

        label = labels[ordered[0]]
        for tokens, found in self._in_order(ordered):
            length = torch.from_numpy(np.sqrt(self.squares[tokens])).to(found)[:, None]
            both = torch.stack([torch.where(length > 0, found / length, 0.0), found])
            for piece in np.split(np.arange(len(tokens)), np.flatnonzero(np.diff(labels[tokens])) + 1):
                if labels[tokens[piece[0]]] != label:
                    close()
                    label = labels[tokens[piece[0]]]
                members = membership[:, tokens[piece]]
                for a in np.flatnonzero(members.any(axis=1)):
                    of_class = both[:, torch.from_numpy(piece[members[a]])].sum(dim=1)
                    own[int(a)] = own[int(a)] + of_class if int(a) in own else of_class
        close()
        cosine, product = (total @ total.mT - within).cpu().numpy()
        return cosine, product

    def _in_order(self, ordered: Int[np.ndarray, " m"]) -> Iterator[tuple[Int[np.ndarray, " k"], torch.Tensor]]:
        """Yield the gradients of tokens in that order: by sequences and then held if all fit, else as they come."""
        if len(ordered) > self._held:
            for run in np.split(ordered, np.flatnonzero(np.diff(ordered // self._targets.shape[1])) + 1):
                for places, found in self.pieces(run):
                    yield run[places], found
            return
        kept = self._live.weights.new_empty((len(ordered), len(self._live.weights)), dtype=torch.float64)
        for places, found in self.pieces(ordered):
            kept[torch.from_numpy(places)] = found
        for first in range(0, len(ordered), self._together):
            yield ordered[first : first + self._together], kept[first : first + self._together]


def _checked(samples: Samples, checkpoints: ModuleCheckpoints, device: str | torch.device) -> torch.device:
    """Return the device, refusing what is of a wrong kind and gradients that are not those of the losses."""
    check_tokens_given(samples, checkpoints)
    place = usable_device(device)
    check_gradients(checkpoints.model_at(0), checkpoints.weights_at(0), samples)
    return place


def _shape(samples: Samples) -> tuple[int, int]:
    _, targets = token_tensors(samples)
    return targets.shape[0], targets.shape[1]


def _arrays(
    cosine: np.ndarray, product: np.ndarray, coords: Mapping[str, Any], dtype: torch.dtype
) -> dict[str, xr.DataArray]:
    attrs = {
        "estimator": "cosine of gradients",
        "convention": "limit of strong localization; covariance is to be divided by the localization",
        "dtype": str(dtype).removeprefix("torch."),
        "torch_version": str(torch.__version__),
    }
    found = {"correlation": cosine, "covariance": product}
    return {name: labelled_array(value, coords, name, attrs) for name, value in found.items()}
