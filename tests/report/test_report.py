"""The report: complete, self-contained, honest in its verdict, the same bytes each time, and patient with gaps."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image
from synthetic_run import cmi_map, evaluations, loss_table, markov_fit, schedules, training, write, write_run

from phasewise.diagnosis import markov_length
from phasewise.errors import PhasewiseError, RunFolderError
from phasewise.files import write_json
from phasewise.report import blocks, build_report, cmi_figures, figures
from phasewise.report.compared import outcome as compare
from phasewise.report.compared import rival
from phasewise.report.outcome import evaluation
from phasewise.report.pictures import picture, shrink, stack, tile
from phasewise.report.style import (
    CONTROL,
    GLOBAL,
    NIGHT,
    PAPER,
    WIENER,
    Palette,
    _contrast,
    narrow,
    night,
    num,
    percent,
    pm,
)
from phasewise.report.verdict import headline, verdict
from phasewise.results import Evaluation, JudgeScore
from phasewise.runs import open_run

SECTIONS = (
    "headline", "samples", "evaluation", "schedules", "diagnosis",
    "prices", "recovery", "cmi", "training", "provenance",
)  # fmt: skip
FIGURES = ("fid_cost", "schedules", "gap", "fronts", "recovery", "cmi", "training")
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks nesting and collects ids, loaded resources, alt texts and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.alts: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == [], f"unclosed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id" and v]
        self.loads += [v for k, v in attrs if k in ("src", "srcset", "data", "poster") and v]
        self.loads += [v for k, v in attrs if k in ("href", "xlink:href") and v and tag in ("link", "image", "use")]
        self.links += [v for k, v in attrs if k == "href" and v and tag in ("a", "use")]
        if tag == "img":
            self.alts.append(values["alt"] or "")
        if tag == "svg":
            self.alts.append(values["aria-label"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete run; its figures are not drawn again for narrow screens, which takes as long as all the rest."""
    monkeypatch.setattr(blocks, "small_svg", lambda figure, name: '<svg viewBox="0 0 1 1"></svg>')
    return write_run(tmp_path / "run")


def test_the_schedule_is_told_in_words(run_folder: Path) -> None:
    assert "global takes t = 0.80 to 0.10: told in words" in build_report(run_folder).read_text()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run, its report built once."""
    folder = write_run(tmp_path_factory.mktemp("complete") / "run")
    assert build_report(folder) == folder / "report.html"
    return folder


def read(folder: Path) -> tuple[str, Page]:
    html = (folder / "report.html").read_text(encoding="utf-8")
    return html, Page(html)


def keep(folder: Path, *names: str) -> Path:
    """Drop all records but the named ones."""
    for path in (folder / "records").iterdir():
        if path.stem not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def test_complete_report_is_whole_and_self_contained(built: Path) -> None:
    html, page = read(built)
    assert set(SECTIONS) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids)), "ids of inlined figures collide"
    assert page.tags.count("svg") == 2 * len(FIGURES), "for wide and for narrow screens"
    assert all(v.startswith(("data:image/png;base64,", "#")) for v in page.loads)
    inner = [v for v in page.links if not v.startswith("data:text/csv")]
    assert all(v.startswith("#") and v[1:] in page.ids for v in inner)
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1
    references = re.findall(r"url\(#([^)]+)\)", html)
    assert references
    assert set(references) <= set(page.ids)
    assert not re.search(r"url\(['\"]?http|@import", html)
    assert len(html) < 3e6
    assert all(page.alts)
    assert "Not in this run" not in page.text
    assert str(built) not in html


def test_numbers_of_the_records_reach_the_page(built: Path) -> None:
    _, page = read(built)
    for text in ("12.3 ± 0.4", "210.0 ± 0.4", "10.5 ± 0.3", "54 %", "98.5 %", "2.29", "10,000 train", "ab12"):
        assert text in page.text, text
    assert "the hybrid's FID is not distinguishable from the global sampler's (2,000 samples tell 1.6" in page.text
    assert "and it beats the global denoiser with fewer steps (55 % of the FLOPs)" in page.text
    assert "phasewise run --data digits" in page.text
    losses = open_run(built).losses
    assert losses is not None
    assert f"r = 1: largest gap {losses.gap[:, 0].max():.2f} at t = 0.47" in " ".join(page.alts)


def test_figures_are_saved_beside_the_page(built: Path) -> None:
    for name in FIGURES:
        svg = (built / f"figures/{name}.svg").read_text(encoding="utf-8")
        assert svg.startswith("<?xml")
        assert "dc:date" not in svg
    assert Image.open(built / "figures/samples_hybrid.png").size == (5 * 29 - 1, 5 * 29 - 1)
    assert (built / "figures/recovery_samples.png").is_file()


def test_same_records_same_bytes_wherever_they_lie(built: Path, tmp_path: Path) -> None:
    other = build_report(write_run(tmp_path / "elsewhere"))
    assert other.read_bytes() == (built / "report.html").read_bytes()
    for path in sorted((built / "figures").iterdir()):
        assert (tmp_path / "elsewhere/figures" / path.name).read_bytes() == path.read_bytes()


def test_what_is_missing_leaves_one_line_that_names_the_command(tmp_path: Path) -> None:
    write(tmp_path, "data", open_run(write_run(tmp_path / "whole")).data)
    build_report(tmp_path)
    html, page = read(tmp_path)
    assert set(SECTIONS) <= set(page.ids)
    parts = {name: re.split(rf'id="{name}">', html)[1].split("</section>")[0] for name in SECTIONS}
    parts |= {name: re.split(rf'id="{name}">', html)[1].split("</p>")[0] for name in SECTIONS[1:-1]}
    assert page.tags.count("section") == 2, "one for all that is absent"
    for section, record, command in (
        ("headline", "evaluation.json", "evaluate"),
        ("samples", "samples/", "evaluate"),
        ("evaluation", "evaluation.json", "evaluate"),
        ("schedules", "schedules.json", "schedule"),
        ("diagnosis", "losses.json", "diagnose"),
        ("prices", "prices.json", "schedule"),
        ("prices", "gap.json", "diagnose"),
        ("prices", "fronts.json", "schedule"),
        ("recovery", "recovery.json", "diagnose"),
        ("training", "training/", "train"),
        ("cmi", "cmi.json", "diagnose --cmi --out DIR"),
    ):
        assert re.search(rf"Not in this run: (records/)?{record}. Made by `phasewise {command}`", parts[section]), (
            section
        )
    assert "Not in this run: run.json" in parts["provenance"]
    assert "svg" not in page.tags


@pytest.mark.parametrize(
    "kept",
    [
        ("evaluation", "schedules"),
        ("losses", "gap"),
        ("prices", "recovery"),
        ("fronts",),
        ("training",),
    ],
)
def test_json_records_alone_are_enough_and_any_few_will_do(run_folder: Path, kept: tuple[str, ...]) -> None:
    shutil.rmtree(run_folder / "samples")
    (run_folder / "run.json").unlink()
    build_report(keep(run_folder, *kept))
    _, page = read(run_folder)
    drawn = {"evaluation": 2, "losses": 1, "prices": 1, "fronts": 1, "training": 1}[kept[0]]
    assert page.tags.count("svg") == 2 * drawn


def test_what_was_measured_comes_before_what_was_not(run_folder: Path) -> None:
    shutil.rmtree(run_folder / "samples")
    html = build_report(keep(run_folder, "data", "cmi", "markov")).read_text(encoding="utf-8")
    order = re.findall(r'<section id="(\w+)"', html)
    assert (order[0], order[-1]) == ("cmi", "provenance")
    assert "Critical window" in html[: html.index('id="cmi"')], "the headline says what was found"


def test_the_verdict_leads_even_where_nothing_can_be_compared(run_folder: Path) -> None:
    file = run_folder / "records/evaluation.json"
    values = json.loads(file.read_text())
    values["evaluations"] = [v for v in values["evaluations"] if v["name"] == "global"]
    values["evaluations"][0].update(fid=None, fid_stderr=None)
    write_json(file, {**values, "real": {}})
    build_report(keep(run_folder, "evaluation"))
    assert re.search(r"<h1>No verdict", read(run_folder)[0])


def test_other_paths_and_no_control(tmp_path: Path) -> None:
    table = dataclasses.replace(loss_table(np.linspace(1, 0, 7)), control=None, path={"name": "cosine"})
    write(tmp_path, "losses", table)
    build_report(tmp_path)
    _, page = read(tmp_path)
    assert "No capacity-matched control" in page.text
    assert "velocity units" not in page.text


def test_cmi_says_what_was_found_and_what_was_not(built: Path) -> None:
    _, page = read(built)
    for text in (
        "Critical time t_c = 0.5 (95 %: 0.4 to 0.6), where ξ is 1.60 pixels",
        "But the largest Markov length lies at the edge",
        "Critical window: the CMI exceeds 0.01 nats at r = 2 for t from 0.13 to 0.81",
        "t = 0.1: not resolved: at r = 4 the CMI is 1.2 standard errors from zero",
        "t = 0.7: not exponential: up to 30 % off",
        "1.40 to 1.90",
        "< 0.001",
        "does not mean that ξ is short",
        "As a bound on the true value: neither.",
    ):
        assert text in page.text, text
    alts = " ".join(page.alts)
    assert "Largest: 0.1" in alts
    assert "Critical window" in alts


@pytest.mark.parametrize(("shape", "said"), [([1, 20, 24], True), ([1, 28, 28], False), (None, False)])
def test_cmi_of_a_central_square_says_so(run_folder: Path, shape: list[int] | None, said: bool) -> None:
    record = cmi_map()
    write(run_folder, "cmi", dataclasses.replace(record, config={**record.config, "image_shape": shape}))
    build_report(run_folder)
    assert ("in the central 20 × 24 pixels, where C ends" in read(run_folder)[1].text) == said


def test_cmi_without_fit_or_window(run_folder: Path) -> None:
    absent = {"t_c": None, "t_c_low": None, "t_c_high": None, "t_c_note": "1 times", "window": None}
    write(run_folder, "markov", dataclasses.replace(markov_fit(), **absent, tolerance=0.5))
    build_report(run_folder)
    assert "No critical time: 1 times." in read(run_folder)[1].text
    assert read(run_folder)[1].text.count("exceeds 0.5 nats at r = 2 at no measured time") == 2  # finding and caption
    (run_folder / "records/markov.json").unlink()
    build_report(run_folder)
    _, page = read(run_folder)
    assert "Not in this run: records/markov.json. Made by `phasewise diagnose --cmi --out DIR`" in page.text
    assert page.tags.count("svg") == 2 * len(FIGURES)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.2, "the CMI exceeds 0.01 nats at r = 2, but a window cannot be told from one time"),
        (0.002, "the CMI exceeds 0.01 nats at r = 2 at no measured time"),
        (math.nan, "the CMI at r = 2 is not a number at any measured time"),
    ],
)
def test_a_window_of_one_time_is_not_denied(run_folder: Path, value: float, said: str) -> None:
    record = dataclasses.replace(
        cmi_map(), times=np.array([0.5]), value=np.full((1, 4), value), stderr=np.full((1, 4), 0.001)
    )
    fit = markov_length(record, radius=2)
    assert fit.window is None
    write(run_folder, "cmi", record)
    write(run_folder, "markov", fit)
    build_report(run_folder)
    _, page = read(run_folder)
    assert f"No critical window: {said}." in page.text
    assert f"No critical window: {said.replace('the CMI', 'it')}." in page.text
    assert "below the tolerance" not in page.text


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ((0.0, 0.5), "measure smaller ones"),
        ((0.5, 1.0), "measure larger ones"),
        ((0.0, 1.0), "measure smaller and larger ones"),
        ((0.4, 0.5), None),
    ],
)
def test_a_window_that_reaches_the_first_or_last_time_is_open(
    run_folder: Path, window: tuple[float, float], said: str | None
) -> None:
    fit = markov_fit()
    low, high = float(fit.times.min()), float(fit.times.max())
    ends = tuple({0.0: low, 1.0: high}.get(end, end) for end in window)
    nothing = np.full_like(fit.xi, math.nan)
    write(run_folder, "markov", dataclasses.replace(fit, window=ends, xi=nothing, low=nothing, high=nothing, t_c=None))
    build_report(run_folder)
    _, page = read(run_folder)
    assert ("reaches the edge of the measured times" in page.text) == (said is not None)
    assert said is None or said in page.text
    assert "resolved at no time" in page.text


def test_caption_of_lengths_tells_whether_errors_go_together(run_folder: Path) -> None:
    build_report(run_folder)
    assert "are treated as independent" in read(run_folder)[1].text
    covariance = np.tile(np.full((4, 4), 0.002**2), (5, 1, 1)).tolist()
    record = cmi_map()
    write(run_folder, "cmi", dataclasses.replace(record, config={**record.config, "covariance": covariance}))
    build_report(run_folder)
    _, page = read(run_folder)
    assert "go together, which the intervals and p-values take into account" in page.text
    assert "are treated as independent" not in page.text


def test_a_cell_of_exactly_zero_is_in_brackets() -> None:
    record = cmi_map()
    value, stderr = record.value.copy(), record.stderr.copy()
    value[0], stderr[0] = 0.0, 0.0
    figure = cmi_figures.cmi(dataclasses.replace(record, value=value, stderr=stderr))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:4] == ["(0.000)"] * 4
    assert not any("(0.1" in text for text in texts)


def test_cmi_at_several_positions(run_folder: Path) -> None:
    write(run_folder, "cmi", cmi_map(positions=2))
    build_report(run_folder)
    _, page = read(run_folder)
    assert "row 15, column 14" in page.text
    assert "2 positions, their mean shown" in page.text
    broken = json.loads((run_folder / "records/cmi.json").read_text())
    broken["config"]["positions"][1]["value"].pop()
    write_json(run_folder / "records/cmi.json", broken)
    with pytest.raises(RunFolderError, match=r"cmi.json does not fit .*value has shape \(4, 4\)"):
        build_report(run_folder)


def test_fit_of_another_map_is_refused(run_folder: Path) -> None:
    write(run_folder, "markov", dataclasses.replace(markov_fit(), times=np.linspace(0.1, 0.8, 5)))
    with pytest.raises(RunFolderError, match=r"other times or radii than cmi.json; delete both"):
        build_report(run_folder)
    write(run_folder, "markov", dataclasses.replace(markov_fit(), window_radius=7))
    with pytest.raises(RunFolderError, match=r"other times or radii than cmi.json; delete both"):
        build_report(run_folder)


def test_captions_speak_of_what_is_drawn(built: Path, run_folder: Path) -> None:
    _, page = read(built)
    assert "Tinted: the times at which" in page.text
    assert "spread over classes (nats)" in page.text
    assert "class entropy" not in page.text
    assert "Path KL: the information" in page.text
    assert "Excess flow-matching loss:" not in page.text, "that penalty is not among this run's fronts"
    plans = {k: v.to_dict() for k, v in schedules().items()}
    plans["hybrid"]["assignment"] = ["r2"] * 16
    write_json(run_folder / "records/schedules.json", plans)
    build_report(keep(run_folder, "losses", "schedules"))
    text = read(run_folder)[1].text
    assert "Tinted" not in text
    assert "calls the global denoiser at no time" in text


def test_the_page_runs_its_own_script_alone(built: Path) -> None:
    html, _ = read(built)
    script = re.search(r"<script>(.*?)</script>", html, flags=re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_points_tell_their_values_and_tables_are_saved(built: Path) -> None:
    html, page = read(built)
    titles = re.findall(r"<circle [^>]*><title>([^<]*)</title></circle>", html)
    assert any(t.startswith("Hybrid (optimised): FID 12.3 ± 0.4, 402 MFLOP") for t in titles)
    losses = open_run(built).losses
    assert losses is not None
    assert sum(t.startswith("r = 1, t = ") for t in titles) >= 2 * len(losses.times)
    tables = [unquote(v.split(",", 1)[1]) for v in page.links if v.startswith("data:text/csv")]
    rows = list(csv.reader(io.StringIO(tables[0])))
    assert rows[0][0] == "schedule"
    assert [rows[1][6], rows[1][8]] == ["12.3 ± 0.4", "2,000"]
    assert len(tables) == page.tags.count("thead") - 1, "all but the table of pictures"


def test_dark_mode_has_no_white_paper_and_readable_colours(built: Path) -> None:
    html, _ = read(built)
    dark = re.search(r"prefers-color-scheme: dark\) \{(.*?)\n\}", html, flags=re.S)
    assert dark is not None
    used = set(re.findall(r"var\(--c([0-9a-f]{6}),", html))
    assert {GLOBAL[1:].lower(), PAPER[1:]} <= used
    assert all(f"--c{color}: " in dark[1] for color in used)
    assert night(PAPER) == NIGHT
    for color in (GLOBAL, CONTROL, "#46085c", WIENER):
        assert _contrast(to_rgb(night(color))) >= 4


def test_marks_on_one_spot_are_all_seen(run_folder: Path) -> None:
    """A star over the circle of the same schedule: the circle becomes a ring round it."""
    same = [
        dataclasses.replace(e, fid=12.0, mflop=300.0, ms=0.1) if e.name in ("hybrid", "global") else e
        for e in evaluations()
    ]
    judged = {"evaluations": [e.to_dict() for e in same], "real": {}}
    write_json(run_folder / "records/evaluation.json", judged)
    figure = figures.fid_cost(open_run(run_folder))
    marks = {m.get_label(): m for m in figure.marks if m.axes is figure.axes[0]}
    star, circle = marks["Hybrid (optimised)"], marks["global"]
    assert star.get_zorder() > circle.get_zorder()
    assert circle.get_markersize() > star.get_markersize()
    assert circle.get_markerfacecolor() == "none"
    assert marks["local_only"].get_markersize() == 7


def test_nothing_strikes_through_the_values_of_the_heat_map() -> None:
    heat = cmi_figures.cmi(cmi_map(), markov_fit()).axes[0]
    assert len(heat.lines) == 1
    assert min(heat.lines[0].get_xdata()) >= 1, "the bar of the window stands beside it, in units of the axes' width"


def test_narrow_screens_get_panels_below_each_other(run_folder: Path) -> None:
    figure = figures.loss_and_gap(loss_table(np.linspace(0.1, 0.9, 5)), Palette(open_run(run_folder)), None)
    small = narrow(figure)
    assert small.get_size_inches()[0] < 5 < figure.get_size_inches()[0]
    assert len({round(ax.get_subplotspec().colspan.start) for ax in small.axes}) == 1
    assert len(small.axes) == len(figure.axes) == 4


def test_a_demo_advises_nothing_that_fails_in_it(run_folder: Path) -> None:
    about = json.loads((run_folder / "run.json").read_text())
    write_json(run_folder / "run.json", {**about, "command": "phasewise demo mnist --n 100 --seed 0"})
    build_report(keep(run_folder, "data", "evaluation", "schedules"))
    _, page = read(run_folder)
    assert "Not part of a demo: " in page.text
    assert "`phasewise run --data digits --data-dir DIR`" in page.text, "the images of its record"
    assert "Made by" not in page.text


def test_not_a_run_folder(tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no run folder at .*phasewise run"):
        build_report(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match="holds no records to report; make them with `phasewise run"):
        build_report(tmp_path / "empty")
    write_json(run_folder / "run.json", {"kind": "something else"})
    with pytest.raises(RunFolderError, match="not written by phasewise"):
        build_report(run_folder)


@pytest.mark.parametrize(
    "name", ["losses", "recovery", "cmi", "markov", "prices", "evaluation", "schedules", "training/r1"]
)
def test_broken_records_are_named(run_folder: Path, name: str) -> None:
    path = run_folder / f"records/{name}.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(PhasewiseError, match=rf"{name}.json is not valid JSON"):
        build_report(run_folder)
    path.write_text('{"evaluations": 3, "times": [1, 0.5]}', encoding="utf-8")
    with pytest.raises(RunFolderError, match=rf"{name}.json does not fit this version"):
        build_report(run_folder)


def test_arrays_of_the_wrong_shape_are_refused(run_folder: Path) -> None:
    path = run_folder / "records/losses.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["gap"] = values["gap"][1:]
    write_json(path, values)
    with pytest.raises(RunFolderError, match=r"losses.json does not fit .*gap has shape \(15, 6\)"):
        build_report(run_folder)


def test_broken_samples_are_named(run_folder: Path) -> None:
    (run_folder / "samples/hybrid.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(PhasewiseError, match=r"hybrid.safetensors.*run again"):
        build_report(run_folder)


def test_nan_and_infinity_are_tolerated(run_folder: Path) -> None:
    table = loss_table(np.linspace(1, 0, 9))
    gap = table.gap.copy()
    gap[:, 0], gap[2, 1] = math.nan, math.nan
    write(run_folder, "losses", dataclasses.replace(table, gap=gap, loss=np.full_like(gap, math.nan)))
    cmi = open_run(run_folder).cmi
    assert cmi is not None
    write(run_folder, "cmi", dataclasses.replace(cmi, value=np.full_like(cmi.value, math.nan)))
    record = dataclasses.replace(training("r1", 10), val_loss=math.nan, val_by_time=np.full(10, math.nan), history=())
    write(run_folder, "training/r1", record)
    none = [dataclasses.replace(e, fid=math.nan, ms=math.nan, mflop=math.inf).to_dict() for e in evaluations()]
    write_json(run_folder / "records/evaluation.json", {"evaluations": none, "real": {"fid": None}})
    blank: dict[str, np.ndarray] = {k: np.full(5, math.nan) for k in ("xi", "low", "high", "amplitude", "p_value")}
    write(run_folder, "markov", dataclasses.replace(markov_fit(), **blank, status=("not resolved",) * 5))
    build_report(keep(run_folder, "losses", "cmi", "markov", "training", "evaluation"))
    _, page = read(run_folder)
    assert "No verdict" in page.text
    assert not re.search(r"\b(nan|inf|None)\b", page.text)
    assert page.tags.count("svg") == 2 * 4  # schedules, gap, CMI, training: without an FID there is nothing to scatter


def test_text_from_outside_is_escaped(run_folder: Path) -> None:
    marked = [dataclasses.replace(e, label='<script>alert("x")</script>').to_dict() for e in evaluations()]
    write_json(run_folder / "records/evaluation.json", {"evaluations": marked, "real": {}})
    build_report(keep(run_folder, "evaluation"))
    html, page = read(run_folder)
    assert page.tags.count("script") == 1, "the page's own, which alone may run"
    assert "alert" not in "".join(re.findall(r"<script>.*?</script>", html, flags=re.S))
    assert "<b>set" not in html


def test_colour_images(tmp_path: Path) -> None:
    folder = keep(write_run(tmp_path / "run", channels=3), "recovery")
    build_report(folder)
    html, page = read(folder)
    first = next(v for v in page.loads if v.startswith("data:"))
    assert Image.open(io.BytesIO(base64.b64decode(first.split(",")[1]))).mode == "RGBA"  # gaps let the page show
    assert "image-rendering: pixelated" in html


def judged(name: str, fid: float, mflop: float, stderr: float = 0.3) -> Evaluation:
    return Evaluation(name, "", None, fid, stderr, 0.0, "f", 100, 100, 0, mflop, 1.0, 10)


@pytest.mark.parametrize(
    ("hybrid", "cheap", "expected"),
    [
        (
            12.0,
            20.0,
            r"not distinguishable from the global sampler's \(100 samples tell 1.2 or more, 10 %\), and it beats "
            r"the global denoiser with fewer steps \(31 % of the FLOPs\)\.",
        ),
        (
            12.0,
            12.2,
            r"not distinguishable from the global sampler's \(.*\), but the global denoiser .* is not distinguishable "
            r"from it \(100 samples tell 1.2 or more, 9.9 %\): no gain shown",
        ),
        (20.0, 15.0, "higher than the global sampler's, and the global denoiser .* does not pay"),
        (20.0, 30.0, "higher than the global sampler's, but it beats"),
        (20.0, 20.1, "higher than the global sampler's, and the global denoiser .* no gain shown"),
        (9.0, 8.0, "lower than the global sampler's, but the global denoiser .* does not pay"),
        (9.0, 30.0, "lower than the global sampler's, and it beats"),
    ],
)
def test_verdict_says_what_the_numbers_say(hybrid: float, cheap: float, expected: str) -> None:
    full = judged("global", 12.0, 100.0)
    text = headline(judged("hybrid", hybrid, 31.0), full, judged("global_cheap", cheap, 31.0))
    assert text.startswith("At 31 % of the FLOPs the hybrid's FID is ")
    assert re.search(expected, text), text


def test_a_paired_difference_decides_where_it_was_measured() -> None:
    full, hybrid = judged("global", 12.0, 100.0), judged("hybrid", 12.1, 31.0)
    assert compare(hybrid, full) == "level"
    paired = dataclasses.replace(hybrid, fid_minus={"global": [0.1, 0.01]})
    assert compare(paired, full) == "higher"
    assert compare(full, paired) == "lower"
    again = Evaluation.from_dict(paired.to_dict())
    assert compare(again, full) == "higher"


def seen(name: str, mflop: float, **values: float) -> Evaluation:
    """Judged by three; errors .1, .1 and .001, taken as independent."""
    measures = {"first": ("FID", 0.1), "unseen": ("unseen FID", 0.1), "sliced": ("sliced Wasserstein distance", 1e-3)}
    scores = {k: JudgeScore(measures[k][0], v, measures[k][1], 100, 500) for k, v in values.items()}
    return dataclasses.replace(judged(name, values["first"], mflop, 0.1), judges=scores)


FULL = {"first": 2.0, "unseen": 4.0, "sliced": 0.02}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, r"hybrid's FID, unseen FID and sliced Wasserstein distance are not distinguishable from the global "
             r"sampler's \(100 samples tell 0.40 or more, 20 %; 0.40 of unseen FID, 10 %; 0.0040 of sliced Wasserstein "
             r"distance, 20 %\)"),
        ({"unseen": 9.0}, r"the hybrid's unseen FID is higher than the global sampler's"),
        ({"first": 1.0}, r"the hybrid's FID is lower than the global sampler's"),
        ({"first": 1.0, "sliced": 0.03}, r"FID is lower than and its sliced Wasserstein distance is higher than"),
    ],
)  # fmt: skip
def test_equal_is_said_only_where_all_judges_agree(changed: dict[str, float], expected: str) -> None:
    full, hybrid = seen("global", 100.0, **FULL), seen("hybrid", 31.0, **(FULL | changed))
    text = headline(hybrid, full, None)
    assert re.search(expected, text), text
    assert (compare(hybrid, full) == "level") == (not changed)


def test_a_rival_that_one_judge_prefers_leaves_no_gain() -> None:
    full, hybrid = seen("global", 100.0, **FULL), seen("hybrid", 31.0, **FULL)
    worse = seen("global_cheap", 31.0, **(FULL | {"first": 3.0, "unseen": 3.0}))
    assert "the judges disagree on the global denoiser with fewer steps" in headline(hybrid, full, worse)
    assert "it beats" in headline(hybrid, full, seen("global_cheap", 31.0, **(FULL | {"unseen": 5.0})))


def test_tables_show_every_judge_and_what_it_could_have_told(tmp_path: Path) -> None:
    root = write_run(tmp_path)
    shown = [block for block in evaluation(open_run(root)).blocks if isinstance(block, blocks.Table)]
    assert not any("unseen FID ± s.e." in table.head for table in shown), "runs of before had one judge"
    assert [row[2] for row in shown[1].rows[1:]].count("FID") == len(shown[1].rows) - 1
    file = root / "records" / "evaluation.json"
    content = json.loads(file.read_text())
    for row in content["evaluations"]:
        row["judges"] = {name: score.to_dict() for name, score in seen("x", 1.0, **FULL).judges.items()}
    content["real"]["judges"] = {"unseen": [0.123, 0.01], "sliced": [0.0456, 0.001], "odd": 3}
    file.write_text(json.dumps(content))
    section = evaluation(open_run(root))
    _, judges, verdicts, *_ = (block for block in section.blocks if isinstance(block, blocks.Table))
    assert judges.head == ("schedule", "FID ± s.e.", "unseen FID ± s.e.", "sliced Wasserstein distance ± s.e.", "n")
    assert judges.rows[-1][2:4] == ("0.123 ± 0.010", "0.0456 ± 0.0010")
    assert verdicts.rows[0][1:3] == ("not distinguishable", "FID")
    assert [row[5] for row in verdicts.rows[:3]] == ["0.40", "0.40", "0.0040"], "2.84 errors of the difference"


def test_a_rule_that_gives_the_hybrid_itself_is_its_rival(run_folder: Path) -> None:
    run = open_run(run_folder)
    hybrid, full = run.evaluations["hybrid"], run.evaluations["global"]
    rule = dataclasses.replace(hybrid, name="stitched", label="T-Stitch")
    placed = dataclasses.replace(run.evaluations["global_cheap"], name="global_placed", fid=hybrid.fid - 3)
    run.evaluations.update(stitched=rule, global_placed=placed)
    assert rival(run, hybrid, full) is rule
    found = verdict(run)
    assert found.headline.startswith("No gain from locality shown here: at 54 %")
    assert "; it is the schedule of “T-Stitch”, so nothing is gained beyond that rule." in found.headline
    assert sum("the hybrid is this schedule." in sentence for sentence in found.sentences) == 1
    assert hybrid.schedule is not None
    earlier = dataclasses.replace(hybrid.schedule, times=tuple(0.99 * t for t in hybrid.schedule.times))
    run.evaluations["stitched"] = dataclasses.replace(rule, schedule=earlier)
    assert rival(run, hybrid, full) is placed, "at other times it is another schedule"


def test_verdict_without_saving_or_rival() -> None:
    full = judged("global", 12.0, 100.0)
    assert "saves nothing" in headline(judged("hybrid", 1.0, 100.0), full, None)
    assert "no global sampler at the hybrid's cost" in headline(judged("hybrid", 12.0, 30.0), full, None)
    assert "the next higher cost there is" in headline(
        judged("hybrid", 12.0, 30.0), full, judged("global_cheap", 20.0, 60.0)
    )
    assert "which costs less (20 %)" in headline(judged("hybrid", 12.0, 30.0), full, judged("global_cheap", 20.0, 20.0))
    assert headline(judged("hybrid", math.nan, 30.0), full, None).startswith("No verdict")


@given(st.floats(1, 500), st.floats(1, 500), st.floats(0.01, 50), st.floats(0.01, 50))
def test_comparison_is_antisymmetric(a: float, b: float, error_a: float, error_b: float) -> None:
    x, y = judged("x", a, 1.0, error_a), judged("y", b, 1.0, error_b)
    assert {compare(x, y), compare(y, x)} in ({"level"}, {"lower", "higher"})
    assert (compare(x, y) == "level") == (abs(a - b) <= 2 * math.hypot(error_a, error_b))


def test_number_format() -> None:
    assert [num(v) for v in (0.0, 1234567, 0.001234, -2.5, None, math.nan)] == [
        "0",
        "1,234,567",
        "0.00123",
        "−2.50",
        "–",
        "–",
    ]
    assert [pm(12.345, 0.42), pm(12.345, 0.21), pm(1234.5, 18.0), pm(2.0, None)] == [
        "12.3 ± 0.4",
        "12.35 ± 0.21",
        "1,234 ± 18",
        "2.00",
    ]
    assert [percent(31, 100), percent(2, 43), percent(1, 0)] == ["31 %", "4.7 %", "–"]


def test_each_denoiser_has_one_look(run_folder: Path) -> None:
    palette = Palette(open_run(run_folder))
    assert palette.order == ["r1", "r2", "r3", "wiener", "global", "control"]
    looks = [palette[n] for n in palette.order]
    assert len({(look.color, look.linestyle) for look in looks}) == len(looks)
    assert palette["control"].linestyle != "-"


def test_pictures_keep_their_pixels() -> None:
    images = np.arange(5 * 3 * 4, dtype=np.uint8).reshape(5, 1, 3, 4)
    canvas = tile(images, 2)
    assert canvas.shape == (3 * 4 - 1, 2 * 5 - 1)
    assert np.array_equal(canvas[4:7, 5:9], images[3, 0])
    assert (canvas[3] == 255).all()
    # the page shows through between them: white lines on a dark page are none of the picture
    for colours in (1, 3):
        clear = tile(np.repeat(images, colours, 1), 2, clear=True)
        assert clear.shape == (*canvas.shape, colours + 1)
        assert np.array_equal(clear[..., 0], canvas)
        seen = np.asarray(Image.open(io.BytesIO(picture(stack([clear, clear], 0)).png)).getchannel("A"))
        assert (seen[4:7, 5:9] == 255).all()
        assert not seen[3].any()
        assert not seen[len(clear) : len(clear) + 3].any()
    large = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 255, (2, 3, 60, 50), dtype=np.uint8), 2, 2), 2, 3)
    assert np.array_equal(shrink(large), large[..., ::2, ::2])
