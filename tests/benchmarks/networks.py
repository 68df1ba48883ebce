"""Networks that users bring, at any size: a transformer and a small convolutional network, with random samples."""

import torch
from torch import nn

from numerics import Samples

__all__ = ["convolutional", "transformer", "width_of"]


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down, self.heads = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), heads

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(self.first(x)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(n, t, d))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


def transformer(width, tokens=16, vocabulary=64, samples=32):
    layers = [nn.Embedding(vocabulary, width), Block(width, 4), Block(width, 4), nn.Linear(width, vocabulary)]
    inputs, targets = torch.randint(0, vocabulary, (2, samples, tokens))

    def loss(out, y):
        return nn.functional.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)

    return nn.Sequential(*layers), Samples(inputs, targets), loss


def convolutional(images, channels=8):
    layers = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    module = nn.Sequential(*layers, nn.Linear(2 * channels * 49, 10))
    samples = Samples(torch.randn(images, 1, 28, 28), torch.randint(0, 10, (images,)))
    return module, samples, lambda out, y: nn.functional.cross_entropy(out, y, reduction="none")


def width_of(parameters: int, vocabulary: int = 64) -> int:
    """Return the width at which the transformer has about so many parameters: 2 x 12 width^2 and the embeddings."""
    width = (-(2 * vocabulary + 28) + ((2 * vocabulary + 28) ** 2 + 96 * parameters) ** 0.5) / 48
    return max(4, 4 * round(width / 4))
