r"""Exact message passing over the rows of an Ising strip with free boundaries.

Prior ``p(s) ~ exp(beta sum_<ij> s_i s_j + field sum_i s_i)`` over nearest neighbours of an H x W grid; a row is one of
``S = 2^W`` states, so rows form a Markov chain with weights (in-row bonds) and a transfer matrix (bonds between rows).
Observations enter as fields ``f`` (B, H, W): pixel j observed through Gaussian noise adds ``f_j s_j`` to the
exponent, ``f_j = alpha x_j / sigma^2``, and an unobserved pixel has f = 0.  So one pass serves any set of observed
pixels: what is not observed is summed out by the same recursion that handles the rest.

Messages (B, S) are float64 and sum to one.  Each is the product of a transfer matrix and something non-negative, so
its entries stay within a factor ``exp(2 |beta| W)`` of each other, whatever the noise level: nothing underflows while
``|beta| W`` is below about 300.
"""

from __future__ import annotations

import torch
from torch import Tensor


class RowChain:
    """Transfer-matrix engine of a strip of ``height`` rows, ``width`` spins each; cost ``4^width`` per row."""

    def __init__(self, height: int, width: int, beta: float, field: float = 0.0) -> None:
        self.height, self.width = height, width
        bits = (torch.arange(2**width)[:, None] >> torch.arange(width)) & 1
        self.spins = (2 * bits - 1).double()  # (S, W)
        self.row_weight = torch.exp(beta * (self.spins[:, 1:] * self.spins[:, :-1]).sum(1) - abs(beta) * (width - 1))
        if field:  # a spin's own weight e^{field s}, at most 1
            self.row_weight = self.row_weight * torch.exp(field * self.spins.sum(1) - abs(field) * width)
        self.transfer = torch.exp(beta * self.spins @ self.spins.T - abs(beta) * width)
        flat = torch.full((1, len(self.spins)), 1.0 / len(self.spins), dtype=torch.float64)
        self._prior = [flat]  # message into row h from h unobserved rows; by symmetry the same from above and below
        for _ in range(height - 1):
            self._prior.append(_normalise((self._prior[-1] * self.row_weight) @ self.transfer))

    def prior_down(self, row: int) -> Tensor:
        """Message (1, S) into ``row`` from the rows above it, all unobserved."""
        return self._prior[row]

    def prior_up(self, row: int) -> Tensor:
        """Message (1, S) into ``row`` from the rows below it, all unobserved."""
        return self._prior[self.height - 1 - row]

    def evidence(self, fields: Tensor) -> Tensor:
        """``row weight * exp(f . s)`` up to a factor per image: (B, W) -> (B, S)."""
        exponent = fields @ self.spins.T
        return self.row_weight * torch.exp(exponent - exponent.amax(1, keepdim=True))

    def down(self, fields: Tensor, first: int, row: int) -> Tensor:
        """Message (B, S) into ``row`` from above, given fields (B, H, W) on rows ``first`` to ``row - 1``."""
        message = self.prior_down(first).expand(len(fields), -1)
        for h in range(first, row):
            message = self.step(message, fields[:, h])
        return message

    def up(self, fields: Tensor, row: int, last: int) -> Tensor:
        """Message (B, S) into ``row`` from below, given fields on rows ``row + 1`` to ``last``."""
        message = self.prior_up(last).expand(len(fields), -1)
        for h in range(last, row, -1):
            message = self.step(message, fields[:, h])
        return message

    def step(self, message: Tensor, fields: Tensor) -> Tensor:
        """Take a message (B, S) across one row with fields (B, W)."""
        return _normalise((message * self.evidence(fields)) @ self.transfer)

    def row_means(self, down: Tensor, fields: Tensor, up: Tensor) -> Tensor:
        """Posterior means (B, W) of a row's spins from the messages into it and its own fields."""
        return _normalise(down * self.evidence(fields) * up) @ self.spins

    def means(self, fields: Tensor) -> Tensor:
        """Posterior means (B, H, W) of all spins given all fields: forward and backward over the strip."""
        ups = [self.prior_up(self.height - 1).expand(len(fields), -1)]
        for h in range(self.height - 1, 0, -1):
            ups.append(self.step(ups[-1], fields[:, h]))
        out, down = [], self.prior_down(0).expand(len(fields), -1)
        for h in range(self.height):
            out.append(self.row_means(down, fields[:, h], ups[self.height - 1 - h]))
            down = self.step(down, fields[:, h]) if h < self.height - 1 else down
        return torch.stack(out, dim=1)

    def windowed_means(self, fields: Tensor, radius: int) -> Tensor:
        """Posterior means (B, H, W), each spin given the fields in its clipped max-norm window only."""
        out = []
        for h in range(self.height):
            first, last = max(h - radius, 0), min(h + radius, self.height - 1)
            row = []
            for w in range(self.width):
                seen = torch.zeros(self.width, dtype=fields.dtype)
                seen[max(w - radius, 0) : w + radius + 1] = 1
                masked = fields * seen
                down, up = self.down(masked, first, h), self.up(masked, h, last)
                row.append(self.row_means(down, masked[:, h], up)[:, w])
            out.append(torch.stack(row, dim=1))
        return torch.stack(out, dim=1)

    def block_posterior(self, fields: Tensor, rows: range, cols: range) -> Tensor:
        """Joint posterior (B, 2^k) of the k spins of the block rows x cols; pixel j (row by row) is bit ``k - 1 - j``.

        The fields should be 0 on the block if it is itself unobserved.
        """
        code = (self.spins[:, cols.start : cols.stop] > 0).long() @ (2 ** torch.arange(len(cols) - 1, -1, -1))
        member = torch.nn.functional.one_hot(code, 2 ** len(cols)).T.double()  # (2^cols, S)
        message = self.down(fields, 0, rows.start)[:, None, :]
        for h in rows:
            here = message * self.evidence(fields[:, h])[:, None, :]
            split = (here[:, :, None, :] * member).flatten(1, 2)
            message = split @ self.transfer if h < rows.stop - 1 else split
        up = self.up(fields, rows.stop - 1, self.height - 1)
        return _normalise((message * up[:, None, :]).sum(-1))

    def signed_spin_weights(self, fields: Tensor, row: int, col: int) -> Tensor:
        """(B, 2, 2): weights, up to a factor per image, of one spin's value (-1, +1) together with the sign of the sum
        of all spins (-, +), given fields (B, H, W), for an odd number of spins.

        The messages (B, 2, count, S) carry, besides the row's state, the spin's value and how many spins are up so far;
        all is sums of what is not negative, so nothing cancels.
        """
        ups = (self.spins > 0).sum(1)
        most = self.height * self.width
        own = torch.stack([self.spins[:, col] < 0, self.spins[:, col] > 0]).double()[:, None]
        message = torch.zeros(len(fields), 2, most + 1, len(self.spins), dtype=torch.float64)
        message[:, :, 0] = 1.0
        for h in range(self.height):
            here = message * self.evidence(fields[:, h])[:, None, None]
            here = here * own if h == row else here
            counted = torch.zeros_like(here)
            for k in range(self.width + 1):  # states with k spins up move the count by k
                states = (ups == k).nonzero().reshape(-1)
                counted[:, :, k:, states] = here[:, :, : most + 1 - k, states]
            message = counted if h == self.height - 1 else counted @ self.transfer
            message = message / message.sum((1, 2, 3), keepdim=True)
        total = message.sum(3)
        half = most // 2 + 1
        return torch.stack([total[:, :, :half].sum(2), total[:, :, half:].sum(2)], dim=2)

    def sample(self, uniforms: Tensor) -> Tensor:
        """Perfect samples (n, H, W) of +-1 from uniform numbers (n, H): row after row, given the row above."""
        states = torch.empty(uniforms.shape, dtype=torch.long)
        for h in range(self.height):
            local = self.row_weight * self.prior_up(h)
            weights = local * self.transfer if h else local
            cumulative = _normalise(weights).cumsum(1)
            known = cumulative[states[:, h - 1]] if h else cumulative.expand(len(uniforms), -1)
            drawn = torch.searchsorted(known.contiguous(), uniforms[:, h : h + 1].contiguous(), right=True)
            states[:, h] = drawn[:, 0].clamp(max=len(self.spins) - 1)
        return self.spins[states]


def _normalise(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)
