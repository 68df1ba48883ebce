r"""Products with a curvature that contradict their symmetry or finite differences are refused.

Torch's second derivative of an operation may be wrong, silently: that of ``torch._weight_norm`` is in torch 2.13, and
so is that of any ``autograd.Function`` whose backward pass hides what it depends on. For random u and v

.. math::
    u \cdot M v = v \cdot M u , \qquad
    H v = \frac{\nabla L(w + h v) - \nabla L(w - h v)}{2 h} + O(h^2) , \qquad
    G v = J^T \frac{\nabla \ell(f + h J v) - \nabla \ell(f - h J v)}{2 h} + O(h^2) ,

J v from outputs at w + h v and w - h v. Symmetry is asked of all samples, to rounding; the differences are taken on a
few, at h and h/2, and what these two differ by bounds their error (where a kink lies between, they say nothing).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float

from numerics.curvature.derivatives import Derivatives, as_point
from numerics.curvature.entry import AGREEMENT, few
from numerics.curvature.products import Product
from numerics.errors import WrongDerivative
from numerics.models.samples import Samples

__all__ = ["sound_matrix", "sound_product"]

_STEP = torch.finfo(torch.float64).eps ** (1 / 3)  # of a central difference, relative to the point
# A kink between w + h v / 2 and w puts Richardson's value off by 7/3 of what the two differences differ by; with a
# kink further out, or none, it is off by less than that.
_TRUST = 10
_SAMPLES = 8
_NAMES = {"hessian": "Hessian", "gauss-newton": "Gauss-Newton matrix"}
_REMEDY = (
    "write that layer in elementary operations (torch.nn.utils.parametrize.remove_parametrizations folds a "
    "parametrization; an embedding's padding_idx = None shows its row), or use gradient_kernel or tracin, which need "
    "first derivatives alone"
)


def sound_product(
    derivatives: Derivatives,
    curvature: str,
    weights: Float[torch.Tensor, " d"],
    samples: Samples,
    beta: Float[torch.Tensor, " n"] | None,
    where: str = "",
) -> Product:
    """Return the function that multiplies the rows of a block (k, d) by H or G, after it has been checked.

    Raises
    ------
    WrongDerivative
        If it is not symmetric, or not what finite differences say; ``where`` ends the name of the matrix.
    ValueError
        If it is not finite.
    """
    weights = as_point(weights)
    product = _product(derivatives, curvature, weights, samples, beta)
    known, matrix = few(samples, _SAMPLES).like(weights), f"the {_NAMES[curvature]}{where}"
    scale = _rounding_scale(derivatives, weights, known)
    direction = _unit(weights, seed=1)
    of_few = _product(derivatives, curvature, weights, known, None)
    if _off_by(derivatives, curvature, weights, known, of_few, direction, scale) is not None:
        raise WrongDerivative(_wrong(derivatives, curvature, weights, known, of_few, scale, matrix))
    u, v = _unit(weights, seed=2), _unit(weights, seed=3)
    of_u, of_v = product(torch.stack([u, v]))
    if not (of_u.isfinite().all() and of_v.isfinite().all()):
        raise ValueError(
            f"the {_NAMES[curvature]} is not finite{where}: the loss or the module has no second derivative there."
        )
    difference = float((v @ of_u - u @ of_v).abs())
    _refuse_asymmetric(difference, float(of_u.norm() + of_v.norm()) / 2 + scale, matrix)
    return product


def sound_matrix(
    derivatives: Derivatives,
    curvature: str,
    weights: Float[torch.Tensor, " d"],
    samples: Samples,
    beta: Float[torch.Tensor, " n"] | None,
    where: str = "",
) -> Float[torch.Tensor, "d d"]:
    """Return H or G, after it has been checked; see `sound_product`."""
    weights = as_point(weights)
    product = sound_product(derivatives, curvature, weights, samples, beta, where)
    if curvature == "hessian" or not derivatives.takes_jacobians():
        result = product(torch.eye(len(weights), dtype=torch.float64, device=weights.device))
    else:
        result = derivatives.gauss_newton_matrix(weights, samples, beta)
    if result.isfinite().all():
        known = few(samples, _SAMPLES).like(weights)
        size = float(result.abs().max()) + _rounding_scale(derivatives, weights, known)
        _refuse_asymmetric(float((result - result.mT).abs().max()), size, f"the {_NAMES[curvature]}{where}")
    return result


def _asymmetry_bound(size: float) -> float:
    """Return what rounding may leave of M - M^T, given the size of its entries."""
    return 2 * AGREEMENT * size


def _refuse_asymmetric(difference: float, size: float, matrix: str) -> None:
    """Refuse a matrix whose asymmetry is above rounding; not a number is left to those who look for it."""
    if difference > _asymmetry_bound(size):
        raise WrongDerivative(
            f"{matrix} is not symmetric: products that should be equal differ by {difference:.2g}, where rounding "
            f"leaves {_asymmetry_bound(size):.2g}, though finite differences confirm it on a few samples. "
            f"Look for samples that take another way through the module; {_REMEDY}."
        )


def _off_by(
    derivatives: Derivatives,
    curvature: str,
    weights: torch.Tensor,
    samples: Samples,
    product: Product,
    direction: torch.Tensor,
    scale: float,
) -> float | None:
    """Return how far a product is from finite differences, if by more than these and rounding allow."""
    found = product(direction[None])[0]
    step = _STEP * (float(weights.norm()) or 1.0)
    difference = _differences(derivatives, curvature, weights, samples)
    wide, narrow = difference(step * direction) / step, difference(step / 2 * direction) / (step / 2)
    off = float((found - (4 * narrow - wide) / 3).norm())
    allowed = _TRUST * float((wide - narrow).norm()) + AGREEMENT * (float(found.norm()) + scale)
    return off if off > allowed else None


def _differences(
    derivatives: Derivatives, curvature: str, weights: torch.Tensor, samples: Samples
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what gives M v to second order in v from first derivatives."""
    if curvature == "hessian":

        def of_gradients(v: torch.Tensor) -> torch.Tensor:
            slopes = [derivatives.mean_gradient(weights + side * v, samples) for side in (1, -1)]
            return (slopes[0] - slopes[1]) / 2

        return of_gradients

    def of_outputs(v: torch.Tensor) -> torch.Tensor:
        ahead, behind = (derivatives.outputs(weights + side * v, samples) for side in (1, -1))
        return derivatives.pulled_slopes(weights, samples, (ahead - behind) / 2)

    return of_outputs


def _wrong(
    derivatives: Derivatives,
    curvature: str,
    weights: torch.Tensor,
    samples: Samples,
    product: Product,
    scale: float,
    matrix: str,
) -> str:
    """Say which parameters' second derivatives are wrong: those along which alone finite differences disagree."""
    wrong, start = [], 0
    random = _unit(weights, seed=1)
    for name, shape in derivatives.model.shapes.items():
        stop = start + torch.Size(shape).numel()
        block = torch.zeros_like(random)
        block[start:stop] = random[start:stop] / random[start:stop].norm()
        off = _off_by(derivatives, curvature, weights, samples, product, block, scale)
        wrong += [] if off is None else [(name, off)]
        start = stop
    most = max((off for _, off in wrong), default=0.0)
    names = ", ".join(repr(name) for name, _ in wrong[:6]) + (", ..." if len(wrong) > 6 else "")
    along = f"along {names}" if wrong else "along a random direction"
    return (
        f"{matrix} as torch has it is wrong: {along} its product differs from finite differences of "
        f"{'gradients' if curvature == 'hessian' else 'outputs'} by up to {most:.2g}, far above rounding; {_REMEDY}."
    )


def _rounding_scale(derivatives: Derivatives, weights: torch.Tensor, samples: Samples) -> float:
    """Return the size that parts of the curvature may have where they cancel: that of a gradient over the weights'."""
    norms = [float(derivatives.mean_gradient(weights, samples[k : k + 1]).norm()) for k in range(len(samples))]
    return sum(norms) / len(norms) / (float(weights.norm()) or 1.0)


def _product(
    derivatives: Derivatives,
    curvature: str,
    weights: torch.Tensor,
    samples: Samples,
    beta: torch.Tensor | None,
) -> Product:
    make = derivatives.hessian_product if curvature == "hessian" else derivatives.gauss_newton_product
    return make(weights, samples, beta)


def _unit(weights: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    result = torch.randn(len(weights), generator=generator, dtype=torch.float64).to(weights)
    return result / result.norm()
