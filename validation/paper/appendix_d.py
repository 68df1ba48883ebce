"""Sentences of appendix D, language models in detail."""

from __future__ import annotations

from validation.paper.sentence import Bearing, Evidence, Sentence

__all__ = ["SENTENCES"]

SENTENCES: tuple[Sentence, ...] = (
    Sentence(
        "D.1.2",
        "the overall dynamics expressed by the BIF did not vary substantially among hyperparameters chosen in this "
        "setting",
        (Evidence("settings-of-the-sampler"),),
        untested="the Pythia model and the grid of Table 2",
    ),
    Sentence(
        "D.1.3",
        "the classes of high-influence other tokens act as a better than random predictor for all classes by the end "
        "of training, with recall generally improving as the model progresses through training",
        reason="Recall of Pythia, whose weights are not here; Figure 14 takes a folder of them.",
    ),
    Sentence(
        "D.1.3, Fig. 14",
        "Using the BIF in order to select the top 30 highest influence tokens and taking the majority class from "
        "among them (adjusted for class rates), we plot the recall minus the class rate for each class.",
        (
            Evidence(
                "printed-draws",
                Bearing.PARTLY,
                "the prediction is defined, but at the settings of Table 2 a pair has too few effective draws for its"
                " thirty highest to be more than chance; means over many pairs survive",
            ),
        ),
    ),
    Sentence(
        "D.1.3, Fig. 14",
        "This means that 0 represents the random baseline.",
        (Evidence("recall-baseline"),),
    ),
    Sentence(
        "D.1.3, Fig. 14",
        "We see that the BIF selects for in-class tokens above random for all categories by the end of training, "
        "indicating that it is sensitive to the class structure learned by the model.",
        reason=(
            "Recall of Pythia, whose weights are not here. That zero is not the random baseline is tested with the "
            "sentence before."
        ),
    ),
    Sentence(
        "D.2",
        "The first half of each sequence is made up of random tokens, and so the only structure that can be used for "
        "prediction is the repetition of the second half of the context.",
        (Evidence("induction-forms"),),
    ),
    Sentence(
        "D.2",
        "During SGLD we collect losses on this dataset, but sample using the Pile, meaning that loss on these "
        "synthetic samples does not affect our sampling trajectory.",
        (Evidence("held-out-queries"),),
    ),
    Sentence(
        "D.2",
        "undergoes a sudden, large increase, peaking and then stabilizing",
        (
            Evidence("repeated-pairs-rise"),
            Evidence("peak-and-plateau"),
        ),
    ),
    Sentence(
        "D.2",
        "Meanwhile, the BIF between non-repeated segments or across non-repeated and repeated segments shows no such "
        "change.",
        (Evidence("others-stay"),),
    ),
    Sentence(
        "D.2",
        'the induction score for the heads that become the "induction heads" begins to rise right before the BIF '
        "increases between the repeated groups",
        (
            Evidence("repeated-pairs-rise"),
            Evidence("induction-forms"),
        ),
    ),
    Sentence(
        "D.2, Fig. 15",
        "while correlations between non-repeated samples (red) or between non-repeated and repeated segments (green) "
        "remain low",
        (
            Evidence(
                "others-stay",
                Bearing.PARTLY,
                "they stay below those of repeated tokens, but rise with them when the model begins to copy",
            ),
        ),
    ),
    Sentence(
        "D.2, Fig. 15",
        "The induction score for the attention heads that become induction heads rises together with the posterior "
        "correlation, while other heads remain inactive.",
        (
            Evidence(
                "repeated-pairs-rise",
                Bearing.PARTLY,
                "within the same few hundred steps, but the score rises first, as D.2 says itself",
            ),
        ),
        untested="other heads",
    ),
)
