"""How critical time, gap and prices move with the global network that they are measured against.

    python experiments/sensitivity.py --data-dir DIR --docs docs
    python experiments/sensitivity.py --data-dir DIR --also "global, 14 epochs=runs/mnist/models/global" --docs docs
    python experiments/sensitivity.py --data-dir DIR --designs runs/designs --docs docs

The shipped r = 3 network against every shipped global network (they differ in pixel folding, width and training), and
against others in folders; or, with --designs, against the global architectures of `designs.py global`, which differ in
channels, depth, attention and pixel folding at equal training time.  The same test images and noise for all.  t_c is
where the gap is largest (parabola through the three points round it), the window where it exceeds a tenth of its peak
in velocity units, the prices those of r = 3 at every time.  Leaves OUT/{sensitivity,architectures}.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from designs import GROUPS
from tables import already_answered, replace_table

import phasewise as pw
from phasewise.diagnosis import gap_window
from phasewise.files import read_json, write_json

SHAPE = (1, 28, 28)
TIMES = (0.02, *(round(0.05 * k, 2) for k in range(1, 20)))
LOCAL = "r3"


def measure(also: list[str], designs: Path | None, data_dir: str | None, n: int) -> dict[str, Any]:
    ready = pw.load_pretrained("mnist")
    members = {name: ready.denoiser(name) for name in ((LOCAL,) if designs else (LOCAL, "global", "small", "coarse"))}
    if designs:
        members |= {k: pw.load_denoiser(designs / "global" / k.replace(" ", "_")) for k in GROUPS["global"]}
    members |= {name: pw.load_denoiser(folder) for name, folder in (pair.split("=") for pair in also)}
    images = pw.load_images("mnist", data_dir=data_dir).test[:n]
    table = pw.diagnosis.measure_losses(members, images, TIMES, reference=LOCAL, seed=5)
    cost = {name: pw.count_flops(member, SHAPE) / 1e6 for name, member in members.items()}
    return {"table": table.to_dict(), "mflop": cost}


def peak(times: np.ndarray, values: np.ndarray) -> float:
    """Where the parabola through the largest value and its neighbours is highest."""
    k = int(np.clip(np.argmax(values), 1, len(values) - 2))
    a, b, _ = np.polyfit(times[k - 1 : k + 2], values[k - 1 : k + 2], 2)
    return float(-b / (2 * a))


def markdown(content: dict[str, Any]) -> str:
    """A row for every global network; gap and prices are those of the local one against it."""
    table = pw.results.LossTable.from_dict(content["table"])
    path = pw.LinearPath()
    gain = path.velocity_gain(torch.as_tensor(table.times)).numpy()
    step = np.gradient(table.times)
    lines = [
        "| global network | MFLOP | loss, t = 0.3 | t = 0.5 | t = 0.7 | t_c | gap | window | w2 price | flow price |",
        "| --- " * 10 + "|",
    ]
    for name in [n for n in table.names if n != LOCAL]:
        i = table.column(name)
        gap, error = -table.gap[:, i], table.gap_stderr[:, i]
        against = replace(table, reference=name, gap=np.repeat(gap[:, None], len(table.names), 1))
        k, ahead = (
            int(np.argmax(gap)),
            bool(gap.max() > 0),
        )  # of one hardly trained the local one may be ahead everywhere
        low, high = gap_window(against, path, LOCAL) if ahead else (0.0, 0.0)
        w2 = float((np.sqrt(table.distance[:, i]) * gain * step).sum())
        flow = float((gap * gain**2 * step).sum())
        loss = {t: table.loss[int(np.argmin(np.abs(table.times - t))), i] for t in (0.3, 0.5, 0.7)}
        cells = [
            f"{content['mflop'][name]:.0f}",
            *(f"{v:.2f}" for v in loss.values()),
            f"{peak(table.times, gap):.3f}" if ahead else "none",
            f"{gap[k]:.2f} ± {error[k]:.2f}",
            f"{low:.2f} to {high:.2f}" if ahead else "none",
            f"{w2:.2f}",
            f"{flow:.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Gap and prices of one r = 3 network against each; n = {table.n} test images."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FOLDER", help="another global network")
    parser.add_argument(
        "--designs", type=Path, help="OUT of designs.py: its global architectures instead of the shipped"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/designs"))
    parser.add_argument("--docs", type=Path, help="put the table into networks.md there")
    arguments = parser.parse_args()
    name = "architectures" if arguments.designs else "sensitivity"
    file, asked = arguments.out / f"{name}.json", {"n": arguments.n, "also": arguments.also}
    if arguments.designs:  # trained longer they are others
        trained = {k: arguments.designs / "global" / k.replace(" ", "_") / "training.json" for k in GROUPS["global"]}
        asked["steps"] = {k: read_json(f)["steps"] for k, f in trained.items()}
    if not already_answered(file, asked):
        found = measure(arguments.also, arguments.designs, arguments.data_dir, arguments.n)
        write_json(file, {"asked": asked, **found})
    text = markdown(read_json(file))
    print(text)
    if arguments.docs:
        mark = f"sensitivity.py{' --designs' if arguments.designs else ''}"
        replace_table(arguments.docs / "networks.md", mark, text)


if __name__ == "__main__":
    main()
