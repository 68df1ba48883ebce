"""Formulas of the house's plain notation, such as ``-(n_beta / N) Cov(l_i, l_j)``, as MathML that any browser sets.

A blank multiplies, ``_`` and ``^`` take the next letter, number or group, ``/`` makes a fraction of its two neighbours,
braces group without being seen and parentheses around a whole numerator or denominator vanish.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

__all__ = ["GREEK", "formula"]

GREEK = ("alpha", "beta", "gamma", "Delta", "Sigma", "eps", "eta", "lambda", "mu", "pi", "psi", "rho", "sigma", "tau")
_SIGNS = {
    "grad": "&nabla;",
    "sum": "&sum;",
    "prop": "&prop;",
    "dot": "&sdot;",
    "times": "&times;",
    "circ": "&SmallCircle;",
    "perp": "&perp;",
    "'": "&prime;",
    "without": "&setminus;",
    "-": "&minus;",
    "*": "&lowast;",
    "<=": "&le;",
    ">=": "&ge;",
}
_THIN = '<mspace width="0.17em"></mspace>'
_TOKEN = re.compile(r"((?<=[A-Za-z'])\()|(\d+\.?\d*(?:e-?\d+)?|[A-Za-z]+|<=|>=|\S)")
_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|"}


def formula(text: str, *, display: bool = False) -> str:
    """Return a formula in plain notation as a MathML element.

    Raises
    ------
    ValueError
        If a bracket is left open, or a fraction or script has nothing to stand on.

    Examples
    --------
    >>> formula("s_k^2 / tau")
    '<math><mfrac><msubsup><mi>s</mi><mi>k</mi><mn>2</mn></msubsup><mi>&tau;</mi></mfrac></math>'
    """
    tokens = iter(["apply" if call else token for call, token in _TOKEN.findall(text)])
    try:
        body = _row(tokens, "")
    except ValueError as error:
        raise ValueError(f"the formula {text!r} cannot be set: {error}") from None
    return f"<math{' display=' + chr(34) + 'block' + chr(34) if display else ''}>{body}</math>"


@dataclass
class _Part:
    """An element with its scripts; bare is what stands within its parentheses."""

    text: str
    bare: str = ""
    below: str = ""
    above: str = ""

    def __str__(self) -> str:
        if self.below and self.above:
            return f"<msubsup>{self.text}{self.below}{self.above}</msubsup>"
        if self.below:
            return f"<msub>{self.text}{self.below}</msub>"
        return f"<msup>{self.text}{self.above}</msup>" if self.above else self.text

    @property
    def inside(self) -> str:
        """The element as one numerator, denominator or script."""
        return self.bare if self.bare and not (self.below or self.above) else str(self)


def _row(tokens: Iterator[str], end: str) -> str:
    """Return what stands before a closing bracket, or the end."""
    parts: list[_Part] = []
    for token in tokens:
        if token == end:
            break
        if token == "apply" and parts:  # f(x) is one thing, which a fraction takes whole
            argument = _atom("(", tokens)
            parts[-1] = _Part(f"<mrow>{str(parts[-1]).removesuffix(_THIN)}{argument}</mrow>")
        elif token in ("_", "^"):
            if not parts or parts[-1].text == "/":
                raise ValueError(f"{token!r} has nothing to stand on.")
            script = _atom(next(tokens, end), tokens).inside
            parts[-1].text = parts[-1].text.replace(_THIN, "")
            if "<msup><mn>10" in parts[-1].text:
                parts[-1].text = f"<mrow><mo>(</mo>{parts[-1].text}<mo>)</mo></mrow>"
            if token == "_":
                parts[-1].below = script
            else:
                parts[-1].above = script
        else:
            parts.append(_atom(token, tokens))
    else:
        if end:
            raise ValueError(f"{end!r} is missing.")
    out: list[str] = []
    places = iter(parts)
    for part in places:
        if part.text != "/":
            out.append(str(part))
            last = part
            continue
        below = next(places, None)
        if not out or below is None:
            raise ValueError("a fraction lacks its numerator or denominator.")
        out[-1] = f"<mfrac>{last.inside}{below.inside}</mfrac>"
        last = _Part(out[-1])
    return "".join(out)


def _atom(token: str, tokens: Iterator[str]) -> _Part:
    if token in _CLOSING:
        inside = f"<mrow>{_row(tokens, _CLOSING[token])}</mrow>"
        if token == "{":
            return _Part(inside)
        stretch = ' stretchy="false"' if token == "|" else ""
        whole = f"<mrow><mo{stretch}>{token}</mo>{inside}<mo{stretch}>{_CLOSING[token]}</mo></mrow>"
        return _Part(whole, inside if token == "(" else "")
    if token == "/":
        return _Part(token)
    if not token or token in _CLOSING.values():
        raise ValueError(f"{token!r} closes nothing.")
    if token[0].isdigit():
        mantissa, _, exponent = token.partition("e")
        raised = str(int(exponent or 0)).replace("-", "&minus;")
        power = f"<msup><mn>10</mn><mn>{raised}</mn></msup>"
        times = "" if mantissa == "1" else f"<mn>{mantissa}</mn><mo>&times;</mo>"
        return _Part(f"<mrow>{times}{power}</mrow>" if exponent else f"<mn>{mantissa}</mn>")
    if token in GREEK:
        return _Part(f"<mi>&{'epsilon' if token == 'eps' else token};</mi>")
    if token in _SIGNS or not token.isalpha():
        return _Part(f"<mo>{_SIGNS.get(token, escape(token))}</mo>")
    if len(token) == 2 and token.islower() and token not in ("ln", "tr"):  # two indices, not a word
        return _Part(f"<mrow><mi>{token[0]}</mi><mi>{token[1]}</mi></mrow>")
    if len(token) > 1:
        return _Part(f"{_THIN}<mi>{token}</mi>{_THIN}")
    return _Part(f"<mi>{token}</mi>")
