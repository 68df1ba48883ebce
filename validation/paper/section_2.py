"""Sentences of section 2, the theory of stagewise influence."""

from __future__ import annotations

from validation.paper.sentence import Bearing, Evidence, Sentence

__all__ = ["SENTENCES"]

SENTENCES: tuple[Sentence, ...] = (
    Sentence(
        "2.1",
        "the Bayesian posterior converges to a Gaussian centered at the minimum [...] of the population loss with "
        "covariance",
        (Evidence("regular-posterior"),),
    ),
    Sentence(
        "2.1",
        "Not only do they have no unique minimum, but the loss landscape is degenerate: the Fisher information matrix"
        " is not everywhere invertible.",
        (Evidence("singular-at-the-minimum"),),
    ),
    Sentence(
        "2.1",
        "degeneracy can give rise to stagewise learning, where neural networks undergo a succession of phase "
        "transitions between qualitatively distinct solutions",
        (
            Evidence("levels-in-order"),
            Evidence("type-a-transition"),
        ),
        untested="that degeneracy is what makes the trained network learn in stages",
    ),
    Sentence(
        "2.1",
        "development is driven by a competition between data fit [...] and model complexity (as measured via a "
        "measure of degeneracy known as the local learning coefficient",
        (
            Evidence("type-a-transition"),
            Evidence(
                "toy-coefficient",
                Bearing.PARTLY,
                "so of a posterior with two phases, but not of the toy network: its learning coefficient is the same "
                "at every rank, and no complexity changes while it learns",
            ),
        ),
    ),
    Sentence(
        "2.1",
        "first-order phase transitions, where the model abruptly shifts from concentrating in one region to another, "
        "and which can change the model's generalization behavior",
        (
            Evidence("transitions-change-generalisation"),
            Evidence("type-a-transition"),
        ),
    ),
    Sentence(
        "2.1",
        "we model the optimizer's learning trajectory with an idealized Bayesian learning process",
        (
            Evidence("critical-windows"),
            Evidence(
                "bif-is-not-loo",
                Bearing.PARTLY,
                "a model of what influences now: what training adds up over its whole course, leave-one-out, is "
                "another quantity",
            ),
        ),
    ),
    Sentence(
        "2.2",
        "an infinitesimal upweighting of a training point [...] affects an observable evaluated at the final model "
        "parameters",
        (Evidence("classical-at-convergence"),),
    ),
    Sentence(
        "2.2",
        "This renders the classical IF theoretically ill-defined and practically unstable, which requires a dampening"
        " factor [...] especially at intermediate checkpoints that are unconverged and away from minima.",
        (
            Evidence("indefinite-hessian"),
            Evidence("damping-restores"),
        ),
    ),
    Sentence(
        "2.2",
        "This derivative is equivalent to the negative covariance between the observable and the sample's loss",
        (Evidence("bif-is-a-susceptibility"),),
    ),
    Sentence(
        "2.2",
        "By replacing the problematic Hessian inverse with a covariance estimation, it remains well-defined even on "
        "degenerate loss landscapes.",
        (
            Evidence("mala-is-exact"),
            Evidence("bif-exists-everywhere"),
        ),
    ),
    Sentence(
        "2.2",
        "well-defined at any point in the training trajectory, not just at stable local minima",
        (Evidence("bif-exists-everywhere"),),
    ),
    Sentence(
        "2.2",
        "when the regularity assumptions hold, the BIF asymptotically recovers the classical IF in the large-data "
        "limit",
        (
            Evidence("bif-tends-to-classical"),
            Evidence("bif-is-damped-hessian"),
        ),
    ),
    Sentence(
        "2.3",
        "the BIF is an example of a generalized susceptibility that measures a system's response",
        (Evidence("bif-is-a-susceptibility"),),
    ),
    Sentence(
        "2.3",
        "susceptibilities diverge at phase transitions",
        (Evidence("susceptibility-at-transition"),),
    ),
    Sentence(
        "2.3",
        "We can decompose this total covariance using the Law of Total [Covariance], conditioning on the phase",
        (Evidence("total-covariance"),),
    ),
    Sentence(
        "2.3",
        "This term captures the covariance that arises because the expected losses [themselves] change as the model "
        "switches phases.",
        (Evidence("total-covariance"),),
    ),
    Sentence(
        "2.3",
        "Away from the transition, one of the weights is close to 1 and the other is close to 0.",
        (Evidence("type-a-transition"),),
    ),
    Sentence(
        "2.3",
        "If the within-phase influences of the two phases have significantly different values or if the between-phase"
        " term is large enough to dominate the average baseline influence during the transition, then transitions can"
        " cause a large change in magnitude or even a change in sign.",
        (Evidence("sign-flips"),),
    ),
    Sentence(
        "2.3",
        "The between-phase influence term is maximized when the posterior mass is evenly split",
        (Evidence("between-peaks-at-half"),),
    ),
    Sentence(
        "2.3",
        "causing a sharp peak in total influence at the critical point of a transition",
        (Evidence("printed-peak"),),
    ),
    Sentence(
        "2.3",
        "the influence spike is largest for the samples on which the two phases disagree the most: peaks in influence"
        " identify the specific samples that characterize a given transition",
        (Evidence("spikes-name-samples"),),
    ),
)
