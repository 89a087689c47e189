"""Qubits beside their classical twins, and how often recovery maps that no theorem covers break the bound."""

from __future__ import annotations

from typing import Any

import numpy as np

from phasewise.exact import QuantumState

TIMES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
STATES = {"GHZ": "z", "cluster": "xz", "Ising in a field": "z"}
"""Axes, repeated along the chain, that every qubit of the twin was measured along."""
TOLERANCE = 1e-9


def state(name: str, n: int) -> QuantumState:
    if name == "Ising in a field":
        return QuantumState.ising(n, 2.0, 0.7)
    return QuantumState.ghz(n) if name == "GHZ" else QuantumState.cluster(n)


def beside_twin(name: str, n: int, times: tuple[float, ...]) -> dict[str, Any]:
    """By noise: CMI of both at r = 1 and 2, and what is left apart when A, lost, is put back from B alone at r = 1."""
    quantum = state(name, n)
    axes = (STATES[name] * n)[:n]
    twin = QuantumState.diagonal(quantum.measured(axes))
    rows = []
    for t in times:
        here, there = (s.recovery(t, 1.0, 1) for s in (quantum, twin))
        rows.append(
            {
                "t": t, "cmi": here.cmi, "rotated": here.rotated, "kernel": here.kernel, "petz": here.petz,
                "petz_kl": here.petz_kl, "twin_cmi": there.cmi, "twin_rotated": there.rotated,
                "cmi_r2": quantum.cmi(t, 2), "twin_cmi_r2": twin.cmi(t, 2),
            }
        )  # fmt: skip
    return {"rows": rows}


def tried(count: int) -> dict[str, Any]:
    """Random states of three qubits in a row, of ranks 1 to 8, A noised by .3 or lost: how often each left side exceeds
    the information lost, and the largest ratio."""
    found: dict[str, list[float]] = {"rotated": [], "kernel": [], "petz": [], "petz_kl": [], "rotated_kl": []}
    for k in range(count):
        state = QuantumState.random(3, k, rank=(1, 2, 4, 8)[k % 4])
        held = state.recovery(0.0, (0.3, 1.0)[(k // 4) % 2], 1, center=(0, 0))
        for name, values in found.items():
            excess = getattr(held, name) - held.drop
            values.append(getattr(held, name) / held.drop if held.drop > 1e-6 else float(excess > TOLERANCE))
    ratios = {name: np.array(values) for name, values in found.items()}
    return {
        "n": count,
        "above": {name: int((x > 1 + 1e-6).sum()) for name, x in ratios.items()},
        "largest": {name: float(x.max()) for name, x in ratios.items()},
        "mean": {name: float(x[np.isfinite(x)].mean()) for name, x in ratios.items()},
    }
