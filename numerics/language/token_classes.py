"""What role a token has in giving structure to text, from the text and where each token stands in it (paper D.1.1).

The paper describes the classes in words; the rules here are our reading of them, and a token may be in several or none:

* *word part*, *word end*: a word is a longest run of letters and combining marks, in scripts that put spaces between
  words. Of the tokens that share a word the last is its end and the others are parts of it; the token of a word that
  has only one is neither, whatever else it holds. Digits, apostrophes, hyphens and underscores belong to no word.
* *formatting*: a token with a line break, tab or page break, with nothing but two or more spaces, or whose other
  characters all belong to runs of three or more equal ones that are no letters, digits or delimiters, or to the marks
  that begin a line of markdown (``#``, ``-``, ``*``, ``+``, ``>``) or make words bold (``**``, ``__``).
* *left delimiter*: a token with an opening bracket, a tag's ``<``, or the opening one of two quotation marks or runs of
  backticks that belong together. *Right delimiter*: one that closes what a left delimiter of the text opened. A
  straight quotation mark opens after a space, bracket or sign and closes after what is no space; between letters it is
  an apostrophe; one without a partner in its paragraph is neither. Two that enclose nothing beyond their own token
  count for nothing.
* *induction pattern*: a token whose predecessor is another token, which stood before the same token earlier in the
  sequence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

__all__ = ["TOKEN_CLASSES", "induction_pattern", "text_classes"]

TOKEN_CLASSES = ("word part", "word end", "formatting", "induction pattern", "left delimiter", "right delimiter")

_PAIRS = {"(": ")", "[": "]", "{": "}", "“": "”", "«": "»", "‹": "›", "「": "」", "『": "』", "【": "】", "（": "）"}
_CLOSING = {right: left for left, right in _PAIRS.items()}
_BEFORE_OPENING = set("([{<“‘«=,:;+-*/&|!?>~@#%^\\—–…$.`\"'")
# Delimiters, quotation marks, and the ends of tags. Paragraphs end where a line is blank.
_MARKS = re.compile(
    r"""[()\[\]{}“”«»‹›「」『』【】（）‘’]|"{3}|'{3}|["']|`+|</?[A-Za-z!][^<>\n]{0,200}>|\n[ \t]*\r?\n"""
)
_RUNS = re.compile(r"([^\w\s()\[\]{}<>\"'“”‘’«»])\1{2,}|_{3,}")
_LINE_MARKS = re.compile(r"^[ \t]*(?:(#{1,6}|[-*+]|>+)(?=[ \t])|([-*+])(?=[ \t]*$))", re.MULTILINE)
_BOLD = re.compile(r"(?<![\w*])(\*\*)(?=\S)|(?<=[^\s*])(\*\*)(?![\w*])|(?<!\w)(__)(?=\w)|(?<=\w)(__)(?!\w)")
# Scripts without spaces between words: Thai, Lao, Tibetan, Myanmar, Khmer, kana, Han, Yi.
_NO_SPACES = (
    *((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF)),
    *((0xA000, 0xA4CF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)


def text_classes(text: str, offsets: ArrayLike | Sequence[tuple[int, int]]) -> dict[str, Bool[np.ndarray, " tokens"]]:
    """Return which tokens of a document belong to each class that the text decides on.

    Parameters
    ----------
    text
        The whole document.
    offsets
        First character and the one after the last of every token, in order, as tokenizers give them, shape (tokens, 2).
        Tokens of bytes within a character share its place. White space between two tokens belongs to the later one,
        for tokenizers that leave it out of their offsets.

    Returns
    -------
    dict
        "word part", "word end", "formatting", "left delimiter", "right delimiter": booleans, shape (tokens,). The
        induction pattern depends on the sequence that a document is cut into, see `induction_pattern`.

    Raises
    ------
    ValueError
        If offsets do not lie in the text in order.

    Examples
    --------
    >>> found = text_classes("wavelength (x)", [(0, 2), (2, 5), (5, 10), (10, 12), (12, 13), (13, 14)])
    >>> {name: np.flatnonzero(members).tolist() for name, members in found.items()}
    {'word part': [0, 1], 'word end': [2], 'formatting': [], 'left delimiter': [3], 'right delimiter': [5]}
    """
    spans = _spans(text, offsets)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    part, end = _words(codes, spans)
    left, right = _delimiters(text, spans)
    formatting = _formatting(text, codes, spans)
    return {
        "word part": part,
        "word end": end,
        "formatting": formatting,
        "left delimiter": left,
        "right delimiter": right,
    }


def induction_pattern(ids: ArrayLike) -> Bool[np.ndarray, "n j"]:
    """Return which predictions of every sequence complete a pair of tokens that stood there before.

    Parameters
    ----------
    ids
        Token ids, shape (N, J + 1).

    Returns
    -------
    numpy.ndarray
        Booleans, shape (N, J): token k + 1 is another than token k, and followed it earlier in the same sequence.

    Examples
    --------
    >>> induction_pattern([[7, 8, 3, 7, 8, 8, 8, 8]]).astype(int).tolist()
    [[0, 0, 0, 1, 0, 0, 0]]
    """
    found = np.asarray(ids)
    if found.ndim != 2 or not found.size or found.shape[1] < 2 or found.dtype.kind not in "iu":
        raise ValueError(
            f"ids have shape {found.shape} and dtype {found.dtype}, but whole numbers (sequences, predictions + 1) are "
            "needed."
        )
    n, j = found.shape[0], found.shape[1] - 1
    numbers = np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int64)
    width = int(numbers.max()) + 1
    pairs = (numbers[:, :-1] * width + numbers[:, 1:]) + np.arange(n)[:, None] * width**2
    first = np.zeros(n * j, bool)
    first[np.unique(pairs.ravel(), return_index=True)[1]] = True
    return ~first.reshape(n, j) & (numbers[:, :-1] != numbers[:, 1:])


def _spans(text: str, offsets: ArrayLike | Sequence[tuple[int, int]]) -> Int[np.ndarray, "tokens 2"]:
    """Return where every token stands, with the white space before it."""
    given = np.asarray(offsets, dtype=np.int64).reshape(-1, 2) if len(np.asarray(offsets)) else np.empty((0, 2), int)
    spans = given.astype(np.int64)
    if len(spans) == 0:
        return spans
    if (spans < 0).any() or (spans > len(text)).any() or (spans[:, 0] > spans[:, 1]).any():
        wrong = int(np.flatnonzero((spans < 0).any(1) | (spans > len(text)).any(1) | (spans[:, 0] > spans[:, 1]))[0])
        raise ValueError(
            f"token {wrong} stands at {tuple(spans[wrong].tolist())}, which is not within a text of {len(text)} "
            "characters; give the text that was tokenised, as it was."
        )
    if (np.diff(spans[:, 0]) < 0).any() or (np.diff(spans[:, 1]) < 0).any():
        wrong = int(np.flatnonzero((np.diff(spans[:, 0]) < 0) | (np.diff(spans[:, 1]) < 0))[0]) + 1
        raise ValueError(
            f"token {wrong} stands before the one that precedes it; give offsets in the order of the text."
        )
    before = np.concatenate([[0], spans[:-1, 1]])
    for k in np.flatnonzero(before < spans[:, 0]):
        if text[before[k] : spans[k, 0]].isspace():
            spans[k, 0] = before[k]
    return spans


def _runs(inside: Bool[np.ndarray, " m"]) -> Int[np.ndarray, "runs 2"]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2)


def _of_characters(codes: np.ndarray, test: str) -> Bool[np.ndarray, " m"]:
    """Return which characters are of a category whose name begins with one of the letters of `test`."""
    distinct, place = np.unique(codes, return_inverse=True)
    return np.array([unicodedata.category(chr(code))[0] in test for code in distinct], dtype=bool)[place]


def _words(
    codes: np.ndarray, spans: Int[np.ndarray, "tokens 2"]
) -> tuple[Bool[np.ndarray, " tokens"], Bool[np.ndarray, " tokens"]]:
    part, end = np.zeros(len(spans), bool), np.zeros(len(spans), bool)
    if not len(codes) or not len(spans):
        return part, end
    letters = _of_characters(codes, "LM")
    for low, high in _NO_SPACES:
        letters &= ~((codes >= low) & (codes <= high))
    words = _runs(letters & _of_characters(codes, "LM"))
    if not len(words):
        return part, end
    # Token t touches word w if it ends after the word begins and begins before the word ends.
    first = np.searchsorted(spans[:, 1], words[:, 0], "right")
    last = np.searchsorted(spans[:, 0], words[:, 1], "left") - 1
    shared = last > first
    end[last[shared]] = True
    marks = np.zeros(len(spans) + 1, np.int64)
    np.add.at(marks, first[shared], 1)
    np.add.at(marks, last[shared], -1)
    part[:] = np.cumsum(marks[:-1]) > 0
    return part, end


def _touching(spans: Int[np.ndarray, "tokens 2"], where: Int[np.ndarray, "m 2"]) -> Bool[np.ndarray, " tokens"]:
    """Return which tokens share a character with one of the stretches."""
    marks = np.zeros(len(spans) + 1, np.int64)
    if len(where):
        first = np.searchsorted(spans[:, 1], where[:, 0], "right")
        last = np.searchsorted(spans[:, 0], where[:, 1], "left")
        real = last > first
        np.add.at(marks, first[real], 1)
        np.add.at(marks, last[real], -1)
    return np.cumsum(marks[:-1]) > 0


def _formatting(text: str, codes: np.ndarray, spans: Int[np.ndarray, "tokens 2"]) -> Bool[np.ndarray, " tokens"]:
    if not len(codes) or not len(spans):
        return np.zeros(len(spans), bool)
    breaks = np.isin(codes, [ord(c) for c in "\n\r\t\f\v\x85\u2028\u2029"])
    distinct, place = np.unique(codes, return_inverse=True)
    spaces = np.array([chr(code).isspace() for code in distinct], dtype=bool)[place]
    marks = np.zeros(len(codes), bool)
    for pattern in (_RUNS, _LINE_MARKS, _BOLD):
        for match in pattern.finditer(text):
            group = match.lastindex if pattern is not _RUNS else 0
            marks[match.start(group or 0) : match.end(group or 0)] = True

    def count(where: Bool[np.ndarray, " m"]) -> Int[np.ndarray, " tokens"]:
        total = np.concatenate([[0], np.cumsum(where)])
        return total[spans[:, 1]] - total[spans[:, 0]]

    length, white, marked = spans[:, 1] - spans[:, 0], count(spaces), count(marks)
    only_marks = (marked > 0) & (marked + white >= length)
    return (count(breaks) > 0) | ((white >= 2) & (white == length)) | only_marks


def _delimiters(
    text: str, spans: Int[np.ndarray, "tokens 2"]
) -> tuple[Bool[np.ndarray, " tokens"], Bool[np.ndarray, " tokens"]]:
    """Pair marks with a stack: brackets over the whole document, quotation marks and backticks within a paragraph."""
    stack: list[tuple[str, int, int]] = []
    pairs: list[tuple[int, int, int, int]] = []
    lonely: list[tuple[int, int]] = []

    def close(kind: str, start: int, stop: int) -> bool:
        for depth in range(len(stack) - 1, -1, -1):
            within_string = (
                kind in _PAIRS and stack[depth][0] == '"' and text.find('"', stop, _line_end(text, stop)) >= 0
            )
            if within_string:
                return False
            if stack[depth][0] == kind:
                _, first, last = stack[depth]
                pairs.append((first, last, start, stop))
                # A quotation mark that a closing bracket or another mark passed over has no partner.
                lonely.extend((a, b) for k, a, b in stack[depth + 1 :] if k in _PAIRS)
                del stack[depth:]
                return True
        return False

    for match in _MARKS.finditer(text):
        mark, start, stop = match.group(), match.start(), match.end()
        if mark[0] == "\n":
            # Brackets, code blocks and triple quotes go on over blank lines; other quotation marks end without partner.
            stack[:] = [entry for entry in stack if entry[0] in _PAIRS or len(entry[0]) >= 3]
        elif mark in _PAIRS:
            stack.append((mark, start, stop))
        elif mark in _CLOSING:
            close(_CLOSING[mark], start, stop)
        elif mark == "‘":
            stack.append((mark, start, stop))
        elif mark == "’":
            if not _between_letters(text, start, stop):
                close("‘", start, stop)
        elif mark[0] == "<":
            pairs.append((start, start + 1, stop - 1, stop))
        elif mark[0] == "`":
            if not close(mark, start, stop):
                stack.append((mark, start, stop))
        else:
            _straight(text, mark, start, stop, stack, close)
    lonely.extend((a, b) for kind, a, b in stack if kind in _PAIRS)
    left, right = [list(place) for place in lonely], []
    token = np.searchsorted(spans[:, 1], [[a, c] for a, _, c, _ in pairs] or np.empty((0, 2)), "right")
    for (a, b, c, d), (opening, closing) in zip(pairs, token, strict=True):
        if opening != closing or opening >= len(spans):
            left.append([a, b])
            right.append([c, d])
    empty = np.empty((0, 2), np.int64)
    # Tokens touched by any of the stretches; these may overlap, so each counts by itself.
    return _touching(spans, np.array(left) if left else empty), _touching(spans, np.array(right) if right else empty)


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _between_letters(text: str, start: int, stop: int) -> bool:
    return start > 0 and stop < len(text) and text[start - 1].isalnum() and text[stop].isalnum()


def _straight(
    text: str,
    mark: str,
    start: int,
    stop: int,
    stack: list[tuple[str, int, int]],
    close: Callable[[str, int, int], bool],
) -> None:
    """Open or close with a straight quotation mark, or see that it is an apostrophe, a prime or an inch."""
    before = text[start - 1] if start else " "
    after = text[stop] if stop < len(text) else " "
    is_open = any(kind == mark for kind, _, _ in stack)
    if len(mark) == 3:
        if not (is_open and close(mark, start, stop)):
            stack.append((mark, start, stop))
        return
    if _between_letters(text, start, stop) and not (is_open and mark == '"'):
        return
    may_open = (before.isspace() or before in _BEFORE_OPENING) and not after.isspace()
    empty = is_open and stack[-1] == (mark, start - 1, start)  # "" encloses nothing, but closes
    if is_open and (not before.isspace() or empty) and not (may_open and after.isalnum() and before.isspace()):
        close(mark, start, stop)
    elif may_open:
        stack.append((mark, start, stop))
