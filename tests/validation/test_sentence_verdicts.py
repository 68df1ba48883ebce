"""What a run says of a sentence follows from all its claims, and never changes when more of them are run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from validation.paper_sentences import SENTENCES, Bearing, Evidence, Sentence
from validation.registry import Check, Claim, ClaimResult, Reading, numerics, theory
from validation.sentence_verdicts import SentenceResult, SentenceVerdict, Vote, judge_sentences

WAYS = (theory("a"), numerics("b"))
OUTCOMES = {
    "as expected": (Check("q", 1.0, high=2.0, reading="r"),),
    "inconclusive": (Check("q", 1.9, high=2.0, error=1.0, reading="r"),),
    "fails": (Check("q", 3.0, high=2.0, reading="r"),),
}
KINDS = {
    "holds": {},
    "wrong": {"corrected": "c", "readings": (Reading("r"),)},
    "depends": {"corrected": "c", "readings": (Reading("r"), Reading("s", right=True))},
    "imprecise": {"corrected": "c"},
}


def result(kind, outcome="as expected", name="c"):
    claim = Claim(name, "S.", "ours", WAYS, "m", lambda _: (), **KINDS[kind])
    checks = OUTCOMES[outcome]
    if not claim.readings:
        checks = tuple(Check(c.quantity, c.measured, high=c.high, error=c.error) for c in checks)
    if kind == "depends":
        checks += (Check("q", 1.0, high=2.0, reading="s"),)
    return ClaimResult(claim, checks)


def vote(kind, outcome="as expected", bearing=None):
    return Vote(Evidence("c", bearing, "because" if bearing else ""), result(kind, outcome))


@pytest.mark.parametrize(
    ("kind", "bearing"),
    [("holds", "for"), ("wrong", "against"), ("depends", "partly"), ("imprecise", "partly")],
)
def test_a_claim_that_comes_out_as_expected_speaks_by_its_verdict(kind, bearing):
    assert vote(kind).bearing == bearing
    assert vote(kind, "inconclusive").bearing is None
    assert Vote(Evidence("c")).bearing is None  # not run


def test_a_claim_that_fails_speaks_against_only_what_it_would_have_supported():
    assert vote("holds", "fails").bearing == "against"
    assert vote("holds", "fails", Bearing.FOR).bearing == "against"
    assert vote("holds", "fails", Bearing.AGAINST).bearing is None  # what contradicted it is itself not so
    assert vote("holds", "fails", Bearing.PARTLY).bearing is None
    for kind in ("wrong", "depends", "imprecise"):
        assert vote(kind, "fails").bearing is None


@pytest.mark.parametrize("bearing", list(Bearing))
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_bearing_of_its_own_stands_above_the_verdict(kind, bearing):
    assert vote(kind, bearing=bearing).bearing is bearing


VOTES = st.sampled_from(["for", "partly", "against", "open"])
MADE = {
    "for": vote("holds"),
    "partly": vote("depends"),
    "against": vote("wrong"),
    "open": Vote(Evidence("c")),
}


def verdict(votes, untested=""):
    sentence = Sentence("1", "s", tuple(MADE[v].evidence for v in votes), "" if votes else "none does", untested)
    return SentenceResult(sentence, tuple(MADE[v] for v in votes)).verdict


def test_every_verdict_by_hand():
    assert verdict([]) == "untested"
    assert verdict(["open"]) == verdict(["for", "open"]) == verdict(["against", "open"]) == "untested"
    assert verdict(["for"]) == verdict(["for", "for"]) == "supported"
    assert verdict(["for"], "half of it") == "partly"
    assert verdict(["against", "against"]) == "contradicted"
    assert verdict(["against"], "half of it") == "contradicted"
    assert verdict(["for", "against"]) == verdict(["partly"]) == verdict(["partly", "open"]) == "partly"


@given(st.lists(VOTES, max_size=5), st.booleans(), st.randoms(use_true_random=False))
def test_a_verdict_depends_on_no_order_and_outlives_more_runs(votes, part, random):
    untested = "half of it" if part else ""
    before = verdict(votes, untested)
    shuffled = list(votes)
    random.shuffle(shuffled)
    assert verdict(shuffled, untested) == before
    more = [random.choice(["for", "partly", "against"]) if v == "open" and random.random() < 0.5 else v for v in votes]
    if before is not SentenceVerdict.UNTESTED:
        assert verdict(more, untested) == before


def test_a_link_alone_supports_nothing():
    assert {r.verdict for r in judge_sentences([])} == {SentenceVerdict.UNTESTED}
    name = SENTENCES[0].claims[0]
    found = judge_sentences([result("holds", name=name)])
    assert found[0].verdict is SentenceVerdict.SUPPORTED
    found = judge_sentences([result("holds", "fails", name=name)])
    assert found[0].verdict is SentenceVerdict.CONTRADICTED
    assert [v.result is None for v in found[0].votes] == [False]


def test_a_bearing_needs_its_reason():
    with pytest.raises(ValueError, match="needs a bearing and why, or neither"):
        Evidence("c", Bearing.FOR)
    with pytest.raises(ValueError, match="needs a bearing and why, or neither"):
        Evidence("c", why="because")
    assert np.all([bool(e.why) == (e.bearing is not None) for s in SENTENCES for e in s.evidence])
