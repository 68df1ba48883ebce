"""The HTML report: self-contained, complete, true to the run, and looked at in a real browser at three widths."""

import html
import re
from contextlib import contextmanager
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from devtools import CHROMIUM, Page

from validation import PAIRS, Claim, ToyExperiment, run_ledger, select_claims
from validation.charts import Plot, curves
from validation.page import write_html
from validation.page.mathml import formula
from validation.page.prose import mathematics
from validation.registry import Check, Reading, numerics, retraining, theory
from validation.sentence_verdicts import judge_sentences

NARROW, MIDDLE, WIDE = 390, 768, 1280
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, so the report is not opened in one")


def made_up(name, check, corrected="", readings=()):
    plot = Plot("A <title> & more", "x", "y", curves(np.arange(3), a=[1, 2, 3]))

    def measure(_):
        yield check
        yield plot
        yield plot

    ways = (theory("x^2 < 1"), numerics("b"), retraining("c"))
    return Claim(name, 'A statement with <tags> & "quotes".', "ours", ways, "metric", measure, corrected, readings)


@pytest.fixture(scope="module")
def ledger():
    """Return a run with every verdict, pairs and a matrix."""
    why = (
        "a bound from very far away, with a_reason_that_has_no_blanks_and_is_longer_than_any_narrow_screen_is_wide " * 2
    )
    claims = [
        *select_claims(
            ["singular-structure", "mode-strengths", "printed-initial", "closed-form-loo", "levels-in-order"]
        ),
        made_up("it-fails", Check("q", 3.0, high=2.0, why="because <so>")),
        made_up("who-knows", Check("q" * 60, 1.0, high=2.0, why=why, error=1.0)),
        made_up(
            "wrong-in-print",
            Check("q", np.inf, low=-1.2345e-12, why="because", reading="as <it> stands"),
            "what <holds>",
            (Reading("as <it> stands"),),
        ),
    ]
    measures = ["LOO closed form", "sample-weight", "LOO retrained", "kernel"]
    return run_ledger("A <report>", ToyExperiment(), claims=claims, pairs=PAIRS[:2], measures=measures)


@pytest.fixture(scope="module")
def page(ledger, tmp_path_factory):
    """Return the path of its report."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(path, ledger)
    return path


class Outline(HTMLParser):
    """Collects what a page is made of."""

    void = ("meta", "link", "br")

    def __init__(self):
        super().__init__()
        self.ids, self.targets, self.sources, self.verdicts, self.open = [], [], [], [], []
        self.headings, self.unnamed = [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.targets += [attrs["href"]] if tag == "a" else []
        self.sources += [attrs[k] for k in ("src", "href") if k in attrs and tag != "a"]
        self.verdicts += [attrs["data-verdict"]] if tag == "article" else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.unnamed += [tag] if tag == "svg" and not attrs.get("aria-label") else []
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.void or self.open.pop() == tag


def outline(path):
    parser = Outline()
    parser.feed(path.read_text())
    assert parser.open == []  # every element is closed, in order
    return parser


def test_the_page_asks_for_nothing_outside_itself(page):
    found = outline(page)
    assert all(source.startswith("data:") for source in found.sources)
    text = page.read_text()
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|<iframe|<img|https?://", text)


def test_every_claim_is_there_with_its_verdict_and_every_link_finds_its_target(page):
    found = outline(page)
    assert found.verdicts == ["holds", "holds", "depends", "holds", "holds", "fails", "inconclusive", "wrong"]
    assert len(set(found.ids)) == len(found.ids)
    assert {target[1:] for target in found.targets} <= set(found.ids)
    assert all(target.startswith("#") for target in found.targets)


def test_headings_descend_by_one_and_drawings_have_a_text(page):
    found = outline(page)
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(found.headings, found.headings[1:], strict=False))
    assert found.unnamed == []


def test_text_is_escaped_and_every_part_present(page):
    text = page.read_text()
    for word in (
        "A &lt;report&gt;",
        "&lt;tags&gt; &amp; &quot;quotes&quot;",
        "because &lt;so&gt;",
        "what &lt;holds&gt;",
        "The experiment in one picture",
        "The paper, sentence by sentence",
        "Measures of influence",
        "Pairs that were judged",
        "Words and symbols",
        "What holds instead.",
        "<b>wrong</b>: as &lt;it&gt; stands",
        "<b>right</b>: weights that start balanced",
        "<blockquote>",
        "smallest fault",
        "<math",
    ):
        assert word in text, word
    assert "<tags>" not in text
    assert "python -m validation --only it-fails --seed 0" in text
    assert "Partial report" not in text


def test_beside_a_sentence_stands_what_its_claims_in_this_run_say(page, ledger):
    text = page.read_text()
    rows = re.findall(
        r'<li class="sentence (\w+)" data-verdict="(\w+)"><p class="verdict"><span class="badge (\w+)"', text
    )
    results = judge_sentences(ledger.claims)
    assert rows == [(str(result.verdict),) * 3 for result in results]
    counted = {result.verdict: [r.verdict for r in results].count(result.verdict) for result in results}
    assert len(counted) > 2
    for verdict, count in counted.items():
        assert f"</i> {verdict} <b>{count}</b></button>" in text
        assert f"</i>{count} {verdict}</span>" in text
    assert text.count("<b>not run</b>") == sum(vote.result is None for r in results for vote in r.votes)


def test_a_report_of_other_data_says_nothing_of_the_paper(tmp_path):
    ledger = run_ledger("Own data", ToyExperiment(), pairs=PAIRS[:1])
    write_html(tmp_path / "own.html", ledger)
    text = (tmp_path / "own.html").read_text()
    assert "The paper" not in text.replace("The paper: Lee", "")
    assert "LOO closed form" in text
    assert 'class="filtered"' not in text


def seen(text):
    """Return the words of a sentence with its formulas in brackets, without their mark-up."""
    marked = re.sub(r"<math>(.*?)</math>", lambda m: f"[{re.sub('<[^>]*>', '', m[1])}]", mathematics(text))
    return html.unescape(marked)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a mode s_k of a network", "a mode [sk] of a network"),
        ("falls as e^{-2 s t / tau} does", "falls as [e\u22122stτ] does"),
        ("by W2^T u alone", "by [W2Tu] alone"),
        ("A = U^T U' and a = 1e-4", "[A=UTU\u2032] and [a=10\u22124]"),
        ("log(n) / n falls below 1", "[log(n)n] falls below 1"),
        ("A quadratic of curvature h, I think, x 3", "A quadratic of curvature h, I think, x 3"),
        ("8 x 8 of a + or - sign", "8 \u00d7 8 of a + or - sign"),
        ("Gauss-Newton, a lambda-balanced one, C.1, 5 %", "Gauss-Newton, a lambda-balanced one, C.1, 5 %"),
        ("products U g(S) V^T do not see it", "products [Ug(S)VT] do not see it"),
        ("(|Cov_U| + |Cov_V|)^2 of two phases", "[(|CovU|+|CovV|)2] of two phases"),
        ("an unclosed (s_k of <b>", "an unclosed ([sk] of <b>"),
    ],
)
def test_formulas_are_found_in_sentences(text, read):
    assert seen(text) == read


def test_formulas_are_set_and_wrong_ones_refused():
    set_ = formula("-(n_beta / N) Cov(l_i, l_j)")
    assert "<mfrac><msub><mi>n</mi><mi>&beta;</mi></msub><mi>N</mi></mfrac>" in set_
    assert formula("x < 1") == "<math><mi>x</mi><mo>&lt;</mo><mn>1</mn></math>"
    for wrong, word in [("(a", "is missing"), ("a /", "lacks"), ("/ b", "lacks"), ("_k", "stand on"), ("a)", "closes")]:
        with pytest.raises(ValueError, match=word):
            formula(wrong)


# --- in a browser --------------------------------------------------------------------------------------------------

PROBES = Path(__file__).with_name("probes.js").read_text()


@contextmanager
def opened(path, folder, width=WIDE, **options):
    """Open the report with the probes at hand."""
    with Page(path, Path(mkdtemp(dir=folder)), width, **options) as view:
        view.run(f"{PROBES}; 0")
        yield view


@browser
def test_a_filter_shows_what_it_says_and_its_counts_agree(page, tmp_path):
    with opened(page, tmp_path) as view:
        found = view.run("filters()")
        assert view.messages == []
    assert {entry["section"] for entry in found} == {"sentences", "claims"}
    assert {e["verdict"] for e in found if e["section"] == "claims"} == {
        "all", "holds", "wrong", "depends", "inconclusive", "fails"
    }  # fmt: skip
    totals = {e["section"]: e["said"] for e in found if e["verdict"] == "all"}
    for entry in found:
        total, name = totals[entry["section"]], entry["section"]
        assert entry["pressed"] == [entry["verdict"]]
        assert entry["wrong"] == entry["empty"] == 0
        if entry["verdict"] == "all":
            assert entry["status"] == f"{total} of {total} {name}"
        else:
            assert entry["unfolded"]
            assert entry["shown"] == entry["said"] == entry["by_group"]
            assert entry["status"] == f"{entry['said']} of {total} {name} shown"
    for name, total in totals.items():
        assert total == sum(e["said"] for e in found if e["section"] == name and e["verdict"] != "all")


@browser
def test_families_fold_and_a_link_finds_what_is_folded_or_filtered(page, tmp_path):
    ids = "shown('article').map((e) => e.id)"
    with opened(page, tmp_path) as view:
        assert view.run(ids) == ["it-fails", "who-knows", "wrong-in-print"]  # what fails is not folded
        view.run("document.querySelector('#claims [data-fold]').click()")
        assert len(view.run(ids)) == 8
        view.run("document.querySelector('#claims [data-fold]').click()")
        assert view.run(ids) == []
        view.run("document.querySelector('#claims [data-show=fails]').click()")
        assert view.run(ids) == ["it-fails"]
        view.run("location.hash = '#mode-strengths'; new Promise((done) => setTimeout(done, 100))")
        assert "mode-strengths" in view.run(ids)
        assert 0 <= view.run("document.getElementById('mode-strengths').getBoundingClientRect().top") < 300
        assert view.run("document.querySelector('#claims output').textContent") == "8 of 8 claims"
        # The header of a family stays in sight while its claims are read.
        view.run("scrollBy(0, 200)")
        assert view.run("document.querySelector('details[open] > summary:has(h3)').getClientRects().length") > 0


@browser
def test_printing_unfolds_everything_and_leaves_what_was_open(page, tmp_path):
    state = "[...document.querySelectorAll('details')].map((box) => box.open)"
    with opened(page, tmp_path) as view:
        before = view.run(state)
        view.run("dispatchEvent(new Event('beforeprint'))")
        assert all(view.run(state))
        view.run("dispatchEvent(new Event('afterprint'))")
        assert view.run(state) == before
        pages = len(re.findall(rb"/Type\s*/Page[^s]", view.pdf()))
        assert 6 <= pages <= 25  # of 8 claims and every sentence
        assert view.run(state) == before


@browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [NARROW, MIDDLE, WIDE])
def test_nothing_is_cut_off_or_faint_at_three_widths_light_and_dark(page, tmp_path, width, dark):
    with opened(page, tmp_path, width, dark=dark) as view:
        view.run("openAll()")
        assert view.run("document.documentElement.scrollWidth <= innerWidth")
        assert view.run("cut()") == []
        assert view.run("faint()") == []
        drawings = view.run("shown('svg').map((e) => e.getBoundingClientRect().width)")
        assert len(drawings) == page.read_text().count("<svg") > 10
        assert min(drawings) > 150
        dark_ground = view.run("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark_ground is dark
        assert view.messages == []


@browser
def test_paper_is_light_and_its_matrix_whole(page, tmp_path):
    with opened(page, tmp_path, 695, dark=True, media="print") as view:  # A4 less its margins
        assert view.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        view.run("openAll()")
        assert view.run("cut('')") == []
        assert view.run("faint()") == []
        assert view.run("shown('.filter, .contents').length") == 0


@browser
def test_the_browser_tests_can_fail(page, tmp_path):
    """A wrong count, a text that is cut, one that is faint, a drawing that is none: each is seen."""
    text = page.read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(re.sub(r"(data-show=\"fails\".*?<b>)1", r"\g<1>2", text, count=1))
    with opened(broken, tmp_path) as view:
        assert any(entry["said"] != entry["shown"] for entry in view.run("filters()") if entry["verdict"] != "all")
    style = "<style>.checks td:nth-child(7) { white-space: nowrap; } .soft { color: #999; }</style></head>"
    broken.write_text(text.replace("</head>", style).replace(' d="M', ' d="N', 1))
    with opened(broken, tmp_path, NARROW) as view:
        view.run("openAll()")
        assert view.run("cut()")
        assert view.run("faint()")
        assert view.messages


def accessibility_engine():
    """Return the script of axe-core, from npm or from PyPI, or None."""
    places = [Path("node_modules/axe-core/axe.min.js")]
    if (spec := find_spec("axe_core_python")) and spec.origin:
        places.append(Path(spec.origin).with_name("axe.min.js"))
    return next((place.read_text() for place in places if place.exists()), None)


@browser
@pytest.mark.skipif(accessibility_engine() is None, reason="axe-core is not installed (pip install axe-core-python)")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_axe_finds_no_barrier(page, tmp_path, width, dark):
    with opened(page, tmp_path, width, dark=dark, media="") as view:
        view.run("openAll()")
        view.run(accessibility_engine() + "; 0")
        found = view.run("axe.run().then((result) => result.violations.map((v) => [v.id, v.nodes[0].html]))")
    assert found == []
