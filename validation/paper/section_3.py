"""Sentences of section 3, the toy model of development."""

from __future__ import annotations

from validation.paper.sentence import Bearing, Evidence, Sentence

__all__ = ["SENTENCES"]

SENTENCES: tuple[Sentence, ...] = (
    Sentence(
        "3",
        "learning animal vs. plants first, then mammals vs. birds, and then dogs vs. cats",
        (Evidence("levels-in-order"),),
    ),
    Sentence(
        "3",
        "Sign flips occur as the model shifts to learning progressively finer levels of hierarchical distinctions, "
        "and peaks occur when the model begins learning a new level of distinction.",
        (
            Evidence("stages-bif"),
            Evidence("stages-loo"),
            Evidence("peaks-mark-levels"),
        ),
    ),
    Sentence(
        "3, Fig. 2",
        "The correlation matrix of the feature output shows a hierarchical structure.",
        (Evidence("singular-structure"),),
    ),
    Sentence(
        "3, Fig. 2",
        "The hierarchical structure is acquired progressively during the training of the deep linear neural network.",
        (
            Evidence("levels-in-order"),
            Evidence("mode-strengths"),
        ),
    ),
    Sentence(
        "3",
        "the loss difference from LOO results in a similar pattern to what we see in the BIF and the analytical "
        "derivation, and validates their use",
        (
            Evidence("stages-loo"),
            Evidence("stages-analytic"),
            Evidence("stages-bif"),
            Evidence(
                "bif-is-not-loo",
                Bearing.PARTLY,
                "alike in stages, unlike as numbers: one is instantaneous, the other adds up",
            ),
        ),
    ),
    Sentence(
        "3",
        "The additional results on perturbing other data points show consistent trend",
        (Evidence("other-sources"),),
    ),
    Sentence(
        "3",
        "are also visible in the dampened classical IF",
        (Evidence("classical-shows-stages"),),
    ),
    Sentence(
        "3",
        "influence changes over time non-monotonically and can change sign, and (2) peaks in influence are correlated"
        " with key developmental transitions in model behavior",
        (
            Evidence("stages-bif"),
            Evidence("stages-loo"),
            Evidence("stages-analytic"),
            Evidence("peaks-mark-levels"),
        ),
    ),
    Sentence(
        "3, Fig. 3",
        "All three measures agree that the influence one sample has on another can vary non-monotonically over the "
        "course of training",
        (
            Evidence("stages-bif"),
            Evidence("stages-loo"),
            Evidence("stages-analytic"),
        ),
    ),
    Sentence(
        "3, Fig. 3",
        "with the following: (Left) BIF ([...] = 1000; [...] = 1e-3; [...] = 5e + 3)",
        (Evidence("printed-step"),),
    ),
    Sentence(
        "3",
        "influence is a function of singular mode strength of data input-output covariance learned by the network",
        (
            Evidence("instantaneous-influence-from-modes"),
            Evidence("unrolled-is-the-derivative"),
        ),
    ),
    Sentence(
        "3",
        "the same data can be either helpful or harmful, depending on when it is presented",
        (
            Evidence("when-matters"),
            Evidence("exposure-kernel-of-descent"),
        ),
    ),
    Sentence(
        "3",
        "It can also mark clear peaks at a specific time point on different query data points.",
        (
            Evidence("peaks-mark-levels"),
            Evidence("other-sources"),
        ),
    ),
    Sentence(
        "3",
        "the influence over time from one data point to another point is specific to those points",
        (Evidence("specific-to-the-pair"),),
    ),
    Sentence(
        "3",
        "The influence from dog to cat might be the same as dog to 'penguin' early on, but they are distinguished "
        "later in the learning process.",
        (Evidence("printed-same-early"),),
    ),
    Sentence(
        "3",
        "ablating data during the stage with the highest influence induces the largest loss difference",
        (Evidence("critical-windows"),),
    ),
    Sentence(
        "3",
        "upweighting a data point in the same class (dog) is helpful for learning a query data point (sparrow) as "
        "indicated by a negative influence (positive covariance). In contrast, upweighting a data point that belongs "
        "to a different class harms learning that query data point (pine), reflected in a positive influence.",
        (Evidence("class-decides-sign"),),
    ),
    Sentence(
        "3",
        "A data point dog is helpful (negative influence) to learning sparrow early on in the learning, while "
        "learning to distinguish animal vs. plant, but it is harmful (positive) later on when learning to distinguish"
        " mammal vs. bird.",
        (
            Evidence("class-decides-sign"),
            Evidence("stages-bif"),
        ),
    ),
    Sentence(
        "3, Fig. 4",
        "learning of each hierarchical level is reflected on the branching node",
        (Evidence("hidden-distances"),),
    ),
    Sentence(
        "3, Fig. 4",
        "The peaks in influence match the branching points of the MDS trajectory, where each hierarchical category "
        "develops",
        (Evidence("branches-and-peaks"),),
    ),
    Sentence(
        "3",
        "at the transition, where the model learns to distinguish mammal vs bird within the animals and form a new "
        "hierarchy level, the influence between mammal and bird is the highest",
        (Evidence("highest-at-the-transition"),),
    ),
)
