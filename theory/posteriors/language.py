r"""What can be known exactly of influence between tokens: an induction gate, a table of bigrams, the noise of a pair.

*Induction gate.* One weight opens a gate s = 1 / (1 + e^{-theta}) between a base and a copy of an earlier token,

.. math:: p = s\, \mathrm{copy} + (1 - s)\, \mathrm{base}, \qquad
    \ell_{\mathrm{rep}} = -\log(s + (1 - s) / V), \quad \ell_{\mathrm{fresh}} = \log V - \log(1 - s) ,

with a uniform base of V tokens: a repeated token is what the copy says, a fresh one is not. One falls and the other
rises with theta, so near any gate their correlation tends to -1, and that of two repeated tokens to 1. The slope

.. math:: \left| \frac{d \ell_{\mathrm{rep}}}{d \theta} \right| = \frac{s (1 - s) (V - 1)}{1 + (V - 1) s}

is largest at s = 1 / (1 + sqrt V), where the loss is exactly log V / 2: under a local posterior the covariance of
repeated tokens has a peak *while* the gate opens, and falls to nothing when copying is learned.

If each token also has V logits of its own as base, started uniform, their gradient has length (1 - s) sqrt(1 - 1 / V) /
(1 + (V - 1) s), and the correlation of two repeated tokens is 1 / (1 + 1 / (V (V - 1) s^2)) in the limit of strong
localization: it rises when s passes 1 / V, long before the loss falls, and never falls again. A bump of the covariance
and a step of the correlation are one and the same event.

*Table of bigrams.* The loss of a token depends on the row of logits of its predecessor alone, so tokens with different
predecessors are independent under any posterior whose prior is. In the Gaussian limit tokens v, v' after u have

.. math:: \mathrm{Cov} = (p - e_v)^\top \Bigl[\frac{n_\beta c_u}{N J} (\mathrm{diag}\, p - p p^\top)
    + \gamma I\Bigr]^{-1} (p - e_{v'}) .
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy import special

from theory import checks
from theory.posteriors.quadrature import TemperedPosterior, tempered_posterior

__all__ = [
    "bigram_covariance",
    "entropy_rate",
    "gate_correlation",
    "gate_losses",
    "gate_posterior",
    "gate_slope",
    "pair_noise",
    "steepest_gate",
]


def gate_losses(theta: ArrayLike, vocabulary: int) -> Float[np.ndarray, "... 2"]:
    """Return the losses of a repeated and of a fresh token at gate weights theta, shape (..., 2), in nats.

    Examples
    --------
    >>> gate_losses(-40.0, 256).round(6).tolist()  # closed: log V for both
    [5.545177, 5.545177]
    """
    vocabulary = checks.integer("vocabulary", vocabulary, at_least=2)
    theta = checks.array("theta", theta)
    # log(s + (1 - s) / V) and log(1 - s) in a form that keeps all digits at either end.
    opened, closed = special.log_expit(theta), special.log_expit(-theta)
    repeated = -np.logaddexp(opened, closed - np.log(vocabulary))
    return np.stack([repeated, np.log(vocabulary) - closed], axis=-1)


def gate_slope(theta: ArrayLike, vocabulary: int) -> Float[np.ndarray, "..."]:
    """Return |d l_rep / d theta|, whose square over the localization is the covariance of repeated tokens in the limit.

    Examples
    --------
    >>> round(float(gate_slope(0.0, 2)), 6)
    0.166667
    """
    vocabulary = checks.integer("vocabulary", vocabulary, at_least=2)
    theta = checks.array("theta", theta)
    s, closed = special.expit(theta), special.expit(-theta)
    return np.asarray(s * closed * (vocabulary - 1) / (1 + (vocabulary - 1) * s))


def steepest_gate(vocabulary: int) -> tuple[float, float]:
    """Return the gate s = 1 / (1 + sqrt V) at which repeated tokens are most sensitive, and their loss, log V / 2.

    Examples
    --------
    >>> gate, loss = steepest_gate(256)
    >>> round(gate, 6), round(loss / float(np.log(256)), 6)
    (0.058824, 0.5)
    """
    vocabulary = checks.integer("vocabulary", vocabulary, at_least=2)
    gate = 1 / (1 + np.sqrt(vocabulary))
    return float(gate), -float(np.log(gate + (1 - gate) / vocabulary))


def gate_correlation(theta: ArrayLike, vocabulary: int) -> Float[np.ndarray, "..."]:
    """Return the correlation of two repeated tokens with base logits of their own, in the limit of strong localization.

    Examples
    --------
    >>> gate_correlation([-12.0, 0.0, 12.0], 256).round(3).tolist()  # the loss falls at theta = -2.8
    [0.0, 1.0, 1.0]
    """
    vocabulary = checks.integer("vocabulary", vocabulary, at_least=2)
    s = special.expit(checks.array("theta", theta))
    ratio = vocabulary * (vocabulary - 1) * s**2  # the gate's squared slope over that of the token's own logits
    return np.asarray(ratio / (1 + ratio))


def gate_posterior(
    theta: float, vocabulary: int, *, localization: float, n_beta: float = 0.0, share_repeated: float = 0.5
) -> TemperedPosterior:
    r"""Return exact moments of the losses of a repeated and a fresh token under the local posterior of a gate.

    .. math:: p \propto \exp\bigl(-n_\beta [q \ell_{\mathrm{rep}} + (1 - q) \ell_{\mathrm{fresh}}]
        - \tfrac{\gamma}{2} (\theta' - \theta)^2\bigr)

    Parameters
    ----------
    theta
        Gate weight of the checkpoint.
    vocabulary
        Number of tokens V.
    localization
        gamma > 0.
    n_beta
        Inverse temperature times the number of tokens of the training set, >= 0.
    share_repeated
        Share q of its tokens that are repeated ones.

    Returns
    -------
    TemperedPosterior
        ``mean`` (2,) and ``covariance`` (2, 2) of the losses (repeated, fresh).

    Examples
    --------
    >>> c = gate_posterior(-2.8, 256, localization=1e4).covariance
    >>> round(float(c[0, 1] / np.sqrt(c[0, 0] * c[1, 1])), 3)
    -1.0
    """
    theta = float(checks.array("theta", theta, ndim=0))
    gamma = checks.positive("localization", localization)
    n_beta = float(checks.nonnegative("n_beta", checks.array("n_beta", n_beta, ndim=0)))
    share_repeated = float(checks.array("share_repeated", share_repeated, ndim=0))
    if not 0 <= share_repeated <= 1:
        raise ValueError(f"share_repeated is a share of the tokens, from 0 to 1, but {share_repeated} was given.")
    weights = 2 * np.array([share_repeated, 1 - share_repeated])
    # No slope of a loss exceeds 1, so the mode is within n_beta / gamma of the checkpoint and tails are Gaussian.
    reach = n_beta / gamma + 12 / np.sqrt(gamma)
    return tempered_posterior(
        lambda w: gate_losses(w[:, 0], vocabulary),
        [[[theta - reach, theta + reach]]],
        n_beta,
        log_prior=lambda w: -gamma / 2 * np.square(w[:, 0] - theta),
        sample_weights=weights,
        points=[[theta]],
    )


def bigram_covariance(
    table: ArrayLike, counts: ArrayLike, tokens: ArrayLike, *, n_beta: float, localization: float
) -> Float[np.ndarray, "m m"]:
    """Return the covariance of token losses under the local posterior of a table of bigrams, in its Gaussian limit.

    Parameters
    ----------
    table
        Logits at the checkpoint, rows by predecessor, shape (V, V).
    counts
        How often each token follows each in the training set, shape (V, V).
    tokens
        Tokens asked for as (predecessor, token), shape (m, 2).
    n_beta, localization
        Of the posterior; n_beta multiplies the mean over all tokens of the training set.

    Returns
    -------
    numpy.ndarray
        Shape (m, m): exactly 0 for different predecessors, at any strength of localization.

    Examples
    --------
    >>> found = bigram_covariance(np.zeros((2, 2)), np.ones((2, 2)), [[0, 0], [0, 1], [1, 0]], n_beta=0, localization=1)
    >>> found.tolist()
    [[0.5, -0.5, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 0.5]]
    """
    logits = checks.matrix("table", table)
    if logits.shape[0] != logits.shape[1]:
        raise ValueError(f"table has shape {logits.shape}, but a row and a column for each token are needed.")
    size = len(logits)
    seen = checks.nonnegative("counts", checks.matrix("counts", counts, (size, size)))
    asked = _asked(tokens, size)
    n_beta = float(checks.nonnegative("n_beta", checks.array("n_beta", n_beta, ndim=0)))
    gamma = checks.positive("localization", localization)
    total = seen.sum()
    if total == 0:
        raise ValueError("counts are all 0: a training set without tokens has no mean loss.")
    result = np.zeros((len(asked), len(asked)))
    for row in np.unique(asked[:, 0]):
        here = np.flatnonzero(asked[:, 0] == row)
        p = special.softmax(logits[row])
        hessian = n_beta * seen[row].sum() / total * (np.diag(p) - np.outer(p, p)) + gamma * np.eye(size)
        gradients = p[:, None] - np.eye(size)[:, asked[here, 1]]
        result[np.ix_(here, here)] = gradients.T @ np.linalg.solve(hessian, gradients)
    return result


def _asked(tokens: ArrayLike, size: int) -> Int[np.ndarray, "m 2"]:
    asked = checks.plain("tokens", tokens)
    if asked.ndim != 2 or asked.shape[1] != 2 or asked.dtype.kind not in "iu" or ((asked < 0) | (asked >= size)).any():
        raise ValueError(f"tokens must be pairs (predecessor, token) of whole numbers below {size}, shape (m, 2).")
    return asked.astype(np.int64)


def entropy_rate(transition: ArrayLike) -> float:
    """Return the entropy rate of a Markov chain in nats: the lowest mean loss that any model can have on it.

    Parameters
    ----------
    transition
        Probabilities from each state (rows), shape (V, V); the chain must have one stationary distribution.

    Examples
    --------
    >>> round(entropy_rate([[0.5, 0.5], [0.5, 0.5]]) / float(np.log(2)), 12)
    1.0
    """
    matrix = checks.nonnegative("transition", checks.matrix("transition", transition))
    if (
        matrix.shape[0] != matrix.shape[1]
        or np.abs(matrix.sum(axis=1) - 1).max() > 64 * len(matrix) * np.finfo(float).eps
    ):
        raise ValueError(f"transition has shape {matrix.shape}; a square matrix whose rows sum to 1 is needed.")
    size = len(matrix)
    system = np.vstack([matrix.T - np.eye(size), np.ones(size)])
    stationary, _, rank, _ = np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)
    if rank < size:
        raise ValueError("the chain has several stationary distributions: some states are never reached from others.")
    return float(stationary @ special.entr(matrix).sum(axis=1))


def pair_noise(relaxation_times: float, *, chains: int, draws: int) -> float:
    """Return the standard deviation of the sample correlation of two unrelated losses, around 0.

    n independent draws have 1 / sqrt(n - 1), so that chains are worth 1 + 1 / noise^2 of them.

    Parameters
    ----------
    relaxation_times
        Length of a chain, step x localization x draws / 2, below the number of draws.
    chains, draws
        Chains, all started at the checkpoint, and draws a chain, the start included; one step a draw.

    Raises
    ------
    ValueError
        If there are fewer than three draws in all, or the chain is longer than it has steps.

    Examples
    --------
    >>> few = pair_noise(0.1, chains=4, draws=200)  # the printed 800 draws
    >>> round(1 + 1 / few**2, 1)
    7.9
    """
    chains = checks.integer("chains", chains, at_least=1)
    draws = checks.integer("draws", draws, at_least=2)
    times = checks.positive("relaxation_times", relaxation_times)
    if chains * draws < 3:
        raise ValueError(f"{chains} x {draws} draws always correlate with 1 or -1; use three or more.")
    if times > draws:
        raise ValueError(
            f"a chain of {draws} draws is {times:g} relaxation times long, but a step longer than one of them "
            "does not relax; lower the step."
        )
    kept = np.log1p(-times / draws) if times < draws else -np.inf  # log of the autocorrelation of a step
    s, t = np.ogrid[:draws, :draws]
    with np.errstate(invalid="ignore"):  # 0 x infinity, of a step that forgets everything
        here, back = (np.exp(np.where(lag > 0, kept * lag, 0.0)) for lag in (np.abs(s - t), s + t))
    kernel = here - back
    alone = np.linalg.eigvalsh(kernel)
    # The mean over all draws is taken off the mean of the chains; differences between chains do not see it.
    centred = kernel - kernel.mean(axis=0) - kernel.mean(axis=1, keepdims=True) + kernel.mean()
    values = np.concatenate([np.tile(alone, chains - 1), np.linalg.eigvalsh(centred)])
    values = np.maximum(values, 0.0) / values.sum()
    # Smooth in log t and gone at both ends: there the trapezoidal rule gains digits with each node.
    log_t = np.linspace(-30, 60, 1441)
    falling = -0.5 * np.log1p(2 * np.exp(log_t)[:, None] * values).sum(axis=1)
    weight = np.exp(log_t + falling) * (log_t[1] - log_t[0])
    means = (weight[:, None] / (1 + 2 * np.exp(log_t)[:, None] * values)).sum(axis=0)
    return float(np.sqrt(np.square(values * means).sum()))
