"""Ensembles written out, and that loops of an even sector are made by a circuit of one layer."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from phasewise.errors import PhasewiseError
from phasewise.exact import IsingStrip
from phasewise.exact.ensembles import ghz, ising, loops, product


def test_products_and_ghz():
    p = product((2, 2), 0.3).p
    assert p[1, 0, 1, 1] == pytest.approx(0.7 * 0.3**3)
    assert p.sum() == pytest.approx(1)
    assert product((1, 2), 0.0).p.tolist() == [[1, 0], [0, 0]]
    assert ghz((2, 3)).p[0, 0, 0, 0, 0, 0] == ghz((2, 3)).p[1, 1, 1, 1, 1, 1] == 0.5


def test_ising_is_the_law_of_the_strip():
    """Fields tilt the enumerated law; the strip's messages must give the same means."""
    shape, beta = (4, 3), 0.6
    fields = torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spins = np.array(list(itertools.product((-1, 1), repeat=12)))
    weight = ising(shape, beta).p.reshape(-1) * np.exp(spins @ fields.numpy().reshape(-1))
    means = (weight / weight.sum()) @ spins
    np.testing.assert_allclose(IsingStrip(*shape, beta).posterior_mean(fields).numpy().reshape(-1), means, atol=1e-10)
    assert ising((1, 3), -50.0).p[0, 1, 0] == pytest.approx(0.5), "no overflow, and an antiferromagnet"


def test_loops_are_what_flips_around_faces_make():
    """Independent fair coins on the other plaquettes, each flipping its pixels: a local channel of one layer makes the
    even sector of a product."""
    odd_plaquettes = [(i, j) for i in range(3) for j in range(3) if (i + j) % 2]
    faces = [[(i + a, j + b) for a in (0, 1) for b in (0, 1)] for i, j in odd_plaquettes]
    faces += [[(i, j), (i, j + 1)] for i in (0, 3) for j in (0, 2)]
    made = np.zeros((2,) * 16)
    for coins in itertools.product((0, 1), repeat=len(faces)):
        x = np.zeros((4, 4), dtype=int)
        for coin, face in zip(coins, faces, strict=True):
            for at in face:
                x[at] ^= coin
        made[tuple(x.reshape(-1))] += 1
    even = loops((4, 4), 0).p
    np.testing.assert_allclose(made / made.sum(), even, atol=1e-15)


def test_rows_share_a_parity_that_windows_do_not_see():
    either, even = loops((4, 4)), loops((4, 4), 0)
    odd = loops((4, 4), 1)
    np.testing.assert_allclose(either.p, (even.p + odd.p) / 2, atol=1e-15)
    states = np.argwhere(either.p > 0).reshape(-1, 4, 4)
    parity = states.sum(2) % 2
    assert (parity == parity[:, :1]).all()
    assert len(states) == 2 * len(np.argwhere(even.p > 0)) == 2**9
    # any 3 x 3 window looks alike in both sectors
    window = tuple(k for k in range(16) if k // 4 == 3 or k % 4 == 3)
    np.testing.assert_allclose(even.p.sum(window), odd.p.sum(window), atol=1e-15)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: product((2, 2), 1.5), "chance"),
        (lambda: ising((2, 2), math.nan), "beta"),
        (lambda: loops((2, 3)), "even number of columns"),
        (lambda: loops((2, 2), 2), "sector"),
        (lambda: ghz((5, 4)), "too many"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(PhasewiseError, match=words):
        make()
