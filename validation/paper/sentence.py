"""What an entry holds: a sentence of the paper, the claims that bear on it, and how."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Bearing", "Evidence", "Sentence"]


class Bearing(StrEnum):
    """What a claim that comes out as expected says of a sentence."""

    FOR = "for"
    PARTLY = "partly"
    AGAINST = "against"


@dataclass(frozen=True)
class Evidence:
    """A claim that bears on a sentence.

    Parameters
    ----------
    claim
        Its id.
    bearing
        What it says of the sentence if it comes out as expected; None where the verdict itself says it: a claim that
        holds speaks for the sentence, a refuted reading against it.
    why
        How the claim bears on the sentence, where the bearing is not that of its verdict.
    """

    claim: str
    bearing: Bearing | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if (self.bearing is None) != (not self.why):
            raise ValueError(f"evidence {self.claim!r} needs a bearing and why, or neither.")


@dataclass(frozen=True)
class Sentence:
    """A sentence of the paper.

    Parameters
    ----------
    section
        Where it stands.
    text
        What it says, verbatim; what stands in brackets is ours.
    evidence
        The claims that bear on it.
    reason
        Why none does, if none.
    untested
        The part of the sentence that no claim tests, where there is one.
    """

    section: str
    text: str
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    untested: str = ""

    @property
    def claims(self) -> tuple[str, ...]:
        """Ids of the claims that bear on it."""
        return tuple(entry.claim for entry in self.evidence)
