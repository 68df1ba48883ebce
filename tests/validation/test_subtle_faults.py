"""Detection power for subtle faults: a per cent, an epoch, a divisor, in every module that produces a number.

The faults are as small as the claims say that they see, or are slips that leave the order of magnitude as it is. Each
names the claim that must notice: its verdict turns, to fails or to inconclusive, by a number that leaves its bound.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from planting import Fault, clear_kept_results, edited, planted

from numerics import Checkpoints
from validation import ToyExperiment, run_claim, select_claims
from validation.expectations import smooth


def scaled(factor):
    """Return the result of a function times a factor."""
    return lambda right: lambda *args, **more: factor * right(*args, **more)


def variables(**factors):
    """Return some variables of a data set times their factors."""
    return lambda right: (
        lambda *args, **more: (found := right(*args, **more)).assign(
            {name: factor * found[name] for name, factor in factors.items()}
        )
    )


def fields(**changes):
    """Change fields of a returned dataclass by functions of the whole."""
    return lambda right: (
        lambda *args, **more: replace(
            found := right(*args, **more), **{name: change(found) for name, change in changes.items()}
        )
    )


def moved(epochs):
    """Label what belongs to an epoch with one `epochs` earlier."""

    def wrong(right):
        def call(*args, **more):
            found = right(*args, **more)
            return found.copy(data=smooth(found)(found["epoch"].values + epochs))

        return call

    return wrong


def later_flow(right):
    """Label the flow half an epoch early."""

    def call(dataset, w1, w2, times, **more):
        labels = np.atleast_1d(np.asarray(times, dtype=float))
        found = right(dataset, w1, w2, np.where(labels > 0, labels + 0.5, 0), **more)
        return Checkpoints(labels, found.w1, found.w2)

    return call


def turned_layers(right):
    """Lose the rotation that both layers of the exact solution share."""

    def call(w1, *args):
        first, second = right(w1, *args)
        q = np.linalg.qr(np.random.default_rng(0).normal(size=(first.shape[-2],) * 2))[0]
        return q @ first, second @ q.T

    return call


def flipped_axes(right):
    """Flip an axis of the embedding at every other epoch."""

    def call(*args, **more):
        found = right(*args, **more).copy()
        found.values[::2, :, 0] *= -1
        return found

    return call


def rolled(right):
    """Attribute every stretch of exposure to the one after it."""

    def call(*args, **more):
        found = right(*args, **more)
        return found.copy(data=np.roll(found.values, 1, axis=0)) if "exposure" in found.dims else found

    return call


def rate_by_inputs(right):
    """Scale the learning rate by the number of inputs in place of outputs."""

    def call(dataset, **more):
        found = right(dataset, **more)
        training = replace(found.training, lr=found.training.lr * dataset.n_inputs / dataset.n_outputs)
        return replace(found, training=training)

    return call


def first_pull(right):
    """Give all settings the localization of the first one."""

    def wrong(self, samplers, anchor):
        right(self, samplers, anchor)
        self._return = self._column(lambda s: s.step_size * samplers[0].localization / 2)

    return wrong


def stronger_pull(right):
    """Pull by two per cent too much."""

    def wrong(self, samplers, anchor):
        right(self, samplers, anchor)
        self._return = 1.02 * self._return

    return wrong


def undeflated(right):
    """Keep the part of the initial strengths that faster modes share."""
    return lambda w1, w2, syx, *, deflate=False: right(w1, w2, syx)


def damping_without_n(right):
    """Take the largest eigenvalue of the summed loss for that of the mean."""

    def call(*args, relative_damping=None, **more):
        wrong = None if relative_damping is None else 8.0 * np.asarray(relative_damping)
        found = right(*args, relative_damping=wrong, **more)
        return found if wrong is None else found.assign_coords(damping=np.atleast_1d(relative_damping))

    return call


RULES, LINEAR = "numerics.sampling.rules", "numerics.curvature.linear"
MOMENTS = "numerics.sampling.block_moments:BlockMoments"
BIF = "numerics.sampling.bayesian_influence:bayesian_influence"

FAULTS = (
    # estimators and chains
    Fault("batch means with ddof 0", f"{MOMENTS}.pooled", edited("/ (blocks - 1)", "/ blocks"),
          "moments-are-those-of-the-draws"),
    Fault("population covariance", f"{MOMENTS}.pooled", edited("unbiased = total / (total - 1)", "unbiased = 1.0"),
          "moments-are-those-of-the-draws"),
    Fault("covariance within chains by n", f"{MOMENTS}._within", edited("/ (self._draws - 1)", "/ self._draws"),
          "moments-are-those-of-the-draws"),
    Fault("covariance about chain means", f"{MOMENTS}.pooled",
          edited('np.einsum("b,tbm->tm", weights / total, means)[:, None]',
                 "means.reshape(len(means), chains, per_chain, -1).mean(2).repeat(per_chain, axis=1)"),
          "moments-are-those-of-the-draws"),
    Fault("correlation from within chains", BIF, edited("np.divide(pooled.covariance, "
    "spread", "np.divide(pooled.within, spread"),
          "moments-are-those-of-the-draws"),
    Fault("influence over N - 1", BIF, edited("-n_beta / len(dataset)", "-n_beta / (len(dataset) - 1)"),
          "bif-is-damped-hessian"),
    Fault("groups over n - 1", "numerics.sampling.groups:group_influence", scaled(18 / 17),
          "moments-are-those-of-the-draws"),
    Fault("seeds that ignore the epoch", "numerics.sampling.chains:_generator",
          edited("[plan.seed, epoch, own]", "[plan.seed, own]"), "chains-are-what-is-asked-for"),
    Fault("half of the burn-in", "numerics.sampling.chains:_Batch.run", edited("plan.burn_in", "(plan.burn_in // 2)"),
          "chains-are-what-is-asked-for"),
    Fault("one pull for all settings", f"{RULES}:LangevinRule.__init__", first_pull, "chains-are-what-is-asked-for"),
    Fault("bias correction off by one", f"{RULES}:PreconditionedRule._numbers",
          edited("1 - sampler.decay**self._taken", "1 - sampler.decay**(self._taken + 1)"), "algorithm-1-step-by-step"),
    Fault("a inside of the root", f"{RULES}:PreconditionedRule.move",
          edited("torch.sqrt(squares, out=root)", "torch.sqrt(squares + 1e-4, out=root)"),
          "algorithm-1-step-by-step"),
    Fault("pull two per cent too strong", f"{RULES}:LangevinRule.__init__", stronger_pull, "algorithm-1-step-by-step"),
    Fault("noise one per cent too strong", f"{RULES}:LangevinRule.move",
          lambda right: lambda self, w, gradient, noise: right(self, w, gradient, [1.01 * z for z in noise]),
          "sgld-law"),
    Fault("proposal's way back without its pull", f"{RULES}:MetropolisRule.settle",
          edited("c - x - self._drift * g", "c - x - 0.8 * self._drift * g"), "mala-is-exact", True),
    Fault("unweighted mini-batch gradient", "numerics.sampling.linear_target:_Errors.batch_gradient",
          edited("(chosen * self._beta)", "(chosen / self._count)"), "mini-batches-are-unbiased"),
    Fault("mini-batch of b - 1", "numerics.sampling.linear_target:_Errors.batch_gradient",
          edited("self._count / batch.shape[1]", "self._count / (batch.shape[1] - 1)"), "mini-batches-are-unbiased"),
    Fault("effective draws by a sixth", "numerics.sampling.diagnostics:diagnose", variables(ess_bulk=0.85),
          "diagnostics-are-honest"),
    Fault("standard error of the mean by a tenth", "numerics.sampling.diagnostics:diagnose", variables(mcse_mean=0.9),
          "diagnostics-are-honest"),
    Fault("R-hat that does not split", "numerics.sampling.diagnostics:diagnose", variables(r_hat=0.98),
          "diagnostics-are-honest"),
    # curvature
    Fault("gradients of the second layer by a per cent", f"{LINEAR}:per_sample_gradients",
          edited("second = residual", "second = 0.99 * residual"), "one-answer-from-both-engines"),
    Fault("residual of the Hessian by a per cent", f"{LINEAR}:_second_derivative",
          edited('torch.einsum("uv,op->upov", unit, error)', '0.99 * torch.einsum("uv,op->upov", unit, error)'),
          "gauss-newton-is-hessian-late"),
    Fault("both matrices seven times", f"{LINEAR}:_second_derivative", scaled(7.0), "gauss-newton-is-hessian-late"),
    Fault("idle eigenvalues by a per cent", f"{LINEAR}:idle_eigenvalues", scaled(1.02), "diagnostics-are-honest"),
    Fault("relative damping without 1/N", "numerics.curvature.classical_influence:hessian_influence", damping_without_n,
          "classical-shows-stages"),
    Fault("beta for sqrt beta", "numerics.curvature.linear_influence:linear_hessian_influence",
          edited("np.sqrt(request.sample_weights)", "np.asarray(request.sample_weights)"),
          "one-answer-from-both-engines"),
    Fault("Gauss-Newton influence by a per cent", "numerics.curvature.classical_influence:gauss_newton_influence",
          variables(influence=1.01), "classical-at-convergence"),
    Fault("half of the kernel between different "
    "inputs", "numerics.curvature.linear_influence:linear_kernel", scaled(0.5),
          "bif-is-the-kernel"),
    Fault("kernel by a per cent", "numerics.curvature.classical_influence:gradient_kernel", scaled(1.01),
          "instantaneous-influence-from-modes"),
    Fault("TracIn by two per cent", "numerics.curvature.tracin:tracin", scaled(1.02), "tracin-adds-up"),
    # training
    Fault("flow half an epoch early", "numerics.training.gradient_flow:gradient_flow", later_flow, "flow-is-descent"),
    Fault("leave-one-out by two parts in a thousand", "numerics.training.retraining:leave_one_out", scaled(1.002),
          "closed-form-loo"),
    Fault("leave-one-out one epoch late", "numerics.training.retraining:leave_one_out", moved(-1), "closed-form-loo"),
    Fault("windows five epochs late", "numerics.training.timed_ablation:timed_ablation", moved(-5), "critical-windows"),
    Fault("window summed one epoch late", "numerics.training.timed_ablation:timed_ablation",
          lambda right: lambda dataset, config, *, window, every: right(dataset, config, window=window + 1,
          every=every),
          "brief-ablation-closed-form"),
    Fault("unrolled derivative by a part in a thousand", "numerics.training.unrolled_influence:unrolled_influence",
          scaled(1.001), "unrolled-is-the-derivative"),
    Fault("exposure one stretch late", "numerics.training.unrolled_influence:unrolled_influence", rolled,
          "exposure-kernel-of-descent"),
    Fault("Bayesian influence 300 epochs late", BIF, lambda right: lambda *a, **k: (f := right(*a, **k)).assign(
        {n: f[n].copy(data=np.roll(f[n].values, 3, axis=0)) for n in ("influence", "covariance")}), "critical-windows"),
    Fault("Bayesian influence 500 epochs early", BIF, lambda right: lambda *a, **k: (f := right(*a, **k)).assign(
        {n: f[n].copy(data=np.roll(f[n].values, -5, axis=0)) for n in ("influence", "covariance")}), "stages-bif"),
    # closed forms
    Fault("tau by two parts in a thousand", "theory.dynamics.saxe:time_constant", scaled(1.002), "flow-is-descent"),
    Fault("half-rise by a twentieth", "theory.dynamics.saxe:half_rise_time", scaled(1.05), "levels-in-order"),
    Fault("initial strength by a tenth", "theory.dynamics.saxe:aligned_modes",
          fields(initial_strengths=lambda m: 1.1 * m.initial_strengths), "mode-strengths"),
    Fault("shared part of the start kept", "theory.dynamics.saxe:aligned_modes", undeflated, "mode-strengths"),
    Fault("rotation of the hidden layer lost", "theory.dynamics.linear_networks:linear_network_factors", turned_layers,
          "layers-and-axes"),
    Fault("matrix solution by a part in a thousand", "theory.dynamics.linear_networks:linear_network_solution",
          scaled(1.001), "matrix-solution"),
    Fault("deep chain by a part in a million", "theory.dynamics.deep_chains:deep_mode_strength", scaled(1 + 1e-6),
          "deep-chains"),
    Fault("exposure kernel by three per cent", "theory.influence.exposure:exposure_kernel", scaled(1.03),
          "when-matters"),
    Fault("group left out by a part in two hundred", "theory.influence.leave_one_out:leave_group_out_trajectory",
          scaled(1.005), "groups-are-not-sums"),
    Fault("closed window by a per cent", "theory.influence.brief_ablation:brief_ablation_trajectory", scaled(1.01),
          "brief-ablation-closed-form"),
    Fault("influence by a part in a million", "theory.influence.trajectory:_assemble", scaled(1 + 1e-6),
          "derivative-of-the-flow"),
    Fault("splits by a part in a "
    "thousand", "theory.influence.svd_response:svd_response", fields(ds=lambda f: 1.001 * f.ds),
          "singular-values-respond"),
    Fault("right vectors by a part in a thousand", "theory.influence.svd_response:svd_response",
          fields(dv=lambda f: 1.001 * f.dv), "printed-rotations"),
    Fault("one reading for the other", "theory.influence.svd_response:paper_svd_response",
          lambda right: lambda c, dc, variant: right(c, dc, "P1"), "printed-rotations"),
    # posteriors
    Fault("step of the law by a tenth", "theory.posteriors.sampler_laws:stationary_law",
          lambda right: lambda precision, step: right(precision, 1.1 * np.asarray(step)), "sgld-law"),
    Fault("Gaussian influence over N - 1", "theory.posteriors.local_posterior:GaussianInfluence.influence",
          lambda right: property(lambda self: 8 / 7 * right.fget(self)), "diagnostics-are-honest"),
    Fault("trace of the second order halved", "theory.posteriors.local_posterior:_loss_covariance_parts",
          lambda right: lambda *a: (lambda p: (p[0], p[1] / 2))(right(*a)), "diagnostics-are-honest"),
    Fault("part between phases by a part in a thousand", "theory.posteriors.mixtures:decompose_covariance",
          fields(between=lambda f: 1.001 * f.between, total=lambda f: f.within + 1.001 * f.between),
          "total-covariance"),
    Fault("extremum by a per cent", "theory.posteriors.two_phases:phase_transition",
          fields(position=lambda f: 1.01 * f.position), "printed-peak"),
    Fault("sign flips by two per cent", "theory.posteriors.two_phases:phase_transition",
          fields(sign_flips=lambda f: 1.03 * f.sign_flips), "sign-flips"),
    Fault("errors of sampled parts halved", "theory.posteriors.phase_moments:sampled_decomposition",
          fields(within_error=lambda f: 0.5 * f.within_error), "total-covariance"),
    Fault("transition by two parts in a thousand", "theory.posteriors.phases:transition_sample_size", scaled(1.002),
          "type-a-transition"),
    Fault("phase weights at n by a part in a hundred", "theory.posteriors.phases:phase_weights",
          lambda right: lambda n, *a, **k: right(1.01 * np.asarray(n), *a, **k), "type-a-transition"),
    Fault("free energy by a part in a million", "theory.posteriors.phases:free_energy", scaled(1 + 1e-6),
          "free-energy-expansion"),
    Fault("second crossing by a per cent", "theory.posteriors.phases:type_b_transition",
          fields(log_n=lambda f: tuple(1.01 * x for x in f.log_n)), "type-b-transition"),
    Fault("learning coefficient by an eighth", "theory.posteriors.learning_coefficient:learning_coefficient",
          lambda right: lambda widths, rank: (right(widths, rank)[0] + Fraction(1, 8), right(widths, rank)[1]),
          "smallest-networks"),
    # comparison and settings
    Fault("slope with an intercept", "validation.agreement:agreement",
          edited("slope=float(x @ y / (x @ x))", "slope=float(np.polyfit(x, y, 1)[0])"), "agreement-is-a-slope"),
    Fault("rate by inputs", "validation.experiments.scaled_settings:settings_for", rate_by_inputs,
          "any-depth-of-tree", True),
    Fault("branches at 45 per cent", "numerics.embedding:branching_epochs",
          lambda right: lambda *a, fraction=0.5, **k: right(*a, fraction=0.9 * fraction, **k), "branches-and-peaks"),
    Fault("axes that flip", "numerics.embedding:representation_embedding", flipped_axes, "layers-and-axes"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh():
    clear_kept_results()
    yield
    clear_kept_results()


def test_the_faults_are_many_and_different():
    assert len(FAULTS) >= 60
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_can_be_planted(fault, monkeypatch):
    """The code that a fault changes stands where it is said to: slow tests alone would be late to tell."""
    planted(monkeypatch, fault)
    select_claims([fault.claim])


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_subtle_fault_turns_a_verdict(fault, monkeypatch):
    (claim,) = (c for c in select_claims([fault.claim]) if c.identifier == fault.claim)
    planted(monkeypatch, fault)
    result = run_claim(claim, ToyExperiment())
    # caught by a number that leaves its bound, not by an error in the plant itself
    assert not result.problem, result.problem
    assert result.verdict != claim.expected, [(c.quantity, c.measured, c.low, c.high) for c in result.checks]
