r"""``I(A : C | B)`` from classifiers: the log odds of "one image" against "A from another image" are a density ratio.

A classifier trained on equally many pairs of either kind has as its best log odds::

    T(x_A, x_B) = log p(x_A, x_B) / (p(x_A) p(x_B)),       I(A : B) = E_j T,

and ``I(A : C | B) = E_j [ T(x_A, x_BC) - T(x_A, x_B) ]``, image by image (Mukherjee, Asnani, Kannan 2020, CCMI, arXiv
1906.01824, which adds a Donsker-Varadhan reading; here the log odds are averaged as they are).  Network, pairs and
training are those of :mod:`phasewise.information.critic_base`.
"""

from __future__ import annotations

from torch import Tensor

from phasewise.information.critic_base import CriticEstimator, Loss, cross_entropy


class ClassifierEstimator(CriticEstimator):
    """Mean difference of calibrated log odds on held-out joint pairs.

    Options: those of :class:`CriticEstimator`.  ``calibration`` is temperature scaling (Guo et al. 2017, arXiv
    1706.04599): one factor for the log odds, fitted on images the classifier did not see.

    Bound: neither, and not for either mutual information: an average of log odds is one-sided only for exact odds.

    Fails: where pairs are told apart almost surely (I(A : B) of several nats), for then the cross entropy no longer
    cares how large the odds are; an over-confident classifier without calibration reads too much.
    """

    name = "classifier"
    bound = "neither (mean of estimated log density ratios)"

    def make_loss(self) -> Loss:
        return cross_entropy

    def read(self, scores: Tensor) -> Tensor:
        return scores[0]
