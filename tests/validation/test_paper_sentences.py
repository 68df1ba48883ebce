"""The paper's sentences: each is tested by claims that exist, or says why not."""

from validation import all_claims
from validation.paper_sentences import SENTENCES, quotes


def test_every_sentence_has_claims_that_exist_or_a_reason():
    known = {claim.identifier for claim in all_claims()}
    assert len(SENTENCES) >= 115
    for sentence in SENTENCES:
        assert set(sentence.claims) <= known, sentence
        assert bool(sentence.claims) != bool(sentence.reason), sentence
        assert len(set(sentence.claims)) == len(sentence.claims)
        assert not (sentence.untested and sentence.reason), sentence


def test_no_sentence_stands_twice_and_every_section_is_there():
    assert len({s.text for s in SENTENCES}) == len(SENTENCES)
    sections = " ".join(s.section for s in SENTENCES)
    for section in (
        "2.1",
        "2.2",
        "2.3",
        "3",
        "4",
        "A.1",
        "A.2",
        "B",
        "C.1",
        "C.2",
        "C.3",
        "C.4",
        "C.5",
        "C.6",
        "D.1.2",
        "D.1.3",
        "D.2",
    ):
        assert section in sections


def test_every_claim_about_the_paper_is_tied_to_one_of_its_sentences():
    """Claims of our own need none; those that refute a printed statement must name it."""
    used = {identifier for sentence in SENTENCES for identifier in sentence.claims}
    for claim in all_claims():
        if claim.source.startswith("paper") and "ours" not in claim.source:
            assert claim.identifier in used, claim.identifier
        if claim.corrected:
            assert claim.identifier in used, claim.identifier


def test_quotes_are_the_sentences_of_a_claim():
    assert [s.section for s in quotes("sign-flips")] == ["2.3"]
    assert quotes("no-such-claim") == ()
