"""Detection power: faults planted one by one, each caught by a claim that holds without it.

A fault replaces one function or method by a wrong one, in every module that has it. It is caught if the verdict of the
claim named beside it changes to fails; a fault that nothing catches would be a missing claim.
"""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from planting import Fault, clear_kept_results, planted

import theory
from numerics import Checkpoints
from validation import ToyExperiment, Verdict, run_claim, select_claims


def scaled(factor):
    """Return the result of a function times a factor."""
    return lambda right: lambda *args, **more: factor * right(*args, **more)


def scaled_variables(factor, *names):
    """Return some variables of a data set times a factor."""

    def wrong(right):
        def call(*args, **more):
            found = right(*args, **more)
            return found.assign({name: factor * found[name] for name in names})

        return call

    return wrong


def transposed(right):
    """Exchange source and query."""

    def call(*args, **more):
        found = right(*args, **more)
        return found.copy(data=found.transpose("epoch", "query", "source").values)

    return call


def later_by(epochs):
    """Label what belongs to an epoch with one `epochs` earlier."""

    def wrong(right):
        def call(dataset, w1, w2, times, **more):
            labels = np.atleast_1d(np.asarray(times, dtype=float))
            found = right(dataset, w1, w2, np.where(labels > 0, labels + epochs, 0), **more)
            return Checkpoints(labels, found.w1, found.w2)

        return call

    return wrong


def fields(**changes):
    """Change fields of a returned dataclass by functions of the whole."""

    def wrong(right):
        def call(*args, **more):
            found = right(*args, **more)
            return replace(found, **{name: change(found) for name, change in changes.items()})

        return call

    return wrong


def kernels(**changes):
    """Change the response kernels of the map before they are put together."""

    def wrong(right):
        def call(found, source, query):
            return right(replace(found, **{name: change(found) for name, change in changes.items()}), source, query)

        return call

    return wrong


def no_residual(right):
    """Take the Gauss-Newton matrix for the Hessian."""
    return lambda dataset, w1, w2: import_module("numerics.curvature.linear").gauss_newton(dataset, w1, w2)


def without_blocks(right):
    """Forget the blocks between the layers."""

    def call(dataset, w1, w2):
        h = right(dataset, w1, w2).clone()
        first = w1.numel()
        h[:first, first:] = 0
        h[first:, :first] = 0
        return h

    return call


def hessian_of_sum(right):
    """Forget 1/N."""
    return lambda dataset, w1, w2: len(dataset) * right(dataset, w1, w2)


def stronger_drift(right):
    """Drift by 0.6 eps instead of eps / 2: the largest step of the claim stays stable, and the law is another one."""

    def call(self, w, gradient, noise):
        drift = self._drift
        self._drift = 1.2 * drift
        right(self, w, gradient, noise)
        self._drift = drift

    return call


def twice_the_noise(right):
    """Inject noise of variance 2 eps."""
    return lambda self, w, gradient, noise: right(self, w, gradient, [z * 2**0.5 for z in noise])


def always_accepted(right):
    """Accept every proposal."""
    return lambda self, w, gradient, loss, luck: right(self, w, gradient, loss, torch.full_like(luck, -30.0))


def never_frozen(right):
    """Keep adapting the preconditioner."""

    def call(self, w, gradient, noise):
        self._adaptation = None
        right(self, w, gradient, noise)

    return call


def squares_not_averaged(right):
    """Exchange b and 1 - b."""

    def call(self, samplers, anchor):
        right(self, samplers, anchor)
        self._fresh = 1 - self._fresh

    return call


def shares_ignored(right):
    """Ignore the sample weights of a posterior."""

    def call(losses, boxes, n_beta, **more):
        if more.get("sample_weights") is not None:
            more["sample_weights"] = [1.0] * len(more["sample_weights"])
        return right(losses, boxes, n_beta, **more)

    return call


def other_root(right):
    """Take the smaller root of log n = n c."""

    def call(delta_loss, delta_lambda, delta_constant=0.0):
        from scipy.special import lambertw

        c = -np.asarray(delta_loss) / delta_lambda
        shift = np.exp(np.asarray(delta_constant) / delta_lambda)
        return np.exp(-np.real(lambertw(-c / shift, 0))) / shift

    return call


def without_between(right):
    """Weigh the part between phases by pi_U instead of pi_U pi_V."""
    return lambda weights, means, covariances: replace(
        right(weights, means, covariances),
        between=(b := right(weights, means, covariances)).between / np.asarray(weights)[..., -1],
        total=b.within + b.between / np.asarray(weights)[..., -1],
    )


def plain_mean_posterior(right):
    """Take the law of Algorithm 1 for the posterior: the divergence term is not missed."""
    return fields(mean=lambda f: f.posterior_mean, variance=lambda f: f.posterior_variance)(right)


def one_over_n_minus_one(right):
    """Normalise the loss by the samples that are left when one is left out."""

    def call(dataset, config=None, *, epsilon=-1.0, **more):
        n = len(dataset)
        weights = np.ones((n + 1, n)) + np.vstack([np.zeros(n), epsilon * np.eye(n)])
        weights[1:] *= n / (n + epsilon)
        retrain = import_module("numerics").train
        losses = [retrain(dataset, config, weights=row).losses for row in weights]
        found = right(dataset, config, epsilon=epsilon, **more)
        return found.copy(data=np.stack([(a - losses[0]).values / epsilon for a in losses[1:]], axis=1))

    return call


def longer_window(right):
    """Ablate for ten epochs more than asked for."""
    return lambda dataset, config, *, window, every: right(dataset, config, window=window + 10, every=every)


def members_added(right):
    """Take the sum of leave-one-out for leaving out a group."""

    def call(dataset, epochs, *, groups, **more):
        found = right(dataset, epochs, groups=groups, **more)
        single = theory.leave_one_out_trajectory(dataset, epochs, **more)
        total = np.stack([single.sel(source=list(m)).sum("source").values for m in groups.values()], axis=1)
        return found.copy(data=total)

    return call


def first_weights_only(right):
    """Take one layer for the growing combination of both."""

    def call(w1, w2, syx, **more):
        return right(w1, np.zeros_like(w2), syx, **more)

    return call


def step_not_in_the_law(right):
    """Forget that a finite step widens the law."""
    return lambda precision, step: right(precision, 1e-9)


def no_multiplicity(right):
    """Forget the multiplicity of the learning coefficient."""
    return lambda widths, rank: (right(widths, rank)[0], 1)


SWAPPED = kernels(target_input=lambda k: k.input_target, input_target=lambda k: k.target_input)
NO_INPUT_MOMENT = kernels(input_input=lambda k: 0 * k.input_input)
LOO = "numerics.training.retraining:leave_one_out"
RULES = "numerics.sampling.rules"


def half_time(right):
    """Let modes grow by s t / tau in place of 2 s t / tau."""
    return lambda t, s, g0, tau: right(t, s, g0, 2 * tau)


def without_log_log(right):
    """Add (m - 1) log log n in place of subtracting it."""

    def call(n, losses, lambdas, *, multiplicities=1.0, constants=0.0):
        both = {"multiplicities": multiplicities, "constants": constants}
        return 2 * right(n, losses, lambdas, constants=constants) - right(n, losses, lambdas, **both)

    return call


def undivided(right):
    """Forget to divide by epsilon."""
    return lambda *args, epsilon=-1.0, **more: epsilon * right(*args, epsilon=epsilon, **more)


def rolled(right):
    """Attribute every stretch of exposure to the eighth one after it."""

    def call(*args, **more):
        found = right(*args, **more)
        return found.copy(data=np.roll(found.values, 8, axis=0)) if "exposure" in found.dims else found

    return call


def printed_left_vectors(right):
    """Return the printed rotation of the left singular vectors for the exact one."""
    return lambda c, dc: replace(right(c, dc), du=theory.paper_svd_response(c, dc, "P1").du)


FAULTS = (
    Fault("tau twice as long", "theory.dynamics.saxe:time_constant", scaled(2), "mode-strengths"),
    Fault("tau without O", "theory.dynamics.saxe:time_constant", scaled(1 / 15), "flow-is-descent"),
    Fault("half of 2 s t / tau", "theory.dynamics.saxe:mode_strength", half_time, "mode-strengths"),
    Fault("initial strength without 1/4", "theory.dynamics.saxe:aligned_modes",
          fields(initial_strengths=lambda m: 4 * m.initial_strengths), "mode-strengths"),
    Fault("one layer for both", "theory.dynamics.saxe:aligned_modes", first_weights_only, "mode-strengths"),
    Fault("lost sign of a layer", "theory.dynamics.linear_networks:linear_network_solution",
          lambda right: lambda w1, w2, syx, t, tau: right(-w1, w2, syx, t, tau), "matrix-solution"),
    Fault("flow one epoch late", "numerics.training.gradient_flow:gradient_flow", later_by(1), "flow-is-descent"),
    Fault("flow one epoch early", "numerics.training.gradient_flow:gradient_flow", later_by(-1), "flow-is-descent"),
    Fault("half-rise twice as late", "theory.dynamics.saxe:half_rise_time", scaled(2), "levels-in-order"),
    Fault("tree upside down", "theory.hierarchy:tree_distance", lambda right: lambda levels=3: levels - right(levels),
          "singular-structure"),
    Fault("squares for singular values", "theory.hierarchy:hierarchical_structure",
          fields(values=lambda f: f.values**2), "singular-structure"),
    Fault("lost sign of the influence", "theory.influence.trajectory:_assemble", scaled(-1), "derivative-of-the-flow"),
    Fault("transposed Q", "theory.influence.trajectory:_assemble", SWAPPED, "derivative-of-the-flow"),
    Fault("input moment forgotten", "theory.influence.trajectory:_assemble", NO_INPUT_MOMENT, "derivative-of-the-flow"),
    Fault("factor 2 in the influence", "theory.influence.trajectory:_assemble", scaled(2),
          "unrolled-is-the-derivative", True),
    Fault("lost sign of the spectral derivative", "theory.influence.svd_response:spectral_derivative", scaled(-1),
          "printed-influence-on-the-map"),
    Fault("printed rotations for exact ones", "theory.influence.svd_response:svd_response", printed_left_vectors,
          "printed-rotations"),
    Fault("splits twice as wide", "theory.influence.svd_response:svd_response", fields(ds=lambda f: 2 * f.ds),
          "singular-values-respond"),
    Fault("source and query exchanged", LOO, transposed, "closed-form-loo", True),
    Fault("leave-one-out without its sign", LOO, scaled(-1), "stages-loo", True),
    Fault("1/(N-1) when one is left out", LOO, one_over_n_minus_one, "closed-form-loo", True),
    Fault("not divided by epsilon", LOO, undivided, "small-weights-are-linear", True),
    Fault("group as the sum of its members", "theory.influence.leave_one_out:leave_group_out_trajectory", members_added,
          "groups-are-not-sums", True),
    Fault("derivative of the run twice", "numerics.training.unrolled_influence:unrolled_influence", scaled(2),
          "unrolled-is-the-derivative", True),
    Fault("TracIn without its 2", "numerics.curvature.tracin:tracin", scaled(0.5), "tracin-adds-up", True),
    Fault("Hessian without the residual", "numerics.curvature.linear:hessian", no_residual, "indefinite-hessian", True),
    Fault("Hessian without the blocks between layers", "numerics.curvature.linear:hessian", without_blocks,
          "singular-at-the-minimum"),
    Fault("Hessian of the sum of losses", "numerics.curvature.linear:hessian", hessian_of_sum,
          "classical-at-convergence"),
    Fault("Gauss-Newton influence without 1/N", "numerics.curvature.classical_influence:gauss_newton_influence",
          scaled_variables(12.0, "influence"), "classical-at-convergence"),
    Fault("half of the gradient kernel", "numerics.curvature.classical_influence:gradient_kernel", scaled(0.5),
          "instantaneous-influence-from-modes"),
    Fault("lost sign of the kernel", "numerics.curvature.classical_influence:gradient_kernel", scaled(-1),
          "brief-ablation-is-the-kernel", True),
    Fault("window ten epochs longer", "numerics.training.timed_ablation:timed_ablation", longer_window,
          "brief-ablation-closed-form", True),
    Fault("exposure kernel without 1/tau", "theory.influence.exposure:exposure_kernel", scaled(1200.0),
          "exposure-kernel-of-descent", True),
    Fault("exposure eight stretches late", "numerics.training.unrolled_influence:unrolled_influence", rolled,
          "exposure-kernel-of-descent", True),
    Fault("Bayesian influence without 1/N", "numerics.sampling.bayesian_influence:bayesian_influence",
          scaled_variables(8.0, "influence"), "bif-is-damped-hessian", True),
    Fault("biased covariance", "numerics.sampling.bayesian_influence:bayesian_influence",
          scaled_variables(0.8, "covariance", "standard_error"), "bif-gaussian-limit", True),
    Fault("standard errors half as large", "numerics.sampling.bayesian_influence:bayesian_influence",
          scaled_variables(0.5, "standard_error"), "bif-gaussian-limit", True),
    Fault("law of the sampler without its step", "theory:stationary_law", step_not_in_the_law,
          "bif-gaussian-limit", True),
    Fault("drift a fifth stronger", f"{RULES}:LangevinRule.move", stronger_drift, "sgld-law"),
    Fault("noise of variance 2 eps", f"{RULES}:LangevinRule.move", twice_the_noise, "sgld-law"),
    Fault("every proposal accepted", f"{RULES}:MetropolisRule.settle", always_accepted, "mala-is-exact", True),
    Fault("divergence term not missed", "theory:adaptive_limit", plain_mean_posterior, "printed-algorithm", True),
    Fault("b and 1 - b exchanged", f"{RULES}:PreconditionedRule.__init__", squares_not_averaged,
          "printed-algorithm", True),
    Fault("preconditioner never frozen", f"{RULES}:PreconditionedRule.move", never_frozen, "printed-algorithm", True),
    Fault("sample weights ignored", "theory.posteriors.quadrature:tempered_posterior", shares_ignored,
          "bif-is-a-susceptibility", True),
    Fault("part between phases by pi_U alone", "theory.posteriors.mixtures:decompose_covariance", without_between,
          "total-covariance", True),
    Fault("extremum on the wrong side of 1/2", "theory:phase_transition", fields(position=lambda f: 1 - f.position),
          "printed-peak"),
    Fault("sign flips mirrored", "theory:phase_transition",
          fields(sign_flips=lambda f: np.sort(1 - f.sign_flips, axis=-1)), "sign-flips"),
    Fault("the other root of log n = n c", "theory.posteriors.phases:transition_sample_size", other_root,
          "type-a-transition", True),
    Fault("the larger coefficient wins", "theory.posteriors.phases:type_b_transition",
          lambda right: lambda d, **k: right(-d, **k),
          "type-b-transition", True),
    Fault("log log n with the wrong sign", "theory.posteriors.phases:free_energy", without_log_log,
          "free-energy-expansion"),
    Fault("multiplicity forgotten", "theory.posteriors.learning_coefficient:learning_coefficient", no_multiplicity,
          "smallest-networks"),
    Fault("branches at a tenth, not at half", "numerics.embedding:branching_epochs",
          lambda right: lambda *a, fraction=0.5: right(*a, fraction=fraction / 5), "branches-and-peaks", True),
    Fault("embedding that loses axes", "numerics.embedding:representation_embedding",
          lambda right: lambda d, c, *, dims: right(d, c, dims=dims - 6), "hidden-distances"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh():
    clear_kept_results()
    yield
    clear_kept_results()


def test_the_faults_are_many_and_different():
    assert len(FAULTS) >= 25
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({fault.claim for fault in FAULTS}) >= 25


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_can_be_planted(fault, monkeypatch):
    planted(monkeypatch, fault)
    select_claims([fault.claim])


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=pytest.mark.slow if f.slow else (), id=f.name.replace(" ", "-")) for f in FAULTS],
)
def test_a_planted_fault_is_caught(fault, monkeypatch):
    (claim,) = (c for c in select_claims([fault.claim]) if c.identifier == fault.claim)
    planted(monkeypatch, fault)
    result = run_claim(claim, ToyExperiment())
    assert result.verdict == Verdict.FAILS, [(c.quantity, c.measured, c.low, c.high) for c in result.checks]
    # caught by a number that leaves its bound, not by an error in the plant itself
    assert not result.problem, result.problem
