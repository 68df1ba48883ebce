r"""What is asked about a model: the losses of samples, any other measure of their outputs, or functions of the weights.

.. math:: q_j(w) = \ell_j(w) , \qquad q_j(w) = m(f_w(x_j), y_j) , \qquad q_j(w) = q_j(w_1, w_2, \dots) .

An influence on a query is :math:`d q_j / d \beta_i`: on a loss negative = helps, on a margin or a logit positive =
helps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float

from numerics.models.module import TorchModel
from numerics.models.samples import Parts, Samples
from numerics.models.trees import row_count
from theory.hierarchy import Dataset

__all__ = ["Asked", "Measure", "Observable", "Queries", "Query", "correct_logit", "log_odds", "margin"]

Measure: TypeAlias = Callable[[Any, Any], torch.Tensor]
Observable: TypeAlias = Callable[[dict[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Query:
    """Samples, and what is measured of each: any function of the model's outputs.

    Parameters
    ----------
    samples
        `Samples` or a `theory.Dataset` that the model is asked about, held as `Samples`; they need not be training
        samples. Of `Parts`, every part that is present is a query of its own, named "sample/part", and is held as its
        sample with no other part present.
    measure
        ``measure(outputs, targets)``, shapes (n, ...) and (n, ...), returns n numbers, each of its own sample alone; or
        (n, k) where the model's own loss may. The model's loss if not given. See `margin`, `correct_logit`, `log_odds`.
    names
        A name for each query; those of the samples if not given.

    Raises
    ------
    TypeError
        If the samples are none or the measure cannot be called.
    ValueError
        If names are missing or repeated.

    Examples
    --------
    >>> asked = Query(Samples(torch.eye(2), torch.tensor([0, 1]), ("a", "b")), margin, ("margin a", "margin b"))
    >>> len(asked), asked.names, asked.measured
    (2, ('margin a', 'margin b'), 'margin')
    """

    samples: Any
    measure: Measure | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.samples, Parts):
            object.__setattr__(self, "samples", _alone(self.samples))
        if not isinstance(self.samples, (Dataset, Samples)):
            raise TypeError(f"a query is about Samples or a Dataset, but {type(self.samples).__name__} was given.")
        if self.measure is not None and not callable(self.measure):
            raise TypeError(
                f"measure must be a function of outputs and targets, but {type(self.measure).__name__} was given."
            )
        samples = Samples.of(self.samples)
        names = tuple(str(name) for name in self.names) or samples.names
        if len(names) != len(samples):
            raise ValueError(f"{len(names)} names were given for the queries about {len(samples)} samples.")
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "names", _distinct(names))

    def __len__(self) -> int:
        """Return the number of queries m."""
        return len(self.names)

    @property
    def measured(self) -> str:
        """What is measured, in a word: the name of the function, or "loss"."""
        return "loss" if self.measure is None else _name(self.measure)

    def on(self, model: TorchModel) -> TorchModel:
        """Return the model with the measure in the place of its loss: what evaluates losses evaluates the queries.

        Examples
        --------
        >>> model = TorchModel(torch.nn.Linear(2, 2))
        >>> asked = Query(Samples(torch.eye(2), torch.tensor([0, 1])), correct_logit)
        >>> asked.on(model).losses(torch.tensor([1.0, 0.0, 0.0, 3.0, 0.5, 0.5]), asked.samples)
        tensor([1.5000, 3.5000])
        """
        if self.measure is None:
            return model
        held = self.measure if isinstance(self.measure, functools.partial) else functools.partial(self.measure)
        return model.with_loss(functools.partial(measured, held.func, *held.args, **held.keywords))


@dataclass(frozen=True, eq=False)
class Queries:
    """Everything that is asked in one call: about samples first, then functions of the parameters.

    Parameters
    ----------
    about
        Queries about samples.
    functions
        By name, functions of the parameters (a mapping of their names to tensors) that return one number.

    Examples
    --------
    >>> model = TorchModel(torch.nn.Linear(2, 1))
    >>> asked = Queries.of({"size": lambda parameters: parameters["weight"].square().sum()})
    >>> asked.names, asked.values(model, torch.tensor([3.0, 4.0, 7.0]))
    (('size',), tensor([25.]))
    """

    about: tuple[Query, ...] = ()
    functions: Mapping[str, Observable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, function in self.functions.items():
            if not callable(function):
                raise TypeError(
                    f"query {name!r} must be a function of the parameters, but {type(function).__name__} was given; "
                    "give samples as Samples, and a measure of them as Query(samples, measure)."
                )
        if not (self.about or self.functions):
            raise ValueError("queries is empty; give samples, a Query or at least one function, or leave it out.")
        _distinct(self.names)

    @classmethod
    def of(cls, asked: Asked, default: Dataset | Samples | None = None) -> Queries:
        """Return what is asked in one form; about `default` if nothing is said.

        Raises
        ------
        TypeError, ValueError
            If it is neither samples, a `Query`, a list of these, nor functions by name; or nothing.
        """
        asked = default if asked is None else asked
        if isinstance(asked, Queries):
            return asked
        if isinstance(asked, Query):
            return cls((asked,))
        if isinstance(asked, (Dataset, Samples, Parts)):
            return cls((Query(asked),))
        if isinstance(asked, Mapping):
            return cls((), {str(name): function for name, function in asked.items()})
        if isinstance(asked, (list, tuple)):
            each = [cls.of(one) for one in asked]
            functions = [item for one in each for item in one.functions.items()]
            _distinct([name for name, _ in functions])
            return cls(tuple(query for one in each for query in one.about), dict(functions))
        raise TypeError(
            f"queries must be samples, a Query or functions of the parameters by name, but {type(asked).__name__} was "
            "given."
        )

    def like(self, weights: torch.Tensor) -> Queries:
        """Return the queries with their samples on the device of `weights`, real tensors in its dtype."""
        about = tuple(replace(query, samples=query.samples.like(weights)) for query in self.about)
        return Queries(about, self.functions)

    def __len__(self) -> int:
        """Return the number of queries m."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the queries."""
        return tuple(name for query in self.about for name in query.names) + tuple(self.functions)

    @property
    def measured(self) -> str:
        """What is measured, in words: "loss" if it is that of every query."""
        kinds = [query.measured for query in self.about] + ["function of the parameters"] * bool(self.functions)
        return ", ".join(dict.fromkeys(kinds))

    def values(self, model: TorchModel, weights: Float[torch.Tensor, " d"]) -> Float[torch.Tensor, " m"]:
        """Return what is asked at the given weights, shape (m,); differentiable, and vmap goes through it."""
        about = [query.on(model).losses(weights, query.samples) for query in self.about]
        return torch.cat([*about, *self.function_values(model.parameters_of(weights))])

    def function_values(self, parameters: dict[str, torch.Tensor]) -> list[Float[torch.Tensor, " 1"]]:
        """Return the functions of the parameters, one number each."""
        values = []
        for name, function in self.functions.items():
            value = function(parameters)
            if not isinstance(value, torch.Tensor) or value.numel() != 1:
                what = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
                raise ValueError(f"query {name!r} must return one number as a tensor, but it returned {what}.")
            values.append(value.reshape(1))
        return values


Asked: TypeAlias = Dataset | Samples | Parts | Query | Queries | Sequence[Any] | Mapping[str, Observable] | None


def _alone(parts: Parts) -> Samples:
    """Return each part as its sample with no other part present: the mean over its parts is the part's loss."""
    samples = parts.samples[parts.sample]
    present = torch.zeros(len(parts), len(parts.names), dtype=torch.bool)  # type: ignore[arg-type]
    present[torch.arange(len(parts)), torch.as_tensor(parts.part)] = True
    return Samples(samples.inputs, samples.targets, tuple("/".join(label) for label in parts.labels), present)


def measured(measure: Callable[..., torch.Tensor], *arguments: Any, **keywords: Any) -> torch.Tensor:
    """Return what a measure says of outputs and targets, its last two arguments.

    What is not one number (or row of numbers) for each sample is refused.
    """
    values, n = measure(*arguments, **keywords), row_count(arguments[-1])
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"measure {_name(measure)} must return a tensor, but it returned {type(values).__name__}.")
    if values.ndim not in (1, 2) or len(values) != n:
        raise ValueError(
            f"measure {_name(measure)} returned shape {tuple(values.shape)} for {n} samples, but one number for each "
            'is needed; use reduction="none" and no mean over samples.'
        )
    return values


def correct_logit(outputs: Float[torch.Tensor, "n *k c"], targets: torch.Tensor) -> Float[torch.Tensor, "n *k"]:
    """Return the output of the correct class; classes are the last axis of the outputs.

    Examples
    --------
    >>> correct_logit(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0]))
    tensor([2., 3.])
    """
    _check_classes(outputs, targets)
    return outputs.gather(-1, targets[..., None])[..., 0]


def margin(outputs: Float[torch.Tensor, "n *k c"], targets: torch.Tensor) -> Float[torch.Tensor, "n *k"]:
    """Return by how much the output of the correct class is above the largest other; negative if it is not.

    Examples
    --------
    >>> margin(torch.tensor([[1.0, 2.0, 5.0], [3.0, 4.0, 0.0]]), torch.tensor([2, 0]))
    tensor([ 3., -1.])
    """
    return correct_logit(outputs, targets) - _others(outputs, targets).amax(-1)


def log_odds(outputs: Float[torch.Tensor, "n *k c"], targets: torch.Tensor) -> Float[torch.Tensor, "n *k"]:
    """Return log p / (1 - p) of the correct class's softmax probability p, without cancellation near p = 1.

    It is the output function of TRAK (Park et al. 2023, arXiv 2303.14186), there called the margin.

    Examples
    --------
    >>> log_odds(torch.tensor([[0.0, 3.0]]), torch.tensor([1]))
    tensor([3.])
    """
    return correct_logit(outputs, targets) - _others(outputs, targets).logsumexp(-1)


def _others(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the outputs with that of the correct class out of the way."""
    return outputs.scatter(-1, targets[..., None], -torch.inf)


def _check_classes(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    if outputs.shape[:-1] != targets.shape or targets.is_floating_point() or outputs.shape[-1] < 2:
        raise ValueError(
            f"outputs have shape {tuple(outputs.shape)} and targets {tuple(targets.shape)} of {targets.dtype}, but a "
            "class number for each row of outputs, and at least two classes along their last axis, are needed."
        )


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"queries must have distinct names, but {name!r} stands twice; give names=.")
        seen.add(name)
    return tuple(names)


def _name(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))
