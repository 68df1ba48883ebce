"""Sentences of appendix C, the toy model in detail."""

from __future__ import annotations

from validation.paper.sentence import Bearing, Evidence, Sentence

__all__ = ["SENTENCES"]

SENTENCES: tuple[Sentence, ...] = (
    Sentence(
        "C.1",
        "We set the number of data points N = 8 with hierarchy level H = 3, that is, the data can be organized by 4 "
        "levels of hierarchy",
        (Evidence("singular-structure"),),
    ),
    Sentence(
        "C.1",
        "with a small learning rate [5e-2] and train for 10K epochs with full batch unless mentioned otherwise",
        (
            Evidence("learns-the-map"),
            Evidence("any-learning-rate"),
            Evidence("any-size-of-the-start"),
        ),
    ),
    Sentence(
        "C.2",
        "Since ground truth LLC is known for deep linear neural networks [...] we can select a range of "
        "hyperparameters by choosing ones that have a well-matched LLC estimate to the ground truth.",
        (
            Evidence("measured-coefficients"),
            Evidence("toy-coefficient"),
        ),
    ),
    Sentence(
        "C.2",
        "Based on this procedure, we validate the superiority of RMSPropSGLD to vanilla SGLD",
        (Evidence("rmsprop-against-sgld"),),
    ),
    Sentence(
        "C.2",
        "and also the insensitivity of the sampler quality to decay rate b and stability constant in a certain range",
        (Evidence("decay-rate-does-not-matter"),),
    ),
    Sentence(
        "C.2, Fig. 6",
        "the correlation coefficient changes smoothly as we vary the hyperparameters",
        (
            Evidence(
                "sweep-of-the-sampler",
                Bearing.FOR,
                "whichever letter is which: no doubling of a hyper-parameter changes the correlation by more than the"
                " claim allows",
            ),
        ),
    ),
    Sentence(
        "C.2, Fig. 6",
        "In general, high [...] and low [...] gave the highest correlation with the gold standard LOO experiment, and"
        " [...] was less significant in the toy model.",
        (Evidence("sweep-of-the-sampler"),),
    ),
    Sentence(
        "C.2, Fig. 3",
        "we showed the BIF measured with the hyperparameters that have the highest correlation with LOO",
        (
            Evidence(
                "sweep-of-the-sampler",
                Bearing.AGAINST,
                "the best setting of the same grid is another one, by more than a change of seed explains",
            ),
        ),
    ),
    Sentence(
        "C.3",
        "we mask the corresponding data index to [0] for both input and output",
        (Evidence("masking-is-weight-zero"),),
    ),
    Sentence(
        "C.4",
        "the Hessian [...] of the overparameterized neural network is non-invertible due to multiple zero / near-zero"
        " eigenvalues",
        (Evidence("singular-at-the-minimum"),),
    ),
    Sentence(
        "C.4, Eq. 17",
        "enforces [...] to have positive eigenvalues",
        (
            Evidence(
                "damping-restores",
                Bearing.PARTLY,
                "at every checkpoint only for c > 1; for the smaller constants of the printed range only late in "
                "training",
            ),
        ),
    ),
    Sentence(
        "C.4, Eq. 18",
        "an approximation to [...] which linearizes the network's parameter-output mapping around the current "
        "parameters",
        (Evidence("gauss-newton-is-hessian-late"),),
    ),
    Sentence(
        "C.5",
        "perturbing the same data point but at different training times would lead to non-identical influence",
        (
            Evidence("when-matters"),
            Evidence("brief-ablation-is-the-kernel"),
        ),
    ),
    Sentence(
        "C.5",
        "the measured influence trajectory tells us which time point would be most critical for a model to learning "
        "each sample",
        (
            Evidence("critical-windows"),
            Evidence("brief-ablation-is-the-kernel"),
        ),
    ),
    Sentence(
        "C.5",
        "the influence of dog on cat makes a peak around t = 6000",
        (Evidence("dog-on-cat-peaks"),),
    ),
    Sentence(
        "C.5, Fig. 11",
        "the loss difference is the biggest around t = 6000, when the highest influence occurs",
        (Evidence("printed-critical-epochs"),),
    ),
    Sentence(
        "C.5, Fig. 11",
        "we observe the negative peak of integrated loss difference around t = 3000, which also matches the negative "
        "minimum in the influence measurement",
        (
            Evidence("printed-critical-epochs"),
            Evidence("dog-on-cat-peaks"),
        ),
    ),
    Sentence(
        "C.5, Fig. 11",
        "The higher level hierarchy (animals) sharing sample sparrow has an earlier critical point than the lower "
        "level hierarchy (mammals) sharing sample cat.",
        (Evidence("critical-windows"),),
    ),
    Sentence(
        "C.6, Eq. 23",
        "we can describe each data point i's loss into the singular modes basis",
        (Evidence("losses-in-modes"),),
    ),
    Sentence(
        "C.6, Eq. 24",
        "assuming the network and the data shares the aligned right and left singular vectors [...] This assumption "
        "holds with small initialization and small learning rate.",
        (Evidence("modes-align"),),
    ),
    Sentence(
        "C.6, Eqs. 25-26",
        "we can compute the loss gradient with respect to the parameter space and decoupled mode space",
        (Evidence("gradients"),),
    ),
    Sentence(
        "C.6, Eqs. 27-29",
        "With the small initialization assumption, the first-order approximation of equality holds",
        (Evidence("balance-is-conserved"),),
    ),
    Sentence(
        "C.6, Eq. 30",
        "evolving throughout the training that could be written in closed form",
        (
            Evidence("mode-strengths"),
            Evidence("flow-is-descent"),
        ),
    ),
    Sentence(
        "C.6, Eqs. 30, 32",
        "For an end-to-end linear map [...] define its representation in the data singular basis and the singular "
        "mode strength",
        (Evidence("printed-initial-strength"),),
    ),
    Sentence(
        "C.6, Eq. 31",
        "the model that learned the training data recovers",
        (
            Evidence("learns-the-map"),
            Evidence("matrix-solution"),
        ),
    ),
    Sentence(
        "C.6, Eqs. 34-35",
        "the per-sample residual in mode space [...] and the per-sample loss gradient in mode space",
        (Evidence("residuals-in-modes"),),
    ),
    Sentence(
        "C.6, Eqs. 36-38",
        "we consider a perturbation by upweighting a single data point p with factor [eps]. The perturbed "
        "cross-covariance becomes",
        (Evidence("printed-moment"),),
    ),
    Sentence(
        "C.6, Eq. 38",
        "We assume that the network will have aligned singular basis with the perturbed data covariance",
        (Evidence("weights-follow-the-data"),),
    ),
    Sentence(
        "C.6, Eq. 48",
        "the response from the perturbation should also be diagonal for the singular values",
        (Evidence("singular-values-respond"),),
    ),
    Sentence(
        "C.6, Eq. 49",
        "The response of the singular basis is obtained from",
        (Evidence("printed-span"),),
    ),
    Sentence(
        "C.6, Eqs. 50-51",
        "become skew-symmetric, [...] Intuitively, A; B is equivalent to the in-subspace angular velocity",
        (
            Evidence("printed-rotations"),
            Evidence("printed-influence-on-the-map"),
        ),
    ),
    Sentence(
        "C.6, Eqs. 50-52",
        "has degenerate singular values or a near-zero gap, above is ill-defined",
        (Evidence("near-degenerate"),),
    ),
    Sentence(
        "C.6, Eqs. 52-54, 56",
        "becomes the first-order splits within the degenerate block with preferred direction defined by",
        (Evidence("singular-values-respond"),),
    ),
    Sentence(
        "C.6, Eq. 55",
        "sets the in-block angular velocity",
        (Evidence("printed-block-rotation"),),
    ),
    Sentence(
        "C.6, Eqs. 57-58",
        "we define influence on [...] from the perturbation on a data point p at fixed time t by applying derivative",
        (
            Evidence("printed-influence-on-the-map"),
            Evidence("derivative-of-the-flow"),
        ),
    ),
    Sentence(
        "C.6, Eq. 59",
        "We can further derive influence on measurable [...] in singular basis using the chain rule",
        (
            Evidence("stages-analytic"),
            Evidence("unrolled-is-the-derivative"),
        ),
    ),
    Sentence(
        "C.6",
        "This perturbation is expected to hold with a small perturbation",
        (Evidence("small-weights-are-linear"),),
    ),
    Sentence(
        "C.6",
        "We use down-weighting [eps] = [-]0:1 to approximate the ablation effect in Figure 3",
        (
            Evidence("printed-downweighting"),
            Evidence("closed-form-reweighting"),
        ),
    ),
)
