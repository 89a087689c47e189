"""Exact search where a step's charge depends on what earlier steps left: label setting over (step, what is kept).

Two ways that have left the same are told apart by cost and penalty alone, and what follows charges both alike.  So of
those only the undominated go on, and the front at the end is exact, for penalties that add and for the worst step
(minimax): adding to both, or taking the larger with both, keeps a dominated way dominated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from phasewise.errors import PhasewiseError
from phasewise.results import Array
from phasewise.scheduling.charges import Charges, State
from phasewise.scheduling.undominated import undominated

OBJECTIVES: dict[str, Callable[[Array, float], Array]] = {"sum": np.add, "max": np.maximum}
"""How steps' penalties make a schedule's: their sum, or the worst of them (LeMiCa, Gao et al. 2025, arXiv
2511.00090)."""


def ways_through(
    charges: Charges, names: Sequence[str], cost: str, objective: str = "sum"
) -> tuple[Array, Array, list[tuple[str, ...]]]:
    """(cost (K,) rising, penalty (K,) falling, assignments) of the undominated ways to take all steps by ``names``.

    Raises PhasewiseError where there is none.
    """
    combine = OBJECTIVES[objective]
    spent_by, steps = charges.cost[cost], len(charges.prices.times)
    # of each step: by state, (cost, penalty) of the ways there, and where each came from: (state, label, name)
    start = State()
    layers: list[dict[State, tuple[Array, Array, Array]]] = [
        {start: (np.zeros(1), np.full(1, -np.inf if objective == "max" else 0.0), np.zeros((1, 3), dtype=int))}
    ]
    keys: list[list[State]] = [[start]]
    for k in range(steps):
        arriving: dict[State, list[tuple[Array, Array, Array]]] = {}
        for s, state in enumerate(keys[k]):
            spent, lost, _ = layers[k][state]
            for n, name in enumerate(names):
                charged = charges.charged(k, name, state)
                if charged is None:
                    continue
                origin = np.column_stack([np.full(len(spent), s), np.arange(len(spent)), np.full(len(spent), n)])
                more = float(charges.calls[k, charged.column] * spent_by[charged.column])
                arriving.setdefault(charges.after(k, name, state), []).append(
                    (spent + more, combine(lost, charged.value), origin)
                )
        layer = {}
        for state, parts in arriving.items():
            spent, lost, origin = (np.concatenate([part[i] for part in parts]) for i in range(3))
            keep = undominated(spent, lost)
            layer[state] = (spent[keep], lost[keep], origin[keep])
        layers.append(layer)
        keys.append(list(layer))
    if not layers[-1]:
        raise PhasewiseError(f"no schedule of {', '.join(names)}: the first step needs a member that leans on nothing")
    ends = [(s, i) for s, state in enumerate(keys[-1]) for i in range(len(layers[-1][state][0]))]
    spent = np.concatenate([layers[-1][state][0] for state in keys[-1]])
    lost = np.concatenate([layers[-1][state][1] for state in keys[-1]])
    keep = undominated(spent, lost)

    def way(end: tuple[int, int]) -> tuple[str, ...]:
        taken: list[str] = []
        s, i = end
        for k in range(steps, 0, -1):
            s, i, n = (int(v) for v in layers[k][keys[k][s]][2][i])
            taken.append(names[n])
        return tuple(reversed(taken))

    return spent[keep], lost[keep], [way(ends[j]) for j in keep]
