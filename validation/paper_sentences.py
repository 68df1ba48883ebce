"""Every testable sentence of the paper's sections 2-4 and appendices A-D, verbatim, with the claims that test it.

Data only. Letters that are lost in the text at hand stand in brackets, cuts are marked by dots. Sentences that define,
motivate or describe a set-up without a consequence are left out; those of a kind that could be tested and are not have
their reason beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SENTENCES", "Sentence", "quotes"]


@dataclass(frozen=True)
class Sentence:
    """A sentence of the paper.

    Parameters
    ----------
    section
        Where it stands.
    text
        What it says, verbatim; what stands in brackets is ours.
    claims
        Ids of the claims that test it.
    reason
        Why no claim does, if none.
    """

    section: str
    text: str
    claims: tuple[str, ...] = ()
    reason: str = ""


_LANGUAGE = "A statement about tokens of language models, which the toy network has none of."

SENTENCES: tuple[Sentence, ...] = (
    Sentence(
        "2.1",
        "the Bayesian posterior converges to a Gaussian centered at the minimum [...] of the population loss with "
        "covariance",
        ("regular-posterior",),
    ),
    Sentence(
        "2.1",
        "Not only do they have no unique minimum, but the loss landscape is degenerate: the Fisher information matrix "
        "is "
        "not everywhere invertible.",
        ("singular-at-the-minimum",),
    ),
    Sentence(
        "2.1",
        "degeneracy can give rise to stagewise learning, where neural networks undergo a succession of phase "
        "transitions "
        "between qualitatively distinct solutions",
        ("levels-in-order", "type-a-transition"),
    ),
    Sentence(
        "2.1",
        "development is driven by a competition between data fit [...] and model complexity (as measured via a "
        "measure of "
        "degeneracy known as the local learning coefficient",
        ("type-a-transition", "measured-coefficients"),
    ),
    Sentence(
        "2.1",
        "first-order phase transitions, where the model abruptly shifts from concentrating in one region to another, "
        "and "
        "which can change the model's generalization behavior",
        ("transitions-change-generalisation", "type-a-transition"),
    ),
    Sentence(
        "2.1",
        "we model the optimizer's learning trajectory with an idealized Bayesian learning process",
        ("bif-is-not-loo", "critical-windows"),
    ),
    Sentence(
        "2.2",
        "an infinitesimal upweighting of a training point [...] affects an observable evaluated at the final model "
        "parameters",
        ("classical-at-convergence",),
    ),
    Sentence(
        "2.2",
        "This renders the classical IF theoretically ill-defined and practically unstable, which requires a dampening "
        "factor [...] especially at intermediate checkpoints that are unconverged and away from minima.",
        ("indefinite-hessian", "damping-restores"),
    ),
    Sentence(
        "2.2",
        "This derivative is equivalent to the negative covariance between the observable and the sample's loss",
        ("bif-is-a-susceptibility",),
    ),
    Sentence(
        "2.2",
        "By replacing the problematic Hessian inverse with a covariance estimation, it remains well-defined even on "
        "degenerate loss landscapes.",
        ("mala-is-exact", "bif-exists-everywhere"),
    ),
    Sentence(
        "2.2",
        "well-defined at any point in the training trajectory, not just at stable local minima",
        ("bif-exists-everywhere",),
    ),
    Sentence(
        "2.2",
        "when the regularity assumptions hold, the BIF asymptotically recovers the classical IF in the large-data "
        "limit",
        ("bif-tends-to-classical", "bif-is-damped-hessian"),
    ),
    Sentence(
        "2.3",
        "the BIF is an example of a generalized susceptibility that measures a system's response",
        ("bif-is-a-susceptibility",),
    ),
    Sentence(
        "2.3",
        "susceptibilities diverge at phase transitions",
        ("susceptibility-at-transition",),
    ),
    Sentence(
        "2.3",
        "We can decompose this total covariance using the Law of Total [Covariance], conditioning on the phase",
        ("total-covariance",),
    ),
    Sentence(
        "2.3",
        "This term captures the covariance that arises because the expected losses [themselves] change as the model "
        "switches phases.",
        ("total-covariance",),
    ),
    Sentence(
        "2.3",
        "Away from the transition, one of the weights is close to 1 and the other is close to 0.",
        ("type-a-transition", "between-peaks-at-half"),
    ),
    Sentence(
        "2.3",
        "If the within-phase influences of the two phases have significantly different values or if the between-phase "
        "term is large enough to dominate the average baseline influence during the transition, then transitions can "
        "cause "
        "a large change in magnitude or even a change in sign.",
        ("sign-flips",),
    ),
    Sentence(
        "2.3",
        "The between-phase influence term is maximized when the posterior mass is evenly split",
        ("between-peaks-at-half",),
    ),
    Sentence("2.3", "causing a sharp peak in total influence at the critical point of a transition", ("printed-peak",)),
    Sentence(
        "2.3",
        "the influence spike is largest for the samples on which the two phases disagree the most: peaks in influence "
        "identify the specific samples that characterize a given transition",
        ("spikes-name-samples",),
    ),
    Sentence(
        "3",
        "learning animal vs. plants first, then mammals vs. birds, and then dogs vs. cats",
        ("levels-in-order",),
    ),
    Sentence(
        "3",
        "Sign flips occur as the model shifts to learning progressively finer levels of hierarchical distinctions, and "
        "peaks occur when the model begins learning a new level of distinction.",
        ("stages-bif", "stages-loo", "peaks-mark-levels"),
    ),
    Sentence(
        "3, Fig. 2",
        "The correlation matrix of the feature output shows a hierarchical structure.",
        ("singular-structure",),
    ),
    Sentence(
        "3, Fig. 2",
        "The hierarchical structure is acquired progressively during the training of the deep linear neural network.",
        ("levels-in-order", "mode-strengths"),
    ),
    Sentence(
        "3",
        "the loss difference from LOO results in a similar pattern to what we see in the BIF and the analytical "
        "derivation, and validates their use",
        ("stages-loo", "stages-analytic", "bif-is-not-loo"),
    ),
    Sentence(
        "3",
        "The additional results on perturbing other data points show consistent trend",
        ("other-sources",),
    ),
    Sentence("3", "are also visible in the dampened classical IF", ("classical-shows-stages",)),
    Sentence(
        "3",
        "influence changes over time non-monotonically and can change sign, and (2) peaks in influence are correlated "
        "with "
        "key developmental transitions in model behavior",
        ("stages-bif", "stages-loo", "stages-analytic", "peaks-mark-levels"),
    ),
    Sentence(
        "3, Fig. 3",
        "All three measures agree that the influence one sample has on another can vary non-monotonically over the "
        "course "
        "of training",
        ("stages-bif", "stages-loo", "stages-analytic"),
    ),
    Sentence(
        "3, Fig. 3", "with the following: (Left) BIF ([...] = 1000; [...] = 1e-3; [...] = 5e + 3)", ("printed-step",)
    ),
    Sentence(
        "3",
        "influence is a function of singular mode strength of data input-output covariance learned by the network",
        ("instantaneous-influence-from-modes", "unrolled-is-the-derivative"),
    ),
    Sentence(
        "3",
        "the same data can be either helpful or harmful, depending on when it is presented",
        ("when-matters", "exposure-kernel-of-descent"),
    ),
    Sentence(
        "3",
        "It can also mark clear peaks at a specific time point on different query data points.",
        ("peaks-mark-levels", "other-sources"),
    ),
    Sentence(
        "3",
        "the influence over time from one data point to another point is specific to those points",
        ("specific-to-the-pair",),
    ),
    Sentence(
        "3",
        "The influence from dog to cat might be the same as dog to 'penguin' early on, but they are distinguished "
        "later in "
        "the learning process.",
        ("printed-same-early",),
    ),
    Sentence(
        "3",
        "ablating data during the stage with the highest influence induces the largest loss difference",
        ("critical-windows",),
    ),
    Sentence(
        "3",
        "upweighting a data point in the same class (dog) is helpful for learning a query data point (sparrow) as "
        "indicated "
        "by a negative influence (positive covariance). In contrast, upweighting a data point that belongs to a "
        "different "
        "class harms learning that query data point (pine), reflected in a positive influence.",
        ("class-decides-sign",),
    ),
    Sentence(
        "3",
        "A data point dog is helpful (negative influence) to learning sparrow early on in the learning, while "
        "learning to "
        "distinguish animal vs. plant, but it is harmful (positive) later on when learning to distinguish mammal vs. "
        "bird.",
        ("class-decides-sign", "stages-bif"),
    ),
    Sentence(
        "3, Fig. 4",
        "learning of each hierarchical level is reflected on the branching node",
        ("hidden-distances", "branches-and-peaks"),
    ),
    Sentence(
        "3, Fig. 4",
        "The peaks in influence match the branching points of the MDS trajectory, where each hierarchical category "
        "develops",
        ("branches-and-peaks",),
    ),
    Sentence(
        "3",
        "at the transition, where the model learns to distinguish mammal vs bird within the animals and form a new "
        "hierarchy level, the influence between mammal and bird is the highest",
        ("highest-at-the-transition",),
    ),
    Sentence(
        "A.1, Eq. 6",
        "For a critical point [...] in a neighborhood [...], the free energy asymptotically expands as",
        ("free-energy-expansion",),
    ),
    Sentence(
        "A.1",
        "that coincides with half the effective parameter count for minimally singular models",
        ("half-the-parameters", "toy-coefficient"),
    ),
    Sentence(
        "A.1, Eq. 7",
        "it is possible to calculate arbitrary expectation values simply by differentiating the free energy",
        ("free-energy-gradient",),
    ),
    Sentence(
        "A.1, Eq. 8",
        "lets us express the BIF as a 2nd-order derivative of the free energy, assuming both samples are in the "
        "training "
        "dataset",
        ("bif-is-a-susceptibility",),
    ),
    Sentence(
        "A.2, Eq. 10",
        "but where now [...] is a local minimum within [...], and [...] is the local learning coefficient associated "
        "with "
        "that local minimum",
        ("type-a-transition", "smallest-networks"),
    ),
    Sentence(
        "A.2, Eqs. 11-14",
        "globally, the free energy is determined primarily by the phase with the lowest free energy, with "
        "exponentially "
        "suppressed contributions from all other regions of phase space",
        ("coarse-graining",),
    ),
    Sentence(
        "A.2",
        'This free energy formula predicts the existence of first-order "Bayesian" phase transitions.',
        ("type-a-transition",),
    ),
    Sentence(
        "A.2",
        "the posterior initially prefers the simple solution U but switches to the complex solution V when",
        ("type-a-transition",),
    ),
    Sentence(
        "A.2",
        "if the two phases agree on the linear term (they have the same minimum loss), then the trade-off will be "
        "pushed "
        'down into lower-order terms, and there can be a "Type-B" transition',
        ("type-b-transition",),
    ),
    Sentence(
        "B, Eq. 15",
        "This approximates Langevin dynamics with loss gradients and locality regularization",
        ("printed-algorithm", "sgld-law", "algorithm-1-step-by-step"),
    ),
    Sentence(
        "B",
        "The update rule takes advantage of an adaptive learning rate [...] compared to vanilla SGLD and is more "
        "robust to "
        "varying step size",
        ("robust-to-the-step", "stability-limit"),
    ),
    Sentence(
        "B",
        "Empirically, we find that this behaves more stably than the raw covariance and thus is easier to track over "
        "time.",
        ("normalised-is-steadier",),
    ),
    Sentence(
        "B",
        "which can be trivially obtained by avoiding the loss accumulation over token indices and saving all per-token "
        "losses at each SGLD draw",
        reason=_LANGUAGE + " Here one draw records every sample's loss, which is the same.",
    ),
    Sentence(
        "B",
        "to avoid potentially spuriously high covariances, we drop same-token influence scores when computing "
        "aggregate "
        "group influence scores",
        reason=_LANGUAGE + " The influence of a sample on itself is left out of the pairs of measures likewise.",
    ),
    Sentence(
        "B",
        "The resulting quantity remains well-defined, with a slightly different interpretation: it measures the "
        "model's "
        "sensitivity to the initial introduction of a new sample, rather than the re-weighting of an existing one.",
        ("unseen-samples",),
    ),
    Sentence(
        "B",
        "we use independent data sources for the SGLD gradient updates and the forward passes used to compute the loss "
        "covariance",
        ("held-out-queries", "mini-batches-are-unbiased"),
    ),
    Sentence(
        "C.1",
        "We set the number of data points N = 8 with hierarchy level H = 3, that is, the data can be organized by 4 "
        "levels "
        "of hierarchy",
        ("singular-structure",),
    ),
    Sentence(
        "C.1",
        "with a small learning rate [5e-2] and train for 10K epochs with full batch unless mentioned otherwise",
        ("learns-the-map", "any-learning-rate", "any-size-of-the-start"),
    ),
    Sentence(
        "C.2",
        "Since ground truth LLC is known for deep linear neural networks [...] we can select a range of "
        "hyperparameters by "
        "choosing ones that have a well-matched LLC estimate to the ground truth.",
        ("measured-coefficients", "toy-coefficient"),
    ),
    Sentence(
        "C.2",
        "Based on this procedure, we validate the superiority of RMSPropSGLD to vanilla SGLD",
        ("rmsprop-against-sgld",),
    ),
    Sentence(
        "C.2",
        "and also the insensitivity of the sampler quality to decay rate b and stability constant in a certain range",
        ("decay-rate-does-not-matter",),
    ),
    Sentence(
        "C.2, Fig. 6",
        "the correlation coefficient changes smoothly as we vary the hyperparameters",
        ("sweep-of-the-sampler",),
    ),
    Sentence(
        "C.2, Fig. 6",
        "In general, high [...] and low [...] gave the highest correlation with the gold standard LOO experiment, and "
        "[...] "
        "was less significant in the toy model.",
        ("sweep-of-the-sampler",),
    ),
    Sentence(
        "C.2, Fig. 3",
        "we showed the BIF measured with the hyperparameters that have the highest correlation with LOO",
        ("sweep-of-the-sampler",),
    ),
    Sentence(
        "C.3",
        "we mask the corresponding data index to [0] for both input and output",
        ("masking-is-weight-zero",),
    ),
    Sentence(
        "C.4",
        "the Hessian [...] of the overparameterized neural network is non-invertible due to multiple zero / near-zero "
        "eigenvalues",
        ("singular-at-the-minimum",),
    ),
    Sentence("C.4, Eq. 17", "enforces [...] to have positive eigenvalues", ("damping-restores",)),
    Sentence(
        "C.4, Eq. 18",
        "an approximation to [...] which linearizes the network's parameter-output mapping around the current "
        "parameters",
        ("gauss-newton-is-hessian-late",),
    ),
    Sentence(
        "C.4, Eqs. 19-20",
        "we measure classical influence function over time",
        ("classical-shows-stages", "damping-restores"),
    ),
    Sentence(
        "C.5",
        "perturbing the same data point but at different training times would lead to non-identical influence",
        ("when-matters", "brief-ablation-is-the-kernel"),
    ),
    Sentence(
        "C.5",
        "the measured influence trajectory tells us which time point would be most critical for a model to learning "
        "each "
        "sample",
        ("critical-windows", "brief-ablation-is-the-kernel"),
    ),
    Sentence(
        "C.5",
        "the influence of dog on cat makes a peak around t = 6000",
        ("dog-on-cat-peaks",),
    ),
    Sentence(
        "C.5, Fig. 11",
        "the loss difference is the biggest around t = 6000, when the highest influence occurs",
        ("printed-critical-epochs",),
    ),
    Sentence(
        "C.5, Fig. 11",
        "we observe the negative peak of integrated loss difference around t = 3000, which also matches the negative "
        "minimum in the influence measurement",
        ("printed-critical-epochs", "dog-on-cat-peaks"),
    ),
    Sentence(
        "C.5, Fig. 11",
        "The higher level hierarchy (animals) sharing sample sparrow has an earlier critical point than the lower "
        "level "
        "hierarchy (mammals) sharing sample cat.",
        ("critical-windows",),
    ),
    Sentence(
        "C.6, Eq. 23",
        "we can describe each data point i's loss into the singular modes basis",
        ("losses-in-modes",),
    ),
    Sentence(
        "C.6, Eq. 24",
        "assuming the network and the data shares the aligned right and left singular vectors [...] This assumption "
        "holds "
        "with small initialization and small learning rate.",
        ("modes-align",),
    ),
    Sentence(
        "C.6, Eqs. 25-26",
        "we can compute the loss gradient with respect to the parameter space and decoupled mode space",
        ("gradients",),
    ),
    Sentence(
        "C.6, Eqs. 27-29",
        "With the small initialization assumption, the first-order approximation of equality holds",
        ("balance-is-conserved",),
    ),
    Sentence(
        "C.6, Eq. 30",
        "evolving throughout the training that could be written in closed form",
        ("mode-strengths", "flow-is-descent"),
    ),
    Sentence(
        "C.6, Eqs. 30, 32",
        "For an end-to-end linear map [...] define its representation in the data singular basis and the singular mode "
        "strength",
        ("printed-initial-strength",),
    ),
    Sentence("C.6, Eq. 31", "the model that learned the training data recovers", ("learns-the-map", "matrix-solution")),
    Sentence(
        "C.6, Eqs. 34-35",
        "the per-sample residual in mode space [...] and the per-sample loss gradient in mode space",
        ("residuals-in-modes",),
    ),
    Sentence(
        "C.6, Eqs. 36-38",
        "we consider a perturbation by upweighting a single data point p with factor [eps]. The perturbed "
        "cross-covariance "
        "becomes",
        ("printed-moment",),
    ),
    Sentence(
        "C.6, Eq. 38",
        "We assume that the network will have aligned singular basis with the perturbed data covariance",
        ("weights-follow-the-data",),
    ),
    Sentence(
        "C.6, Eq. 48",
        "the response from the perturbation should also be diagonal for the singular values",
        ("singular-values-respond",),
    ),
    Sentence(
        "C.6, Eq. 49", "The response of the singular basis is obtained from", ("printed-span", "printed-rotations")
    ),
    Sentence(
        "C.6, Eqs. 50-51",
        "become skew-symmetric, [...] Intuitively, A; B is equivalent to the in-subspace angular velocity",
        ("printed-rotations", "printed-influence-on-the-map"),
    ),
    Sentence(
        "C.6, Eqs. 50-52",
        "has degenerate singular values or a near-zero gap, above is ill-defined",
        ("near-degenerate",),
    ),
    Sentence(
        "C.6, Eqs. 52-54, 56",
        "becomes the first-order splits within the degenerate block with preferred direction defined by",
        ("singular-values-respond",),
    ),
    Sentence("C.6, Eq. 55", "sets the in-block angular velocity", ("printed-block-rotation",)),
    Sentence(
        "C.6, Eqs. 57-58",
        "we define influence on [...] from the perturbation on a data point p at fixed time t by applying derivative",
        ("printed-influence-on-the-map", "derivative-of-the-flow"),
    ),
    Sentence(
        "C.6, Eq. 59",
        "We can further derive influence on measurable [...] in singular basis using the chain rule",
        ("stages-analytic", "unrolled-is-the-derivative"),
    ),
    Sentence("C.6", "This perturbation is expected to hold with a small perturbation", ("small-weights-are-linear",)),
    Sentence(
        "C.6",
        "We use down-weighting [eps] = [-]0:1 to approximate the ablation effect in Figure 3",
        ("printed-downweighting", "closed-form-reweighting"),
    ),
    Sentence(
        "4",
        "sign flips, and peaks that correspond to known developmental changes like the formation of the induction "
        "circuit",
        ("repeated-pairs-rise", "copying-gate"),
    ),
    Sentence(
        "4",
        "Both classes appear among high-influence tokens for the other class very early in training, but this "
        "relationship quickly",
        reason="A statement about Pythia, whose weights are not here; Figure 5 takes a folder of them.",
    ),
    Sentence(
        "4",
        "computing influence at the level of individual tokens rather than sequences incurs no additional "
        "computational cost",
        ("no-extra-cost",),
    ),
    Sentence(
        "D.1.2",
        "the overall dynamics expressed by the BIF did not vary substantially among hyperparameters chosen in this "
        "setting",
        ("settings-of-the-sampler",),
    ),
    Sentence(
        "D.1.3",
        "We query the predictive capacity of token-level influences using a simple nearest-neighbors approach.",
        ("printed-draws",),
    ),
    Sentence("D.1.3, Fig. 14", "This means that 0 represents the random baseline.", ("recall-baseline",)),
    Sentence(
        "D.2",
        "undergoes a sudden, large increase, peaking and then stabilizing",
        ("repeated-pairs-rise", "peak-and-plateau"),
    ),
    Sentence(
        "D.2",
        "Meanwhile, the BIF between non-repeated segments or across non-repeated and repeated segments shows no such "
        "change.",
        ("others-stay",),
    ),
    Sentence(
        "D.2",
        "begins to rise right before the BIF increases between the repeated groups",
        ("repeated-pairs-rise", "induction-forms"),
    ),
)


def quotes(claim: str) -> tuple[Sentence, ...]:
    """Return the sentences that a claim tests."""
    return tuple(sentence for sentence in SENTENCES if claim in sentence.claims)
