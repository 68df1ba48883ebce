"""Claims about influence between the tokens of language models while they learn to copy (paper 4, D.1.3, D.2)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from numerics import (
    MALA,
    SGLD,
    BigramModel,
    ModuleCheckpoints,
    RMSPropSGLD,
    Samples,
    TorchModel,
    chance_recall,
    class_gradient_cosine,
    class_recall,
    next_token_loss,
    sample,
    sample_tokens,
    token_samples,
)
from theory import (
    bigram_covariance,
    gate_correlation,
    gate_losses,
    gate_posterior,
    gate_slope,
    pair_noise,
    steepest_gate,
)
from validation.charts import Plot, Series, curves
from validation.experiments.language import (
    GROUPS_OF_PAIRS,
    InductionRun,
    InductionSettings,
    induction_run,
    induction_runs,
)
from validation.experiments.token_pairs import measured_noise, recording_times, some_tokens
from validation.experiments.toy import ToyExperiment
from validation.registry import REFUTES, Check, Cost, Reading, claim, numerics, theory

__all__: list[str] = []

_SEEDS = 3  # runs from scratch behind every claim about formation
_TOKENS = 256
_PRINTED, _RAW, _NORMALISED = "as printed", "of the raw covariance", "of the normalised influence"
_SEQUENCES, _NOTHING = "beside influence between sequences", "beside a chain that records nothing"
_STABILITY = "with a stability constant of 1, which the paper does not give"


def _runs(experiment: ToyExperiment) -> list[InductionRun]:
    seed = experiment.settings.seed
    return induction_runs([InductionSettings.seeded(seed + k, brief=True) for k in range(_SEEDS)])


def _first_run(experiment: ToyExperiment) -> InductionRun:
    return induction_run(InductionSettings.seeded(experiment.settings.seed, brief=True))


# --- what is known exactly ---------------------------------------------------------------------------------------


class _Gate(torch.nn.Module):
    """One weight that opens a copy; inputs are 1 for repeated tokens, whose copy is right, and 0 for fresh ones."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, repeated: torch.Tensor) -> torch.Tensor:
        """Return the probability of the token that comes."""
        gate = torch.sigmoid(self.weight)
        return repeated * gate + (1 - gate) / _TOKENS


def _negative_log(probability: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -probability[:, 0].log() + 0 * targets[:, 0]


@claim(
    "copying-gate",
    "While a gate opens between guessing and copying, the covariance of repeated tokens peaks where their loss is half "
    "of log V, and vanishes after; their correlation rises earlier and stays.",
    source="ours (it derives the paper's Fig. 15)",
    compares=(theory("closed form and quadrature"), numerics("MALA chains of the gate as a module")),
    metric="loss at the peak over log V, variance sampled over exact",
)
def copying_gate(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Integrate and sample one gate at many openings."""
    gamma, thetas = 400.0, np.linspace(-9, 5, 281)
    exact = np.stack([gate_posterior(theta, _TOKENS, localization=1e6).covariance for theta in thetas]) * 1e6
    losses = gate_losses(thetas, _TOKENS)[:, 0] / np.log(_TOKENS)
    peak = int(np.argmax(exact[:, 0, 0]))
    yield Check(
        "quadrature: loss where the covariance of repeated tokens peaks, over log V",
        float(losses[peak]),
        low=0.5 - 0.01,
        high=0.5 + 0.01,
        why="1/2 exactly; the grid of gates is 0.05 wide, over which the loss changes by 1 % of log V there",
    )
    yield Check(
        "gate at the peak, over 1 / (1 + sqrt V)",
        float(1 / (1 + np.exp(-thetas[peak])) / steepest_gate(_TOKENS)[0]),
        low=0.95,
        high=1.05,
        why="half the spacing of the grid is 2.5 %, and the prior's width moves the peak by less",
    )
    yield Check(
        "correlation of a repeated with a fresh token, largest",
        float((exact[:, 0, 1] / np.sqrt(exact[:, 0, 0] * exact[:, 1, 1])).max()),
        high=-0.999,
        why="both depend on one weight, one falling and one rising: -1 up to curvature over the width 1e-3",
    )
    shown = thetas[::40]
    model = TorchModel(_Gate(), _negative_log)
    checkpoints = ModuleCheckpoints(np.arange(len(shown)), model, torch.tensor(shown)[:, None])
    inputs = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    draws = sample(
        Samples(inputs, torch.zeros(2, 1, dtype=torch.float64), ("repeated", "fresh")),
        checkpoints,
        MALA(step_size=1 / gamma, n_beta=1e-9, localization=gamma),
        chains=32,
        draws=500,
        burn_in=20,
        seed=experiment.settings.seed,
        dtype=torch.float64,
    )
    by_chain = draws.values[..., 0].var(axis=2, ddof=1)  # (epoch, chain)
    expected = np.array([gate_posterior(theta, _TOKENS, localization=gamma).covariance[0, 0] for theta in shown])
    ratio = by_chain.mean(axis=1) / expected
    error = by_chain.std(axis=1, ddof=1) / np.sqrt(by_chain.shape[1]) / expected
    worst = int(np.argmax(np.abs(ratio - 1) / error))
    yield Check(
        "sampled variance over the exact one, furthest of eight gates in standard errors",
        float(ratio[worst]),
        low=1 - 0.05 - 1.5 * float(error[worst]),
        high=1 + 0.05 + 1.5 * float(error[worst]),
        why="1; 5 % and, for the largest of eight, one and a half standard errors more than the usual three",
        error=float(error[worst]),
    )
    yield Plot(
        "A gate that opens: loss, covariance and correlation of repeated tokens",
        "weight of the gate",
        "relative to the largest",
        curves(
            thetas,
            "line",
            loss=losses,
            covariance=gate_slope(thetas, _TOKENS) ** 2 / float((gate_slope(thetas, _TOKENS) ** 2).max()),
            correlation=gate_correlation(thetas, _TOKENS),
        ),
    )


@claim(
    "contexts-apart",
    "In a table of bigrams tokens after different tokens are independent under the local posterior, and tokens after "
    "the same one covary as the Gaussian limit says.",
    source="ours",
    compares=(theory("factorised posterior, Gaussian limit"), numerics("sampling per token")),
    metric="covariance sampled less exact, in standard deviations of both losses",
    cost=Cost.FULL,
)
def contexts_apart(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Sample a table of bigrams per token."""
    generator = np.random.default_rng(experiment.settings.seed)
    corpus, asked = (token_samples(generator.integers(5, size=shape)) for shape in ((30, 9), (3, 7)))
    model = TorchModel(BigramModel(5, sigma=1.0, seed=experiment.settings.seed), next_token_loss)
    checkpoints = ModuleCheckpoints(np.array([0.0]), model, model.initial()[None])
    n_beta, gamma, step = 200.0, 2000.0, 4e-4
    with tempfile.TemporaryDirectory() as folder:
        draws = sample_tokens(
            corpus,
            checkpoints,
            folder,
            SGLD(step_size=step, n_beta=n_beta, localization=gamma),
            recorded=asked,
            chains=4,
            draws=1000,
            burn_in=50,
            batch_size=None,
            seed=experiment.settings.seed,
        )
        found = np.cov(np.concatenate(draws.at(0.0)).T.astype(np.float64))
    assert isinstance(asked.inputs, torch.Tensor)
    assert isinstance(asked.targets, torch.Tensor)
    assert isinstance(corpus.inputs, torch.Tensor)
    assert isinstance(corpus.targets, torch.Tensor)
    pairs = np.stack([asked.inputs.numpy().ravel(), asked.targets.numpy().ravel()], axis=1)
    counts = np.zeros((5, 5))
    np.add.at(counts, (corpus.inputs.numpy().ravel(), corpus.targets.numpy().ravel()), 1)
    table = model.initial().detach().numpy().reshape(5, 5)
    exact = bigram_covariance(table, counts, pairs, n_beta=n_beta, localization=gamma) / (1 - step * gamma / 4)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    z = np.abs(found - exact) / scale
    apart = pairs[:, 0][:, None] != pairs[:, 0]
    # Autocorrelation 0.6 leaves 0.47 effective products of deviations a draw: 1900 of 4000.
    bound = 4 / np.sqrt(0.47 * 4000)
    why = "four standard errors of a correlation from 1900 effective draws"
    yield Check(
        "different contexts: largest |covariance| over both deviations", float(z[apart].max()), high=bound, why=why
    )
    yield Check(
        "same context: largest difference from the Gaussian limit",
        float(z[~apart].max()),
        high=2**0.5 * bound + 0.02,
        why=f"{why}, times the root of 2 for a variance; 2 % for terms of second order",
    )
    yield Check("exact covariance of different contexts", float(np.abs(exact[apart]).max()), high=0.0, why="0 exactly")
    order = np.argsort(exact / scale, axis=None)
    yield Plot(
        "Covariance of two tokens over both deviations",
        "pair, by its exact value",
        "correlation",
        (
            Series("sampled", np.arange(order.size), (found / scale).ravel()[order], style="points"),
            *curves(np.arange(order.size), exact=(exact / scale).ravel()[order]),
        ),
    )


@claim(
    "recall-baseline",
    'For the recall of same-class prediction less the class rate, "0 represents the random baseline".',
    source="paper D.1.3, caption of Fig. 14",
    compares=(theory("closed form of recall without information"), numerics("draws of pure noise")),
    metric="recall less class rate",
    corrected="without information recall tends to the rate at which a class is predicted, not to the class rate",
    readings=(Reading(_PRINTED),),
)
def recall_baseline(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Predict classes from noise."""
    generator = np.random.default_rng(experiment.settings.seed)
    shares = np.array([0.05, 0.15, 0.3, 0.3])
    which = generator.choice(5, p=[*shares, 1 - shares.sum()], size=(40, 50))
    classes = {f"class of {share:.0%}": which == k for k, share in enumerate(shares)}
    noise = generator.normal(size=(1, 2, 200, *which.shape))
    found = class_recall(noise, classes, np.arange(which.size).reshape(which.shape), permutations=20)
    sizes = np.array([members.sum() for members in classes.values()])
    chance = chance_recall(sizes, which.size)
    spread = np.sqrt(chance * (1 - chance) / sizes)
    yield Check(
        "recall from noise less its closed form, largest |z|",
        float(np.abs((found["recall"].values[0] - chance) / spread).max()),
        high=4.5,
        why="four standard errors of a share; a half more because tokens share neighbours",
    )
    gap = chance - found["rate"].values
    yield Check(
        "closed form less class rate, largest |difference|",
        float(np.abs(gap).max()),
        low=0.05,
        why="0 if the class rate were the baseline",
        reading=_PRINTED,
        roomy=REFUTES,
    )
    yield Plot(
        "Recall from noise",
        "class",
        "share of its tokens predicted right",
        (
            Series("class rate", np.array(list(classes)), found["rate"].values, style="bars"),
            Series("without information, closed form", np.array(list(classes)), chance, style="bars"),
            Series("from noise", np.array(list(classes)), found["recall"].values[0], style="bars"),
        ),
    )


# --- a model trained from scratch ----------------------------------------------------------------------------------


def _line(run: InductionRun, name: str, pair: str) -> tuple[np.ndarray, np.ndarray]:
    """Return values and standard errors over the sampled steps, the larger of the errors by blocks and by chains."""
    source, query = GROUPS_OF_PAIRS[pair]
    chosen = run.influence.sel(source=source, query=query)
    error = np.fmax(chosen[f"{name}_error"].values, chosen[f"{name}_chain_error"].values)
    return chosen[name].values, error


def _phases(run: InductionRun) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which sampled steps are a hundred before, at, and long after the formation.

    The early checkpoint is none of them: while token frequencies are learned all pairs covary alike.
    """
    steps = run.sampled_steps - run.formation
    return np.abs(steps + 100) < 50, np.abs(steps) <= 50, steps >= 300


@claim(
    "induction-forms",
    "A model of two layers of attention alone forms induction heads within 2,000 steps: a head of the second layer "
    "attends where copying needs it, and repeated tokens are predicted.",
    source="paper D.2 (Fig. 15, bottom), after Olsson et al. 2022",
    compares=(theory("log V for tokens that nothing predicts"), numerics("three runs from scratch")),
    metric="induction score of the best head, loss of repeated tokens",
    cost=Cost.FULL,
)
def induction_forms(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Train three models."""
    series = []
    for run in _runs(experiment):
        seed, score, losses = run.settings.seed, run.best_score, run.losses
        yield Check(
            f"seed {seed}: best induction score at the end", float(score[-1]), low=0.5, why="half of all attention"
        )
        yield Check(
            f"seed {seed}: best induction score at a third of the formation",
            float(score.sel(epoch=run.formation / 3, method="nearest")),
            high=0.1,
            why="evenly spread attention gives 0.02",
        )
        yield Check(
            f"seed {seed}: loss of repeated tokens at the end over log V",
            float(losses["repeated"][-1]) / np.log(run.settings.model.vocabulary),
            high=0.25,
            why="1 without copying; 1/2 is where a gate is steepest",
        )
        yield Check(
            f"seed {seed}: smallest loss of fresh tokens over log V",
            float(losses["fresh"].min()) / np.log(run.settings.model.vocabulary),
            low=1 - 4 * 0.3 / np.sqrt(248),
            why="nothing predicts them: log V, less four standard errors of 248 tokens that spread by 0.3 log V",
        )
        yield Check(f"seed {seed}: step of formation", run.formation)
        series.append(Series(f"seed {seed}", score["epoch"].values, score.values))
    yield Plot("Induction score of the best head", "step", "score", tuple(series))


@claim(
    "repeated-pairs-rise",
    'The influence between repeated tokens "undergoes a sudden, large increase" as induction heads form, and the '
    "induction score rises first.",
    source="paper D.2 (Fig. 15)",
    compares=(numerics("sampling per token, three runs"), numerics("attention patterns")),
    metric="correlation and covariance at the formation over those before",
    cost=Cost.FULL,
)
def repeated_pairs_rise(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the levels before and at the formation."""
    for run in _runs(experiment):
        seed, (before, at, _) = run.settings.seed, _phases(run)
        correlation, error = _line(run, "correlation", "repeated - repeated")
        covariance, _ = _line(run, "covariance", "repeated - repeated")
        top = np.flatnonzero(at)[int(np.argmax(correlation[at]))]
        rise = correlation[top] - correlation[before].mean()
        spread = float(np.hypot(error[top], np.sqrt(np.square(error[before]).sum()) / before.sum()))
        yield Check(
            f"seed {seed}: correlation at the formation less its mean before",
            float(rise),
            low=0.0,
            why="no change; three standard errors of block and chain means decide",
            error=spread,
        )
        yield Check(
            f"seed {seed}: largest covariance at the formation over that before",
            float(covariance[at].max() / np.abs(covariance[before]).max()),
            low=10.0,
            why="a tenfold rise, the order of magnitude that makes it a step",
        )
        mixed, _ = _line(run, "covariance", "fresh - repeated")
        for words, place in (("early, while token frequencies are learned", 0), ("at the formation", top)):
            yield Check(
                f"seed {seed}: covariance of repeated tokens over that with fresh ones, {words}",
                float(covariance[place] / np.abs(mixed[place])),
            )
        half = correlation[top] / 2
        rises = run.sampled_steps[int(np.argmax(correlation > half))]
        score = run.best_score
        scored = float(score["epoch"][int(np.argmax(score.values > 2 * score.values[:20].mean()))])
        yield Check(
            f"seed {seed}: steps from the doubling of the induction score to half of the correlation's peak",
            float(rises) - scored,
            low=0.0,
            why="the score comes first, or at the same checkpoint of 25 steps",
        )


@claim(
    "peak-and-plateau",
    'The correlation between repeated tokens rises suddenly, "peaking and then stabilizing".',
    source="paper D.2 (Fig. 15)",
    compares=(theory("a gate: its covariance peaks, its correlation does not"), numerics("three runs")),
    metric="level long after the formation, over the peak at it and less that before",
    corrected="the covariance peaks while copying is learned and then falls fivefold or more; the correlation rises "
    "and does not fall back to where it was",
    readings=(Reading(_NORMALISED, right=True), Reading(_RAW)),
    cost=Cost.FULL,
)
def peak_and_plateau(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the levels at and after the formation."""
    for run in _runs(experiment):
        seed, (before, at, after) = run.settings.seed, _phases(run)
        covariance, spread = _line(run, "covariance", "repeated - repeated")
        correlation, error = _line(run, "correlation", "repeated - repeated")
        yield Check(
            f"seed {seed}: covariance at the end over its peak",
            float(covariance[-1] / covariance[at].max()),
            high=0.2,
            why="it falls at least fivefold; a gate's falls to nothing",
            reading=_RAW,
            roomy=REFUTES,
            error=float(spread[-1] / covariance[at].max()),
        )
        fall = correlation[after].mean() - correlation[before].mean()
        yield Check(
            f"seed {seed}: correlation long after the formation less that before",
            float(fall),
            low=0.0,
            reading=_NORMALISED,
            why="0 if it fell back, as the covariance does; three standard errors of block and chain means decide",
            error=float(np.hypot(*(np.sqrt(np.square(error[part]).sum()) / part.sum() for part in (before, after)))),
        )
        yield Check(
            f"seed {seed}: correlation long after the formation over its largest at it",
            float(correlation[after].mean() / correlation[at].max()),
        )
        where = run.sampled_steps[at][int(np.argmax(covariance[at]))]
        yield Check(
            f"seed {seed}: loss of repeated tokens where the covariance peaks, over log V",
            float(run.losses["repeated"].sel(epoch=where)) / np.log(run.settings.model.vocabulary),
            low=0.1,
            high=0.9,
            why="1/2 for a gate; few checkpoints of 25 steps lie on the way, so neither before nor after is all",
        )
        scaled = covariance / covariance.max(), correlation / correlation.max()
        yield Plot(
            f"Repeated tokens with repeated tokens of other sequences, seed {seed}",
            "step",
            "relative to the largest",
            (
                Series("covariance", run.sampled_steps, scaled[0], 2 * spread / covariance.max()),
                Series("correlation", run.sampled_steps, scaled[1], 2 * error / correlation.max()),
            ),
        )


@claim(
    "others-stay",
    'The influence "between non-repeated segments or across non-repeated and repeated segments shows no such change".',
    source="paper D.2 (Fig. 15)",
    compares=(numerics("sampling per token, three runs"), numerics("the same before the formation")),
    metric="covariance of fresh tokens at the formation over that before",
    corrected="fresh tokens covary more too when the model begins to copy, since copying is wrong for them; their "
    "change is smaller than that of repeated tokens",
    readings=(Reading(_PRINTED),),
    cost=Cost.FULL,
)
def others_stay(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare the levels of fresh tokens before and at the formation."""
    for run in _runs(experiment):
        seed, (before, at, _) = run.settings.seed, _phases(run)
        fresh, spread = _line(run, "covariance", "fresh - fresh")
        repeated, _ = _line(run, "covariance", "repeated - repeated")
        top = np.flatnonzero(at)[int(np.argmax(fresh[at]))]
        yield Check(
            f"seed {seed}: covariance of fresh tokens at the formation less its mean before",
            float(fresh[top] - fresh[before].mean()),
            low=0.0,
            why="0 if it showed no change; three standard errors decide",
            reading=_PRINTED,
            error=float(np.hypot(spread[top], np.sqrt(np.square(spread[before]).sum()) / before.sum())),
        )
        yield Check(
            f"seed {seed}: its peak over that of repeated tokens",
            float(fresh[at].max() / repeated[at].max()),
            high=1.0,
            why="the change is smaller than that of repeated tokens",
        )


@claim(
    "printed-draws",
    "Four chains of 200 draws at the printed step 1e-6 suffice for the 30 nearest neighbours of a token.",
    source="paper Table 2, D.1.3",
    compares=(
        theory("law of the correlation of two chains that know nothing of each other"),
        numerics("printed chains"),
    ),
    metric="relaxation times, effective draws, and the noise of a pair's correlation",
    corrected="a chain is a tenth of a relaxation time long: 800 draws are worth some eight for a pair, and only means "
    "over many pairs survive",
    readings=(Reading(_STABILITY),),
    cost=Cost.FULL,
)
def printed_draws(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Sample the last checkpoint as printed, with a stability constant of 1."""
    run = _first_run(experiment)
    sampler = RMSPropSGLD(step_size=1e-6, n_beta=1024.0, localization=1000.0, stability=1.0)
    chains, draws = 4, 200
    times = sampler.step_size * sampler.localization * draws / 2
    yield Check(
        "relaxation times in a chain",
        times,
        high=1.0,
        why="below one a chain does not forget where it started",
        reading=_STABILITY,
        roomy=REFUTES,
    )
    effective = 1 + 1 / pair_noise(times, chains=chains, draws=draws) ** 2
    yield Check(
        "effective draws of a pair, of 800",
        effective,
        high=30.0,
        why="fewer independent numbers than the neighbours that they should choose among 33,000",
        reading=_STABILITY,
    )
    last = run.sampled_steps[-1:]
    found = run.draws_of(
        "printed", last, sampler=sampler, burn_in=0, batch_size=64, chains=chains, draws=draws, corpus_size=512
    )
    lengths = np.array([25, 50, 100, 200])
    exact = [pair_noise(times * k / draws, chains=chains // 2, draws=int(k)) for k in lengths]
    tokens = some_tokens(run)
    noise = [measured_noise(found, float(last[0]), tokens, int(k)) for k in lengths]
    yield Check(
        "noise of a pair from two chains, measured over that of unrelated chains",
        noise[-1] / exact[-1],
        low=0.5,
        high=1.15,
        why="1 where losses are linear; tokens that share steep directions, which relax faster, have less, not half",
    )
    level = run.influence["correlation"].sel(source="repeated", query="repeated").values[-1]
    yield Check(
        "noise of a pair from four chains over the mean correlation of repeated tokens",
        pair_noise(times, chains=chains, draws=draws) / float(level),
        low=3.0,
        why="a pair must exceed three deviations of its noise to be told from unrelated ones",
    )
    yield Plot(
        "Noise of the correlation of a pair, from two chains",
        "draws a chain",
        "standard deviation",
        (Series("measured", lengths, np.array(noise), style="points"), *curves(lengths, unrelated=np.array(exact))),
    )


@claim(
    "settings-of-the-sampler",
    '"The overall dynamics expressed by the BIF did not vary substantially among hyperparameters".',
    source="paper D.1.2",
    compares=(numerics("sampling per token at three settings"), numerics("each other")),
    metric="rise of the correlation of repeated tokens at each setting, spread of its level",
    cost=Cost.FULL,
)
def settings_of_the_sampler(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Sample before and after the formation at a weaker localization and at a lower temperature."""
    run = _first_run(experiment)
    places = [1, -1]  # a hundred steps before the formation, and the last
    steps, own = run.sampled_steps[places], run.settings.sampler
    levels = []
    for n_beta, localization in ((256.0, 5000.0), (1024.0, 5000.0), (1024.0, 2500.0)):
        sampler = replace(own, n_beta=n_beta, localization=localization)
        if sampler == own:
            found = run.influence.isel(epoch=places)
        else:
            found = run.influence_of(run.draws_of("settings", steps, sampler=sampler))
        pair = found.sel(source="repeated", query="repeated")
        errors = np.fmax(pair["correlation_error"].values, pair["correlation_chain_error"].values)
        value = pair["correlation"].values
        levels.append(value[1])
        yield Check(
            f"n_beta {n_beta:g}, localization {localization:g}: correlation after formation less that before",
            float(value[1] - value[0]),
            low=0.0,
            why="it rises at every setting",
            error=float(np.hypot(*errors)),
        )
    yield Check("largest level over the smallest", float(max(levels) / min(levels)))


# --- what it costs, and what remains without a sampler -------------------------------------------------------------


@claim(
    "no-extra-cost",
    'Influence "at the level of individual tokens rather than sequences incurs no additional computational cost".',
    source="paper 4",
    compares=(numerics("CPU time of recording every token"), numerics("of recording sequences, and of a bare step")),
    metric="ratios of CPU times, median of rounds in turn",
    corrected="recording tokens costs what recording sequences does; but recording 600 sequences beside gradients of "
    "64 costs some three times the gradients",
    readings=(Reading(_SEQUENCES, right=True), Reading(_NOTHING)),
    cost=Cost.FULL,
)
def no_extra_cost(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Time steps with the printed ratio of recorded sequences to those of a batch, on a model of initial weights."""
    token, sequence, bare = recording_times(seed=experiment.settings.seed)
    yield Check(
        "step that records every token over one that records the means of sequences",
        float(np.median(token / sequence)),
        high=1.1,
        reading=_SEQUENCES,
        why="1; writing four bytes a token takes less than a tenth of computing its loss",
    )
    yield Check(
        "step that records every token over one that records nothing",
        float(np.median(token / bare)),
        low=2.0,
        reading=_NOTHING,
        why="1 if it cost nothing; by count 1 + 600 / (3 x 64) = 4.1, a backward pass being two forward ones",
    )


@claim(
    "cosine-limit",
    "Under strong localization the correlation of two tokens' losses is the cosine of their gradients.",
    source="ours",
    compares=(numerics("gradients of every token"), numerics("sampling per token at localization 1e7")),
    metric="difference of means over kinds of pairs in standard errors",
    cost=Cost.FULL,
)
def cosine_limit(experiment: ToyExperiment) -> Iterator[Check | Plot]:
    """Compare both at the formation and at the last checkpoint."""
    run = _first_run(experiment)
    steps = np.array([run.formation, run.sampled_steps[-1]])
    # Step x localization = 2: each step forgets the last, so that all draws are independent.
    sampler = SGLD(step_size=2e-7, n_beta=1.0, localization=1e7)
    sampled = run.influence_of(run.draws_of("limit", steps, sampler=sampler, burn_in=2))
    limit = class_gradient_cosine(
        token_samples(run.sequences.ids), run.checkpoints.at(steps), run.classes, apart="sequence"
    )
    for step in steps:
        for pair, (source, query) in GROUPS_OF_PAIRS.items():
            found, exact = (table.sel(epoch=step, source=source, query=query) for table in (sampled, limit))
            error = float(found["correlation_error"])
            yield Check(
                f"step {step:g}, {pair}: sampled mean correlation less mean cosine",
                float(found["correlation"] - exact["correlation"]),
                low=-3 * error - 1.5 * error - 0.02 * abs(float(exact["correlation"])),
                high=3 * error + 1.5 * error + 0.02 * abs(float(exact["correlation"])),
                why="0; the usual three standard errors, half as much again for the largest of six, and 2 % for "
                "terms of second order, float32 losses and blocks that hardly know their spread",
                error=error,
            )
    yield Check(
        "mean cosine of repeated tokens at the last checkpoint",
        float(limit["correlation"].sel(source="repeated", query="repeated")[-1]),
        low=0.01,
        why="what is compared is not 0; evenly spread directions give less than 1e-4",
    )
