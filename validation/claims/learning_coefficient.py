"""Claims about learning coefficients of deep linear networks: Aoyagi's values, curvature, sampling (paper 2.1, C.2)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from numerics import (
    SGLD,
    RMSPropSGLD,
    StepSizeWarning,
    estimate_learning_coefficient,
)
from numerics.curvature.linear import hessian
from theory import learning_coefficient, product_moments, tempered_posterior
from validation.charts import Plot, Series, curves
from validation.experiments.learning_coefficients import CoefficientSettings, measured_coefficients, singular_minimum
from validation.experiments.toy import ToyExperiment
from validation.registry import QUADRATURE, Check, Cost, Reading, claim, numerics, theory

__all__: list[str] = []


@claim(
    "smallest-networks",
    "Aoyagi's formula gives the exponents of networks of one unit a layer: lambda = 1/2 with multiplicity 2 for the "
    "zero "
    "map, 1/2 with 1 for any other.",
    source="paper A.1, C.2 (Aoyagi 2024)",
    compares=(theory("Aoyagi's formula"), theory("moments of w1^2 w2^2, closed form"), numerics("adaptive quadrature")),
    metric="n E[K] against lambda - (m - 1) / (log n + c)",
)
def smallest_networks(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Integrate K = (w2 w1 - w)^2 for w = 0 and w = 1."""
    for wanted, rank, expected, n in ((0.0, 0, 2, 1e5), (1.0, 1, 1, 1e3)):
        value, multiplicity = learning_coefficient((1, 1, 1), rank)
        yield Check(f"rank {rank}: multiplicity", float(multiplicity), low=expected, high=expected, why="Aoyagi 2024")

        def loss(w: np.ndarray, wanted: float = wanted) -> np.ndarray:
            return np.asarray((w[:, :1] * w[:, 1:] - wanted) ** 2)

        exact = tempered_posterior(
            loss,
            [[[0.0, 3.0], [0.0, 3.0]]],
            n,
            points=[[0.0, 0.0], [1.0, 1.0]],
            rtol=1e-6 if rank == 0 else 1e-4,
        )
        found = float(n * exact.mean[0])
        allowed = 1e-6 if rank == 0 else 1e-3
        correction = (multiplicity - 1) / (np.log(n) + np.log(81) + np.euler_gamma + 2 * np.log(2))
        yield Check(
            f"rank {rank}: n E[K] - (lambda - (m - 1) / (log n + c))",
            found - (float(value) - correction),
            low=-allowed,
            high=allowed,
            why="c = log 81 + gamma + 2 log 2 on a square of side 3 for rank 0, exact up to e^-n, quadrature 1e-6; "
            "corrections "
            "of order 1 / n and the quadrature's 1e-4 for rank 1",
            roomy=QUADRATURE,
        )
    n_values = np.geomspace(10.0, 1e8, 50)
    log_z = product_moments(n_values)[0]
    slopes = np.gradient(-log_z, np.log(n_values))
    yield Check(
        "closed form, rank 0: growth of F with log n at 1e8",
        float(slopes[-1]),
        low=0.5 - 1 / np.log(1e8),
        high=0.5,
        why="lambda less (m - 1) / (log n + c), c = 1.96",
    )
    yield Plot(
        "Free energy of w1^2 w2^2",
        "n",
        "dF / d log n",
        (
            *curves(n_values, closed_form=slopes),
            *curves(n_values, "dashes", expansion=0.5 - 1 / (np.log(n_values) + np.euler_gamma + 2 * np.log(2))),
        ),
        log="x",
    )


@claim(
    "toy-coefficient",
    "At the toy's minimum the learning coefficient is 60, half the rank of the Hessian: the minimum is minimally "
    "singular, "
    "and the toy cannot tell ranks apart.",
    source="paper C.2 (ground truth of deep linear networks), A.1",
    compares=(theory("Aoyagi's formula for 8-50-15"), numerics("rank of the Hessian at the last checkpoint")),
    metric="lambda; number of eigenvalues that are not zero, halved",
)
def toy_coefficient(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Count the curved directions at the end of training."""
    config = experiment.settings.training
    widths = (experiment.dataset.n_inputs, config.hidden, experiment.dataset.n_outputs)
    values = [float(learning_coefficient(widths, rank)[0]) for rank in range(9)]
    yield Check("smallest lambda over ranks 0 to 8", min(values), low=60.0, high=60.0, why="8 x 15 / 2")
    yield Check("largest lambda over ranks 0 to 8", max(values), low=60.0, high=60.0, why="wide: the layer never binds")
    run = experiment.checkpoints
    found = np.linalg.eigvalsh(hessian(experiment.dataset, run.w1[-1], run.w2[-1]).numpy())[::-1]
    smallest = float(experiment.modes.values[-1]) / len(experiment.dataset)
    yield Check(
        "half the number of eigenvalues above half of s_min / N",
        float((found > smallest / 2).sum()) / 2,
        low=60.0,
        high=60.0,
        why="the smallest curvature is s_min / N = 0.125 at the minimum; what is left to learn is a thousandth of that",
    )
    yield Plot(
        "Eigenvalues of the Hessian at the end",
        "rank",
        "eigenvalue",
        (Series("", np.arange(1, 201), np.maximum(found[:200], 1e-8), style="points"),),
        log="y",
        marks=((120.5, "2 lambda"),),
    )


_SHORT, _LONG = "short steps, a tenth of SGLD's limit, a = 0.01", "long steps, at SGLD's limit, a = 0.1"


@claim(
    "rmsprop-against-sgld",
    "RMSProp-SGLD is superior to vanilla SGLD for estimating the learning coefficient.",
    source="paper C.2",
    compares=(
        theory("Aoyagi's formula"),
        numerics("both samplers at equal step / a on 3-2-3 and 4-3-4 networks of rank 1"),
    ),
    metric="distance of the estimate from Aoyagi's coefficient, relative",
    corrected="at long steps, where SGLD spreads too far along steep directions, it is the better one; at short steps "
    "it keeps "
    "a bias of 40 % that SGLD has not",
    readings=(Reading(_SHORT), Reading(_LONG, right=True)),
    cost=Cost.FULL,
)
def rmsprop_against_sgld(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Estimate the coefficient of two networks with both samplers at a short and a long step."""
    n_beta, shown = 1e3, []
    for widths in ((3, 2, 3), (4, 3, 4)):
        data, minimum = singular_minimum(widths, 1)
        exact = float(learning_coefficient(widths, 1)[0])
        for share, a, reading in ((0.1, 0.01, _SHORT), (1.0, 0.1, _LONG)):
            step = share * 4 / (n_beta * 9)
            results = []
            for sampler in (
                SGLD(step, n_beta, localization=1.0),
                RMSPropSGLD(a * step, n_beta, localization=1.0, stability=a),
            ):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", StepSizeWarning)  # the long step is at the limit on purpose
                    found = estimate_learning_coefficient(
                        data,
                        minimum,
                        sampler,
                        chains=32,
                        draws=3000,
                        burn_in=1000,
                        thin=2,
                        seed=experiment.settings.seed,
                    ).isel(epoch=0)
                results.append([float(found[n]) / exact for n in ("learning_coefficient", "standard_error")])
            (plain, plain_error), (adaptive, adaptive_error) = results
            name = "-".join(map(str, widths))
            less = abs(adaptive - 1) - abs(plain - 1)
            yield Check(
                f"{name}, {reading}: relative distance from {exact:g}, RMSProp-SGLD ({adaptive:.2f}) less SGLD "
                f"({plain:.2f})",
                less,
                low=0.0 if reading == _SHORT else -np.inf,
                high=np.inf if reading == _SHORT else 0.0,
                why="negative where RMSProp-SGLD is the closer one",
                error=float(np.hypot(plain_error, adaptive_error)),
                reading=reading,
                roomy="a sign is claimed" if abs(less) > 15 * float(np.hypot(plain_error, adaptive_error)) else "",
            )
            shown.append((f"{name}\n{'short' if reading == _SHORT else 'long'}", plain, adaptive))
    labels = np.array([row[0] for row in shown])
    yield Plot(
        "Estimate over Aoyagi's coefficient",
        "network and step",
        "ratio",
        (
            Series("SGLD", labels, np.array([row[1] for row in shown]), style="bars"),
            Series("RMSProp-SGLD", labels, np.array([row[2] for row in shown]), style="points"),
        ),
    )


@claim(
    "measured-coefficients",
    "The learning coefficient measured by sampling is Aoyagi's, at widths where it varies with the rank.",
    source="paper C.2 (hyper-parameters selected by the known coefficient)",
    compares=(theory("Aoyagi's formula"), numerics("MALA at two temperatures, extrapolated; eight cases")),
    metric="distance in standard errors, and relative",
    cost=Cost.FULL,
)
def coefficients_measured(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Estimate the coefficient of small networks at singular minima of several ranks."""
    found = measured_coefficients(CoefficientSettings(seed=experiment.settings.seed))
    for name in found["case"].values:
        case = found.sel(case=name)
        exact = float(case["exact"])
        yield Check(
            f"{name}: measured / {exact:g}",
            float(case["extrapolated"]) / exact,
            low=0.9,
            high=1.1,
            why="10 %: neighbouring ranks differ by more where it counts; the extrapolation leaves out 1 %",
            error=float(case["extrapolated_error"]) / exact,
        )
        yield Check(
            f"{name}: largest R-hat",
            float(case["r_hat"].max()),
            high=1.1,
            why="chains that have not forgotten their start would show more",
        )
    positions = np.array([name.replace(", ", "\n") for name in found["case"].values])
    yield Plot(
        "Learning coefficient",
        "network",
        "lambda",
        (
            Series(
                "measured",
                positions,
                found["extrapolated"].values,
                2 * found["extrapolated_error"].values,
                style="bars",
            ),
            Series("Aoyagi", positions, found["exact"].values, style="points"),
        ),
    )
