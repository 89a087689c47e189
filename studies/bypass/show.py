"""Tables and figure: needed radius by size, CMI and gap of digits along each path, what local networks generate."""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.figures import png, style
from studies.pages import markdown
from studies.study import Answers

KINDS = {"field": "Gaussian field", "two modes": "two modes", "chain": "Ising chain"}


KEPT = ("cmi", "gap")


def _of(answers: Answers, kind: str) -> dict[str, dict[str, Any]]:
    return {name.removeprefix(kind + "/"): content for name, content in answers.items() if name.startswith(kind + "/")}


def exact_of(answers: Answers) -> dict[tuple[str, int], dict[str, Any]]:
    """By kind of model and size, in order."""
    found = {(n.split("/")[0], int(n.split("/")[1])): c["ways"] for n, c in _of(answers, "exact").items()}
    return dict(sorted(found.items(), key=lambda pair: (list(KINDS).index(pair[0][0]), pair[0][1])))


def radius_table(answers: Answers) -> str:
    """Radius that each way needs, and what is left beyond a ring of one pixel."""
    found = exact_of(answers)
    ways = list(dict.fromkeys(way for content in found.values() for way in content))
    rows = [
        [KINDS[kind], str(size), *(_cell(content[way], size) if way in content else "" for way in ways)]
        for (kind, size), content in found.items()
    ]
    note = (
        "Least radius at which the CMI of all pixels together is at most a tenth of a nat at every time (> n: none up "
        "to n, the largest tried); in brackets "
        "what it is at most beyond radius 1, nats an image."
    )
    return markdown(["model", "side", *ways], rows, note)


def _cell(found: dict[str, Any], size: int) -> str:
    radius = f"> {max(size // 2 - 1, 1)}" if found["radius"] is None else str(found["radius"])
    nats, error, _ = found["near"]
    return f"{radius} ({nats:.2g}{f' ± {error:.1g}' if error else ''})"


def curve_table(answers: Answers) -> str:
    """CMI of the centre block and gap of windows, by log-SNR."""
    rows, found = [], _of(answers, "curves")
    shown = next(iter(found.values()))["asked"]["log_snr"]
    for name, content in found.items():
        cells = [
            ", ".join(
                f"{content[kind][k]:.2g} ± {content[kind + '_stderr'][k]:.1g}" for kind in KEPT if kind in content
            )
            for k in range(len(shown))
        ]
        rows.append([name, *cells])
    heads = ["path", *(f"log-SNR {x:g}" for x in shown)]
    note = (
        "CMI in nats of the centre block beyond a ring of three pixels, then the loss that windows of that radius add, "
        "as a share of the global one; ± half of what two halves of the images differ by. Of Gaussians of the digits' "
        "covariance."
    )
    return markdown(heads, rows, note)


def generation_table(answers: Answers) -> str:
    """What every judge says of samples, and the difference from the first path's."""
    found = _of(answers, "generated")
    judges = list(dict.fromkeys(judge for row in found.values() for judge in row["scores"]))
    rows = [
        [name, *(f"{row['scores'][j][0]:.3g}, {row['minus'][j][0]:+.2g} ± {row['minus'][j][1]:.1g}" for j in judges)]
        for name, row in sorted(found.items(), key=lambda pair: next(iter(pair[1]["scores"].values()))[0])
    ]
    n = max((row["asked"]["n"] for row in found.values()), default=0)
    steps = max((row["asked"]["training"] for row in found.values()), default=0)
    note = (
        f"Distance by each judge, and minus that of the isotropic local network, paired; {n:,} samples, {steps:,} "
        "steps of training of each local network."
    )
    return markdown(["samples", *judges], rows, note)


def figure(answers: Answers) -> bytes:
    """Left: CMI of all pixels beyond r = 1, by size; right: CMI of the digits' centre along each path."""
    import matplotlib.pyplot as plt

    style()
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.3), layout="constrained")
    found = exact_of(answers)
    for kind, shade in zip(KINDS, ("-", "--", ":"), strict=True):
        sizes = [size for name, size in found if name == kind]
        for way, colour in (("isotropic", "black"), ("coloured", "C0"), ("field", "C1")):
            far = [found[kind, s][way]["near"][0] for s in sizes if way in found[kind, s]]
            if far:
                axes[0].plot(
                    sizes, np.maximum(far, 1e-6), shade, color=colour, marker="o", ms=3, label=f"{KINDS[kind]}, {way}"
                )
    axes[0].set(xscale="log", yscale="log", xlabel="side", ylabel="nats an image beyond r = 1", ylim=(1e-4, None))
    axes[0].legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)  # below: it hid two lines
    for name, content in _of(answers, "curves").items():
        axes[1].plot(content["asked"]["log_snr"], content["cmi"], marker="o", ms=3, label=name)
    axes[1].set(xlabel="log-SNR of a pixel", ylabel="CMI of the centre block, nats", title="digits, Gaussian, r = 3")
    axes[1].legend(fontsize=6)
    return png(figure)
