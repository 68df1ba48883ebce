"""Every testable sentence of the paper's sections 2-4 and appendices A-D, verbatim, with the claims that test it.

Letters that are lost in the text at hand stand in brackets, cuts are marked by dots. Sentences that define, motivate or
describe a set-up without a consequence are left out; those of a kind that could be tested and are not have their reason
beside them.
"""

from __future__ import annotations

from validation.paper import appendix_ab, appendix_c, appendix_d, section_2, section_3, section_4
from validation.paper.sentence import Bearing, Evidence, Sentence

__all__ = ["SENTENCES", "Bearing", "Evidence", "Sentence", "quotes"]

SENTENCES: tuple[Sentence, ...] = (
    *section_2.SENTENCES,
    *section_3.SENTENCES,
    *section_4.SENTENCES,
    *appendix_ab.SENTENCES,
    *appendix_c.SENTENCES,
    *appendix_d.SENTENCES,
)


def quotes(claim: str) -> tuple[Sentence, ...]:
    """Return the sentences that a claim tests."""
    return tuple(sentence for sentence in SENTENCES if claim in sentence.claims)
