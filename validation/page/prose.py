"""Sentences with formulas in plain notation among their words: the formulas are found and set, the words left alone.

A formula is a longest run of letters that stand alone, numbers, operators and balanced brackets, if something in it
cannot be prose: an index, a power, a Greek letter, or an operator between letters.
"""

from __future__ import annotations

import re
from html import escape

from validation.page.mathml import GREEK, formula

__all__ = ["mathematics"]

_SCRIPT = r"(?:[_^](?:\{[^{}]*\}|\([^()]*\)|-?[A-Za-z0-9]+))"
_LETTER = rf"(?:d?(?:{'|'.join(sorted(GREEK, key=len, reverse=True))})|d?[A-Z]|d[gstuvwx]|[a-z])\d*'?"
_WORDS = "Cov|Var|Sxx|Syx|diag|eig|exp|ln|log|max|min|skew|sum|sym|tr"
_TOKEN = re.compile(
    rf"""(?P<blank>\s+)
    |(?P<word>[A-Za-z]+(?:-[A-Za-z]+)+|[A-Za-z]+\.(?=\d))      # lambda-balanced, C.1
    |(?P<letter>(?:{_LETTER}|(?:{_WORDS}))(?![A-Za-z0-9]){_SCRIPT}*)(?![\w'])
    |(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?{_SCRIPT}*)(?![\w.]*[A-Za-z%])
    |(?P<operator><=|>=|[-+=/<>](?![A-Za-z]+-)|(?<=\s)\.(?=\s))
    |(?P<bracket>[][()|](?:{_SCRIPT})?)
    |(?P<comma>,(?=\s))
    |(?P<other>\w+|.)""",
    re.VERBOSE | re.DOTALL,
)
_OPEN, _CLOSE = "([", ")]"


def mathematics(text: str) -> str:
    """Return text as HTML in which formulas are MathML.

    Examples
    --------
    >>> mathematics("a loss < s_k^2, roughly")
    'a loss &lt; <math><msubsup><mi>s</mi><mi>k</mi><mn>2</mn></msubsup></math>, roughly'
    """
    tokens = [(match.lastgroup or "other", match[0]) for match in _TOKEN.finditer(text)]
    out, k = [], 0
    while k < len(tokens):
        end = _end_of_run(tokens, k)
        if end > k:
            out.append(_set("".join(part for _, part in tokens[k:end])))
            k = end
        else:
            out.append(escape(tokens[k][1]))
            k += 1
    return re.sub(r"(?<=\w) x (?=[\d(<])", " &times; ", "".join(out)).replace(" +- ", " &plusmn; ")


def _end_of_run(tokens: list[tuple[str, str]], start: int) -> int:
    """Return where the formula that starts at a token ends; `start` itself if none does."""
    kind, first = tokens[start]
    if kind not in ("letter", "number", "bracket", "operator") or first[0] in _CLOSE or _is_word(tokens, start):
        return start
    if kind == "operator" and first != "-":
        return start
    depth, bars, best = 0, 0, start
    for k in range(start, len(tokens)):
        kind, token = tokens[k]
        if kind in ("other", "word") or (kind == "comma" and depth == 0):
            break
        if kind == "bracket":
            depth += (token[0] in _OPEN) - (token[0] in _CLOSE)
            bars ^= token[0] == "|"
            if depth < 0:
                break
        whole = depth == 0 and not bars
        if whole and kind in ("letter", "number", "bracket") and not _is_word(tokens, k):
            best = k + 1
    return best if _surely(tokens[start:best]) else start


def _is_word(tokens: list[tuple[str, str]], k: int) -> bool:
    """Return whether a letter that stands alone is an article, or the sign of a product."""
    token = tokens[k][1]
    before = next((entry for entry in reversed(tokens[:k]) if entry[0] != "blank"), ("", ""))
    after = next((entry for entry in tokens[k + 1 :] if entry[0] != "blank"), ("", ""))
    if token in ("x", "o"):
        return after[0] in ("letter", "number", "bracket") and not after[1].startswith(token)
    if token not in ("a", "A", "I") or "operator" in (before[0], after[0]):
        return False
    return token == "a" or (before[0] not in ("letter", "bracket") and after[0] != "letter")


def _surely(run: list[tuple[str, str]]) -> bool:
    """Return whether a run cannot be prose."""
    if any("_" in token or "^" in token for _, token in run):
        return True
    letters = [token for kind, token in run if kind == "letter"]
    if any(re.fullmatch(rf"d?({'|'.join(GREEK)})\d*'?|d[A-Z]", token) for token in letters):
        return True
    named = [token for token in letters if not re.fullmatch(_WORDS, token)]
    return bool(named) and any(kind == "operator" for kind, _ in run)


def _set(run: str) -> str:
    """Return a run as MathML: digits after a letter are its index, x between blanks is a product."""
    plain = re.sub(r"\bd([A-Z]|" + "|".join(GREEK) + r")\b", r"d \1", run)
    plain = re.sub(r"\b([A-Za-z])(\d+)(?![\w.])", r"\1_\2", plain)
    plain = re.sub(r"\b([A-Za-z])(\d+)(?=[_^'])", r"\1_\2", plain)
    plain = re.sub(r"\bS(xx|yx)\b", r"S_{\1}", plain)
    plain = re.sub(r"(?<=\s)x(?=\s)(?! x)", "times", plain)
    plain = re.sub(r"(?<=\s)\.(?=\s)", "dot", plain)
    plain = re.sub(r"(?<=\s)o(?=\s)", "circ", plain)
    plain = re.sub(r"\^\(([^()]*)\)", r"^{\1}", plain)
    plain = re.sub(r"([_^])(-?[A-Za-z0-9]{2,})", lambda m: m[0] if m[2] in GREEK else m[1] + "{" + m[2] + "}", plain)
    plain = re.sub(r"([_^])(-\w)", r"\1{\2}", plain)
    try:
        return formula(plain)
    except ValueError:
        return escape(run)
