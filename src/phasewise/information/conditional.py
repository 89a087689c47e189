r"""The network behind the learned estimators: what a context says about the clean value of each entry of A.

Input: the noisy pixels of one region (zeros outside it), which region and which time.  Output for entry ``a_i``: a
mixture of Gaussians over its *clean* value,

    p(x_i | context) = sum_k pi_k N(mu_k, tau_k^2),    so
    p(a_i | context) = sum_k pi_k N(alpha mu_k, alpha^2 tau_k^2 + sigma^2),

the exact form a noisy pixel's conditional density has, whatever the data.  Two components move with the Gaussian
prediction of :mod:`phasewise.information.linear`, the others start spread over the range of the data, so an untrained
network is close to the Gaussian model and atoms (black, white) are easily found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phasewise.shapes import ImageShape

RELATIVE, ABSOLUTE = 2, 8


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts as 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """``h + W2 silu(W1 norm(h))``, (N, width) -> (N, width)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        last = zero_linear(width, width)
        self.body = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), last)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.body(h)


@dataclass(frozen=True)
class TrunkShape:
    """Sizes of a trunk: of the image, of the conditions, of the network; ``near``: entries close to A, shown as they
    are."""

    image_shape: ImageShape
    conditions: int
    near: tuple[int, ...]
    width: int = 384
    depth: int = 1
    dropout: float = 0.0


class Trunk(nn.Module):
    """Context (N, D) standardised, zero outside the region, and conditions (N, F) -> features (N, width).

    Three convolutions, two of them with stride 2, see all of the image; a linear layer sees what is near A.
    """

    near: Tensor

    def __init__(self, shape: TrunkShape, channels: tuple[int, int] = (16, 48)) -> None:
        super().__init__()
        first, last = channels
        colours, height, width = self.image_shape = shape.image_shape
        self.down = nn.Conv2d(colours, first, 5, stride=2, padding=2)
        self.downer = nn.Conv2d(first, last, 3, stride=2, padding=1)
        self.mixing = nn.Conv2d(last, last, 3, padding=1)
        self.pooled = nn.Linear(last * math.ceil(height / 4) * math.ceil(width / 4), shape.width)
        self.beside = nn.Linear(len(shape.near), shape.width)
        self.condition = nn.Sequential(nn.Linear(shape.conditions, 64), nn.SiLU(), nn.Linear(64, shape.width))
        self.shift = nn.Linear(shape.conditions, last)
        self.blocks = nn.Sequential(*[ResidualBlock(shape.width, shape.dropout) for _ in range(shape.depth)])
        self.norm = nn.LayerNorm(shape.width)
        self.register_buffer("near", torch.tensor(shape.near, dtype=torch.int64))

    def forward(self, context: Tensor, conditions: Tensor) -> Tensor:
        silu = nn.functional.silu
        y = silu(self.down(context.view(len(context), *self.image_shape)))
        y = silu(self.downer(y) + self.shift(conditions)[:, :, None, None])
        y = y + silu(self.mixing(y))
        h = self.pooled(y.flatten(1)) + self.beside(context[:, self.near]) + self.condition(conditions)
        return self.norm(self.blocks(h))


class MixtureHead(nn.Module):
    """Features, the entries of A known so far and the Gaussian prediction -> mixture of each entry of A in turn."""

    before: Tensor
    logit: Tensor
    spread: Tensor

    def __init__(self, entries: int, features: int, width: int = 128) -> None:
        super().__init__()
        k = RELATIVE + ABSOLUTE
        self.features = nn.Linear(features, width)
        self.known = nn.Parameter(torch.randn(entries, entries, width) / math.sqrt(max(entries, 1)))
        self.position = nn.Parameter(0.02 * torch.randn(entries, width))
        self.prediction = nn.Parameter(torch.randn(2, width) / math.sqrt(2))
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 3 * k)
        nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("before", torch.tril(torch.ones(entries, entries), -1))
        self.register_buffer("logit", torch.tensor([0.0] + [-4.0] * (k - 1)))
        self.register_buffer("spread", torch.cat([torch.zeros(RELATIVE), torch.linspace(-1.5, 2.5, ABSOLUTE)]))

    def forward(self, h: Tensor, known: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``h`` (N, F); ``known`` (N, M, P) standardised noisy A, of which entry i sees those before it; ``mean``
        (N, M, P) and ``std`` (N, P), the standardised Gaussian prediction of the clean entries.

        Returns (log weights, means, standard deviations) of the clean entries, each (N, M, P, K), standardised.
        """
        h = self.features(h)[:, None, None] + self.position
        # the chain rule: entry i hears the entries of A before it, no others
        if known.shape[-1] > 1:
            h = h + torch.einsum("nmj,ijw->nmiw", known, self.known * self.before[..., None])
        scale = std[:, None].log()
        h = h + mean[..., None] * self.prediction[0] + scale[..., None] * self.prediction[1]
        h = nn.functional.silu(h)
        logit, shift, log_scale = self.out(nn.functional.silu(self.hidden(h)) + h).chunk(3, dim=-1)
        # the first components start from the Gaussian prediction, the others over the range of the data
        moving = torch.arange(len(self.spread), device=h.device) < RELATIVE
        wide = torch.where(moving, std[:, None, :, None], torch.full_like(self.spread, 0.3))
        middle = torch.where(moving, mean[..., None], self.spread)
        return (
            (logit + self.logit).log_softmax(-1),
            middle + wide * shift,
            wide * log_scale.clamp(-6, 3).exp(),
        )


def mixture_log_density(mixture: tuple[Tensor, Tensor, Tensor], value: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Log density of noisy ``value`` (N, M, P), standardised; ``alpha`` and ``sigma`` (of the standardised noise)
    broadcast against (N, M, P)."""
    log_weight, mean, std = mixture
    # noise turns N(mu, tau^2) into N(alpha mu, alpha^2 tau^2 + sigma^2)
    variance = (alpha[..., None] * std).square() + sigma[..., None].square()
    square = (value[..., None] - alpha[..., None] * mean).square() / variance
    return (log_weight - 0.5 * (square + variance.log())).logsumexp(-1) - 0.5 * math.log(2 * math.pi)


class ConditionalDensity(nn.Module):
    """Trunk and head together, for a chain of ``entries`` entries of A."""

    def __init__(self, shape: TrunkShape, entries: int) -> None:
        super().__init__()
        self.trunk = Trunk(shape)
        self.head = MixtureHead(entries, shape.width)

    def forward(
        self, context: Tensor, conditions: Tensor, known: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.head(self.trunk(context, conditions), known, mean, std)
