r"""What every engine of classical influence is asked, checked once, and the labelled answer.

A damping constant is given as it is or in units of the curvature's largest absolute eigenvalue,

.. math:: \lambda = c \max_k |\mu_k| \quad \text{(paper C.4, c from } 10^{-3} \text{ to } 10) ,

and refused where curvature + lambda I is singular to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from numerics.errors import IndefiniteCurvature
from numerics.models.given import named_samples
from numerics.models.queries import Asked, Queries
from numerics.models.samples import Parts, Samples
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = [
    "Damping",
    "InfluenceRequest",
    "parts_of",
    "plain_labels",
    "query_labels",
    "source_labels",
    "source_positions",
    "with_parts",
]

Labels = Mapping[str, Sequence[Any]]
Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
Data = TypeVar("Data", bound=Dataset | Samples)
Read = TypeVar("Read", bound=Dataset | Samples)


@dataclass(frozen=True, eq=False)
class Damping:
    """One or several damping constants.

    Parameters
    ----------
    constants
        Constants >= 0, shape (m,).
    relative
        Whether they multiply the largest absolute eigenvalue of the curvature.

    Examples
    --------
    >>> Damping.of(None, [0.1, 1.0]).shifts("the Hessian", 4.0, epoch=0)
    array([0.4, 4. ])
    """

    constants: np.ndarray
    relative: bool

    @classmethod
    def of(cls, damping: ArrayLike | None, relative_damping: ArrayLike | None) -> Damping:
        """Return the constants from the two arguments of a public function, of which one must be given."""
        given = [(n, c) for n, c in (("damping", damping), ("relative_damping", relative_damping)) if c is not None]
        if len(given) != 1:
            raise ValueError("give either damping or relative_damping, and not both.")
        name, value = given[0]
        constants = np.atleast_1d(checks.nonnegative(name, value))
        if constants.ndim != 1 or constants.size == 0:
            raise ValueError(f"{name} must be a number or a list of numbers, but its shape is {constants.shape}.")
        return cls(constants, name == "relative_damping")

    def __len__(self) -> int:
        """Return the number of constants m."""
        return len(self.constants)

    def shifts(self, matrix: str, largest: float, epoch: float) -> Float[np.ndarray, " m"]:
        """Return lambda for every constant, given the largest absolute eigenvalue of the matrix."""
        if self.relative and largest == 0:
            raise ValueError(
                f"{matrix} is zero at epoch {epoch:g}, so a damping relative to it is zero too; give an absolute "
                "damping."
            )
        return self.constants * largest if self.relative else self.constants

    def refuse_singular(self, matrix: str, smallest: Float[np.ndarray, " m"], rounding: float, epoch: float) -> None:
        """Refuse the constants whose smallest absolute damped eigenvalue is no more than rounding."""
        for constant, value in zip(self.constants, smallest, strict=True):
            if value <= rounding:
                kind = "relative damping" if self.relative else "damping"
                raise IndefiniteCurvature(
                    f"{matrix} + damping is singular at epoch {epoch:g}: with {kind} {constant:g} its smallest "
                    f"absolute eigenvalue is {value:.3g}. Choose another damping."
                )


@dataclass(frozen=True, eq=False)
class InfluenceRequest(Generic[Data]):
    """Influence of which samples on which, at which sample weights and damping.

    Parameters
    ----------
    curvature
        "hessian" or "gauss-newton".
    dataset
        The N samples whose weighted mean loss is curved.
    sources
        Positions of the sources in it, shape (n,), or parts of its samples.
    queries
        What is asked; None for the losses of the data set.
    sample_weights
        beta, shape (N,).
    damping
        Constants.
    progress
        Called with the number of checkpoints done.
    """

    curvature: str
    dataset: Data
    sources: Any
    queries: Any
    sample_weights: np.ndarray
    damping: Damping
    progress: Callable[[int], object] | None

    @staticmethod
    def of(
        curvature: str,
        dataset: Dataset | Samples,
        sources: Sequence[str] | Parts | None,
        queries: Asked | Parts,
        weights: ArrayLike | None,
        damping: Damping,
        progress: Callable[[int], object] | None,
    ) -> InfluenceRequest[Dataset | Samples]:
        """Return the request after checks of sources and weights."""
        beta = np.ones(len(dataset)) if weights is None else checks.nonnegative("weights", weights)
        if beta.shape != (len(dataset),):
            raise ValueError(f"weights has shape {beta.shape}, but the data set has {len(dataset)} samples.")
        found = parts_of(dataset, sources) if isinstance(sources, Parts) else source_positions(dataset, sources)
        return InfluenceRequest(curvature, dataset, found, queries, beta, damping, progress)

    def read(self, convert: Callable[[Dataset | Samples], Read]) -> InfluenceRequest[Read]:
        """Return the request with data set and queries, which must be samples, as an engine reads them."""
        asked = convert(self.queries) if isinstance(self.queries, (Dataset, Samples)) else self.queries
        return self._reading(convert(self.dataset), asked)

    def of_module(self) -> InfluenceRequest[Samples]:
        """Return the request about samples and any queries, as the engines for modules read it."""
        samples = Samples.of(self.dataset)
        asked = self.queries if isinstance(self.queries, Parts) else Queries.of(self.queries, samples)
        return self._reading(samples, asked)

    def _reading(self, dataset: Read, queries: Any) -> InfluenceRequest[Read]:
        return InfluenceRequest(
            self.curvature, dataset, self.sources, queries, self.sample_weights, self.damping, self.progress
        )

    @property
    def matrix(self) -> str:
        """The curvature as sentences call it."""
        return "H" if self.curvature == "hessian" else "the Gauss-Newton matrix"

    @property
    def asked(self) -> Any:
        """The queries, which are the data set if no others were given."""
        return self.dataset if self.queries is None else self.queries

    def report(self, done: int) -> None:
        """Tell the caller that so many checkpoints are done."""
        if self.progress is not None:
            self.progress(done)

    def answer(
        self,
        epochs: Float[np.ndarray, " t"],
        method: str,
        engine: str,
        *,
        influence: Float[np.ndarray, "m t n q"],
        residual: Float[np.ndarray, "m t k"],
        largest: Float[np.ndarray, " t"],
        lowest: Float[np.ndarray, " t"],
        closest: Float[np.ndarray, "m t"],
        negative: Int[np.ndarray, " t"] | None = None,
        solved_for: str = "source",
    ) -> xr.Dataset:
        """Label what an engine found; without `negative` the inertia is unknown."""
        labels = {"source": source_labels(self.dataset, self.sources), "query": query_labels(self.asked)}
        coords = {"damping": self.damping.constants, "epoch": epochs, **plain_labels(labels)}
        attrs: dict[str, object] = {
            "estimator": "damped Hessian" if self.curvature == "hessian" else "damped Gauss-Newton",
            "method": method,
            "engine": engine,
            "damping": "relative to the largest absolute eigenvalue" if self.damping.relative else "absolute",
            "weights": self.sample_weights if np.any(self.sample_weights != 1) else "all 1",
        }
        measured = self.asked.measured if isinstance(self.asked, Queries) else "loss"
        attrs["query_measure"] = measured
        help_sign: dict[str, object] = (
            {"long_name": "influence (negative = helps)", "units": "loss per sample weight"}
            if measured == "loss"
            else {"long_name": f"influence on the {measured}", "units": "query per sample weight"}
        )
        variables = {
            "influence": labelled_array(influence, coords, "influence", attrs | help_sign),
            "residual": (("damping", "epoch", solved_for), residual),
            "max_abs_eigenvalue": ("epoch", largest),
            "min_eigenvalue": ("epoch", lowest),
            "smallest_damped": (("damping", "epoch"), closest),
        }
        if negative is not None:
            variables["negative_eigenvalues"] = ("epoch", negative)
        return with_parts(xr.Dataset(variables), labels)


def source_positions(dataset: Dataset | Samples, sources: Sequence[str] | None) -> Int[np.ndarray, " n"]:
    """Return where the named sources stand in the data set; all of them if none are named.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> source_positions(hierarchical_dataset(), ["cat", "dog"])
    array([1, 0])
    """
    return np.array([dataset.index(name) for name in named_samples(dataset, sources)])


def parts_of(dataset: Dataset | Samples, parts: Parts) -> Parts:
    """Return parts that are sources, refusing those of samples that are not in the data set."""
    for name in parts.samples.names:
        dataset.index(name)
    return parts


def source_labels(dataset: Dataset | Samples, sources: Int[np.ndarray, " n"] | Parts) -> list[Any]:
    """Return the names of sources, or of the samples and parts that they are."""
    return list(sources.labels) if isinstance(sources, Parts) else [dataset.names[i] for i in sources]


def query_labels(asked: Any) -> list[Any]:
    """Return the names of queries, or of the samples and parts that they are."""
    return list(asked.labels if isinstance(asked, Parts) else asked.names)


def plain_labels(labels: Labels) -> dict[str, Sequence[Any]]:
    """Return labels of dimensions, with numbers in the place of pairs; see `with_parts`."""
    return {dim: [str(k) for k in range(len(names))] if _paired(names) else names for dim, names in labels.items()}


def with_parts(array: Labelled, labels: Labels) -> Labelled:
    """Return an array with a MultiIndex along dimensions of pairs (sample, part): "source_name", "source_part" say."""
    for dim, names in labels.items():
        if _paired(names):
            levels = [f"{dim}_name", f"{dim}_part"]
            columns = {level: (dim, [str(pair[k]) for pair in names]) for k, level in enumerate(levels)}
            array = array.drop_vars(dim).assign_coords(columns).set_index({dim: levels})  # type: ignore[dict-item]
    return array


def _paired(names: Sequence[Any]) -> bool:
    return len(names) > 0 and isinstance(names[0], tuple)
