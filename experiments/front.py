"""The honest front: FID against cost for global-only choices, fixed-grid hybrids and placed hybrids, from equal noise.

    python experiments/front.py --pretrained mnist --data-dir DIR --n 2000
    python experiments/front.py --run runs/digits --n 2000
    python experiments/front.py --pretrained mnist --summary --docs docs    # table and figure again, into the docs

Every schedule is sampled from the same starting noise and judged by FID in the set's own classifier features against
the training images, with a bootstrap error. Which price ranks the schedules best is told by Spearman's correlation of
price and FID. Stops and resumes; leaves OUT/NAME/SCHEDULE.json, OUT/NAME/front.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from scipy.stats import spearmanr
from tables import replace_table

import phasewise as pw
from phasewise.denoisers import Denoiser
from phasewise.files import read_json, write_bytes, write_json
from phasewise.metrics import FeatureNetwork, FrechetReference, default_features
from phasewise.phases import placement_front, price_of, prices_at
from phasewise.pipeline.folder import read_config
from phasewise.pretrained import load_pretrained
from phasewise.sampling import calls_per_step

CANDIDATES, T_MIN = 20, 0.02
EVEN = (3, 4, 5, 6, 8, 10, 14)
MULTISTEPS, SHARES = (6, 8, 12), (0.4, 0.6, 0.8)
BUDGETS = (0.12, 0.2, 0.3, 0.45, 0.65)
WEIGHTINGS = ("w2", "flow")


class Subject:
    """The denoisers to schedule, the data to price them on, the features to judge them in."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        if arguments.pretrained:
            ready = load_pretrained(arguments.pretrained)
            self.name, self.members = ready.name, ready.members()
            self.data = pw.load_images(ready.name, data_dir=arguments.data_dir)
            self.features: FeatureNetwork = ready.features()
            self.reference = ready.reference()
        else:
            config = read_config(arguments.run)
            assert config is not None
            self.name = arguments.run.name
            folders = sorted((arguments.run / "models").iterdir())
            self.members = {f.name: pw.load_denoiser(f) for f in folders if f.name not in ("features", "control")}
            self.data = pw.load_images(
                config.data, data_dir=arguments.data_dir or config.data_dir, seed=config.seed, limit=config.limit
            )
            kept = arguments.run / "models/features"
            self.features = default_features(self.data, seed=config.seed, cache_dir=kept, kind=config.features)
            self.reference = FrechetReference.of_images(self.data.train, self.features)


def priced(subject: Subject, times: tuple[float, ...], n: int) -> pw.PriceList:
    start = time.perf_counter()
    found = pw.price_list(subject.members, subject.data, times, n=n, seed=3, paths=16)
    print(f"prices: {time.perf_counter() - start:.0f} s", flush=True)
    return found


def prices_and_errors(subject: Subject, out: Path, n: int) -> tuple[pw.PriceList, pw.StepErrors]:
    """Prices and Heun step errors at the candidate times, measured once and kept."""
    times = pw.time_grid(CANDIDATES, t_min=T_MIN)
    if not (out / "prices.json").exists():
        write_json(out / "prices.json", priced(subject, times, n).to_dict())
    if not (out / "errors.json").exists():
        start = time.perf_counter()
        found = pw.measure_step_errors(subject.members["global"], times, solver="heun", n=32, seed=4)
        print(f"step errors: {time.perf_counter() - start:.0f} s", flush=True)
        write_json(out / "errors.json", found.to_dict())
    return pw.PriceList.load(out / "prices.json"), pw.StepErrors.load(out / "errors.json")


def schedules(prices: pw.PriceList, errors: pw.StepErrors) -> Iterator[tuple[str, pw.HybridSchedule]]:
    """(family/detail, schedule) for everything compared."""
    unit = float(prices.flops[prices.names.index("global")]) / 1e6
    path = prices.losses.path

    def even(steps: int, solver: str) -> pw.HybridSchedule:
        cost = unit * sum(calls_per_step(solver, steps))
        return pw.HybridSchedule(pw.time_grid(steps, t_min=T_MIN), ("global",) * steps, solver, path, mflop=cost)

    for steps in EVEN:
        yield f"global heun/{steps}", even(steps, "heun")
        for solver in ("multistep", "dpmpp_2m"):
            yield f"global {solver}/{2 * steps}", even(2 * steps, solver)
    small = max((n for n in prices.names if n[0] == "r"), key=lambda n: int(n[1:]))
    for steps in MULTISTEPS:
        grid = prices_at(prices, pw.time_grid(steps, t_min=T_MIN))
        for share in SHARES:
            for weighting in WEIGHTINGS:
                found = pw.optimise_schedule(grid, share, weighting=weighting, solver="multistep")
                yield f"hybrid multistep {weighting}/{steps} at {share}", found
            first = round((1 - share) * steps)
            servers = (small,) * first + ("global",) * (steps - first)
            yield f"small then large/{steps} at {share}", pw.schedule_from_servers(grid, servers, solver="multistep")
    whole = unit * sum(calls_per_step("heun", 14))
    for weighting in WEIGHTINGS:
        alone = placement_front(prices, errors, weighting=weighting, members=["global"])
        every = placement_front(prices, errors, weighting=weighting)
        for label, front in (("global placed", alone), ("hybrid placed", every)):
            for budget in BUDGETS:
                fits = np.flatnonzero(front.cost <= budget * whole)
                if len(fits):
                    yield f"{label} {weighting}/{budget}", front.schedules[int(fits[-1])]


def judge(subject: Subject, schedule: pw.HybridSchedule, n: int, seed: int) -> dict[str, Any]:
    members: Mapping[str, Denoiser] = {k: subject.members[k] for k in dict.fromkeys(schedule.servers)}
    hybrid = pw.HybridDenoiser(members, schedule)
    low, high = subject.data.pixel_range
    images = pw.sample(hybrid, n=n, seed=seed, batch=64).clamp(low, high)
    score = pw.fid(images, subject.reference, subject.features, seed=seed)
    return {
        "fid": score.value, "fid_stderr": score.stderr, "n": n, "seed": seed, "mflop": schedule.mflop,
        "schedule": schedule.to_dict(),
    }  # fmt: skip


def summary(out: Path) -> str:
    rows = {f.stem.replace("__", "/"): read_json(f) for f in sorted(out.glob("*__*.json"))}
    order = sorted(rows, key=lambda k: (k.split("/")[0], rows[k]["mflop"]))
    lines = ["| schedule | MFLOP | FID | price w2 | price flow | who, when |", "|---|---|---|---|---|---|"]
    for name in order:
        row = rows[name]
        spans = pw.HybridSchedule.from_dict(row["schedule"]).spans()
        who = ", ".join(f"{by} {a:.2f}–{b:.2f}" for a, b, by in spans) + f" ({len(row['schedule']['times'])} steps)"
        cells = [f"{row['price'][w]:.3g}" if row["price"].get(w) is not None else "" for w in WEIGHTINGS]
        lines.append(
            f"| {name} | {row['mflop']:.0f} | {row['fid']:.2f} ± {row['fid_stderr']:.2f} "
            f"| {' | '.join(cells)} | {who} |"
        )
    for weighting in WEIGHTINGS:
        known = [r for r in rows.values() if r["price"].get(weighting) is not None]
        if len(known) > 3:
            rank = spearmanr([r["price"][weighting] for r in known], [r["fid"] for r in known])
            lines.append(f"\nSpearman's correlation of the {weighting} price with FID: {rank.statistic:.2f} "
                         f"({len(known)} schedules)")  # fmt: skip
    draw(rows, out / "front.png")
    return "\n".join(lines)


def draw(rows: dict[str, Any], file: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import ScalarFormatter

    figure, axis = plt.subplots(figsize=(8, 4.8))
    for family in sorted({k.split("/")[0] for k in rows}):
        found = sorted((r for k, r in rows.items() if k.split("/")[0] == family), key=lambda r: r["mflop"])
        several_grids = "hybrid multistep" in family or "small" in family
        axis.errorbar(
            [r["mflop"] for r in found], [r["fid"] for r in found], [2 * r["fid_stderr"] for r in found],
            marker="s" if "global" in family else "o", ms=5, lw=1, capsize=2, label=family,
            ls="none" if several_grids else "--" if "global" in family else "-",
        )  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="MFLOP an image", ylabel="FID (classifier features; bars: 2 se)")
    for which in (axis.xaxis, axis.yaxis):
        which.set_major_formatter(ScalarFormatter())
        which.set_minor_formatter(ScalarFormatter())
    axis.tick_params(which="minor", labelsize=7)
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The options of every script that judges schedules of a subject."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pretrained")
    source.add_argument("--run", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/front"))
    parser.add_argument("--docs", type=Path, help="folder of schedules.md, whose table (and figure) is replaced")
    return parser


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--price-n", type=int, default=500)
    parser.add_argument("--only", default="", help="only schedules whose name holds this")
    parser.add_argument("--summary", action="store_true", help="judge nothing, only show what is there")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    out = arguments.out / (arguments.pretrained or arguments.run.name)
    if not arguments.summary:
        subject = Subject(arguments)
        prices, errors = prices_and_errors(subject, out, arguments.price_n)
        for name, schedule in schedules(prices, errors):
            file = out / f"{name.replace('/', '__')}.json"
            if arguments.only in name and not file.exists():
                row = judge(subject, schedule, arguments.n, arguments.seed)
                price = {w: price_of(prices, errors, schedule, w) for w in WEIGHTINGS}
                write_json(file, {**row, "price": price})
                print(f"{name}: FID {row['fid']:.2f} ± {row['fid_stderr']:.2f}, {row['mflop']:.0f} MFLOP", flush=True)
    text = summary(out)
    print(text)
    if arguments.docs:
        name = f"{out.name}, python experiments/front.py"
        replace_table(arguments.docs / "schedules.md", name, text)
        write_bytes(arguments.docs / "schedules" / f"{out.name}.png", (out / "front.png").read_bytes())


if __name__ == "__main__":
    main()
