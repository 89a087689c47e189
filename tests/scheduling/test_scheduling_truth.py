"""What distances are counted from: the best that is known, not what was trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import Denoiser, GuidedDenoiser, PixelDenoiser, WienerDenoiser
from phasewise.metrics import PCAFeatures
from phasewise.scheduling.truth import INPUT, MEAN, ambiguity, best_known

SHAPE = (1, 6, 6)
TIMES = (1.0, 0.6, 0.3)


def images(n: int = 600) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(n, 1, 3, 3, generator=generator).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return 0.5 + 0.15 * low + 0.05 * torch.randn(n, *SHAPE, generator=generator)


class Off(Denoiser):
    """The ideal answer, and a shift that grows with t: a network that is wrong where it sees nothing."""

    def __init__(self, inner: Denoiser, shift: float) -> None:
        super().__init__(inner.image_shape)
        self.inner, self.shift = inner, shift

    def forward(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> Tensor:  # type: ignore[override]
        found: Tensor = self.inner(x_t, t) + self.shift * (float(t) > 0.5)
        return found


def priced(**how: object) -> pw.results.PriceList:
    ideal = WienerDenoiser.fit(images())
    members = {"global": Off(ideal, 0.1), "wiener": ideal, "pixel": PixelDenoiser.fit(images())}
    return pw.price_list(members, images(), TIMES, features=PCAFeatures.fit(images(), 8), **how)  # type: ignore[arg-type]


def test_in_pure_noise_the_data_mean_is_right_and_a_trained_reference_pays_for_what_it_is_off() -> None:
    prices = priced()
    size = 0.1**2 * 36
    assert prices.losses.distance[0, 0] == pytest.approx(size, rel=0.05)
    assert prices.losses.distance[0, 2] < 0.01 * size  # the mean of other images than those held out
    assert prices.frechet is not None
    assert prices.frechet[0, 0] > 10 * prices.frechet[0, 2]
    # at .6 the Wiener filter's loss is lower: distances are counted from it
    assert prices.losses.distance[1, 1] == 0
    assert prices.losses.distance[1, 0] == pytest.approx(size, rel=1e-3)
    # at .3 both are one: the reference stays
    assert prices.losses.distance[2, 0] == 0
    # the first step goes to the one that is right and costs nothing
    plan = pw.optimise_schedule(prices, 1.0, penalty="w2", ties=0)
    assert plan.assignment[0] == "pixel"


def test_counted_from_the_reference_it_is_never_off() -> None:
    prices = priced(truth="reference")
    assert (prices.losses.distance[:, 0] == 0).all()
    assert prices.losses.distance[0, 1] > 0.3


def test_where_two_are_as_good_within_error_their_distance_is_the_doubt() -> None:
    ideal = WienerDenoiser.fit(images())
    table = pw.diagnosis.measure_losses(
        {"global": ideal, "near": Off(ideal, 1e-3), "far": Off(ideal, 1.0)}, images(), (0.9, 0.3)
    )
    unsure = ambiguity(table, table.distance)
    assert unsure[0, :2] == pytest.approx([1e-6 * 36] * 2, rel=1e-3)
    assert unsure[0, 2] == 0  # its loss is higher beyond error: there is no doubt about it
    assert (unsure[1] == 0).all()


def test_both_ends_are_known_in_closed_form() -> None:
    ideal = WienerDenoiser.fit(images())
    table = pw.diagnosis.measure_losses({"global": ideal}, images(), (1.0, 0.5, 1e-4))
    mean = images().mean(0)
    known = best_known(table, {"global": ideal}, mean, ideal.path)
    assert {k: name for k, (name, _) in known.items()} == {0: MEAN, 2: INPUT}
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(known[0][1](x, 1.0), mean.expand(2, -1, -1, -1))
    torch.testing.assert_close(known[2][1](x, 1e-4), x / (1 - 1e-4))
    # with a condition the mean is another one for each image: nothing is known of it
    assert set(best_known(table, {"global": ideal}, None, ideal.path)) == {2}


def test_guidance_is_meant_to_be_off_and_stays_the_reference() -> None:
    torch.manual_seed(0)
    network = pw.UNetDenoiser(SHAPE, width=8, classes=2).eval()
    guided = GuidedDenoiser(network, 3.0, null=1)
    prices = pw.price_list({"guided": guided, "plain": network}, images(), TIMES, reference="guided", cond=0, n=20)
    assert (prices.losses.distance[:, 0] == 0).all()
    assert np.isfinite(prices.losses.distance_stderr).all()
