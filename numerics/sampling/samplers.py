r"""Langevin samplers of the local posterior (paper Algorithm 1; Welling and Teh 2011; Roberts and Tweedie 1996).

The local posterior around trained weights w* is

.. math:: p(w) \propto \exp\bigl(-n_\beta L(w) - \tfrac{\gamma}{2} \| w - w^* \|^2\bigr) ,

L the mean loss. A sampler is a frozen set of hyper-parameters; its rule (`numerics.sampling.rules`) is the update with
its state, in place, for a batch of chains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from numerics.errors import UnstableStep
from numerics.sampling.rules import LangevinRule, MetropolisRule, Parts, PreconditionedRule, Rule
from theory import checks

__all__ = [
    "MALA",
    "SGLD",
    "RMSPropSGLD",
    "Sampler",
]


@dataclass(frozen=True)
class Sampler(ABC):
    """What every sampler of the local posterior has.

    Parameters
    ----------
    step_size
        Step eps, > 0.
    n_beta
        Inverse temperature times the number of samples, > 0; multiplies the mean loss.
    localization
        Strength gamma of the pull towards the checkpoint, >= 0.
    """

    step_size: float = 1e-4
    n_beta: float = 1e3
    localization: float = 5e3

    def __post_init__(self) -> None:
        checks.positive("step_size", self.step_size)
        checks.positive("n_beta", self.n_beta)
        checks.nonnegative_number("localization", self.localization)

    @classmethod
    @abstractmethod
    def rule(cls, samplers: Sequence[Sampler], anchor: Parts) -> Rule:
        """Return the update of a batch of chains around `anchor`, one sampler for each row of its parts, or one."""

    @abstractmethod
    def step_range(self, largest_gradient: float) -> tuple[float, float]:
        """Return the smallest and largest step the update can take, given the largest |dL/dw| on the way."""

    @property
    def adjusts(self) -> bool:
        """Whether steps are proposals that a chain may refuse, which takes full-batch losses at every step."""
        return False

    @property
    def adaptation_steps(self) -> int:
        """Number of first steps that belong to no stationary law, and so to the burn-in."""
        return 0

    def check_step(self, curvature: tuple[float, float], largest_gradient: float, epoch: float) -> str | None:
        """Return a sentence if the step may be outside the stable range, None if it is inside.

        On a quadratic of curvature h the update is stable if and only if step x h < 4, with h = n_beta lambda + gamma.

        Parameters
        ----------
        curvature
            Lower and upper bound of the largest eigenvalue lambda of the Hessian of L.
        largest_gradient
            Bound of the absolute entries of the gradient of L that the chains meet.
        epoch
            Checkpoint, for the sentence.

        Raises
        ------
        UnstableStep
            If the step is outside the stable range even by the bounds that favour it.
        """
        smallest, largest = self.step_range(largest_gradient)
        surely, maybe = (
            step * (self.n_beta * max(bound, 0.0) + self.localization)
            for step, bound in zip((smallest, largest), curvature, strict=True)
        )
        steepest = largest * (self.n_beta * max(curvature[1], 0.0) + self.localization)
        limit = 4 * self.step_size / steepest if steepest else float("inf")
        advice = f"at epoch {epoch:g}; steps below {limit:.3g} are stable"
        if surely >= 4:
            raise UnstableStep(
                f"step_size {self.step_size:g} is outside the stable range: step x (n_beta lambda_max + localization) "
                f"is at least {surely:.3g}, but must be below 4, {advice}."
            )
        if maybe >= 4:
            return (
                f"step_size {self.step_size:g} may be outside the stable range: step x (n_beta lambda_max + "
                f"localization) may be as large as {maybe:.3g}, but must be below 4, {advice}."
            )
        return None


@dataclass(frozen=True)
class SGLD(Sampler):
    r"""Stochastic gradient Langevin dynamics with a constant step.

    .. math:: w \leftarrow w - \tfrac{\epsilon}{2} [n_\beta \nabla L(w) + \gamma (w - w^*)] + \sqrt{\epsilon}\, \xi

    Parameters
    ----------
    step_size, n_beta, localization
        See `Sampler`. On a quadratic of curvature h the stationary variance is 1 / (h (1 - step h / 4)).

    Examples
    --------
    >>> SGLD(step_size=-1e-4)
    Traceback (most recent call last):
    ...
    ValueError: step_size must be a positive number, but -0.0001 was given.
    """

    @classmethod
    def rule(cls, samplers: Sequence[Sampler], anchor: Parts) -> Rule:
        """Return the update; see `Sampler.rule`."""
        return LangevinRule(samplers, anchor)

    def step_range(self, largest_gradient: float) -> tuple[float, float]:
        """Return the constant step twice."""
        return self.step_size, self.step_size


@dataclass(frozen=True)
class MALA(Sampler):
    r"""Metropolis-adjusted Langevin algorithm: SGLD's step as a proposal, accepted or not, at full batch.

    .. math::
        w' = w - \tfrac{\epsilon}{2} \nabla U(w) + \sqrt{\epsilon}\, \xi, \qquad
        \log \alpha = U(w) - U(w') + \tfrac12 \bigl( |\xi|^2 - |\xi'|^2 \bigr), \qquad
        U = n_\beta L + \tfrac{\gamma}{2} \| w - w^* \|^2 ,

    with xi' the noise that leads back. The stationary law is the local posterior itself, at any step: the gold
    standard for the other samplers. In high dimension the acceptance falls; about 0.57 is efficient (Roberts and
    Rosenthal 1998), with a step of order d^(-1/3). The draws report the acceptance.

    Parameters
    ----------
    step_size, n_beta, localization
        See `Sampler`.

    Examples
    --------
    >>> MALA(step_size=1e-5).n_beta
    1000.0
    """

    @classmethod
    def rule(cls, samplers: Sequence[Sampler], anchor: Parts) -> Rule:
        """Return the update; see `Sampler.rule`."""
        return MetropolisRule(samplers, anchor)

    @property
    def adjusts(self) -> bool:
        """Steps are proposals."""
        return True

    def step_range(self, largest_gradient: float) -> tuple[float, float]:
        """Return the constant step twice; a step that is too long is rejected rather than unstable."""
        return self.step_size, self.step_size


@dataclass(frozen=True)
class RMSPropSGLD(Sampler):
    r"""The paper's Algorithm 1: Langevin steps preconditioned by a running mean of squared gradients.

    .. math::
        V \leftarrow b V + (1 - b)\, q \odot q, \qquad
        \epsilon_t = \frac{\epsilon}{\sqrt{V / (1 - b^t)} + a}, \qquad
        w \leftarrow w - \tfrac{\epsilon_t}{2} [n_\beta \nabla L(w) + \gamma (w - w^*)] + \sqrt{\epsilon_t}\, \xi

    As printed the algorithm leaves out the divergence of the preconditioner, so its stationary law is not the local
    posterior unless a is large against sqrt(V). With `adaptation` the preconditioner stops moving and the law is the
    posterior's, up to the step. What Algorithm 1 leaves open is an argument: `preconditioner`, `bias_correction`,
    `initial_square`.

    Parameters
    ----------
    step_size, n_beta, localization
        See `Sampler`.
    decay
        b, in [0, 1).
    stability
        a, > 0.
    preconditioner
        "mean loss": q is the gradient of L (default); "tempered": of n_beta L.
    bias_correction
        Whether V is divided by 1 - b^t.
    initial_square
        V before the first step, >= 0, in the units of q squared.
    adaptation
        Freeze the preconditioner after so many steps, >= 1, which then belong to the burn-in; never if not given, as
        printed.

    Examples
    --------
    >>> RMSPropSGLD(decay=1.0)
    Traceback (most recent call last):
    ...
    ValueError: decay must be in [0, 1), but 1.0 was given.
    """

    decay: float = 0.9
    stability: float = 1.0
    preconditioner: str = "mean loss"
    bias_correction: bool = True
    initial_square: float = 0.0
    adaptation: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.share("decay", self.decay, below_one=True)
        checks.positive("stability", self.stability)
        checks.choice("preconditioner", self.preconditioner, ("mean loss", "tempered"))
        checks.nonnegative_number("initial_square", self.initial_square)
        if self.adaptation is not None:
            checks.integer("adaptation", self.adaptation, at_least=1)

    @property
    def gradient_scale(self) -> float:
        """Scale of q relative to the gradient of L."""
        return self.n_beta if self.preconditioner == "tempered" else 1.0

    @property
    def adaptation_steps(self) -> int:
        """Number of steps after which the preconditioner is frozen; 0 if it never is."""
        return self.adaptation or 0

    @classmethod
    def rule(cls, samplers: Sequence[Sampler], anchor: Parts) -> Rule:
        """Return the update; see `Sampler.rule`."""
        return PreconditionedRule(samplers, anchor)

    def step_range(self, largest_gradient: float) -> tuple[float, float]:
        """Return eps / (a + |q|) for the largest |q|, and eps / a."""
        # A bias-corrected V of zero start is a mean of squares; any other may start at initial_square.
        q = max(largest_gradient * self.gradient_scale, self.initial_square**0.5)
        return self.step_size / (self.stability + q), self.step_size / self.stability
