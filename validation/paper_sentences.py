"""Every testable sentence of the paper's sections 2-3 and appendices A-C, with the claims that test it.

Data only. Sentences that define, motivate or describe a set-up without a consequence are left out; those of a kind that
could be tested and are not have their reason beside them.
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
        What it says, shortened.
    claims
        Ids of the claims that test it.
    reason
        Why no claim does, if none.
    """

    section: str
    text: str
    claims: tuple[str, ...] = ()
    reason: str = ""


SENTENCES: tuple[Sentence, ...] = (
    Sentence(
        "2.1",
        "In regular models the posterior converges to a Gaussian around the minimum with covariance (N I)^-1 "
        "(Bernstein-von Mises).",
        ("regular-posterior",),
    ),
    Sentence(
        "2.1",
        "Neural networks have no unique minimum; the Fisher information matrix is not everywhere invertible.",
        ("singular-at-the-minimum",),
    ),
    Sentence(
        "2.1",
        "Degeneracy gives rise to stagewise learning: a succession of phase transitions between distinct solutions.",
        ("levels-in-order", "type-a-transition"),
    ),
    Sentence(
        "2.1",
        "Development is a competition between data fit and complexity, measured by the local learning coefficient, "
        "and leads to first-order transitions.",
        ("type-a-transition", "measured-coefficients"),
    ),
    Sentence(
        "2.1",
        "An optimiser's trajectory can be modelled by an idealised Bayesian learning process.",
        ("bif-is-not-loo", "critical-windows"),
    ),
    Sentence(
        "2.2",
        "The classical influence of a sample is -grad phi^T H^-1 grad l at the minimum (Eq. 1).",
        ("classical-at-convergence",),
    ),
    Sentence(
        "2.2",
        "The classical influence is ill-defined and unstable on degenerate landscapes, and needs damping, above all "
        "at intermediate checkpoints.",
        ("indefinite-hessian", "damping-restores"),
    ),
    Sentence(
        "2.2",
        "The Bayesian influence, the derivative of an expected observable, is the negative covariance with the "
        "sample's loss (Eq. 2).",
        ("bif-is-a-susceptibility",),
    ),
    Sentence(
        "2.2",
        "It is Hessian-free and well-defined even on degenerate loss landscapes.",
        ("mala-is-exact", "bif-exists-everywhere"),
    ),
    Sentence(
        "2.2",
        "It is well-defined at any point of the training trajectory, not just at local minima.",
        ("bif-exists-everywhere",),
    ),
    Sentence(
        "2.2",
        "Where regularity holds it recovers the classical influence in the large-data limit.",
        ("bif-tends-to-classical", "bif-is-damped-hessian"),
    ),
    Sentence(
        "2.3",
        "The Bayesian influence is a generalised susceptibility; susceptibilities diverge at phase transitions.",
        ("bif-is-a-susceptibility", "susceptibility-at-transition"),
    ),
    Sentence(
        "2.3",
        "The total covariance is the average within-phase influence plus the covariance of phase means.",
        ("total-covariance",),
    ),
    Sentence("2.3", "The between-phase term is pi_U pi_V (mu_iU - mu_iV)(mu_jU - mu_jV).", ("total-covariance",)),
    Sentence(
        "2.3",
        "At the peak of a transition pi_U is about 0.5; away from it one of the weights is close to 1.",
        ("type-a-transition", "between-peaks-at-half"),
    ),
    Sentence(
        "2.3",
        "Influence can change sign: where within-phase influences differ, or the between-phase term dominates.",
        ("sign-flips",),
    ),
    Sentence(
        "2.3",
        "The between-phase term is maximised when the posterior mass is evenly split.",
        ("between-peaks-at-half",),
    ),
    Sentence("2.3", "This causes a sharp peak in the total influence at the critical point.", ("printed-peak",)),
    Sentence(
        "2.3",
        "The spike is largest for the samples on which the two phases disagree most, so that peaks identify them.",
        ("spikes-name-samples",),
    ),
    Sentence(
        "3", "The network learns animal or plant first, then mammal or bird, then dog or cat.", ("levels-in-order",)
    ),
    Sentence(
        "3",
        "Sign flips occur as the model shifts to finer distinctions, and peaks when it begins to learn a new one.",
        ("stages-bif", "stages-loo", "peaks-mark-levels"),
    ),
    Sentence(
        "3, Fig. 2",
        "The correlation matrix of the features shows the hierarchy; it is acquired progressively.",
        ("singular-structure", "mode-strengths"),
    ),
    Sentence(
        "3",
        "Leave-one-out shows a pattern similar to the Bayesian influence and the analytical derivation, and "
        "validates their use.",
        ("stages-loo", "stages-analytic", "bif-is-not-loo"),
    ),
    Sentence("3", "Perturbing other data points shows a consistent trend.", ("other-sources",)),
    Sentence("3", "The stages are also visible in the damped classical influence.", ("classical-shows-stages",)),
    Sentence(
        "3",
        "Influence changes non-monotonically over time and can change sign; its peaks correlate with transitions.",
        ("stages-bif", "stages-loo", "stages-analytic", "peaks-mark-levels"),
    ),
    Sentence(
        "3, Fig. 3",
        "All three measures agree that influence varies non-monotonically over training.",
        ("stages-bif", "stages-loo", "stages-analytic"),
    ),
    Sentence(
        "3, Fig. 3",
        "The Bayesian influence is measured with n_beta = 1000, step 1e-3, localisation 5e3.",
        ("printed-step",),
    ),
    Sentence(
        "3",
        "Influence is a function of the strengths of the singular modes the network has learned.",
        ("instantaneous-influence-from-modes", "unrolled-is-the-derivative"),
    ),
    Sentence(
        "3",
        "The same data can be helpful or harmful, depending on when it is presented.",
        ("when-matters", "exposure-kernel-of-descent"),
    ),
    Sentence(
        "3",
        "Influence marks clear peaks at specific times for different queries.",
        ("peaks-mark-levels", "other-sources"),
    ),
    Sentence(
        "3",
        "The influence of dog on cat might be the same as that on penguin early on, but they are distinguished later.",
        ("printed-same-early",),
    ),
    Sentence(
        "3",
        "Ablating data during the stage with the highest influence induces the largest loss difference.",
        ("critical-windows",),
    ),
    Sentence(
        "3",
        "While a distinction is learned, a sample of the same class helps and one of a different class harms.",
        ("class-decides-sign",),
    ),
    Sentence(
        "3",
        "Dog helps sparrow while animals part from plants, and harms it while mammals part from birds.",
        ("class-decides-sign", "stages-bif"),
    ),
    Sentence(
        "3, Fig. 4",
        "Branching points of the multidimensional scaling of hidden representations match the peaks of influence.",
        ("branches-and-peaks", "hidden-distances"),
    ),
    Sentence("A.1, Eq. 6", "The free energy expands as n L + lambda log n + O(log log n).", ("free-energy-expansion",)),
    Sentence(
        "A.1",
        "The learning coefficient coincides with half the effective number of parameters for minimally singular "
        "models.",
        ("half-the-parameters", "toy-coefficient"),
    ),
    Sentence(
        "A.1, Eq. 7",
        "The expected loss of a sample is the derivative of the free energy with respect to its weight.",
        ("free-energy-gradient",),
    ),
    Sentence(
        "A.1, Eq. 8", "The Bayesian influence is a second derivative of the free energy.", ("bif-is-a-susceptibility",)
    ),
    Sentence(
        "A.2, Eq. 10",
        "The local free energy has the same expansion with the local minimum and its learning coefficient.",
        ("type-a-transition", "smallest-networks"),
    ),
    Sentence(
        "A.2, Eqs. 11-14",
        "The global free energy is -log sum exp(-F) over phases, about the lowest one, others being exponentially "
        "suppressed.",
        ("coarse-graining",),
    ),
    Sentence(
        "A.2",
        "Posterior log-odds of two phases evolve as n dL + dlambda log n, up to O(log log n).",
        ("type-a-transition",),
    ),
    Sentence(
        "A.2",
        "The posterior switches from the simple to the complex solution when log(n) / n < -dL / dlambda (Type A).",
        ("type-a-transition",),
    ),
    Sentence(
        "A.2",
        "Of two phases with equal minimum loss the trade-off is pushed to lower-order terms (Type B).",
        ("type-b-transition",),
    ),
    Sentence(
        "B, Eq. 15", "RMSProp-preconditioned SGLD estimates the local posterior.", ("printed-algorithm", "sgld-law")
    ),
    Sentence(
        "B",
        "The adaptive learning rate is more robust to varying step size than vanilla SGLD.",
        reason="Another paper's comparison, without a measure of robustness. What can be said: both are stable up "
        "to step x curvature = 4 (stability-limit), and Algorithm 1 has a bias that SGLD has not "
        "(printed-algorithm).",
    ),
    Sentence("B", "The normalised influence behaves more stably than the raw covariance.", ("normalised-is-steadier",)),
    Sentence(
        "B",
        "Per-token influence is obtained by saving all per-token losses at each draw.",
        reason="A statement about language models; here one draw records every sample's loss, which is the same.",
    ),
    Sentence(
        "B",
        "Same-token influence is dropped to avoid spuriously high covariances.",
        reason="Concerns tokens of language models; the influence of a sample on itself is left out of the pairs of "
        "measures likewise.",
    ),
    Sentence(
        "B",
        "The influence of a sample not seen yet is the derivative at weight 0, and is well defined.",
        ("unseen-samples",),
    ),
    Sentence(
        "B",
        "Gradient updates and the forward passes for the covariance may use independent data.",
        ("held-out-queries",),
    ),
    Sentence(
        "C.1",
        "The data set has 8 items, 15 features, rank 8, and the hierarchy of four levels.",
        ("singular-structure",),
    ),
    Sentence(
        "C.1",
        "Small random weights, learning rate 5e-2 and 10,000 epochs suffice to learn it.",
        ("learns-the-map", "any-learning-rate", "any-size-of-the-start"),
    ),
    Sentence(
        "C.2",
        "Since the true learning coefficient of deep linear networks is known, hyper-parameters can be selected by it.",
        ("measured-coefficients", "toy-coefficient"),
    ),
    Sentence(
        "C.2",
        "RMSProp-SGLD is superior to vanilla SGLD for estimating the learning coefficient.",
        reason="No numbers are printed, and the toy network has the same coefficient at every rank "
        "(toy-coefficient), so it cannot rank samplers by it. At equal stability Algorithm 1 has the larger bias "
        "(printed-algorithm).",
    ),
    Sentence(
        "C.2",
        "Sampler quality is insensitive to the decay rate and the stability constant in a certain range.",
        ("decay-rate-does-not-matter",),
    ),
    Sentence(
        "C.2, Fig. 6",
        "The correlation with leave-one-out changes smoothly with the hyper-parameters and is highest for high and "
        "low ones (letters lost in print).",
        ("sweep-of-the-sampler",),
    ),
    Sentence(
        "C.2, Fig. 3",
        "The best correlation is at n_beta = 1000, step 1e-3, localisation 5e3.",
        ("printed-step", "sweep-of-the-sampler"),
    ),
    Sentence("C.3", "Leave-one-out masks the input and output of a sample with zeros.", ("masking-is-weight-zero",)),
    Sentence("C.4", "The Hessian has multiple zero or near-zero eigenvalues.", ("singular-at-the-minimum",)),
    Sentence("C.4", "A suitable damping makes all eigenvalues positive (Eq. 17).", ("damping-restores",)),
    Sentence(
        "C.4",
        "The Gauss-Newton matrix is an approximation of the Hessian that linearises the network (Eq. 18).",
        ("gauss-newton-is-hessian-late",),
    ),
    Sentence(
        "C.4",
        "Damped influence over time, damping c max|eig| with c from 1e-3 to 10 (Eqs. 19-20).",
        ("classical-shows-stages", "damping-restores"),
    ),
    Sentence(
        "C.5",
        "The influence trajectory tells at which time a sample matters most for learning another.",
        ("critical-windows", "brief-ablation-is-the-kernel"),
    ),
    Sentence(
        "C.5, Fig. 11",
        "For cat the integrated loss difference is largest around t = 6000 and most negative around t = 3000.",
        ("printed-critical-epochs",),
    ),
    Sentence(
        "C.5, Fig. 11",
        "Sparrow, which shares a higher level with dog, has an earlier critical point than cat.",
        ("critical-windows",),
    ),
    Sentence("C.6, Eq. 23", "The loss decomposes over singular modes.", ("losses-in-modes",)),
    Sentence(
        "C.6, Eq. 24",
        "With small initialisation and learning rate the network and the data share singular vectors.",
        ("modes-align",),
    ),
    Sentence("C.6, Eqs. 25-26", "The gradients are W2^T (Syx - W2 W1) and (Syx - W2 W1) W1^T.", ("gradients",)),
    Sentence(
        "C.6, Eqs. 27-29",
        "Layers carry each mode in equal parts to first order, by the balance of small initial weights.",
        ("balance-is-conserved",),
    ),
    Sentence("C.6, Eq. 30", "Each mode's strength follows the logistic curve.", ("mode-strengths", "flow-is-descent")),
    Sentence("C.6, Eqs. 30, 32", "Its initial value is u^T W2 W1 v at t = 0.", ("printed-initial-strength",)),
    Sentence(
        "C.6, Eq. 31", "A network that has learned the data recovers W = C.", ("learns-the-map", "matrix-solution")
    ),
    Sentence(
        "C.6, Eq. 36",
        "A sample's weight changes the cross-covariance C by y x^T (and nothing else).",
        ("printed-moment",),
    ),
    Sentence(
        "C.6, Eq. 38",
        "The perturbed network is aligned with the perturbed data at every time.",
        ("weights-follow-the-data",),
    ),
    Sentence("C.6, Eqs. 42-47", "A and B are skew-symmetric and Q = A S + S' + S B.", ("printed-rotations",)),
    Sentence("C.6, Eq. 48", "Singular values respond by diag(U^T C' V).", ("singular-values-respond",)),
    Sentence("C.6, Eq. 49", "Singular vectors respond by U' = U A, V'^T = B V^T.", ("printed-span",)),
    Sentence(
        "C.6, Eqs. 50-51",
        "A_jk = Q_jk / (s_k - s_j) and B_jk with s_j - s_k.",
        ("printed-rotations", "printed-influence-on-the-map"),
    ),
    Sentence(
        "C.6, Eqs. 52-54, 56", "A degenerate block splits by the eigenvalues of sym(Q).", ("singular-values-respond",)
    ),
    Sentence("C.6, Eq. 55", "Within the block A = B = K / (2 s).", ("printed-block-rotation",)),
    Sentence(
        "C.6, Eqs. 57-58",
        "The map responds by U (A G + G' dS + G B) V^T.",
        ("printed-influence-on-the-map", "derivative-of-the-flow"),
    ),
    Sentence(
        "C.6, Eq. 59",
        "The influence on a loss follows by the chain rule.",
        ("stages-analytic", "unrolled-is-the-derivative"),
    ),
    Sentence("C.6", "The perturbation is expected to hold for small epsilon.", ("small-weights-are-linear",)),
    Sentence(
        "C.6",
        "Down-weighting by epsilon = -0.1 approximates the ablation effect of Fig. 3.",
        ("printed-downweighting", "closed-form-reweighting"),
    ),
)


def quotes(claim: str) -> tuple[Sentence, ...]:
    """Return the sentences that a claim tests."""
    return tuple(sentence for sentence in SENTENCES if claim in sentence.claims)
