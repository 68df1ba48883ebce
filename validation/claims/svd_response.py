"""Claims about the response of singular values and vectors to one sample (paper Eqs. 42-56)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from theory import SVDResponse, paper_svd_response, svd_response
from theory.symbolic import derivation
from validation.charts import Plot, Series
from validation.expectations import five_points
from validation.experiments.toy import ToyExperiment
from validation.registry import REFUTES, ROUNDING, Check, Reading, claim, numerics, theory

__all__ = ["COMBINATIONS", "STEP", "relative_difference"]

STEP = 1e-3  # change of the sample weight in finite differences
_EPS = float(np.finfo(float).eps)


# The terms of the printed A and B: which of Q_jk, Q_kj each has is lost in print.
COMBINATIONS = {
    f"A from {first}, B from {second}": (first, second) for first in ("Q_jk", "Q_kj") for second in ("Q_jk", "Q_kj")
}


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return |a - b| / |b|."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@claim(
    "singular-values-respond",
    "A sample's weight moves the singular values by diag(U^T C' V), and splits a degenerate block by the "
    "eigenvalues of "
    "its symmetric part.",
    source="paper Eqs. 48, 52-54, 56",
    compares=(theory("first-order response"), numerics("finite difference of LAPACK's singular values")),
    metric="largest absolute difference of derivatives, all eight sources",
)
def singular_values_respond(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Differentiate the singular values of Y^T X by the weight of every sample."""
    data = experiment.dataset
    worst, error, exact, found = 0.0, 0.0, np.empty((8, 8)), np.empty((8, 8))
    for i, (x, y) in enumerate(zip(data.inputs, data.targets, strict=True)):
        change = np.outer(y, x)

        response = svd_response(data.syx, change)
        exact[i] = response.ds

        def central(
            step: float, change: np.ndarray = change, blocks: tuple[slice, ...] = response.blocks
        ) -> np.ndarray:
            up, down = (np.linalg.svd(data.syx + e * change, compute_uv=False) for e in (step, -step))
            return (up - _reversed_in_blocks(down, blocks)) / (2 * step)

        found[i] = central(STEP)
        worst = max(worst, float(np.abs(found[i] - exact[i]).max()))
        error = max(error, float(np.abs(central(2 * STEP) - found[i]).max()) / 3)
    yield Check(
        "largest difference from central differences",
        worst,
        high=1.5 * error + 64 * _EPS * 4 / STEP,
        why="central differences are off by a third of their change when the step doubles, half again for higher "
        "orders; rounding / step",
    )
    yield Plot(
        "Response of singular values to dog",
        "mode",
        "ds / d weight",
        (
            Series("finite difference", np.arange(8), found[0], style="bars"),
            Series("theory", np.arange(8), exact[0], style="points"),
        ),
        zero=True,
    )


def _reversed_in_blocks(values: np.ndarray, blocks: tuple[slice, ...]) -> np.ndarray:
    """Return values whose order inside every block is reversed, as it is on the other side of a crossing."""
    result = values.copy()
    for block in blocks:
        result[block] = values[block][::-1]
    return result


@claim(
    "printed-rotations",
    "A = U^T U' and B = V'^T V, with A_jk = Q_jk / (s_k - s_j), are antisymmetric.",
    source="paper Eqs. 46, 50-51",
    compares=(theory("computer algebra"), theory("printed and exact formula"), numerics("LAPACK's singular vectors")),
    metric="|A + A^T| / |A|; relative difference of U A and B V^T from finite differences of U and V^T",
    corrected="A_jk = (s_k Q_jk + s_j Q_kj) / (s_k^2 - s_j^2) and B_jk = -(s_j Q_jk + s_k Q_kj) / (s_k^2 - s_j^2), the "
    "printed ones only for symmetric Q; here Q = S alpha alpha^T",
    readings=tuple(Reading(name) for name in COMBINATIONS),
)
def printed_rotations(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Show the defect by algebra and on a data set without degenerate blocks."""
    for variant in ("P1", "P2"):
        yield Check(
            f"computer algebra: remainder of reading {variant} vanishes",
            float(derivation(f"printed-svd-response-{variant}").vanishes),
            high=0.0,
            why="A_jk + A_kj = (Q_jk - Q_kj) / (s_k - s_j), zero only for symmetric Q",
        )
    exactly = float(derivation("svd-response").vanishes)
    yield Check("computer algebra: remainder of the exact formula vanishes", exactly, low=1.0, why="an identity")
    c, change = _generic(experiment)
    exact = svd_response(c, change)
    left, left_error = five_points(lambda eps: _vectors(c + eps * change, exact)[0], STEP)
    right, right_error = five_points(lambda eps: _vectors(c + eps * change, exact)[1], STEP)
    for name, found, reference, error in (("dU", exact.du, left, left_error), ("dV", exact.dv, right, right_error)):
        yield Check(
            f"exact {name} against the finite difference",
            relative_difference(found, reference),
            high=error + 64 * _EPS / STEP,
            why="a fifteenth of what the difference changes when its step doubles; rounding over the step",
        )
    q, s = exact.u.T @ change @ exact.v, exact.s
    gaps = s - s[:, None] + np.eye(len(s))  # s_k - s_j
    off = 1 - np.eye(len(s))
    both = {"Q_jk": q * off, "Q_kj": q.T * off}
    errors = {"exact": relative_difference(exact.du, left)}
    for name, (first, second) in COMBINATIONS.items():
        a, b = both[first] / gaps, -both[second] / gaps
        for letter, matrix in (("A", a), ("B", b)):
            yield Check(
                f"{name}: |{letter} + {letter}^T| / |{letter}|",
                float(np.linalg.norm(matrix + matrix.T) / np.linalg.norm(matrix)),
                low=0.05,
                why="0 for a rotation",
                reading=name,
                roomy=REFUTES,
            )
        errors[name] = float(
            np.hypot(np.linalg.norm(exact.u @ a - left), np.linalg.norm(exact.v @ b.T - right))
            / np.hypot(np.linalg.norm(left), np.linalg.norm(right))
        )
        yield Check(
            f"{name}: (dU, dV) against the finite difference",
            errors[name],
            low=0.05,
            why="far above the error of the finite difference",
            reading=name,
            roomy=REFUTES,
        )
    for variant, name in (("P1", "A from Q_jk, B from Q_jk"), ("P2", "A from Q_jk, B from Q_kj")):
        printed = paper_svd_response(c, change, variant)
        _, second = COMBINATIONS[name]
        yield Check(
            f"{variant} of theory: difference from {name}",
            relative_difference(printed.dv, exact.v @ (-both[second] / gaps).T),
            high=1e-12,
            why="the same formula written here; rounding",
            roomy=ROUNDING,
        )
    yield _error_bars("Error of dU", errors)


def _vectors(matrix: np.ndarray, exact: SVDResponse) -> tuple[np.ndarray, np.ndarray]:
    """Return LAPACK's singular vectors with the signs of those of the unperturbed matrix."""
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u * np.sign(np.sum(u * exact.u, axis=0)), vt.T * np.sign(np.sum(vt.T * exact.v, axis=0))


def _error_bars(title: str, errors: dict[str, float]) -> Plot:
    names = np.array(list(errors))
    return Plot(
        title, "formula", "relative error", (Series("", names, np.array(list(errors.values())), style="bars"),), "y"
    )


def _generic(experiment: ToyExperiment) -> tuple[np.ndarray, np.ndarray]:
    """Return C (6 x 4) with singular values 4, 3, 2, 1 and the change by one sample whose target lies in their span."""
    random = experiment.random("a data set without degenerate blocks")
    u = np.linalg.qr(random.normal(size=(6, 4)))[0]
    v = np.linalg.qr(random.normal(size=(4, 4)))[0]
    c = (u * [4.0, 3.0, 2.0, 1.0]) @ v.T
    return c, np.outer(c[:, 0], np.eye(4)[0])


_GENERIC, _TREE = "a sample whose target may be anything", "one-hot inputs, as in the toy data"


@claim(
    "printed-span",
    "The singular vectors turn within their own span, U' = U A.",
    source="paper Eq. 49",
    compares=(theory("exact response"), numerics("finite difference of LAPACK's singular vectors")),
    metric="share of U' outside the span of U",
    corrected="U' = U A + U_perp U_perp^T C' V S^-1; the second part vanishes for one-hot inputs, whose targets span U",
    readings=(Reading(_GENERIC), Reading(_TREE, right=True)),
)
def printed_span(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Perturb by a sample whose target has a part outside the modes."""
    c, _ = _generic(experiment)
    random = experiment.random("a target outside the modes")
    change = np.outer(random.normal(size=6), np.eye(4)[0])
    exact = svd_response(c, change)
    reference, error = five_points(lambda eps: _vectors(c + eps * change, exact)[0], STEP)
    outside = reference - exact.u @ (exact.u.T @ reference)
    beyond = change @ exact.v / exact.s
    beyond = beyond - exact.u @ (exact.u.T @ beyond)
    predicted = float(np.linalg.norm(beyond) / np.linalg.norm(exact.du))
    yield Check(
        "exact dU against the finite difference",
        relative_difference(exact.du, reference),
        high=error + 64 * _EPS / STEP,
        why="a fifteenth of what the difference changes when its step doubles; rounding over the step",
        roomy=ROUNDING,
    )
    yield Check(
        "share of dU outside the span, generic target",
        float(np.linalg.norm(outside) / np.linalg.norm(reference)),
        low=predicted / 1.001,
        high=predicted * 1.001,
        why=f"|U_perp U_perp^T C' V S^-1| over |dU| of the exact formula, {predicted:.3f}; three of the finite "
        "difference's eleven digits",
        reading=_GENERIC,
        roomy="one for an independent computation of the same share",
    )
    data = experiment.dataset
    tree = svd_response(data.syx, np.outer(data.targets[0], data.inputs[0]))
    left_out = tree.du - tree.u @ (tree.u.T @ tree.du)
    yield Check(
        "share of dU outside the span, dog in the tree",
        float(np.linalg.norm(left_out) / np.linalg.norm(tree.du)),
        high=1e4 * _EPS,
        why="the target is a column of C; rounding",
        reading=_TREE,
        roomy=ROUNDING,
    )
    inside = exact.u @ (exact.u.T @ reference)
    yield _error_bars(
        "dU against the finite difference, generic target",
        {"U A alone": relative_difference(inside, reference), "with U_perp": relative_difference(exact.du, reference)},
    )


_WITH, _WITHOUT = "a block beside other singular values", "a block without others"


@claim(
    "printed-block-rotation",
    "Within a degenerate block the singular vectors turn by A = B = K / (2 s), K the skew part of Q.",
    source="paper Eq. 55",
    compares=(theory("computer algebra"), theory("second-order perturbation"), numerics("LAPACK's singular vectors")),
    metric="relative difference of U' within the block",
    corrected="modes outside the block also turn both sides alike, by their second-order coupling over the splits; "
    "products U g(S) V^T do not see it",
    readings=(Reading(_WITH), Reading(_WITHOUT, right=True)),
)
def printed_block_rotation(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Differentiate the vectors of a block of two equal values beside a third one."""
    for name, expected in (("printed-degenerate-block", 0.0), ("degenerate-block", 1.0)):
        inside = "without" if expected else "with"
        yield Check(
            f"computer algebra: A = B = K / (2 s) {inside} modes outside the block",
            float(derivation(name).vanishes),
            low=expected,
            high=expected,
            why="1 where the remainder vanishes",
            reading=_WITHOUT if expected else _WITH,
        )
    random = experiment.random("a degenerate block")
    u, v = (np.linalg.qr(random.normal(size=(n, 3)))[0] for n in (5, 3))
    c, change = (u * [3.0, 2.0, 2.0]) @ v.T, random.normal(size=(5, 3))
    exact, printed = svd_response(c, change), paper_svd_response(c, change, "P1")
    block = exact.blocks[1]
    split = float(exact.ds[1] - exact.ds[2])

    def vectors(eps: float) -> np.ndarray:
        left = np.linalg.svd(c + eps * change, full_matrices=False)[0]
        turned = left[:, block] if eps > 0 else left[:, block][:, ::-1]
        return turned * np.sign(np.sum(turned * exact.u[:, block], axis=0))

    # Within the block the vectors exist only for eps not 0: their own gap is eps times the split.
    step = 1e-3 * split
    reference, error = five_points(lambda eps: exact.u[:, block].T @ vectors(eps), step)
    errors = {
        "printed": relative_difference(printed.u[:, block].T @ printed.du[:, block], reference),
        "second order": relative_difference(exact.u[:, block].T @ exact.du[:, block], reference),
    }
    tolerance = float(error + 64 * _EPS * exact.s[0] / (step**2 * split) / np.linalg.norm(reference))
    yield Check(
        "exact rotation within the block against the finite difference",
        errors["second order"],
        high=tolerance,
        why="a fifteenth of what the difference changes when its step doubles; rounding of vectors whose own gap is "
        "step x split, eps s / (step^2 split), relative to the rotation",
        roomy=ROUNDING,
    )
    inside, whole = (r.u[:, block].T @ r.du[:, block] for r in (printed, exact))
    predicted = relative_difference(inside, whole)
    yield Check(
        "printed rotation within the block against the finite difference",
        errors["printed"],
        low=predicted / 1.01,
        high=predicted * 1.01,
        why=f"the second-order coupling through the mode outside, from the exact formula: {predicted:.2f}",
        reading=_WITH,
        roomy="the finite difference has more digits than are asked for",
    )
    yield _error_bars("Error of U' within the block", errors)
