"""Sentences of section 4, language models."""

from __future__ import annotations

from validation.paper.sentence import Bearing, Evidence, Sentence

__all__ = ["SENTENCES"]

SENTENCES: tuple[Sentence, ...] = (
    Sentence(
        "4",
        "computing influence at the level of individual tokens rather than sequences incurs no additional "
        "computational cost",
        (Evidence("no-extra-cost"),),
    ),
    Sentence(
        "4",
        "finding non-monotonic influence trajectories, with large changes in magnitude, sign flips, and peaks that "
        "correspond to known developmental changes like the formation of the induction circuit",
        (
            Evidence("repeated-pairs-rise"),
            Evidence("copying-gate"),
        ),
        untested=(
            "the Pythia models, and sign flips: the claims see the change at induction in models of two attention "
            "layers"
        ),
    ),
    Sentence(
        "4",
        "the formation of model structures capturing induction relationships in the BIF starts as early as 1000 steps"
        " into learning, and continues to strengthen for the next 30k training steps before appearing to peak and "
        "fall",
        reason="A statement about Pythia, whose weights are not here; Figure 5 takes a folder of them.",
    ),
    Sentence(
        "4",
        "Both classes appear among high-influence tokens for the other class very early in training, but this "
        "relationship quickly inverts, with tokens from the opposite delimiter class progressively becoming "
        "increasingly negative as the model learns to distinguish between these classes.",
        reason="A statement about Pythia, whose weights are not here; Figure 5 takes a folder of them.",
    ),
    Sentence(
        "4",
        "We also see increasing influence between left and right delimiters and related classes that may perform "
        "similar roles in structuring text.",
        reason="A statement about Pythia, whose weights are not here; Figure 5 takes a folder of them.",
    ),
    Sentence(
        "4",
        "Left delimiters share high influence with parts of words but not the ends of words, while right delimiters "
        "share uplifted influence with ends of words but not word parts.",
        reason="A statement about Pythia, whose weights are not here; Figure 5 takes a folder of them.",
    ),
    Sentence(
        "4",
        "These relationships are also visible in the reverse direction (from word parts / word ends to left / right "
        "delimiters).",
        (
            Evidence(
                "bif-is-a-susceptibility",
                Bearing.FOR,
                "they must be: a second derivative of the free energy does not tell source from query, so that the "
                "reverse direction is the same number",
            ),
        ),
    ),
    Sentence(
        "4",
        "with a particularly notable spike in the relationship between word parts and left delimiters later in model "
        "training",
        reason="A statement about Pythia, whose weights are not here; Figure 5 takes a folder of them.",
    ),
    Sentence(
        "4",
        "influence between different classes of tokens is not a static property but a dynamic one that evolves "
        "throughout training",
        (Evidence("repeated-pairs-rise"),),
        untested="the structural classes of text: the claim is about repeated and fresh tokens",
    ),
    Sentence(
        "4",
        "the influence related to induction patterns exhibits a non-monotonic peak that aligns with the known "
        "developmental phase transition for this circuit",
        (
            Evidence("repeated-pairs-rise"),
            Evidence("peak-and-plateau"),
        ),
        untested="the Pythia models",
    ),
    Sentence(
        "4",
        "the relationship between left and right delimiters undergoes a sign flip, indicating a qualitative shift in "
        "how the model processes scope and pairing",
        reason="A statement about Pythia, whose weights are not here; Figure 5 takes a folder of them.",
    ),
    Sentence(
        "4, Fig. 5",
        "We observe structural relationships between tokens reflected in influence patterns between classes, "
        "including strong intra-class relationships, development of induction, and relationships between word "
        "elements and corresponding delimiter token classes.",
        reason="A statement about Pythia, whose weights are not here; Figure 5 takes a folder of them.",
    ),
)
