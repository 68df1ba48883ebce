"""A local folder of a language model's revisions, as the Pythia models are published, read one at a time and offline.

``step1000/config.json``, ``step1000/model.safetensors`` (or ``pytorch_model.bin``, or shards) and, where text is to be
read, ``tokenizer.json`` beside them or in the folder itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from numerics.language.tokens import next_token_loss
from numerics.language.transformer import CausalTransformer, TransformerConfig
from numerics.models.checkpoints import ModuleCheckpoints
from numerics.models.module import TorchModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer
from numerics.stores import read_object

__all__ = ["load_revisions", "load_tokenizer"]

# Buffers that older files of such models hold, and that a module makes itself.
_MADE_ANEW = ("*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq")


def load_revisions(
    folder: str | os.PathLike[str],
    *,
    steps: Sequence[int] | None = None,
    module: torch.nn.Module | None = None,
    parameters: Any = None,
) -> ModuleCheckpoints:
    """Return the revisions of a language model in a local folder, which stay in their files until they are needed.

    Parameters
    ----------
    folder
        Holds ``step<number>`` folders.
    steps
        Which steps; all there are if not given.
    module
        The model. If not given it is made from ``config.json``: a `CausalTransformer` for GPT-NeoX models (which the
        Pythia models are), by transformers, offline, for any other causal model.
    parameters
        Which parameters are weights; see `TorchModel`.

    Returns
    -------
    ModuleCheckpoints
        Epochs are steps; the loss is `next_token_loss`.

    Raises
    ------
    FileNotFoundError
        If the folder, a step or its config.json is not there.
    ValueError
        If a file does not fit the model; it names the tensor.
    ImportError
        If the model needs transformers and it is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from numerics.language.pretraining import PretrainingConfig, pretrain
    >>> from numerics.language.synthetic import SyntheticCorpus
    >>> folder = tempfile.mkdtemp()
    >>> model = CausalTransformer(TransformerConfig(vocabulary=16, context=8, width=8))
    >>> _ = pretrain(model, SyntheticCorpus(vocabulary=16, length=9), folder, PretrainingConfig(steps=2))
    >>> load_revisions(folder).epochs
    array([0., 2.])
    """
    paths = _steps(Path(folder), steps)
    if module is None:
        module = _made(next(iter(paths.values())))
    model = TorchModel(module, next_token_loss, parameters=parameters)
    own = {name for name, _ in module.named_parameters()}

    def rename(name: str) -> str:
        """Files say embed_out where newer modules say lm_head, and the other way round."""
        for a, b in (("embed_out.", "lm_head."), ("lm_head.", "embed_out.")):
            if name.startswith(a) and name not in own:
                return b + name.removeprefix(a)
        return name

    files = list(paths.values())
    return ModuleCheckpoints.load(files, model, epochs=np.array(list(paths)), rename=rename, ignore=_MADE_ANEW)


def load_tokenizer(path: str | os.PathLike[str], vocabulary: int) -> Tokenizer:
    """Return the tokenizer of a model from a file or a folder, refusing one that knows more tokens than the model.

    Parameters
    ----------
    path
        ``tokenizer.json``, a folder that holds it, or a folder of revisions in whose first step it is.
    vocabulary
        Number of tokens of the model.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it cannot be read, or has ids that the model does not know.
    ImportError
        If tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(
            "text is cut into tokens by tokenizers, which is not installed; pip install 'stagewise[language]'."
        ) from error
    found = Path(path)
    if found.is_dir():
        inner = [found / "tokenizer.json", *(p / "tokenizer.json" for p in _found(found).values())]
        found = next((file for file in inner if file.exists()), inner[0])
    if not found.exists():
        raise FileNotFoundError(f"there is no tokenizer {found}; copy the model's tokenizer.json there.")
    try:
        tokenizer = Tokenizer.from_file(str(found))
    except Exception as error:  # the library raises bare Exceptions
        raise ValueError(f"{found} is not a tokenizer, or is damaged: {error}") from error
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary:
        raise ValueError(
            f"{found} has token ids up to {largest}, but the model knows {vocabulary} tokens; use the model's own "
            "tokenizer."
        )
    return tokenizer


def _found(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}.")
    numbers = {
        int(path.name.removeprefix("step")): path
        for path in folder.iterdir()
        if path.is_dir() and path.name.removeprefix("step").isdigit() and path.name.startswith("step")
    }
    return dict(sorted(numbers.items()))


def _steps(folder: Path, steps: Sequence[int] | None) -> dict[int, Path]:
    found = _found(folder)
    if not found:
        raise FileNotFoundError(f"{folder} holds no revision; they are folders step0, step1000, ...")
    if steps is None:
        return found
    if missing := [step for step in steps if step not in found]:
        raise FileNotFoundError(
            f"{folder} holds no step{missing[0]}; there are {', '.join(f'step{step}' for step in found)}."
        )
    return {step: found[step] for step in sorted(set(steps))}


def _made(folder: Path) -> torch.nn.Module:
    """Return the module that config.json describes, with whatever weights it starts from."""
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}, which says what the model is; give the module.")
    config = read_object(path)
    try:
        return CausalTransformer(TransformerConfig.of_neox(config))
    except (ValueError, KeyError) as unread:
        try:
            from transformers import AutoConfig, AutoModelForCausalLM
        except ImportError:
            raise ImportError(f"{unread} (transformers is not installed; pip install 'stagewise[language]'.)") from None
        kept = AutoConfig.from_pretrained(folder, local_files_only=True)
        return AutoModelForCausalLM.from_config(kept, attn_implementation="eager")
