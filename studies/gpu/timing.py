"""Jobs that time and train nothing: members and schedules of a shipped set by batch, and attention within windows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import phasewise as pw
from phasewise.denoisers import Denoiser, for_inference
from phasewise.sampling import for_sampling
from studies import attention, gpu_sampling
from studies.gpu.place import Place
from studies.pages import markdown
from studies.study import Answers
from studies.timing import Work, seconds_of

EAGER, COMPILED = ("eager float32", "eager bfloat16"), "compiled bfloat16"
SCHEDULES = ("eager float32", "graph float32", "graph bfloat16")
GRAPH_COMPILED = "graph bfloat16 compiled"
WINDOWS = (1, 2, 4, 8, 16)
TOKENS = 1 << 17
"""Of one timed call of attention, all images together."""
MASKED = 64
"""Side up to which attention under a mask over all pairs is timed."""

MARKS = ("members", "schedules", "windows forward", "windows gradient")
"""Of the tables."""

Seconds = dict[str, dict[str, list[float]]]
"""By member or schedule, and by way."""


def time_set(batch: int) -> Callable[[Place, str, str], dict[str, Any]]:
    """A job that times a call of every member of the shipped set, and every schedule of it, at one batch size.

    Milliseconds an image: median of the rounds, half the interquartile range.  Products of float32 are not in TF32.
    Without a GPU nothing is compiled, and a captured loop is an eager one.
    """

    def job(place: Place, name: str, title: str) -> dict[str, Any]:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        size, rounds, compiling = (2, 1, False) if place.quick else (batch, 9, place.device != "cpu")
        some = slice(2) if place.quick else slice(None)
        if compiling:  # one class of networks has more members than may be compiled of one function
            torch._dynamo.config.recompile_limit = 64
        ready = pw.load_pretrained(name)
        members = {n: d.to(place.device) for n, d in ready.denoisers().items()}
        compiled = {n: for_inference(d, precision="bfloat16", compile=compiling) for n, d in members.items()}
        x = torch.randn(size, *members["global"].image_shape).to(place.device)
        calls: Seconds = {}
        loops: Seconds = {}
        errors: dict[str, float] = {}
        for member, denoiser in list(members.items())[some]:
            low = for_inference(denoiser, precision="bfloat16")
            works: dict[str, Work] = {way: partial(_call, d, x) for way, d in zip(EAGER, (denoiser, low), strict=True)}
            if compiling:
                works[COMPILED] = partial(_call, compiled[member], x)
            calls[member] = seconds_of(works, rounds)
        for schedule, plan in list(ready.schedules.items())[some]:
            hybrid = pw.HybridDenoiser(members, plan)
            draws = {way: gpu_sampling.sampler(way, hybrid, size) for way in SCHEDULES}
            if compiling:  # of members that are compiled already
                draws[GRAPH_COMPILED] = partial(for_sampling(pw.HybridDenoiser(compiled, plan), batch=size), size)
            exact = draws[SCHEDULES[0]]()
            errors[schedule] = max(gpu_sampling.relative(draw(), exact) for draw in draws.values())
            loops[schedule] = seconds_of(draws, rounds)
        ms = {"member": _ms(calls, size), "schedule": _ms(loops, size)}
        return {"batch": size, "rounds": rounds, "ms": ms, "errors": errors}

    return job


def _ms(found: Seconds, images: int) -> dict[str, dict[str, tuple[float, float]]]:
    return {
        who: {way: gpu_sampling.spread(values, 1e3 / images) for way, values in row.items()}
        for who, row in found.items()
    }


def _call(denoiser: Denoiser, x: torch.Tensor) -> None:
    with torch.inference_mode():
        denoiser(x, 0.5)
    if x.is_cuda:
        torch.cuda.synchronize()


def time_windows(side: int) -> Callable[[Place, str, str], dict[str, Any]]:
    """A job that times attention within windows over ``side`` x ``side`` tokens in bfloat16, each kernel as it is and
    compiled, without and with the gradient, beside attention to all tokens: milliseconds of a call."""

    def job(place: Place, name: str, tokens: str) -> dict[str, Any]:
        windows = attention.fitting(side, (1,) if place.quick else WINDOWS)
        images, rounds = (1, 1) if place.quick else (max(1, TOKENS // side**2), 15)
        ways = [way for way in attention.WAYS if way != "dense" or side <= MASKED]
        if place.device == "cpu":
            ways = [way for way in ways if "compiled" not in way]
        rows: dict[str, dict[str, Any]] = {"forward": {}, "gradient": {}}
        for kind, found in rows.items():
            for window in windows:
                dtype = torch.bfloat16
                layer = attention.Layer(side, window, images, place.device, dtype, learning=kind == "gradient")
                works, errors = layer.works(ways)
                times = {way: gpu_sampling.spread(s, 1e3) for way, s in seconds_of(works, rounds).items()}
                found[f"{side**2}/{window}"] = {"times": times, "errors": errors}
        return {"windows": rows, "images": images, "rounds": rounds}

    return job


def tables(answers: Answers) -> dict[str, str]:
    """Of all jobs that timed, by mark."""
    shown: dict[str, str] = {}
    timed = {name: found for name, found in answers.items() if "ms" in found}
    for kind in ("member", "schedule"):
        ways = list(dict.fromkeys(w for found in timed.values() for row in found["ms"][kind].values() for w in row))
        rows = [
            [name.split("/")[0], who, str(found["batch"]), *(_shown(row.get(way)) for way in ways)]
            for name, found in timed.items()
            for who, row in found["ms"][kind].items()
        ]
        if rows:
            note = f"{_places(timed)}; ms an image."
            shown[f"{kind}s"] = markdown(["images", kind, "batch", *ways], rows, note)
    attended = {name: found for name, found in answers.items() if "windows" in found}
    for kind in ("forward", "gradient"):
        windows = {name: row for found in attended.values() for name, row in found["windows"][kind].items()}
        if windows:
            note = f"{_places(attended)}; bfloat16, ms of a call over {TOKENS} tokens."
            shown[f"windows {kind}"] = attention.ms_table(windows, note)
    return shown


def _shown(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.4f} ± {value[1]:.4f}"


def _places(answers: Answers) -> str:
    return ", ".join(dict.fromkeys(str(found["on"]) for found in answers.values()))
