"""Sentences of appendices A and B, phase transitions and Bayesian influence functions."""

from __future__ import annotations

from validation.paper.sentence import Evidence, Sentence

__all__ = ["SENTENCES"]

SENTENCES: tuple[Sentence, ...] = (
    Sentence(
        "A.1, Eq. 6",
        "For a critical point [...] in a neighborhood [...], the free energy asymptotically expands as",
        (Evidence("free-energy-expansion"),),
    ),
    Sentence(
        "A.1",
        "that coincides with half the effective parameter count for minimally singular models",
        (
            Evidence("half-the-parameters"),
            Evidence("toy-coefficient"),
        ),
    ),
    Sentence(
        "A.1, Eq. 7",
        "it is possible to calculate arbitrary expectation values simply by differentiating the free energy",
        (Evidence("free-energy-gradient"),),
    ),
    Sentence(
        "A.1, Eq. 8",
        "lets us express the BIF as a 2nd-order derivative of the free energy, assuming both samples are in the "
        "training dataset",
        (Evidence("bif-is-a-susceptibility"),),
    ),
    Sentence(
        "A.2, Eq. 10",
        "but where now [...] is a local minimum within [...], and [...] is the local learning coefficient associated "
        "with that local minimum",
        (
            Evidence("type-a-transition"),
            Evidence("smallest-networks"),
        ),
    ),
    Sentence(
        "A.2, Eqs. 11-14",
        "globally, the free energy is determined primarily by the phase with the lowest free energy, with "
        "exponentially suppressed contributions from all other regions of phase space",
        (Evidence("coarse-graining"),),
    ),
    Sentence(
        "A.2",
        'This free energy formula predicts the existence of first-order "Bayesian" phase transitions.',
        (Evidence("type-a-transition"),),
    ),
    Sentence(
        "A.2",
        "the posterior initially prefers the simple solution U but switches to the complex solution V when",
        (Evidence("type-a-transition"),),
    ),
    Sentence(
        "A.2",
        "if the two phases agree on the linear term (they have the same minimum loss), then the trade-off will be "
        'pushed down into lower-order terms, and there can be a "Type-B" transition',
        (Evidence("type-b-transition"),),
    ),
    Sentence(
        "B, Eq. 15",
        "This approximates Langevin dynamics with loss gradients and locality regularization",
        (
            Evidence("printed-algorithm"),
            Evidence("sgld-law"),
            Evidence("algorithm-1-step-by-step"),
        ),
    ),
    Sentence(
        "B",
        "The update rule takes advantage of an adaptive learning rate [...] compared to vanilla SGLD and is more "
        "robust to varying step size",
        (Evidence("robust-to-the-step"),),
    ),
    Sentence(
        "B",
        "Empirically, we find that this behaves more stably than the raw covariance and thus is easier to track over "
        "time.",
        (Evidence("normalised-is-steadier"),),
    ),
    Sentence(
        "B",
        "which can be trivially obtained by avoiding the loss accumulation over token indices and saving all "
        "per-token losses at each SGLD draw",
        (Evidence("contexts-apart"),),
    ),
    Sentence(
        "B",
        "to avoid potentially spuriously high covariances, we drop same-token influence scores when computing "
        "aggregate group influence scores",
        reason=("A choice of method: the toolkit leaves these pairs out too, and no claim measures how high they are."),
    ),
    Sentence(
        "B",
        "The resulting quantity remains well-defined, with a slightly different interpretation: it measures the "
        "model's sensitivity to the initial introduction of a new sample, rather than the re-weighting of an existing"
        " one.",
        (Evidence("unseen-samples"),),
    ),
    Sentence(
        "B",
        "we use independent data sources for the SGLD gradient updates and the forward passes used to compute the "
        "loss covariance",
        (
            Evidence("held-out-queries"),
            Evidence("mini-batches-are-unbiased"),
        ),
    ),
)
