r"""``I(A : C | B)`` as a difference of two mutual informations, each a variational value of a trained critic.

With averages ``E_j`` over joint and ``E_m`` over marginal pairs (:mod:`phasewise.information.critic_base`)::

    MINE      E_j T - log E_m e^T                             Belghazi et al. 2018, arXiv 1801.04062 (Donsker-Varadhan)
    NWJ       E_j T + 1 - E_m e^T                             Nguyen, Wainwright, Jordan 2010
    InfoNCE   E log( e^T_j / mean(e^T_j, e^T_m1 .. e^T_mk) )   van den Oord et al. 2018, arXiv 1807.03748
    SMILE     E_j T - log E_m clip(e^T, e^-tau, e^tau)         Song, Ermon 2020, arXiv 1910.06222
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.information.critic_base import CriticEstimator, Loss, cross_entropy

__all__ = ["MINE", "NWJ", "SMILE", "CriticEstimator", "InfoNCE"]


def log_mean_exp(scores: Tensor) -> Tensor:
    """Over all entries, a scalar."""
    return scores.flatten().logsumexp(0) - math.log(scores.numel())


def _over_partition(joint: Tensor, marginal: Tensor) -> Tensor:
    """``E joint - log E e^marginal`` as readings: the mean is exact, the spread the first-order influence."""
    log_z = log_mean_exp(marginal)
    # 1 - e^(T - log Z) has mean 0: nothing to the value, to the spread what log Z contributes (delta method)
    return joint - log_z + 1 - (marginal - log_z).exp().mean(0)


class _DonskerVaradhan:
    """MINE's loss.  ``state``: logarithm of the running mean of ``E e^T``, a scalar; None before the first batch."""

    def __init__(self, ema: float | None) -> None:
        self.ema = ema
        self.state: Tensor | None = None

    def __call__(self, scores: Tensor) -> Tensor:
        log_z = log_mean_exp(scores[1:])
        if self.ema is None:
            return log_z - scores[0].mean()
        now = log_z.detach()
        before = now if self.state is None else self.state.to(now.device)
        self.state = torch.logaddexp(before + math.log1p(-self.ema), now + math.log(self.ema))
        corrected = (log_z - self.state).exp()  # its gradient is that of E e^T over the running mean
        return now + (corrected - corrected.detach()) - scores[0].mean()


class MINE(CriticEstimator):
    """The paper's estimator (Hu, Liu, Zhang, Gao, arXiv 2508.06614): its network, AdamW and batch of 100, held out.

    Options: those of :class:`CriticEstimator`, and ``ema``, the rate of the running mean of ``E e^T`` that takes the
    bias out of the gradient (None: the plain, biased gradient).

    Bound: for one critic and infinitely many held-out images, a lower bound of either mutual information; the
    logarithm of a finite mean biases it upwards.  The difference of two lower bounds bounds neither way.

    Fails: large mutual information (the variance of ``e^T`` grows like ``e^I``); few images; small CMI next to large
    I(A : B): of the two shortfalls that of I(A : BC) is the larger, so the value comes out too small or negative (on a
    6x6 Gaussian field -0.013 for 0.008 after 5000 steps on 10000 images), and the standard error does not show it.  On
    its training images (:meth:`published`) it reads memory.
    """

    name = "mine"
    bound = "neither (difference of two lower bounds, each biased by the log of a finite mean)"

    def __init__(self, *, ema: float | None = 0.01, **options: Any) -> None:
        super().__init__(**options)
        if ema is not None and not 0 < ema < 1:
            raise PhasewiseError(f"mine: ema must lie in (0, 1), or be None; got {ema!r}")
        self.ema = ema

    @classmethod
    def published(cls, steps: int = 300_000, **options: Any) -> MINE:
        """The published recipe: lr 1e-4, dropout, one noise draw per image, scored on the training images.

        Taken from the authors' code.  They average the last tenth of the training batches as they pass; here the
        trained critic reads all training images once, which leaves out the noise of the weights but not the memory.
        """
        recipe: dict[str, Any] = {
            "lr": 1e-4, "decay": False, "dropout": (0.1, 0.3), "ema": 0.001, "refresh_noise": False, "hold_out": False,
            "calibration": 0.0, "refits": 1,
        }  # fmt: skip
        return cls(steps=steps, **{**recipe, **options})

    def make_loss(self) -> Loss:
        return _DonskerVaradhan(self.ema)

    def read(self, scores: Tensor) -> Tensor:
        return _over_partition(scores[0], scores[1:])


class NWJ(CriticEstimator):
    """Nguyen, Wainwright, Jordan 2010 (the f-divergence bound of the Kullback-Leibler divergence).

    Options: those of :class:`CriticEstimator`.

    Bound: either mutual information is bounded from below in expectation at any sample size; their difference is not.

    Fails: like MINE at large mutual information, and sooner: nothing tempers ``e^T`` in the loss, which may overflow.
    """

    name = "nwj"
    bound = "neither (difference of two lower bounds)"

    def make_loss(self) -> Loss:
        return lambda scores: scores[1:].exp().mean() - 1 - scores[0].mean()

    def read(self, scores: Tensor) -> Tensor:
        return scores[0] + 1 - scores[1:].exp().mean(0)


class InfoNCE(CriticEstimator):
    """van den Oord et al. 2018: pick the true A among ``negatives`` others (Poole et al. 2019, arXiv 1905.06922).

    Options: those of :class:`CriticEstimator`; by default all other A of the batch are the negatives.  A step costs
    ``batch * (1 + negatives)`` critic evaluations.

    Bound: either mutual information is bounded from below in expectation, and never read above
    ``log(1 + negatives)``; their difference bounds neither way.

    Fails: where I(A : BC) comes near that cap (small t), the CMI is read too small; away from it by about
    ``(E_m e^{2T} - 1) / 2k`` for k negatives.  Low variance otherwise.
    """

    name = "infonce"
    bound = "neither (difference of two lower bounds, each at most log(1 + negatives))"

    def __init__(self, *, batch: int = 32, negatives: int = 31, **options: Any) -> None:
        super().__init__(batch=batch, negatives=negatives, **options)

    def make_loss(self) -> Loss:
        return lambda scores: -self.read(scores).mean()

    def read(self, scores: Tensor) -> Tensor:
        return scores[0] - scores.logsumexp(0) + math.log(len(scores))


class SMILE(CriticEstimator):
    """Song, Ermon 2020: a critic trained as a classifier, ``e^T`` clipped in the partition function.

    Options: those of :class:`CriticEstimator`, and ``clip``, their tau in nats.

    Bound: none, neither for the two mutual informations nor for their difference: clipping trades variance for bias.

    Fails: where much of the log ratio lies beyond ``clip`` it reads too much; the bias is that of the classifier else.
    """

    name = "smile"
    bound = "neither (clipped partition function)"

    def __init__(self, *, clip: float = 5.0, **options: Any) -> None:
        super().__init__(**options)
        if not clip > 0:
            raise PhasewiseError(f"smile: clip must be a number of nats > 0, got {clip!r}")
        self.clip = float(clip)

    def make_loss(self) -> Loss:
        return cross_entropy

    def read(self, scores: Tensor) -> Tensor:
        return _over_partition(scores[0], scores[1:].clamp(-self.clip, self.clip))
