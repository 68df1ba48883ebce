r"""The semantic-tree data set of Saxe et al. and its exact singular structure (paper C.1).

A balanced binary tree with H levels below the root has N = 2^H leaves (samples) and O = 2^(H+1) - 1 nodes (features):
x_i is one-hot, y_i marks the nodes on the path from the root to leaf i. Then Y^T = U S V^T with

.. math:: s_0^2 = 2^{H+1} - 1, \qquad s_l^2 = 2^{H+1-l} - 1, \quad l = 1..H,

once for the root and 2^(l-1) times for the distinctions of level l.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from theory import checks

__all__ = [
    "Dataset",
    "SingularStructure",
    "checked_dataset",
    "hierarchical_dataset",
    "hierarchical_structure",
    "tree_distance",
]

_NAMES_OF_EIGHT = ("dog", "cat", "sparrow", "penguin", "pine", "oak", "rose", "lily")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs, targets and sample names, checked on construction and read-only afterwards.

    Parameters
    ----------
    inputs
        X, shape (N, P), rows x_i.
    targets
        Y, shape (N, O), rows y_i.
    names
        N different sample names.

    Raises
    ------
    ValueError
        If a value is not finite, the numbers of rows differ, or a name is missing or repeated.

    Examples
    --------
    >>> pair = Dataset(np.eye(2), np.array([[1.0, 0.0], [0.5, 0.5]]), ("a", "b"))
    >>> pair.syx
    array([[1. , 0.5],
           [0. , 0.5]])
    """

    inputs: np.ndarray
    targets: np.ndarray
    names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        inputs = checks.matrix("inputs", self.inputs).copy()
        targets = checks.matrix("targets", self.targets).copy()
        n = checks.same_length(inputs=inputs, targets=targets)
        names = self._given_names() or tuple(f"sample-{i}" for i in range(n))
        if len(names) != n:
            raise ValueError(f"names has {len(names)} entries, but there are {n} samples.")
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        if repeated:
            raise ValueError(f"names must be different, but {', '.join(map(repr, repeated))} is repeated.")
        inputs.flags.writeable = targets.flags.writeable = False
        for key, value in (("inputs", inputs), ("targets", targets), ("names", names)):
            object.__setattr__(self, key, value)

    def _given_names(self) -> tuple[str, ...]:
        given: object = self.names
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            raise TypeError(f"names must be a list of names, but {given!r} was given.")
        checks.plain("names", list(given))
        entries = np.array(list(given), dtype=object).ravel().tolist()  # a missing value stays what it is
        for k, name in enumerate(entries):
            if name is None or name != name:
                raise TypeError(f"names must be a list of names, but entry {k} is {name!r}, a missing value.")
        try:
            return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in entries)
        except UnicodeDecodeError as error:
            raise ValueError(f"names holds bytes that are not text in UTF-8: {error.object!r}.") from None

    def __len__(self) -> int:
        """Return the number of samples N."""
        return len(self.names)

    @property
    def n_inputs(self) -> int:
        """Number of input features P."""
        return int(self.inputs.shape[1])

    @property
    def n_outputs(self) -> int:
        """Number of output features O."""
        return int(self.targets.shape[1])

    @property
    def syx(self) -> Float[np.ndarray, "o p"]:
        """Input-output correlation C = Y^T X, shape (O, P) (paper Eq. 21)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return checks.representable("Y^T X", self.targets.T @ self.inputs)

    @property
    def sxx(self) -> Float[np.ndarray, "p p"]:
        """Input second moment X^T X, shape (P, P)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return checks.representable("X^T X", self.inputs.T @ self.inputs)

    def index(self, name: str) -> int:
        """Return the row of the sample called `name`.

        Raises
        ------
        KeyError
            If no sample has that name; the sentence lists those there are.
        """
        if name not in self._rows:
            raise KeyError(f"no sample is called {name!r}; there are {', '.join(self.names)}.")
        return self._rows[name]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def chosen(self, sources: Sequence[str] | None) -> tuple[tuple[str, ...], list[int]]:
        """Return the names and rows of `sources`, all samples if that is None.

        Raises
        ------
        KeyError
            If no sample has one of the names.
        ValueError
            If no name is given, or one twice.
        """
        names = self.names if sources is None else checks.names("sources", sources)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"sources must name at least one sample and none twice, but they are {list(names)}.")
        return names, [self.index(name) for name in names]

    def asked(self, queries: Dataset | None) -> Dataset:
        """Return the samples whose loss is asked for: `queries`, or this training set if that is None.

        Raises
        ------
        ValueError
            If queries have other numbers of inputs or outputs.
        """
        if queries is None:
            return self
        checks.instance("queries", queries, Dataset, made_by="Dataset(inputs, targets, names)")
        if (queries.n_inputs, queries.n_outputs) != (self.n_inputs, self.n_outputs):
            raise ValueError(
                f"queries have {queries.n_inputs} inputs and {queries.n_outputs} outputs, but the training set has "
                f"{self.n_inputs} and {self.n_outputs}."
            )
        return queries

    def without(self, names: str | Sequence[str]) -> Dataset:
        """Return the data set with the named samples left out (paper Eq. 3, D without i)."""
        dropped = {self.index(name) for name in ([names] if isinstance(names, str) else names)}
        kept = [i for i in range(len(self)) if i not in dropped]
        return Dataset(self.inputs[kept], self.targets[kept], tuple(self.names[i] for i in kept))


def checked_dataset(value: object) -> Dataset:
    """Return `value` if it is a data set.

    Examples
    --------
    >>> checked_dataset(np.eye(2))
    Traceback (most recent call last):
    ...
    TypeError: dataset must be a Dataset, made by Dataset(inputs, targets, names), but ndarray was given.
    """
    return checks.instance("dataset", value, Dataset, made_by="Dataset(inputs, targets, names)")


@dataclass(frozen=True, eq=False)
class SingularStructure:
    """Exact singular value decomposition of a semantic tree, one column a tree distinction.

    Parameters
    ----------
    left, right
        U, shape (O, N), and V, shape (N, N), orthonormal columns in the order of `values`.
    values
        Singular values, shape (N,), descending.
    levels
        Level of the distinction each mode learns, shape (N,); 0 is the root (the mean over all samples).

    Examples
    --------
    >>> structure = hierarchical_structure(levels=3)
    >>> structure.values**2
    array([15.,  7.,  3.,  3.,  1.,  1.,  1.,  1.])
    """

    left: Float[np.ndarray, "o n"]
    values: Float[np.ndarray, " n"]
    right: Float[np.ndarray, "n n"]
    levels: Int[np.ndarray, " n"]


def hierarchical_dataset(levels: int = 3) -> Dataset:
    """Build the balanced binary semantic tree with `levels` levels below the root.

    Parameters
    ----------
    levels
        H >= 1. N = 2^H samples with one-hot inputs, O = 2^(H+1) - 1 binary features, listed root first, level by level.

    Returns
    -------
    Dataset
        For H = 3 the paper's eight names in tree order; otherwise ``leaf-0``, ``leaf-1``, ...

    Examples
    --------
    >>> hierarchical_dataset().names
    ('dog', 'cat', 'sparrow', 'penguin', 'pine', 'oak', 'rose', 'lily')
    >>> hierarchical_dataset(levels=1).targets
    array([[1., 1., 0.],
           [1., 0., 1.]])
    """
    levels = _checked_levels(levels)
    n = 2**levels
    features = [np.kron(np.eye(2**level), np.ones((2 ** (levels - level), 1))) for level in range(levels + 1)]
    names = _NAMES_OF_EIGHT if levels == 3 else tuple(f"leaf-{i}" for i in range(n))
    return Dataset(np.eye(n), np.hstack(features), names)


def hierarchical_structure(levels: int = 3) -> SingularStructure:
    """Return the exact singular structure of `hierarchical_dataset`.

    The right singular vectors are the Haar wavelets of the tree: the constant vector, and for every inner node the
    difference of its two halves. One level's distinctions share a singular value, so blocks of size 2^(l-1) are the
    generic case.

    Parameters
    ----------
    levels
        H >= 1.

    Examples
    --------
    >>> data, exact = hierarchical_dataset(levels=4), hierarchical_structure(levels=4)
    >>> bool(np.allclose(exact.left * exact.values @ exact.right.T, data.syx, atol=1e-14))
    True
    """
    levels = _checked_levels(levels)
    n = 2**levels
    columns = [np.full((n, 1), n**-0.5)]
    for level in range(1, levels + 1):
        support = 2 ** (levels - level + 1)
        halves = np.repeat([1.0, -1.0], support // 2)[:, None] * support**-0.5
        columns.append(np.kron(np.eye(2 ** (level - 1)), halves))
    right = np.hstack(columns)
    level_of_mode = np.concatenate([[0], *(np.full(2 ** (level - 1), level) for level in range(1, levels + 1))])
    values = np.sqrt(np.where(level_of_mode == 0, 2.0 ** (levels + 1), 2.0 ** (levels + 1 - level_of_mode)) - 1)
    left = hierarchical_dataset(levels).targets.T @ right / values
    return SingularStructure(left=left, values=values, right=right, levels=level_of_mode)


def _checked_levels(levels: int) -> int:
    levels = checks.integer("levels", levels, at_least=1)
    if levels > 13:
        raise ValueError(
            f"a tree of {levels} levels has matrices of {4**levels:.2g} entries; at most 13 levels are built."
        )
    return levels


def tree_distance(levels: int = 3) -> Int[np.ndarray, "n n"]:
    """Return how many levels up the lowest common ancestor of each pair of leaves lies, shape (N, N).

    Examples
    --------
    >>> tree_distance(levels=2)
    array([[0, 1, 2, 2],
           [1, 0, 2, 2],
           [2, 2, 0, 1],
           [2, 2, 1, 0]])
    """
    levels = _checked_levels(levels)
    leaf = np.arange(2**levels)
    differing = leaf[:, None] ^ leaf[None, :]
    return np.frexp(differing)[1].astype(np.int64)
