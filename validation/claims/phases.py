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
from validation.registry import Check, claim, numerics, theory

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
        high=1e-6,
        why="the quadrature's tolerance 1e-7 and a margin",
    )
    coefficient, multiplicity = monomial_learning_coefficient([1, 1], [0, 0])
    expansion = free_energy(n, 0.0, float(coefficient), multiplicities=multiplicity)
    constant = -float(np.log(np.sqrt(np.pi) / 4))
    correction = np.log1p((np.euler_gamma + 2 * np.log(2)) / np.log(n))
    left = -log_z - expansion - constant
    yield Check(
        "largest difference from the expansion with its log(1 + 1.96 / log n), n >= 100",
        float(np.abs(left + correction)[1:].max()),
        high=1e-6,
        why="what is left out is exponentially small in n",
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
            low=-1e-6,
            high=1e-6,
            why="exact up to exp(-n) at the ends of the interval; quadrature 1e-9",
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
        w = points[:, 0]
        return np.where(w < 0, _EXCESS + (w + 1) ** 4, (w - 1) ** 2)

    grid = np.linspace(-3, 3, 2_000_001)
    inside = np.abs(grid) >= 1e-3
    values = loss(grid[:, None])
    whole = [-np.log(np.sum(np.exp(-size * values[inside])) * (grid[1] - grid[0])) for size in n[chosen]]
    yield Check(
        "log-sum-exp of the phases against one sum over a grid",
        float(np.abs(exact.free_energy[chosen] - whole).max()),
        high=2e-3,
        why="the grid resolves the ends of the boxes to 3e-6 / 1e-3 and wells of width 3e-3 exactly",
    )
    gap = local.min(axis=1) - exact.free_energy
    yield Check("largest min F_k - F", float(gap.max()), high=float(np.log(2)), why="at most log K, for K equal phases")
    far = np.abs(np.diff(local, axis=1)[:, 0]) > 3
    predicted = np.log1p(np.exp(-np.abs(np.diff(local, axis=1)[:, 0])))
    yield Check(
        "largest |min F_k - F - log(1 + exp(-|F_U - F_V|))|",
        float(np.abs(gap - predicted).max()),
        high=1e-12,
        why="an identity of two phases; rounding",
    )
    yield Check(
        "largest min F_k - F where phases differ by more than 3",
        float(gap[far].max()),
        high=float(np.exp(-3)),
        why="e^-3",
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
            low=0.99,
            high=1.01,
            why="wells are pure powers, so the expansion is exact up to their edges, e^-n; interpolation on the grid",
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
        high=5e-3,
        why="the wells' edges at the smallest n, e^-10 of either integral and the gap between the boxes 1e-3",
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
        low=-0.02,
        high=0.02,
        why="wells are pure powers; interpolation on a grid of 0.07 in log n of a nearly straight line",
    )
    expected = special.expit((np.log(exact.n_beta) - place) * (_COMPLEX - _SIMPLE))
    yield Check(
        "largest difference of the quartic well's weight from 1 / (1 + (n* / n)^(1/4))",
        float(np.abs(exact.phase_weights[:, 0] - expected).max()),
        high=1e-4,
        why="pure powers: log-odds are straight in log n with slope dlambda, up to the wells' edges e^-48 and "
        "quadrature 1e-8",
    )
    yield Plot(
        "Equal losses",
        "n",
        "weight of the quartic well",
        curves(exact.n_beta, exact=exact.phase_weights[:, 0]),
        log="x",
        marks=((float(np.exp(place)), "predicted"),),
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
    heights, places, within, lines = [], [], [], []
    for excess in excesses:
        exact = two_wells(excess)
        n = _sizes(exact)
        k = int(np.argmin(np.abs(_log_odds(exact))))
        weights, means = exact.phase_weights[k], exact.phase_means[k]
        heights.append(float(n[k] * np.prod(weights) * (means[0, 1] - means[1, 1]) ** 2))
        within.append(float(n[k] * weights @ exact.phase_covariances[k, :, 0, 0]))
        places.append(float(n[k]))
        loss = float(n[k] * np.prod(weights) * (means[0, 0] - means[1, 0]) ** 2)
        predicted = n[k] / 4 * (excess + (_SIMPLE - _COMPLEX) / n[k]) ** 2
        yield Check(
            f"dL = -{excess:g}: part between the phases of n Var(L) / predicted",
            loss / float(predicted),
            low=0.9,
            high=1.02,
            why="mean loss of a phase is L + lambda / n; the grid misses pi_U = 1/2 by up to 0.05, pi_U pi_V by 1 %",
        )
        lines.append((excess, n, n * exact.covariance[:, 1, 1]))
    growth = np.diff(np.log(heights)) / np.diff(np.log(places))
    yield Check(
        "logarithmic slope of n times the variance of a loss that only the phase decides, against n",
        float(growth[-1]),
        low=0.9,
        high=1.1,
        why="n pi_U pi_V (mu_U - mu_V)^2 = n / 4: linear; the grid misses pi_U = 1/2",
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
