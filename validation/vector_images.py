"""SVG as matplotlib writes it, made small enough to stand a hundred times in one page: no ids, classes, short paths."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from html import escape

import numpy as np

__all__ = ["compact", "thin"]

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_TOKEN = re.compile(r"[MLCQz]|-?\d+\.?\d*(?:e-?\d+)?")


def compact(image: bytes, palette: Sequence[str], label: str) -> str:
    """Return an SVG element without ids, styles and clip paths, to stand within an HTML page.

    Parameters
    ----------
    image
        SVG by matplotlib, with text as text.
    palette
        Colours that become the classes c0, c1, ...; every other one becomes the class "axis".
    label
        What the image shows, for those who do not see it.

    Examples
    --------
    >>> svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g id="line"><path d="M 1.04 2 L 3 4.06" '
    >>> svg += b'style="fill: none; stroke: #0072b2"/></g></svg>'
    >>> compact(svg, ["#0072B2"], "a line")
    '<svg viewBox="0 0 9 9" role="img" aria-label="a line"><path class="line c0" d="M1 2l2 2.1"/></svg>'
    """
    root = ET.fromstring(image)
    classes = {colour.lower(): f"c{k}" for k, colour in enumerate(palette)}
    shapes = {entry.get("id"): entry for part in root.iter(f"{_SVG}defs") for entry in part}
    pieces: list[tuple[str, str]] = []  # class and path, or the empty class and an element
    _collect(root, shapes, classes, pieces)
    merged: dict[str, str] = {}  # frame and ticks are one path, and so are the points of one colour
    for k, (style, text) in enumerate(pieces):
        name = style if style == "line axis" or style.startswith("points") else f"{k} {style}"
        merged[name] = merged.get(name, "") + text
    parts = [(name.lstrip("0123456789").strip(), text) for name, text in merged.items()]
    body = "".join(f'<path class="{style}" d="{text}"/>' if style else text for style, text in parts)
    return f'<svg viewBox="{root.get("viewBox")}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _collect(
    parent: ET.Element, shapes: dict[str | None, ET.Element], classes: dict[str, str], out: list[tuple[str, str]]
) -> None:
    for entry in parent:
        if entry.tag == f"{_SVG}g":
            _collect(entry, shapes, classes, out)
        elif entry.tag == f"{_SVG}path":
            out.append((_class_of(entry, classes), _path(entry.get("d", ""))))
        elif entry.tag == f"{_SVG}use":
            shape = shapes[entry.get(_LINK, "").lstrip("#")]
            x, y = (float(entry.get(name, 0)) for name in "xy")
            both = ET.Element("path", style=f"{shape.get('style', '')};{entry.get('style', '')}")
            style, d = _class_of(both, classes), shape.get("d", "")
            if "C" in d:  # a round marker: a line without length has a round end
                out.append((f"points {style.split()[-1]}", f"M{_short(x)} {_short(y)}h0"))
            else:
                style = style if "z" in d else style.replace("bar", "line")
                out.append((style, _path(d, (x, y))))
        elif entry.tag == f"{_SVG}text":
            out.append(("", _text(entry)))


def _styles(entry: ET.Element) -> dict[str, str]:
    pairs = (part.split(":", 1) for part in entry.get("style", "").split(";") if ":" in part)
    return {name.strip(): value.strip() for name, value in pairs}


def _class_of(entry: ET.Element, classes: dict[str, str]) -> str:
    """Return what kind of shape it is and of which colour: "line c0", "line dashed axis", "area c1", "bar c2"."""
    style = _styles(entry)
    stroke, fill = style.get("stroke", "none"), style.get("fill", "#000000")
    if fill != "none" and stroke in ("none", fill):
        faint = any(float(style.get(name, 1)) < 1 for name in ("opacity", "fill-opacity"))
        return f"{'area' if faint else 'bar'} {classes.get(fill.lower(), 'axis')}"
    dashed = " dashed" if style.get("stroke-dasharray", "none") != "none" else ""
    return f"line{dashed} {classes.get(stroke.lower(), 'axis')}"


def _short(value: float) -> str:
    """Return a coordinate with one decimal and nothing that can be left out."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _path(d: str, shift: tuple[float, float] = (0.0, 0.0)) -> str:
    """Return a path in relative coordinates of one decimal; rounding does not add up along it."""
    tokens = _TOKEN.findall(d)
    out: list[str] = []
    run: list[tuple[float, float]] = []  # a line so far, from the last place that was written
    k, command = 0, ""
    while k < len(tokens):
        if tokens[k].isalpha():
            command, k = tokens[k], k + 1
        count = {"M": 1, "L": 1, "C": 3, "Q": 2, "z": 0}[command]
        values = [float(token) for token in tokens[k : k + 2 * count]]
        points = [(x + shift[0], y + shift[1]) for x, y in zip(values[::2], values[1::2], strict=True)]
        k += 2 * count
        if command == "L":
            run += points
            continue
        out.append(_lines(run))
        if command == "M":
            out.append(f"M{_short(points[0][0])} {_short(points[0][1])}")
        elif command == "z":
            out.append("z")
        else:
            out.append(command.lower() + _steps(run[-1], points))
        run = points[-1:] or run[-1:]
    return "".join(out) + _lines(run)


def _lines(points: list[tuple[float, float]]) -> str:
    """Return the lines through points, the first of which is where the pen is."""
    if len(points) < 2:
        return ""
    kept, steps = thin(points), []
    for before, point in itertools.pairwise(kept):
        steps.append(_steps(before, [point]))
    text = " ".join(step for step in steps if step != "0 0").replace(" -", "-")
    return f"l{text}" if text else ""


def _steps(start: tuple[float, float], points: list[tuple[float, float]]) -> str:
    x, y = (round(value, 1) for value in start)
    return " ".join(f"{_short(round(a, 1) - x)} {_short(round(b, 1) - y)}" for a, b in points).replace(" -", "-")


def thin(points: Sequence[tuple[float, float]], within: float = 0.12) -> list[tuple[float, float]]:
    """Return the points without those that lie within a distance of the line through their neighbours that stay.

    The algorithm of Ramer (1972), Douglas and Peucker (1973).

    Examples
    --------
    >>> thin([(0, 0), (1, 0.01), (2, 0), (3, 1)])
    [(0, 0), (2, 0), (3, 1)]
    """
    line = np.asarray(points, dtype=float)
    kept = np.zeros(len(line), dtype=bool)
    kept[[0, -1]] = True
    spans = [(0, len(line) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        along, away = line[last] - line[first], line[first + 1 : last] - line[first]
        length = float(np.hypot(*along))
        cross = along[0] * away[:, 1] - along[1] * away[:, 0]
        distance = np.abs(cross) / length if length else np.hypot(*away.T)
        # A line that turns back on itself has its ends apart from every chord.
        if length:
            place = away @ along / length
            distance = np.maximum(distance, np.maximum(-place, place - length))
        worst = int(np.argmax(distance))
        if distance[worst] > within:
            middle = first + 1 + worst
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    return [point for point, stays in zip(points, kept, strict=True) if stays]


def _text(entry: ET.Element) -> str:
    style = _styles(entry)
    anchor = {"middle": ' class="mid"', "end": ' class="end"'}.get(style.get("text-anchor", ""), "")
    move = entry.get("transform", "")
    turn = re.search(r"rotate\((-?[\d.]+)", move)
    angle = float(turn[1]) if turn else 0.0
    place = re.search(r"translate\((-?[\d.]+)[ ,]+(-?[\d.]+)", move)
    x, y = (float(place[1]), float(place[2])) if place else (float(entry.get("x", 0)), float(entry.get("y", 0)))
    words = escape("".join(entry.itertext()).strip())
    where = f'x="{_short(x)}" y="{_short(y)}"'
    if abs(angle) > 0.5:
        where = f'transform="translate({_short(x)} {_short(y)}) rotate({_short(angle)})"'
    return f"<text{anchor} {where}>{words}</text>"
