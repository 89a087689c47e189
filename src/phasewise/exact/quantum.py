r"""Small quantum systems: density matrices, local depolarising noise, conditional mutual information, Petz recovery.

A state rho of n <= 6 qubits; qubit 0 is the most significant bit, as in :mod:`phasewise.exact.discrete`.  Noise of
level t depolarises each qubit, ``rho -> (1 - t) rho + t Tr_i(rho) x 1/2``: bit flips with chance t/2 on every diagonal
state, so levels compose as they do there.  Entropies are von Neumann's, information is in nats,

    I(A : C | B) = S(AB) + S(BC) - S(B) - S(ABC).

Noise E on A alone is undone from A' and B by maps that know ``rho_AB`` alone (T = E rho_AB; powers on the support),

    R_tau(X) = rho_AB^((1 - i tau)/2)  E*( T^(-(1 - i tau)/2)  X  T^(-(1 + i tau)/2) )  rho_AB^((1 + i tau)/2).

tau = 0 is the Petz map; on diagonal states all are Bayes' rule.  With ``F(rho, sigma) = || rho^(1/2) sigma^(1/2) ||_1``
and the kernel ``b(tau) = (pi/2) / (cosh(pi tau) + 1)``, whose integral is 1 (Junge, Renner, Sutter, Wilde, Winter,
arXiv 1509.07127, theorem 2.1, for ``rho_ABC`` and ``rho_AB x rho_C``; after Fawzi, Renner, arXiv 1410.0664)::

    -2 log F(rho, int b R_tau E rho) <= -2 int b log F(rho, R_tau E rho) <= I(A:C|B)_rho - I(A':C|B)_{E rho}    (1)

so the state comes back nearly where the information lost is small.  Neither the Petz map alone nor the relative entropy
``D(rho || R E rho)`` in place of ``-2 log F`` is covered by (1); for diagonal states both are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.special import entr

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.exact.base import Center, Regions, Shape, check_shape, regions
from phasewise.exact.discrete import DiscreteSystem, flip_chance

Array = np.ndarray
MAX_QUBITS = 6
SUPPORT = 1e-13  # eigenvalues below this share of the largest are 0 that rounding has moved
_matrix = checks.made(np.ndarray, "a matrix", "an array of numpy")
STEP, REACH = 0.1, 8.0  # of the kernel's integral: the trapezoidal rule, to some 1e-11
AXES = {
    "x": np.array([[1, 1], [1, -1]]) / math.sqrt(2),
    "y": np.array([[1, -1j], [1, 1j]]) / math.sqrt(2),
    "z": np.eye(2),
}
"""Rows: the bras of the outcomes 0 and 1 when a qubit is measured along this axis."""


@dataclass(frozen=True)
class Recovery:
    """Both sides of inequality (1), nats.  ``rotated <= kernel <= drop <= cmi`` always.

    Attributes:
        cmi: ``I(A : C | B)`` before the noise on A.
        drop: what this noise takes of it.
        petz: ``-2 log F`` of the state and what the Petz map gives back.
        rotated: the same of the map averaged over the kernel.  kernel: the kernel's mean of ``-2 log F``.
        petz_kl, rotated_kl: ``D(rho || recovered)`` of the two maps, infinite where supports forbid it.
    """

    cmi: float
    drop: float
    petz: float
    rotated: float
    kernel: float
    petz_kl: float
    rotated_kl: float


class QuantumState:
    """A density matrix of n qubits.

    Args:
        rho: (2^n, 2^n), hermitian, positive, of trace 1; n <= 6.  Kept in complex128.
        shape: (H, W) with H * W = n; default one row, (1, n).

    Raises :class:`PhasewiseError` for anything else.
    """

    def __init__(self, rho: Array, shape: Shape | None = None) -> None:
        try:
            rho = np.asarray(rho, dtype=np.complex128)
        except (TypeError, ValueError) as error:
            raise PhasewiseError(f"rho must be a matrix of numbers, got {checks.shown(rho)}") from error
        n = max(len(rho) if rho.ndim else 0, 1).bit_length() - 1
        if rho.shape != (2**n, 2**n) or not 1 <= n <= MAX_QUBITS:
            raise PhasewiseError(f"rho must be (2^n, 2^n) with 1 <= n <= {MAX_QUBITS}, got shape {rho.shape}")
        rho = _state(rho, "rho")
        self.image_shape = check_shape((1, n) if shape is None else shape)
        if self.image_shape[1] * self.image_shape[2] != n:
            raise PhasewiseError(f"rho is of {n} qubits, which do not fill an image of shape {shape}")
        self.n, self.rho = n, rho

    @property
    def shape(self) -> Shape:
        """(H, W)."""
        return self.image_shape[1:]

    @classmethod
    def pure(cls, vector: Array, shape: Shape | None = None) -> QuantumState:
        """``|v><v|`` of a vector (2^n,) of any length but 0."""
        try:
            v = np.asarray(vector, dtype=np.complex128)
        except (TypeError, ValueError) as error:
            raise PhasewiseError(f"a pure state is a vector of numbers, got {checks.shown(vector)}") from error
        if v.ndim != 1 or not np.isfinite(v).all() or not float(np.abs(v).max(initial=0)):
            raise PhasewiseError(f"a pure state is a vector (2^n,) other than 0, got {checks.shown(vector)}")
        v = v / np.linalg.norm(v)
        return cls(np.outer(v, v.conj()), shape)

    @classmethod
    @checks.checked(system=checks.made(DiscreteSystem, "a DiscreteSystem"))
    def diagonal(cls, system: DiscreteSystem) -> QuantumState:
        """A distribution of bits as a state: off-diagonal entries are 0."""
        if system.n > MAX_QUBITS:
            raise PhasewiseError(f"a state has at most {MAX_QUBITS} qubits, got a distribution of {system.n} bits")
        return cls(np.diag(system.p.reshape(-1)), system.shape)

    @classmethod
    @checks.checked(n=checks.whole(1, MAX_QUBITS))
    def ghz(cls, n: int) -> QuantumState:
        """``(|0..0> + |1..1>) / sqrt 2``: one phase shared by all qubits, which none of them has alone."""
        v = np.zeros(2**n)
        v[[0, -1]] = 1
        return cls.pure(v)

    @classmethod
    @checks.checked(n=checks.whole(1, MAX_QUBITS))
    def cluster(cls, n: int) -> QuantumState:
        """The cluster state of an open chain: controlled Z of every pair of neighbours on ``|+>^n``."""
        bits = (np.arange(2**n)[:, None] >> np.arange(n - 1, -1, -1)) & 1
        return cls.pure((-1.0) ** (bits[:, 1:] * bits[:, :-1]).sum(1))

    @classmethod
    @checks.checked(n=checks.whole(1, MAX_QUBITS), beta=checks.number, field=checks.number)
    def ising(cls, n: int, beta: float, field: float) -> QuantumState:
        """``exp(-beta H) / Z`` of an open chain, ``H = -sum Z_i Z_(i+1) - field sum X_i``: where the two terms do not
        commute, the Petz map and its rotations differ.  Without a field, the classical chain."""
        z, x = np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])
        energy = sum((-field * _on(x, i, n) for i in range(n)), np.zeros((2**n, 2**n)))
        energy = energy - sum(_on(z, i, n) @ _on(z, i + 1, n) for i in range(n - 1))
        values, vectors = np.linalg.eigh(energy)
        weights = np.exp(-beta * values + (beta * values).min())
        return cls((vectors * (weights / weights.sum())) @ vectors.T)

    @classmethod
    @checks.checked(n=checks.whole(1, MAX_QUBITS), seed=checks.seed, rank=checks.count)
    def random(cls, n: int, seed: int, rank: int = 2**MAX_QUBITS) -> QuantumState:
        """``G G* / Tr`` with G of standard complex normal numbers (2^n, min(rank, 2^n)), numpy's default generator."""
        rng = np.random.default_rng(seed)
        g = rng.standard_normal((2, 2**n, min(rank, 2**n)))
        g = g[0] + 1j * g[1]
        rho = g @ g.conj().T
        return cls(rho / np.trace(rho).real)

    def noisy(self, t: float) -> QuantumState:
        """Every qubit depolarised with strength t in [0, 1]."""
        return QuantumState(_depolarise(self.rho, range(self.n), 2 * flip_chance(0.0, t)), self.shape)

    @checks.checked(keep=checks.each(checks.at_least_0, least=0))
    def reduced(self, keep: Sequence[int]) -> Array:
        """The density matrix of the qubits ``keep``, in that order: (2^k, 2^k) complex128, a partial trace."""
        if len(set(keep)) < len(keep) or not set(keep) <= set(range(self.n)):
            raise PhasewiseError(f"qubits to keep are distinct numbers below {self.n}, got {list(keep)}")
        return _reduced(self.rho, keep)

    def entropy(self, keep: Sequence[int] | None = None) -> float:
        """``-Tr rho log rho`` in nats, of all qubits or of those to ``keep``."""
        return _entropy(self.rho if keep is None else self.reduced(keep))

    def cmi(self, t: float, radius: int, block: int = 1, center: Center | None = None) -> float:
        """``I(A : C | B)`` of the state at noise level t, nats; >= 0 by strong subadditivity, <= 2 |A| log 2."""
        return _cmi(self.noisy(t).rho, *_qubits(regions(self.shape, radius, block, center)))

    @checks.checked(axes=checks.text)
    def measured(self, axes: str = "z") -> DiscreteSystem:
        """The classical twin: outcomes (0 for +1) of measuring every qubit along its axis, n letters of x, y, z or one
        for all.  Depolarising before is flipping the outcomes after."""
        if not axes or set(axes) - set(AXES) or len(axes) not in (1, self.n):
            raise PhasewiseError(f"axes are 1 or {self.n} letters of x, y and z, got {axes!r}")
        turn: Array = reduce(np.kron, [AXES[a] for a in (axes * self.n)[: self.n]], np.ones((1, 1)))
        p = (turn @ self.rho @ turn.conj().T).diagonal().real.clip(min=0)
        return DiscreteSystem(p / p.sum(), self.shape)

    def recovery(self, t: float, s: float, radius: int, block: int = 1, center: Center | None = None) -> Recovery:
        """The state at level t, its A noised on to s >= t and then undone from A' and B alone: see :class:`Recovery`.

        With s = 1 all of A is lost, and (1) is the inequality of Fawzi and Renner for ``I(A : C | B)``.
        """
        strength = 2 * flip_chance(t, s)
        a, b, c = _qubits(regions(self.shape, radius, block, center))
        rho = _reduced(self.noisy(t).rho, a + b + c)
        # from here on the qubits are in the order A, B, C
        ends = np.cumsum([0, len(a), len(b), len(c)])
        a, b, c = (list(range(first, last)) for first, last in itertools.pairwise(ends.tolist()))
        noised, held = _depolarise(rho, a, strength), _Held(rho)
        undo = PetzMap(_reduced(rho, a + b), len(a), strength)
        tau = np.arange(-REACH, REACH + STEP / 2, STEP)
        kernel = 1 / (np.cosh(np.pi * tau) + 1)
        kernel /= kernel.sum()
        turned = [undo(noised, float(x)) for x in tau]
        petz, average = undo(noised), np.tensordot(kernel, turned, 1)
        cmi = _cmi(rho, a, b, c)
        return Recovery(
            cmi=cmi,
            drop=cmi - _cmi(noised, a, b, c),
            petz=held.distance(petz),
            rotated=held.distance(average),
            kernel=float(kernel @ [held.distance(x) for x in turned]),
            petz_kl=held.relative_entropy(petz),
            rotated_kl=held.relative_entropy(average),
        )

    def __repr__(self) -> str:
        return f"QuantumState(n={self.n}, shape={self.shape})"


class PetzMap:
    """The maps ``R_tau`` that undo depolarising of A, from A' and B alone.

    Args:
        near: ``rho_AB``, a density matrix with A's qubits first.
        size: qubits of A.
        strength: of the noise on each, in [0, 1].

    Raises :class:`PhasewiseError` where A has more qubits than ``near``.
    """

    @checks.checked(near=_matrix, size=checks.count, strength=checks.unit)
    def __init__(self, near: Array, size: int, strength: float) -> None:
        if near.shape != (len(near), len(near)) or 2**size > len(near):
            raise PhasewiseError(f"near must be the density matrix of {size} or more qubits, got shape {near.shape}")
        near = _state(near, "near")
        self.size, self.strength = size, strength
        self.before, self.after = _spectrum(near), _spectrum(_depolarise(near, range(size), strength))

    def __call__(self, state: Array, tau: float = 0.0) -> Array:
        """``R_tau`` on the first qubits of ``state`` (those of A' and B, then any others); tau = 0 is Petz' own.

        Raises :class:`PhasewiseError` for a state of fewer qubits than the map is of.
        """
        if state.ndim != 2 or state.shape[0] != state.shape[1] or len(state) % len(self.before[1]):
            raise PhasewiseError(
                f"this map is of matrices {len(self.before[1])} wide and of more qubits, got shape {state.shape}"
            )
        inner = _power(self.after, (-1 + 1j * tau) / 2)
        outer = _power(self.before, (1 - 1j * tau) / 2)
        # depolarising is its own adjoint
        back = _depolarise(_sandwich(inner, state), range(self.size), self.strength)
        return _sandwich(outer, back)


@checks.checked(rho=_matrix, sigma=_matrix)
def fidelity(rho: Array, sigma: Array) -> float:
    """``F = || rho^(1/2) sigma^(1/2) ||_1`` in [0, 1] of two density matrices of one size (not its square)."""
    if rho.shape != sigma.shape:
        raise PhasewiseError(f"two states of one size have a fidelity, got {rho.shape} and {sigma.shape}")
    rho, sigma = _state(rho, "rho"), _state(sigma, "sigma")
    return math.exp(-_Held(rho).distance(sigma) / 2)


def _state(rho: Array, name: str) -> Array:
    """A square matrix as a density matrix, hermitian to the bit; PhasewiseError where it is none."""
    if not np.isfinite(rho).all() or float(np.abs(rho - rho.conj().T).max()) > 1e-9:
        raise PhasewiseError(f"{name} must be finite and hermitian; take ({name} + {name}.conj().T) / 2")
    rho = (rho + rho.conj().T) / 2
    trace, least = float(np.trace(rho).real), float(np.linalg.eigvalsh(rho)[0])
    if abs(trace - 1) > 1e-9:
        raise PhasewiseError(f"{name} must have trace 1, got {trace:.6g}; divide it by its trace")
    if least < -1e-9:
        raise PhasewiseError(f"{name} must be positive, and has an eigenvalue {least:.3g}: it is no state")
    return rho


class _Held:
    """A state that others are held against."""

    def __init__(self, rho: Array) -> None:
        self.values, self.vectors = _spectrum(rho)

    def distance(self, sigma: Array) -> float:
        """``-2 log F(rho, sigma)`` in nats."""
        values, vectors = _spectrum(sigma)
        # within the two supports alone: rounding's square roots stay outside
        overlap = (self.vectors * np.sqrt(self.values)).conj().T @ (vectors * np.sqrt(values))
        overlaps = float(np.linalg.svd(overlap, compute_uv=False).sum())
        return -2 * math.log(overlaps) if overlaps > 0 else math.inf

    def relative_entropy(self, sigma: Array) -> float:
        """``D(rho || sigma) = Tr rho (log rho - log sigma)`` in nats; infinite where sigma lacks a part of rho."""
        values, vectors = _spectrum(sigma)
        weights = (np.abs(vectors.conj().T @ self.vectors) ** 2) @ self.values
        if 1 - float(weights.sum()) > 1e-9:
            return math.inf
        return float(self.values @ np.log(self.values) - weights @ np.log(values))


def _qubits(region: Regions) -> tuple[list[int], list[int], list[int]]:
    return region.a.tolist(), region.b.tolist(), region.c.tolist()


def _on(op: Array, qubit: int, n: int) -> Array:
    """``op`` on one of n qubits."""
    return np.kron(np.kron(np.eye(2**qubit), op), np.eye(2 ** (n - qubit - 1)))


def _reduced(rho: Array, keep: Sequence[int]) -> Array:
    n, k = len(rho).bit_length() - 1, len(keep)
    rest = [q for q in range(n) if q not in keep]
    order = [*keep, *rest]
    tensor = rho.reshape((2,) * (2 * n)).transpose([*order, *(n + q for q in order)])
    reduced: Array = np.einsum("ijkj->ik", tensor.reshape(2**k, 2 ** (n - k), 2**k, 2 ** (n - k)))
    return reduced


def _depolarise(rho: Array, qubits: Sequence[int], strength: float) -> Array:
    for q in qubits:
        # (before, qubit, after) of rows and of columns
        left, right = 2**q, len(rho) // 2 ** (q + 1)
        tensor = rho.reshape(left, 2, right, left, 2, right)
        mixed = np.einsum("aibcid->abcd", tensor) / 2
        spread = np.einsum("abcd,ij->aibcjd", mixed, np.eye(2)).reshape(rho.shape)
        rho = (1 - strength) * rho + strength * spread
    return rho


def _spectrum(rho: Array) -> tuple[Array, Array]:
    """Eigenvalues (r,) of the support and their vectors (d, r)."""
    values, vectors = np.linalg.eigh((rho + rho.conj().T) / 2)
    kept = values > SUPPORT * values[-1]
    return values[kept], vectors[:, kept]


def _power(spectrum: tuple[Array, Array], exponent: complex) -> Array:
    values, vectors = spectrum
    found: Array = (vectors * np.exp(exponent * np.log(values))) @ vectors.conj().T
    return found


def _sandwich(op: Array, rho: Array) -> Array:
    """``(op x 1) rho (op x 1)*``, op on the first qubits."""
    d, rest = len(op), len(rho) // len(op)
    half = (op @ rho.reshape(d, -1)).reshape(rho.shape)
    # the same on the columns, as the rows of the adjoint
    found: Array = (op @ half.conj().T.reshape(d, rest * len(rho))).reshape(rho.shape).conj().T
    return found


def _entropy(rho: Array) -> float:
    return math.fsum(entr(np.linalg.eigvalsh(rho).clip(min=0)))


def _cmi(rho: Array, a: list[int], b: list[int], c: list[int]) -> float:
    """``S(AB) + S(BC) - S(B) - S(ABC)``; 0 where C is empty."""
    if not c:
        return 0.0
    entropies = [_entropy(_reduced(rho, keep)) for keep in (a + b, b + c, b, a + b + c)]
    return entropies[0] + entropies[1] - entropies[2] - entropies[3]
