"""Claims about free energies, learning coefficients and the competition of phases (paper 2.1, A.1, A.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from scipy import special

from theory import (
    TemperedPosterior,
    free_energy,
    monomial_learning_coefficient,
    phase_weights,
    power_moments,
    product_moments,
    tempered_posterior,
    transition_sample_size,
    type_b_transition,
)
from theory.symbolic import derivation
from validation.charts import Plot, Series, curves
from validation.experiments.toy import ToyExperiment
from validation.experiments.two_wells import free_energy_constant, two_wells
from validation.registry import QUADRATURE, REFUTES, ROUNDING, Check, Cost, claim, numerics, theory

__all__: list[str] = []

_SIMPLE, _COMPLEX = 0.25, 0.5  # learning coefficients of a quartic and a quadratic well of one weight
_EXCESS = 0.005  # loss of the simple phase above that of the complex one


def _sizes(exact: TemperedPosterior) -> np.ndarray:
    return exact.n_beta / 2


def _log_odds(exact: TemperedPosterior) -> np.ndarray:
    """Return log p(U) / p(V)."""
    return exact.phase_log_evidences[:, 0] - exact.phase_log_evidences[:, 1]


@claim(
    "free-energy-expansion",
    "The free energy grows as n L + lambda log n - (m - 1) log log n: of w1^2 w2^2 on the unit square with lambda = "
    "1/2, "
    "m = 2.",
    source="paper Eqs. 6, 10",
    compares=(
        theory("expansion with Aoyagi-Watanabe exponents; computer algebra"),
        theory("exact evidence, closed form"),
        numerics("adaptive quadrature of the evidence"),
    ),
    metric="difference of free energies less its constant",
)
def free_energy_expansion(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the exact free energy of a singular model with its expansion and with quadrature."""
    n = np.array([10.0, 1e2, 1e3, 1e4, 1e6, 1e8])
    log_z = product_moments(n)[0]
    found = tempered_posterior(
        lambda w: (w[:, :1] * w[:, 1:]) ** 2, [[[0.0, 1.0], [0.0, 1.0]]], n[:4], points=[[0.0, 0.0]], rtol=1e-7
    )
    yield Check(
        "closed form against quadrature, n = 10 to 1e4",
        float(np.abs(found.free_energy + log_z[:4]).max()),
        high=1e-7,
        why="the quadrature's tolerance",
        roomy=QUADRATURE,
    )
    coefficient, multiplicity = monomial_learning_coefficient([1, 1], [0, 0])
    expansion = free_energy(n, 0.0, float(coefficient), multiplicities=multiplicity)
    constant = -float(np.log(np.sqrt(np.pi) / 4))
    correction = np.log1p((np.euler_gamma + 2 * np.log(2)) / np.log(n))
    left = -log_z - expansion - constant
    yield Check(
        "largest difference from the expansion with its log(1 + 1.96 / log n), n >= 100",
        float(np.abs(left + correction)[1:].max()),
        high=1e-12,
        why="what is left out is exponentially small in n; rounding",
        roomy=ROUNDING,
    )
    yield Check(
        "computer algebra: remainder vanishes",
        float(derivation("singular-monomial").vanishes),
        low=1.0,
        why="an identity",
    )
    slope = np.diff(-log_z) / np.diff(np.log(n))
    yield Check(
        "growth of F with log n between 1e6 and 1e8",
        float(slope[-1]),
        low=0.5 - 1 / np.log(1e6) - 0.01,
        high=0.5,
        why="lambda less (m - 1) / (log n + c)",
    )
    yield Plot(
        "Free energy of w1^2 w2^2",
        "n",
        "F",
        (
            *curves(n, "points", exact=-log_z),
            *curves(n, "dashes", expansion=expansion + constant),
            *curves(n, regular_model=np.log(n)),
        ),
        log="x",
    )


@claim(
    "half-the-parameters",
    "The learning coefficient is half the number of parameters in a regular model, half the effective number in a "
    "minimally "
    "singular one, and the mean excess loss times n.",
    source="paper A.1 (coincides with half the effective parameter count)",
    compares=(theory("lambda = min (h + 1) / 2k"), theory("moments of monomials"), numerics("adaptive quadrature")),
    metric="n E[K] against lambda",
)
def half_the_parameters(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Integrate three losses of two weights."""
    n = 1e4
    rows = []
    for name, powers, loss in (
        ("regular, w1^2 + w2^2", (1, 1), lambda w: w[:, :1] ** 2 + w[:, 1:] ** 2),
        ("minimally singular, w1^2", (1, 0), lambda w: w[:, :1] ** 2),
        ("singular, w1^4", (2, 0), lambda w: w[:, :1] ** 4),
    ):
        exact = tempered_posterior(loss, [[[-1.0, 1.0], [-1.0, 1.0]]], n, points=[[0.0, 0.0]], rtol=1e-9)
        expected = sum(1 / (2 * k) for k in powers if k)
        found = float(n * exact.mean[0])
        rows.append((name, expected, found))
        yield Check(
            f"{name}: n E[K] - {expected:g}",
            found - expected,
            low=-1e-9,
            high=1e-9,
            why="exact up to exp(-n) at the ends of the interval; quadrature 1e-9",
            roomy=QUADRATURE,
        )
    moments = float(power_moments(n, 2)[1])
    yield Check("closed-form moment of w^4", moments, low=0.25, high=0.25 + 1e-12, why="1 / (2k) at every n")
    yield Check(
        "lambda of w1^2 w2^0 by the monomial formula",
        float(monomial_learning_coefficient([1, 0], [0, 0])[0]),
        low=0.5,
        high=0.5,
        why="one effective weight",
    )
    yield Plot(
        "n times the mean loss",
        "model",
        "n E[K]",
        (
            Series(
                "quadrature", np.array([r[0].split(",")[0] for r in rows]), np.array([r[2] for r in rows]), style="bars"
            ),
            Series(
                "lambda", np.array([r[0].split(",")[0] for r in rows]), np.array([r[1] for r in rows]), style="points"
            ),
        ),
    )


@claim(
    "coarse-graining",
    "The free energy is -log sum exp(-F_k) over phases, nearly that of the lowest phase; the others are suppressed "
    "exponentially.",
    source="paper Eqs. 9, 11-14",
    compares=(
        theory("phases integrated one by one"),
        theory("log-sum-exp and its bound"),
        numerics("one integral over all"),
    ),
    metric="difference of free energies",
)
def coarse_graining(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the whole with its phases across a transition."""
    exact = two_wells(_EXCESS)
    n = _sizes(exact)
    local = -exact.phase_log_evidences
    chosen = np.array([0, 48, 72, 119])

    def loss(points: np.ndarray) -> np.ndarray:
        return np.where(points < 0, _EXCESS + (points + 1) ** 4, (points - 1) ** 2)

    grid = np.linspace(-3, 3, 600_001)
    values, width = loss(grid), grid[1] - grid[0]
    inside = np.abs(grid) >= 1e-3 - width / 4
    whole, each = np.empty(len(n)), np.empty((len(n), 2))
    for k, size in enumerate(n):
        density = np.exp(-size * values) * width
        whole[k] = -np.log(density[inside].sum())
        each[k] = [-np.log(density[inside & side].sum()) for side in (grid < 0, grid > 0)]
    # rectangles count half a cell too much at either end of a box, where the density is e^(-n / 1) of its largest
    ends = width * np.exp(-n[0] * (loss(np.array([1e-3, -1e-3])).min())) * np.sqrt(n[0])
    yield Check(
        "free energy against one sum over a grid that knows no phases",
        float(np.abs(exact.free_energy - whole)[chosen].max()),
        high=float(2 * ends),
        why="rectangles of the grid's width count half a cell too much at the ends of the boxes",
        roomy="the ends of the boxes are e^-10 of the peak at the smallest n already",
    )
    yield Check(
        "free energies of the phases against the same sums over either side",
        float(np.abs(local - each).max()),
        high=float(2 * ends),
        why="the same rectangles",
        roomy="the ends of the boxes are e^-10 of the peak at the smallest n already",
    )
    gap = each.min(axis=1) - whole
    apart = np.abs(np.diff(each, axis=1)[:, 0])
    yield Check("largest min F_k - F", float(gap.max()), high=float(np.log(2)), why="at most log K, for K equal phases")
    predicted = np.log1p(np.exp(-np.abs(np.diff(local, axis=1)[:, 0])))
    yield Check(
        "largest |min F_k - F - log(1 + exp(-|F_U - F_V|))|, sums over the grid against the phases' closed evidences",
        float(np.abs(gap - predicted).max()),
        high=float(2 * ends),
        why="log-sum-exp of two phases; rectangles of the grid",
        roomy="the ends of the boxes are e^-10 of the peak at the smallest n already",
    )
    rate = np.polyfit(apart[(apart > 3) & (apart < 20)], np.log(gap[(apart > 3) & (apart < 20)]), 1)[0]
    yield Check(
        "exponent with which the other phase is suppressed",
        float(rate),
        low=-1.003,
        high=-0.997,
        why="-1: min F_k - F is e^-|F_U - F_V| less half its square, e^-3 of it at the nearest",
    )
    yield Plot(
        "Free energies",
        "n",
        "F less that of phase V",
        curves(
            n[n < 3000],
            U=(local[:, 0] - local[:, 1])[n < 3000],
            V=0 * n[n < 3000],
            both=(exact.free_energy - local[:, 1])[n < 3000],
        ),
        log="x",
    )


@claim(
    "type-a-transition",
    "A simple phase U of higher loss gives way to a complex phase V when log(n) / n falls below -dL / dlambda, up "
    "to terms of "
    "order one in the free energy.",
    source="paper A.2 (first-order transitions, Type A)",
    compares=(
        theory("Lambert's W_-1 with the order-one term; computer algebra"),
        theory("phase weights of the expansion"),
        numerics("exact posterior by quadrature"),
    ),
    metric="sample size at which both phases weigh the same; log-odds",
)
def type_a_transition(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Find the crossing in the exact posterior and in the expansion, for several excess losses."""
    shift = free_energy_constant(2, 1.0) - free_energy_constant(4, 1.0)
    found, predicted, printed = [], [], []
    excesses = (0.02, 0.01, 0.005, 0.002)
    for excess in excesses:
        exact = two_wells(excess)
        log_odds = _log_odds(exact)
        found.append(float(np.exp(np.interp(0.0, -log_odds, np.log(_sizes(exact))))))
        predicted.append(float(transition_sample_size(-excess, _COMPLEX - _SIMPLE, shift)))
        printed.append(float(transition_sample_size(-excess, _COMPLEX - _SIMPLE)))
    for excess, a, b in zip(excesses, found, predicted, strict=True):
        yield Check(
            f"dL = -{excess:g}: crossing of the exact posterior / predicted with the order-one term",
            a / b,
            low=1 - 1.5e-3,
            high=1 + 1.5e-3,
            why="wells are pure powers, so the expansion is exact up to their edges, e^-n; a straight line on a grid "
            "of 0.08 in "
            "log n is off by an eighth of its square times the curvature n dL, over the slope, 1e-3",
        )
    yield Check(
        "computer algebra: remainder of the root vanishes",
        float(derivation("transition-sample-size").vanishes),
        low=1.0,
        why="an identity",
    )
    ratios = np.array(found) / printed
    yield Check(
        "exact crossing / the paper's condition without the order-one term, at dL = -0.002",
        float(ratios[-1]),
        low=1.0,
        high=float(1 + 4 * shift / (_COMPLEX - _SIMPLE) / np.log(printed[-1])),
        why="a constant dC moves the condition to log n + dC / dlambda = n c, a relative dC / (dlambda log n) that "
        "vanishes "
        "slowly",
    )
    yield Check(
        "the same less 1, at dL = -0.002 over at -0.02",
        float((ratios[-1] - 1) / (ratios[0] - 1)),
        high=1.0,
        why="it vanishes as n grows",
    )
    exact = two_wells(_EXCESS)
    n = _sizes(exact)
    weights = phase_weights(
        n, [_EXCESS, 0.0], [_SIMPLE, _COMPLEX], constants=[free_energy_constant(4, 1.0), free_energy_constant(2, 1.0)]
    )
    yield Check(
        "largest difference of phase weights, exact and expansion",
        float(np.abs(weights - exact.phase_weights).max()),
        high=float(np.exp(-n[0])),
        why="the wells' edges at the smallest n, e^-n of either integral",
        roomy="an edge cuts a power well far from where its integral is",
    )
    spurious = float(np.exp(-np.real(special.lambertw(-_EXCESS / (_COMPLEX - _SIMPLE), 0))))
    yield Check(
        "the equation's other root, n",
        spurious,
        low=1.0,
        high=math.e,
        why="it lies in (1, e), where the expansion means nothing; the posterior has a single crossing",
    )
    crossings = float(np.sum(np.diff(np.sign(_log_odds(exact))) != 0))
    yield Check("crossings of the exact posterior above n = 10", crossings, low=1.0, high=1.0, why="one transition")
    yield Plot(
        "Posterior weight of the simple phase",
        "n",
        "p(U)",
        (
            *curves(n, exact=exact.phase_weights[:, 0]),
            *curves(n, "dashes", expansion=weights[:, 0]),
        ),
        log="x",
        marks=((float(transition_sample_size(-_EXCESS, 0.25, shift)), "predicted"),),
    )


@claim(
    "type-b-transition",
    "Between phases of equal loss the one with the smaller learning coefficient wins in the end, at the price of "
    "lower-order terms that decide when.",
    source="paper A.2 (Type B)",
    compares=(theory("crossing of the lower-order terms"), numerics("exact posterior by quadrature")),
    metric="sample size at which both phases weigh the same",
)
def type_b(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Let a broad quadratic well start ahead of a quartic one of the same loss."""
    broad = 3e-3

    @cache
    def exact_posterior() -> TemperedPosterior:
        def losses(points: np.ndarray) -> np.ndarray:
            w = points[:, 0]
            return np.where(w < 0, 30.0 * (w + 2) ** 4, broad * (w - 4) ** 2)[:, None]

        return tempered_posterior(
            losses, [[[-5.0, -1e-3]], [[1e-3, 8.0]]], np.geomspace(1e3, 1e9, 200), points=[[-2.0], [4.0]]
        )

    exact = exact_posterior()
    crossing = type_b_transition(
        _COMPLEX - _SIMPLE, delta_constant=free_energy_constant(2, broad) - free_energy_constant(4, 30.0)
    )
    log_odds = _log_odds(exact)
    place = crossing.log_n[-1] if crossing.log_n else np.nan
    found = float(np.interp(0.0, log_odds, np.log(exact.n_beta)))
    yield Check("winner in the end is the quartic well", float(crossing.winner == "U"), low=1.0, why="smaller lambda")
    yield Check(
        "log n at the crossing of the exact posterior - predicted",
        found - place,
        low=-1e-7,
        high=1e-7,
        why="wells are pure powers and log-odds straight in log n, so that interpolation is exact; quadrature 1e-8 "
        "over the "
        "slope",
        roomy=QUADRATURE,
    )
    expected = special.expit((np.log(exact.n_beta) - place) * (_COMPLEX - _SIMPLE))
    yield Check(
        "largest difference of the quartic well's weight from 1 / (1 + (n* / n)^(1/4))",
        float(np.abs(exact.phase_weights[:, 0] - expected).max()),
        high=1e-8,
        why="pure powers: log-odds are straight in log n with slope dlambda, up to the wells' edges e^-48 and "
        "quadrature 1e-8",
        roomy=QUADRATURE,
    )
    yield Plot(
        "Equal losses",
        "n",
        "weight of the quartic well",
        curves(exact.n_beta, exact=exact.phase_weights[:, 0]),
        log="x",
        marks=((float(np.exp(place)), "predicted"),),
    )


def _direct_variance(excess: float, n: float) -> float:
    """Return the variance of the loss (w - 1)^2 / 4 of a test sample, by one sum over a grid that knows no phases."""
    grid = np.linspace(-3, 3, 600_001)
    grid = grid[np.abs(grid) >= 1e-3]
    density = np.exp(-n * np.where(grid < 0, excess + (grid + 1) ** 4, (grid - 1) ** 2))
    density /= density.sum()
    tested = (grid - 1) ** 2 / 4  # 1 at the simple phase, 0 at the complex one
    return float(density @ tested**2 - (density @ tested) ** 2)


def _predicted_variance(weight: float, n: float) -> float:
    """Return the variance of the same loss from moments of powers: weight of U, u = w + 1 there, v = w - 1 in V."""
    square, fourth = special.gamma(0.75) / special.gamma(0.25) / np.sqrt(n), 1 / (4 * n)  # <u^2>, <u^4>
    apart = 1 + square / 4 - 1 / (8 * n)  # (u - 2)^2 / 4 less v^2 / 4
    within = weight * (square + (fourth - square**2) / 16) + (1 - weight) / (32 * n**2)
    return float(weight * (1 - weight) * apart**2 + within)


@claim(
    "transitions-change-generalisation",
    "A transition changes how the model generalises: the expected loss of a sample it was not trained on moves from "
    "the one "
    "phase's to the other's within the transition.",
    source="paper 2.1",
    compares=(
        theory("weights of the phases by the expansion, moments of powers"),
        numerics("expected test loss by one sum over a grid that knows no phases"),
    ),
    cost=Cost.FULL,
    metric="expected test loss across the transition",
)
def transitions_change_generalisation(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Follow the expected loss of a test sample that the two phases predict differently."""
    exact = two_wells(_EXCESS)
    n = _sizes(exact)
    constants = [free_energy_constant(4, 1.0), free_energy_constant(2, 1.0)]
    weight = phase_weights(n, [_EXCESS, 0.0], [_SIMPLE, _COMPLEX], constants=constants)[:, 0]
    square = special.gamma(0.75) / special.gamma(0.25) / np.sqrt(n)
    predicted = weight * (1 + square / 4) + (1 - weight) / (8 * n)
    grid = np.linspace(-3, 3, 600_001)
    grid = grid[np.abs(grid) >= 1e-3]
    tested = (grid - 1) ** 2 / 4
    found = np.empty(len(n))
    for k, size in enumerate(n):
        density = np.exp(-size * np.where(grid < 0, _EXCESS + (grid + 1) ** 4, (grid - 1) ** 2))
        found[k] = density @ tested / density.sum()
    yield Check(
        "largest difference of the expected test loss from the mixture of two phases",
        float(np.abs(found - predicted).max()),
        high=1e-3,
        why="edges of the wells at the smallest n, e^-10 and the gap between the boxes, 1e-3 of their width",
        roomy="the edges carry little mass",
    )
    place = transition_sample_size(-_EXCESS, _COMPLEX - _SIMPLE, constants[1] - constants[0])
    before, after = (float(np.interp(np.log(place * f), np.log(n), found)) for f in (0.25, 4.0))
    yield Check(
        "expected test loss at a quarter of the transition's n over that at four times it",
        before / after,
        low=5.0,
        why="1 for U and next to nothing for V: most of the change lies in a factor of sixteen of n",
        roomy=REFUTES,
    )
    yield Plot(
        "Expected loss of a test sample",
        "n",
        "loss",
        (*curves(n, sum_over_a_grid=found), *curves(n, "dashes", two_phases=predicted)),
        log="x",
        marks=((float(place), "transition"),),
    )


@claim(
    "susceptibility-at-transition",
    "At a transition the influence of a sample on which the phases disagree grows with n, while within the phases "
    "it falls "
    "as 1 / n: a susceptibility that diverges in the limit.",
    source="paper 2.3 (susceptibilities diverge at phase transitions)",
    compares=(theory("n pi_U pi_V d^2 with d = dL + dlambda / n"), numerics("exact posterior by quadrature")),
    metric="n Var(L) at the transition, against n and against lambda / n of the phases",
)
def susceptibility_at_transition(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Follow the height of the peak as the transition moves to larger n."""
    excesses = (0.05, 0.02, 0.01, 0.005, 0.002)
    heights, predictions, places, within, lines = [], [], [], [], []
    for excess in excesses:
        exact = two_wells(excess)
        n = _sizes(exact)
        k = int(np.argmin(np.abs(_log_odds(exact))))
        weights, means = exact.phase_weights[k], exact.phase_means[k]
        heights.append(float(n[k] * _direct_variance(excess, float(n[k]))))
        predictions.append(float(n[k] * _predicted_variance(float(weights[0]), float(n[k]))))
        within.append(float(n[k] * weights @ exact.phase_covariances[k, :, 0, 0]))
        places.append(float(n[k]))
        loss = float(n[k] * np.prod(weights) * (means[0, 0] - means[1, 0]) ** 2)
        predicted = n[k] * np.prod(weights) * (excess + (_SIMPLE - _COMPLEX) / n[k]) ** 2
        yield Check(
            f"dL = -{excess:g}: part between the phases of n Var(L) / predicted",
            loss / float(predicted),
            low=1 - 1e-4,
            high=1 + 1e-4,
            why="mean loss of a phase is L + lambda / n exactly for a power, up to its edges, e^-n",
            roomy=QUADRATURE,
        )
        lines.append((excess, n, n * exact.covariance[:, 1, 1]))
    yield Check(
        "n Var of a test loss at the transition, one sum over a grid, over n (pi_U pi_V d^2 + within): largest "
        "deviation",
        max(abs(height / expected - 1) for height, expected in zip(heights, predictions, strict=True)),
        high=1e-3,
        why="moments of pure powers; the grid's half cells at the ends of the boxes and quadrature of the weights",
        roomy=QUADRATURE,
    )
    growth = np.diff(np.log(heights)) / np.diff(np.log(places))
    yield Check(
        "its logarithmic slope against n",
        float(growth[-1]),
        low=1 - 0.338 / np.sqrt(places[-2]) * 3,
        high=1 + 0.338 / np.sqrt(places[-2]) * 3,
        why="1: n pi_U pi_V d^2 with d of order one; the width of the quartic well, 0.338 n^(-1/2), changes d by an "
        "eighth and "
        "adds twice itself to the variance",
    )
    yield Check(
        "n Var(L) within the phases, largest n over smallest",
        within[-1] / within[0],
        high=places[0] / places[-1] * 1.2,
        why="lambda / n: it falls as 1 / n",
    )
    yield Plot(
        "n times the variance of a loss that the phase decides",
        "n",
        "n Var",
        tuple(Series(f"dL = -{excess:g}", n, np.maximum(line, 1e-4)) for excess, n, line in lines),
        log="xy",
    )
