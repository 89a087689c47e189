"""Networks told a plan keep their radius; how many pixels are needed, read off a curve."""

import math

import pytest
import torch

import phasewise as pw
from studies.plans_needed import told
from studies.plans_needed.fields import needed, plans_of

SIDE = 28


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    images = torch.rand(8, 1, SIDE, SIDE)
    start = pw.LocalDenoiser((1, SIDE, SIDE), 3)
    start.fit_moments(images)
    with torch.no_grad():
        for p in start.parameters():
            p.add_(0.05 * torch.randn_like(p))
    made = told.Told(start, images, 10)
    with torch.no_grad():  # so that what is read of a plan counts
        made.local.stem.weight.add_(0.05 * torch.randn_like(made.local.stem.weight))
    return made


def asked(net, kind, x, plan, label=0):
    at = torch.full((len(x),), 0.5)
    return net(x, at, plan, torch.full((len(x),), told.KINDS.index(kind)), torch.full((len(x),), label))


@pytest.mark.parametrize("kind", [k for k in told.KINDS if k != "open"])
def test_at_a_fixed_plan_a_pixel_sees_its_window_alone(net, kind):
    x, plan = torch.rand(1, 1, SIDE, SIDE).requires_grad_(), torch.rand(1, 1, SIDE, SIDE)
    (grad,) = torch.autograd.grad(asked(net, kind, x, plan)[0, 0, 14, 14], x)
    rows, columns = grad[0, 0].nonzero().unbind(1)
    assert (rows - 14).abs().max() == (columns - 14).abs().max() == 3


def test_an_open_window_sees_all_and_no_plan(net):
    x, plan = torch.rand(1, 1, SIDE, SIDE).requires_grad_(), torch.rand(1, 1, SIDE, SIDE).requires_grad_()
    answer = asked(net, "open", x, plan)[0, 0, 14, 14]
    assert (torch.autograd.grad(answer, x, retain_graph=True)[0] != 0).all()
    assert not torch.autograd.grad(answer, plan)[0].any()


@pytest.mark.parametrize("kind", told.KINDS)
def test_a_kind_hears_what_it_is_told_and_nothing_else(net, kind):
    x, plan, other = torch.rand(3, 1, 1, SIDE, SIDE).unbind(0)
    with torch.no_grad():
        first, planned, classed = asked(net, kind, x, plan), asked(net, kind, x, other), asked(net, kind, x, plan, 7)
    assert torch.equal(first, planned) == (kind not in told.SIDES)
    assert torch.equal(first, classed) == (kind not in told.CLASS)


def test_plans_are_means_over_blocks_and_another_image_s_where_shuffled():
    images = torch.rand(3, 1, SIDE, SIDE)
    plan = told.plan_of("2 x 2", images)
    torch.testing.assert_close(plan[:, 0, :14, :14].mean((1, 2)), images[:, 0, :14, :14].mean((1, 2)))
    assert len(plan[0].unique()) == 4
    torch.testing.assert_close(told.plan_of(told.SHUFFLED, images), told.plan_of("14 x 14", images.roll(1, 0)))
    assert not told.plan_of("class", images).any()


def test_pixels_needed_are_read_off_between_two_plans():
    assert needed([1, 2, 4], [0.05, 0.01, 0.0]) == 1
    assert needed([1, 2, 4], [0.9, 0.4, 0.1]) == pytest.approx(16)
    # halfway between 4 and 16 pixels by their logarithms, and shares too
    assert needed([1, 2, 4], [0.9, 0.2, 0.05]) == pytest.approx(8)
    assert math.isnan(needed([1, 2], [0.9, 0.4]))
    assert plans_of(28) == (1, 2, 4, 7, 14)
