"""What measures are given, told from what it is not before anything of it is used."""

from __future__ import annotations

from collections import Counter

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.linear import Checkpoints
from numerics.models.module import TorchModel
from numerics.models.samples import Samples
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["check_checkpoints", "check_data", "check_model_given", "check_tokens_given", "named_samples"]


def check_data(dataset: object) -> None:
    """Refuse what is neither a data set nor samples.

    Raises
    ------
    TypeError
        If it is something else.

    Examples
    --------
    >>> check_data([[1.0, 0.0]])
    Traceback (most recent call last):
    ...
    TypeError: dataset must be a Dataset or Samples, made by theory.Dataset(inputs, targets) or ...
    """
    made_by = "theory.Dataset(inputs, targets) or numerics.Samples(inputs, targets)"
    checks.instance("dataset", dataset, (Dataset, Samples), made_by=made_by)


def check_checkpoints(checkpoints: object) -> None:
    """Refuse what is not the checkpoints of a linear network or of a module.

    Raises
    ------
    TypeError
        If it is something else.
    """
    made_by = "train(...).checkpoints or ModuleCheckpoints.load(folder, model)"
    checks.instance("checkpoints", checkpoints, (Checkpoints, ModuleCheckpoints), made_by=made_by)


def named_samples(dataset: Dataset | Samples, names: object, label: str = "sources") -> tuple[str, ...]:
    """Return the names of samples asked for, all if None, refusing none, unknown ones and repetitions.

    Examples
    --------
    >>> from theory.hierarchy import hierarchical_dataset
    >>> named_samples(hierarchical_dataset(), ["cat", "dog"])
    ('cat', 'dog')
    >>> named_samples(hierarchical_dataset(), ["cat", "cat"])
    Traceback (most recent call last):
    ...
    ValueError: sources names 'cat' twice; name every sample once.
    """
    if names is None:
        return dataset.names
    found = checks.names(label, names)
    if not found:
        raise ValueError(f"{label} is empty; name at least one sample.")
    for name, count in Counter(found).items():
        if count > 1:
            raise ValueError(f"{label} names {name!r} twice; name every sample once.")
        dataset.index(name)
    return found


def check_tokens_given(samples: object, checkpoints: object) -> None:
    """Refuse what is not samples of tokens and checkpoints of a module.

    Raises
    ------
    TypeError
        If one is something else.
    """
    checks.instance("samples", samples, Samples, made_by="token_samples(ids)")
    made_by = "ModuleCheckpoints.load(folder, model)"
    checks.instance("checkpoints", checkpoints, ModuleCheckpoints, made_by=made_by)


def check_model_given(model: object) -> None:
    """Refuse a model that is something else than a `TorchModel`; none at all is a linear network.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if model is not None:
        checks.instance("model", model, TorchModel, made_by="TorchModel(module, loss)")
