"""Tables of every part, and the figure: where recovery fails along the noise, and qubits beside their twins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from studies.figures import png, style
from studies.pages import markdown
from studies.study import Answers
from studies.theory import classical, mixture

TOLD = (0.0, 0.1, 0.2, 0.4, 0.6)


def tables(answers: Answers) -> dict[str, str]:
    """Markdown by mark, of those parts that are there."""
    made = {
        "terms": _terms, "recovered": _recovered, "bridges": _bridges, "reverse": _reverse, "quantum": _quantum,
        "maps": _maps,
    }  # fmt: skip
    found = {mark: make(part(answers, mark)) for mark, make in made.items() if part(answers, mark)}
    return {**found, **(mixture.tables(answers) if part(answers, "mixture") else {})}


def part(answers: Answers, name: str) -> Answers:
    """The answers of one part, without its name."""
    return {n.removeprefix(f"{name}/"): content for n, content in answers.items() if n.startswith(f"{name}/")}


def _terms(found: Answers) -> str:
    heads = ["system", "error", "summed errors of steps", "summed CMI lost", "steps that obey", "error / lost, a step"]
    rows = []
    for name, c in found.items():
        span = "" if c["tightest"] is None else f"{c['loosest']:.2f} to {c['tightest']:.2f}"
        sums = [f"{_plain(c[key]):.4f}" for key in ("kl", "own", "lost")]
        rows.append([name, *sums, f"{c['obey']}/{c['steps']}", span])
    return markdown(
        heads, rows, "Nats an image; r = 1 where none is given. A step is one bit at one of ten levels. Spans are of "
        "steps that lose more than 1e-6 nats.",
    )  # fmt: skip


def _recovered(found: Answers) -> str:
    chains = {tuple(n.split("/")[1:]): c["kl"] for n, c in found.items() if n.startswith("chain/")}
    radii = sorted({int(r) for kl in chains.values() for r in kl})
    rows = []
    for (length, name), kl in sorted(chains.items(), key=lambda pair: (pair[0][1], pair[0][0])):
        cells = [f"{_plain(kl[str(r)]):.4f}" if str(r) in kl else "" for r in radii]
        rows.append([f"{name}, {int(length)} bits", *cells])
    for name, c in sorted(found.items(), key=lambda pair: (pair[0].split("/")[-1], pair[0])):
        if name.startswith("square/"):
            _, size, system = name.split("/")
            kl = c["kl"]["1"]
            rows.append([f"{system}, {size}", f"{_plain(kl):.4f}", *[""] * (len(radii) - 1)])
    return markdown(
        ["system", *(f"r = {r}" for r in radii)], rows, "Error of recovery from noise alone, nats an image."
    )


def _bridges(found: Answers) -> str:
    names = [n for n in classical.systems((2, 2)) if n in found]
    rows = []
    for start in names:
        cells = []
        for to in names:
            kl = found[to]["kl"][start]
            k = int(np.argmin(kl))
            cells.append("" if start == to else f"{_plain(kl[k]):.3f} ({classical.LEVELS[k + 1]:g})")
        rows.append([start, *cells])
    return markdown(
        ["from / to", *names], rows,
        "Error in nats an image, at the level of noise in brackets, the best of six; at 1 all is noise.",
    )  # fmt: skip


def _reverse(found: Answers) -> str:
    heads = ["system", "r", "error", "CMI summed", *(f"{k} layers" if k > 1 else "1 layer" for k in classical.LAYERS)]
    rows = []
    for name, c in found.items():
        label, radius = name.rsplit("/", 1)
        layers = [
            f"{_plain(c['layers'][str(k)][0]):.4f} ({_plain(c['layers'][str(k)][1]):.4f})" if "layers" in c else ""
            for k in classical.LAYERS
        ]
        rows.append([label, radius, f"{_plain(c['kl']):.4f}", f"{_plain(c['bound']):.4f}", *layers])
    low, high = classical.ENDS
    return markdown(
        heads, rows,
        f"Nats an image from t = {high:g} to {low:g}. With few layers: the error, and in brackets the sum of (2).",
    )  # fmt: skip


def _quantum(found: Answers) -> str:
    heads = ["state", "t", "I, r = 1", "-2 log F", "twin's I", "twin's -2 log F", "I, r = 2", "twin's I, r = 2"]
    keys = ("cmi", "rotated", "twin_cmi", "twin_rotated", "cmi_r2", "twin_cmi_r2")
    rows = [
        [name, f"{row['t']:g}", *(f"{_plain(row[key]):.4f}" for key in keys)]
        for name, c in found.items()
        for row in _told(c["rows"])
    ]
    return markdown(heads, rows, "Nats. F: rotated map, A lost and put back from its neighbours.")


def _told(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (row for row in rows if row["t"] in TOLD)


def _maps(found: Answers) -> str:
    labels = {
        "rotated": "-2 log F, averaged rotated map", "kernel": "mean of -2 log F, rotated maps",
        "petz": "-2 log F, Petz map alone", "petz_kl": "D(rho, recovered), Petz map alone",
        "rotated_kl": "D(rho, recovered), averaged rotated map",
    }  # fmt: skip
    rows = []
    for c in found.values():
        for key, label in labels.items():
            rows.append([label, f"{c['above'][key]} of {c['n']}", f"{c['largest'][key]:.3f}", f"{c['mean'][key]:.3f}"])
    return markdown(["left side", "above the information lost", "largest ratio to it", "mean ratio"], rows)


def figures(answers: Answers) -> dict[str, bytes]:
    """Recovery by level of noise; GHZ and cluster states beside their twins."""
    import matplotlib.pyplot as plt

    style()
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    for name, content in part(answers, "bridges").items():
        axes[0].plot(classical.LEVELS[1:], [max(x, 1e-5) for x in content["kl"][name]], "o-", ms=3, label=name)
    axes[0].set(title="bits: noise undone locally", ylabel="KL(true || recovered), nats", yscale="log", ylim=(1e-4, 3))
    of_qubits = part(answers, "quantum")
    for ax, name in zip(axes[1:], ("GHZ", "cluster"), strict=True):
        rows = of_qubits[name]["rows"] if name in of_qubits else []
        t = [row["t"] for row in rows]
        for colour, prefix, label in (("C0", "", "qubits"), ("C1", "twin_", "classical twin")):
            ax.plot(t, [row[f"{prefix}cmi"] for row in rows], "o-", ms=3, color=colour, label=f"I(A : C | B), {label}")
            ax.plot(t, [row[f"{prefix}rotated"] for row in rows], "s--", ms=3, color=colour, label="-2 log F")
        ax.set(title=f"{name}, r = 1", ylabel="nats")
    for ax in axes:
        ax.set_xlabel("noise level t")
        ax.legend(fontsize=7)
    return {"theory.png": png(figure, dpi=110)}


def _plain(value: float) -> float:
    """Without the sign of a rounded 0."""
    return 0.0 if abs(value) < 5e-6 else value
