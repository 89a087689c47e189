"""Random schedules with FID as judge: which price ranks them best, and does the optimiser keep up with the search?

    python experiments/random_search.py --run runs/digits --docs docs
    python experiments/random_search.py --pretrained mnist --data-dir DIR --solver sde_multistep \\
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

WEIGHTINGS = ("w2", "flow", "kl")


def draw(names: list[str], steps: int, count: int, seed: int) -> list[tuple[str, ...]]:
    """Distinct random assignments of servers; every second one of at most four spans."""
    rng, found = np.random.default_rng(seed), dict[tuple[str, ...], None]()
    while len(found) < count:
        if len(found) % 2:
            servers = rng.choice(names, steps)
        else:
            cuts = np.sort(rng.integers(0, steps + 1, 3))
            servers = np.array(names)[rng.integers(0, len(names), 4)][np.searchsorted(cuts, np.arange(steps), "right")]
        found[tuple(str(s) for s in servers)] = None
    return list(found)


def judged(subject: Subject, schedule: pw.HybridSchedule, n: int, seed: int) -> tuple[float, float]:
    score = pw.fid(images_of(subject, schedule, n, seed), subject.reference, subject.features, seed=seed)
    return score.value, score.stderr


def table(content: dict[str, Any]) -> str:
    rows = content["schedules"]
    fid = np.array([r["fid"] for r in rows])
    rng, lines = np.random.default_rng(0), ["| price | Spearman with FID | 99 % interval |", "|---|---|---|"]
    for weighting in WEIGHTINGS:
        price = np.array([r["price"][weighting] for r in rows])
        again = [spearmanr(price[k], fid[k]).statistic for k in rng.integers(0, len(rows), (500, len(rows)))]
        low, high = np.quantile(again, (0.005, 0.995))
        lines.append(f"| {weighting} | {spearmanr(price, fid).statistic:.3f} | {low:.3f} to {high:.3f} |")
    about = f"{len(rows)} schedules of {content['steps']} {content.get('solver', 'multistep')} steps"
    lines += ["", f"{about}, n = {content['n']} samples each.", ""]
    lines += ["| MFLOP | FID, best random | FID, optimiser (w2) at that cost | who, when |", "|---|---|---|---|"]
    for row in content["best"]:
        plan = pw.HybridSchedule.from_dict(row["chosen"])
        spans = ", ".join(f"{by} {a:.2f}–{b:.2f}" for a, b, by in plan.spans())
        lines.append(
            f"| {row['mflop']:.0f} | {row['fid'][0]:.2f} ± {row['fid'][1]:.2f} "
            f"| {row['optimised'][0]:.2f} ± {row['optimised'][1]:.2f} at {plan.mflop:.0f} | {spans} |"
        )
    lines += [
        "",
        f"Judged again on {content['again']} samples with another seed; best of {content.get('tried', 10)} by FID, per "
        "third of the cost.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--solver", default="multistep")
    parser.add_argument("--reach-paths", type=int, default=0)
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
    content |= {"steps": arguments.steps, "n": arguments.n, "solver": arguments.solver}
    content |= {"again": arguments.again, "tried": arguments.best}
    kept = file.with_name("random-prices.json")
    if not kept.exists():
        found = pw.price_list(subject.members, subject.data, grid, n=2000, seed=3, paths=arguments.reach_paths)
        write_json(kept, found.to_dict())
    prices = pw.PriceList.load(kept)
    solver = arguments.solver
    plans = draw(list(subject.members), arguments.steps, arguments.count, arguments.seed)
    for servers in plans[len(content["schedules"]) :]:
        each = {w: pw.schedule_from_servers(prices, servers, weighting=w, solver=solver) for w in WEIGHTINGS}
        value, error = judged(subject, each["w2"], arguments.n, arguments.seed)
        row = {"servers": servers, "mflop": each["w2"].mflop, "fid": value, "fid_stderr": error}
        content["schedules"].append({**row, "price": {w: s.price for w, s in each.items()}})
        write_json(file, content)
    rows = sorted(content["schedules"], key=lambda r: r["mflop"])
    front = pw.pareto_front(prices, solver=solver)
    for third in np.array_split(np.arange(len(rows)), 3)[len(content["best"]) :]:
        contest = []
        for row in sorted((rows[i] for i in third), key=lambda r: r["fid"])[: arguments.best]:
            plan = pw.schedule_from_servers(prices, row["servers"], solver=solver)
            contest.append((judged(subject, plan, arguments.again, arguments.seed + 1), row))
        score, row = min(contest, key=lambda pair: pair[0][0])
        index = int(np.flatnonzero(front.mflop <= row["mflop"] * (1 + 1e-9))[-1])
        chosen = pw.schedule_from_servers(prices, front.servers[index], solver=solver)
        again = judged(subject, chosen, arguments.again, arguments.seed + 1)
        content["best"].append({**row, "fid": score, "optimised": again, "chosen": chosen.to_dict()})
        write_json(file, content)
    text = table(read_json(file))
    print(text)
    if arguments.docs:
        name = f"random {subject.name}, python experiments/random_search.py"
        replace_table(arguments.docs / "schedules.md", name, text)


if __name__ == "__main__":
    main()
