r"""Hidden representations while they branch: classical multidimensional scaling with axes common to all epochs.

Torgerson's scaling of pairwise distances D (paper Fig. 4b, after Saxe et al. 2019) takes the leading eigenpairs of

.. math:: B = -\tfrac12\, J D^{\circ 2} J = E \Lambda E^T, \qquad J = I - \tfrac1n 1 1^T ,

and returns :math:`E \Lambda^{1/2}`. All samples at all epochs are scaled together, so the axes are the same at every
epoch. Of a linear network with balanced aligned layers the centroids of two groups A, B of samples are apart by

.. math:: d_{AB}^2(t) = \Big| \tfrac1{|A|} \sum_{i \in A} W_1 x_i - \tfrac1{|B|} \sum_{i \in B} W_1 x_i \Big|^2
    = \sum_k g_k(t) \big( v_k \cdot (\bar x_A - \bar x_B) \big)^2 .

The two halves of a branch of the semantic tree differ along the singular vectors of one level only, so the squared
distance rises as that level's mode strength. It reaches half of its final value at the mode's half-rise time, which is
also when a logistic curve rises fastest; its relative growth is fastest at the start and marks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.given import check_checkpoints, check_data
from numerics.models.linear import Checkpoints
from numerics.models.samples import Samples
from theory import checks
from theory.hierarchy import Dataset
from theory.trajectories import labelled_array

__all__ = ["branching_epochs", "classical_mds", "hidden_representations", "representation_embedding"]

# Eigenvalues closer than this share of the largest count as one: closer ones mix at more than sqrt(eps) by rounding.
_DEGENERATE = float(np.sqrt(np.finfo(float).eps))


def classical_mds(distances: ArrayLike, *, dims: int = 2) -> Float[np.ndarray, "n dims"]:
    """Place n points in `dims` dimensions so that their distances approximate the given ones (Torgerson 1952).

    Parameters
    ----------
    distances
        Pairwise distances, shape (n, n): symmetric, not negative, zero on the diagonal.
    dims
        Number of axes, 1 <= dims <= n, in descending order of the spread along them.

    Returns
    -------
    numpy.ndarray
        Coordinates, shape (n, dims), centred. Along each axis the first point that is at least half as far out as the
        farthest one lies on the positive side; where several axes have the same spread, they are turned so that such
        points fix them one after the other. So the result does not depend on the eigensolver.

    Raises
    ------
    ValueError
        If the matrix is not one of distances, or no Euclidean points of that many dimensions come near it (an
        eigenvalue among the leading ones is negative).

    Examples
    --------
    >>> classical_mds([[0.0, 3.0, 5.0], [3.0, 0.0, 4.0], [5.0, 4.0, 0.0]], dims=1).round(2)
    array([[ 2.15],
           [ 0.66],
           [-2.81]])
    """
    distances = checks.nonnegative("distances", checks.matrix("distances", distances))
    n = len(distances)
    if distances.shape != (n, n) or not np.allclose(distances, distances.T, rtol=1e-12, atol=0) or distances.trace():
        raise ValueError(
            f"distances must be a symmetric square matrix with zeros on its diagonal, but the one of shape "
            f"{distances.shape} is not."
        )
    if checks.integer("dims", dims, at_least=1) > n:
        raise ValueError(f"{n} points span fewer than {dims} dimensions; ask for at most {n}.")
    squared = distances**2
    centred = squared - squared.mean(0)
    eigenvalues, vectors = np.linalg.eigh(-0.5 * (centred - centred.mean(1, keepdims=True)))
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    rounding = n * np.finfo(float).eps * np.abs(eigenvalues).max()
    if eigenvalues[dims - 1] < -rounding:
        raise ValueError(
            f"no points in {dims} dimensions have distances like these: eigenvalue {dims} of the centred matrix is "
            f"{eigenvalues[dims - 1]:.3g}; use Euclidean distances, or at most {int((eigenvalues > rounding).sum())} "
            "dimensions."
        )
    spread = np.sqrt(np.maximum(eigenvalues, 0))
    return (vectors * spread) @ _settled_axes(vectors * spread, spread**2)[:, :dims]


def hidden_representations(
    dataset: Dataset | Samples, checkpoints: Checkpoints | ModuleCheckpoints, *, layer: str | None = None
) -> xr.DataArray:
    """Return what a hidden layer makes of every sample at every checkpoint.

    Parameters
    ----------
    dataset
        Samples to represent, of the training set or not.
    checkpoints
        Weights of a linear network, whose hidden layer is W_1 x, or of a torch module.
    layer
        For a module: the name of the submodule whose output is asked for, as in ``module.get_submodule(layer)``.

    Returns
    -------
    xarray.DataArray
        dims (epoch, sample, unit), float64; outputs of more than one axis a sample are flattened.

    Raises
    ------
    ValueError
        If the samples do not fit, a module has no such layer or does not use it, or a linear network is given one.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=200))
    >>> hidden_representations(hierarchical_dataset(), run.checkpoints).sizes
    Frozen({'epoch': 3, 'sample': 8, 'unit': 50})
    """
    check_data(dataset)
    check_checkpoints(checkpoints)
    if isinstance(checkpoints, Checkpoints):
        if layer is not None:
            raise ValueError(f"a linear network has one hidden layer, but layer={layer!r} was given; leave it out.")
        samples = Samples.of(dataset).like(checkpoints.w1)
        if samples.inputs.shape[1:] != checkpoints.w1.shape[2:]:
            raise ValueError(
                f"the network reads {checkpoints.w1.shape[2]} inputs, but the samples have shape "
                f"{tuple(samples.inputs.shape[1:])}."
            )
        values = samples.inputs @ checkpoints.w1.mT
    else:
        samples = Samples.of(dataset).like(checkpoints.like)
        checkpoints.check_fits(samples)
        values = _layer_outputs(checkpoints, samples, layer)
    stored = values.double().cpu().numpy()
    coords = {"epoch": checkpoints.epochs, "sample": samples.names, "unit": np.arange(stored.shape[2])}
    return labelled_array(stored, coords, "representation", {"layer": layer or "hidden"})


def representation_embedding(
    dataset: Dataset | Samples,
    checkpoints: Checkpoints | ModuleCheckpoints,
    *,
    dims: int = 2,
    layer: str | None = None,
) -> xr.DataArray:
    """Scale the hidden representations of all samples at all checkpoints together (Saxe et al. 2019; paper Fig. 4b).

    Parameters
    ----------
    dataset, checkpoints, layer
        As for `hidden_representations`.
    dims
        Number of axes.

    Returns
    -------
    xarray.DataArray
        dims (epoch, sample, axis), axes in descending order of spread; the coordinate ``explained`` is each axis's
        share of the total. It is `classical_mds` of the Euclidean distances between the T N points, computed from the
        centred points themselves without the distances; the axes' signs are settled at the last checkpoint. Two
        branches of one level learned at about the same time spread about equally, one along each of two axes.

    Raises
    ------
    ValueError
        If there are fewer dimensions than axes, or as for `hidden_representations`.

    Examples
    --------
    Animals have parted from plants along the first axis.

    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> run = train(hierarchical_dataset(), TrainingConfig(epochs=4000))
    >>> (representation_embedding(hierarchical_dataset(), run.checkpoints)[-1, :, 0] > 0).values
    array([ True,  True,  True,  True, False, False, False, False])
    """
    hidden = hidden_representations(dataset, checkpoints, layer=layer)
    times, samples, units = hidden.shape
    if checks.integer("dims", dims, at_least=1) > min(times * samples, units):
        raise ValueError(
            f"{times * samples} points of {units} units span fewer than {dims} dimensions; ask for at most "
            f"{min(times * samples, units)}."
        )
    points = hidden.values.reshape(-1, units)
    left, spread, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
    coordinates = (left * spread).reshape(times, samples, -1)
    axes = _settled_axes(coordinates[-1], spread**2)[:, :dims]
    attrs = {"estimator": "classical multidimensional scaling", "layer": hidden.attrs["layer"]}
    coords = {"epoch": hidden["epoch"].values, "sample": hidden["sample"].values, "axis": np.arange(dims)}
    total = np.sum(spread**2)
    explained = spread[:dims] ** 2 / total if total > 0 else np.zeros(dims)
    return labelled_array(coordinates @ axes, coords, "embedding", attrs).assign_coords(explained=("axis", explained))


def branching_epochs(
    dataset: Dataset | Samples,
    checkpoints: Checkpoints | ModuleCheckpoints,
    branches: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    *,
    fraction: float = 0.5,
    layer: str | None = None,
) -> xr.DataArray:
    """Return when the hidden representations of pairs of groups part.

    The branching epoch is the first at which the squared distance between the centroids of the two groups reaches
    `fraction` of its value at the last checkpoint, linear between checkpoints. For the halves of a branch of the
    semantic tree and one half, it is the half-rise time of the mode that makes the distinction.

    Parameters
    ----------
    dataset, checkpoints, layer
        As for `hidden_representations`. Train until the groups are as far apart as they will be.
    branches
        Two lists of sample names, without a common one, for each branch by its name.
    fraction
        Share of the final squared distance, between 0 and 1.

    Returns
    -------
    xarray.DataArray
        Epochs, dims (branch); NaN where the groups are that far apart from the first checkpoint on.

    Raises
    ------
    ValueError
        If there is no branch, a group is empty or shares a name with the other, or the groups do not part at all.
    KeyError
        If a name is not in the data set.

    Examples
    --------
    >>> from numerics import TrainingConfig, train
    >>> from theory import hierarchical_dataset
    >>> data = hierarchical_dataset()
    >>> run = train(data, TrainingConfig(epochs=6000))
    >>> pairs = {"animal, plant": (data.names[:4], data.names[4:]), "mammal, bird": (data.names[:2], data.names[2:4])}
    >>> branching_epochs(data, run.checkpoints, pairs).values.round(-2)
    array([2600., 4000.])
    """
    fraction = checks.positive("fraction", fraction)
    if fraction >= 1:
        raise ValueError(f"fraction must lie between 0 and 1, but {fraction} was given.")
    if not branches:
        raise ValueError("branches is empty; name at least one pair of groups.")
    samples = Samples.of(dataset)
    contrasts = np.stack([_contrast(samples, name, *groups) for name, groups in branches.items()])
    hidden = hidden_representations(samples, checkpoints, layer=layer)
    apart = np.sum(np.einsum("bn,tnu->btu", contrasts, hidden.values) ** 2, axis=-1)
    epochs = hidden["epoch"].values
    values = [_first_crossing(name, epochs, row, fraction * row[-1]) for name, row in zip(branches, apart, strict=True)]
    attrs = {"fraction": fraction, "layer": hidden.attrs["layer"], "units": "epochs"}
    return labelled_array(np.array(values), {"branch": list(branches)}, "branching epoch", attrs)


def _layer_outputs(
    checkpoints: ModuleCheckpoints, samples: Samples, layer: str | None
) -> Float[torch.Tensor, "t n units"]:
    """Record the output of one submodule in a forward pass at every checkpoint."""
    model = checkpoints.model
    named = dict(model.called.named_modules())
    if layer not in named:
        raise ValueError(f"the module has no layer called {layer!r}; there are {', '.join(filter(None, named))}.")
    recorded: list[torch.Tensor] = []
    handle = named[layer].register_forward_hook(lambda _module, _inputs, output: recorded.append(output))
    try:
        for t in range(len(checkpoints)):
            model.outputs(checkpoints.weights_at(t), samples.inputs, checkpoints.state_at(t))
    finally:
        handle.remove()
    if len(recorded) != len(checkpoints) or any(len(output) != len(samples) for output in recorded):
        raise ValueError(f"layer {layer!r} must be called once a forward pass, with the samples along its first axis.")
    return torch.stack(recorded).flatten(2)


def _settled_axes(
    reference: Float[np.ndarray, "n m"], eigenvalues: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "m m"]:
    """Return the rotation inside each run of equal eigenvalues, signs included, that `reference` points settle.

    The first point at least half as far out as the farthest one gives the first axis; what is left of the points
    gives the next one.
    """
    rotation = np.eye(len(eigenvalues))
    gaps = -np.diff(eigenvalues, prepend=np.inf) > _DEGENERATE * eigenvalues[0]
    for run in np.split(np.arange(len(eigenvalues)), np.flatnonzero(gaps)[1:]):
        rest, chosen = reference[:, run], []
        for _ in run:
            radius = np.linalg.norm(rest, axis=1)
            pivot = np.argmax(radius >= radius.max() / 2)
            if radius[pivot] == 0:  # also where squares underflow
                break
            chosen.append(rest[pivot] / radius[pivot])
            rest = rest - np.outer(rest @ chosen[-1], chosen[-1])
        if len(chosen) == len(run):
            rotation[np.ix_(run, run)] = np.transpose(chosen)
    return rotation


def _contrast(samples: Samples, name: str, first: Sequence[str], second: Sequence[str]) -> Float[np.ndarray, " n"]:
    """Return the weights whose sum over samples is the difference of the two groups' means."""
    if not first or not second:
        raise ValueError(f"branch {name!r} has an empty group; each needs at least one sample.")
    if both := sorted(set(first) & set(second)):
        raise ValueError(f"{both[0]!r} is in both groups of branch {name!r}; put it in one.")
    weights = np.zeros(len(samples))
    for group, sign in ((set(first), 1), (set(second), -1)):
        weights[[samples.index(member) for member in group]] = sign / len(group)
    return weights


def _first_crossing(name: str, epochs: np.ndarray, apart: Float[np.ndarray, " t"], level: float) -> float:
    if not apart[-1] > 0:
        raise ValueError(
            f"the groups of branch {name!r} never part: their centroids are the same at the last checkpoint."
        )
    after = int(np.argmax(apart >= level))
    if after == 0:
        return float("nan")
    share = (level - apart[after - 1]) / (apart[after] - apart[after - 1])
    return float(epochs[after - 1] + share * (epochs[after] - epochs[after - 1]))
