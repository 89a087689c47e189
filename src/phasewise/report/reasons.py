"""Does locality pay on these images, and if not, why not: decided from what was measured, number beside each word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phasewise.display import num, percent, pm
from phasewise.power import RESOLVED
from phasewise.report.compared import MARGIN, compared, costs_less, is_alone, listed, outcome
from phasewise.report.style import is_number, look_of
from phasewise.results import Estimate, Evaluation, TrainingRecord
from phasewise.runs.run import Run

MOSTLY = 0.5
"""Share from which on something counts as most of a whole."""
NEAR = 0.8
"""A local call of this share of the global one's FLOPs saves next to nothing."""
STILL_FALLING = 0.05
"""Share of all a network's loss fell on record that the last quarter of its training may have, if it is done."""
OVERFIT = 0.8
"""A training loss below this share of the held-out one is learnt by heart."""
RISEN = 1.02
"""A held-out loss above its least on record by this factor is rising."""
FEW_IMAGES = 640
"""Real images below which their moments in the usual 64 features are themselves uncertain: ten for each feature."""


@dataclass(frozen=True)
class Share:
    """How much of a local network's gap the control has, the same design with its window opened to the whole image."""

    local: str
    of: Estimate
    control: Estimate

    @property
    def value(self) -> float:
        return self.control.value / self.of.value


def of_model(run: Run) -> bool:
    """Whether the run took somebody's network as it is, and trained none."""
    return any(m.kind == "model" for m in run.members)


def locals_of(run: Run) -> list[str]:
    """Names of the local networks, by radius."""
    found = [m for m in run.members if look_of(m) == "local" and m.radius is not None]
    return [m.name for m in sorted(found, key=lambda m: (m.radius or 0, m.name))]


def control_share(run: Run) -> Share | None:
    """The control's part of the path KL of the local network whose design it has: the widest.

    None where there is no control, or no gap that differs from zero.
    """
    gaps = run.gap.get("path_kl", {})
    control = next((m.name for m in run.members if look_of(m) == "control" and m.name in gaps), None)
    widest = [n for n in locals_of(run) if n in gaps][-1:]
    if control is None or not widest:
        return None
    of = gaps[widest[0]]
    return Share(widest[0], of, gaps[control]) if of.value > RESOLVED * of.stderr else None


def gap_in_words(run: Run, label: dict[str, str]) -> str:
    """How much of the gap the control has, said before anything is read off the gap."""
    share = control_share(run)
    if share is None and of_model(run) and not locals_of(run):
        return _closed_in_words(run, label)
    if share is None:
        control = any(look_of(m) == "control" for m in run.members)
        why = "the gap is not resolved" if control and run.gap else "no control tells them apart"
        return f"How much of the gap is the window's doing is not known here: {why}."
    numbers = (
        f"the control, the same design with its window opened to the whole image, has "
        f"{pm(share.control.value, share.control.stderr)} of the {pm(share.of.value, share.of.stderr)} nats of path KL "
        f"of {label.get(share.local, share.local)} ({percent(share.control.value, share.of.value)})"
    )
    if share.value < MOSTLY:
        return f"Most of it comes with the window: {numbers}. The rest is what not looking further costs."
    text = (
        f"Most of this gap is not locality: {numbers}. Read it as what this design lacks, not as what a window hides."
    )
    return f"{text}{_rises(run, label)}"


def _closed_in_words(run: Run, label: dict[str, str]) -> str:
    """What the gap of closed forms says, where there is no local network."""
    gaps = run.gap.get("path_kl", {})
    closed = [m for m in run.members if look_of(m) == "closed" and m.name in gaps]
    whole = next((m for m in closed if m.radius is None), None)
    text = (
        "No local network was trained here. Held against the network are Wiener filters: the best guess from the mean "
        "and the covariance of the images alone"
    )
    text += ", of the whole image and of a window round each pixel." if len(closed) > 1 else "."
    if whole is None:
        return text
    found = gaps[whole.name]
    return (
        f"{text} Used at every time the whole filter loses {pm(found.value, found.stderr)} nats of path KL; where its "
        "gap is near zero the network knows no more than that covariance, and the filter can take the step."
    )


def _rises(run: Run, label: dict[str, str]) -> str:
    """Said where the gap grows with the radius, which what a window hides cannot do."""
    gaps = run.gap.get("path_kl", {})
    known = [n for n in locals_of(run) if n in gaps]
    if len(known) < 2:
        return ""
    first, last = gaps[known[0]], gaps[known[-1]]
    if last.value - first.value <= RESOLVED * float(np.hypot(first.stderr, last.stderr)):
        return ""
    return (
        f" It even rises with the radius, from {pm(first.value, first.stderr)} ({label.get(known[0], known[0])}) to "
        f"{pm(last.value, last.stderr)} ({label.get(known[-1], known[-1])}): a wider window hides less, so that is "
        "capacity or training."
    )


# --- the answer -----------------------------------------------------------------------------------------------------


def answer(run: Run, hybrid: Evaluation, full: Evaluation, rival: Evaluation | None) -> tuple[str, bool]:
    """Whether locality pays here, in a few words, and whether it does."""
    second = outcome(hybrid, rival)
    what = "locality" if locals_of(run) or not of_model(run) else "the hybrid"
    if hybrid.mflop >= full.mflop or second == "higher":
        return f"{what.capitalize()} does not pay here", False
    if rival is None or second is None or (second == "lower" and costs_less(rival, hybrid)):
        return f"Whether {what} pays here is not shown", False
    if second in ("level", "split"):
        return f"No gain from {what} shown here", False
    if what == "the hybrid":
        return "The hybrid pays here", True
    saved = local_saving(run, hybrid)
    if saved is None:
        return "The hybrid pays here", True
    if saved <= 0:
        return "The hybrid pays here, but not by locality", False
    if saved < MOSTLY:
        return "The hybrid pays here, little of it by locality", True
    return "Locality pays here", True


def local_saving(run: Run, hybrid: Evaluation) -> float | None:
    """Share of the hybrid's saving, step for step against the reference, that its local steps have; None unknown.

    A step from pure noise is no local one, whoever takes it: there is nothing that a window could hide.
    """
    if hybrid.schedule is None or run.prices is None or run.reference not in run.prices.names:
        return None
    flops = dict(zip(run.prices.names, run.prices.flops.tolist(), strict=True))
    taken = hybrid.schedule.assignment
    if not set(taken) <= set(flops):
        return None
    saved = {name: flops[run.reference] - flops[name] for name in taken}
    whole = sum(saved[name] for name in taken)
    first = int(np.argmax(run.prices.times))
    blind = hybrid.schedule.times[0] == run.prices.times[first] and run.prices.losses.log_snr[first] == -np.inf
    seeing = taken[1:] if blind else taken
    return sum(saved[n] for n in seeing if n in locals_of(run)) / whole if whole > 0 else 0.0


def reasons(
    run: Run, hybrid: Evaluation | None = None, rival: Evaluation | None = None, full: Evaluation | None = None
) -> tuple[str, ...]:
    """Why locality does not pay here, each from its numbers; empty where the records show none."""
    label = {m.name: m.label for m in run.members}
    found = (
        _few_steps(run, full, rival),
        _too_small(run, label),
        _capacity(run, label),
        _not_called(run, hybrid),
        _too_few_samples(hybrid, rival),
    )
    # what networks say that have not learnt is no reason: that they have not is said first
    return (*doubts(run), *(text for text in found if text))


def doubts(run: Run) -> tuple[str, ...]:
    """Why a verdict on this run's networks, whatever it is, may be another once they have learnt; mostly empty."""
    label = {m.name: m.label for m in run.members}
    found = (_undertrained(run), _too_few_images(run), _undertrained_locals(run, label))
    return tuple(text for text in found if text)


def _few_steps(run: Run, full: Evaluation | None, rival: Evaluation | None) -> str:
    """The reference alone with fewer calls, as good as with all."""
    if full is None or rival is None or not is_alone(run, rival) or rival.nfe >= full.nfe:
        return ""
    if outcome(rival, full) not in ("level", "lower"):
        return ""
    return (
        f"Few steps are enough here: {rival.nfe} evaluations of the global network's {full.nfe} are as good within "
        "error, so there is little left to save."
    )


def _too_small(run: Run, label: dict[str, str]) -> str:
    """Local calls that cost nearly as much as global ones."""
    prices = run.prices
    if prices is None or run.reference not in prices.names:
        return ""
    flops = dict(zip(prices.names, prices.flops.tolist(), strict=True))
    known = [n for n in locals_of(run) if n in flops]
    whole = flops[run.reference]
    if not known or whole <= 0 or min(flops[n] for n in known) < NEAR * whole:
        return ""
    cheapest = min(known, key=flops.__getitem__)
    size = f"{run.data.image_shape[1]} × {run.data.image_shape[2]} pixels" if run.data else "this size"
    return (
        f"Too small: on images of {size} a call of the cheapest local network, {label[cheapest]}, costs "
        f"{percent(flops[cheapest], whole)} of a global one, so windows save nothing."
    )


def _capacity(run: Run, label: dict[str, str]) -> str:
    share = control_share(run)
    if share is None or share.value < MOSTLY:
        return ""
    text = (
        f"Capacity rather than window: with its window opened to the whole image, the design of "
        f"{label.get(share.local, share.local)} keeps {percent(share.control.value, share.of.value)} of its gap."
    )
    kept = kept_when_opened(run, share.local)
    if not kept:
        return text
    # path KL weighs squared errors by d(snr)/2, so little noise decides it, and a mean hides where windows do matter
    least, most = percent(min(kept.values()), 1.0), percent(max(kept.values()), 1.0)
    when = f"at t = {min(kept):g}" if len(kept) == 1 else f"between t = {min(kept):g} and {max(kept):g}"
    shares = least if least == most else f"{least.removesuffix(' %')} to {most}"
    return (
        f"{text} That is of its path KL, where low noise weighs most; {when} the opened design is better and keeps "
        f"{shares} of the squared error's gap, so there the window takes a part."
    )


def kept_when_opened(run: Run, local: str) -> dict[float, float]:
    """By time, the control's share of the gap in squared error of ``local``, the same design with its window closed.

    Only times at which the control's loss is lower beyond its error; none without a control among the losses.
    """
    table = run.losses
    if table is None or table.control is None or not {local, table.control} <= set(table.names):
        return {}
    i, j = table.column(local), table.column(table.control)
    won = table.gap[:, i] - table.gap[:, j]
    sure = (won > RESOLVED * np.hypot(table.gap_stderr[:, i], table.gap_stderr[:, j])) & (table.gap[:, i] > 0)
    return {float(table.times[k]): max(float(table.gap[k, j] / table.gap[k, i]), 0.0) for k in np.flatnonzero(sure)}


def _undertrained(run: Run) -> str:
    record = run.training.get(run.reference)
    if record is None:
        return ""
    if record.steps < looks_back(record):
        return (
            f"Undertrained: the global network took {num(record.steps)} steps, fewer than the "
            f"{num(looks_back(record))} that the average of its weights looks back over; train it longer before you "
            "judge."
        )
    late = late_fall(record)
    if late is None or late <= STILL_FALLING:
        return ""
    return (
        f"Undertrained: {num(100 * late, 2)} % of all that the global network's held-out loss fell on record it fell "
        "in the last quarter of its training; what it will gain is not known."
    )


def _undertrained_locals(run: Run, label: dict[str, str]) -> str:
    """Local networks that have not learnt what there is to learn: their gap is not their window's alone."""
    known = {n: run.training[n] for n in locals_of(run) if n in run.training}
    found = [n for n, r in known.items() if r.steps < looks_back(r) or (late_fall(r) or 0.0) > STILL_FALLING]
    if not found:
        return ""
    names = listed([label.get(n, n) for n in found])
    return f"Undertrained: {names}; part of the gap to the global network is what their training still lacks."


def looks_back(record: TrainingRecord) -> int:
    """Steps that the average of a network's weights looks back over, ``1 / (1 - ema)``; 0 where that is not known."""
    found = record.preset.get("ema")
    ema = float(found or 0.0) if is_number(found) else 0.0
    return round(1 / (1 - ema)) if 0 < ema < 1 else 0


def late_fall(record: TrainingRecord) -> float | None:
    """Share of the fall of the held-out loss since the first record that the last quarter of the steps has.

    None where it did not fall, or where fewer than five losses are on record.
    """
    rows = [(r["step"], r["val_loss"]) for r in record.history if is_number(r.get("val_loss")) and is_number(r["step"])]
    if len(rows) < 5:
        return None
    steps, losses = np.array(rows, dtype=float).T
    whole = losses[0] - losses[-1]
    turn = float(np.interp(0.75 * steps[-1], steps, losses))
    return float(turn - losses[-1]) / float(whole) if whole > 0 else None


def _too_few_images(run: Run) -> str:
    """Learnt by heart, or too few for any judge to compare with."""
    record, sizes = run.training.get(run.reference), run.data.sizes if run.data else {}
    many = f"{num(sizes['train'])} " if "train" in sizes else ""
    history = record.history if record else ()
    rows = [r for r in history if is_number(r.get("train_loss")) and is_number(r.get("val_loss"))]
    if rows:
        last, best = rows[-1], min(rows, key=lambda r: r["val_loss"])
        if _learns_images(run) and last["train_loss"] < OVERFIT * last["val_loss"]:
            return (
                f"Too few images: the global network's loss is {num(last['train_loss'])} on the {many}training images "
                f"and {num(last['val_loss'])} on others."
            )
        if 0 < RISEN * best["val_loss"] < last["val_loss"]:
            return (
                f"Too few images: on others than the {many}training images the global network's loss rose again, from "
                f"{num(best['val_loss'])} at step {num(best['step'])} to {num(last['val_loss'])} at the end."
            )
    if run.evaluations and 0 < sizes.get("train", FEW_IMAGES) < FEW_IMAGES:
        return (
            f"Too few images: samples are compared with the {many}training images, and below {FEW_IMAGES} their own "
            "spread hides small differences."
        )
    return ""


def _learns_images(run: Run) -> bool:
    """Whether the reference learns the images themselves: the loss against a teacher's answers is a smaller one."""
    return all(m.teacher is None for m in run.members if m.name == run.reference)


def _not_called(run: Run, hybrid: Evaluation | None) -> str:
    if hybrid is None or hybrid.schedule is None or not locals_of(run):
        return ""
    if set(hybrid.schedule.assignment) & set(locals_of(run)):
        return ""
    return "No local network takes a step in the optimised schedule: within its budget others lose less."


def _too_few_samples(hybrid: Evaluation | None, rival: Evaluation | None) -> str:
    found = compared(hybrid, rival) if hybrid and rival else None
    if found is None or rival is None or found.outcome != "level" or found.detectable <= 2 * MARGIN * rival.fid:
        return ""
    return (
        f"Too few samples: {num(found.n)} tell differences of {percent(found.detectable, rival.fid)} of the rival's "
        f"{rival.measure} or more, so a smaller gain would not have shown."
    )
