"""The honest front: quality against cost for global-only choices of every size, mixtures and hybrids, from equal noise.

    python experiments/front.py --pretrained mnist --data-dir DIR --n 2000
    python experiments/front.py --run runs/digits --n 2000
    python experiments/front.py --pretrained mnist --summary --docs docs    # table and figure again, into the docs

Every schedule is sampled from the same starting noise and judged by FID in the set's own classifier features against
the training images (bootstrap error), KID, precision and recall against test images, the classifier's confidence, and
the rms distance from the global network's 16 multistep steps. Which price ranks the schedules best is told by
Spearman's correlation of price and FID; the last lines compare the cheapest of each kind. --seeds repeats all with
other noise.
Stops and resumes; leaves OUT/NAME/{SCHEDULE--seedS.json, ms.json, front.png}.
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
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import Denoiser
from phasewise.files import read_json, write_bytes, write_json
from phasewise.metrics import (
    ClassifierFeatures,
    FeatureNetwork,
    FrechetReference,
    classifier_summary,
    default_features,
    frechet_score,
    polynomial_mmd,
    precision_recall,
)
from phasewise.phases import placement_front, price_of, prices_at
from phasewise.pipeline.folder import read_config
from phasewise.pipeline.judging import sampling_ms
from phasewise.pretrained import load_pretrained
from phasewise.sampling import calls_per_step

CANDIDATES, T_MIN = 20, 0.02
EVEN = (3, 4, 5, 6, 8, 10, 14)
MULTISTEPS, SHARES = (6, 8, 12), (0.3, 0.4, 0.5, 0.6, 0.8)
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
        self.real = self.features.extract(self.data.test)


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
    """(family/detail, schedule) for everything compared; see :func:`global_only`."""
    path, table = prices.losses.path, prices.losses
    flops = {name: float(f) / 1e6 for name, f in zip(prices.names, prices.flops, strict=True)}
    wide = [n for n, r in zip(table.names, table.radii, strict=True) if r is None and n not in ("wiener", "control")]
    cheap = sorted((n for n in wide if flops[n] < flops["global"]), key=flops.__getitem__)
    local = "r3" if "r3" in flops else next(n for n in prices.names if n[0] == "r")

    def even(name: str, steps: int, solver: str) -> pw.HybridSchedule:
        cost = flops[name] * sum(calls_per_step(solver, steps))
        return pw.HybridSchedule(pw.time_grid(steps, t_min=T_MIN), (name,) * steps, solver, path, mflop=cost)

    for name in [*cheap, "global"]:
        for steps in EVEN:
            yield f"{name} heun/{steps}", even(name, steps, "heun")
            for solver in ("multistep", "dpmpp_2m"):
                yield f"{name} {solver}/{2 * steps}", even(name, 2 * steps, solver)
        yield f"{name} multistep/5", even(name, 5, "multistep")
        yield f"{name} multistep/7", even(name, 7, "multistep")
    for steps in MULTISTEPS:
        times = pw.time_grid(steps, t_min=T_MIN)
        grid = prices_at(prices, times)

        def on_grid(servers: tuple[str, ...], grid: pw.PriceList = grid) -> pw.HybridSchedule:
            return pw.schedule_from_servers(grid, servers, solver="multistep")

        for share in SHARES:
            for weighting in WEIGHTINGS:
                found = pw.optimise_schedule(grid, share, weighting=weighting, solver="multistep")
                yield f"hybrid multistep {weighting}/{steps} at {share}", found
            if cheap and share >= min(flops[n] for n in cheap) / flops["global"]:
                found = pw.optimise_schedule(grid, share, solver="multistep", members=wide)
                yield f"several globals multistep w2/{steps} at {share}", found
            for small in cheap:
                servers = pw.stitched_servers(
                    times, small, "global", (1 - share) / (1 - flops[small] / flops["global"])
                )
                yield f"small then large, {small}/{steps} at {share}", on_grid(servers)
            servers = pw.spread_servers(times, local, "global", (1 - share) / (1 - flops[local] / flops["global"]))
            yield f"{local} spread evenly/{steps} at {share}", on_grid(servers)
        yield (
            f"published window, {local} outside/{steps}",
            on_grid(pw.window_servers(times, (0.2, 0.5), "global", local)),
        )
        yield f"{local} alone/{steps}", on_grid((local,) * steps)
    whole = flops["global"] * sum(calls_per_step("heun", 14))
    for weighting in WEIGHTINGS:
        alone = placement_front(prices, errors, weighting=weighting, members=["global"])
        every = placement_front(prices, errors, weighting=weighting)
        for label, front in (("global placed", alone), ("hybrid placed", every)):
            for budget in BUDGETS:
                fits = np.flatnonzero(front.cost <= budget * whole)
                if len(fits):
                    yield f"{label} {weighting}/{budget}", front.schedules[int(fits[-1])]


def global_only(name: str) -> bool:
    """Whether the schedule called ``name`` uses nothing but networks that see the whole image."""
    return not any(word in name for word in ("hybrid", "alone", "spread", "window"))


def images_of(subject: Subject, schedule: pw.HybridSchedule, n: int, seed: int) -> Tensor:
    members: Mapping[str, Denoiser] = {k: subject.members[k] for k in dict.fromkeys(schedule.servers)}
    return pw.sample(pw.HybridDenoiser(members, schedule), n=n, seed=seed, batch=64).clamp(*subject.data.pixel_range)


def judge(
    subject: Subject, schedule: pw.HybridSchedule, n: int, seed: int, base: Tensor | None = None
) -> dict[str, Any]:
    """FID, KID, precision, recall, what the classifier says, and the paired error against ``base`` from equal noise."""
    images = images_of(subject, schedule, n, seed)
    seen = subject.features.extract(images)
    score = frechet_score(seen, subject.reference, seed=seed)
    kernel = polynomial_mmd(seen, subject.real[:n])
    precision, recall = precision_recall(seen, subject.real[:n])
    paired = None if base is None else pw.paired_error(images, base[:n])
    view = classifier_summary(images, subject.features) if isinstance(subject.features, ClassifierFeatures) else {}
    return {
        "fid": score.value, "fid_stderr": score.stderr, "n": n, "seed": seed, "mflop": schedule.mflop,
        "kid": [kernel.value, kernel.stderr], "precision": [precision.value, precision.stderr],
        "recall": [recall.value, recall.stderr], "classifier": {k: v for k, v in view.items() if k != "histogram"},
        "paired": None if paired is None else [paired.value, paired.stderr], "schedule": schedule.to_dict(),
    }  # fmt: skip


def read_rows(out: Path) -> dict[str, Any]:
    """Every schedule judged, with the seeds' figures averaged: the error of a mean over seeds."""
    ms = read_json(out / "ms.json") if (out / "ms.json").exists() else {}
    rows: dict[str, Any] = {}
    for file in sorted(out.glob("*__*.json")):
        rows.setdefault(file.stem.split("--seed")[0].replace("__", "/"), []).append(read_json(file))
    found = {}
    for name, seeds in rows.items():
        row = dict(seeds[0])
        row["fid"] = float(np.mean([r["fid"] for r in seeds]))
        row["fid_stderr"] = float(np.sqrt(np.sum([r["fid_stderr"] ** 2 for r in seeds]))) / len(seeds)
        row["seeds"], row["ms"] = len(seeds), ms.get(name)
        found[name] = row
    return found


def summary(out: Path) -> str:
    rows = read_rows(out)
    order = sorted(rows, key=lambda k: (k.split("/")[0], rows[k]["mflop"]))
    lines = [
        "| schedule | MFLOP | ms | FID | KID, 1e-3 | precision | recall | confidence | rms | price w2 | who, when |",
        "| --- " * 11 + "|",
    ]
    for name in order:
        row = rows[name]
        spans = pw.HybridSchedule.from_dict(row["schedule"]).spans()
        who = ", ".join(f"{by} {a:.2f}-{b:.2f}" for a, b, by in spans) + f" ({len(row['schedule']['times'])} steps)"
        price = row["price"].get("w2")
        cells = [
            f"{row['mflop']:.0f}",
            "" if row["ms"] is None else f"{row['ms']:.2f}",
            f"{row['fid']:.2f} ± {row['fid_stderr']:.2f}",
            f"{1e3 * row['kid'][0]:.2f}",
            f"{row['precision'][0]:.3f}",
            f"{row['recall'][0]:.3f}",
            f"{row['classifier']['confidence']:.3f}" if row.get("classifier") else "",
            f"{row['paired'][0]:.3f}" if row.get("paired") else "",
            "" if price is None else f"{price:.3g}",
            who,
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for weighting in WEIGHTINGS:
        known = [r for r in rows.values() if r["price"].get(weighting) is not None]
        if len(known) > 3:
            rank = spearmanr([r["price"][weighting] for r in known], [r["fid"] for r in known])
            lines.append(f"\nSpearman's correlation of the {weighting} price with FID: {rank.statistic:.2f} "
                         f"({len(known)} schedules)")  # fmt: skip
    draw(rows, out / "front.png")
    return "\n".join([*lines, "", *headline(rows)])


def headline(rows: Mapping[str, Any]) -> list[str]:
    """The cheapest of each kind whose FID is within 1.05 times the best of the global-only ones."""
    alone = {k: r for k, r in rows.items() if global_only(k)}
    if not alone:
        return []
    best = min(alone, key=lambda k: alone[k]["fid"])
    bound = 1.05 * alone[best]["fid"]
    said = [f"Best global-only: {best}, FID {alone[best]['fid']:.2f} ± {alone[best]['fid_stderr']:.2f}."]
    kinds = {
        "one global network": lambda k: global_only(k) and "then" not in k and "several" not in k,
        "any global-only choice": global_only,
        "hybrids": lambda k: "hybrid" in k,
    }
    cheapest = {}
    for kind, belongs in kinds.items():
        within = {k: r for k, r in rows.items() if belongs(k) and r["fid"] <= bound}
        if within:
            name = cheapest[kind] = min(within, key=lambda k: within[k]["mflop"])
            row = within[name]
            said.append(
                f"Cheapest of {kind} within 1.05 of it: {name}, FID {row['fid']:.2f} ± {row['fid_stderr']:.2f}, "
                f"{row['mflop']:.0f} MFLOP" + ("." if row["ms"] is None else f", {row['ms']:.2f} ms.")
            )
    if "hybrids" in cheapest:
        for kind in ("one global network", "any global-only choice"):
            if kind in cheapest:
                a, b = rows[cheapest["hybrids"]], rows[cheapest[kind]]
                time_ = "" if None in (a["ms"], b["ms"]) else f", 1/{b['ms'] / a['ms']:.2f} of the milliseconds"
                said.append(f"Hybrid against {kind}: 1/{b['mflop'] / a['mflop']:.2f} of the FLOPs{time_}.")
    return said


def draw(rows: dict[str, Any], file: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import ScalarFormatter

    timed = all(r["ms"] is not None for r in rows.values())
    figure, axes = plt.subplots(1, 1 + timed, figsize=(7.5 * (1 + timed), 5.2), squeeze=False, sharey=True)
    for axis, cost, unit in zip(axes[0], ("mflop", "ms"), ("MFLOP", "ms"), strict=False):
        for family in sorted({k.split("/")[0] for k in rows}):
            found = sorted((r for k, r in rows.items() if k.split("/")[0] == family), key=lambda r: r[cost])
            one_grid = family.split()[-1] in ("heun", "multistep", "dpmpp_2m") and global_only(family)
            axis.errorbar(
                [r[cost] for r in found], [r["fid"] for r in found], [2 * r["fid_stderr"] for r in found],
                marker="s" if global_only(family) else "o", ms=4, lw=1, capsize=2, label=family,
                ls="--" if one_grid else "-" if "placed" in family else "none",
            )  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel=f"{unit} an image")
        for which in (axis.xaxis, axis.yaxis):
            which.set_major_formatter(ScalarFormatter())
            which.set_minor_formatter(ScalarFormatter())
        axis.tick_params(which="minor", labelsize=7)
        axis.grid(alpha=0.3, which="both")
    axes[0, 0].set_ylabel("FID (classifier features; bars: 2 se)")
    axes[0, -1].legend(fontsize=7, ncols=2)
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
    parser.add_argument("--out", type=Path, default=Path("runs/front"))
    parser.add_argument("--docs", type=Path, help="folder of schedules.md, whose table (and figure) is replaced")
    return parser


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--price-n", type=int, default=500)
    parser.add_argument("--seeds", default="0", help="of the noise, e.g. 0,1,2")
    parser.add_argument("--only", default="", help="only schedules whose name holds this")
    parser.add_argument("--summary", action="store_true", help="judge nothing, only show what is there")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    out = arguments.out / (arguments.pretrained or arguments.run.name)
    if not arguments.summary:
        subject = Subject(arguments)
        prices, errors = prices_and_errors(subject, out, arguments.price_n)
        chosen = {name: plan for name, plan in schedules(prices, errors) if arguments.only in name}
        for seed in (int(s) for s in arguments.seeds.split(",")):
            base: Tensor | None = None
            for name, schedule in chosen.items():
                file = out / f"{name.replace('/', '__')}--seed{seed}.json"
                if file.exists():
                    continue
                if base is None:
                    base = pw.sample(subject.members["global"], arguments.n, seed=seed, steps=16)
                row = judge(subject, schedule, arguments.n, seed, base)
                price = {w: price_of(prices, errors, schedule, w) for w in WEIGHTINGS}
                write_json(file, {**row, "price": price})
                print(f"{name}: FID {row['fid']:.2f} ± {row['fid_stderr']:.2f}, {row['mflop']:.0f} MFLOP", flush=True)
        if not (out / "ms.json").exists() and not arguments.only:
            hybrids = {
                name: pw.HybridDenoiser({k: subject.members[k] for k in dict.fromkeys(plan.servers)}, plan)
                for name, plan in chosen.items()
            }
            write_json(out / "ms.json", sampling_ms(hybrids, 0))
    text = summary(out)
    print(text)
    if arguments.docs:
        name = f"{out.name}, python experiments/front.py"
        replace_table(arguments.docs / "schedules.md", name, text)
        write_bytes(arguments.docs / "schedules" / f"{out.name}.png", (out / "front.png").read_bytes())


if __name__ == "__main__":
    main()
