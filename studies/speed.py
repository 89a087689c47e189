"""What makes training and sampling faster on this machine: every option against the plain one, as ratios in one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import Denoiser, NetworkDenoiser
from phasewise.training import get_preset
from phasewise.training.loop import Together
from phasewise.training.settings import TrainSettings
from studies import attention
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study
from studies.timing import Work, ratio, seconds_of

SHAPE = (1, 28, 28)
KINDS = ("plain", "compiled", "bfloat16", "ONNX")
TOKENS = 4096
"""Of one timed call of attention, all images together."""
Rows = dict[str, Any]


@dataclass(frozen=True)
class Options:
    what: tuple[str, ...] = choice(("training", "inference", "sampling", "windows"), "tables to measure")
    rounds: int = choice(11, "every variant once in each", quick=1)
    radii: tuple[int, ...] = choice((1, 2, 3, 5, 8, 12), "of the local networks trained together", quick=(1, 3))
    batch: int = choice(128, "images of a training step", quick=4)
    members: tuple[str, ...] = choice((), "shipped networks to call; none: all", quick=("global", "r1", "wiener"))
    kinds: tuple[str, ...] = choice(KINDS, "ways to call and to train them", quick=("plain", "bfloat16"))
    batches: tuple[int, ...] = choice((1, 64, 1024), "images of a call", quick=(1, 4))
    main: int = choice(64, "the batch at which every kind is timed", quick=4)
    steps: int = choice(8, "of sampling", quick=2)
    sides: tuple[int, ...] = choice((8, 16, 32, 64), "tokens a side of windowed attention", quick=(8, 16))
    windows: tuple[int, ...] = choice((1, 2, 4, 8), "of attention, in tokens", quick=(1,))
    kernels: tuple[str, ...] = choice(attention.WAYS, "of windowed attention", quick=("dense", "tiles"))


ATTENTION = ("sides", "windows", "kernels")
"""Options of the table of windows; the others are those of the other tables."""


class Speed(Study[Options]):
    """All variants are timed in turn, round after round; figures are medians of the ratio to the plain variant of the
    same round, with half the interquartile range.  Untrained weights serve for training: time does not depend on them.
    Errors of bfloat16 and ONNX are those of the shipped MNIST networks at t = 0.4.  "sampling" sets a whole call of
    pw.sample against its network calls alone, "windows" the attention of a small transformer within a window against
    that of all its tokens."""

    name = "speed"
    question = "What makes training and sampling faster on this machine?"
    page = "results/networks.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        given = {**asdict(self.options), "threads": torch.get_num_threads()}
        asked = {k: v for k, v in given.items() if k != "what" and k not in ATTENTION}
        for what in self.options.what:
            if what != "windows":
                yield Cell(what, asked)
                continue
            of_windows = {k: given[k] for k in ("rounds", "windows", "kernels", "threads")}
            yield from (Cell(f"windows/{side**2}", of_windows, side) for side in self.options.sides)

    def measure(self, cell: Cell) -> dict[str, Any]:
        if cell.what:
            return {"rows": windows(self.options, cell.what)}
        work = {"training": training, "inference": inference, "sampling": sampling}[cell.name]
        return {"rows": work(self.options)}

    def tables(self, answers: Answers) -> dict[str, str]:
        makers = {"training": training_table, "inference": inference_table, "sampling": sampling_table}
        shown = {w: makers[w](row["rows"], about(row["asked"])) for w, row in answers.items() if w in makers}
        attended = [row for name, row in answers.items() if name not in makers]
        if attended:
            rows = {name: row for answer in attended for name, row in answer["rows"].items()}
            note = f"CPU time over that of attention to all tokens; {about(attended[0]['asked'])}"
            shown["windows"] = attention.ratio_table(rows, note)
        return shown


def about(asked: Mapping[str, Any]) -> str:
    return f"{asked['threads']} threads, {asked['rounds']} rounds."


# --- training -------------------------------------------------------------------------------------------------------


def step_of(
    networks: Mapping[str, NetworkDenoiser], images: Tensor, batch: int, teacher: Denoiser | None = None, **plan: Any
) -> Work:
    """One training step of these networks, as :func:`phasewise.training.train_together` takes it."""
    preset = replace(get_preset("default"), steps=10**6, batch=batch, **plan)
    run = Together(dict(networks), images, preset, dict.fromkeys(networks), TrainSettings(teacher=teacher))
    for trainer in run.trainers.values():
        trainer.resume()

    def work() -> None:
        drawn = run.batches.draw(0)
        for trainer in run.trainers.values():
            trainer.train_step(drawn)

    return work


def training(options: Options) -> Rows:
    images = torch.rand(2000, *SHAPE, generator=torch.Generator().manual_seed(0))
    rows: Rows = {}
    make: dict[str, Callable[[], NetworkDenoiser]] = {
        "global": lambda: pw.UNetDenoiser(SHAPE),
        "r3": lambda: pw.LocalDenoiser(SHAPE, 3),
    }
    for name, fresh in make.items():
        plans: dict[str, dict[str, Any]] = {"plain": {}, "bfloat16 autocast": {"precision": "bfloat16"}}
        works = {k: step_of({name: fresh()}, images, options.batch, **plan) for k, plan in plans.items()}
        last = fresh().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        works["channels_last weights"] = step_of({name: last}, images, options.batch)
        if "compiled" in options.kinds:
            works["compiled"] = step_of({name: fresh()}, images, options.batch, compile=True)
        seen = seconds_of(works, options.rounds)
        rows[name] = {variant: ratio(seen, variant, "plain") for variant in seen}
    return {**rows, **trained_together(images, options)}


def trained_together(images: Tensor, options: Options) -> Rows:
    """Local networks one by one and in one pass, without and with a teacher."""
    networks = {f"r{r}": pw.LocalDenoiser(SHAPE, r) for r in options.radii}
    titles = {f"{len(networks)} locals": None, f"{len(networks)} locals, taught": pw.UNetDenoiser(SHAPE)}
    rows: Rows = {}
    for title, teacher in titles.items():
        alone = [step_of({n: d}, images, options.batch, teacher) for n, d in networks.items()]
        together = step_of(networks, images, options.batch, teacher)
        works: dict[str, Work] = {"one by one": partial(all_of, alone), "together": together}
        seen = seconds_of(works, options.rounds)
        rows[title] = {variant: ratio(seen, variant, "one by one") for variant in seen}
    return rows


def all_of(works: list[Work]) -> None:
    for work in works:
        work()


def training_table(rows: Rows, note: str) -> str:
    shown = [
        [name, variant, f"{value:.2f} ± {error:.2f}"]
        for name, variants in rows.items()
        for variant, (value, error) in variants.items()
    ]
    return markdown(["what", "variant", "time of a step, of the first"], shown, note)


# --- inference ------------------------------------------------------------------------------------------------------


def shipped(options: Options) -> dict[str, Denoiser]:
    members = pw.load_pretrained("mnist").denoisers()
    return {n: d for n, d in members.items() if not options.members or n in options.members}


def variants(networks: Mapping[str, NetworkDenoiser], kinds: tuple[str, ...]) -> dict[str, dict[str, Denoiser]]:
    """Every kind of call, of every network."""
    found: dict[str, dict[str, Denoiser]] = {"plain": dict(networks)}
    if "bfloat16" in kinds:
        found["bfloat16"] = {n: pw.denoisers.for_inference(d, precision="bfloat16") for n, d in networks.items()}
    if "compiled" in kinds:
        found["compiled"] = {n: pw.denoisers.for_inference(d, compile=True) for n, d in networks.items()}
    if "ONNX" in kinds:
        with tempfile.TemporaryDirectory() as folder:
            files = {n: pw.denoisers.export_onnx(d, Path(folder) / n) for n, d in networks.items()}
            found["ONNX"] = {n: pw.denoisers.OnnxDenoiser(f, torch.get_num_threads()) for n, f in files.items()}
    return found


def inference(options: Options) -> Rows:
    members, main = shipped(options), options.main
    networks = {n: d for n, d in members.items() if isinstance(d, NetworkDenoiser)}
    kinds = variants(networks, options.kinds)
    generator = torch.Generator().manual_seed(0)
    clean = pw.sample(members["global"], main, steps=6)
    x = members["global"].path.add_noise(clean, torch.randn(clean.shape, generator=generator), 0.4)
    flops = {n: pw.count_flops(d, SHAPE, batch=main) for n, d in members.items()}
    rows: Rows = {"flops": {n: f / flops["global"] for n, f in flops.items()}, "ms": {}, "error": {}, "main": main}
    with torch.inference_mode():
        for kind, some in kinds.items():
            wrong = {n: (d(x, 0.4) - networks[n](x, 0.4)).square().mean().sqrt() for n, d in some.items()}
            rows["error"][kind] = {n: float(e) for n, e in wrong.items()}
        for batch in options.batches:
            images = torch.randn(batch, *SHAPE, generator=generator)
            chosen = {(k, n): d for k, some in kinds.items() for n, d in some.items() if batch == main or k == "plain"}
            works: dict[str, Work] = {f"{k}/{n}": partial(d, images, 0.5) for (k, n), d in chosen.items()}
            closed = {n: d for n, d in members.items() if n not in networks}
            works |= {f"plain/{n}": partial(d, images, 0.5) for n, d in closed.items()}
            seen = seconds_of(works, rounds_of(options, batch))
            rows["ms"][str(batch)] = {name: ratio(seen, name, "plain/global") for name in works}
    return rows


def rounds_of(options: Options, batch: int) -> int:
    """Fewer where a round is long."""
    return options.rounds if batch <= options.main else max(options.rounds // 3, 3)


def inference_table(rows: Rows, note: str) -> str:
    main = str(rows.get("main", 64))
    others = [batch for batch in rows["ms"] if batch != main]
    heads = [f"{k}, {main}" for k in KINDS] + [f"plain, {batch}" for batch in others]
    shown = []
    for name, share in rows["flops"].items():
        cells = [rows["ms"][main].get(f"{k}/{name}") for k in KINDS]
        cells += [rows["ms"][batch].get(f"plain/{name}") for batch in others]
        wrong = [rows["error"].get(k, {}).get(name) for k in ("bfloat16", "ONNX")]
        errors = ", ".join(f"{e:.1e}" for e in wrong if e is not None)
        shown.append([name, f"{share:.3f}", *("" if c is None else f"{c[0]:.3f} ± {c[1]:.3f}" for c in cells), errors])
    return markdown(["network", "FLOPs", *heads, "rms error: bfloat16, ONNX"], shown, note)


# --- sampling -------------------------------------------------------------------------------------------------------


def sampling(options: Options) -> Rows:
    """Time of drawing images over that of the denoiser calls in it; and over the global network's."""
    ready, times = pw.load_pretrained("mnist"), pw.time_grid(options.steps)
    rows: Rows = {}
    for batch in options.batches:
        x = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
        works: dict[str, Work] = {}
        for solver in ("exp_ab2", "sde_dpmpp_2m"):
            for name in ("global", "hybrid", "local_only"):
                who = resized(ready.schedules[name].assignment, options.steps)
                plan = replace(ready.schedules[name], times=times, assignment=who, solver=solver)
                hybrid = pw.HybridDenoiser(ready.denoisers(), plan)
                works[f"{name}/{solver}"] = partial(pw.sample, hybrid, batch, batch=batch)
                works[f"{name}/calls"] = partial(calls, hybrid, x, times)
        with torch.inference_mode():
            seen = seconds_of(works, rounds_of(options, batch))
        for name in works:
            kind = name.split("/")[0]
            of_global = ratio(seen, name, name.replace(kind, "global"))
            rows[f"{batch}/{name}"] = [ratio(seen, name, f"{kind}/calls"), of_global]
    return rows


def calls(hybrid: pw.HybridDenoiser, x: Tensor, times: tuple[float, ...]) -> None:
    """Nothing but the calls of a schedule."""
    for t in times:
        hybrid.member_at(t)(x, t)


def resized(assignment: tuple[str, ...], steps: int) -> tuple[str, ...]:
    """The same members in the same shares on so many steps; unchanged where it has as many."""
    return tuple(assignment[k * len(assignment) // steps] for k in range(steps))


def sampling_table(rows: Rows, note: str) -> str:
    shown = []
    for key, (calls, whole) in rows.items():
        batch, name, solver = key.split("/")
        if solver != "calls":
            ratios = [f"{value:.2f} ± {error:.2f}" for value, error in (calls, whole)]
            shown.append([batch, name, solver, *ratios])
    return markdown(["batch", "schedule", "solver", "of its network calls", "of the global network's"], shown, note)


# --- windows of attention -------------------------------------------------------------------------------------------


def windows(options: Options, side: int) -> Rows:
    rows: Rows = {}
    for window in attention.fitting(side, options.windows):
        works, errors = attention.Layer(side, window, max(1, TOKENS // side**2)).works(options.kernels)
        seen = seconds_of(works, options.rounds, time.process_time)  # calls of a millisecond, on a shared machine
        times = {name: ratio(seen, name, attention.WHOLE) for name in seen}
        rows[f"{side**2}/{window}"] = {"times": times, "errors": errors}
    return rows
