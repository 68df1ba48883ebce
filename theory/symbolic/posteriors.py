"""Derivations about posteriors: mixtures of phases, free energies, singular models and samplers."""

from __future__ import annotations

import sympy as sp

from theory.symbolic.registry import Parts, derives
from theory.symbolic.symbols import c, eps, h


def _mixture(n_phases: int) -> tuple[sp.Expr, sp.Expr]:
    """Return the covariance of a mixture from its moments, and the law of total covariance."""
    free = sp.symbols(f"pi_1:{n_phases}", positive=True)
    weights = [*free, 1 - sum(free)]
    mu, nu, within = (sp.symbols(f"{name}_1:{n_phases + 1}", real=True) for name in ("mu", "nu", "C"))
    product = sum(p * (cov + m * n) for p, cov, m, n in zip(weights, within, mu, nu, strict=True))
    first, second = (sum(p * m for p, m in zip(weights, means, strict=True)) for means in (mu, nu))
    pairs = [(k, m) for k in range(n_phases) for m in range(k + 1, n_phases)]
    between = sum(weights[k] * weights[m] * (mu[k] - mu[m]) * (nu[k] - nu[m]) for k, m in pairs)
    return product - first * second, sum(p * cov for p, cov in zip(weights, within, strict=True)) + between


@derives(
    "total-covariance",
    "Cov = sum_k pi_k Cov_k + sum_{k<l} pi_k pi_l (mu_ik - mu_il)(mu_jk - mu_jl), for two and three phases",
    "paper appendix A",
)
def _total_covariance() -> Parts:
    derived = {n: _mixture(n) for n in (2, 3)}
    return [moments - law for moments, law in derived.values()], {"two": derived[2][0], "three": derived[3][0]}


def _extremum() -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """Return the weight at which two phases' total covariance is stationary, and the terms it depends on."""
    weight, mu_1, mu_2, nu_1, nu_2, cov_1, cov_2 = sp.symbols("pi_1 mu_1 mu_2 nu_1 nu_2 C_1 C_2")
    moments = _mixture(2)[0].xreplace({x: sp.Symbol(x.name) for x in _mixture(2)[0].free_symbols})
    stationary = sp.solve(sp.diff(moments, weight), weight)[0]
    product = (mu_1 - mu_2) * (nu_1 - nu_2)
    return stationary - sp.Rational(1, 2), (cov_1 - cov_2) / (2 * product), sp.diff(moments, weight, 2) + 2 * product


@derives(
    "mixture-extremum",
    "the total is stationary at pi_U = 1/2 + (Cov_U - Cov_V)/(2 d_i d_j) with curvature -2 d_i d_j",
    "corrects paper section 2.3",
)
def _mixture_extremum() -> Parts:
    offset, stated, curvature = _extremum()
    return [offset - stated, curvature], {"offset": offset}


@derives(
    "printed-mixture-extremum",
    "the total peaks where the between-phase term does, at pi_U = 1/2",
    "paper section 2.3",
    holds=False,
)
def _printed_extremum() -> Parts:
    return [_extremum()[0]], {}


@derives(
    "sgld-variance",
    "w <- (1 - eps h / 2) w + sqrt(eps) xi has variance 1 / (h (1 - eps h / 4)), finite for eps h < 4",
    "Euler step of Langevin dynamics",
)
def _sgld_variance() -> Parts:
    w, xi, variance = sp.symbols("w xi variance")
    step = sp.Poly(sp.expand((w - eps / 2 * h * w + sp.sqrt(eps) * xi) ** 2), w, xi)
    moments = {(2, 0): variance, (0, 2): sp.Integer(1), (1, 1): sp.Integer(0)}
    after = sum(coefficient * moments[powers] for powers, coefficient in step.terms())
    stationary = sp.solve(after - variance, variance)[0]
    contraction = sp.diff(after, variance)
    edge = sp.solve(contraction - 1, eps)
    return [stationary - 1 / (h * (1 - eps * h / 4)), edge[0] - 4 / h], {"variance": stationary}


@derives(
    "free-energy",
    "F(beta) = -ln int exp(-(n_beta/N) sum_i beta_i l_i - gamma w^2 / 2) dw of quadratic losses has "
    "dF/dbeta_i = (n_beta/N) E[l_i], d2F/dbeta_i dbeta_j = -(n_beta/N)^2 Cov(l_i, l_j), and "
    "Cov = g_i Sigma g_j + h_i Sigma h_j Sigma / 2",
    "paper section 2.2",
)
def _free_energy() -> Parts:
    w, e, pull, mean, variance = sp.symbols("w e pull mean variance", real=True)
    gamma, ratio, precision = sp.symbols("gamma ratio precision", positive=True)
    beta, curvature = sp.symbols("beta_1:3", positive=True), sp.symbols("h_1:3", positive=True)
    losses = [b * w + a * w**2 / 2 for a, b in zip(curvature, sp.symbols("b_1:3", real=True), strict=True)]
    energy = ratio * sum(x * loss for x, loss in zip(beta, losses, strict=True)) + gamma * w**2 / 2
    baseline = {precision: sp.diff(energy, w, 2), pull: -sp.diff(energy, w).subs(w, 0)}  # both affine in beta
    u = sp.symbols("u", real=True)  # w = pull / precision + u / sqrt(precision) completes the square
    exponent = (-precision * w**2 / 2 + pull * w).subs(w, pull / precision + u / sp.sqrt(precision))
    height = sp.expand(exponent + u**2 / 2)  # free of u
    partition = sp.integrate(sp.exp(-(u**2) / 2), (u, -sp.oo, sp.oo)) * sp.exp(height) / sp.sqrt(precision)
    free = -sp.expand_log(sp.log(partition), force=True)

    def along(weight: sp.Symbol, expression: sp.Expr) -> sp.Expr:
        return sum(sp.diff(expression, x) * sp.diff(affine, weight) for x, affine in baseline.items())

    def expectation(expression: sp.Expr) -> sp.Expr:
        moments = [1, 0, variance, 0, 3 * variance**2]  # of e = w - mean
        terms = sp.Poly(sp.expand(expression.subs(w, mean + e)), e).terms()
        value = sum(coefficient * moments[power] for (power,), coefficient in terms)
        return value.subs({mean: pull / precision, variance: 1 / precision})

    first, second = losses
    covariance = sp.factor(expectation(first * second) - expectation(first) * expectation(second))
    slopes = [sp.diff(loss, w).subs(w, pull / precision) for loss in losses]
    gaussian_limit = slopes[0] * slopes[1] / precision + curvature[0] * curvature[1] / precision**2 / 2
    return [
        along(beta[0], free) - ratio * expectation(first),
        along(beta[0], along(beta[1], free)) + ratio**2 * covariance,
        covariance - gaussian_limit,
        sp.diff(height, u),
    ], {"free_energy": free.subs(baseline), "covariance": covariance.subs(baseline)}


@derives(
    "singular-monomial",
    "K = w^{2k} under exp(-n K) has n E[K] = Var(n K) = 1/(2k)",
    "Watanabe 2009, learning coefficient 1/(2k)",
)
def _singular_monomial() -> Parts:
    n, k, x = sp.symbols("n k x", positive=True)  # x = n w^{2k}, on w > 0
    density = sp.exp(-x) * sp.diff((x / n) ** (1 / (2 * k)), x)
    moments = [sp.integrate(sp.powsimp(x**m * density), (x, 0, sp.oo)) for m in range(3)]
    mean, square = (sp.gammasimp(m / moments[0]) for m in moments[1:])
    return [mean - 1 / (2 * k), square - mean**2 - 1 / (2 * k), sp.diff(-sp.log(moments[0]), n) - mean / n], {}


@derives(
    "transition-sample-size",
    "two phases exchange where ln(n)/n = c, c = -dL/dlambda, with n = exp(-W(-c)) on either real branch of the Lambert "
    "function; ln(n)/n peaks at n = e with 1/e, so c < 1/e",
    "paper appendix A",
)
def _transition() -> Parts:
    n, root = sp.Symbol("n", positive=True), sp.Symbol("W", real=True)
    loss_u, loss_v, lambda_u, lambda_v = sp.symbols("L_U L_V lambda_U lambda_V")
    log_n = sp.Symbol("log_n")
    exchange = sp.solve(n * (loss_v - loss_u) + log_n * (lambda_v - lambda_u), log_n)[0] / n
    size = sp.exp(-root)  # W is any real number with W e^W = -c
    peak = sp.solve(sp.diff(sp.log(n) / n, n), n)[0]
    return [
        exchange + (loss_v - loss_u) / (lambda_v - lambda_u),
        (sp.log(n) / n).subs(n, size) - (-root * sp.exp(root)),
        peak - sp.E,
        (sp.log(n) / n).subs(n, peak) - sp.exp(-1),
    ], {"n": sp.exp(-sp.LambertW(-c, -1))}
