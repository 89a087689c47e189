"""The honest front: quality against cost for global-only choices of every size, mixtures and hybrids, from equal noise.

    python experiments/front.py --pretrained mnist --data-dir DIR --final 10000 --docs docs    # the whole, hours
    python experiments/front.py --pretrained mnist --data-dir DIR --n 2000                     # the first round alone
    python experiments/front.py --run runs/digits --n 2000
    python experiments/front.py --pretrained mnist --summary --docs docs    # tables and figure again, into the docs

Every schedule is sampled from the same noise and judged by FID in the set's own classifier features against the
training images (bootstrap error), KID, precision and recall against test images, and the classifier's confidence.
With --final, what no cheaper schedule of its kind beats is judged once more, on more samples and other noise, beside
eight global steps from the same noise: FID (bootstrap over images), pixels, class; the last lines compare the cheapest
of each kind.  Stops and resumes; leaves OUT/NAME/{SCHEDULE--seedS.json, final/{..., beside.json, real.json, ms.json},
front.png}.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from front_report import draw, final_table, finalists, headline, ranked, read_rows, table
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
    frechet_difference,
    frechet_score,
    paired_error,
    polynomial_mmd,
    precision_recall,
)
from phasewise.pipeline.folder import read_config
from phasewise.pipeline.judging import sampling_ms
from phasewise.pretrained import load_pretrained
from phasewise.sampling import calls_per_step
from phasewise.scheduling import penalty_of, placement_front, prices_at

CANDIDATES, T_MIN = 20, 0.02
SOLVED = {"exp_ab2": (6, 8, 12), "sde_dpmpp_2m": (4, 5, 6, 7, 8, 10, 12, 16), "ancestral": (12, 20), "heun": (4, 8)}
CHEAP_SOLVED = {"exp_ab2": (8,), "sde_dpmpp_2m": (5, 6, 7, 8, 10, 12)}
"""Solvers and numbers of steps of one network alone: the global one, and the cheaper global ones."""
MIXED, SHARES = (6, 8, 10), (0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
JUMP = 0.8
"""Two grids: uniform, and one that goes from t = 1 to here in its first step and is uniform from there."""
WINDOWS, WINDOWED = ((0.2, 0.5), (0.2, 0.7), (0.2, 0.9), (0.1, 0.7), (0.1, 0.9), (0.05, 0.9), (0.02, 0.9)), 12
"""The published window and wider ones, on a grid of so many steps."""
BUDGETS = (0.12, 0.2, 0.3, 0.45)
WEIGHTINGS = ("frechet", "w2")
PLACED = ("w2",)
AGAINST = "global sde_dpmpp_2m/8"
"""What every finalist is set beside."""
BESIDE = 2000
"""So many samples are compared with it pixel by pixel and class by class."""
Plan = pw.HybridSchedule


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


def priced(subject: Subject, times: tuple[float, ...], n: int) -> pw.results.PriceList:
    start = time.perf_counter()
    found = pw.price_list(subject.members, subject.data, times, n=n, seed=3, features=subject.features)
    print(f"prices: {time.perf_counter() - start:.0f} s", flush=True)
    return found


def prices_and_errors(subject: Subject, out: Path, n: int) -> tuple[pw.results.PriceList, pw.results.StepErrors]:
    """Prices and Heun step errors at the candidate times, measured once and kept."""
    times = pw.time_grid(CANDIDATES, t_min=T_MIN)
    file = out / "prices.json"
    if not file.exists() or pw.results.PriceList.load(file).frechet is None:  # a list of before that was measured
        write_json(out / "prices.json", priced(subject, times, n).to_dict())
    if not (out / "errors.json").exists():
        start = time.perf_counter()
        found = pw.scheduling.measure_step_errors(subject.members["global"], times, solver="heun", n=32, seed=4)
        print(f"step errors: {time.perf_counter() - start:.0f} s", flush=True)
        write_json(out / "errors.json", found.to_dict())
    return pw.results.PriceList.load(out / "prices.json"), pw.results.StepErrors.load(out / "errors.json")


def schedules(
    prices: pw.results.PriceList, errors: pw.results.StepErrors, solvers: tuple[str, ...]
) -> Iterator[tuple[str, Plan]]:
    """(family/detail, schedule) for everything compared.  Mixtures and hybrids by each of the
    multistep ``solvers``; hybrids that another weighting or budget has found already are left out."""
    path, table = prices.losses.path, prices.losses
    flops = {name: float(f) / 1e6 for name, f in zip(prices.names, prices.flops, strict=True)}
    wide = [n for n, r in zip(table.names, table.radii, strict=True) if r is None and n not in ("wiener", "control")]
    cheap = sorted((n for n in wide if flops[n] < flops["global"]), key=flops.__getitem__)
    local = "r3" if "r3" in flops else next(n for n in prices.names if n[0] == "r")

    def even(name: str, steps: int, solver: str) -> Plan:
        cost = flops[name] * sum(calls_per_step(solver, steps))
        return pw.HybridSchedule(pw.time_grid(steps, t_min=T_MIN), (name,) * steps, solver, path, mflop=cost)

    for name in [*cheap, "global"]:
        for solver, counts in (SOLVED if name == "global" else CHEAP_SOLVED).items():
            for steps in counts:
                yield f"{name} {solver}/{steps}", even(name, steps, solver)
        for steps in MIXED:
            plan = even(name, steps, "sde_dpmpp_2m")
            yield f"{name} sde_dpmpp_2m/{steps}, jump", replace(plan, times=grids(steps)[", jump"])
    for solver in solvers:
        for steps, (which, times) in ((s, g) for s in MIXED for g in grids(s).items()):
            seen: set[tuple[str, ...]] = set()
            grid = prices_at(prices, times)

            def on_grid(assignment: tuple[str, ...], grid: pw.results.PriceList = grid, solver: str = solver) -> Plan:
                return pw.scheduling.schedule_from_assignment(grid, assignment, solver=solver)

            for share in SHARES:
                for small in (n for n in cheap if flops[n] <= share * flops["global"]):
                    assignment = pw.scheduling.baselines.t_stitch(
                        times, small, "global", (1 - share) / (1 - flops[small] / flops["global"])
                    )
                    if assignment not in seen:
                        yield f"small then large, {small} {solver}/{steps} at {share}{which}", on_grid(assignment)
                    seen.add(assignment)
                for weighting in WEIGHTINGS:
                    found = pw.optimise_schedule(grid, share, penalty=weighting, solver=solver)
                    if found.assignment not in seen:
                        yield f"hybrid {solver} {weighting}/{steps} at {share}{which}", found
                    seen.add(found.assignment)
            assignment = pw.scheduling.baselines.spread(times, local, "global", 0.5)
            yield f"{local} spread evenly {solver}/{steps}{which}", on_grid(assignment)
            yield f"{local} alone {solver}/{steps}{which}", on_grid((local,) * steps)
        grid = prices_at(prices, pw.time_grid(WINDOWED, t_min=T_MIN))
        for low, high in WINDOWS:
            assignment = pw.scheduling.baselines.window(grid.times, (low, high), "global", local)
            plan = pw.scheduling.schedule_from_assignment(grid, assignment, solver=solver)
            yield f"window {low} to {high}, {local} outside, {solver}/{WINDOWED}", plan
    whole = flops["global"] * sum(calls_per_step("heun", 14))
    for weighting in PLACED:
        alone = placement_front(prices, errors, penalty=weighting, members=["global"])
        every = placement_front(prices, errors, penalty=weighting)
        for label, front in (("global placed", alone), ("hybrid placed", every)):
            for budget in BUDGETS:
                fits = np.flatnonzero(front.cost <= budget * whole)
                if len(fits):
                    yield f"{label} {weighting}/{budget}", front.schedules[int(fits[-1])]


def grids(steps: int) -> dict[str, tuple[float, ...]]:
    """Both grids of so many steps, by what a schedule's name says of them."""
    jumped = (1.0, *(float(t) for t in np.linspace(JUMP, T_MIN, steps - 1)))
    return {"": pw.time_grid(steps, t_min=T_MIN), ", jump": jumped}


def images_of(subject: Subject, schedule: pw.HybridSchedule, n: int, seed: int) -> Tensor:
    members: Mapping[str, Denoiser] = {k: subject.members[k] for k in dict.fromkeys(schedule.assignment)}
    return pw.sample(pw.HybridDenoiser(members, schedule), n=n, seed=seed, batch=64).clamp(*subject.data.pixel_range)


def judge(
    subject: Subject, schedule: pw.HybridSchedule, n: int, seed: int, against: Tensor | None = None
) -> tuple[dict[str, Any], Tensor]:
    """FID (also less that of the features ``against``, image by image), KID, precision, recall and the classifier's
    view; and the features of the samples."""
    images = images_of(subject, schedule, n, seed)
    seen = subject.features.extract(images)
    score = frechet_score(seen, subject.reference, seed=seed)
    kernel = polynomial_mmd(seen, subject.real[:n])
    precision, recall = precision_recall(seen, subject.real[:n])
    minus = None if against is None else frechet_difference(seen, against, subject.reference, seed)
    view = classifier_summary(images, subject.features) if isinstance(subject.features, ClassifierFeatures) else {}
    row = {
        "fid": [score.value, score.stderr], "n": n, "seed": seed, "mflop": schedule.mflop,
        "kid": [kernel.value, kernel.stderr], "precision": [precision.value, precision.stderr],
        "recall": [recall.value, recall.stderr], "classifier": {k: v for k, v in view.items() if k != "histogram"},
        "minus": None if minus is None else [minus.value, minus.stderr], "schedule": schedule.to_dict(),
    }  # fmt: skip
    return row, seen


def file_of(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name.replace('/', '__')}--seed{seed}.json"


def judge_all(arguments: argparse.Namespace, subject: Subject, out: Path) -> None:
    prices, errors = prices_and_errors(subject, out, arguments.price_n)
    for name, plan in schedules(prices, errors, tuple(arguments.solvers.split(","))):
        file = file_of(out, name, 0)
        if re.search(arguments.only, name) and not judged_before(file, plan):
            row, _ = judge(subject, plan, arguments.n, 0)
            row["price"] = {w: penalty_of(prices, errors, plan, w) for w in PLACED}
            write_json(file, row)
            print(f"{name}: FID {row['fid'][0]:.2f} ± {row['fid'][1]:.2f}, {row['mflop']:.0f} MFLOP", flush=True)


def judge_finalists(arguments: argparse.Namespace, subject: Subject, out: Path) -> None:
    rows, folder = read_rows(out), out / "final"
    chosen = [k for k in finalists(rows) if re.search(arguments.finalists, k)]
    chosen += [k for k in rows if arguments.also and k not in chosen and re.fullmatch(arguments.also, k)]
    names = [AGAINST, *[k for k in chosen if k != AGAINST]]
    plans = {name: pw.HybridSchedule.from_dict(rows[name]["schedule"]) for name in names}
    seeds = [int(s) for s in arguments.seeds.split(",")]
    for seed in seeds:
        against: Tensor | None = None
        for name, plan in plans.items():
            if judged_before(file_of(folder, name, seed), plan):
                continue
            if against is None and name != AGAINST:
                against = subject.features.extract(images_of(subject, plans[AGAINST], arguments.final, seed))
            row, seen = judge(subject, plan, arguments.final, seed, against)
            if name == AGAINST:
                against = seen
            write_json(file_of(folder, name, seed), {**row, "against": AGAINST})
            print(f"seed {seed} {name}: FID {row['fid'][0]:.3f} ± {row['fid'][1]:.3f}", flush=True)
    others = set(plans) - {AGAINST}
    if not others <= set(known(folder / "beside.json")):
        write_json(folder / "beside.json", beside(subject, plans, seeds[0]))
    sizes = sorted({min(n, len(subject.real)) for n in (arguments.n, arguments.final)})
    real = {n: frechet_score(subject.real[:n], subject.reference, seed=0) for n in sizes}
    write_json(folder / "real.json", {str(n): [s.value, s.stderr] for n, s in real.items()})
    if not set(plans) <= set(known(folder / "ms.json")):
        hybrids = {
            name: pw.HybridDenoiser({k: subject.members[k] for k in dict.fromkeys(plan.assignment)}, plan)
            for name, plan in plans.items()
        }
        write_json(folder / "ms.json", sampling_ms(hybrids, 0, repeats=5))


def judged_before(file: Path, plan: Plan) -> bool:
    """Whether ``file`` holds the judgement of this very schedule: its name says how it was found, not what it is."""
    if not file.exists():
        return False
    found = pw.HybridSchedule.from_dict(read_json(file)["schedule"])
    return (found.assignment, found.solver) == (plan.assignment, plan.solver) and np.allclose(found.times, plan.times)


def known(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}


def beside(subject: Subject, plans: Mapping[str, Plan], seed: int) -> dict[str, dict[str, list[float]]]:
    """Every schedule's samples and those of ``AGAINST`` from the same noise: root mean square difference of a pixel,
    and how many of them the classifier puts into the same class."""
    first = images_of(subject, plans[AGAINST], BESIDE, seed)
    found: dict[str, dict[str, list[float]]] = {}
    for name, plan in plans.items():
        if name == AGAINST:
            continue
        images = images_of(subject, plan, BESIDE, seed)
        error = paired_error(images, first)
        found[name] = {"paired_error": [error.value, error.stderr]}
        if isinstance(subject.features, ClassifierFeatures):
            a, b = (subject.features.probabilities(x).argmax(1) for x in (images, first))
            share = float((a == b).double().mean())
            found[name]["same_class"] = [share, (share * (1 - share) / BESIDE) ** 0.5]
    return found


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


def show(out: Path, docs: Path | None) -> None:
    rows, finals = read_rows(out), read_rows(out / "final")
    draw(rows, finals, out / "front.png")
    prices = pw.results.PriceList.load(out / "prices.json")
    texts = {"": "\n\n".join([table(rows), " ".join(headline(rows)), *ranked(rows, prices)])}
    if finals:
        texts[" final"] = final_table(finals, prices, known(out / "final/real.json"))
    for which, text in texts.items():
        print(text, end="\n\n")
        if docs:
            replace_table(docs / "schedules.md", f"{out.name}{which}, python experiments/front.py", text)
    if docs:
        write_bytes(docs / "schedules" / f"{out.name}.png", (out / "front.png").read_bytes())


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--price-n", type=int, default=500)
    parser.add_argument("--solvers", default="sde_dpmpp_2m", help="of mixtures and hybrids, comma-separated")
    parser.add_argument("--only", default="", help="only schedules whose name matches this regular expression")
    parser.add_argument("--final", type=int, help="then judge the finalists again on so many samples")
    parser.add_argument("--finalists", default="", help="only finalists whose name matches this regular expression")
    parser.add_argument("--also", help="and these, by a regular expression, finalists or not")
    parser.add_argument("--seeds", default="1,2,3", help="of the finalists' noise")
    parser.add_argument("--summary", action="store_true", help="judge nothing, only show what is there")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    out = arguments.out / (arguments.pretrained or arguments.run.name)
    if not arguments.summary:
        subject = Subject(arguments)
        judge_all(arguments, subject, out)
        if arguments.final:
            judge_finalists(arguments, subject, out)
    show(out, arguments.docs)


if __name__ == "__main__":
    main()
