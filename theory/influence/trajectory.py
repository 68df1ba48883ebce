r"""Influence of one sample on another along training, in closed form (paper Eqs. 57-59 and their exact counterparts).

With :math:`r_j = W(t) x_j - y_j` and :math:`dW_i = \partial W(t) / \partial \beta_i`,

.. math:: I_{ij}(t) = r_j(t)^T \, dW_i(t) \, x_j ,

so that negative influence means that sample i helps query j.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory import checks
from theory.arithmetic import product
from theory.dynamics.saxe import Modes
from theory.dynamics.singular_modes import singular_modes
from theory.hierarchy import Dataset, checked_dataset
from theory.influence.mode_response import FORMULAS, ResponseKernels, response_kernels
from theory.trajectories import trajectory

__all__ = ["influence_trajectory"]

_CHUNK = 2**21  # array elements of dW held at once: 16 MB


def influence_trajectory(
    dataset: Dataset,
    epochs: ArrayLike,
    *,
    tau: float,
    g0: ArrayLike | Modes,
    formula: str = "sample-weight",
    sources: Sequence[str] | None = None,
    queries: Dataset | None = None,
) -> xr.DataArray:
    r"""Return the first-order influence of every source on every query at every epoch.

    The formulas differ in what they hold fixed while the weight of a sample changes:

    ``"paper-P1"``, ``"paper-P2"``
        Paper Eqs. 50-58 as printed: rotations A_jk = Q_jk / (s_k - s_j) and B_jk = Q_jk / (s_j - s_k) (P1) or
        Q_kj / (s_j - s_k) (P2), symmetric and skew parts within degenerate blocks. Exact only for symmetric Q.
    ``"spectral"``
        Exact derivative of U g(S) V^T along dC = y x^T: only Y^T X changes and the initial weights follow the new
        singular vectors.
    ``"fixed-init"``
        Only Y^T X changes; the initial weights stay where they are.
    ``"sample-weight"``
        Y^T X and X^T X change, initial weights stay: the derivative of weighted retraining.

    Parameters
    ----------
    dataset
        Training set with whitened inputs, X^T X = I.
    epochs
        Increasing times in epochs, shape (T,), >= 0.
    tau
        Time constant in epochs, see `time_constant`.
    g0
        Initial mode strengths: one positive number, one a mode in descending order of singular value, or `Modes` from
        `aligned_modes`, which also fixes the basis inside degenerate blocks. The first three formulas differentiate
        one function g(s) of the singular values and need one number.
    formula
        One of the above.
    sources
        Names of the samples to perturb; all of them if not given.
    queries
        Samples whose loss is asked for, with the same numbers of inputs and outputs; the training set if not given.

    Returns
    -------
    xarray.DataArray
        dims (epoch, source, query), in units of the loss 1/2 |y - W x|^2 per unit of sample weight.

    Raises
    ------
    ValueError
        If inputs are not whitened; if Y^T X has neither full row nor full column rank and `formula` is one of the
        first three, whose map is not differentiable there; or if strengths do not fit the formula.

    Notes
    -----
    Source and query are dual, I_ij = I_ji, where every target can be fitted, y_i = C x_i, as with one-hot inputs; noise
    and finite changes of the weight break that. All sources together act as a faster clock: the sum of I_ij over i is
    t dl_j/dt for "sample-weight".

    Time is proportional to T n r^2 M for T epochs, n sources, M queries and r modes (at most the smaller of P and O),
    in products of matrices. Kernels take another T d^2, d the number of modes that differ in singular value or
    strength; those of "sample-weight" advance by steps of at most tau / s_max. Outputs beyond r hardly count. Memory is
    that of the result and 0.2 to 0.4 GiB of work, whatever T and n, while arrays of r x max(r, M) are small to that.
    Measured for "sample-weight" on semantic trees (N leaves, O = 2 N - 1, n = 1, M = N, T = 200, one core of an AMD
    EPYC), in CPU-seconds and MiB of peak memory, of which 140 are the imported libraries:

    ==== =================== =================================
    N    one g0 (d = H + 1)  `aligned_modes` (every mode differs)
    ==== =================== =================================
    64   0.1 s, 180 MiB      0.2 s, 230 MiB
    128  0.2 s, 270 MiB      0.5 s, 370 MiB
    256  0.5 s, 280 MiB      1.3 s, 450 MiB
    512  2.2 s, 310 MiB      5.0 s, 500 MiB
    ==== =================== =================================

    At N = 256, T = 50, 100, 200, 400 take 0.2, 0.3, 0.5, 0.8 s, and O = 511, 1022, 2044 all 0.5 s.

    References
    ----------
    Lee, Smith, Adam, Hoogland (2025), arXiv 2510.12071, section C.6.

    Examples
    --------
    >>> from theory import hierarchical_dataset
    >>> influence = influence_trajectory(hierarchical_dataset(), [0, 3000, 10000], tau=1200.0, g0=2.5e-5)
    >>> influence.sel(source="dog", query="sparrow").values.round(3)
    array([ 0.   ,  0.248, -0.   ])
    """
    formula = checks.choice("formula", formula, FORMULAS)
    checked_dataset(dataset)
    times = checks.increasing("epochs", epochs)
    tau = checks.positive("tau", tau)
    checks.whitened(dataset.inputs, needed_by=f"formula {formula!r}")
    queries = dataset.asked(queries)
    names, rows = dataset.chosen(sources)
    modes = resolve_modes(dataset, g0, formula)
    scaled = in_units(modes, times, tau)
    asked = in_modes(modes, queries, list(range(len(queries))), scaled.unit)

    # Modes with equal singular value and strength share their kernels: a tree has few different ones.
    distinct, group = np.unique(np.stack([-scaled.values, scaled.strengths]), axis=1, return_inverse=True)
    values = np.empty((len(times), len(names), len(queries)))
    largest = len(modes.values) * max(len(modes.values), len(queries))
    together = max(1, min(len(names), _CHUNK // largest))
    piece = max(1, _CHUNK // (together * largest))
    blocks = [slice(i, i + together) for i in range(0, len(names), together)]
    perturbed = [in_modes(modes, dataset, rows[block], scaled.unit) for block in blocks]
    kernels = response_kernels(formula, scaled.times, -distinct[0], distinct[1], 1.0, piece=piece)
    for first, some in zip(range(0, len(times), piece), kernels, strict=True):
        expanded = _expand(some, group.ravel())
        for block, source in zip(blocks, perturbed, strict=True):
            values[first : first + piece, block] = _assemble(expanded, source, asked)
    attrs = {
        "formula": formula,
        "tau": tau,
        "g0": modes.initial_strengths,
        "long_name": "influence (negative = helps)",
        "units": "loss per sample weight",
    }
    with np.errstate(over="ignore"):
        values = checks.representable("the influence", values * scaled.unit * scaled.unit)
    return trajectory(values, times, names, queries.names, attrs=attrs)


def resolve_modes(dataset: Dataset, g0: ArrayLike | Modes, formula: str) -> Modes:
    """Return the modes of `dataset` with the initial strengths `g0`, refusing what `formula` cannot use."""
    syx = dataset.syx
    if isinstance(g0, Modes):
        modes = g0
        if modes.left.shape[0] != dataset.n_outputs or modes.right.shape[0] != dataset.n_inputs:
            raise ValueError("the modes given as g0 belong to a data set with other numbers of inputs or outputs.")
        mismatch = np.abs(modes.left * modes.values @ modes.right.T - syx).max()
        if mismatch > 1e-10 * modes.values[0]:
            raise ValueError(f"the modes given as g0 do not reproduce Y^T X (largest difference {mismatch:.3g}).")
    else:
        u, s, v = singular_modes(syx)
        strengths = checks.array("g0", g0)
        if strengths.ndim > 0 and strengths.shape != s.shape:
            raise ValueError(f"g0 has shape {strengths.shape}, but there are {len(s)} modes.")
        modes = Modes(u, s, v, np.broadcast_to(strengths, s.shape).copy())
        differing = modes.initial_strengths[1:] != modes.initial_strengths[:-1]
        if np.any(differing & (s[1:] == s[:-1])):
            raise ValueError(
                "g0 differs inside a block of equal singular values, where the basis is arbitrary; pass "
                "aligned_modes(w1, w2, syx), which fixes it."
            )
    if formula in ("paper-P1", "paper-P2", "spectral"):
        if np.ptp(modes.initial_strengths) > 0:
            raise ValueError(
                f"formula {formula!r} differentiates one function g(s) of the singular values and needs a single g0; "
                "use 'fixed-init' or 'sample-weight' for one strength a mode."
            )
        if len(modes.values) < min(syx.shape):
            raise ValueError(
                f"Y^T X has rank {len(modes.values)}, less than its sides {syx.shape}, where the map U g(S) V^T with "
                f"g(0) > 0 is not differentiable: formula {formula!r} has no value; "
                "use 'fixed-init' or 'sample-weight'."
            )
    return modes


@dataclass(frozen=True, eq=False)
class ModeCoordinates:
    """Samples in the basis of modes: inputs alpha, targets psi, and what of both lies outside the modes."""

    alpha: Float[np.ndarray, "n r"]
    psi: Float[np.ndarray, "n r"]
    input_perp: Float[np.ndarray, "n p"]
    target_perp: Float[np.ndarray, "n o"]


@dataclass(frozen=True, eq=False)
class Scaled:
    """Modes and times in units in which the largest singular value is near one, so that no product leaves the range.

    The unit is a power of two: it changes no digit. Targets and strengths are in units of it, times in those of
    tau / unit, and losses in those of its square.
    """

    unit: float
    values: Float[np.ndarray, " r"]
    strengths: Float[np.ndarray, " r"]
    times: Float[np.ndarray, " t"]


def in_units(modes: Modes, times: Float[np.ndarray, " t"], tau: float) -> Scaled:
    """Return the modes' values and strengths, and times, in units of the largest singular value."""
    unit = float(np.ldexp(1.0, int(np.frexp(modes.values[0])[1])))
    clock = np.minimum(product(times, unit, over=(tau,)), 1e300)
    return Scaled(unit, modes.values / unit, modes.initial_strengths / unit, clock)


def in_modes(modes: Modes, dataset: Dataset, rows: list[int], unit: float = 1.0) -> ModeCoordinates:
    """Return the samples in `rows` in the basis of `modes`, targets in units of `unit`."""
    x, y = dataset.inputs[rows], dataset.targets[rows] / unit
    alpha, psi = x @ modes.right, y @ modes.left
    return ModeCoordinates(alpha, psi, x - alpha @ modes.right.T, y - psi @ modes.left.T)


def _expand(kernels: ResponseKernels, group: Int[np.ndarray, " r"]) -> ResponseKernels:
    """Return the kernels of all modes from those of the different ones."""

    def pairs(kernel: np.ndarray) -> np.ndarray:
        return kernel[:, group[:, None], group]

    def singles(kernel: np.ndarray) -> np.ndarray:
        return kernel[:, group]

    return ResponseKernels(
        pairs(kernels.target_input),
        pairs(kernels.input_target),
        pairs(kernels.input_input),
        singles(kernels.target_perp),
        singles(kernels.input_perp),
        singles(kernels.strengths),
    )


def _assemble(kernels: ResponseKernels, source: ModeCoordinates, query: ModeCoordinates) -> Float[np.ndarray, "t n m"]:
    """Return r_j^T dW_i x_j for all sources i and queries j, shape (T, n, m)."""
    alpha, psi = source.alpha[None], source.psi[None]
    response = (
        kernels.target_input[:, None] * (psi[..., :, None] * alpha[..., None, :])
        + kernels.input_target[:, None] * (alpha[..., :, None] * psi[..., None, :])
        - kernels.input_input[:, None] * (alpha[..., :, None] * alpha[..., None, :])
    )
    residual = kernels.strengths[:, None] * query.alpha - query.psi
    influence = np.einsum("tiaj,tja->tij", response @ query.alpha.T, residual, optimize=True)
    left = np.einsum("ia,ta,ja->tij", source.alpha, kernels.target_perp, query.alpha, optimize=True)
    right_response = kernels.target_perp[:, None] * psi - kernels.input_perp[:, None] * alpha
    right = np.einsum("tia,tja->tij", right_response, residual, optimize=True)
    influence -= left * (source.target_perp @ query.target_perp.T)
    influence += right * (source.input_perp @ query.input_perp.T)
    return influence
