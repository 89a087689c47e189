"""Tables and the figure: every mark on one axis of log-SNR relative to the data variance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from phasewise.results import Cloning, CMIMap, LossTable, Speciation
from studies.figures import png, style
from studies.pages import markdown
from studies.study import Answers
from studies.transitions.models import MODELS, bound_row, inclusion
from studies.transitions.pictures import shares

SHOWN = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
PLACES = {
    "mnist-b1": "MNIST, centre pixel", "mnist-b1-at7_7": "MNIST, pixel (7, 7)", "mnist-b4": "MNIST, 4x4 block",
    "mnist-b7": "MNIST, 7x7 block", "fashion_mnist-b1": "Fashion-MNIST, centre pixel",
    "cifar10-b1": "CIFAR-10, centre pixel",
}  # fmt: skip


def of_kind(answers: Answers, kind: str) -> dict[str, dict[str, Any]]:
    """Answers by what follows the kind in their names."""
    return {n.removeprefix(f"{kind}/"): c for n, c in answers.items() if n.startswith(f"{kind}/")}


def tables(answers: Answers, maps: dict[str, dict[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    models = of_kind(answers, "model")
    if models:
        models = {name: models[name] for name in (*(n for n in MODELS if n in models), *models)}
        found |= {"models": model_table(models), "windows": window_table(models), "bound": bound_table(models)}
    if of_kind(answers, "speciation"):
        found["images"] = image_table(answers, maps)
    if of_kind(answers, "clones"):
        found["clones"] = clone_table(answers)
    if of_kind(answers, "told"):
        found["told"] = told_table(answers)
    if of_kind(answers, "known"):
        found["known"] = known_table(answers)
    return found


def at(mark: Any) -> str:
    """A number, or [value, low, high]; a dash for none."""
    if mark is None:
        return "–"
    if not isinstance(mark, list):
        return f"{mark:.1f}"
    value, low, high = mark
    return f"{value:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{value:.1f} ({low:.1f} to {high:.1f})"


def span(marks: dict[str, Any]) -> str:
    """The window above a tenth of the peak."""
    low, high = (marks[k] and marks[k][0] for k in ("low", "high"))
    if marks["peak"] is None:
        return "–"
    return f"{'below' if low is None else f'{low:.1f}'} to {'above' if high is None else f'{high:.1f}'}"


def model_table(models: dict[str, Any]) -> str:
    rows = []
    for name, found in models.items():
        marks = found["marks"]
        cells = [at(found["speciation"]), at(found["cloning"])]
        for curve in ("CMI", "gap, kl", "gap, w2", "gap, flow"):
            cells.append(at(marks[curve]["peak"]))
        rows.append([name, *cells, span(marks["CMI"])])
    heads = ["model", "speciation", "cloning", "CMI peak", "gap peak: kl", "w2", "flow", "CMI above a tenth"]
    note = (
        "Relative log-SNR; more noise is more negative. The middle pixel, r = 1; intervals of 95 %. Two modes are "
        "closed forms."
    )
    return markdown(heads, rows, note)


def window_table(models: dict[str, Any]) -> str:
    rows = []
    for name, found in models.items():
        said, marks = inclusion(found), found["marks"]
        least = f"{said['a']:.2f}" if said["a"] > -1 else "below -1"
        rows.append(
            [
                name, f"{said['a_peak']:.2f}", least, at(said["until"]), span(marks["CMI"]), span(marks["I(A;S|B)"]),
                _within(said["window"], [marks["I(A;S|B)"][k] and marks["I(A;S|B)"][k][0] for k in ("low", "high")]),
                f"{at(said['cloned'][0])} to {at(said['cloned'][1])}", _within(said["window"], said["cloned"]),
            ]
        )  # fmt: skip
    heads = [
        "model", "a at the peak", "least a", "a ≥ .5 down to", "CMI above a tenth", "I(A;S\\|B) above a tenth",
        "inside", "class open by clones", "inside",
    ]  # fmt: skip
    note = (
        "a = 1 - I(A;C|B,S) / I(A;C|B), its least over the CMI's window. Class open: clones have gone a tenth to nine "
        "tenths of the way from chance to one class. Inside: of the CMI's window in the one before."
    )
    return markdown(heads, rows, note)


def _within(inner: list[float | None], outer: list[float | None]) -> str:
    """Whether a window lies in another; an end that was not reached lies beyond what was measured."""
    step = 0.05
    low = outer[0] is None or (inner[0] is not None and inner[0] >= outer[0] - step)
    high = outer[1] is None or (inner[1] is not None and inner[1] <= outer[1] + step)
    return "yes" if low and high else "no"


def bound_table(models: dict[str, Any]) -> str:
    rows = []
    for name, found in models.items():
        row = bound_row(found)
        rows.append(
            [
                name, f"{row['log_snr']:.1f}", f"{row['cmi']:.2g}", f"{row['left']:.2g}", f"{row['ratio']:.3g}",
                f"{row['ratio'] ** 0.25:.1f}", f"{row['least']:.3g}", f"{row['linear']:.2f}",
                f"{row['linear_least']:.2f}",
            ]
        )  # fmt: skip
    heads = [
        "model", "log-SNR", "CMI, nats", "SNR · gap", "bound over value", "the same for the error", "least anywhere",
        "2 CMI over SNR · gap", "its least",
    ]  # fmt: skip
    note = (
        "Where SNR · gap is largest. Bound over value: of fourth powers; its fourth root is the factor for "
        "the error of the score. Least anywhere: where SNR · gap is above a hundredth of its peak; its least: above a "
        "tenth."
    )
    return markdown(heads, rows, note)


def image_table(answers: Answers, maps: dict[str, dict[str, Any]]) -> str:
    """One row a mark, for every set."""
    rows = []
    for name, content in of_kind(answers, "speciation").items():
        title, found = SHOWN.get(name, name), Speciation.from_dict(content)
        shift = 2 * math.log(found.data_std)
        ends = [-math.log(v) + shift for v in (found.eigenvalue, found.eigenvalue_high, found.eigenvalue_low)]
        parted = [-math.log(v) + shift for v in (found.between, found.between_high, found.between_low)]
        rows.append([title, "speciation", at(ends), "", _t(found.t_s)])
        rows.append([title, "class means part", at(parted), "", _t(found.t_between)])
        if f"clones/{name}" in answers:
            c = Cloning.from_dict(answers[f"clones/{name}"])
            for label, times in (
                ("cloning", (c.t_clone, c.t_clone_low, c.t_clone_high)),
                ("survival of the class", (c.t_survival, c.t_survival_low, c.t_survival_high)),
            ):
                rows.append([title, label, at(_snr(times, shift)), "", _t(times[0])])
            rows[-2][3] = f"{_one(c.t_high, shift)} to {_one(c.t_low, shift)}"
        for key, found_map in maps.items():
            if key.split("-")[0] == name:
                for radius in ("r = 1", "r = 3"):
                    marks = found_map[radius]["marks"]
                    rows.append([PLACES[key], f"CMI, {radius}", _peak(marks), span(marks), ""])
        for key, marks in answers.get(f"gaps/{name}", {}).get("marks", {}).items():
            rows.append([title, f"gap of {key}", _peak(marks), span(marks), ""])
    heads = ["images", "mark or curve", "log-SNR (95 %)", "above a tenth; class open", "t"]
    return markdown(heads, rows, "Relative log-SNR. A peak in brackets lies at the edge of what was measured.")


def _peak(marks: dict[str, Any]) -> str:
    return f"[{at(marks['peak'])}]" if marks["edge"] else at(marks["peak"])


def _t(t: float) -> str:
    return "" if math.isnan(t) else f"{t:.3f}"


def _snr(times: tuple[float, float, float], shift: float) -> list[float] | None:
    """[value, low, high] in relative log-SNR of (t, low, high)."""
    if math.isnan(times[0]):
        return None
    value, low, high = (2 * math.log((1 - t) / t) + shift if not math.isnan(t) else math.nan for t in times)
    return [value, high, low]


def _one(t: float, shift: float) -> str:
    return "–" if math.isnan(t) else f"{2 * math.log((1 - t) / t) + shift:.1f}"


def clone_table(answers: Answers) -> str:
    rows = []
    for name, content in of_kind(answers, "clones").items():
        c = Cloning.from_dict(content)
        for k, t in enumerate(c.times):
            pairs = [(c.agreement[k], c.agreement_stderr[k]), (c.survival[k], c.survival_stderr[k])]
            rows.append([SHOWN.get(name, name), f"{t:.2f}", *(f"{v:.3f} ± {e:.3f}" for v, e in pairs)])
    first = Cloning.from_dict(next(iter(of_kind(answers, "clones").values())))
    note = f"n = {first.n} test images, {first.steps} steps of {first.solver}, two clones each."
    return markdown(["images", "t", "clones agree", "class survives"], rows, note)


def told_table(answers: Answers) -> str:
    rows = []
    for name, content in of_kind(answers, "told").items():
        told, untold = (LossTable.from_dict(content[k]) for k in ("told", "untold"))
        share, error = shares(told, untold, "r3")
        k, g = told.column("r3"), told.column("global")
        for i, t in enumerate(told.times):
            rows.append(
                [
                    SHOWN.get(name, name), f"{t:.2f}", f"{untold.gap[i, k]:.2f} ± {untold.gap_stderr[i, k]:.2f}",
                    f"{told.gap[i, k]:.2f} ± {told.gap_stderr[i, k]:.2f}", f"{share[i]:.2f} ± {error[i]:.2f}",
                    f"{1 - told.loss[i, g] / untold.loss[i, g]:.3f}", f"{1 - told.loss[i, k] / untold.loss[i, k]:.3f}",
                ]
            )  # fmt: skip
    n = LossTable.from_dict(next(iter(of_kind(answers, "told").values()))["told"]).n
    heads = ["images", "t", "gap of r3", "gap, class told", "share gone", "loss saved: global", "r3"]
    return markdown(
        heads, rows, f"Squared error an image, n = {n} test images, equal noise; errors of one standard error."
    )


def known_table(answers: Answers) -> str:
    cells, rows = of_kind(answers, "known"), []
    for group in dict.fromkeys(key.rpartition("/")[0] for key in cells):
        pair = {int(k.rpartition("/")[2]): c for k, c in cells.items() if k.rpartition("/")[0] == group}
        if 0 not in pair or len(pair) < 2:
            continue
        known, beside = (CMIMap.from_dict(c["map"]) for c in (pair[0], next(v for k, v in pair.items() if k)))
        name, _, estimator = group.partition("/")
        crop = pair[0]["asked"]["crop"]
        for i, t in enumerate(known.times):
            read = [_known(beside, known, i, j) for j in range(len(known.radii))]
            rows.append(
                [SHOWN.get(name, name), f"{estimator}, {crop}", f"{t:.2g}", *(x for cell in read for x in cell)]
            )
    note = (
        "Nats, centre pixel; beside the estimator, the side of the middle that is looked at. Without the class on "
        "random parts as large as one, so that both read alike."
    )
    heads = ["images", "estimator", "t"]
    heads += [f"{what}, r = {r}" for r in (1, 3) for what in ("I(A;C\\|B)", "I(A;C\\|B,Y)", "a")]
    return markdown(heads, rows, note)


def _known(beside: CMIMap, known: CMIMap, i: int, j: int) -> tuple[str, str, str]:
    now, now_error, before, before_error = (
        float(m[i, j]) for m in (known.value, known.stderr, beside.value, beside.stderr)
    )
    texts = f"{before:.4f} ± {before_error:.4f}", f"{now:.4f} ± {now_error:.4f}"
    if before < 3 * before_error:
        return *texts, "not resolved"
    error = math.hypot(now_error, now / before * before_error) / before
    return *texts, f"{1 - now / before:.2f} ± {error:.2f}"


def figure(answers: Answers, maps: dict[str, dict[str, Any]]) -> bytes:
    """Left to right: two modes of several sizes, an Ising model, images; CMI over its peak, agreement, speciation."""
    import matplotlib.pyplot as plt

    style()
    models, images = of_kind(answers, "model"), of_kind(answers, "speciation")
    drawn, axes = plt.subplots(1, 3, figsize=(10.5, 3.4), layout="constrained", sharey=True)
    modes = [n for n in models if n.startswith("two modes")]
    for k, name in enumerate(modes):
        color = str(0.7 * k / max(len(modes) - 1, 1))
        _model(axes[0], models[name], color, name.removeprefix("two modes, "))
    axes[0].set_title("two modes, exact")
    rest = [n for n in ("Ising 5 x 5, beta .44", "Ising 5 x 5, beta .7", "two textures, 16 x 16") if n in models]
    for color, name in zip(("#0072B2", "#D55E00", "#009E73"), rest, strict=False):
        _model(axes[1], models[name], color, name)
    axes[1].set_title("Ising and textures, exact")
    for color, name in zip(("#0072B2", "#D55E00", "#009E73"), images, strict=False):
        _images(axes[2], answers, maps, name, color)
    axes[2].set_title("images")
    for ax in axes:
        ax.set_xlabel("relative log-SNR (noise to the right)")
        ax.set_ylim(-0.02, 1.05)
        ax.set_xlim(5, -10)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=6)
    axes[0].set_ylabel("CMI over its peak (solid); share of the way\nthat clones agree (dotted)")
    return png(drawn, dpi=110)


def _model(ax: Any, found: dict[str, Any], color: str, label: str) -> None:
    x, cmi = np.asarray(found["log_snr"]), np.asarray(found["curves"]["cmi"][0])
    ax.plot(x, cmi / cmi.max(), color=color, label=label)
    ax.plot(x, 2 * np.asarray(found["curves"]["agreement"][0]) - 1, ":", color=color)
    ax.axvline(found["speciation"][0], color=color, linewidth=1, linestyle="--")


def _images(ax: Any, answers: Answers, maps: dict[str, dict[str, Any]], name: str, color: str) -> None:
    s = Speciation.from_dict(answers[f"speciation/{name}"])
    shift = 2 * math.log(s.data_std)
    ax.axvline(s.log_snr + shift, color=color, linewidth=1, linestyle="--")
    shown = maps.get(f"{name}-b1", {}).get("r = 3")
    if shown:
        value = np.asarray(shown["curve"][0])
        ax.plot(shown["log_snr"], value / value.max(), color=color, label=f"{SHOWN.get(name, name)}, r = 3")
    if f"clones/{name}" in answers:
        c = Cloning.from_dict(answers[f"clones/{name}"])
        ax.plot(c.log_snr + shift, (c.agreement - c.chance) / (1 - c.chance), ":", color=color, label="_clones")
