"""What a run says of each of the paper's sentences: supported, contradicted, partly or untested, by its claims.

A sentence is supported or contradicted only by all the claims that bear on it, so that a verdict never changes when
more of them are run: what is not decided yet is untested. Claims that disagree, or that support it with a condition,
make it partly right, and so does a part of it that nothing tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from validation.paper_sentences import SENTENCES, Bearing, Evidence, Sentence
from validation.registry import ClaimResult, Verdict

__all__ = ["SentenceResult", "SentenceVerdict", "Vote", "judge_sentences"]

_BEARING = {
    Verdict.HOLDS: Bearing.FOR,
    Verdict.WRONG: Bearing.AGAINST,
    Verdict.DEPENDS: Bearing.PARTLY,
    Verdict.IMPRECISE: Bearing.PARTLY,
}


class SentenceVerdict(StrEnum):
    """What a run says of a sentence."""

    SUPPORTED = "supported"
    PARTLY = "partly"
    CONTRADICTED = "contradicted"
    UNTESTED = "untested"


@dataclass(frozen=True)
class Vote:
    """What one claim says of a sentence in a run.

    Parameters
    ----------
    evidence
        The claim and how it bears on the sentence.
    result
        What the run found; None if it did not measure the claim.
    """

    evidence: Evidence
    result: ClaimResult | None = None

    @property
    def bearing(self) -> Bearing | None:
        """For, partly or against; None where the run decides nothing.

        A claim that should hold and fails speaks against what it would have spoken for. One that was to refute, and
        does not come out so, says nothing.
        """
        if self.result is None:
            return None
        verdict, expected = self.result.verdict, self.result.claim.expected
        if verdict is expected:
            return self.evidence.bearing or _BEARING[expected]
        if verdict is Verdict.FAILS and expected is Verdict.HOLDS and self.evidence.bearing in (None, Bearing.FOR):
            return Bearing.AGAINST
        return None


@dataclass(frozen=True)
class SentenceResult:
    """A sentence, what each of its claims says, and what follows."""

    sentence: Sentence
    votes: tuple[Vote, ...]

    @property
    def open(self) -> tuple[Vote, ...]:
        """The votes that this run does not decide."""
        return tuple(vote for vote in self.votes if vote.bearing is None)

    @property
    def verdict(self) -> SentenceVerdict:
        """The verdict that the votes add up to."""
        cast = {vote.bearing for vote in self.votes} - {None}
        if Bearing.PARTLY in cast or len(cast) > 1:
            return SentenceVerdict.PARTLY
        if self.open or not cast:
            return SentenceVerdict.UNTESTED
        if Bearing.AGAINST in cast:
            return SentenceVerdict.CONTRADICTED
        return SentenceVerdict.PARTLY if self.sentence.untested else SentenceVerdict.SUPPORTED


def judge_sentences(
    claims: Iterable[ClaimResult], sentences: Sequence[Sentence] = SENTENCES
) -> tuple[SentenceResult, ...]:
    """Return what a run says of each sentence.

    Parameters
    ----------
    claims
        What the run found.
    sentences
        All sentences of the paper if not given.

    Examples
    --------
    >>> results = judge_sentences([])  # nothing was run, so nothing is known
    >>> {str(result.verdict) for result in results}
    {'untested'}
    """
    found = {result.claim.identifier: result for result in claims}
    return tuple(
        SentenceResult(sentence, tuple(Vote(entry, found.get(entry.claim)) for entry in sentence.evidence))
        for sentence in sentences
    )
