"""Claims about the response of singular values and vectors to one sample (paper Eqs. 42-56)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from theory import paper_svd_response, svd_response
from theory.symbolic import derivation
from validation.charts import Plot, Series
from validation.experiments.toy import ToyExperiment
from validation.registry import Check, claim, numerics, theory

__all__ = ["five_points", "relative_difference"]

STEP = 1e-3  # change of the sample weight in finite differences
_EPS = float(np.finfo(float).eps)


def five_points(values: Callable[[float], np.ndarray], step: float = STEP) -> np.ndarray:
    """Return the derivative from values at -2, -1, 1, 2 steps, up to step^4 / 30 times the fifth derivative."""
    at = {k: values(k * step) for k in (-2, -1, 1, 2)}
    return (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)


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
    worst, exact, found = 0.0, np.empty((8, 8)), np.empty((8, 8))
    for i, (x, y) in enumerate(zip(data.inputs, data.targets, strict=True)):
        change = np.outer(y, x)

        def values(eps: float, change: np.ndarray = change) -> np.ndarray:
            s = np.linalg.svd(data.syx + eps * change, compute_uv=False)
            return np.sort(s) if eps < 0 else s  # a block's order reverses with the sign of the change

        exact[i] = svd_response(data.syx, change).ds
        forward = (values(STEP) - values(0.0)) / STEP
        backward = (values(0.0) - np.linalg.svd(data.syx - STEP * change, compute_uv=False)) / STEP
        found[i] = (forward + _reversed_in_blocks(backward, svd_response(data.syx, change).blocks)) / 2
        worst = max(worst, float(np.abs(found[i] - exact[i]).max()))
    gap = float(-np.diff(np.unique(svd_response(data.syx, np.outer(data.targets[0], data.inputs[0])).s)[::-1]).max())
    yield Check(
        "largest difference from central differences",
        worst,
        high=STEP**2 * 15**1.5 / gap**2 + 64 * _EPS * 4 / STEP,
        why=f"step^2 times a third derivative of order |C'|^3 / gap^2, |C'| <= 15^(1/2), gap {gap:.2f}; rounding / "
        "step",
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
    metric="|A + A^T| / |A|; relative difference of U A from a finite difference of U",
    corrected="A_jk = (s_k Q_jk + s_j Q_kj) / (s_k^2 - s_j^2), the printed one only for symmetric Q; here "
    "Q = S alpha alpha^T",
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

    def left(eps: float) -> np.ndarray:
        u = np.linalg.svd(c + eps * change, full_matrices=False)[0]
        return u * np.sign(np.sum(u * exact.u, axis=0))

    reference = five_points(left)
    gap = float(-np.diff(exact.s).max())
    truncation = (np.linalg.norm(change) * STEP / gap) ** 4
    yield Check(
        "exact dU against the finite difference",
        relative_difference(exact.du, reference),
        high=float(truncation + 64 * _EPS / STEP / gap),
        why=f"five-point truncation (|C'| step / gap)^4 with gap {gap:.2f}; rounding eps / (step gap)",
    )
    errors = {"exact": relative_difference(exact.du, reference)}
    for variant in ("P1", "P2"):
        printed = paper_svd_response(c, change, variant)
        a = printed.u.T @ printed.du
        yield Check(
            f"reading {variant}: |A + A^T| / |A|",
            float(np.linalg.norm(a + a.T) / np.linalg.norm(a)),
            low=0.01,
            why="0 for a rotation; far above rounding",
        )
        errors[f"reading {variant}"] = relative_difference(printed.du, reference)
        yield Check(
            f"reading {variant}: dU against the finite difference",
            errors[f"reading {variant}"],
            low=0.01,
            why="far above the error of the finite difference",
        )
    yield _error_bars("Error of dU", errors)


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


@claim(
    "printed-span",
    "The singular vectors turn within their own span, U' = U A.",
    source="paper Eq. 49",
    compares=(theory("exact response"), numerics("finite difference of LAPACK's singular vectors")),
    metric="share of U' outside the span of U",
    corrected="U' = U A + U_perp U_perp^T C' V S^-1; the second part vanishes for one-hot inputs, whose targets span U",
)
def printed_span(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Perturb by a sample whose target has a part outside the modes."""
    c, _ = _generic(experiment)
    random = experiment.random("a target outside the modes")
    change = np.outer(random.normal(size=6), np.eye(4)[0])
    exact = svd_response(c, change)

    def left(eps: float) -> np.ndarray:
        u = np.linalg.svd(c + eps * change, full_matrices=False)[0]
        return u * np.sign(np.sum(u * exact.u, axis=0))

    reference = five_points(left)
    outside = reference - exact.u @ (exact.u.T @ reference)
    truncation = float((np.linalg.norm(change) * STEP) ** 4 + 64 * _EPS / STEP)
    yield Check(
        "exact dU against the finite difference",
        relative_difference(exact.du, reference),
        high=truncation,
        why="gap 1, as above",
    )
    yield Check(
        "share of dU outside the span, generic target",
        float(np.linalg.norm(outside) / np.linalg.norm(reference)),
        low=0.01,
        why="two of six output directions are outside; far above the error of the finite difference",
    )
    data = experiment.dataset
    tree = svd_response(data.syx, np.outer(data.targets[0], data.inputs[0]))
    beyond = tree.du - tree.u @ (tree.u.T @ tree.du)
    yield Check(
        "share of dU outside the span, dog in the tree",
        float(np.linalg.norm(beyond) / np.linalg.norm(tree.du)),
        high=1e4 * _EPS,
        why="the target is a column of C; rounding",
    )
    inside = exact.u @ (exact.u.T @ reference)
    yield _error_bars(
        "dU against the finite difference, generic target",
        {"U A alone": relative_difference(inside, reference), "with U_perp": relative_difference(exact.du, reference)},
    )


@claim(
    "printed-block-rotation",
    "Within a degenerate block the singular vectors turn by A = B = K / (2 s), K the skew part of Q.",
    source="paper Eq. 55",
    compares=(theory("computer algebra"), theory("second-order perturbation"), numerics("LAPACK's singular vectors")),
    metric="relative difference of U' within the block",
    corrected="modes outside the block also turn both sides alike, by their second-order coupling over the splits; "
    "products U g(S) V^T do not see it",
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
    reference = exact.u[:, block].T @ five_points(vectors, step)
    size = float(np.linalg.norm(change))
    errors = {
        "printed": relative_difference(printed.u[:, block].T @ printed.du[:, block], reference),
        "second order": relative_difference(exact.u[:, block].T @ exact.du[:, block], reference),
    }
    tolerance = float((10 * size**2 * step / split) ** 4 + 64 * _EPS / (step**2 * split))
    yield Check(
        "exact rotation within the block against the finite difference",
        errors["second order"],
        high=tolerance,
        why="five-point truncation with splits of size step x split; rounding eps / (step^2 split)",
    )
    yield Check(
        "printed rotation within the block against the finite difference",
        errors["printed"],
        low=10 * tolerance,
        why="ten times the error of the finite difference",
    )
    yield _error_bars("Error of U' within the block", errors)
