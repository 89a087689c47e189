"""Tables and figure: pixels of plan that bring the gap below a tenth; what each plan leaves; losses of networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.figures import png, style
from studies.pages import markdown
from studies.plans_needed.fields import needed
from studies.plans_needed.told import ALL, KINDS, PIXELS
from studies.study import Answers

SEEN = 0.01
"""A gap below this share of the global loss needs no plan."""
EVERY = 2
"""Every so many of the log-SNRs are in the tables."""


def fields_of(answers: Answers) -> dict[str, dict[str, Any]]:
    """Exact fields, then those of images, by what tables call them; sides ascending."""
    exact = sorted((n.split("/")[1], int(n.split("/")[2]), n) for n in answers if n.startswith("fields/"))
    found = {f"{kind}, {side}": {"side": side, **answers[name]} for kind, side, name in exact}
    for name, content in answers.items():
        if name.startswith("images/"):
            found[f"{name.split('/')[1]}, {content['side']}"] = content
    return found


def curve(content: dict[str, Any], what: str = "gap left") -> list[float]:
    """Pixels of plan needed by log-SNR; 0 where the gap is too small to need one."""
    return [
        0.0 if gap < SEEN else needed(content["plans"], shares)
        for gap, shares in zip(content["gap"], content[what], strict=True)
    ]


def _pixels(value: float, side: int) -> str:
    return "-" if value == 0 else f"> {(side // 2) ** 2}" if np.isnan(value) else f"{value:.0f}"


def needed_table(answers: Answers) -> str:
    """Pixels of plan needed by field and log-SNR, and the largest of them over the image's pixels."""
    rows, heads = [], ["field, side"]
    for name, content in fields_of(answers).items():
        pixels = curve(content)
        heads = ["field, side", *(f"{x:g}" for x in content["log_snr"][::EVERY]), "largest gap at", "pixels there"]
        top = int(np.argmax(content["gap"]))
        there = f"{content['log_snr'][top]:g} ({content['gap'][top]:.3f})"
        cells = [_pixels(v, content["side"]) for v in pixels]
        rows.append([name, *cells[::EVERY], there, cells[top]])
    note = (
        "Pixels of plan that leave a tenth of the gap, by log-SNR; in between two plans by interpolation. Minus: the "
        f"gap is below {SEEN:g} of the global loss. The last two: where the gap is largest, as a share of the global "
        "loss, and the pixels needed there."
    )
    return markdown(heads, rows, note)


def left_table(answers: Answers) -> str:
    """Where the gap is largest: its share, and that of the CMI, that each plan leaves."""
    found = fields_of(answers)
    plans = sorted({p for content in found.values() for p in content["plans"]})
    rows = []
    for name, content in found.items():
        top = int(np.argmax(content["gap"]))
        shares = {
            p: f"{g:.3f} ({c:.3f})"
            for p, g, c in zip(content["plans"], content["gap left"][top], content["cmi left"][top], strict=True)
        }
        rows.append([name, f"{content['cmi'][top]:.2e}", *(shares.get(p, "") for p in plans)])
    heads = ["field, side", "CMI, nats", *(f"{p} x {p}" for p in plans)]
    return markdown(
        heads, rows, "Share of the gap that a plan leaves, at the log-SNR where it is largest; in brackets of the CMI."
    )


def modes_table(answers: Answers) -> str:
    """The two-mode model by side: gap and CMI where they are largest, and what a vote leaves there."""
    rows = []
    found = sorted((int(n.split("/")[1]), c) for n, c in answers.items() if n.startswith("modes/"))
    for side, content in found:
        gaps, cmis = np.array(content["gap"]), np.array(content["cmi"])
        g, c = int(gaps.argmax()), int(cmis.argmax())
        rows.append(
            [
                str(side),
                f"{gaps[g]:.3f} at {content['log_snr'][g]:g}",
                f"{content['gap left'][g]:.1e}",
                f"{cmis[c]:.4f} at {content['log_snr'][c]:g}",
                f"{content['cmi left'][c]:.1e}",
            ]
        )
    heads = ["side", "gap a pixel, log-SNR", "left by one vote", "CMI, log-SNR", "left by one vote"]
    return markdown(heads, rows, "Where each is largest. Told the mode itself, both are 0.")


def _kinds(answers: Answers) -> tuple[dict[str, Any], list[float]]:
    content = answers["networks"]
    return content["kinds"], content["asked"]["times"]


def networks_table(answers: Answers) -> str:
    """Loss above the global network's, by plan and time, with paired errors."""
    kinds, times = _kinds(answers)
    rows = [[kind, *(f"{v:.2f} ± {e:.2f}" for v, e in kinds[kind]["over"])] for kind in KINDS]
    rows.append(["global: its loss", *(f"{v:.2f} ± {e:.2f}" for v, e in kinds["global"]["loss"])])
    n = answers["networks"]["asked"]["test"]
    note = f"Squared error of an image above the global network's, ± paired standard error; n = {n:,}, one training."
    return markdown(["told", *(f"t = {t:g}" for t in times)], rows, note)


def shares(answers: Answers) -> dict[str, list[tuple[float, float]]]:
    """By plan and time: what is left, with its error, of the squared distance to the global network's answer that a
    window has without a plan, both above that of the window told all."""
    kinds, times = _kinds(answers)
    found: dict[str, list[tuple[float, float]]] = {}
    for kind in (k for k in KINDS if k in PIXELS and k != ALL):
        found[kind] = []
        for i in range(len(times)):
            (own, one), (none, other), (all_of_it, floor) = (kinds[k]["apart"][i] for k in (kind, "none", ALL))
            top, below = own - all_of_it, none - all_of_it
            share = top / below if below else float("nan")
            error = np.hypot(np.hypot(one, floor), abs(share) * np.hypot(other, floor)) / abs(below) if below else 0.0
            found[kind].append((share, float(error)))
    return found


def share_table(answers: Answers) -> str:
    """Shares left, and the pixels needed for a tenth."""
    _, times = _kinds(answers)
    found = shares(answers)
    rows = [[kind, *(f"{v:.2f} ± {e:.2f}" for v, e in each)] for kind, each in found.items()]
    plans = [PIXELS[kind] for kind in found]
    pixels = [needed(plans, [max(found[kind][i][0], 1e-9) for kind in found]) for i in range(len(times))]
    rows.append(["pixels for a tenth", *(_pixels(v, 28) for v in pixels)])
    note = (
        "Squared distance to the global network's answer above that of the window told all 28 x 28, over the same "
        "without a plan; errors as if the three were independent, which they are not: the true ones are smaller."
    )
    return markdown(["plan", *(f"t = {t:g}" for t in times)], rows, note)


def figure(answers: Answers) -> bytes:
    """Pixels needed by log-SNR: exact fields by side, and fields of images; then shares left by the networks."""
    import matplotlib.pyplot as plt

    style()
    found = fields_of(answers)
    figure, axes = plt.subplots(1, 2 + ("networks" in answers), figsize=(10.5, 3.3), layout="constrained")
    sides = sorted({c["side"] for n, c in found.items() if n.startswith("scaling")})
    for name, content in found.items():
        kind = name.split(",")[0]
        exact = kind in ("scaling", "fixed")
        pixels = [np.nan if v == 0 else v for v in curve(content)]
        shade = str(0.75 - 0.75 * sides.index(content["side"]) / max(len(sides) - 1, 1)) if exact else None
        axes[0 if exact else 1].plot(
            content["log_snr"], pixels, "--" if kind == "fixed" else "-", color=shade, marker="o", ms=2, label=name
        )
    for ax, title in zip(axes, ("exact fields", "fields of images' spectra"), strict=False):
        ax.set(xlabel="log-SNR", yscale="log", title=title)
        ax.legend(fontsize=6)
    axes[0].set_ylabel("pixels of plan for a tenth of the gap")
    if "networks" in answers:
        _, times = _kinds(answers)
        for kind, each in shares(answers).items():
            axes[2].errorbar(times, [v for v, _ in each], [e for _, e in each], marker="o", ms=2, label=kind)
        axes[2].axhline(0.1, color="black", lw=0.7)
        axes[2].set(xlabel="t", title="trained, MNIST: share left", ylim=(-0.1, 1.2))
        axes[2].legend(fontsize=6)
    return png(figure)
