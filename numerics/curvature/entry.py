"""What torch can differentiate of a model is found out on entry, by trying; what it cannot is refused in a sentence.

Gradients of two samples are taken by vmap and one by one, and so are products of two vectors with the curvature, with
J v also from the rows of J: the fastest way is used that works and agrees with the most direct one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import prod
from weakref import WeakKeyDictionary

import numpy as np
import torch

from numerics.curvature.derivatives import Derivatives, Engine, as_point
from numerics.curvature.kernels import Elementary, differentiable
from numerics.curvature.layout import Layout
from numerics.curvature.memory import allowed_bytes, counted_bytes
from numerics.errors import NotDifferentiable
from numerics.models.module import TorchModel
from numerics.models.promise import check_own_losses
from numerics.models.samples import Samples
from numerics.models.slopes import check_gradients
from numerics.models.trees import leaves
from theory import checks

__all__ = ["AGREEMENT", "derivatives_of", "few"]

# Two evaluations in different order differ by n eps of their terms, n the length of the longest sum; this allows for
# sums of 7e7 terms, and what is wrong is off by more.
AGREEMENT = torch.finfo(torch.float64).eps ** 0.5
_TRIAL_BYTES = 2**28  # of the work on entry
_KNOWN: WeakKeyDictionary[TorchModel, dict] = WeakKeyDictionary()  # what was found out, by model and kind of samples


def derivatives_of(
    model: TorchModel,
    weights: torch.Tensor,
    samples: Samples,
    curvature: str | None = None,
    *,
    max_memory: int | None = None,
) -> Derivatives:
    """Return the derivatives of a model by the fastest way that works.

    Parameters
    ----------
    model, weights, samples
        Where it is tried.
    curvature
        "hessian" or "gauss-newton" if products with it will be needed; None for gradients alone.
    max_memory
        Bytes that the work may hold at a time.

    Raises
    ------
    NotDifferentiable
        If no way works; the sentence names the module and what to do.
    WrongDerivative
        If differences of the losses contradict the gradient.
    TypeError
        If one of the three is something else.
    ValueError
        If the weights are not a finite vector with a number for every weight of the model.

    Examples
    --------
    >>> model = TorchModel(torch.nn.LSTM(2, 1, batch_first=True), call=lambda lstm, x: lstm(x)[0][:, -1])
    >>> derivatives_of(model, model.initial(), Samples(torch.ones(3, 4, 2), torch.ones(3, 1)), "hessian").engine.name
    'gradients by loop, products by vmap'
    """
    checks.instance("model", model, TorchModel, made_by="TorchModel(module, loss)")
    checks.instance("samples", samples, Samples, made_by="Samples(inputs, targets)")
    checks.instance("weights", weights, torch.Tensor, made_by="model.initial() or checkpoints.weights_at(t)")
    count = sum(prod(shape) for shape in model.shapes.values())
    if weights.shape != (count,):
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}, but the model has {count} of them; give a vector of as many."
        )
    if not torch.isfinite(weights).all():
        raise ValueError("weights hold a number that is not finite; curvature is not defined there.")
    kind = (curvature, *((n, leaf.shape[1:], leaf.dtype) for n, leaf in leaves("", (samples.inputs, samples.targets))))
    known = _KNOWN.setdefault(model, {})
    if kind not in known:
        weights = as_point(weights)
        elementary = _evaluated(model, weights, few(samples, 4).like(weights))
        with differentiable(model.module, Elementary() if elementary else None):
            check_gradients(model, weights, samples.like(weights))
        known[kind] = _tried(model, weights, few(samples, 2).like(weights), curvature, elementary)
    return Derivatives(model, known[kind][0], allowed_bytes(max_memory, weights.device), *known[kind][1:])


def few(samples: Samples, count: int) -> Samples:
    """Return some samples, evenly spaced."""
    if len(samples) <= count:
        return samples
    return samples[np.linspace(0, len(samples) - 1, count).round().astype(int)]


def _tried(
    model: TorchModel, weights: torch.Tensor, samples: Samples, curvature: str | None, elementary: bool
) -> tuple[Engine, int, Layout | None]:
    """Return the engine, the bytes that the graph of one sample's loss keeps, and the layout of outputs."""
    engine = Engine(elementary=elementary)
    with differentiable(model.module, Elementary() if engine.elementary else None):
        one, at = few(samples, 1), weights.clone().requires_grad_()
        outputs = model.outputs(weights, samples.inputs) if curvature == "gauss-newton" else None
        layout = None if outputs is None else Layout.of(outputs, len(samples))
        with counted_bytes(besides=at) as kept:
            graph = model.losses(at, one)
    size = max(8, sum(kept.values()))
    del graph
    trial = Derivatives(model, engine, _TRIAL_BYTES, size, layout)
    trial = _with(trial, gradients=_way(trial, "gradients", lambda d: _gradients(d, weights, samples)))
    if curvature is None:
        return _with(trial, products=trial.engine.gradients).engine, size, layout
    along = torch.randn(2, len(weights), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(weights)
    name = "hessian_product" if curvature == "hessian" else "gauss_newton_product"
    way = _way(trial, "products", lambda d: [getattr(d, name)(weights, samples, None)(along)])
    return _with(trial, products=way).engine, size, layout


def _evaluated(model: TorchModel, weights: torch.Tensor, samples: Samples) -> bool:
    """Return whether the forward pass needs other operations than the module's own; refuse one that is random."""
    name, mode = type(model.module).__name__, Elementary()
    with torch.no_grad(), differentiable(model.module, mode):
        first = model.evaluated(weights, samples)
        check_own_losses(model, weights, samples)
        mode.changed.clear()  # of casts that the model keeps from its first evaluation
        second = model.losses(weights, samples)
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        raise NotDifferentiable(
            f"{name} gives other losses each time, even in evaluation mode, so it has no derivative; give functional "
            "dropout training=self.training, and draw no random numbers in the forward pass."
        )
    return bool(mode.changed)


def _gradients(derivatives: Derivatives, weights: torch.Tensor, samples: Samples) -> list[torch.Tensor]:
    found = [derivatives.gradients(weights, samples)]
    if derivatives.layout is not None and derivatives.takes_jacobians():
        found += [part for _, *parts in derivatives.jacobians(weights, samples) for part in parts]
    return found


def _way(trial: Derivatives, what: str, compute: Callable[[Derivatives], list[torch.Tensor]]) -> str:
    """Return the fastest way of computing something that agrees with the most direct one that works."""
    ways = ["vmap", "loop"]
    if what == "products" and trial.layout is not None and trial.takes_jacobians():
        ways.append("jacobians")
    found, errors = {}, {}
    for way in ways:
        try:
            found[way] = compute(_with(trial, **{what: way}))
        except Exception as error:  # torch raises whatever a module's operations raise
            errors[way] = error
    if set(found) <= {"vmap"}:  # plain autograd says why; vmap alone is not to be trusted
        raise NotDifferentiable(_refusal(trial, what, errors["loop"])) from errors["loop"]
    direct = found[max(found, key=ways.index)]
    return next(way for way in ways if way in found and all(map(_agree, found[way], direct)))


def _with(trial: Derivatives, **ways: str) -> Derivatives:
    return dataclasses.replace(trial, engine=dataclasses.replace(trial.engine, **ways))  # type: ignore[arg-type]


def _agree(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=AGREEMENT * float(b.abs().max()), equal_nan=True)


def _refusal(trial: Derivatives, what: str, error: Exception) -> str:
    second = what == "products"
    return (
        f"torch has no {'second ' if second else ''}derivative of {type(trial.model.module).__name__}: "
        f"{str(error).strip().splitlines()[0].rstrip('.')}. Write that operation in others that have one"
        + (", or use gradient_kernel or tracin, which need first derivatives alone." if second else ".")
    )
