"""Sections on what came out: the headline figure, samples, quality and cost in numbers, the schedules that were run."""

from __future__ import annotations

from typing import Any

from phasewise.report import figures, pictures, schedule_figures
from phasewise.report.blocks import Drawing, Gallery, Section, Shot, Table, drawing
from phasewise.report.compared import told
from phasewise.report.style import BARS, Palette, is_number, num, ordered, percent, pm, schedule_label
from phasewise.results import Evaluation
from phasewise.runs.layout import missing
from phasewise.runs.run import Run
from phasewise.runs.trials import scores

EXTRAS = {
    "confidence": ("classifier's mean confidence (0 to 1)", "the probability it gives its first choice, averaged"),
    "confidence_stderr": ("± s.e.", ""),
    "entropy": (
        "uncertainty per sample (nats)",
        "entropy of the classifier's answer for one sample, averaged; low where samples look like one class",
    ),
    "class_entropy": (
        "spread over classes (nats)",
        "entropy of the mean answer, at most the logarithm of the number of classes; low where classes are missing",
    ),
    "histogram_entropy": (
        "spread of first choices (nats)",
        "entropy of the shares of samples put in each class, with the same bound",
    ),
    "class_seen": ("class asked for, seen", "share of samples that the classifier puts into the class asked for"),
    "class_seen_unseen": ("by the unseen judge", "the same by the classifier of the unseen judge"),
    "classes": ("classes", ""),
    "n": ("samples", ""),
}
"""Heading and explanation of what evaluations may carry besides."""


FIRST = "first"
"""Name of the judge that FID is of, among an evaluation's judges."""
REAL = "Real test images (floor)"
TOLD = {
    "level": "not distinguishable", "lower": "hybrid better", "higher": "hybrid worse", "split": "judges disagree"
}  # fmt: skip


def headline_blocks(run: Run) -> tuple[Drawing, ...]:
    """The figure that carries the verdict: distance to real images against cost."""
    if not any(is_number(e.fid) for e in run.evaluations.values()):
        return ()
    sizes = sorted({e.n for e in run.evaluations.values()})
    span = num(sizes[0]) + (f" to {num(sizes[-1])}" if len(sizes) > 1 else "")
    measure, features = judged_by(run)
    caption = (
        f"{measure} against the cost of one image. The hybrid is worth having where its star lies below and to the "
        "left of the line through the samplers that use the global denoiser alone: that line is what taking fewer "
        f"steps buys. Dashed: {measure} of real test images, which no sampler is expected to beat. "
        f"{BARS} n = {span} samples each, seen in {features}."
    )
    alt = f"Scatter plot of {measure} against cost for each schedule: " + "; ".join(
        f"{schedule_label(run, n)} {num(run.evaluations[n].fid)} at {num(run.evaluations[n].mflop)} MFLOP"
        for n in ordered(run.evaluations)
    )
    return (drawing("fid_cost", figures.fid_cost(run), alt, caption),)


def judged_by(run: Run) -> tuple[str, str]:
    """What the distance is called, and the features it is taken in."""
    first = next(iter(run.evaluations.values()))
    return first.measure, first.features or "features not on record"


def samples(run: Run) -> Section:
    """Pictures: one row per schedule from the same noise, then a grid of each."""
    title, shown = "Samples", ordered(run.samples)
    if not shown:
        return Section("samples", title, notes=(missing("samples"),))
    details = {n: f"{e.measure} {pm(e.fid, e.fid_stderr)}, {num(e.mflop)} MFLOP" for n, e in run.evaluations.items()}
    apart = [n for n in shown if n != "real" and not same_noise(run, n)]
    rows, cards, files = [], [], {}
    for name in shown:
        label, detail = schedule_label(run, name), details.get(name, "")
        alt = f"Samples: {label}"
        if name != "real":
            own = "" if name not in apart else "; the same start, then noise of its own"
            rows.append(Shot(label, pictures.strip(run.samples[name]), alt, f"{detail}{own}".removeprefix("; ")))
        grid = pictures.grid(run.samples[name])
        cards.append(Shot(label, grid, alt, detail))
        files[f"samples_{name}.png"] = grid.png
    paired = (
        "The same starting noise in every row: read down a column to see one image made by each schedule. Broken or "
        "disconnected shapes show where the far pixels were needed."
    )
    if apart:
        names = ", ".join(schedule_label(run, n) for n in apart)
        paired += (
            f" Not so for {names}: a stochastic solver draws noise at every step, and on another time grid that is "
            "other noise, so only the start of these rows is shared. Compare them as sets, not down a column."
        )
    wide = "The first samples of each schedule, unselected, at the same positions"
    wide += "; real images for comparison." if "real" in run.samples else "."
    reduced = max(max(a.shape[-2:]) for a in run.samples.values()) > pictures.MAX_SIDE
    wide += f" Reduced to at most {pictures.MAX_SIDE} pixels a side." if reduced else " Every pixel shown as it is."
    blocks = (Gallery("rows", tuple(rows), paired), Gallery("cards", tuple(cards), wide))
    return Section("samples", title, blocks=blocks if rows else blocks[1:], extra_files=files)


def same_noise(run: Run, name: str) -> bool:
    """Whether a schedule's samples share all their noise with the all-global ones: as recorded, else by grid and
    solver."""
    found, full = run.evaluations.get(name), run.evaluations.get("global")
    if found is not None and found.same_noise is not None:
        return found.same_noise
    own = run.all_schedules().get(name)
    first = full.schedule if full else run.all_schedules().get("global")
    return own is None or first is None or (own.times, own.solver) == (first.times, first.solver)


def evaluation(run: Run) -> Section:
    """The table of all schedules, real images last."""
    title = "Quality and cost in numbers"
    if not run.evaluations:
        return Section("evaluation", title, notes=(missing("evaluations"),))
    full, names = run.evaluations.get("global"), ordered(run.evaluations)
    measure, penalty = judged_by(run)[0], minimised(run)
    head = (
        "schedule", "NFE", "MFLOP per image", "of global", "ms per image", "of global",
        f"{measure} ± s.e.", "bias", "n", f"penalty ± s.e. ({penalty[1]})", "paired RMSE ± s.e.",
    )  # fmt: skip
    rows = [_evaluation_row(run.evaluations[n], full, schedule_label(run, n), penalty[0]) for n in names]
    if run.real:
        fid = pm(run.real.get("fid"), run.real.get("fid_stderr"))
        bias, n = num(run.real.get("fid_bias"), 2), num(run.real.get("n"))
        rows.append((REAL, *["–"] * 5, fid, bias, n, "–", "–"))
    strong = names.index("hybrid") if "hybrid" in names else None
    first = run.evaluations[names[0]]
    caption = (
        f"± is one standard error ({measure}: bootstrap over samples). {measure} on {first.features} against "
        f"{num(first.reference_n)} training images; bias: {measure}(n/2) − {measure}(n), an estimate of what finite n "
        f"adds, not subtracted. Penalty: {penalty[2]}, which the optimiser minimised, as the price list predicts it "
        "over the global denoiser on the same grid; it is predicted for that grid alone. "
        "Paired RMSE: per pixel, against the global sample from the same starting noise. NFE: network evaluations per "
        f"image{asked_twice(run)}. One "
        f"multiply-add counts as two FLOPs. {timing(run)}{_classifier(run)}"
    )
    table = Table(head, tuple(rows), caption, strong=strong)
    more = (*_judges(run, names), *_verdicts(run, names), *_trials(run), *_extras(run, names))
    return Section("evaluation", title, blocks=(table, *more))


def asked_twice(run: Run) -> str:
    """What a step of guided networks comes to; empty in a run without guidance."""
    if not run.guidance:
        return ""
    calls = "once" if run.guidance == 1 else "twice: FLOPs and milliseconds count both calls"
    return f"; networks are told the class, guided {run.guidance:g}-fold, and each evaluation asks one {calls}"


def _judges(run: Run, names: list[str]) -> list[Table]:
    """What every judge says of every schedule; nothing where only FID is on record."""
    seen = {n: run.evaluations[n].judges for n in names}
    keys = list(dict.fromkeys(key for judges in seen.values() for key in judges))
    if len(keys) < 2:
        return []
    known = {key: score for judges in seen.values() for key, score in judges.items()}
    head = ("schedule", *(f"{known[key].measure} ± s.e." for key in keys), "n")
    rows = [
        (
            schedule_label(run, n),
            *(pm(j[k].value, j[k].stderr) if k in j else "–" for k in keys),
            num(run.evaluations[n].n),
        )
        for n, j in seen.items()
    ]
    if run.real:
        floors: dict[str, list[Any]] = {FIRST: [run.real.get("fid"), run.real.get("fid_stderr")], **run.floors}
        rows.append((REAL, *(pm(*floors[k]) if k in floors else "–" for k in keys), num(run.real.get("n"))))
    which = "; ".join(f"{s.measure}: {s.features}" for s in known.values() if s.features)
    caption = (
        f"The same samples by every judge, lower is better. {which}. The penalty that chose the hybrid may have looked "
        "through the first judge's features; no penalty has seen the others. The sliced Wasserstein distance compares "
        "pixels along random directions, in pixel units: no network."
    )
    return [Table(head, tuple(rows), caption, strong=names.index("hybrid") if "hybrid" in names else None)]


def _verdicts(run: Run, names: list[str]) -> list[Table]:
    """The hybrid against every other schedule, judge by judge, with the difference that could have been told."""
    hybrid = run.evaluations.get("hybrid")
    if hybrid is None:
        return []
    rows = []
    for name in names:
        found = None if name == "hybrid" else told(hybrid, run.evaluations[name])
        for k, (measure, one) in enumerate(found.comparisons.items() if found else ()):
            first = (schedule_label(run, name), TOLD[found.outcome]) if k == 0 and found else ("", "")
            rows.append((*first, measure, pm(one.difference, one.stderr), TOLD[one.outcome], num(one.detectable, 2)))
    if not rows:
        return []
    head = ("the hybrid against", "all judges", "judge", "hybrid minus it ± s.e.", "this judge", "detectable")
    caption = (
        "Two schedules count as equal only where no judge tells them apart (two standard errors, paired where the "
        "samples share their starting noise). Detectable: the least true difference that so many samples tell in 8 of "
        "10 cases. Of equal samplers each judge calls one in twenty apart by chance."
    )
    return [Table(head, tuple(rows), caption)]


def _trials(run: Run) -> list[Table]:
    """What was judged beside the run: other schedules, and its own with other seeds; nothing where none was."""
    if not run.trials:
        return []
    tried = {e.name for e in run.trials}
    found = scores([*run.evaluations.values(), *run.trials])
    shown = [s for n, s in found.items() if n in tried or n == "global"]
    whole, labels = found["global"].mflop if "global" in found else None, {e.name: e.label for e in run.trials}
    rows = [
        (
            schedule_label(run, s.name) if s.name in run.evaluations else labels.get(s.name) or s.name,
            ", ".join(map(str, s.seeds)), num(s.n), num(s.mflop), percent(s.mflop, whole) if whole else "–", pm(*s.fid),
            "–" if s.minus_global is None else pm(*s.minus_global),
        )
        for s in sorted(shown, key=lambda s: s.mflop)
    ]  # fmt: skip
    head = (
        "schedule", "seeds", "n", "MFLOP", "of global", f"{judged_by(run)[0]} ± s.e.", "minus the global one's ± s.e."
    )  # fmt: skip
    caption = (
        "Judged beside the run by `phasewise evaluate --schedule`, `--seeds`, `--budgets` and `--penalties`: the mean "
        "over seeds, and its error from their spread or from what each has of its own, whichever is larger."
    )
    return [Table(head, tuple(rows), caption)]


def minimised(run: Run) -> tuple[str | None, str, str]:
    """(name, unit, label) of the penalty that the optimiser minimised; where that is not on record, path KL."""
    chosen = run.all_schedules().get("hybrid")
    if chosen is None or chosen.penalty is None or chosen.penalty_name is None:
        return None, "nats", "path KL"
    front = run.fronts.get(chosen.penalty_name)
    label = front.penalty_label if front and front.penalty_label else chosen.penalty_name
    return chosen.penalty_name, chosen.penalty_unit, label


def _evaluation_row(e: Evaluation, full: Evaluation | None, label: str, penalty: str | None) -> tuple[str, ...]:
    shares = [percent(getattr(e, f), getattr(full, f)) if full else "–" for f in ("mflop", "ms")]
    cost = (num(e.nfe), num(e.mflop), shares[0], num(e.ms), shares[1])
    quality = (pm(e.fid, e.fid_stderr), num(e.fid_bias, 2), num(e.n))
    predicted = pm(e.nats, e.nats_stderr) if penalty is None else _predicted(e, penalty)
    return (label, *cost, *quality, predicted, pm(e.paired_rmse, e.paired_stderr))


def _predicted(e: Evaluation, penalty: str) -> str:
    """The penalty of this name that the schedule was priced by; a dash where it was priced by another or by none."""
    s = e.schedule
    return pm(s.penalty, s.penalty_stderr) if s is not None and s.penalty_name == penalty else "–"


def timing(run: Run) -> str:
    """One sentence on where the milliseconds come from, with a space after it; empty without a price list."""
    return f"Times on {run.prices.device}, {run.prices.batch} images a call. " if run.prices else ""


def _classifier(run: Run) -> str:
    accuracy = run.classifier.get("test_accuracy")
    if not is_number(accuracy):
        return ""
    name, share = run.classifier.get("name", "the classifier"), num(100.0 * float(accuracy or 0.0))
    return f"The features come from {name}, which classifies {share} % of the test images correctly."


def _extras(run: Run, names: list[str]) -> list[Table]:
    """A second table for whatever plain numbers the evaluations carry besides."""
    extras = {n: run.evaluations[n].extra for n in names}
    keys = list(dict.fromkeys(k for extra in extras.values() for k, v in extra.items() if is_number(v)))
    if not keys:
        return []
    rows = [(schedule_label(run, n), *(num(extra.get(k)) for k in keys)) for n, extra in extras.items()]
    head = ("schedule", *(EXTRAS.get(k, (k.replace("_", " "),))[0] for k in keys))
    said = "; ".join(f"{EXTRAS[k][0]}: {EXTRAS[k][1]}" for k in keys if k in EXTRAS and EXTRAS[k][1])
    seen = f" How the feature classifier sees them. {said[0].upper()}{said[1:]}." if said else ""
    return [Table(head, tuple(rows), f"Further measures of the same samples.{seen}")]


def schedules(run: Run, palette: Palette) -> Section:
    """Which member runs when, in every schedule."""
    title, every = "Schedules", run.all_schedules()
    if not every:
        return Section("schedules", title, notes=(missing("schedules"),))
    caption = (
        "Which denoiser takes which span of time, one row per schedule; white ticks mark the steps. The last step, "
        "down to t = 0, is a plain denoise. MFLOP are per image over the whole sampling."
    )
    described = []
    for name in ordered(every):
        spans = [f"{palette[member].label} from {a:.2g} to {b:.2g}" for a, b, member in every[name].spans()]
        described.append(f"{schedule_label(run, name)}: {', '.join(spans)}")
    alt = "Colour bands over time. " + "; ".join(described)
    figure = drawing("schedules", schedule_figures.schedules(run, palette), alt, caption)
    told = run.explanations.get("hybrid", ())
    intro = "Below the figure: why the optimised schedule looks as it does, span by span." if told else ""
    placed = [line for name, lines in run.explanations.items() if name != "hybrid" for line in lines]
    intro += " Then how the steps of its rivals were placed." if placed else ""
    return Section("schedules", title, intro, blocks=(figure,), items=(*told, *placed))
