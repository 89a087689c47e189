"""Random schedules with FID as judge: which price ranks them best, and does the optimiser keep up with the search?

    python experiments/random_search.py --run runs/digits --docs docs
    python experiments/random_search.py --pretrained mnist --data-dir DIR --solver sde_dpmpp_2m \\
        --members wiener,r1,r3,coarse,small,global --docs docs

On one grid, by one multistep solver, each step gets a server drawn at random (half of the schedules change server at
most three times, as real ones do). Every schedule is sampled from the same noise. Spearman's correlation of FID with
each price tells which weighting to minimise (99 % interval by bootstrap over schedules). The ten best per third of
the cost range are judged again on more samples, beside what the optimiser chooses at their cost. Stops and resumes;
leaves OUT/NAME/random.json.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from front import Subject, images_of, parser_of
from scipy.stats import spearmanr
from tables import replace_table

import phasewise as pw
from phasewise.files import read_json, write_json

WEIGHTINGS = ("frechet", "w2", "flow", "kl")
OPTIMISED = ("frechet", "w2")
"""The optimiser's schedules under these are judged beside the best random ones."""
GOOD = 5
"""Schedules within so many times the best FID are ranked on their own, too."""


def draw(names: list[str], steps: int, count: int, seed: int) -> list[tuple[str, ...]]:
    """Distinct random assignments of assignment; every second one of at most four spans."""
    rng, found = np.random.default_rng(seed), dict[tuple[str, ...], None]()
    while len(found) < count:
        if len(found) % 2:
            assignment = rng.choice(names, steps)
        else:
            cuts = np.sort(rng.integers(0, steps + 1, 3))
            assignment = np.array(names)[rng.integers(0, len(names), 4)][
                np.searchsorted(cuts, np.arange(steps), "right")
            ]
        found[tuple(str(s) for s in assignment)] = None
    return list(found)


def judged(subject: Subject, schedule: pw.HybridSchedule, n: int, seed: int) -> tuple[float, float]:
    score = pw.fid(images_of(subject, schedule, n, seed), subject.reference, subject.features, seed=seed)
    return score.value, score.stderr


def table(content: dict[str, Any], prices: pw.results.PriceList) -> str:
    rows, solver = content["schedules"], content["solver"]
    fid, mflop = (np.array([r[key] for r in rows]) for key in ("fid", "mflop"))
    cheap, good = np.argsort(mflop)[: len(rows) // 3], np.flatnonzero(fid <= GOOD * fid.min())
    rng = np.random.default_rng(0)
    lines = [
        f"| price | Spearman with FID | 99 % interval | cheapest third | FID to {GOOD} times the best ({len(good)}) |",
        "| --- " * 5 + "|",
    ]
    for weighting in WEIGHTINGS:
        plans = [
            pw.scheduling.schedule_from_assignment(prices, r["assignment"], penalty=weighting, solver=solver)
            for r in rows
        ]
        price = np.array([plan.penalty for plan in plans])

        def rank(some: np.ndarray, price: np.ndarray = price) -> float:
            return float(spearmanr(price[some], fid[some]).statistic)

        low, high = np.quantile([rank(k) for k in rng.integers(0, len(rows), (500, len(rows)))], (0.005, 0.995))
        ranks = [rank(np.arange(len(rows))), rank(cheap), rank(good)]
        lines.append(f"| {weighting} | {ranks[0]:.3f} | {low:.3f} to {high:.3f} | {ranks[1]:.3f} | {ranks[2]:.3f} |")
    lines += ["", f"{len(rows)} schedules of {content['steps']} {solver} steps, n = {content['n']} samples each.", ""]
    lines += ["| MFLOP | best random: FID | who |" + "".join(f" optimiser, {w}: FID | who |" for w in OPTIMISED)]
    lines += ["| --- " * (3 + 2 * len(OPTIMISED)) + "|"]
    for row in content["best"]:
        cells = [f"{row['mflop']:.0f}", f"{row['fid'][0]:.2f} ± {row['fid'][1]:.2f}", " ".join(row["assignment"])]
        for weighting in OPTIMISED:
            found = row["optimised"][weighting]
            at = f"{found['fid'][0]:.2f} ± {found['fid'][1]:.2f} at {found['plan']['mflop']:.0f}"
            cells += [at, " ".join(found["plan"]["assignment"])]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Judged again on {content['again']} samples with another seed; best of {content['tried']} by FID, per third "
        "of the cost, and what the optimiser finds at no higher cost.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--solver", default="exp_ab2")
    parser.add_argument("--growth-trajectories", type=int, default=0)
    parser.add_argument("--members", help="only these serve, comma-separated; fewer bad ones make a stronger search")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--best", type=int, default=10, help="judged again in every third of the cost range")
    parser.add_argument("--again", type=int, default=10_000, help="on so many samples")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    subject = Subject(arguments)
    if arguments.members:
        subject.members = {name: subject.members[name] for name in arguments.members.split(",")}
    file = arguments.out / subject.name / "random.json"
    grid = pw.time_grid(arguments.steps)
    content = read_json(file) if file.exists() else {"schedules": [], "best": []}
    asked = {"steps": arguments.steps, "n": arguments.n, "solver": arguments.solver, "members": arguments.members}
    if content.setdefault("asked", asked) != asked:
        raise SystemExit(f"{file} answers {content['asked']}, not {asked}; delete it and its prices, or choose --out")
    content |= {**asked, "again": arguments.again, "tried": arguments.best}
    kept = file.with_name("random-prices.json")
    if not kept.exists():
        choices = {"n": 2000, "seed": 3, "paths": arguments.growth_trajectories, "features": subject.features}
        found = pw.price_list(subject.members, subject.data, grid, **choices)
        write_json(kept, found.to_dict())
    prices = pw.results.PriceList.load(kept)
    solver = arguments.solver
    plans = draw(list(subject.members), arguments.steps, arguments.count, arguments.seed)
    for assignment in plans[len(content["schedules"]) :]:
        plan = pw.scheduling.schedule_from_assignment(prices, assignment, solver=solver)
        value, error = judged(subject, plan, arguments.n, arguments.seed)
        content["schedules"].append({"assignment": assignment, "mflop": plan.mflop, "fid": value, "fid_stderr": error})
        write_json(file, content)
    rows = sorted(content["schedules"], key=lambda r: r["mflop"])
    for third in np.array_split(np.arange(len(rows)), 3)[len(content["best"]) :]:
        contest = []
        for row in sorted((rows[i] for i in third), key=lambda r: r["fid"])[: arguments.best]:
            plan = pw.scheduling.schedule_from_assignment(prices, row["assignment"], solver=solver)
            contest.append((judged(subject, plan, arguments.again, arguments.seed + 1), row))
        score, row = min(contest, key=lambda pair: pair[0][0])
        content["best"].append({**row, "fid": score, "optimised": {}})
        write_json(file, content)
    for row in content["best"]:
        for weighting in (w for w in OPTIMISED if w not in row["optimised"]):
            front = pw.pareto_front(prices, penalty=weighting, solver=solver)
            assignment = front.assignments[int(np.flatnonzero(front.mflop <= row["mflop"] * (1 + 1e-9))[-1])]
            plan = pw.scheduling.schedule_from_assignment(prices, assignment, penalty=weighting, solver=solver)
            score = judged(subject, plan, arguments.again, arguments.seed + 1)
            row["optimised"][weighting] = {"fid": score, "plan": plan.to_dict()}
            write_json(file, content)
    text = table(read_json(file), prices)
    print(text)
    if arguments.docs:
        name = f"random {subject.name}, python experiments/random_search.py"
        replace_table(arguments.docs / "schedules.md", name, text)


if __name__ == "__main__":
    main()
