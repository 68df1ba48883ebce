"""Which tokens belong to a class, which pairs of tokens count, and where a token stands among all of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy import sparse

from theory import checks

__all__ = ["count_pairs", "membership_matrix", "pair_labels", "sum_groups", "token_places"]


def membership_matrix(classes: Mapping[str, ArrayLike], shape: tuple[int, int]) -> Bool[np.ndarray, "a tokens"]:
    """Return which tokens belong to each class, shape (classes, N J), refusing classes that do not fit.

    Examples
    --------
    >>> membership_matrix({"a": [[1, 0]], "b": [[0, 0]]}, (1, 2))
    Traceback (most recent call last):
    ...
    ValueError: class 'b' holds no token; leave it out.
    """
    checks.instance("classes", classes, Mapping, made_by="{name: which tokens belong to it}")
    if not classes:
        raise ValueError("classes names no class; give at least one.")
    rows = []
    for name, members in classes.items():
        row = np.asarray(members)
        if row.shape != shape:
            raise ValueError(
                f"class {name!r} has shape {row.shape}, but there are (sequences, positions) = {shape} tokens."
            )
        row = row.astype(bool).ravel()
        if not row.any():
            raise ValueError(f"class {name!r} holds no token; leave it out.")
        rows.append(row)
    return np.stack(rows)


def pair_labels(apart: str | ArrayLike, shape: tuple[int, int]) -> Int[np.ndarray, " tokens"]:
    """Return a label of every token, such that pairs with equal labels do not count.

    Examples
    --------
    >>> pair_labels("sequence", (2, 2)).tolist(), pair_labels([[7, 5], [5, 9]], (2, 2)).tolist()
    ([0, 0, 1, 1], [1, 0, 0, 2])
    """
    if isinstance(apart, str):
        checks.choice("apart", apart, ("position", "sequence"))
        grid = np.arange(shape[0] * shape[1]).reshape(shape)
        return (grid if apart == "position" else grid // shape[1]).ravel()
    labels = np.asarray(apart)
    if labels.shape != shape:
        raise ValueError(f"labels have shape {labels.shape}, but there are (sequences, positions) = {shape} tokens.")
    return np.unique(labels.ravel(), return_inverse=True)[1].ravel()


def sum_groups(
    membership: Bool[np.ndarray, "a k"], labels: Int[np.ndarray, " k"]
) -> tuple[sparse.csr_array, Int[np.ndarray, " g"], Int[np.ndarray, " g"]]:
    """Return a matrix (groups, tokens) that sums the tokens of one class and one label, and class and label of each.

    Examples
    --------
    >>> matrix, of_class, label = sum_groups(np.array([[True, True, False]]), np.array([0, 0, 1]))
    >>> matrix.toarray().tolist(), of_class.tolist(), label.tolist()
    ([[1.0, 1.0, 0.0]], [0], [0])
    """
    of_class, token = np.nonzero(membership)
    width = int(labels.max()) + 1
    keys, group = np.unique(of_class * width + labels[token], return_inverse=True)
    shape = (len(keys), membership.shape[1])
    matrix = sparse.csr_array((np.ones(len(token)), (group.ravel(), token)), shape=shape)
    return matrix, keys // width, keys % width


def count_pairs(
    membership: Bool[np.ndarray, "a tokens"], labels: Int[np.ndarray, " tokens"]
) -> Float[np.ndarray, "a a"]:
    """Return how many pairs of every two classes count: those with different labels, shape (classes, classes).

    Examples
    --------
    >>> count_pairs(np.array([[True, True, True]]), np.array([0, 0, 1]))  # 0-2, 1-2 and back
    array([[4.]])
    """
    sizes = membership.sum(axis=1).astype(np.float64)
    matrix, of_class, label = sum_groups(membership, labels)
    counts = sparse.csr_array(
        (np.asarray(matrix.sum(axis=1)).ravel(), (of_class, label)), shape=(len(membership), int(labels.max()) + 1)
    )
    return np.outer(sizes, sizes) - (counts @ counts.T).toarray()


def token_places(name: str, value: ArrayLike, shape: tuple[int, int]) -> Int[np.ndarray, " m"]:
    """Return the places among the N J tokens of tokens given as (sequence, position), refusing what is not there.

    Examples
    --------
    >>> token_places("sources", [[1, 0]], (2, 3))
    array([3])
    """
    pairs = np.asarray(value)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu" or len(pairs) == 0:
        raise ValueError(
            f"{name} must be whole numbers (sequence, position), shape (m, 2), but have shape {pairs.shape}."
        )
    outside = ((pairs < 0) | (pairs >= np.array(shape))).any(axis=1)
    if outside.any():
        raise ValueError(
            f"{name} asks for token {tuple(pairs[outside][0].tolist())}, but there are {shape[0]} sequences of "
            f"{shape[1]} positions."
        )
    return np.ravel_multi_index((pairs[:, 0], pairs[:, 1]), shape).astype(np.int64)
