r"""Derivatives of a function of flat weights, by torch.func and vmap or by plain autograd in a loop.

.. math::
    H v = \nabla (v \cdot \nabla L) , \qquad J v = \nabla_u (v \cdot J^T u) , \qquad G v = J^T A (J v) .

All in reverse mode, which every torch operation has: J v is the pull-back of the map u -> J^T u, which is linear, and
the product with the Hessian the pull-back of the gradient, twice as fast here as forward over reverse. Both ways build
the graph once and multiply any number of vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import TypeAlias

import torch
from torch.func import grad, jacrev, vjp, vmap

from numerics.models.trees import mapped, row_count

__all__ = ["Product", "gauss_newton_rows", "gradient_rows", "hessian_rows", "hessians", "jacobian_rows", "slope"]

Product: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Function: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


def gradient_rows(value: Callable[..., torch.Tensor], weights: torch.Tensor, items: tuple, way: str) -> torch.Tensor:
    """Return the gradient (n, d) of ``value(weights, *item)`` for each of n items, stacked along the first axis."""
    if way == "vmap":
        return vmap(grad(value), (None, *[0] * len(items)))(weights, *items)
    return torch.stack([slope(partial(_at, value, one), weights) for one in _each(items)])


def jacobian_rows(
    output: Callable[..., torch.Tensor], weights: torch.Tensor, items: tuple, way: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Jacobian (n, o, d) of ``output(weights, *item)`` (o,) for each of n items, and the outputs (n, o)."""
    if way == "vmap":

        def twice(w: torch.Tensor, *item: object) -> tuple[torch.Tensor, torch.Tensor]:
            result = output(w, *item)
            return result, result

        return vmap(jacrev(twice, has_aux=True), (None, *[0] * len(items)))(weights, *items)
    jacobians, values = [], []
    for one in _each(items):
        at = weights.detach().requires_grad_()
        with torch.enable_grad():
            value = output(at, *one)
        jacobians.append(_rows(value, at, torch.eye(len(value)).to(value.detach())))
        values.append(value.detach())
    return torch.stack(jacobians), torch.stack(values)


def hessians(value: Callable[..., torch.Tensor], points: torch.Tensor, items: tuple, way: str) -> torch.Tensor:
    """Return the Hessians (n, o, o) of ``value(point, *item)`` at n points (n, o)."""
    if way == "vmap":
        return vmap(jacrev(jacrev(value)))(points, *items)
    identity = torch.eye(points.shape[1]).to(points)
    each = zip(points, _each(items), strict=True)
    return torch.stack([hessian_rows(partial(_at, value, one), point, way, 1)(identity) for point, one in each])


def hessian_rows(value: Function, weights: torch.Tensor, way: str, chunk: int) -> Product:
    """Return what multiplies the rows of a block (k, d) by the Hessian of one number."""
    if way == "vmap":
        return vmap(_pull_back(grad(value), weights), chunk_size=chunk)
    return _looped(lambda w: slope(value, w, create_graph=True), weights)


def gauss_newton_rows(outputs: Function, value: Function, weights: torch.Tensor, way: str, chunk: int) -> Product:
    """Return what multiplies rows (k, d) by J^T A J, J of `outputs`, A the Hessian of ``value(outputs)`` in these."""
    if way == "vmap":
        f, back, *_ = vjp(outputs, weights)
        forward = _pull_back(lambda u: back(u)[0], torch.zeros_like(f))
        curved = _pull_back(grad(value), f)
        return vmap(lambda v: back(curved(forward(v)))[0], chunk_size=chunk)
    at = weights.detach().requires_grad_()
    with torch.enable_grad():
        f = outputs(at)
        dual = torch.zeros_like(f, requires_grad=True)
        pulled = _derivative(f, at, dual, create_graph=True)
    curved = _looped(lambda g: slope(value, g, create_graph=True), f.detach())

    def product(rows: torch.Tensor) -> torch.Tensor:
        forward = _rows(pulled, dual, rows)
        return _rows(f, at, curved(forward))

    return product


def _pull_back(function: Function, at: torch.Tensor) -> Product:
    """Return u -> J^T u, J the Jacobian of `function` at a point; the graph is built once."""
    pull_back = vjp(function, at)[1]
    return lambda u: pull_back(u)[0]


def _looped(function: Function, at: torch.Tensor) -> Product:
    """Return what multiplies rows by J^T, one after the other, by plain autograd."""
    at = at.detach().requires_grad_()
    with torch.enable_grad():
        value = function(at)
    return lambda rows: _rows(value, at, rows)


def _rows(value: torch.Tensor, at: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return torch.stack([_derivative(value, at, row) for row in rows])


def slope(value: Function, at: torch.Tensor, *, create_graph: bool = False) -> torch.Tensor:
    """Return the gradient of one number, by plain autograd; with a graph if the point has one."""
    at = at if create_graph else at.detach().requires_grad_()
    with torch.enable_grad():
        result = value(at)
    return _derivative(result, at, torch.ones_like(result), create_graph=create_graph, again=create_graph)


def _derivative(
    value: torch.Tensor, at: torch.Tensor, along: torch.Tensor, *, create_graph: bool = False, again: bool = True
) -> torch.Tensor:
    """Return J^T u; zero where the value does not depend on the point."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    settings = {"create_graph": create_graph, "retain_graph": again, "materialize_grads": True}
    return torch.autograd.grad(value, at, along, **settings)[0]


def _at(value: Callable[..., torch.Tensor], item: tuple, point: torch.Tensor) -> torch.Tensor:
    return value(point, *item)


def _each(items: tuple) -> list[tuple]:
    """Return the items one by one."""
    return [mapped(itemgetter(k), items) for k in range(row_count(items))]
