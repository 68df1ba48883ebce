"""The HTML report: self-contained, complete, and opened in a real browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from validation import PAIRS, Claim, ToyExperiment, run_ledger, select_claims
from validation.charts import Plot, curves
from validation.page import write_html
from validation.page.parts import mathematics
from validation.paper_sentences import SENTENCES
from validation.registry import Check, Reading, numerics, retraining, theory

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def made_up(name, check, corrected="", readings=()):
    plot = Plot("A <title> & more", "x", "y", curves(np.arange(3), a=[1, 2, 3]))

    def measure(_):
        yield check
        yield plot
        yield plot

    ways = (theory("x^2 < 1"), numerics("b"), retraining("c"))
    return Claim(name, 'A statement with <tags> & "quotes".', "ours", ways, "metric", measure, corrected, readings)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return the path of a report with every verdict, pairs and a matrix."""
    claims = [
        *select_claims(["singular-structure", "mode-strengths", "printed-initial", "closed-form-loo"]),
        made_up("it-fails", Check("q", 3.0, high=2.0, why="because <so>")),
        made_up("who-knows", Check("q", 1.0, high=2.0, why="because", error=1.0)),
        made_up(
            "wrong-in-print",
            Check("q", np.inf, low=2.0, why="because", reading="as <it> stands"),
            "what <holds>",
            (Reading("as <it> stands"),),
        ),
    ]
    measures = ["LOO closed form", "sample-weight", "LOO retrained", "kernel"]
    ledger = run_ledger("A <report>", ToyExperiment(), claims=claims, pairs=PAIRS[:2], measures=measures)
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(path, ledger)
    return path


class Outline(HTMLParser):
    """Collects what a page is made of."""

    void = ("meta", "link", "img", "br", "rect", "path", "circle")

    def __init__(self):
        super().__init__()
        self.ids, self.targets, self.sources, self.verdicts, self.open = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.targets += [attrs["href"]] if tag == "a" else []
        self.sources += [attrs[k] for k in ("src", "href") if k in attrs and tag != "a"]
        self.verdicts += [attrs["data-verdict"]] if tag == "article" else []
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
    assert found.sources
    assert all(source.startswith("data:") for source in found.sources)
    text = page.read_text()
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|<iframe", text)


def test_every_claim_is_there_with_its_verdict_and_links_find_it(page):
    found = outline(page)
    assert found.verdicts == ["holds", "holds", "depends", "holds", "fails", "inconclusive", "wrong"]
    assert len(set(found.ids)) == len(found.ids)
    inside = {target[1:] for target in found.targets if target.startswith("#")}
    assert inside & set(found.ids) >= {"it-fails", "closed-form-loo"}


def test_text_is_escaped_and_every_part_present(page):
    text = page.read_text()
    for word in (
        "A &lt;report&gt;",
        "&lt;tags&gt; &amp; &quot;quotes&quot;",
        "because &lt;so&gt;",
        "what &lt;holds&gt;",
    ):
        assert word in text
    assert "<tags>" not in text
    for word in (
        "Summary",
        "Measures of influence",
        "Pairs of measures",
        "What holds instead.",
        "<b>wrong</b>: as &lt;it&gt; stands",
        "<b>right</b>: weights that start balanced",
        "<blockquote>",
        "smallest fault",
        "x<sup>2</sup> &lt; 1",
    ):
        assert word in text
    assert "python -m validation --only it-fails --seed 0" in text
    assert "The paper's sentences" in text
    assert text.count("not run: ") > len(SENTENCES) / 2  # this run has four of the claims
    assert "Partial report" not in text


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("s_k^2", "s<sub>k</sub><sup>2</sup>"),
        ("e^{-2st/tau}", "e<sup>-2st/&tau;</sup>"),
        ("W2^T u", "W2<sup>T</sup> u"),
        ("n_beta gamma", "n<sub>&beta;</sub> &gamma;"),
        ("h^(-1/2) = 3", "h<sup>-1/2</sup> = 3"),
        ("Cov_U <= 1", "Cov<sub>U</sub> &le; 1"),
        ("64 eps times 8 x 8", "64 &epsilon; times 8 &times; 8"),
        ("Gauss-Newton, pick a lambda-balanced one", "Gauss-Newton, pick a lambda-balanced one"),
        ("<b>", "&lt;b&gt;"),
    ],
)
def test_mathematics_is_set(text, html):
    assert mathematics(text) == html


BEFORE = "window.wrong = []; addEventListener('error', (e) => wrong.push(String(e.message)), true);"
AFTER = """
addEventListener('load', () => {
  const visible = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.offsetParent !== null);
  const shown = () => visible('article').map((a) => a.id);
  const press = (verdict) => document.querySelector(`nav button[data-verdict=${verdict}]`).click();
  const found = { errors: wrong, all: shown() };
  const pictures = [...document.images];
  found.pictures = pictures.length;
  const drawn = (i) => i.complete && i.naturalWidth > 0 && i.getBoundingClientRect().width > 100;
  found.visible = pictures.filter(drawn).length;
  for (const verdict of ['fails', 'depends', 'wrong', 'holds',
  'inconclusive']) { press(verdict); found[verdict] = shown(); }
  found.pressed = [...document.querySelectorAll('nav button[aria-pressed=true]')].map((b) => b.dataset.verdict);
  found.headings = visible('section.family h2').length;
  location.hash = '#it-fails';
  setTimeout(() => {
    found.linked = shown();
    press('all');
    found.again = shown();
    found.wide = document.documentElement.scrollWidth <= innerWidth;
    const out = document.createElement('pre');
    out.id = 'found';
    out.textContent = JSON.stringify(found);
    document.body.append(out);
  }, 200);
});
"""


def browse(path, folder, *options):
    """Open a page in headless Chromium and return what the browser prints and logs."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000",
        f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=20000", *options,
        path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


def console_lines(log):
    return [line for line in log.splitlines() if ":CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, so the report is not opened in a browser")
def test_a_browser_shows_every_figure_filters_by_verdict_and_logs_no_error(page, tmp_path):
    plain = browse(page, tmp_path, "--dump-dom")
    assert console_lines(plain.stderr) == []
    probed = tmp_path / "probed.html"
    html = page.read_text().replace("<head>", f"<head><script>{BEFORE}</script>", 1)
    probed.write_text(html.replace("</body>", f"<script>{AFTER}</script></body>", 1))
    result = browse(probed, tmp_path, "--dump-dom")
    assert console_lines(result.stderr) == []
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', result.stdout, re.DOTALL)[1])
    everything = ["singular-structure", "mode-strengths", "printed-initial-strength", "closed-form-loo"]
    everything += ["it-fails", "who-knows", "wrong-in-print"]
    assert found["errors"] == []
    assert found["all"] == everything
    assert found["pictures"] == found["visible"] == 10
    assert found["fails"] == ["it-fails"]
    assert found["depends"] == ["printed-initial-strength"]
    assert found["wrong"] == ["wrong-in-print"]
    assert found["holds"] == ["singular-structure", "mode-strengths", "closed-form-loo"]
    assert found["inconclusive"] == ["who-knows"]
    assert found["pressed"] == ["inconclusive"]
    assert found["headings"] == 1
    assert found["linked"] == everything  # a link to a hidden claim shows it
    assert found["again"] == everything
    assert found["wide"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, so the report is not opened in a browser")
def test_the_browser_test_can_fail(page, tmp_path):
    """A picture that is none, and an error in a script, are both seen."""
    broken = tmp_path / "broken.html"
    html = page.read_text().replace("data:image/svg+xml;base64,", "data:image/svg+xml;base64,AAAA", 1)
    html = html.replace("<head>", f"<head><script>{BEFORE}</script>", 1)
    broken.write_text(html.replace("</body>", f"<script>{AFTER}</script><script>nothing.at.all()</script></body>", 1))
    result = browse(broken, tmp_path, "--dump-dom")
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', result.stdout, re.DOTALL)[1])
    assert found["visible"] == found["pictures"] - 1
    assert console_lines(result.stderr)
