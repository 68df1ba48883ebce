"""What can go wrong in a way that a caller would tell apart: the errors and warnings of this package."""

from __future__ import annotations

__all__ = [
    "DamagedResultWarning",
    "FitWarning",
    "IndefiniteCurvature",
    "NotDifferentiable",
    "SamplerDiverged",
    "SolveNotConverged",
    "StepSizeWarning",
    "StoreMismatch",
    "TrainedWeightsWarning",
    "TrainingDiverged",
    "UnstableStep",
    "UntrustedResultWarning",
    "WorkerLost",
    "WrongDerivative",
]


class SamplerDiverged(ArithmeticError):
    """A chain produced a loss that is not finite; the message names the checkpoint, the chain and the draw.

    Parameters
    ----------
    message
        The sentence.
    setting, chain, draw
        Position of the sampler among those given, of the chain among its checkpoint's, and of the draw.
    epoch
        The checkpoint.
    """

    def __init__(self, message: str, setting: int, epoch: float, chain: int, draw: int) -> None:
        super().__init__(message)
        self.setting, self.epoch, self.chain, self.draw = setting, epoch, chain, draw

    def __reduce__(self) -> tuple[type[SamplerDiverged], tuple[object, ...]]:
        """Pickle with all arguments, so that the error comes back from another process."""
        return type(self), (str(self), self.setting, self.epoch, self.chain, self.draw)


class StepSizeWarning(UserWarning):
    """The step size may lie outside the range in which the sampler is stable."""


class UntrustedResultWarning(UserWarning):
    """A sampled number is not what it is called, or its chains do not agree; the message says which and why."""


class TrainingDiverged(ArithmeticError):
    """Gradient descent produced a loss that is not finite; the message names the run and the epoch."""


class SolveNotConverged(ArithmeticError):
    """An iterative solve or eigenvalue search stopped short of its tolerance; the message says what to change."""


class IndefiniteCurvature(ArithmeticError):
    """The damped curvature is singular to rounding: an eigenvalue cancels the damping, or the damping is too small."""


class DamagedResultWarning(UserWarning):
    """A stored result cannot be read back and is computed again."""


class WorkerLost(RuntimeError):
    """A worker process died, killed or out of memory; what was finished before has been handed over."""


class UnstableStep(ValueError):
    """A sampler's step is outside the range in which it is stable; the message names the range."""


class StoreMismatch(ValueError):
    """A store or a saved state is of another call: other settings, data, model or code."""


class FitWarning(UserWarning):
    """A training function gives runs that cannot be compared: not repeatable, or the same for all sample weights."""


class TrainedWeightsWarning(UserWarning):
    """Retraining starts from weights that the module holds and that look trained already."""


class NotDifferentiable(ValueError):
    """A module or an optimiser cannot be differentiated; the message names the operation and what to do."""


class WrongDerivative(ArithmeticError):
    """A second derivative by torch contradicts its symmetry or finite differences; the message names the parameters."""
