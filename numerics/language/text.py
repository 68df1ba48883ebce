"""Text without any download: what every Python installation carries, or any folder; cut into tokens, and classified."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from numerics.language.token_classes import TOKEN_CLASSES, induction_pattern, text_classes
from numerics.language.tokens import cut_documents
from numerics.models.digest import digest
from theory import checks

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TokenSequences", "python_documents", "text_documents", "token_sequences", "train_tokenizer"]

_TEXT_FILES = (".txt", ".md", ".rst", ".py", ".html", ".tex", ".c", ".h", ".json", ".csv")


def python_documents(*, characters: int = 4_000_000) -> list[str]:
    """Return documentation and source text of the Python that runs, the same for one version of it.

    Parameters
    ----------
    characters
        About how many at most: the reference manual's topics first, then source files of the standard library.

    Examples
    --------
    >>> documents = python_documents(characters=20_000)
    >>> 15_000 < sum(map(len, documents)) <= 20_000
    True
    """
    left = checks.integer("characters", characters, at_least=1)
    topics: Mapping[str, str] = import_module("pydoc_data.topics").topics
    found = []
    for document in (*(topics[name] for name in sorted(topics)), *_sources()):
        if left <= 0:
            break
        found.append(document[:left])
        left -= len(document)
    return found


def _sources() -> Iterable[str]:
    """Return the modules of the standard library that are files of their own; its tests and tools are left out."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="replace")


def text_documents(folder: str | os.PathLike[str]) -> list[str]:
    """Return the text files of a folder and of those in it, in the order of their paths.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it holds no text.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.txt").write_text("Some text.")
    >>> text_documents(folder)
    ['Some text.']
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}; name one that holds text.")
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in _TEXT_FILES and path.is_file())
    found = [text for path in paths if (text := path.read_text(encoding="utf-8", errors="replace")).strip()]
    if not found:
        raise ValueError(f"{root} holds no text: files that end in {', '.join(_TEXT_FILES)} are read.")
    return found


def train_tokenizer(documents: Sequence[str], vocabulary: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer of `vocabulary` tokens trained on documents.

    Raises
    ------
    ValueError
        If the vocabulary has no room for the 256 bytes.
    ImportError
        If tokenizers is not installed.

    Examples
    --------
    >>> tokenizer = train_tokenizer(["to be or not to be"], 260)
    >>> tokenizer.encode("to be").tokens
    ['to', 'Ġbe']
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise ImportError(
            "text is cut into tokens by tokenizers, which is not installed; pip install 'stagewise[language]'."
        ) from error
    if checks.integer("vocabulary", vocabulary, at_least=1) < 256:
        raise ValueError(f"a vocabulary of {vocabulary} has no room for the 256 bytes; use 256 or more.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


@dataclass(frozen=True, eq=False)
class TokenSequences:
    """Sequences cut from documents, and the classes of the tokens that they predict.

    Parameters
    ----------
    ids
        Token ids, shape (N, J + 1).
    classes
        Members of each class among the N J predicted tokens, shape (N, J) each; classes without members are left out.
    corpus
        Digest of the text and the tokenizer.
    """

    ids: Int[np.ndarray, "n t"]
    classes: Mapping[str, Bool[np.ndarray, "n j"]]
    corpus: str

    @property
    def targets(self) -> Int[np.ndarray, "n j"]:
        """Ids of the predicted tokens."""
        return self.ids[:, 1:]


def token_sequences(
    documents: Sequence[str], tokenizer: Tokenizer, length: int, *, count: int | None = None, seed: int | None = None
) -> TokenSequences:
    """Cut documents into sequences of `length` predictions and classify their tokens.

    Whole documents are classified, then cut, so that a delimiter finds its partner beyond a sequence's end; the
    induction pattern is looked for within a sequence, which is all the model sees.

    Parameters
    ----------
    documents, tokenizer
        Text, and what cuts it into tokens.
    length
        Predictions J a sequence.
    count, seed
        See `cut_documents`.

    Raises
    ------
    ValueError
        If the text is too short.

    Examples
    --------
    >>> text = ["(to be) or not to be"]
    >>> found = token_sequences(text, train_tokenizer(text, 260), 6)
    >>> found.ids.shape, found.classes["right delimiter"].sum()
    ((1, 7), np.int64(1))
    """
    encoded = tokenizer.encode_batch(list(documents))
    kept = [(text, e) for text, e in zip(documents, encoded, strict=True) if len(e.ids)]
    ids, positions = cut_documents([np.asarray(e.ids) for _, e in kept], length + 1, count=count, seed=seed)
    by_token: dict[str, list[np.ndarray]] = {}
    for text, e in kept:
        for name, members in text_classes(text, np.asarray(e.offsets)).items():
            by_token.setdefault(name, []).append(members)
    found = {name: np.concatenate(members)[positions[:, 1:]] for name, members in by_token.items()}
    found["induction pattern"] = induction_pattern(ids)
    classes = {name: found[name] for name in TOKEN_CLASSES if found[name].any()}
    return TokenSequences(ids, classes, digest((list(documents), tokenizer.to_str())))
