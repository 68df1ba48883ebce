"""What measures are given, told from what it is not before anything of it is used."""

from __future__ import annotations

from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.linear import Checkpoints
from numerics.models.module import TorchModel
from numerics.models.samples import Samples
from theory import checks
from theory.hierarchy import Dataset

__all__ = ["check_checkpoints", "check_data", "check_model_given"]


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


def check_model_given(model: object) -> None:
    """Refuse a model that is something else than a `TorchModel`; none at all is a linear network.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if model is not None:
        checks.instance("model", model, TorchModel, made_by="TorchModel(module, loss)")
