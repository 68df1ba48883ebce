"""Every testable sentence of the paper's sections 2-3 and appendices A-C."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SENTENCES", "Sentence"]


@dataclass(frozen=True)
class Sentence:
    """A sentence of the paper.

    Parameters
    ----------
    section
        Where it stands.
    text
        What it says, shortened.
    claims
        Ids of the claims that test it.
    reason
        Why no claim does, if none.
    """

    section: str
    text: str
    claims: tuple[str, ...] = ()
    reason: str = ""


SENTENCES: tuple[Sentence, ...] = ()
