"""A caller's default dtype of float64 changes nothing that is public."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import phasewise as pw


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_training_prices_and_samples_are_those_of_float32(double: None) -> None:
    data = pw.load_images("digits", limit=200)
    found = []
    for dtype in (torch.float64, torch.float32):
        torch.set_default_dtype(torch.float32)
        torch.manual_seed(0)
        local = pw.LocalDenoiser((1, 8, 8), 2)
        torch.set_default_dtype(dtype)
        pw.train(local, data, steps=3, batch=8, progress=False)
        members = {"global": local, "wiener": pw.WienerDenoiser.fit(data.train)}
        prices = pw.price_list(members, data, pw.time_grid(3), n=20)
        samples = pw.sample(local, n=4, steps=3, solver="sde_dpmpp_2m")
        assert samples.dtype == torch.float32
        assert torch.get_default_dtype() == dtype
        found.append((prices.losses.loss, samples))
    assert (found[0][0] == found[1][0]).all()
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize(("estimator", "options"), [("density", {"steps": 3}), ("mmse", {"steps": 3}), ("knn", {})])
def test_information_is_measured(double: None, estimator: str, options: dict[str, int]) -> None:
    data = pw.load_images("digits", limit=200)
    found = pw.cmi_map(data, [1], [0.5], estimator=estimator, **options)
    torch.set_default_dtype(torch.float32)
    assert found.value.tolist() == pw.cmi_map(data, [1], [0.5], estimator=estimator, **options).value.tolist()
