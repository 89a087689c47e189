"""Every study in its quick form: it runs, goes on without measuring again, and fills its page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import phasewise as pw
from phasewise.errors import PhasewiseError
from phasewise.runs import Run, make_config
from studies.__main__ import main, parser_of, questions
from studies.catalogue import STUDIES
from studies.options import flags, given_options, make_options
from studies.pages import END, markdown, marks_in, replace_table, start_mark, table_of, with_others
from studies.study import Shown, Study, run_study
from studies.subject import subject_of

ROOT = Path(__file__).resolve().parents[2]


def quick(name: str, folder: Path) -> Study:
    kind = STUDIES[name]
    return kind(make_options(kind.options_type, quick=True), folder / "answers")


def pages_for(study: Study, marks: list[str], folder: Path) -> dict[str, Path]:
    """By mark: an empty page with the study's marks that belong there, below a docs folder."""
    found = {mark: folder / "docs" / study.pages.get(mark, str(study.page)) for mark in marks}
    for page in set(found.values()):
        page.parent.mkdir(parents=True, exist_ok=True)
        places = [f"{start_mark(study.name, mark)}\n{END}" for mark in marks if found[mark] == page]
        page.write_text("\n\n".join(places), encoding="utf-8")
    return found


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_a_study_answers_and_goes_on(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    first: Shown = run_study(quick(name, tmp_path), say=said.append)
    assert first.measured > 0
    assert first.tables
    assert all(text.count("\n|") >= 2 for text in first.tables.values())
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in first.figures)
    study = quick(name, tmp_path)
    pages = pages_for(study, list(first.tables), tmp_path) if study.page else {}
    second = run_study(study, docs=tmp_path / "docs", say=said.append)
    assert (second.measured, second.tables) == (0, first.tables)
    if study.pictures is not None:
        assert all(file.parent == tmp_path / "docs" / study.pictures for file in second.figures)
    elif study.page:
        assert all(file.parent == (tmp_path / "docs" / study.page).with_suffix("") for file in second.figures)
    for mark, page in pages.items():
        assert first.tables[mark] in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_every_option_has_its_flag_and_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(f"--{field.name.replace('_', '-')} " in shown for field in flags(STUDIES[name].options_type))
    assert len(shown.splitlines()) < 40


def test_the_list_has_every_question_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in lines] == sorted(STUDIES)
    assert all(re.search(r"[A-Z].*\?$", line) for line in lines)
    assert questions().splitlines() == lines


def test_an_unknown_study_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert "closed_forms" in capsys.readouterr().err


def test_an_answer_to_another_question_stops_the_study(tmp_path: Path) -> None:
    kind = STUDIES["exact_optimum"]
    small = make_options(kind.options_type, quick=True, radii=(1,))
    run_study(kind(small, tmp_path), say=lambda _: None)
    other = make_options(kind.options_type, quick=True, radii=(1,), mass=0.2)
    with pytest.raises(PhasewiseError, match="delete it"):
        run_study(kind(other, tmp_path), say=lambda _: None)


def test_quick_answers_do_not_go_into_a_page(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["exact_optimum", "--quick", "--docs", str(tmp_path)])


def test_a_page_without_the_mark_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{start_mark('a', '')}\n{start_mark('a', 'b')}\nold\n{END}\nafter\n", encoding="utf-8")
    for mark in ("", "c"):  # no end mark of its own, no mark at all
        with pytest.raises(PhasewiseError, match="no place"):
            replace_table(page, "a", mark, "new")
    replace_table(page, "a", "b", "new")
    assert page.read_text(encoding="utf-8").endswith(f"{start_mark('a', 'b')}\n\nnew\n\n{END}\nafter\n")


def test_rows_measured_elsewhere_stay_beside_new_ones(tmp_path: Path) -> None:
    page, heads = tmp_path / "page.md", ("images", "kind", "value")
    rows = [["set9", "a", "1"], ["", "", "2"], ["set10", "a", "3"], ["set10", "b", "4"], ["", "", "5"]]
    page.write_text(f"{start_mark('s', 'm')}\n\n{markdown(heads, rows, 'said')}\n\n{END}\n", encoding="utf-8")
    new = [["set10", "a", "30"], ["", "", "31"], ["set8", "a", "6"]]
    text = with_others(page, "s", "m", markdown(heads, new, "now", "and then"), (0, 1))
    assert table_of(text)[1] == [new[2], *rows[:2], *rows[3:], *new[:2]]
    assert text.endswith("|\n\nnow\n\nand then")
    other = markdown(("images", "kind"), [["set8", "a"]])
    assert with_others(page, "s", "m", other, (0, 1)) == other, "of other columns nothing is kept"
    assert (
        with_others(page, "s", "none", text, (0, 1)) == with_others(tmp_path / "no.md", "s", "m", text, (0, 1)) == text
    )


def test_a_run_folder_is_a_subject(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    config = make_config(8, data="digits", features="pca", radii=(1,), cheap_globals=())
    run.claim(config, "phasewise run", "0")
    for member in config.members:
        pw.save_denoiser(pw.LocalDenoiser((1, 8, 8), 1), run.model(member.name))
    found = subject_of(None, str(run.root), None, None)
    assert found.name == "run"
    assert {"global", "r1"} <= set(found.members)
    assert "control" not in found.members
    plan = pw.HybridSchedule(pw.time_grid(2), ("global", "r1"))
    assert found.samples(plan, 3, seed=0).shape == (3, 1, 8, 8)
    assert len(found.real) == len(found.data.test)


def test_a_subject_is_a_shipped_set_or_a_run_folder() -> None:
    for pretrained, run in (("mnist", "runs/digits"), (None, None)):
        with pytest.raises(PhasewiseError, match="either"):
            subject_of(pretrained, run, None, None)


def commands() -> list[list[str]]:
    """Words after ``python -m studies`` of every such command in the pages, the shell's variables filled in."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        known: dict[str, str] = {}
        for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            known |= dict(re.findall(r'\b([A-Z])="([^"]*)"', line))
            filled = re.sub(r"\$([A-Z])\b", lambda match, known=known: known.get(match[1], match[0]), line)
            if not re.match(r"[A-Z]=", line):
                found += re.findall(r"python -m studies ([^`]*)", filled)
    return [shlex.split(command, comments=True) for command in found]


def test_every_command_in_the_pages_is_one_that_the_studies_take() -> None:
    for words in commands():
        if words[0].isupper() or words[0].startswith("-"):  # NAME, --list
            continue
        name, *rest = words
        kind = STUDIES[name]
        parsed = parser_of(name).parse_args(rest)
        make_options(kind.options_type, **given_options(kind.options_type, parsed))


def test_every_table_of_a_page_is_a_study_of_that_page_and_no_study_lacks_its_table() -> None:
    pages = {f"results/{page.name}": page for page in (ROOT / "docs" / "results").glob("*.md")}
    shown = {(page, study) for page, file in pages.items() for study, _ in marks_in(file)}
    own = {(page, name) for name, study in STUDIES.items() for page in (study.page, *study.pages.values())}
    assert shown == {(page, name) for page, name in own if page in pages}
    for name, study in STUDIES.items():
        assert all((name, mark) in marks_in(pages[page]) for mark, page in study.pages.items())
