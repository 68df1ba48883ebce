"""A run of the ledger: order, interruption, the terminal's tables and JSON without NaN."""

import io
import json
import math
import multiprocessing
import time

import pytest
from rich.console import Console

from validation import PAIRS, Claim, ClaimResult, ToyExperiment, Verdict, run_ledger, select_claims
from validation.registry import Check, numerics, theory
from validation.report import bound, number, print_ledger, summary, tightest, write_json
from validation.second_process import SharedClaims

SOME = (theory("a"), numerics("b"))


def claim_of(name, measure, corrected=""):
    return Claim(name, f"Statement of {name}.", "ours", SOME, "metric", measure, corrected)


def holding(name):
    return claim_of(name, lambda _: [Check("q", 1.0, high=2.0, why="because")])


def interrupting(_):
    raise KeyboardInterrupt


def ledger_of(*claims, pairs=()):
    return run_ledger("A run", ToyExperiment(), claims=claims, pairs=pairs)


def test_entries_are_announced_before_and_reported_after():
    heard = []
    run_ledger(
        "A run",
        ToyExperiment(),
        claims=[holding("one"), holding("two")],
        started=lambda name: heard.append(f"start {name}"),
        finished=lambda name, verdict, seconds: heard.append(f"{name} {verdict} {seconds >= 0}"),
    )
    assert heard == ["start one", "one holds True", "start two", "two holds True"]


def test_an_interrupted_run_keeps_what_it_has_and_names_the_rest():
    ledger = ledger_of(holding("one"), claim_of("two", interrupting), holding("three"))
    assert [r.claim.identifier for r in ledger.claims] == ["one"]
    assert ledger.unfinished == ("two", "three")
    assert "Interrupted: 2 not measured." in summary(ledger)
    complete = ledger_of(holding("one"))
    assert complete.unfinished == ()
    assert "Interrupted" not in summary(complete)


def test_an_interrupted_matrix_is_unfinished_too(monkeypatch):
    monkeypatch.setattr("validation.runner.correlations", lambda *_, **__: interrupting(None))
    ledger = run_ledger("A run", ToyExperiment(), claims=[holding("one")], measures=["LOO closed form"])
    assert ledger.matrix is None
    assert ledger.unfinished == ("correlations of all measures",)


def test_counts_and_failure_come_from_pairs_and_claims():
    ledger = ledger_of(holding("one"), claim_of("two", lambda _: [Check("q", math.nan)]))
    assert ledger.verdicts == {Verdict.HOLDS: 1, Verdict.FAILS: 1}
    assert ledger.failed
    assert not ledger_of(holding("one")).failed
    unsure = ledger_of(claim_of("three", lambda _: [Check("q", 1.0, high=2.0, error=1.0)]))
    assert unsure.inconclusive
    assert not unsure.failed
    assert not ledger.inconclusive


def test_json_has_everything_and_no_nan(tmp_path):
    def measure(_):
        return [Check("q", math.inf, low=1.0, why="because", error=math.nan)]

    ledger = ledger_of(
        holding("one"), claim_of("two", measure, corrected="what holds"), claim_of("three", interrupting)
    )
    write_json(tmp_path / "out.json", ledger)
    document = json.loads((tmp_path / "out.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert document["complete"] is False
    assert document["unfinished"] == ["three"]
    assert [c["id"] for c in document["claims"]] == ["one", "two"]
    assert document["claims"][0]["checks"][0] == {
        "quantity": "q", "measured": 1.0, "low": None, "high": 2.0, "why": "because", "error": 0.0, "reading": "",
        "roomy": "",
        "verdict": "holds", "use": 0.5,
    }  # fmt: skip
    assert document["claims"][1]["checks"][0]["measured"] is None
    assert document["claims"][1]["corrected"] == "what holds"
    assert document["claims"][0]["compares"] == [{"way": "theory", "what": "a"}, {"way": "numerics", "what": "b"}]
    assert document["settings"]["sampler"]["step_size"] == 1e-4
    assert document["verdicts"] == {"holds": 1, "fails": 1}


def printed(ledger, *, details):
    console = Console(width=200, record=True, file=io.StringIO())
    print_ledger(console, ledger, details=details)
    return console.export_text()


def test_the_tables_name_everything():
    claims = select_claims(["closed-form-loo", "printed-span"])
    pairs = [p for p in PAIRS if p.measure in ("LOO closed form", "paper-P1") and p.reference != "derivative retrained"]
    ledger = ledger_of(*claims, pairs=pairs)
    text = printed(ledger, details=False)
    for word in (
        "closed-form-loo",
        "≷ depends on the reading",
        "LOO closed form",
        "Pearson",
        "expected, and why",
        "3/3",
    ):
        assert word in text
    assert "what holds instead" not in text
    assert "what holds instead" in printed(ledger, details=True)


def test_what_fails_is_printed_in_full_even_in_the_short_table():
    def measure(_):
        yield Check("a lost sign", -1.0, low=0.9, why="it should be one")
        raise ValueError("and then [it] broke.")

    text = printed(ledger_of(claim_of("broken", measure)), details=False)
    assert "it should be one" in text
    assert "and then [it] broke." in text  # brackets are no markup


def test_the_check_that_decides_is_shown():
    def result(*checks):
        return ClaimResult(holding("one"), checks)

    loose, tight = Check("loose", 0.1, high=1.0), Check("tight", 0.9, high=1.0)
    assert tightest(result(loose, tight)) is tight
    assert tightest(result(Check("far", 9.0, low=1.0), Check("near", 1.1, low=1.0))).quantity == "near"
    assert tightest(result(Check("mid", 1.0, 0.0, 2.0), Check("edge", 1.9, 0.0, 2.0))).quantity == "edge"
    assert tightest(result(Check("far", -9.0, high=-1.0), Check("near", -1.1, high=-1.0))).quantity == "near"
    assert tightest(result(tight, Check("bad", 3.0, high=2.0))).quantity == "bad"
    assert tightest(result(Check("reported", 3.0))) is None


def test_numbers_and_bounds_read_well():
    assert [number(x) for x in (0.0, 12.0, 1e-20, 0.123456, 0.99991)] == ["0", "12", "1e-20", "0.123", "0.9999"]
    assert bound(Check("q", 1.0, low=1.0, high=1.0)) == "= 1"
    assert bound(Check("q", 1.0, low=0.5)) == "≥ 0.5"
    assert bound(Check("q", 1.0)) == "-"


def quick_and_own(names):
    """Return some claims of the ledger with a claim of a user's own between them."""
    first, *rest = select_claims(names)
    return first, holding("own"), *rest


@pytest.mark.slow  # a process of its own
def test_two_processes_find_what_one_does_in_the_same_order():
    claims = quick_and_own(["singular-structure", "balance", "sgld-law", "deep-chains", "robust-to-the-step"])
    heard = []
    settings = {"claims": claims, "finished": lambda name, *_: heard.append(name)}
    both = run_ledger("A run", ToyExperiment(), processes=2, **settings)
    one = run_ledger("A run", ToyExperiment(), **settings)
    assert [r.claim.identifier for r in both.claims] == [c.identifier for c in claims]
    assert [r.checks for r in both.claims] == [r.checks for r in one.claims]
    assert sorted(heard) == sorted(2 * [c.identifier for c in claims])
    assert both.unfinished == ()


@pytest.mark.slow  # a process of its own
def test_what_a_second_process_that_dies_had_is_measured_by_the_first(monkeypatch):
    started = []

    def kill(name):
        started.append(name)
        if name == "deep-chains":  # handed to the second process, which is the only child
            for child in multiprocessing.active_children():
                child.kill()

    def waiting(_):
        while "deep-chains" not in started:
            time.sleep(0.05)
        return [Check("q", 1.0, high=2.0, why="because")]

    claims = [claim_of("own", waiting), *select_claims(["deep-chains"])]
    ledger = run_ledger("A run", ToyExperiment(), claims=claims, processes=2, started=kill)
    assert [(r.claim.identifier, r.verdict) for r in ledger.claims] == [("own", "holds"), ("deep-chains", "holds")]
    assert not multiprocessing.active_children()


@pytest.mark.slow  # a process of its own
def test_an_interrupted_run_ends_its_second_process():
    started = []

    def interrupt(_):
        while "mini-batches-are-unbiased" not in started:
            time.sleep(0.05)
        raise KeyboardInterrupt

    claims = [claim_of("own", interrupt), *select_claims(["mini-batches"])]
    ledger = run_ledger("A run", ToyExperiment(), claims=claims, processes=2, started=started.append)
    assert ledger.unfinished == ("own", "mini-batches-are-unbiased")
    assert not multiprocessing.active_children()


def test_claims_that_share_long_runs_stay_in_one_process():
    shared = SharedClaims(select_claims(["copying-gate", "deep-chains", "cosine-limit"]), None)
    names = {claim.identifier: k for k, claim in enumerate(shared.claims)}
    assert shared._last() == names["cosine-limit"]  # the second process begins the family of language models
    assert shared.next() == names["deep-chains"]
    assert shared.next() is None
    assert shared._last() == names["copying-gate"]
