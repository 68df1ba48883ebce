r"""A decoder-only transformer small enough for two cores, whose attention patterns can be read.

Blocks are those of GPT-NeoX (Black et al. 2022), the architecture of the Pythia models: layer norm, rotary positions on
part of every head, attention and multi-layer perceptron in parallel. With ``mlp=0`` it is attention only (Elhage et al.
2021). Parameters carry the names that files of such models use, so that these load into it and it writes such files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import nn

from theory import checks

__all__ = ["CausalTransformer", "TransformerConfig"]


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a `CausalTransformer`; the defaults form induction heads in about a minute of one core.

    Parameters
    ----------
    vocabulary, context
        Number of tokens, and the longest sequence of predictions.
    width, layers, heads
        Width of the residual stream, number of layers, and heads a layer.
    mlp
        Hidden units of the perceptron of each layer; 0 for attention only.
    bias
        Whether linear maps have biases.
    rotary
        Share of each head that positions rotate; an even number of its numbers.
    rotary_base
        Base of the rotary frequencies.
    epsilon
        Of layer norms.

    Examples
    --------
    >>> TransformerConfig(width=10, heads=4)
    Traceback (most recent call last):
    ...
    ValueError: width 10 cannot be shared by 4 heads; use a multiple.
    """

    vocabulary: int = 256
    context: int = 64
    width: int = 64
    layers: int = 2
    heads: int = 2
    mlp: int = 0
    bias: bool = False
    rotary: float = 0.5
    rotary_base: float = 10_000.0
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("vocabulary", "context", "width", "layers", "heads"):
            checks.integer(name, getattr(self, name), at_least=1)
        checks.integer("mlp", self.mlp, at_least=0)
        checks.positive("rotary_base", self.rotary_base)
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be shared by {self.heads} heads; use a multiple.")
        checks.share("rotary", self.rotary)
        if self.rotated % 2:
            raise ValueError(
                f"rotary {self.rotary} of heads of {self.width // self.heads} rotates {self.rotated} numbers, but an "
                "even number no larger than the head is needed."
            )

    @property
    def rotated(self) -> int:
        """Numbers of each head that positions rotate."""
        return int(self.width // self.heads * self.rotary)

    def as_neox(self) -> dict[str, Any]:
        """Return what ``config.json`` of a GPT-NeoX model says; an attention-only one is marked by its size 0."""
        return {
            "model_type": "gpt_neox",
            "architectures": ["GPTNeoXForCausalLM"],
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.mlp,
            "attention_bias": self.bias,
            "rotary_pct": self.rotary,
            "rotary_emb_base": self.rotary_base,
            "layer_norm_eps": self.epsilon,
            "hidden_act": "gelu",
            "use_parallel_residual": True,
            "tie_word_embeddings": False,
        }

    @classmethod
    def of_neox(cls, config: dict[str, Any]) -> TransformerConfig:
        """Return the sizes that ``config.json`` of a GPT-NeoX model gives.

        Raises
        ------
        ValueError
            If the file is of another architecture, or of a variant that this module does not have.
        """
        kind = config.get("model_type")
        if kind != "gpt_neox":
            raise ValueError(
                f"config.json is of a model of type {kind!r}, but only 'gpt_neox' is read without transformers; load "
                "it by transformers and give the module."
            )
        needed = {"hidden_act": "gelu", "use_parallel_residual": True, "tie_word_embeddings": False}
        for key, value in needed.items():
            if config.get(key, value) != value:
                raise ValueError(
                    f"config.json has {key} = {config[key]!r}, but only {value!r} is read without transformers; load "
                    "the model by transformers and give the module."
                )
        rope = config.get("rope_parameters") or {}  # where newer files keep both numbers
        return cls(
            vocabulary=config["vocab_size"],
            context=config["max_position_embeddings"],
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            mlp=config["intermediate_size"],
            bias=config.get("attention_bias", True),
            rotary=config.get("rotary_pct", rope.get("partial_rotary_factor", 0.25)),
            rotary_base=float(config.get("rotary_emb_base", rope.get("rope_theta", 10_000.0))),
            epsilon=config.get("layer_norm_eps", 1e-5),
        )


class CausalTransformer(nn.Module):
    """The model: token ids (n, T) in, logits (n, T, V) out; entry t predicts token t + 1.

    Parameters
    ----------
    config
        See `TransformerConfig`.
    seed
        Of the initial weights: embeddings N(0, 1), linear maps N(0, 1 / inputs), biases 0.

    Raises
    ------
    ValueError
        When called with sequences longer than the context.

    Examples
    --------
    >>> model = CausalTransformer(TransformerConfig())
    >>> sum(p.numel() for p in model.parameters())
    65920
    >>> model(torch.zeros(3, 10, dtype=torch.int64)).shape
    torch.Size([3, 10, 256])
    """

    def __init__(self, config: TransformerConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.gpt_neox = _Stack(config)
        self.embed_out = nn.Linear(config.width, config.vocabulary, bias=False)
        generator = torch.Generator().manual_seed(checks.integer("seed", seed, at_least=0))
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, input_ids: Int[torch.Tensor, "n t"]) -> Float[torch.Tensor, "n t v"]:
        """Return the logits."""
        return self.embed_out(self.gpt_neox(input_ids, None))

    def attention_patterns(self, input_ids: Int[torch.Tensor, "n t"]) -> Float[torch.Tensor, "layers n heads t t"]:
        """Return how much each position (next to last axis) attends to every other (last axis) in each head."""
        patterns: list[torch.Tensor] = []
        self.gpt_neox(input_ids, patterns)
        return torch.stack(patterns)


class _Stack(nn.Module):
    cosines: torch.Tensor
    sines: torch.Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_in = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.final_layer_norm = nn.LayerNorm(config.width, eps=config.epsilon)
        # In float32 whatever the weights are, as models of this kind were trained; not part of their files.
        half = torch.arange(0, config.rotated, 2).float() / max(config.rotated, 1)
        angles = torch.arange(config.context).float()[:, None] * (1.0 / config.rotary_base**half)
        angles = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(
        self, input_ids: Int[torch.Tensor, "n t"], patterns: list[torch.Tensor] | None
    ) -> Float[torch.Tensor, "n t d"]:
        length = input_ids.shape[1]
        if length > self.config.context:
            raise ValueError(f"a sequence of {length} tokens is longer than the model's context {self.config.context}.")
        x = self.embed_in(input_ids)
        turns = (self.cosines[:length], self.sines[:length])
        for layer in self.layers:
            x = layer(x, turns, patterns)
        return self.final_layer_norm(x)


class _Layer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.width, eps=config.epsilon)
        self.attention = _Attention(config)
        if config.mlp:
            self.post_attention_layernorm = nn.LayerNorm(config.width, eps=config.epsilon)
            self.mlp = _Perceptron(config)

    def forward(
        self,
        x: Float[torch.Tensor, "n t d"],
        turns: tuple[torch.Tensor, torch.Tensor],
        patterns: list[torch.Tensor] | None,
    ) -> Float[torch.Tensor, "n t d"]:
        attended = self.attention(self.input_layernorm(x), turns, patterns)
        if hasattr(self, "mlp"):
            attended = attended + self.mlp(self.post_attention_layernorm(x))
        return x + attended


class _Attention(nn.Module):
    mask: torch.Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.size, self.rotated = config.heads, config.width // config.heads, config.rotated
        self.query_key_value = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.dense = nn.Linear(config.width, config.width, bias=config.bias)
        mask = torch.full((config.context, config.context), -math.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(
        self,
        x: Float[torch.Tensor, "n t d"],
        turns: tuple[torch.Tensor, torch.Tensor],
        patterns: list[torch.Tensor] | None,
    ) -> Float[torch.Tensor, "n t d"]:
        n, length, width = x.shape
        # In the files each head's query, key and value stand next to each other.
        joined = self.query_key_value(x).view(n, length, self.heads, 3 * self.size).transpose(1, 2)
        query, key, value = joined.split(self.size, dim=-1)
        scores = (self._turned(query, turns) * self.size**-0.5) @ self._turned(key, turns).mT
        pattern = torch.softmax(scores + self.mask[:length, :length], dim=-1)
        if patterns is not None:
            patterns.append(pattern)
        return self.dense((pattern @ value).transpose(1, 2).reshape(n, length, width))

    def _turned(
        self, x: Float[torch.Tensor, "n h t s"], turns: tuple[torch.Tensor, torch.Tensor]
    ) -> Float[torch.Tensor, "n h t s"]:
        if not self.rotated:
            return x
        turning, still = x[..., : self.rotated], x[..., self.rotated :]
        left, right = turning.chunk(2, dim=-1)
        turned = turning * turns[0] + torch.cat([-right, left], dim=-1) * turns[1]
        return torch.cat([turned, still], dim=-1)


class _Perceptron(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.width, config.mlp)
        self.dense_4h_to_h = nn.Linear(config.mlp, config.width)

    def forward(self, x: Float[torch.Tensor, "n t d"]) -> Float[torch.Tensor, "n t d"]:
        hidden = nn.functional.gelu(self.dense_h_to_4h(x))
        return self.dense_4h_to_h(hidden)
