"""The words of the report: measures of influence and what each answers, symbols, verdicts."""

from __future__ import annotations

from validation.page.mathml import formula
from validation.page.parts import badge
from validation.page.prose import mathematics
from validation.registry import Verdict

__all__ = ["glossary"]

# name, formula, what it answers
_MEASURES = (
    (
        "Influence, the derivative",
        "I_{i j}(t) = {d l_j(t)} / {d beta_i}",
        "How much does the loss of sample j at epoch t change if sample i weighs a little more in all of training? In "
        "closed form it is called sample-weight; unrolled is the same, carried along descent.",
    ),
    (
        "Leave-one-out (LOO)",
        "Delta_{i j}(t) = l_j^D (t) - l_j^{D without i} (t)",
        "How much lower is the loss of j because i was there at all? By retraining, and in closed form.",
    ),
    (
        "Bayesian influence (BIF)",
        "-(n_beta / N) Cov(l_i, l_j)",
        "How do both losses move together under the posterior around the weights of one checkpoint, "
        "sampled by Langevin chains? Normalised, it is the correlation of the two.",
    ),
    (
        "Local posterior",
        "p(w) prop e^{-n_beta L(w) - (gamma / 2) |w - w_t|^2}",
        "Where the chains of the Bayesian influence walk: likely weights, held near those of epoch t.",
    ),
    (
        "Gradient kernel",
        "K_{i j} = grad l_i dot grad l_j",
        "How much does one step on i lower the loss of j, now? The Bayesian influence tends to it when "
        "localisation is strong.",
    ),
    (
        "Damped classical influence",
        "-(1 / N) grad l_j^T (H + lambda I)^{-1} grad l_i",
        "Where would the minimum go if i weighed more, were the loss quadratic? H is the Hessian, or the Gauss-Newton "
        "matrix.",
    ),
    (
        "Brief ablation",
        "sum_t [l_j^D (t) - l_j^{D without i} (t)]",
        "How much does it matter to miss i for a hundred epochs only, and when would that be worst?",
    ),
    (
        "Spectral, fixed-init, paper-P1, paper-P2",
        "dW = U dG V^T",
        "How does the learned map turn when only the correlation of inputs and outputs is perturbed, and not the "
        "inputs themselves? P1 and P2 are readings of the formula as printed.",
    ),
)
_SYMBOLS = (
    ("x_i , y_i", "input and target of sample i; N samples, O outputs"),
    ("W = W_2 W_1", "the learned map, a product of two layers"),
    ("l_i = (1 / 2) |y_i - W x_i|^2", "loss of sample i"),
    ("L = (1 / N) sum_i beta_i l_i", "weighted risk; beta is a sample's weight, 1 where nothing is said"),
    ("C = U S V^T", "correlation of inputs and outputs with its singular vectors and values s"),
    ("g_k (t)", "strength of mode k at time t; it rises from g0 to s"),
    ("tau = N O / (2 eta)", "time constant: epochs at learning rate eta"),
    ("n_beta , gamma", "inverse temperature times N, and localisation of the local posterior"),
    ("a , b", "stability constant and decay rate of the preconditioned sampler"),
    ("lambda", "learning coefficient (phases); damping (classical influence)"),
    ("pi_U , pi_V", "posterior mass of two phases"),
    ("R-hat, ESS", "agreement of chains, and the number of independent draws that theirs are worth"),
)
_VERDICTS = {
    Verdict.HOLDS: "every number is within its bound, error bars included",
    Verdict.WRONG: "a printed statement that no reading tried makes right; what holds instead is tested too",
    Verdict.DEPENDS: "a printed statement that is right in some readings and wrong in others",
    Verdict.IMPRECISE: "a printed statement that is right once something is added",
    Verdict.INCONCLUSIVE: "an error bar reaches across a bound, so nothing is shown",
    Verdict.FAILS: "a number is outside its bound",
    Verdict.REPORTED: "a number without a bound",
}


def glossary() -> str:
    """Return measures, symbols and verdicts."""
    measures = "".join(
        f"<div><dt>{mathematics(name)}</dt><dd>{formula(text, display=True)}<p>{mathematics(answer)}</p></dd></div>"
        for name, text, answer in _MEASURES
    )
    symbols = "".join(f"<div><dt>{_symbol(text)}</dt><dd>{mathematics(says)}</dd></div>" for text, says in _SYMBOLS)
    verdicts = "".join(f"<div><dt>{badge(verdict)}</dt><dd>{says}</dd></div>" for verdict, says in _VERDICTS.items())
    return (
        '<section id="glossary"><h2>Words and symbols</h2>'
        "<p>All measures carry one sign: <b>negative means that sample i helps sample j</b>. They are different "
        "quantities; where they should agree, and how closely, is part of what is tested.</p>"
        f'<dl class="measures">{measures}</dl>'
        f'<div class="columns">{_folding("Symbols", symbols)}{_folding("Verdicts on claims", verdicts)}</div></section>'
    )


def _folding(title: str, entries: str) -> str:
    return (
        f'<details class="group" open><summary><h3>{title}</h3></summary><dl class="symbols">{entries}</dl></details>'
    )


def _symbol(text: str) -> str:
    return text if "-" in text and "hat" in text else formula(text)
