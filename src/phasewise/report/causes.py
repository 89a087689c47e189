"""Sections on why it came out so: denoising gaps, prices and fronts, recovery, training."""

from __future__ import annotations

import numpy as np

from phasewise.report import figures, pictures, schedule_figures
from phasewise.report.blocks import Drawing, Matrix, Section, Shot, Table, drawing
from phasewise.report.outcome import timing
from phasewise.report.reasons import gap_in_words, locals_of, of_model
from phasewise.report.style import BARS, Palette, num, pm
from phasewise.results import Array, LossTable, Recovery
from phasewise.runs.layout import missing
from phasewise.runs.reading import RecoveryImages
from phasewise.runs.run import Run

GAP_NAMES = {"path_kl": "path KL (nats per image)", "excess_kl": "excess over the global loss (nats per image)"}
CONTROL = (
    " Dashed, the control: the local design with its window opened to the whole image; where it too lies above zero, "
    "as much of the gap is due to the design and not to locality."
)
NO_CONTROL = " No capacity-matched control was trained, so gaps mix locality with capacity."


def diagnosis(run: Run, palette: Palette) -> Section:
    """Losses and denoising gaps over time."""
    title, table = "Where in time far pixels matter", run.losses
    if table is None:
        return Section("diagnosis", title, notes=(missing("losses"),))
    labels = {n: palette[n].label for n in palette.order}
    intro = (
        f"{gap_in_words(run, labels)} A denoiser of radius r sees only pixels within r of the one it restores. Its gap "
        "to the global denoiser, on the same images and the same noise, is what it loses at that time, by its window "
        "and by its own limits together."
    )
    taken = of_model(run) and not locals_of(run)
    if taken:
        intro = (
            f"{gap_in_words(run, labels)} A gap is what another denoiser loses against your network, called global, on "
            "the same images and the same noise."
        )
    linear = table.path.get("name") == "linear"
    velocity = "; d: in velocity units, gap / t², as an ODE sampler feels it" if linear else ""
    hybrid = run.all_schedules().get("hybrid")
    tinted = ""
    if hybrid:
        used = figures.reference_spans(hybrid, table.reference)
        tinted = " Tinted: the times at which the optimised schedule calls the global denoiser."
        tinted = tinted if used else " The optimised schedule calls the global denoiser at no time."
    caption = (
        "a: held-out loss. b: the gap, differenced image by image. c: the same in nats per unit log-SNR, ½ SNR · gap, "
        f"noise again to the right{velocity}. Where needed these axes are linear near zero and logarithmic beyond. "
        "Gaps can be negative, since trained networks are not ideal."
        f"{'' if taken else CONTROL if table.control else NO_CONTROL}"
        f"{tinted} n = {num(table.n)} held-out images. {BARS}"
    )
    peaks = [_peak(table, n, palette) for n in palette.order if n in table.names and n != table.reference]
    alt = "Held-out loss and denoising gap against time for each denoiser. " + " ".join(peaks)
    figure = drawing("gap", figures.loss_and_gap(table, palette, hybrid), alt, caption)
    return Section("diagnosis", title, intro, (figure,))


def _peak(table: LossTable, name: str, palette: Palette) -> str:
    column = table.gap[:, table.column(name)]
    if not np.isfinite(column).any():
        return ""
    k = int(np.nanargmax(column))
    return f"{palette[name].label}: largest gap {num(float(column[k]))} at t = {table.times[k]:.2g}."


def prices(run: Run, palette: Palette) -> Section:
    """Cost and path KL of each denoiser, and the Pareto fronts of schedules."""
    notes = [missing(n) for n in ("prices", "gap", "fronts") if not getattr(run, n)]
    blocks: list[Table | Drawing] = []
    if run.prices or run.gap:
        blocks.append(_price_table(run, palette))
    if run.fronts:
        caption = (
            "Above: all schedules on the time grid that no other beats in both penalty and cost. The penalty is the "
            "predicted excess over the global denoiser at every step; bands and bars 2 standard errors, from held-out "
            "losses. Filled circles: one denoiser throughout, where that is undominated; open marks: the schedules "
            "that were sampled, each on its own grid. Below: which member runs when along the front, one line per "
            f"schedule. {_meaning(run)} Penalties come from the images the schedules were chosen on."
        )
        alt = "Pareto fronts of predicted penalty against MFLOP per image, and the schedules along them."
        blocks.append(drawing("fronts", schedule_figures.fronts(run, palette), alt, caption))
    return Section("prices", "Price list and Pareto fronts", blocks=tuple(blocks), notes=tuple(notes))


def _meaning(run: Run) -> str:
    """What the penalties of the fronts shown mean, one sentence each, as the records say."""
    said = " ".join(front.penalty_meaning for front in run.fronts.values() if front.penalty_meaning)
    return f"{said} None of these is the distance that judges the samples.".strip()


def _price_table(run: Run, palette: Palette) -> Table:
    names = list(run.prices.names) if run.prices else []
    names += dict.fromkeys(n for table in run.gap.values() for n in table if n not in names)
    names.sort(key=lambda n: (palette.order.index(n) if n in palette.order else len(palette.order), n))
    rows = []
    for name in names:
        flops, ms = None, None
        if run.prices and name in run.prices.names:
            i = run.prices.names.index(name)
            flops, ms = float(run.prices.flops[i]) / 1e6, float(run.prices.ms[i])
        found = [table.get(name) for table in run.gap.values()]
        rows.append((palette[name].label, num(flops), num(ms), *(pm(e.value, e.stderr) if e else "–" for e in found)))
    head = ("denoiser", "MFLOP per call", "ms per call", *(GAP_NAMES.get(k, k.replace("_", " ")) for k in run.gap))
    sizes = sorted({e.n for table in run.gap.values() for e in table.values()})
    caption = "What one call costs per image" + (", and what a denoiser used at every time loses" if run.gap else "")
    caption += f" (± one standard error, n = {num(sizes[-1])})." if sizes else "."
    if run.guidance not in (0, 1):
        caption += " Networks are guided: costs are of both their calls, losses of one, told the class."
    return Table(head, tuple(rows), f"{caption} {timing(run)}".strip())


def training(run: Run, palette: Palette) -> Section:
    """Training curves and a line per network."""
    if not run.training:
        return Section("training", "Training", notes=(missing("training"),))
    caption = (
        "Left: loss against optimiser step. Right: held-out loss in bins of time once trained. The loss is each "
        "network's training loss; no error bars are recorded."
    )
    records = [(palette[n].label, run.training[n]) for n in palette.order if n in run.training]
    alt = "Training curves. " + " ".join(f"{label}: {num(r.val_loss)} held out." for label, r in records)
    head = ("denoiser", "parameters", "steps", "images seen", "seconds", "held-out loss", "seed", "device")
    rows = []
    for label, r in records:
        sizes = (num(r.parameters), num(r.steps), num(r.images_seen))
        rows.append((label, *sizes, num(r.seconds), num(r.val_loss), str(r.seed), r.device))
    blocks = (
        drawing("training", figures.training(run.training, palette), alt, caption),
        Table(head, tuple(rows), "How each network was trained."),
    )
    return Section("training", "Training", blocks=blocks)


_RECOVERED = (
    "Where the curve of a local denoiser leaves the global one, its window no longer holds the information, or, where "
    "the dashed control leaves it as well, the local design is the weaker network. "
)
_RECOVERED_BY_MODEL = (
    "Where the curve of a Wiener filter leaves that of your network, called global, covariances no longer tell what "
    "the network knows. "
)


def recovery(run: Run, palette: Palette) -> Section:
    """Pictures and error curves of the receptive-field ablation."""
    title, record = "Recovery: noise to t, denoise back", run.recovery
    if record is None:
        return Section("recovery", title, notes=(missing("recovery"),))
    caption = (
        "Mean squared error per pixel between a held-out image and what each denoiser makes of it after it was noised "
        f"to t. {_RECOVERED_BY_MODEL if of_model(run) and not locals_of(run) else _RECOVERED}"
        f"n = {num(record.n)}, {record.steps} {record.solver} steps, seed {record.seed}. {BARS}"
    )
    alt = "Recovery error against t: " + ", ".join(palette[n].label for n in record.names)
    curves = drawing("recovery", figures.recovery(record, palette), alt, caption)
    if run.recovered is None:
        return Section("recovery", title, blocks=(curves,), notes=(missing("recovered"),))
    matrix, png = _recovery_matrix(record, run.recovered, palette)
    return Section("recovery", title, blocks=(matrix, curves), extra_files={"recovery_samples.png": png})


def _recovery_matrix(record: Recovery, images: RecoveryImages, palette: Palette) -> tuple[Matrix, bytes]:
    """Times down, denoisers across; up to six times and ten denoisers. Also the whole as one PNG."""
    times = sorted(range(len(record.times)), key=lambda i: float(record.times[i]))
    times = [times[i] for i in schedule_figures.evenly(len(times), 6)]
    names = [n for n in palette.order if n in record.names]
    if len(names) > 10:
        kept = {names[i] for i in schedule_figures.evenly(len(names), 9)} | {palette.reference}
        names = [n for n in names if n in kept]
    width = pictures.shrink(images.original).shape[-1]
    k = min(len(images.original), 2 if width <= 48 else 1)
    zoom = max(1, (930 // (len(names) + 2) - 8) // width)

    def cell(values: Array) -> Array:
        return pictures.tile(pictures.shrink(values[:k]), 1, clear=True)

    labels = ["original", "noisy", *(f"recovered with {palette[n].label}" for n in names)]
    rows, canvases = [], []
    for i in times:
        recovered = [images.recovered[i, record.names.index(n)] for n in names]
        cells = [cell(values) for values in (images.original, images.noisy[i], *recovered)]
        canvases.append(pictures.stack(cells, axis=1))
        at = f"t = {record.times[i]:.2g}"
        shots = [Shot("", pictures.picture(c, zoom), f"{label}, {at}") for c, label in zip(cells, labels, strict=True)]
        rows.append((at, tuple(shots)))
    caption = (
        f"The same {'two held-out images' if k > 1 else 'held-out image'} in every cell, the same noise along a row. "
        "Read along a row to see how wide a window has to be at that time, and down a column to see when a window "
        "stops sufficing."
    )
    head = ("original", "noisy", *(palette[n].label for n in names))
    return Matrix(head, tuple(rows), caption), pictures.picture(pictures.stack(canvases, axis=0)).png
