"""Claims about influence when the posterior is a mixture of phases (paper 2.3)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from theory import (
    TemperedPosterior,
    decompose_covariance,
    phase_transition,
    quadratic_loss_moments,
    sampled_decomposition,
)
from theory.symbolic import derivation
from validation.charts import Plot, Series, curves
from validation.expectations import fit
from validation.experiments.toy import ToyExperiment
from validation.experiments.two_wells import GAP, mixed_losses, two_phases
from validation.registry import REFUTES, ROUNDING, Check, Reading, claim, numerics, theory

__all__: list[str] = []


def _draws(n_beta: float, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw losses and phases from the posterior by inverting its cumulative distribution on a fine grid."""
    grid = np.linspace(-3.0, 3.0, 600_002)
    grid = grid[np.abs(grid) >= GAP]
    log_density = -n_beta * mixed_losses(grid[:, None]).mean(axis=1)
    mass = np.cumsum(np.exp(log_density - log_density.max()))
    points = np.interp(random.random(count) * mass[-1], mass, grid)
    return mixed_losses(points[:, None]), (points > 0).astype(int)


def _whole_covariance(n_beta: float) -> np.ndarray:
    """Return the covariance of losses under the posterior by one sum over a grid, without its phases."""
    grid = np.linspace(-3.0, 3.0, 600_001)
    grid = grid[np.abs(grid) >= GAP]
    losses = mixed_losses(grid[:, None])
    density = np.exp(-n_beta * (losses.mean(axis=1) - losses.mean(axis=1).min()))
    density /= density.sum()
    centred = losses - density @ losses
    return np.asarray((density[:, None] * centred).T @ centred)


def _at_transition(exact: TemperedPosterior) -> int:
    return int(np.argmin(np.abs(exact.phase_weights[:, 0] - 0.5)))


@claim(
    "total-covariance",
    "The covariance of two losses is the average within the phases plus pi_U pi_V (mu_iU - mu_iV)(mu_jU - mu_jV) "
    "between "
    "them.",
    source="paper 2.3 (law of total covariance)",
    compares=(
        theory("moments of each phase by quadrature, decomposed; computer algebra"),
        theory("total covariance by quadrature"),
        numerics("200,000 independent draws, decomposed"),
    ),
    metric="relative difference; z-scores of the sampled parts",
)
def total_covariance(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Decompose the exact posterior at its transition, and draws from it."""
    yield Check(
        "computer algebra: remainder vanishes", float(derivation("total-covariance").vanishes), low=1.0, why="identity"
    )
    exact = two_phases()
    k = _at_transition(exact)
    parts = decompose_covariance(exact.phase_weights[k], exact.phase_means[k], exact.phase_covariances[k])
    direct = _whole_covariance(float(exact.n_beta[k]))
    yield Check(
        "within + between against the covariance of one sum over a grid that knows no phases",
        float(np.abs(parts.total - direct).max() / np.abs(direct).max()),
        high=1e-5,
        why="the grid's spacing 1e-5, of first order at the ends of the gap; quadrature 1e-8",
        roomy="the ends of the gap carry little mass",
    )
    losses, phases = _draws(float(exact.n_beta[k]), 200_000, experiment.random("draws of a mixture"))
    sampled = sampled_decomposition(losses, phases)
    rows, columns = np.triu_indices(6)
    for name in ("within", "between", "total"):
        z = (getattr(sampled, name) - getattr(parts, name)) / getattr(sampled, f"{name}_error")
        yield Check(
            f"sampled {name}: largest |z| of 21 entries",
            float(np.abs(z[rows, columns]).max()),
            high=4.5,
            why="a few independent numbers; a chance of 1e-5 each",
        )
    weights = exact.phase_weights[:, 0]
    pair = [
        decompose_covariance(w, m, c)
        for w, m, c in zip(exact.phase_weights, exact.phase_means, exact.phase_covariances, strict=True)
    ]
    yield Plot(
        "Covariance of samples 0 and 1",
        "posterior weight of phase U",
        "covariance",
        curves(
            weights,
            total=[p.total[0, 1] for p in pair],
            within=[p.within[0, 1] for p in pair],
            between=[p.between[0, 1] for p in pair],
        ),
        zero=True,
    )


@claim(
    "between-peaks-at-half",
    "The part between the phases is largest where the posterior mass is evenly split.",
    source="paper 2.3 (influence peaks at transitions)",
    compares=(theory("pi (1 - pi) d_i d_j"), theory("exact posterior across the transition by quadrature")),
    metric="posterior weight at the maximum over n_beta, for every pair of samples",
)
def between_peaks_at_half(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Find the maximum of the part between the phases over the sample size."""
    exact = two_phases()
    weights = exact.phase_weights
    apart = exact.phase_means[:, 0] - exact.phase_means[:, 1]
    between = (weights[:, 0] * weights[:, 1])[:, None, None] * apart[:, :, None] * apart[:, None, :]
    rows, columns = np.triu_indices(6)
    clear = np.abs(apart[_at_transition(exact)]) > 0.1
    chosen = [(i, j) for i, j in zip(rows, columns, strict=True) if clear[i] and clear[j]]
    at = np.array([weights[np.abs(between[:, i, j]).argmax(), 0] for i, j in chosen])
    logit = np.log(weights[:, 0] / weights[:, 1])
    k = _at_transition(exact)
    drift = np.gradient(np.log(np.abs(apart)), logit, axis=0)[k]
    shifts = np.array([(drift[i] + drift[j]) / 4 for i, j in chosen])
    spacing = float(np.abs(np.diff(weights[:, 0])).max())
    yield Check(
        "largest |pi_U - 1/2| at the maximum",
        float(np.abs(at - 0.5).max()),
        high=float(np.abs(shifts).max() * 1.5 + spacing),
        why="pi (1 - pi) peaks at 1/2; while n grows d drifts too, which moves the peak by a quarter of its "
        "logarithmic "
        f"derivative in the log-odds, {np.abs(shifts).max():.3f} at most and half of that again; grid {spacing:.3f}",
    )
    yield Plot(
        "Part between the phases",
        "posterior weight of phase U",
        "share of its largest",
        tuple(
            Series(f"samples {i}, {j}", weights[:, 0], between[:, i, j] / np.abs(between[:, i, j]).max())
            for i, j in chosen[:4]
        ),
        marks=((0.5, "1/2"),),
        zero=True,
    )


_EQUAL, _UNEQUAL = "phases with equal covariances within", "phases with covariances of their own"


@claim(
    "printed-peak",
    "The total influence peaks where the posterior mass is evenly split.",
    source="paper 2.3 (a sharp peak in total influence at pi_U = 1/2)",
    compares=(
        theory("stationary point of the mixture; computer algebra"),
        theory("exact posterior across the transition by quadrature"),
    ),
    metric="posterior weight at the extremum of the total covariance",
    corrected="it is stationary at pi_U = 1/2 + (Cov_U - Cov_V) / (2 d_i d_j): at 1/2 only where the covariances "
    "within the phases agree, and there is no peak at all where |Cov_U - Cov_V| > |d_i d_j|",
    readings=(Reading(_EQUAL, right=True), Reading(_UNEQUAL)),
)
def printed_peak(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the stationary point with 1/2 at fixed phases, and find it in the exact posterior."""
    for name, expected in (("printed-mixture-extremum", 0.0), ("mixture-extremum", 1.0)):
        yield Check(
            f"computer algebra: {'printed' if not expected else 'corrected'} extremum, remainder vanishes",
            float(derivation(name).vanishes),
            low=expected,
            high=expected,
            why="1 where the remainder vanishes",
        )
    exact = two_phases()
    k = _at_transition(exact)
    means, covariances = exact.phase_means[k], exact.phase_covariances[k]
    found = phase_transition(means[0], means[1], covariances[0], covariances[1])
    p = np.linspace(0.001, 0.999, 999)[:, None, None]
    apart = np.outer(means[0] - means[1], means[0] - means[1])
    total = p * covariances[0] + (1 - p) * covariances[1] + p * (1 - p) * apart
    inside = found.inside & (np.abs(found.position - 0.5) < 0.49)
    scanned = p[np.abs(np.gradient(total, axis=0)).argmin(axis=0)][..., 0, 0]
    yield Check(
        "largest difference of the corrected position from a scan, phases fixed",
        float(np.abs(scanned - found.position)[inside].max()),
        high=1.5e-3,
        why="the scan's spacing",
    )
    yield Check(
        "largest distance of a position from 1/2",
        float(np.abs(found.position - 0.5)[inside].max()),
        low=0.05,
        why="far above the scan's spacing",
        reading=_UNEQUAL,
        roomy=REFUTES,
    )
    yield Check(
        "pairs without any stationary point between the phases",
        float((~found.inside).sum()),
        low=1.0,
        why="covariances within the phases differ by more than d_i d_j",
        reading=_UNEQUAL,
        roomy=REFUTES,
    )
    same = phase_transition(means[0], means[1], covariances[0], covariances[0])
    yield Check(
        "largest distance from 1/2 where both phases have the covariance of U",
        float(np.abs(same.position - 0.5).max()),
        high=1e-12,
        why="(Cov_U - Cov_V) / (2 d_i d_j) = 0; rounding",
        reading=_EQUAL,
        roomy=ROUNDING,
    )
    equal = covariances[0] + p * (1 - p) * apart
    peaks = np.abs(equal - covariances[0]).argmax(axis=0)
    yield Check(
        "the same by a scan of the total covariance",
        float(np.abs(p[peaks][..., 0, 0] - 0.5).max()),
        high=1e-3,
        why="the scan's spacing",
        reading=_EQUAL,
        roomy="1/2 is a point of the scan",
    )
    weights = exact.phase_weights[:, 0]
    i, j = np.unravel_index(np.where(inside, np.abs(found.position - 0.5), 0).argmax(), inside.shape)
    yield Plot(
        f"Total covariance of samples {i} and {j}",
        "posterior weight of phase U",
        "covariance",
        (
            *curves(p[:, 0, 0], phases_as_at_the_transition=total[:, i, j]),
            *curves(weights, "dashes", exact_posterior=exact.covariance[:, i, j]),
        ),
        marks=((0.5, "1/2"), (float(found.position[i, j]), "corrected")),
    )


@claim(
    "sign-flips",
    "A transition can change the sign of influence: where the phases' own covariances have opposite signs, or where "
    "the "
    "part between them opposes both and exceeds (|Cov_U|^(1/2) + |Cov_V|^(1/2))^2.",
    source="paper 2.3 (influence can change sign), conditions ours",
    compares=(theory("roots of the mixture's quadratic"), numerics("Gaussian mixture of weights, sampled")),
    metric="posterior weights at which the sign changes",
)
def sign_flips(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Predict the flips of two quadratic losses under a mixture of two Gaussians, and sample on both sides of each."""
    component_means = np.array([[0.0, 0.0], [1.0, -0.6]])
    component_covariances = np.array([np.diag([0.05, 0.05]), np.diag([0.08, 0.02])])
    hessians = np.array([np.diag([1.0, 1.0]), np.diag([0.6, 1.4]), np.diag([1.2, 0.4])])
    gradients = np.array([[-0.7, -0.4], [0.0, 0.8], [-1.1, 0.1]])
    means, covariances = quadratic_loss_moments(
        component_means, component_covariances, hessians, gradients, np.zeros(3)
    )
    found = phase_transition(means[0], means[1], covariances[0], covariances[1])
    random = experiment.random("draws of a Gaussian mixture")
    count = 400_000
    unit = random.standard_normal((2, count, 2))
    points = component_means[:, None] + unit * np.sqrt(np.diagonal(component_covariances, axis1=1, axis2=2))[:, None]
    losses = np.einsum("kna,iab,knb->kni", points, hessians, points) / 2 + points @ gradients.T
    grid = np.linspace(0, 1, 200)
    lines, marks = {}, []
    for j, expected, name in ((1, 1, "opposite ends"), (2, 2, "part between opposes")):
        flips = found.sign_flips[0, j]
        flips = flips[np.isfinite(flips)]
        marks += [(float(flip), "") for flip in flips]
        lines[name] = [decompose_covariance([w, 1 - w], means, covariances).total[0, j] for w in grid]
        yield Check(
            f"{name}: sign changes", float(len(flips)), low=expected, high=expected, why="by the two conditions"
        )
        for flip in flips:
            sides = []
            for weight in (flip - 0.08, flip + 0.08):
                mixed = np.where(random.random(count)[:, None] < weight, losses[0], losses[1])
                centred = mixed - mixed.mean(axis=0)
                product = centred[:, 0] * centred[:, j]
                sides.append((float(product.mean()), float(product.std() / np.sqrt(count))))
            (below, below_error), (above, above_error) = sides
            yield Check(
                f"{name}: sampled covariance above the flip at pi_U = {flip:.3f} over that below",
                above / below,
                high=0.0,
                why="of opposite sign, 0.08 away from the flip on either side",
                roomy="a sign is claimed; the place of the flip is held below",
                error=float(np.hypot(above_error, above / below * below_error) / abs(below)),
            )
    mixed = np.concatenate([losses[0], losses[1]])
    own = [np.cov(part[:, [0, 1, 2]].T) for part in losses]
    gap = losses[0].mean(axis=0) - losses[1].mean(axis=0)
    for j in (1, 2):
        roots = np.roots([-gap[0] * gap[j], own[0][0, j] - own[1][0, j] + gap[0] * gap[j], own[1][0, j]])
        inside = np.sort(roots[(np.abs(roots.imag) < 1e-12) & (roots.real > 0) & (roots.real < 1)].real)
        flips = found.sign_flips[0, j]
        flips = np.sort(flips[np.isfinite(flips)])
        yield Check(
            f"losses 0 and {j}: largest distance of the flips from the roots of sampled moments",
            float(np.abs(inside - flips).max()) if len(inside) == len(flips) else 1.0,
            high=0.01,
            why=f"{len(mixed)} draws know covariances to a few parts in a thousand of their spreads; a flip moves by "
            "that over "
            "the slope of the total there",
            roomy="the worst of a flip where the total is flattest",
        )
    yield Plot(
        "Covariance of two losses",
        "posterior weight of phase U",
        "covariance",
        curves(grid, **lines),
        marks=tuple(marks),
        zero=True,
    )


@claim(
    "spikes-name-samples",
    "The spike of influence at a transition is largest for the samples on which the phases disagree most.",
    source="paper 2.3 (magnitude of the between-phase term)",
    compares=(
        theory("d_i d_j / 4"),
        theory("exact posterior across the transition by quadrature"),
        numerics("200,000 independent draws"),
    ),
    metric="covariance at the transition less that within the phases, against d_i d_j",
)
def spikes_name_samples(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare each pair's spike with the phases' disagreement on its two samples."""
    exact = two_phases()
    k = _at_transition(exact)
    weights, apart = exact.phase_weights[k], exact.phase_means[k, 0] - exact.phase_means[k, 1]
    within = np.einsum("k,kij->ij", weights, exact.phase_covariances[k])
    spike = _whole_covariance(float(exact.n_beta[k])) - within
    rows, columns = np.triu_indices(6)
    x, y = np.outer(apart, apart)[rows, columns], spike[rows, columns]
    yield Check(
        "slope of the spike on d_i d_j / (pi_U pi_V)",
        float(x @ y / (x @ x) / (weights[0] * weights[1])),
        low=1 - 1e-5,
        high=1 + 1e-5,
        why="proportional by the law of total covariance; the covariance is one sum over a grid that knows no phases, "
        "of "
        "spacing 1e-5",
        roomy="the ends of the gap carry little mass",
    )
    own = np.diag(spike)
    yield Check(
        "rank of the most disputed sample by its own spike",
        float(np.argsort(-own).tolist().index(int(np.abs(apart).argmax()))),
        high=0.0,
        why="0 is first",
    )
    losses, phases = _draws(float(exact.n_beta[k]), 200_000, experiment.random("draws of spikes"))
    sampled = sampled_decomposition(losses, phases)
    top = int(np.diag(sampled.between).argmax())
    own_error = np.diag(sampled.between_error)
    fitted = fit(apart**2 * float(np.prod(weights)), np.diag(sampled.between), own_error)
    yield Check(
        "sampled: slope of each sample's own spike on pi_U pi_V d^2",
        fitted.value,
        low=0.99,
        high=1.01,
        why="1; all six share the draws of the phase, so that their errors do not average",
        error=float(own_error.max() / np.diag(sampled.between).max()),
    )
    yield Check(
        "sampled: disagreement on the sample with the largest spike, over the largest",
        float(np.abs(apart[top]) / np.abs(apart).max()),
        low=1.0,
        why="the same sample",
    )
    noisy = np.diag(exact.covariance[k])
    yield Check(
        "total variance of the least disputed sample over that of the most disputed",
        float(noisy[np.abs(apart).argmin()] / noisy[np.abs(apart).argmax()]),
        high=0.5,
        why="the spike dominates the total here, so that the total names the sample too",
        roomy=REFUTES,
    )
    yield Plot(
        "Spike of each pair at the transition",
        "d_i d_j",
        "total less within",
        (
            Series("exact", x, y, style="points"),
            Series("sampled", x, sampled.between[rows, columns], 2 * sampled.between_error[rows, columns], "points"),
        ),
    )
