"""Where a local network is the cheap one: cost at equal held-out loss by image size, for U-Nets and for transformers.

    python experiments/locality_pays.py --seconds 120 --docs docs

Gaussian fields with free borders (precision m^2 + graph Laplacian) have any size and a known optimum at every noise
time. At each trained side every network learns the span of times t +- 0.05 for the same nominal time; its held-out loss
is set against the exact global optimum. The cheapest of each family within TOLERANCE of the optimum is its price there;
at sides that were not trained the same network's FLOPs are counted. Leaves OUT/SIDE/TIME/NAME.json.
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
TIMES, COUNTED = (0.3, 0.6), (16, 28, 32, 64, 128, 256)
TOLERANCE = 0.03
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
            asked = {"seconds": arguments.seconds, "steps": round(arguments.seconds / seconds[name]), "batch": 128}
            file = folder / f"{t:g}" / f"{name.replace(' ', '_')}.json"
            if already_answered(file, asked):
                continue
            field, train, test = field_of(side)
            network = fresh(make, side)
            pw.train(network, train, steps=asked["steps"], span=(t - HALF, t + HALF), name=name, progress=False)
            best = field.denoiser()
            table = pw.measure_losses({"best": best, "network": network}, test, [t], reference="best", seed=2)
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


def draw(out: Path, file: Path) -> None:
    plt.rcParams.update(RC)
    found = results(out)
    figure, axes = plt.subplots(1, len(TIMES), figsize=(8.4, 3.4), layout="constrained", sharey=True)
    for ax, t in zip(axes, TIMES, strict=True):
        for family, colour in FAMILIES.items():
            chosen: dict[int, str] = {}
            for side in COUNTED:
                near = [n for s, u, n in found if (s, u) == (side, t) and n.startswith(family)]
                good = [n for n in near if found[side, t, n]["excess"] <= TOLERANCE]
                if good:
                    chosen[side] = min(good, key=lambda n: cost(n, side))
            if not chosen:
                ax.plot([], [], color=colour, label=f"{family}: none within {TOLERANCE:.0%}")
                continue
            nearest = {side: chosen[min(chosen, key=lambda s: abs(s - side))] for side in COUNTED}
            price = [cost(nearest[side], side) / side**2 * 1e3 for side in COUNTED]
            ax.plot(COUNTED, price, "--", color=colour, lw=1)
            solid = [k for k, side in enumerate(COUNTED) if side in chosen]
            names = ", ".join(dict.fromkeys(n.removeprefix(family + " ") for n in chosen.values()))
            ax.plot(
                [COUNTED[k] for k in solid], [price[k] for k in solid], "o", color=colour, label=f"{family} ({names})"
            )
        ax.set(xscale="log", yscale="log", xlabel="side, pixels", title=f"t = {t:g}")
        ax.set_xticks(COUNTED, [str(s) for s in COUNTED])
        ax.minorticks_off()
        ax.legend(fontsize=7)
    axes[0].set_ylabel(f"kFLOP a pixel, cheapest within {TOLERANCE:.0%} of the optimum")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=140)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="training time of each network")
    parser.add_argument("--sides", default="32", help="trained sides, e.g. 28,32,64")
    parser.add_argument("--out", type=Path, default=Path("runs/locality"))
    parser.add_argument("--docs", type=Path, help="put table and figure there")
    arguments = parser.parse_args()
    for side in (int(s) for s in arguments.sides.split(",")):
        measure(side, arguments)
    print(markdown(arguments.out))
    if arguments.docs:
        replace_table(arguments.docs / "networks.md", "locality_pays.py", markdown(arguments.out))
        draw(arguments.out, arguments.docs / "networks" / "locality.png")


if __name__ == "__main__":
    main()
