r"""A table of logits for every previous token: the smallest language model, whose posterior is a product over contexts.

.. math:: p_w(x_{k+1} = v \mid x_k = u) = \mathrm{softmax}(w_u)_v

Losses of tokens with different previous tokens depend on different rows, so their covariance under any local posterior
is exactly 0: a known answer for everything that samples and averages.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int

from theory import checks

__all__ = ["BigramModel"]


class BigramModel(torch.nn.Module):
    """The model: token ids (n, T) in, logits (n, T, V) out.

    Parameters
    ----------
    vocabulary
        Number of tokens V.
    sigma, seed
        Initial logits are independent N(0, sigma^2).

    Examples
    --------
    >>> BigramModel(3)(torch.tensor([[2, 0]])).shape
    torch.Size([1, 2, 3])
    """

    def __init__(self, vocabulary: int, *, sigma: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        vocabulary = checks.integer("vocabulary", vocabulary, at_least=2)
        generator = torch.Generator().manual_seed(checks.integer("seed", seed, at_least=0))
        table = checks.nonnegative_number("sigma", sigma) * torch.randn(vocabulary, vocabulary, generator=generator)
        self.table = torch.nn.Parameter(table)

    def forward(self, input_ids: Int[torch.Tensor, "n t"]) -> Float[torch.Tensor, "n t v"]:
        """Return the row of every previous token."""
        return torch.nn.functional.embedding(input_ids, self.table)
