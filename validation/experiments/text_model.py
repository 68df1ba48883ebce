"""A small language model trained on text, and influence between classes of its tokens along training (paper 4, D.1)."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr

from numerics import (
    SGLD,
    CausalTransformer,
    ModuleCheckpoints,
    PretrainingConfig,
    Sampler,
    TokenCorpus,
    TokenDraws,
    TokenSequences,
    TorchModel,
    TransformerConfig,
    class_influence,
    class_recall,
    load_revisions,
    load_tokenizer,
    next_token_loss,
    pretrain,
    python_documents,
    sample_tokens,
    text_documents,
    token_samples,
    token_sequences,
    train_tokenizer,
)
from validation.experiments.language import Counted, uncounted

__all__ = ["TextRun", "TextSettings"]


@dataclass(frozen=True)
class TextSettings:
    """Settings of a run on text.

    Parameters
    ----------
    model
        The transformer, if none is given by `checkpoints`.
    characters
        Length of the text that Python carries, used if there is no `corpus`.
    training
        How the model is trained.
    saved, sampled
        Steps that are saved while training, and number of those, evenly in their order, at which is sampled.
    sequences
        Sequences whose losses are recorded, of the model's context.
    sampler, chains, draws, batch_size
        Of the local posterior.
    neighbours
        k of the recall of classes.
    corpus
        Folder of text; what Python carries if empty.
    checkpoints
        Folder of revisions of another model (``step1000/...`` with a tokenizer.json), used in place of one trained
        here.
    seed
        Of weights, order of the text, and chains.
    """

    model: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(vocabulary=1024, context=55, width=96, layers=3, heads=4, mlp=384)
    )
    characters: int = 4_000_000
    training: PretrainingConfig = field(
        default_factory=lambda: PretrainingConfig(steps=3000, lr=3e-3, batch_size=32, warm_up=50, schedule="cosine")
    )
    saved: tuple[int, ...] = (0, 10, 30, 100, 200, 300, 500, 800, 1200, 1600, 2200, 3000)
    sampled: int = 9
    sequences: int = 60
    sampler: Sampler = field(default_factory=lambda: SGLD(step_size=1e-4, n_beta=1024.0, localization=5000.0))
    chains: int = 4
    draws: int = 100
    batch_size: int = 16
    neighbours: int = 30
    corpus: str = ""
    checkpoints: str = ""
    seed: int = 0

    @classmethod
    def seeded(cls, seed: int, *, quick: bool = False, corpus: str = "", checkpoints: str = "") -> TextSettings:
        """Return the settings for one seed; `quick` ones take seconds.

        Examples
        --------
        >>> TextSettings.seeded(2, quick=True).sequences
        12
        """
        if not quick:
            return cls(seed=seed, corpus=corpus, checkpoints=checkpoints)
        return cls(
            model=TransformerConfig(vocabulary=320, context=24, width=16, layers=1),
            characters=60_000,
            training=PretrainingConfig(steps=30, batch_size=16),
            saved=(0, 10, 30),
            sampled=2,
            sequences=12,
            chains=2,
            draws=16,
            batch_size=4,
            neighbours=5,
            corpus=corpus,
            checkpoints=checkpoints,
            seed=seed,
        )


class TextRun:
    """Everything measured of one run on text, each once when first asked for, and kept in a folder.

    Parameters
    ----------
    settings
        See `TextSettings`.
    folder
        Where checkpoints and draws are kept; a temporary folder if not given.
    device
        Where chains run.
    counted
        Called with a phrase and a number of steps, returns a context manager whose function counts steps done.

    Examples
    --------
    >>> run = TextRun(TextSettings.seeded(0, quick=True))
    >>> run.sequences.ids.shape
    (12, 25)
    """

    def __init__(
        self,
        settings: TextSettings | None = None,
        folder: Path | None = None,
        device: str = "cpu",
        counted: Counted | None = None,
    ) -> None:
        self.settings = settings or TextSettings()
        self.folder = folder or Path(tempfile.mkdtemp(prefix="stagewise-text-"))
        if folder is None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._device, self._counted = device, counted or uncounted

    @cached_property
    def documents(self) -> list[str]:
        """The text."""
        s = self.settings
        return text_documents(s.corpus) if s.corpus else python_documents(characters=s.characters)

    @cached_property
    def _split(self) -> tuple[TokenSequences, TokenSequences]:
        """Sequences of every tenth document, which are recorded and not trained on, and of the others."""
        s = self.settings
        if s.checkpoints:
            tokenizer = load_tokenizer(s.checkpoints, self._given.model.module.get_parameter(_EMBEDDING).shape[0])
        else:
            tokenizer = train_tokenizer(self.documents, s.model.vocabulary)
        held = self.documents[::10]
        rest = [document for k, document in enumerate(self.documents) if k % 10]
        length = s.model.context
        return (
            token_sequences(held, tokenizer, length, count=s.sequences, seed=s.seed),
            token_sequences(rest or held, tokenizer, length),
        )

    @property
    def sequences(self) -> TokenSequences:
        """Sequences whose losses are recorded."""
        return self._split[0]

    @cached_property
    def _given(self) -> ModuleCheckpoints:
        return load_revisions(self.settings.checkpoints)

    @cached_property
    def checkpoints(self) -> ModuleCheckpoints:
        """Weights along training, at the steps at which is sampled; epochs are steps."""
        s = self.settings
        if s.checkpoints:
            found = self._given
        else:
            corpus = TokenCorpus(self._split[1].ids, seed=s.seed)
            module = CausalTransformer(s.model, seed=s.seed)
            with self._counted("training a language model on text", s.training.steps) as advance:
                pretrain(
                    module, corpus, self.folder / "training", s.training,
                    save_at=s.saved, every=None, progress=advance,
                )  # fmt: skip
            model = TorchModel(CausalTransformer(s.model), next_token_loss)
            found = ModuleCheckpoints.load(self.folder / "training", model)
        places = np.unique(np.linspace(0, len(found) - 1, min(s.sampled, len(found))).round().astype(int))
        return found.at(found.epochs[places])

    @cached_property
    def draws(self) -> TokenDraws:
        """Losses of every recorded token at every draw."""
        s = self.settings
        with self._counted("sampling the local posterior per token", s.chains * len(self.checkpoints)) as advance:
            return sample_tokens(
                token_samples(self._split[1].ids),
                self.checkpoints,
                self.folder / "draws",
                s.sampler,
                recorded=token_samples(self.sequences.ids),
                chains=s.chains,
                draws=s.draws,
                batch_size=s.batch_size,
                seed=s.seed,
                device=self._device,
                progress=advance,
            )

    @cached_property
    def influence(self) -> xr.Dataset:
        """Influence between classes, without pairs of equal tokens; see `class_influence`."""
        blocks = min(8, self.draws.draws // 2)
        return class_influence(self.draws, self.sequences.classes, apart=self.sequences.targets, blocks=blocks)

    @cached_property
    def recall(self) -> xr.Dataset:
        """Recall of every class from the tokens of highest influence; see `class_recall`."""
        s = self.settings
        return class_recall(self.draws, self.sequences.classes, self.sequences.targets, k=s.neighbours, seed=s.seed)


_EMBEDDING = "gpt_neox.embed_in.weight"
