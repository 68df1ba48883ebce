"""Texts, cut into tokens, that show what each class of tokens is: the paper's (Fig. 13) and some of our own."""

from __future__ import annotations

import numpy as np
import xarray as xr

from numerics import TOKEN_CLASSES, induction_pattern, text_classes
from theory.trajectories import labelled_array

__all__ = ["classified_examples"]

_EXAMPLES = (
    ("wavelength", ("The", " wa", "vel", "ength", " and", " differe", "nces")),
    ("headings and blank lines", ("####", " Results", "\n\n", "-----", "\n", "- ", "item")),
    ("a formula", ("f", "((", "x", ")=", "0", ")", " [", "W", "]=", "J")),
    ("A B ... A B", (" A", "B", " then", " C", " A", "B", " C", " A", "B")),
    ("quotes and apostrophes", ("She", ' "', "didn", "'t", '"', " say", " 'so", "'", ".")),
    ("code", ("def", " get", "_val", "ue", "(self", "):", "\n", "    ", "return", " {", "}", "\n")),
)


def classified_examples() -> xr.Dataset:
    """Return which tokens of the examples belong to which class, dims (example, place, class).

    Returns
    -------
    xarray.Dataset
        ``token``, dims (example, place), empty beyond an example's end, and ``member`` (0 or 1), dims (example, place,
        class).

    Examples
    --------
    >>> found = classified_examples().sel(example="wavelength")
    >>> found["token"].values[found["member"].sel({"class": "word part"}).values == 1].tolist()
    [' wa', 'vel', ' differe']
    """
    longest = max(len(tokens) for _, tokens in _EXAMPLES)
    words = np.full((len(_EXAMPLES), longest), "", dtype=object)
    member = np.zeros((len(_EXAMPLES), longest, len(TOKEN_CLASSES)), np.int64)
    for row, (_, tokens) in enumerate(_EXAMPLES):
        words[row, : len(tokens)] = tokens
        stops = np.cumsum([len(token) for token in tokens])
        found = text_classes("".join(tokens), np.stack([stops - [len(t) for t in tokens], stops], axis=1))
        ids = np.unique(np.array([token.strip() for token in tokens]), return_inverse=True)[1]
        found["induction pattern"] = np.concatenate([[False], induction_pattern(ids[None])[0]])
        for column, name in enumerate(TOKEN_CLASSES):
            member[row, : len(tokens), column] = found[name]
    coords = {"example": [name for name, _ in _EXAMPLES], "place": np.arange(longest)}
    token = labelled_array(words.astype(str), coords, "token")
    return xr.Dataset({"token": token, "member": labelled_array(member, coords | {"class": TOKEN_CLASSES}, "member")})
