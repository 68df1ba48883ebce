"""Colours can be told apart by readers with normal, protan, deutan and tritan vision."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from paper_figs.style import (
    BRANCH_COLOURS,
    GROUND,
    GROUP_COLOURS,
    LEVEL_COLOURS,
    SAMPLE_COLOURS,
    SAMPLE_DASHES,
    contrast,
    text_colour,
)
from theory import hierarchical_dataset

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def lab(colour, vision):
    """Return the CIELAB coordinates (D65) of an sRGB colour as seen with `vision`."""
    encoded = np.array(to_rgb(colour))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISION[vision] @ linear, 0, 1)
    x = TO_XYZ @ seen / [0.95047, 1.0, 1.08883]
    f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def hue(colour):
    _, a, b = lab(colour, "normal")
    return np.degrees(np.arctan2(b, a)) % 360


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "colours",
    [SAMPLE_COLOURS, GROUP_COLOURS, dict(enumerate(LEVEL_COLOURS))],
    ids=["samples", "groups", "levels"],
)
def test_colours_differ_clearly(colours, vision):
    # A difference of 2.3 is just noticeable side by side (Mahy et al. 1994); eight times that is clear for thin lines.
    for a, b in combinations(colours, 2):
        assert np.linalg.norm(lab(colours[a], vision) - lab(colours[b], vision)) > 8 * 2.3, (a, b)


def test_hues_follow_the_branches_of_the_tree():
    names = hierarchical_dataset().names
    assert tuple(SAMPLE_COLOURS) == tuple(SAMPLE_DASHES) == names
    gap = lambda a, b: abs((hue(SAMPLE_COLOURS[a]) - hue(SAMPLE_COLOURS[b]) + 180) % 360 - 180)  # noqa: E731
    within = [gap(a, b) for a, b in zip(names[::2], names[1::2], strict=True)]
    between = [gap(a, b) for a, b in combinations(names, 2) if names.index(a) // 2 != names.index(b) // 2]
    assert max(within) < min(between)


def test_groups_have_the_colours_of_their_branches():
    assert {
        "plants": BRANCH_COLOURS["plant"],
        "birds": BRANCH_COLOURS["bird"],
        "cat": SAMPLE_COLOURS["cat"],
    } == GROUP_COLOURS


@pytest.mark.parametrize("vision", VISION)
def test_samples_are_far_apart_for_every_reader(vision):
    # Thirteen times a just noticeable difference of 2.3; dog and pine were nine apart for protan readers.
    for a, b in combinations(SAMPLE_COLOURS, 2):
        assert np.linalg.norm(lab(SAMPLE_COLOURS[a], vision) - lab(SAMPLE_COLOURS[b], vision)) > 13 * 2.3, (a, b)


def test_contrast_is_that_of_wcag():
    # The standard's own end points, and grey #767676, which it gives as the lightest that passes on white.
    assert contrast("white", "black") == contrast("black", "white") == pytest.approx(21, abs=1e-12)
    assert contrast("#767676") >= 4.5 > contrast("#777777")


@pytest.mark.parametrize("colour", [*SAMPLE_COLOURS.values(), *GROUP_COLOURS.values(), "#FFFF00", "white"])
def test_text_in_a_colour_can_be_read_and_keeps_its_hue(colour):
    readable = text_colour(colour)
    assert min(contrast(readable), contrast(readable, GROUND)) >= 4.5
    if contrast(colour, GROUND) >= 4.5:
        assert readable == colour.lower()
    # darkening scales the three channels alike, up to the rounding of each to 1 / 255
    channels, darker = np.array(to_rgb(colour)), np.array(to_rgb(readable))
    share = darker.max() / channels.max()
    assert np.abs(darker - share * channels).max() <= 1.01 / 255


def test_levels_get_lighter_from_the_root_down_and_stand_out_of_the_page():
    lightness = [lab(colour, "normal")[0] for colour in LEVEL_COLOURS]
    assert lightness == sorted(lightness)
    assert min(map(contrast, LEVEL_COLOURS)) >= 2.9, "WCAG asks 3 of graphics; labels name these lines too"
