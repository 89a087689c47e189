"""One self-contained HTML page from the records of a run: figures inline, pictures as data URIs, nothing fetched.

The page depends on the records alone (no clock, no absolute path), so building it twice gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from phasewise import checks
from phasewise.errors import RunFolderError
from phasewise.files import write_bytes, write_text
from phasewise.report import causes, cmi, outcome, switching, symmetry
from phasewise.report.blocks import Listing, Pairs, Section
from phasewise.report.reasons import of_model
from phasewise.report.style import NIGHT, Palette, night_colors, num
from phasewise.report.verdict import verdict
from phasewise.runs.layout import missing
from phasewise.runs.run import Run, open_run

CAVEATS = (
    "A distance between sets (FID, where the features are those of a trained network) depends on the features and "
    "falls with the number of samples: compare only numbers of equal n on equal features, within one report.",
    "The path KL belongs to a stochastic sampler of infinitely many steps run with these denoisers. It ranks "
    "schedules, and is no bound on what their few steps produce.",
    "Gaps compare trained networks. They mix what a window cannot see with what a network has not learned; the control "
    "and the exactly solvable models tell the two apart.",
    "FLOPs are counted, times are measured on one machine with one batch size: ratios of times travel badly.",
    "Standard errors cover the finite number of images only, not the spread over trainings with another seed; those of "
    "the conditional mutual information include the spread over refits where the estimator refits.",
)
OF_MODEL = {
    2: "A gap beside your network is what it knows beyond the closed form it is held against, and what it has learnt "
    "wrongly; no network of smaller reach was trained here to tell where its far pixels matter."
}
"""Caveats that read otherwise where a network was taken as it is."""


@checks.checked(run_dir=checks.file)
def build_report(run_dir: str | Path) -> Path:
    """Write ``run_dir/report.html`` and ``run_dir/figures/*`` from the records in ``run_dir``; return the page's path.

    Records that are absent leave their section with one line that says which command makes them.

    Raises:
        RunFolderError: the folder is absent, not a run folder, holds no records, or one of another version.
        PhasewiseError: a record is broken, or the page cannot be written.
    """
    run = open_run(run_dir)
    if not run.reportable():
        raise RunFolderError(
            f"{run.root} holds no records to report; make them with `phasewise run --data NAME --out {run.root}`"
        )
    parts = build_sections(run)
    for part in parts:
        for name, content in part.files().items():
            write_bytes(run.path("figures", name), content)
    return write_text(run.path("report"), render(run, parts))


def build_sections(run: Run) -> list[Section]:
    """All sections in the order of the page: the headline first, those that only say what is absent after the rest."""
    palette = Palette(run)
    answer = verdict(run)
    first = Section(
        "headline", smoke_warning(run) + answer.headline, blocks=outcome.headline_blocks(run), items=answer.sentences
    )
    sections = [
        *([switching.boundaries(run)] if of_model(run) else []),
        *([switching.reach(run)] if of_model(run) or run.reach is not None else []),
        outcome.samples(run),
        outcome.evaluation(run),
        outcome.schedules(run, palette),
        causes.diagnosis(run, palette),
        *([symmetry.section(run, palette)] if run.symmetry is not None else []),
        causes.prices(run, palette),
        causes.recovery(run, palette),
        cmi.section(run),
        *([] if of_model(run) and not run.training else [causes.training(run, palette)]),
        *([switching.taken_home(run)] if of_model(run) else []),
    ]
    present = [s if run.demo_of is None else replace(s, notes=()) for s in sections if s.blocks or s.items]
    return [first, *present, *_absent(run, [s for s in sections if not (s.blocks or s.items)]), provenance(run)]


def _absent(run: Run, sections: list[Section]) -> list[Section]:
    """One section for all those of which there is nothing: what is missing, and what makes it."""
    if not sections:
        return []
    if run.demo_of is None:
        lines = tuple((s.id, f"{s.title}. {' '.join(s.notes)}") for s in sections)
        return [Section("absent", "Not in this run", absent=lines)]
    titles = ", ".join(s.title.lower() for s in sections)
    images = run.data.name if run.data else run.demo_of
    command = f"`phasewise run --data {images} --data-dir DIR`"
    made = f"Not part of a demo: {titles}. A run of your own has it: {command}."
    return [Section("absent", "Not in this demo", absent=(("demo-without", made),))]


def smoke_warning(run: Run) -> str:
    """What must stand before the verdict of a run that was too small to mean anything."""
    size = (run.info.get("config") or {}).get("size")
    return "Smoke run, the numbers mean nothing. " if size == "smoke" else ""


def provenance(run: Run) -> Section:
    """Data, command, version, seeds, configuration and caveats."""
    facts: list[tuple[str, str]] = []
    if run.data is not None:
        d = run.data
        channels, height, width = d.image_shape
        sizes = ", ".join(f"{num(n)} {split}" for split, n in d.sizes.items())
        facts += [
            ("data", f"{d.name}: {height} × {width} pixels, {channels} channel{'s' if channels > 1 else ''}; {sizes}"),
            (
                "pixels",
                f"in [{d.pixel_range[0]:g}, {d.pixel_range[1]:g}], mean {num(d.mean)}, standard deviation {num(d.std)}",
            ),
            *([("white level", f"{d.white_level}: integers 0 to {d.white_level}")] if d.white_level else []),
            ("classes", "none" if d.classes is None else str(d.classes)),
            ("data fingerprint", d.fingerprint),
        ]
    facts += [(key, str(run.info[key])) for key in ("command", "version") if run.info.get(key)]
    facts += [("seeds", ", ".join(f"{k} {v}" for k, v in _seeds(run).items()))] if _seeds(run) else []
    blocks: list[Pairs | Listing] = [Pairs(tuple(facts))] if facts else []
    if run.info.get("config"):
        blocks.append(
            Listing("Configuration", json.dumps(run.info["config"], indent=1, sort_keys=True, ensure_ascii=False))
        )
    notes = [missing("data")] if run.data is None else []
    notes += [] if run.info else ["Not in this run: run.json, with the command and configuration."]
    said = OF_MODEL if of_model(run) and not run.training else {}
    items = tuple(said.get(k, caveat) for k, caveat in enumerate(CAVEATS))
    return Section("provenance", "Provenance and caveats", blocks=tuple(blocks), notes=tuple(notes), items=items)


def _seeds(run: Run) -> dict[str, str]:
    groups = {
        "training": [r.seed for r in run.training.values()],
        "losses": [run.losses.seed] if run.losses else [],
        "recovery": [run.recovery.seed] if run.recovery else [],
        "CMI": [run.cmi.seed] if run.cmi else [],
        "sampling": [e.seed for e in run.evaluations.values()],
    }
    return {k: ", ".join(str(s) for s in sorted(set(v))) for k, v in groups.items() if v}


def render(run: Run, parts: list[Section]) -> str:
    environment = Environment(
        loader=PackageLoader("phasewise.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = files("phasewise.report").joinpath("page.js").read_text(encoding="utf-8")
    page = environment.get_template("template.html.j2").render(
        # the browser runs this script and no other
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        night=NIGHT,
        title=run.data.name if run.data else "run",
        headline=parts[0],
        facts=verdict(run).facts,
        measure=outcome.judged_by(run)[0] if run.evaluations else "FID",
        parts=parts[1:],
    )
    return page.replace("NIGHT_COLORS", night_colors(page), 1)
