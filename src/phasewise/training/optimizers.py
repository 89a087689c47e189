r"""Which way a step of training goes: AdamW, or Muon.

Muon (Jordan 2024, "Muon: an optimizer for hidden layers in neural networks") takes the averaged gradient G of a matrix
of weights, and steps by the orthogonal matrix nearest to it: with the singular value decomposition ``G = U S V^T`` by
``U V^T``, so that no direction of a layer learns slower because its gradients are small.  A convolution is the matrix
of its output channels by all else.  Per entry the step is ``SCALE lr`` in root mean square, whatever the shape (after
Liu et al. 2025, arXiv 2502.16982, section 2.2).

``U V^T`` is approached by five steps of a quintic Newton-Schulz iteration, ``X <- a X + (b A + c A^2) X`` with
``A = X X^T``, which takes singular values of a hundredth of the matrix's norm and more into 0.68 to 1.14.

Biases, norms, embeddings, positions, and layers of fewer than ``LEAST`` inputs or outputs step by AdamW.

PyTorch's own ``torch.optim.Muon`` takes no convolution and computes in bfloat16, which a processor without such
instructions is 6 to 20 times slower in than in float32 (64 x 576 to 128 x 1152, one thread of AVX2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adamw", "muon")
BETAS = (0.9, 0.99)
"""Of AdamW: how much is kept of gradients and of their squares."""
MOMENTUM = 0.95
"""How much Muon keeps of the earlier gradients."""
SCALE = 0.3
"""Root mean square of an entry of a Muon step, in units of the learning rate.  AdamW's is .2 to .4."""
LEAST = 16
QUINTIC = (3.4445, -4.7750, 2.0315)


def build_optimizer(name: str, net: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Over all parameters of ``net``; ``name`` is one of :data:`OPTIMIZERS`."""
    if name == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay, betas=BETAS, fused=True)
    return Muon(net, lr, weight_decay)


class Muon(torch.optim.AdamW):
    """Muon for the matrices of a network, AdamW for the rest; see the top of this file."""

    def __init__(self, net: nn.Module, lr: float, weight_decay: float) -> None:
        matrices = {id(p) for p in matrices_of(net)}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in net.parameters() if id(p) not in matrices], "orthogonal": False},
            {"params": [p for p in net.parameters() if id(p) in matrices], "orthogonal": True},
        ]
        super().__init__([g for g in groups if g["params"]], lr=lr, weight_decay=weight_decay, betas=BETAS, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for group in self.param_groups:
            if group["orthogonal"]:
                for p in group["params"]:
                    if p.grad is not None:
                        self._step_matrix(p, p.grad, group["lr"], group["weight_decay"])
                        p.grad = None  # AdamW, which steps next, leaves alone what has no gradient
        return super().step(closure)

    def _step_matrix(self, p: Tensor, grad: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())  # unused; AdamW looks for one as it takes a state back
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(grad, 1 - MOMENTUM)
        ahead = grad.lerp(state["momentum"], MOMENTUM)  # Nesterov: as the average will be after one more step
        step = orthogonal(ahead.flatten(1))
        p.mul_(1 - lr * weight_decay)
        # the entries of an orthogonal m x n matrix have a mean square of 1 / max(m, n)
        p.add_(step.reshape(p.shape), alpha=-SCALE * lr * max(step.shape) ** 0.5)


def matrices_of(net: nn.Module) -> list[Tensor]:
    """Weights of linear layers and of whole convolutions with at least ``LEAST`` inputs and outputs."""
    found: list[Tensor] = []
    for module in net.modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            weight = module.weight
            if weight.requires_grad and min(weight.shape[0], weight[0].numel()) >= LEAST:
                found.append(weight)
    return found


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """(m, n) -> near the orthogonal matrix U V^T of its singular value decomposition; zeros stay zeros."""
    a, b, c = QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T  # the smaller products
    x = wide / wide.norm().clamp_min(1e-12)  # no singular value above 1
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrix else x.T
