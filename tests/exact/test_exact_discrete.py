"""Small binary systems: enumeration against dictionaries, and the recovery bounds term by term."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewise.errors import PhasewiseError
from phasewise.exact import DiscreteSystem, regions, windows

GHZ = np.array([0.5] + [0.0] * 62 + [0.5])


def random_system(seed: int, shape: tuple[int, int], sparse: bool = False) -> DiscreteSystem:
    rng = np.random.default_rng(seed)
    p = rng.random(2 ** (shape[0] * shape[1])) ** 4
    if sparse:
        p[rng.random(p.size) < 0.7] = 0
        p[0] += 0.1
    return DiscreteSystem(p / p.sum(), shape)


def plain_joint(system: DiscreteSystem, t: float) -> dict[tuple[tuple[int, ...], tuple[int, ...]], float]:
    """P(clean, noisy) as a dictionary, state by state."""
    out = {}
    bits = list(itertools.product((0, 1), repeat=system.n))
    for x, weight in zip(bits, system.p.reshape(-1), strict=True):
        for y in bits:
            flips = sum(a != b for a, b in zip(x, y, strict=True))
            out[x, y] = float(weight) * (t / 2) ** flips * (1 - t / 2) ** (system.n - flips)
    return out


def plain_entropy(p: dict[tuple[int, ...], float], keep: list[int]) -> float:
    marginal: dict[tuple[int, ...], float] = defaultdict(float)
    for y, weight in p.items():
        marginal[tuple(y[k] for k in keep)] += weight
    return -sum(w * math.log(w) for w in marginal.values() if w > 0)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_noise_and_cmi_against_dictionaries(t):
    system = random_system(0, (2, 3))
    noisy: dict[tuple[int, ...], float] = defaultdict(float)
    for (_, y), weight in plain_joint(system, t).items():
        noisy[y] += weight
    np.testing.assert_allclose(system.noisy(t).reshape(-1), [noisy[y] for y in sorted(noisy)], atol=1e-15)
    region = regions((2, 3), 1, 1, (0, 0))
    a, b, c = (r.tolist() for r in (region.a, region.b, region.c))
    plain = sum(s * plain_entropy(noisy, k) for s, k in ((1, a + b), (1, b + c), (-1, b), (-1, a + b + c)))
    assert plain > 5e-5
    assert system.cmi(t, 1, 1, (0, 0)) == pytest.approx(plain, abs=1e-13)


@pytest.mark.parametrize("radius", [None, 1])
def test_posterior_means_against_dictionaries(radius):
    system, t = random_system(1, (1, 4)), 0.4
    joint, table = plain_joint(system, t), system.posterior_means(t, radius)
    for group in windows((1, 4), radius):
        for i, window in zip(group.pixels.tolist(), group.indices.tolist(), strict=True):
            on, total = defaultdict(float), defaultdict(float)
            for (x, y), weight in joint.items():
                total[tuple(y[k] for k in window)] += weight
                on[tuple(y[k] for k in window)] += weight * x[i]
            for row, y in enumerate(itertools.product((0, 1), repeat=4)):
                key = tuple(y[k] for k in window)
                assert table[row, i] == pytest.approx(on[key] / total[key], abs=1e-13)


def test_mmse_is_the_sampled_loss():
    system, n = random_system(2, (3, 3)), 20000
    clean = system.sample(n, seed=3)
    assert clean.shape == (n, 1, 3, 3)
    flips = torch.rand(clean.shape, generator=torch.Generator().manual_seed(4)) < 0.1
    noisy = (clean.bool() ^ flips).reshape(n, -1).long()
    code = (noisy @ (2 ** torch.arange(8, -1, -1))).numpy()
    for radius in (None, 1):
        loss = ((system.posterior_means(0.2, radius)[code] - clean.reshape(n, -1).numpy()) ** 2).sum(1)
        assert abs(loss.mean() - system.mmse(0.2, radius)) < 4.5 * loss.std() / math.sqrt(n)


def test_samples_have_the_noisy_frequencies_and_do_not_depend_on_n():
    system, n = random_system(5, (1, 3)), 20000
    x = system.sample(n, seed=6, t=0.5)
    counts = np.bincount((x.reshape(n, 3).long() @ torch.tensor([4, 2, 1])).numpy(), minlength=8)
    expected = n * system.noisy(0.5).reshape(-1)
    assert ((counts - expected) ** 2 / expected).sum() < 35  # chi-square, 7 degrees of freedom
    assert torch.equal(system.sample(9, seed=6, t=0.5), x[:9])


def test_clean_posterior_is_the_state_and_impossible_windows_are_nan():
    table = DiscreteSystem(GHZ).posterior_means(0.0)
    assert (table[0] == 0).all()
    assert (table[63] == 1).all()
    assert np.isnan(table[1:63]).all()
    assert DiscreteSystem(GHZ).mmse(0.0, 1) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.9), st.floats(0.01, 1.0), st.booleans())
def test_recovery_error_is_at_most_the_information_lost(seed, t, step, sparse):
    system, s = random_system(seed, (2, 4), sparse), t + step * (1 - t)
    for radius in (0, 1, 2):
        kl = system.recovery_kl(t, s, radius)
        bound = system.recovery_bound(t, s, radius)
        assert -1e-12 <= kl <= bound + 1e-12
        assert bound <= system.cmi(t, radius) + 1e-12
    assert system.recovery_kl(t, s, 3) == pytest.approx(0, abs=1e-10)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.8), st.booleans())
def test_a_layer_costs_at_most_the_sum_of_its_terms(seed, t, sparse):
    system = random_system(seed, (2, 3), sparse)
    for radius in (0, 1):
        layer = system.layer_recovery(t, t + 0.15, radius)
        assert len(layer.terms) == 6
        assert min(layer.terms) >= -1e-12
        assert -1e-12 <= layer.kl <= sum(layer.terms) + 1e-12
    assert system.layer_recovery(t, t + 0.15, 2).kl == pytest.approx(0, abs=1e-10)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from(["raster", "colours"]))
def test_many_layers_cost_at_most_the_sum_of_all_terms(seed, sparse, order):
    system, levels = random_system(seed, (2, 3), sparse), (0.0, 0.2, 0.5, 1.0)
    for radius in (0, 1):
        path = system.path_recovery(levels, radius, order)
        assert -1e-12 <= path.kl <= sum(path.terms) + 1e-12
        for own, term, cmi in zip(path.own, path.terms, path.cmi, strict=True):
            assert -1e-12 <= own <= term + 1e-12
            assert term <= cmi + 1e-12
        assert len(path.own) == 18
    back = system.undone(system.noisy(1.0), levels, 2, order)
    np.testing.assert_allclose(back, system.p, atol=1e-12)


def test_pixels_of_one_colour_do_not_hear_of_each_other():
    """Undone in colours, a bit of the far end cannot depend on noise beyond (colours x radius) pixels a layer."""
    system, radius = random_system(3, (1, 8)), 1
    q = np.random.default_rng(4).dirichlet(np.ones(256)).reshape((2,) * 8)
    other = q.sum((4, 5, 6, 7), keepdims=True) * np.random.default_rng(5).dirichlet(np.ones(16)).reshape((2,) * 4)
    kept = (2, 3, 4, 5, 6, 7)
    seen = [system.undone(x, (0.1, 0.6), radius, "colours").sum(kept) for x in (q, other)]
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-15)
    seen = [system.undone(x, (0.1, 0.3, 0.6), radius, "colours").sum(kept) for x in (q, other)]
    assert np.abs(seen[0] - seen[1]).max() > 1e-10


def test_a_layer_without_context_loses_all_correlations_of_ghz():
    """Radius 0 and full noise: each pixel comes back as a fair coin, 5 of 6 bits wrong in KL; the bound holds with
    equality because nothing is left of the far pixels."""
    layer = DiscreteSystem(GHZ).layer_recovery(0.0, 1.0, 0)
    assert layer.kl == pytest.approx(5 * math.log(2))
    assert sum(layer.terms) == pytest.approx(5 * math.log(2))


def test_a_layer_that_breaks_a_hard_constraint_still_obeys_the_bound():
    """Pixels (1, 0) and (1, 2) always agree and cannot see each other: half of what is recovered is impossible."""
    p = np.zeros((2,) * 6)
    p[:, :, :, 0, :, 0] = p[:, :, :, 1, :, 1] = 1 / 32
    layer = DiscreteSystem(p, (2, 3)).layer_recovery(0.0, 1.0, 1)
    assert layer.kl == pytest.approx(math.log(2))
    assert sum(layer.terms) == pytest.approx(math.log(2))


def test_recovery_of_one_pixel_against_the_kernel_written_out():
    system = random_system(7, (1, 4))
    t, s, p = 0.2, 0.6, random_system(7, (1, 4)).noisy(0.2)
    q = (1 - (1 - s) / (1 - t)) / 2
    channel = np.array([[1 - q, q], [q, 1 - q]])
    noised = np.einsum("iabc,ij->jabc", p, channel)  # A = pixel 0, B = pixel 1
    near, near_noised = p.sum((2, 3)), noised.sum((2, 3))
    kernel = np.einsum("ib,ij,jb->ijb", near, channel, 1 / near_noised)
    recovered = np.einsum("ijb,jbcd->ibcd", kernel, noised)
    plain = float((p * np.log(p / recovered)).sum())
    assert system.recovery_kl(t, s, 1, 1, (0, 0)) == pytest.approx(plain, abs=1e-14)
    assert plain > 1e-4


def test_a_markov_chain_is_recovered_exactly_from_neighbours_when_clean():
    flip, n = 0.2, 6
    p = np.zeros((2,) * n)
    for bits in itertools.product((0, 1), repeat=n):
        p[bits] = 0.5 * math.prod(flip if a != b else 1 - flip for a, b in itertools.pairwise(bits))
    system = DiscreteSystem(p)
    assert system.cmi(0.0, 1) == pytest.approx(0, abs=1e-14)
    assert system.recovery_kl(0.0, 0.7, 1) == pytest.approx(0, abs=1e-14)
    assert system.recovery_kl(0.0, 0.7, 0) > 0.05
    assert system.cmi(0.4, 1) > 1e-3  # noise breaks the Markov property


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_information_and_errors_are_ordered_by_radius(seed, t):
    system = random_system(seed, (3, 3))
    center = (0, 0)
    cmi = [system.cmi(t, r, center=center) for r in (0, 1, 2)]
    assert cmi[0] >= cmi[1] - 1e-12 >= -2e-12
    assert cmi[2] == 0
    errors = [system.mmse(t, r) for r in (0, 1, 2, None)]
    assert errors[0] >= errors[1] - 1e-12 >= errors[2] - 2e-12
    assert errors[2] == pytest.approx(errors[3], abs=1e-12)


def test_noise_composes():
    system = random_system(8, (1, 3))
    later = DiscreteSystem(system.noisy(0.3)).noisy(1 - 0.4 / 0.7)
    np.testing.assert_allclose(later, system.noisy(0.6), atol=1e-15)
    np.testing.assert_allclose(system.noisy(1.0), 1 / 8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DiscreteSystem(np.ones(6) / 6), "2\\^n"),
        (lambda: DiscreteSystem(np.ones(4)), "sum to 1"),
        (lambda: DiscreteSystem(np.array([1.5, -0.5])), "sum to 1"),
        (lambda: DiscreteSystem(np.ones(4) / 4, (1, 3)), "fill"),
        (lambda: DiscreteSystem(GHZ).recovery_kl(0.5, 0.2, 1), "t <= s"),
        (lambda: DiscreteSystem(GHZ).mmse(0.5, -1), "radius"),
        (lambda: DiscreteSystem(GHZ).path_recovery((0.5, 0.2), 1), "ascend"),
        (lambda: DiscreteSystem(GHZ).path_recovery((0.0, 0.2), 1, "rows"), "order"),
        (lambda: DiscreteSystem(GHZ).undone(np.ones(4), (0.0, 0.2), 1), "shape"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(PhasewiseError, match=words):
        make()


def test_chances_to_be_undone_sum_to_one():
    system = DiscreteSystem(np.full((2,) * 4, 1 / 16))
    with pytest.raises(PhasewiseError, match="chances that sum to 1, got a sum of 16"):
        system.undone(np.ones((2,) * 4), [0, 1], 1)
