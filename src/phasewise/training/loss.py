r"""The flow-matching loss and the noise times it is taken at.

With the preconditioned network output F (``denoisers/base.py``) and target ``F* = (x - skip) / c_out``, the
flow-matching error on the path is ``|velocity - velocity*|^2 = w(t) |F - F*|^2``.

* ``"flow"``: ``|F - F*|^2``, the flow-matching error in units of its own scale at each t (weight 1 for a network
  of no skill at every noise level; Karras et al. 2022, eq. 8).
* ``"paper"``: errors of velocity + eps + x summed, as published (arXiv 2508.06614).

The network is called as a whole, ``D = skip + c_out F``, not its backbone: whatever wraps the call (forward hooks, an
adapter, a parallel module) is in the training as it is in the sampler.  ``F - F* = (D - x) / c_out`` exactly, and in
float32 to about 1e-7 / c_out, small beside an error of order one wherever times are drawn (t >= 1e-3).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from phasewise import checks
from phasewise.denoisers import NetworkDenoiser, PlanDenoiser
from phasewise.denoisers.base import a_denoiser
from phasewise.denoisers.plan import watched_plans
from phasewise.denoisers.pooled import PooledPath
from phasewise.paths import NoisePath, isotropic

LOSSES, TIMES = ("flow", "paper"), ("logit_normal", "uniform", "mixed")


@checks.checked(denoiser=a_denoiser, kind=checks.one_of(LOSSES, "loss"))
def denoising_loss(
    denoiser: NetworkDenoiser,
    x: Tensor,
    z: Tensor,
    t: Tensor,
    kind: str = "flow",
    target: Tensor | None = None,
    cond: Tensor | None = None,
) -> Tensor:
    """Loss per image, (B,): mean over pixels. x, z (B, C, H, W), t (B,); what is predicted is ``target``, else x.

    In training mode a :class:`phasewise.PlanDenoiser` has the loss of its plan, at the plan's size, added.

    ``cond``, a row for each image, is told to a network that takes a condition.
    """
    if kind == "paper":
        isotropic(denoiser.path, 'the published loss ("paper")')
    path, told = denoiser.path, cond if denoiser.takes_condition else None
    target = x if target is None else target
    with watched_plans() as plans:
        mean = denoiser(path.add_noise(x, z, t), t, told)
    loss = _of(mean.float() - target, kind, path, t, denoiser.output_scale(t))
    if isinstance(denoiser, PlanDenoiser) and denoiser.training and denoiser.plan_learns:
        missed = plans[-1].float() - F.avg_pool2d(target, denoiser.factor)
        there = PooledPath(path, denoiser.factor)
        loss = loss + denoiser.weight * _of(missed, kind, there, t, denoiser.plan_scale(t))
    return loss


def _of(difference: Tensor, kind: str, path: NoisePath, t: Tensor, scale: Tensor) -> Tensor:
    """(B,) of answers that miss by ``difference``, where one that says nothing misses by ``scale``."""
    if kind == "flow":
        # F - F* = (D - target) / c_out; c_out vanishes at t = 0
        return (difference / scale.clamp_min(1e-6)).square().flatten(1).mean(1)
    # the weight has no bound towards t = 0
    return (_paper_weight(path, t).to(difference.dtype) * difference.square().flatten(1).mean(1)).clamp_max(1e6)


def _paper_weight(path: NoisePath, t: Tensor) -> Tensor:
    """|velocity error|^2 + |eps error|^2 + |x error|^2 over |x error|^2."""
    # eps = (x_t - alpha x) / sigma: its error is alpha / sigma that of x
    return path.velocity_gain(t) ** 2 + path.gamma(t) + 1


@checks.checked(n=checks.count, kind=checks.one_of(TIMES, "time distribution"), span=checks.pair_inside(0, 1))
def draw_times(n: int, kind: str, span: tuple[float, float], generator: torch.Generator) -> Tensor:
    """n noise times, stratified (one in each n-th of the distribution), in random order, inside ``span``.

    "logit_normal": sigmoid of a standard normal, as published; "uniform"; "mixed": half of each, which keeps the ends
    of the time axis trained.
    """
    u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    u = u[torch.randperm(n, generator=generator)].clamp(1e-4, 1 - 1e-4)  # the quantile functions are finite inside
    low, high = span
    normal = torch.distributions.Normal(0.0, 1.0)
    if kind == "uniform" or (kind == "mixed" and span != (0.0, 1.0)):
        t = low + (high - low) * u
    elif kind == "mixed":
        # u below 1/2 makes the uniform half, u above it the logit-normal one, each stratified
        t = torch.where(u < 0.5, 2 * u, torch.sigmoid(normal.icdf((2 * u - 1).clamp(1e-4, 1 - 1e-4))))
    else:
        # the distribution's shares below the ends of the span
        edges = normal.cdf(torch.logit(torch.tensor([low, high]).clamp(1e-6, 1 - 1e-6)))
        t = torch.sigmoid(normal.icdf(edges[0] + (edges[1] - edges[0]) * u))
    # off t = 0, where c_out vanishes, and off t = 1, where alpha does
    return t.clamp(min(max(low, 1e-3), high), max(min(high, 0.9995), low))
