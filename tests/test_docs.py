"""README, CONTRIBUTING, CHANGELOG and docs/: short lines and sentences, links that lead somewhere, Python that runs.

Every ```python block of a page runs, in order and in one namespace; ```python no-run says that one cannot.
"""

import re
from pathlib import Path

import docs_prose as prose
import pytest
import typer

import phasewise as pw
import phasewise.bridges.diffusers  # its class is known before a page's tables are put back
from phasewise.cli import app
from studies.__main__ import parser_of
from studies.pages import table_of

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
AT_ROOT = (README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
PAGES = {str(p.relative_to(ROOT)): p for p in (*AT_ROOT, *sorted((ROOT / "docs").rglob("*.md")))}
RUNNING = [name for name, page in PAGES.items() if any(f == "python" for f, _ in prose.code_blocks(page.read_text()))]
LONGEST_SENTENCE, LONGEST_LINE, LONGEST_README = 25, 100, 70


@pytest.fixture(params=sorted(PAGES))
def page(request):
    return PAGES[request.param]


def test_sentences_are_short(page):
    long = [s for s in prose.sentences(page.read_text()) if prose.words(s) > LONGEST_SENTENCE]
    assert not long


def test_no_bracket_in_a_bracket(page):
    assert not [s for s in prose.sentences(page.read_text()) if prose.nested_bracket(s)]


def test_lines_are_short(page):
    assert not prose.long_lines(page.read_text(), LONGEST_LINE)


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= LONGEST_README


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_lead_somewhere(name):
    assert not prose.broken_links(PAGES[name])


def test_every_page_is_listed():
    """docs/README.md names each page once."""
    index = ROOT / "docs" / "README.md"
    listed = [(index.parent / link.partition("#")[0]).resolve() for link in prose.links(index.read_text())]
    assert sorted(listed) == sorted(p for p in PAGES.values() if p not in (*AT_ROOT, index))


def flags_of(words):
    """Those that the command of these words takes, by its own parser; None where it is not ours."""
    if words[0] == "phasewise":
        command = typer.main.get_command(app)
        for word in words[1:]:
            command = getattr(command, "commands", {}).get(word, command)
        return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help"}
    if words[:3] != ["python", "-m", "studies"] or words[3:4] == [] or words[3].startswith("-"):
        return None
    return set(parser_of(words[3])._option_string_actions)


def test_commands_take_their_flags(page):
    """What a page tells to type is no option of yesterday; a study's --list and the like are not looked at."""
    for words in prose.commands(page.read_text()):
        known = flags_of(words)
        unknown = [w for w in words if known is not None and w.startswith("--") and w.partition("=")[0] not in known]
        assert not unknown, " ".join(words)


def test_commands_are_read_with_what_was_said_before():
    text = '```\nR="--data x"\nR="$R --no-cmi"\nphasewise run $R \\\n    --out y  # z\ncp a b\n```\n'
    assert list(prose.commands(text)) == [["phasewise", "run", "--data", "x", "--no-cmi", "--out", "y"]]
    assert "--samples" in flags_of(["phasewise", "run"])
    assert "--n-samples" not in flags_of(["phasewise", "run"])


@pytest.mark.parametrize("name", RUNNING)
def test_python_runs(name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pw.denoisers.io.CLASSES, "_entries", dict(pw.denoisers.io.CLASSES.items()))
    monkeypatch.setattr(pw.scheduling.PENALTIES, "_entries", dict(pw.scheduling.PENALTIES.items()))
    names: dict = {}
    for fence, code in prose.code_blocks(PAGES[name].read_text()):
        if fence == "python":
            exec(compile(code, name, "exec"), names)
        else:
            assert not fence.startswith("python") or fence == "python no-run", fence


def test_savings_are_the_rivals_flops_over_the_hybrids():
    text = (ROOT / "docs/results/savings.md").read_text()
    heads, rows = table_of(text[text.index("| images, side |") :].partition("\n\n")[0])
    assert len(rows) > 15
    for cells in rows:
        row = dict(zip(heads, cells, strict=True))
        rival, hybrid = (float(number) for number in row["MFLOP: rival, hybrid"].split(", "))
        said = re.findall(r"\d+(?:\.\d+)?", row["saving"])
        places = max(len(number.partition(".")[2]) for number in said)
        assert f"{rival / hybrid:.{places}f}" in said, row
