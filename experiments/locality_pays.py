"""Where a local network is the cheap one: cost at equal held-out loss by image size, for U-Nets and for transformers.

    python experiments/locality_pays.py --seconds 120 --docs docs

Gaussian fields with free borders (precision m^2 + graph Laplacian) have any size and a known optimum at every noise
time. At each trained side every network learns the span of times t +- 0.05 for the same nominal time; its held-out loss
is set against the exact global optimum. The global network of least loss in every family has as its rival the cheapest
local one that loses no more; the ratio of their costs is shown by image side, where at sides that were not trained the
same networks' FLOPs are counted. Leaves OUT/SIDE/TIME/NAME.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path

import matplotlib as mpl
import torch
from designs import step_seconds
from tables import already_answered, replace_table
from transformer import TransformerDenoiser

import phasewise as pw
from phasewise.denoisers import NetworkDenoiser
from phasewise.files import read_json, write_json
from phasewise.report.style import RC

mpl.use("Agg")
import matplotlib.pyplot as plt

MASS, HALF, N_TRAIN, N_TEST = 0.1, 0.05, 20_000, 1_000
TIMES, COUNTED = (0.3, 0.6), (28, 32, 64, 128, 256)
Make = Callable[[int], NetworkDenoiser]


def shape(side: int) -> tuple[int, int, int]:
    return (1, side, side)


NETWORKS: dict[str, Make] = {
    "local r1": lambda side: pw.LocalDenoiser(shape(side), 1, block=2, width=64),
    "local r3": lambda side: pw.LocalDenoiser(shape(side), 3, block=2, width=64),
    "local r5": lambda side: pw.LocalDenoiser(shape(side), 5, block=2, width=64),
    "local r8": lambda side: pw.LocalDenoiser(shape(side), 8, block=4, width=128),
    "U-Net coarse": lambda side: pw.UNetDenoiser.of_size(shape(side), "coarse"),
    "U-Net small": lambda side: pw.UNetDenoiser.of_size(shape(side), "small"),
    "U-Net medium": lambda side: pw.UNetDenoiser.of_size(shape(side), "medium"),
    "transformer w32 d2": lambda side: TransformerDenoiser(shape(side), width=32, depth=2),
    "transformer w64 d3": lambda side: TransformerDenoiser(shape(side), width=64, depth=3),
}
FAMILIES = {"local": "#0072B2", "U-Net": "#D55E00", "transformer": "#009E73"}


@cache
def field_of(side: int) -> tuple[pw.exact.GaussianField, torch.Tensor, torch.Tensor]:
    field = pw.exact.GaussianField((side, side), mass=MASS, boundary="open")
    return field, field.sample(N_TRAIN, 0), field.sample(N_TEST, 1)


def fresh(make: Make, side: int) -> NetworkDenoiser:
    torch.manual_seed(0)
    return make(side)


def measure(side: int, arguments: argparse.Namespace) -> None:
    folder = arguments.out / str(side)
    if not (folder / "steps.json").exists():
        write_json(
            folder / "steps.json", step_seconds({n: lambda m=m: m(side) for n, m in NETWORKS.items()}, side=side)
        )
    seconds = read_json(folder / "steps.json")
    for t in TIMES:
        for name, make in NETWORKS.items():
            asked = {
                "seconds": arguments.seconds,
                "steps": max(round(arguments.seconds / seconds[name]), 1),
                "batch": 128,
            }
            file = folder / f"{t:g}" / f"{name.replace(' ', '_')}.json"
            if already_answered(file, asked):
                continue
            field, train, test = field_of(side)
            network = fresh(make, side)
            pw.train(network, train, steps=asked["steps"], span=(t - HALF, t + HALF), name=name, progress=False)
            best = field.denoiser()
            table = pw.diagnosis.measure_losses({"best": best, "network": network}, test, [t], reference="best", seed=2)
            excess, error = table.gap[0, 1] / table.loss[0, 0], table.gap_stderr[0, 1] / table.loss[0, 0]
            write_json(file, {"asked": asked, "excess": float(excess), "error": float(error)})
            print(f"side {side}, t = {t:g}, {name}: {100 * excess:+.2f} ± {100 * error:.2f} %", flush=True)


def results(out: Path) -> dict[tuple[int, float, str], dict[str, float]]:
    found = {}
    for side in COUNTED:
        for t in TIMES:
            for name in NETWORKS:
                file = out / str(side) / f"{t:g}" / f"{name.replace(' ', '_')}.json"
                if file.exists():
                    found[side, t, name] = read_json(file)
    return found


def cost(name: str, side: int) -> float:
    return pw.count_flops(NETWORKS[name](side), shape(side)) / 1e6


def markdown(out: Path) -> str:
    found = results(out)
    sides = sorted({side for side, _, _ in found})
    heads = [f"{side}: MFLOP | {' | '.join(f'excess, t = {t:g}' for t in TIMES)}" for side in sides]
    lines = ["| network | " + " | ".join(heads) + " |", "| --- " * (1 + len(sides) * (1 + len(TIMES))) + "|"]
    for name in NETWORKS:
        cells = []
        for side in sides:
            rows = [found.get((side, t, name)) for t in TIMES]
            cells += [f"{cost(name, side):.1f}"]
            cells += ["" if r is None else f"{100 * r['excess']:+.1f} ± {100 * r['error']:.1f} %" for r in rows]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rivals(found: dict[tuple[int, float, str], dict[str, float]], side: int, t: float) -> dict[str, tuple[str, str]]:
    """By family of global networks: its one of least loss, and the cheapest local one that loses no more (within two
    standard errors), where there is one."""
    here = {name: row for (s, u, name), row in found.items() if (s, u) == (side, t)}
    pairs = {}
    for family in list(FAMILIES)[1:]:
        best = min((n for n in here if n.startswith(family)), key=lambda n: here[n]["excess"], default=None)
        if best is None:
            continue
        bound = here[best]["excess"] + 2 * here[best]["error"]
        good = [n for n in here if n.startswith("local") and here[n]["excess"] <= bound]
        if good:
            pairs[family] = best, min(good, key=lambda n: cost(n, side))
    return pairs


def draw(out: Path, file: Path) -> None:
    """Left: loss against cost where trained. Right: what the best global ones cost over their local rivals, by side."""
    plt.rcParams.update(RC)
    found = results(out)
    whole = len(TIMES) * len(NETWORKS)
    sides = [s for s in COUNTED if sum(side == s for side, _, _ in found) == whole]
    if not sides:
        raise SystemExit(f"no side is trained whole ({whole} networks and times) in {out} yet")
    side = sides[-1]
    figure, axes = plt.subplots(1, len(TIMES) + 1, figsize=(10.5, 3.4), layout="constrained")
    for ax, t in zip(axes, TIMES, strict=False):
        for family, colour in FAMILIES.items():
            names = sorted(
                (n for s, u, n in found if (s, u) == (side, t) and n.startswith(family)), key=lambda n: cost(n, side)
            )
            ax.errorbar(
                [cost(n, side) / side**2 * 1e3 for n in names],
                [100 * found[side, t, n]["excess"] for n in names],
                [100 * found[side, t, n]["error"] for n in names],
                marker="o",
                ms=4,
                color=colour,
                label=family,
            )
            for n in names:
                ax.annotate(
                    n.removeprefix(family + " "),
                    (cost(n, side) / side**2 * 1e3, 100 * found[side, t, n]["excess"]),
                    xytext=(3, 4),
                    textcoords="offset points",
                    fontsize=6,
                )
        ax.set(xscale="log", yscale="log", xlabel="kFLOP a pixel", title=f"t = {t:g}, {side}x{side}")
        ax.legend(fontsize=7)
    axes[0].set_ylabel("held-out loss above the optimum, %")
    for t, style in zip(TIMES, ("-", "--"), strict=True):
        for family, (name, local) in rivals(found, side, t).items():
            ratio = [cost(name, s) / cost(local, s) for s in COUNTED]
            axes[-1].plot(
                COUNTED,
                ratio,
                style,
                marker="o",
                ms=3,
                color=FAMILIES[family],
                label=f"{name} over {local}, t = {t:g}",
            )
    axes[-1].axhline(1, color="black", lw=0.7)
    axes[-1].set(
        xscale="log", yscale="log", xlabel="side, pixels", title="FLOPs over a local network's of no higher loss"
    )
    axes[-1].set_xticks(COUNTED[1:], [str(s) for s in COUNTED[1:]])
    axes[-1].minorticks_off()
    axes[-1].legend(fontsize=6)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=140)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="training time of each network")
    parser.add_argument("--sides", default="32", help="trained sides, e.g. 28,32,64; none: show what is there")
    parser.add_argument("--out", type=Path, default=Path("runs/locality"))
    parser.add_argument("--docs", type=Path, help="put table and figure there")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)  # far tokens' attention is as good as 0; counted exactly, it halves the speed
    for side in (int(s) for s in arguments.sides.split(",") if s):
        measure(side, arguments)
    print(markdown(arguments.out))
    if arguments.docs:
        replace_table(arguments.docs / "networks.md", "locality_pays.py", markdown(arguments.out))
        draw(arguments.out, arguments.docs / "networks" / "locality.png")


if __name__ == "__main__":
    main()
