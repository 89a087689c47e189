"""Density matrices: partial traces and channels written out, Bayes on diagonal states, the bound on recovery."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, fractional_matrix_power, sqrtm
from scipy.special import rel_entr

from phasewise.errors import PhasewiseError
from phasewise.exact import DiscreteSystem, PetzMap, QuantumState, ensembles, fidelity

LOG2 = math.log(2)
PAULIS = (np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1]))


def plain_reduced(rho: np.ndarray, keep: list[int]) -> np.ndarray:
    """``sum_r <r| rho |r>`` over the bits that are not kept, entry by entry."""
    n = len(rho).bit_length() - 1
    out = np.zeros((2 ** len(keep),) * 2, dtype=complex)
    rest = [q for q in range(n) if q not in keep]

    def index(kept: tuple[int, ...], others: tuple[int, ...]) -> int:
        bits = dict(zip([*keep, *rest], [*kept, *others], strict=True))
        return int("".join(str(bits[q]) for q in range(n)), 2)

    states = list(itertools.product((0, 1), repeat=len(keep)))
    for (i, x), (j, y) in itertools.product(enumerate(states), repeat=2):
        for r in itertools.product((0, 1), repeat=len(rest)):
            out[i, j] += rho[index(x, r), index(y, r)]
    return out


def on(op: np.ndarray, qubit: int, n: int) -> np.ndarray:
    return np.kron(np.kron(np.eye(2**qubit), op), np.eye(2 ** (n - qubit - 1)))


def plain_depolarise(rho: np.ndarray, qubit: int, strength: float) -> np.ndarray:
    """Pauli operators, each with chance strength / 4."""
    n = len(rho).bit_length() - 1
    kicked = sum(on(p, qubit, n) @ rho @ on(p, qubit, n).conj().T for p in PAULIS)
    return (1 - 3 * strength / 4) * rho + strength / 4 * kicked


def plain_entropy(rho: np.ndarray) -> float:
    values = np.linalg.eigvalsh(rho)
    return -sum(v * math.log(v) for v in values.tolist() if v > 1e-15)


def test_partial_traces_and_entropies_are_those_written_out():
    state = QuantumState.random(4, seed=0, rank=3)
    for keep in ([0], [2, 0], [1, 3], [3, 2, 1], []):
        np.testing.assert_allclose(state.reduced(keep), plain_reduced(state.rho, keep), atol=1e-14)
        assert state.entropy(keep) == pytest.approx(plain_entropy(plain_reduced(state.rho, keep)), abs=1e-10)
    assert state.entropy() == pytest.approx(plain_entropy(state.rho), abs=1e-10)
    parts = [plain_entropy(plain_reduced(state.rho, k)) for k in ([1, 0, 2], [0, 2, 3], [0, 2], [0, 1, 2, 3])]
    assert state.cmi(0.0, 1) == pytest.approx(parts[0] + parts[1] - parts[2] - parts[3], abs=1e-10)


def test_noise_is_a_mixture_of_paulis_and_composes():
    state = QuantumState.random(3, seed=1)
    plain = state.rho
    for q in range(3):
        plain = plain_depolarise(plain, q, 0.3)
    np.testing.assert_allclose(state.noisy(0.3).rho, plain, atol=1e-14)
    np.testing.assert_allclose(state.noisy(0.3).noisy(1 - 0.4 / 0.7).rho, state.noisy(0.6).rho, atol=1e-14)
    np.testing.assert_allclose(state.noisy(1.0).rho, np.eye(8) / 8, atol=1e-14)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.9), st.floats(0.05, 1.0), st.booleans())
def test_on_diagonal_states_it_is_bayes(seed, t, step, sparse):
    rng = np.random.default_rng(seed)
    p = rng.random(16) ** 4
    if sparse:
        p[rng.random(16) < 0.6] = 0
        p[0] += 0.1
    bits, s = DiscreteSystem(p / p.sum()), t + step * (1 - t)
    state = QuantumState.diagonal(bits)
    found = state.recovery(t, s, 1)
    assert found.cmi == pytest.approx(bits.cmi(t, 1), abs=1e-8)
    assert found.drop == pytest.approx(bits.recovery_bound(t, s, 1), abs=1e-8)
    for kl in (found.petz_kl, found.rotated_kl):
        assert kl == pytest.approx(bits.recovery_kl(t, s, 1), abs=1e-8)
    assert found.petz == pytest.approx(found.rotated, abs=1e-8)
    assert found.petz == pytest.approx(found.kernel, abs=1e-8)
    np.testing.assert_allclose(state.noisy(s).rho.diagonal().real, bits.noisy(s).reshape(-1), atol=1e-14)
    assert found.petz <= found.petz_kl + 1e-9 <= found.drop + 2e-9


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(0.0, 0.7), st.floats(0.1, 1.0), st.integers(0, 1))
def test_recovery_costs_at_most_the_information_lost(seed, rank, t, step, radius):
    found = QuantumState.random(3, seed, rank).recovery(t, t + step * (1 - t), radius, center=(0, 0))
    assert -1e-9 <= found.rotated <= found.kernel + 1e-9
    assert found.kernel <= found.drop + 1e-8
    assert found.drop <= found.cmi + 1e-9


def test_maps_against_matrices_written_out():
    """The Petz map by fractional powers; the averaged one in eigenbases, where the kernel's transform is w / sinh w."""
    state, strength = QuantumState.random(3, seed=2), 0.6
    near = state.reduced([1, 0])
    after = plain_depolarise(near, 0, strength)
    noised = plain_depolarise(state.reduced([1, 0, 2]), 0, strength)
    undo = PetzMap(near, 1, strength)
    outer, inner = (np.kron(fractional_matrix_power(m, p), np.eye(2)) for m, p in ((near, 0.5), (after, -0.5)))
    plain = outer @ plain_depolarise(inner @ noised @ inner, 0, strength) @ outer
    np.testing.assert_allclose(undo(noised), plain, atol=1e-12)
    np.testing.assert_allclose(undo(after, 0.7), near, atol=1e-12, err_msg="it gives rho_AB itself back")

    (mu, v), (nu, w) = np.linalg.eigh(after), np.linalg.eigh(near)
    x = np.kron(v, np.eye(2)).conj().T @ noised @ np.kron(v, np.eye(2))
    total = np.zeros_like(noised)
    for i, j in itertools.product(range(4), repeat=2):
        piece = np.zeros_like(noised)
        piece[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        lifted = np.kron(v, np.eye(2)) @ piece @ np.kron(v, np.eye(2)).conj().T / math.sqrt(mu[i] * mu[j])
        back = np.kron(w, np.eye(2)).conj().T @ plain_depolarise(lifted, 0, strength) @ np.kron(w, np.eye(2))
        turn = (np.log(mu[i] / mu[j]) - np.log(nu[:, None] / nu[None, :])) / 2
        weight = np.sqrt(nu[:, None] * nu[None, :]) * np.where(turn == 0, 1, turn / np.sinh(np.where(turn, turn, 1)))
        total += np.kron(w, np.eye(2)) @ (back * np.kron(weight, np.ones((2, 2)))) @ np.kron(w, np.eye(2)).conj().T
    found = QuantumState(state.reduced([1, 0, 2])).recovery(0.0, strength, 1, center=(0, 0))
    assert found.rotated == pytest.approx(-2 * math.log(fidelity(state.reduced([1, 0, 2]), total)), abs=1e-8)
    assert found.petz == pytest.approx(-2 * math.log(fidelity(state.reduced([1, 0, 2]), plain)), abs=1e-10)
    assert abs(found.rotated - found.petz) > 1e-5, "the two maps are told apart"


def test_fidelity_is_the_trace_of_a_root():
    rho, sigma = QuantumState.random(3, 3).rho, QuantumState.random(3, 4, 5).rho
    root = sqrtm(rho)
    assert fidelity(rho, sigma) == pytest.approx(float(np.trace(sqrtm(root @ sigma @ root)).real), abs=1e-6)
    assert fidelity(rho, rho) == pytest.approx(1, abs=1e-12)
    assert fidelity(np.diag([1.0, 0.0]), np.diag([0.0, 1.0])) == 0
    p, q = np.array([0.2, 0.8]), np.array([0.5, 0.5])
    assert fidelity(np.diag(p), np.diag(q)) == pytest.approx(float(np.sqrt(p * q).sum()), abs=1e-12)


def test_ghz_tells_far_qubits_and_its_twin_does_not():
    ghz = QuantumState.ghz(6)
    assert [ghz.cmi(0.0, r) for r in (1, 2)] == pytest.approx([LOG2] * 2)
    twin = ghz.measured("z")
    assert twin.p.reshape(-1)[[0, -1]].tolist() == pytest.approx([0.5, 0.5])
    assert twin.cmi(0.0, 1) == pytest.approx(0)
    assert ghz.measured("x").cmi(0.0, 1) == pytest.approx(LOG2), "the parity of all six is fixed"
    lost = ghz.recovery(0.0, 1.0, 1)
    assert lost.rotated == pytest.approx(LOG2), "what comes back is the twin: fidelity 1 / sqrt 2"
    assert lost.drop == pytest.approx(LOG2)


def test_the_cluster_state_is_known_from_two_neighbours():
    cluster = QuantumState.cluster(6)
    assert cluster.cmi(0.0, 1) == pytest.approx(LOG2)
    assert cluster.cmi(0.0, 2) == pytest.approx(0, abs=1e-10)
    assert cluster.recovery(0.0, 1.0, 2).rotated == pytest.approx(0, abs=1e-8)
    # X_i Z_(i-1) Z_(i+1) is 1: outcome of the middle qubit is the parity of its neighbours'
    p = cluster.measured("zzxzzz").p.sum((0, 4, 5))
    assert p[0, 0, 0] + p[0, 1, 1] + p[1, 1, 0] + p[1, 0, 1] == pytest.approx(1)


def test_the_chain_in_a_field_is_the_exponential_of_its_energy():
    x, _, z = PAULIS
    energy = -sum(on(z, i, 3) @ on(z, i + 1, 3) for i in range(2)) - 0.8 * sum(on(x, i, 3) for i in range(3))
    weight = expm(-1.3 * energy)
    state = QuantumState.ising(3, 1.3, 0.8)
    np.testing.assert_allclose(state.rho, weight / np.trace(weight), atol=1e-13)
    lost = state.recovery(0.0, 1.0, 1, center=(0, 0))
    assert lost.rotated <= lost.kernel <= lost.drop
    bare = QuantumState.ising(4, 0.6, 0.0)
    np.testing.assert_allclose(bare.measured().p, ensembles.ising((1, 4), 0.6).p, atol=1e-14)


@pytest.mark.parametrize("axes", ["x", "yzx"])
def test_noise_and_measurement_commute(axes):
    state = QuantumState.random(3, 5, 2)
    np.testing.assert_allclose(state.noisy(0.4).measured(axes).p, state.measured(axes).noisy(0.4), atol=1e-14)
    y = QuantumState.pure(np.array([1, 1j]))
    np.testing.assert_allclose(y.measured("y").p, [1, 0], atol=1e-14)


def test_relative_entropy_of_two_distributions():
    bits = DiscreteSystem(np.array([0.1, 0.2, 0.3, 0.4]))
    found = QuantumState.diagonal(bits).recovery(0.0, 1.0, 0, center=(0, 0))
    apart = float(rel_entr(bits.p, np.outer(bits.p.sum(1), bits.p.sum(0))).sum())
    assert found.petz_kl == pytest.approx(apart, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: QuantumState(np.eye(3) / 3), "2\\^n"),
        (lambda: QuantumState(np.eye(128) / 128), "n <= 6"),
        (lambda: QuantumState("ab"), "matrix"),
        (lambda: QuantumState(np.eye(2)), "trace 1"),
        (lambda: QuantumState(np.diag([1.5, -0.5])), "positive"),
        (lambda: QuantumState(np.array([[0.5, 1], [0, 0.5]])), "hermitian"),
        (lambda: QuantumState(np.eye(4) / 4, (1, 3)), "fill"),
        (lambda: QuantumState.pure(np.zeros(4)), "other than 0"),
        (lambda: QuantumState.pure("ab"), "vector of numbers"),
        (lambda: PetzMap(np.eye(2) / 2, 2, 0.5), "2 or more qubits"),
        (lambda: PetzMap(np.eye(2) / 2, 1, 1.5), "strength"),
        (lambda: QuantumState.ghz(7), "<= 6"),
        (lambda: QuantumState.diagonal(DiscreteSystem(np.ones(128) / 128)), "at most 6"),
        (lambda: QuantumState.ghz(3).reduced([0, 0]), "distinct"),
        (lambda: QuantumState.ghz(3).measured("xz"), "axes"),
        (lambda: QuantumState.ghz(3).recovery(0.5, 0.2, 1), "t <= s"),
        (lambda: fidelity(np.eye(2) / 2, np.eye(4) / 4), "one size"),
        (lambda: fidelity(np.eye(4), np.eye(4) / 4), "rho must have trace 1, got 4"),
        (lambda: fidelity(np.eye(2) / 2, np.diag([1.5, -0.5])), "sigma must be positive, and has an eigenvalue -0.5"),
        (lambda: PetzMap(np.eye(4), 1, 0.5), "near must have trace 1"),
        (lambda: PetzMap(np.eye(4) / 4, 1, 0.5)(np.eye(2) / 2), "matrices 4 wide"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(PhasewiseError, match=words):
        make()
