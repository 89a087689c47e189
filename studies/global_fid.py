"""What limits the FID of a global network alone: its training, the solver, or the number of samples?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasewise as pw
from phasewise.errors import PhasewiseError
from phasewise.metrics import FrechetReference, frechet_score
from phasewise.sampling import calls_per_step
from studies import subject
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

PLANS = ("heun/8", "heun/20", "exp_ab2/15", "sde_dpmpp_2m/8", "sde_dpmpp_2m/15", "ancestral/40")
HEADS = ("network", "solver", "evaluations", "FID, all", "over real", "FID, parts", "over real")


@dataclass(frozen=True)
class Options:
    pretrained: str = choice("mnist", "shipped set whose features judge, and whose global network is sampled")
    data: str | None = choice(None, "images instead of the set's own", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds the images")
    networks: tuple[str, ...] = choice((), "other global networks instead of the shipped one, each NAME=FOLDER")
    plans: tuple[str, ...] = choice(PLANS, "each SOLVER/STEPS", quick=("heun/2",))
    n: int = choice(10_000, "samples of each, and test images", quick=32)
    part: int = choice(2000, "samples of a part", quick=16)
    seed: int = choice(0, "of the noise")


class GlobalFID(Study[Options]):
    """Every solver starts from the same noise.  FID against the training images, in the set's own classifier features,
    of all samples and, as its bias falls with their number, also the mean over disjoint parts, dealt out in turn: the
    test images of MNIST lie in the order of their writers, and its first 2,000 score .40 where every fifth scores .21.
    Real test images are judged the same way."""

    name = "global_fid"
    question = "What limits the FID of a global network alone: its training, the solver, or the number of samples?"
    page = "results/networks.md"
    options_type = Options

    @cached_property
    def subject(self) -> subject.Subject:
        return subject.of_shipped(self.options.pretrained, self.options.data, self.options.data_dir)

    def cells(self) -> Iterator[Cell]:
        o, most = self.options, len(self.subject.data.test)
        if not 2 * o.part <= o.n <= most:
            raise PhasewiseError(f"--n must lie between {2 * o.part} (two parts) and the {most} test images")
        yield Cell(f"{o.pretrained}/real", {"n": o.n, "part": o.part})
        named = dict(text.split("=", 1) for text in o.networks) or {"global": ""}
        for name, folder in named.items():
            for plan in o.plans:
                solver, steps = plan.split("/")
                asked = {"network": name, "folder": folder, "solver": solver, "steps": int(steps)}
                more = {"n": o.n, "part": o.part, "seed": o.seed}
                yield Cell(f"{o.pretrained}/{name}--{solver}-{steps}", {**asked, **more}, folder)

    def measure(self, cell: Cell) -> dict[str, Any]:
        ours, asked = self.subject, cell.asked
        if "solver" not in asked:
            return {"result": self.judged(ours.features.extract(ours.data.test[: asked["n"]]))}
        network = pw.load_denoiser(asked["folder"]) if asked["folder"] else ours.members[asked["network"]]
        solver, steps = asked["solver"], asked["steps"]
        with torch.no_grad():
            x = pw.sample(network, asked["n"], steps=steps, solver=solver, seed=asked["seed"], batch=64)
            seen = ours.features.extract(x.clamp(*ours.data.pixel_range))
        return {"result": self.judged(seen), "evaluations": sum(calls_per_step(solver, steps))}

    def judged(self, seen: Tensor) -> dict[str, Any]:
        return judged(seen, self.subject.reference, self.options.part, self.options.seed)

    def tables(self, answers: Answers) -> dict[str, str]:
        mine = f"{self.options.pretrained}/"
        return {"": table({k.removeprefix(mine): v for k, v in answers.items() if k.startswith(mine)})}


def judged(seen: Tensor, reference: FrechetReference, part: int, seed: int) -> dict[str, Any]:
    """FID of all, and of parts of so many: mean, and the standard error of that mean."""
    whole = frechet_score(seen, reference, seed=seed)
    k = len(seen) // part
    parts = [frechet_score(seen[i::k], reference, seed=seed).value for i in range(k)]
    error = float(np.std(parts, ddof=1) / k**0.5)
    return {"all": [whole.value, whole.stderr], "bias": whole.bias, "parts": [float(np.mean(parts)), error]}


def table(found: Answers) -> str:
    """Real test images first."""
    real, rows = found["real"], []
    for name, row in sorted(found.items(), key=lambda pair: (pair[0] != "real", pair[0])):
        asked = row["asked"]
        cells = [asked.get("network", "test images"), asked.get("solver", ""), str(row.get("evaluations", ""))]
        for kind in ("all", "parts"):
            value, error = row["result"][kind]
            over = "" if name == "real" else f"{value / real['result'][kind][0]:.1f}"
            cells += [f"{value:.3f} ± {error:.3f}", over]
        rows.append(cells)
    n, part = real["asked"]["n"], real["asked"]["part"]
    return markdown(HEADS, rows, f"{n} test images, as many samples of each; parts of {part}.")
