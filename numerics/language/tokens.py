r"""Sequences of token ids as samples whose parts are the tokens, and the loss of every token.

A sequence of J + 1 ids makes J predictions; the loss of a token is that of predicting it from all before it,

.. math:: \ell_{ik}(w) = -\log p_w(x_{i,k+1} \mid x_{i,1}, \dots, x_{i,k}) , \qquad
    L(w) = \frac{1}{N J} \sum_{i,k} \ell_{ik}(w) ,

so the influence of a token's weight on another token is -n_beta / (N J) times the covariance of their losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.models.samples import Samples
from theory import checks

__all__ = ["cut_documents", "next_token_loss", "token_ids", "token_samples", "token_tensors"]


def token_ids(
    ids: ArrayLike | torch.Tensor, *, vocabulary: int | None = None, context: int | None = None
) -> Int[np.ndarray, "n j"]:
    """Return sequences of token ids, shape (N, J + 1), as int64, refusing what no model could read.

    Parameters
    ----------
    ids
        Whole numbers >= 0, shape (N, J + 1) with J >= 1.
    vocabulary
        Number of tokens that the model knows; not checked if not given.
    context
        Longest sequence of predictions J that the model reads; not checked if not given.

    Raises
    ------
    ValueError
        If the shape does not fit, an id is not in the vocabulary, or sequences are longer than the context.
    TypeError
        If the ids are not whole numbers.

    Examples
    --------
    >>> token_ids([[0, 300]], vocabulary=256)
    Traceback (most recent call last):
    ...
    ValueError: token id 300 (sequence 0, position 1) is not in the vocabulary of 256; use the model's own tokenizer.
    """
    for name, value in (("vocabulary", vocabulary), ("context", context)):
        if value is not None:
            checks.integer(name, value, at_least=1)
    found = np.asarray(ids)
    if found.dtype.kind not in "iu":
        raise TypeError(f"token ids must be whole numbers, but they are {found.dtype}.")
    if found.ndim != 2 or found.shape[0] == 0 or found.shape[1] < 2:
        raise ValueError(
            f"token ids have shape {found.shape}, but (sequences, predictions + 1) with at least one of each is needed."
        )
    wrong = (found < 0) | (found >= vocabulary) if vocabulary is not None else found < 0
    if wrong.any():
        sequence, position = (int(k[0]) for k in np.nonzero(wrong))
        known = f"in the vocabulary of {vocabulary}" if vocabulary is not None else "a token"
        raise ValueError(
            f"token id {found[sequence, position]} (sequence {sequence}, position {position}) is not {known}; use the "
            "model's own tokenizer."
        )
    if context is not None and found.shape[1] - 1 > context:
        raise ValueError(
            f"sequences make {found.shape[1] - 1} predictions, but the model's context is {context}; cut them shorter."
        )
    return found.astype(np.int64)


def token_samples(
    ids: ArrayLike | torch.Tensor,
    *,
    vocabulary: int | None = None,
    context: int | None = None,
    names: Sequence[str] = (),
) -> Samples:
    """Return sequences of token ids as samples: all but the last id as inputs, all but the first as targets.

    Parameters
    ----------
    ids, vocabulary, context
        See `token_ids`.
    names
        N distinct names; "sequence-0", "sequence-1", ... if not given.

    Returns
    -------
    Samples
        N samples, inputs and targets of shape (N, J); with `next_token_loss` every sample has J losses.

    Examples
    --------
    >>> samples = token_samples([[5, 6, 7], [1, 2, 3]], vocabulary=8)
    >>> samples.inputs.tolist(), samples.targets.tolist()
    ([[5, 6], [1, 2]], [[6, 7], [2, 3]])
    """
    checked = torch.from_numpy(token_ids(ids, vocabulary=vocabulary, context=context))
    names = tuple(names) or tuple(f"sequence-{i}" for i in range(len(checked)))
    return Samples(checked[:, :-1].contiguous(), checked[:, 1:].contiguous(), names)


def token_tensors(samples: Samples) -> tuple[Int[torch.Tensor, "n j"], Int[torch.Tensor, "n j"]]:
    """Return inputs and targets of sequences of tokens, refusing samples that are none.

    Examples
    --------
    >>> token_tensors(token_samples([[5, 6, 7]]))
    (tensor([[5, 6]]), tensor([[6, 7]]))
    """
    for key, tree in (("inputs", samples.inputs), ("targets", samples.targets)):
        if not isinstance(tree, torch.Tensor) or tree.ndim != 2:
            raise TypeError(f"{key} must be one tensor of token ids, (sequences, positions); see token_samples.")
    if samples.present is not None:
        raise ValueError("sequences with absent tokens cannot be taken token by token; cut them to one length.")
    assert isinstance(samples.inputs, torch.Tensor)
    assert isinstance(samples.targets, torch.Tensor)
    return samples.inputs, samples.targets


def next_token_loss(
    logits: Float[torch.Tensor, "n j v"], targets: Int[torch.Tensor, "n j"]
) -> Float[torch.Tensor, "n j"]:
    """Return the cross-entropy of every token in nats, shape (n, J).

    Examples
    --------
    >>> next_token_loss(torch.zeros(1, 2, 4), torch.tensor([[0, 3]]))
    tensor([[1.3863, 1.3863]])
    """
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)


def cut_documents(
    documents: Sequence[ArrayLike], length: int, *, count: int | None = None, seed: int | None = None
) -> tuple[Int[np.ndarray, "n length"], Int[np.ndarray, "n length"]]:
    """Cut documents into sequences of `length` ids that do not overlap and never cross the edge of a document.

    Parameters
    ----------
    documents
        Token ids of each document, or anything else by token (such as numbers of rows); the rest at a document's end
        that is shorter than a sequence is left out.
    length
        Ids a sequence, J + 1 for J predictions.
    count
        Number of sequences; all there are if not given.
    seed
        Which are taken, at random; the first ones if not given.

    Returns
    -------
    ids, positions
        Shape (N, length) each; positions count tokens over all documents in a row, so that whatever is known of every
        token of the whole documents can be cut alike.

    Raises
    ------
    ValueError
        If there are fewer sequences than asked for.

    Examples
    --------
    >>> ids, positions = cut_documents([[1, 2, 3, 4, 5], [6], [7, 8]], 2)
    >>> ids.tolist(), positions.tolist()
    ([[1, 2], [3, 4], [7, 8]], [[0, 1], [2, 3], [6, 7]])
    """
    length = checks.integer("length", length, at_least=2)
    sizes = np.array([len(np.asarray(document)) for document in documents], dtype=np.int64)
    first = np.cumsum(sizes) - sizes
    starts = np.concatenate(
        [start + length * np.arange(size // length) for start, size in zip(first, sizes, strict=True)]
        or [np.empty(0, np.int64)]
    ).astype(np.int64)
    wanted = 1 if count is None else checks.integer("count", count, at_least=1)
    if len(starts) < wanted:
        raise ValueError(
            f"the corpus has {int(sizes.sum())} tokens in {len(sizes)} documents, which hold {len(starts)} sequences "
            f"of {length} tokens, but {wanted} {'is' if wanted == 1 else 'are'} needed; use more text or shorter "
            "sequences."
        )
    if count is not None and seed is not None:
        starts = np.sort(np.random.default_rng(seed).permutation(starts)[:count])
    positions = starts[:count, None] + np.arange(length)
    return np.concatenate([np.asarray(document) for document in documents])[positions].astype(np.int64), positions
