r"""Small binary systems by enumeration: bit-flip noise, exact information, Bayes (Petz) recovery.

``X_0`` in {0,1}^n has any distribution p, n <= 16.  Noise flips each bit independently with chance ``t/2``, which
shrinks its correlations by ``1 - t``; so going from level t to s > t flips with chance ``(1 - (1-s)/(1-t)) / 2``.

Undoing noise on A alone, seeing only A' (A noised further) and its ring B, is the Bayes reversal of the channel E,

    R(a | a', b) = P(a, b) E(a'|a) / Q(a', b),          Q = E P,

the classical Petz map.  For any state P (Hu, Liu, Zhang, Gao, arXiv 2508.06614; here joint convexity of KL)::

    KL(P || R E P) <= I(A : C | B)_P - I(A' : C | B)_Q <= I(A : C | B)_P                                     (1)

and for a layer, where pixels are noised one after another, P^0 -> P^1 -> ... -> P^n, and undone in reverse order,

    KL(P^0 || R_1 ... R_n P^n) <= sum_k [ I(A_k : C_k | B_k)_{P^{k-1}} - I(A_k : C_k | B_k)_{P^k} ]           (2)

by the chain rule for the backward trajectory and data processing; so it does for many layers, and in any order.
In the order "colours", pixels of equal row and column modulo ``radius + 1`` come together: none is in another's ring,
so each colour is one local channel, and a layer is a circuit of ``(radius + 1)^2`` of them (on a chain, radius + 1).
All information is in nats.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import entr, rel_entr
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.exact.base import (
    Center,
    Regions,
    Shape,
    check_radius_or_zero,
    check_shape,
    regions,
    windows,
)

Array = np.ndarray
MAX_BITS = 16
ORDERS = ("raster", "colours")


def _levels(value: object, name: str) -> tuple[float, ...]:
    """Noise levels in [0, 1], ascending, at least two."""
    found = checks.each(checks.unit, least=2)(value, name)
    if any(t > s for t, s in itertools.pairwise(found)):
        raise PhasewiseError(f"{name} must ascend, got {list(found)}")
    return found


@dataclass(frozen=True)
class LayerRecovery:
    """Inequality (2): ``kl`` = left side, ``terms[k]`` = the k-th summand on the right, in the order of the noise.

    ``own[k]`` is the error of the k-th step alone, ``KL(P^{k-1} || R_k P^k)``, and ``cmi[k]`` the information before
    it: ``own <= terms <= cmi`` by (1).
    """

    kl: float
    terms: tuple[float, ...]
    own: tuple[float, ...] = ()
    cmi: tuple[float, ...] = ()


class DiscreteSystem:
    """A distribution over {0,1}^n.

    Args:
        p: probabilities, (2^n,) or (2,) * n, n <= 16; pixel 0 is the first axis (the most significant bit).
        shape: (H, W) with H * W = n; default one row, (1, n).
    """

    def __init__(self, p: Array, shape: Shape | None = None) -> None:
        try:
            p = np.asarray(p, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise PhasewiseError(f"p must be an array of probabilities, got {checks.shown(p)}") from error
        n = max(p.size, 1).bit_length() - 1
        if p.size != 2**n or not 1 <= n <= MAX_BITS:
            raise PhasewiseError(f"p must hold 2^n probabilities with 1 <= n <= {MAX_BITS}, got {p.size}")
        if not (np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) < 1e-9):
            raise PhasewiseError("p must be non-negative and sum to 1; divide it by p.sum()")
        self.image_shape = check_shape((1, n) if shape is None else shape)
        if self.image_shape[1] * self.image_shape[2] != n:
            raise PhasewiseError(f"p is over {n} bits, which do not fill an image of shape {shape}")
        self.n = n
        self.p = p.reshape((2,) * n)

    @property
    def shape(self) -> Shape:
        """(H, W)."""
        return self.image_shape[1:]

    def noisy(self, t: float) -> Array:
        """The distribution of ``X_t``, (2,) * n."""
        return _flip(self.p, range(self.n), flip_chance(0.0, t))

    @checks.checked(n=checks.count, seed=checks.seed, t=checks.unit)
    def sample(self, n: int, seed: int, t: float = 0.0) -> Tensor:
        """``n`` images (n, 1, H, W) float32 of 0 and 1, at noise level t."""
        u = np.random.default_rng(seed).random(n)
        states = np.minimum(np.searchsorted(self.noisy(t).reshape(-1).cumsum(), u, side="right"), 2**self.n - 1)
        bits = (states[:, None] >> np.arange(self.n - 1, -1, -1)) & 1
        return torch.from_numpy(bits).float().reshape(n, *self.image_shape)

    def cmi(self, t: float, radius: int, block: int = 1, center: Center | None = None) -> float:
        """``I(A : C | B)`` of ``X_t`` in nats, by enumeration."""
        return _cmi(self.noisy(t), regions(self.shape, radius, block, center))

    def posterior_means(self, t: float, radius: int | None = None) -> Array:
        """``E[X_0,i | X_t on N_radius(i)]`` for every noisy configuration, (2^n, n) in the order of ``p``.

        NaN where the window's configuration has probability 0 (t = 0 only).
        """
        if radius is not None:
            check_radius_or_zero(radius)
        out = np.full((2,) * self.n + (self.n,), np.nan)
        noisy, chance = self.noisy(t), flip_chance(0.0, t)
        for i, window in self.windows(radius):
            far = tuple(k for k in range(self.n) if k not in window)
            on = self.p.copy()
            np.moveaxis(on, i, 0)[0] = 0
            joint = _flip(on, range(self.n), chance).sum(far, keepdims=True)
            weight = noisy.sum(far, keepdims=True)
            mean = np.divide(joint, weight, out=np.full_like(joint, np.nan), where=weight > 0)
            out[..., i] = np.broadcast_to(mean, noisy.shape)
        return out.reshape(-1, self.n)

    def mmse(self, t: float, radius: int | None = None) -> float:
        """``E|E[X_0 | window of X_t] - X_0|^2`` per image, summed over pixels."""
        mean = self.posterior_means(t, radius)
        weight = self.noisy(t).reshape(-1)
        return float((weight[weight > 0, None] * (mean * (1 - mean))[weight > 0]).sum())

    def recovery_kl(self, t: float, s: float, radius: int, block: int = 1, center: Center | None = None) -> float:
        """``KL(P_t || R E P_t)`` in nats: A noised from t on to s >= t, then undone from A' and B alone."""
        p, region = self.noisy(t), regions(self.shape, radius, block, center)
        chance = flip_chance(t, s)
        return _kl(p, _recover(_flip(p, region.a.tolist(), chance), p, region, chance))

    def recovery_bound(self, t: float, s: float, radius: int, block: int = 1, center: Center | None = None) -> float:
        """``I(A_t : C | B) - I(A_s : C | B)`` with B and C at level t: the middle of inequality (1), nats."""
        p, region = self.noisy(t), regions(self.shape, radius, block, center)
        return _cmi(p, region) - _cmi(_flip(p, region.a.tolist(), flip_chance(t, s)), region)

    def layer_recovery(self, t: float, s: float, radius: int) -> LayerRecovery:
        """Both sides of inequality (2): all pixels noised from t to s and undone one by one with radius ``radius``."""
        return self.path_recovery((t, s), radius)

    @checks.checked(levels=_levels, radius=checks.pixels, order=checks.one_of(ORDERS))
    def path_recovery(self, levels: Sequence[float], radius: int, order: str = "raster") -> LayerRecovery:
        """Both sides of inequality (2) for a layer from each of ``levels`` to the next: noised to the last of them,
        undone down to the first.  ``order`` of the pixels in a layer: "raster" or "colours"."""
        terms, own, cmi = [], [], []
        for t, s in itertools.pairwise(levels):
            for before, region, chance in self._layer(t, s, radius, order):
                after = _flip(before, region.a.tolist(), chance)
                cmi.append(_cmi(before, region))
                terms.append(cmi[-1] - _cmi(after, region))
                own.append(_kl(before, _recover(after, before, region, chance)))
        recovered = self.undone(self.noisy(levels[-1]), levels, radius, order)
        return LayerRecovery(_kl(self.noisy(levels[0]), recovered), tuple(terms), tuple(own), tuple(cmi))

    @checks.checked(
        q=checks.made(np.ndarray, "an array of chances"),
        levels=_levels,
        radius=checks.pixels,
        order=checks.one_of(ORDERS),
    )
    def undone(self, q: Array, levels: Sequence[float], radius: int, order: str = "raster") -> Array:
        """What the local reversal of *this* system's noise makes of any distribution ``q`` (2,) * n at the last level,
        at the first.  Chance that leads where this system never is may be missing from the result."""
        if q.shape != self.p.shape:
            raise PhasewiseError(f"q must have the shape {self.p.shape} of this system, got {q.shape}")
        if not (q >= 0).all() or abs(float(q.sum()) - 1) > 1e-9:
            raise PhasewiseError(f"q must be chances that sum to 1, got a sum of {float(q.sum()):.6g}")
        for t, s in reversed(list(itertools.pairwise(levels))):
            for before, region, chance in reversed(list(self._layer(t, s, radius, order))):
                q = _recover(q, before, region, chance)
        return q

    def _layer(self, t: float, s: float, radius: int, order: str) -> Iterator[tuple[Array, Regions, float]]:
        """Pixel by pixel: the distribution before it is noised from t to s, its regions, its chance to flip."""
        chance, state, modulus = flip_chance(t, s), self.noisy(t), radius + 1
        places = [(k // self.shape[1], k % self.shape[1]) for k in range(self.n)]
        if order == "colours":
            places.sort(key=lambda at: (at[0] % modulus, at[1] % modulus, at))
        for at in places:
            region = regions(self.shape, radius, 1, at)
            yield state, region, chance
            state = _flip(state, region.a.tolist(), chance)

    def windows(self, radius: int | None) -> list[tuple[int, set[int]]]:
        """Each pixel and those of its window ``N_radius``; pixels with windows of one form follow each other."""
        groups = windows(self.shape, radius)
        return [(int(i), set(w.tolist())) for g in groups for i, w in zip(g.pixels, g.indices, strict=True)]

    def __repr__(self) -> str:
        return f"DiscreteSystem(n={self.n}, shape={self.shape})"


def flip_chance(t: float, s: float) -> float:
    """Chance that takes level t to level s."""
    t, s = checks.unit(t, "noise level t"), checks.unit(s, "noise level s")
    if not t <= s:
        raise PhasewiseError(f"noise levels must satisfy 0 <= t <= s <= 1, got t = {t}, s = {s}")
    return 0.0 if t == s else (1 - (1 - s) / (1 - t)) / 2


def _flip(p: Array, axes: Iterable[int], chance: float) -> Array:
    """Each bit of ``axes`` flipped independently with ``chance``; the map is its own transpose."""
    for axis in axes:
        p = (1 - chance) * p + chance * np.flip(p, axis)
    return p


def _marginal(p: Array, keep: Iterable[int]) -> Array:
    """Sum over all bits but ``keep``; summed axes stay with length 1."""
    kept = set(keep)
    return p.sum(tuple(k for k in range(p.ndim) if k not in kept), keepdims=True)


def _cmi(p: Array, region: Regions) -> float:
    """``I(A : C | B) = H(AB) + H(BC) - H(B) - H(ABC)``."""
    a, b, c = region.a.tolist(), region.b.tolist(), region.c.tolist()
    if not c:
        return 0.0
    entropies = [float(entr(_marginal(p, keep)).sum()) for keep in (a + b, b + c, b, a + b + c)]
    return entropies[0] + entropies[1] - entropies[2] - entropies[3]


def _kl(p: Array, q: Array) -> float:
    return float(rel_entr(p, q).sum())


def _recover(noised: Array, before: Array, region: Regions, chance: float) -> Array:
    """``R noised`` with R the Bayes reversal, on A given A' and B, of flips with ``chance`` applied to ``before``.

    Where ``before`` gives (A', B) probability 0, R is undefined and the mass is dropped: such states hold pixels that
    are clean already and contradict each other, so they lie outside the support of the target and of its KL.
    """
    a = region.a.tolist()
    near = _marginal(before, a + region.b.tolist())
    weight = np.broadcast_to(_flip(near, a, chance), noised.shape)
    # sum over a' of P(a, b) E(a'|a) noised(a', ..) / Q(a', b); E is symmetric, so the sum is one more flip
    ratio = np.divide(noised, weight, out=np.zeros_like(noised), where=weight > 0)
    return near * _flip(ratio, a, chance)
