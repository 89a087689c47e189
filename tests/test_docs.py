"""README and docs/: short lines, short sentences, links that lead somewhere, and Python that runs as it stands.

Every ```python block of a page runs, in order and in one namespace; ```python no-run says that one cannot.
"""

from pathlib import Path

import docs_prose as prose
import pytest

import phasewise as pw
from phasewise.results import LossTable, PriceList

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = {str(p.relative_to(ROOT)): p for p in (README, *sorted((ROOT / "docs").rglob("*.md")))}
TO_BE_REWRITTEN = {"docs/architecture.md"}
RUNNING = [name for name, page in PAGES.items() if any(f == "python" for f, _ in prose.code_blocks(page.read_text()))]
LONGEST_SENTENCE, LONGEST_LINE, LONGEST_README = 25, 100, 70


@pytest.fixture(params=sorted(PAGES))
def page(request):
    if request.param in TO_BE_REWRITTEN:
        pytest.xfail("to be rewritten")
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
    assert sorted(listed) == sorted(p for p in PAGES.values() if p not in (README, index))


@pytest.mark.parametrize("name", RUNNING)
def test_python_runs(name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    _until_merged(monkeypatch)
    names: dict = {}
    for fence, code in prose.code_blocks(PAGES[name].read_text()):
        if fence == "python":
            exec(compile(code, name, "exec"), names)
        else:
            assert not fence.startswith("python") or fence == "python no-run", fence


def _until_merged(monkeypatch):
    """What the pages use of other rooms that are being built: goes when they are there."""
    kind = type(pw.load_pretrained("mnist"))
    for name, record in (("prices", PriceList), ("losses", LossTable)):
        file = f"records/{name}.json"
        if not hasattr(kind, name):
            read = property(lambda self, file=file, record=record: record.load(self.folder / file))
            monkeypatch.setattr(kind, name, read, raising=False)
    if not hasattr(pw.denoisers, "register_denoiser"):
        classes = pw.denoisers.io.CLASSES
        monkeypatch.setattr(pw.denoisers.io, "CLASSES", dict(classes))
        register = lambda cls: pw.denoisers.io.CLASSES.setdefault(cls.__name__, cls)  # noqa: E731
        monkeypatch.setattr(pw.denoisers, "register_denoiser", register, raising=False)


# The reader of prose itself, on what it has to tell apart.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two.", ["One.", "Two."]),
        ("FID is .47 at 0.5 nats. Next.", ["FID is .47 at 0.5 nats.", "Next."]),
        (
            "It costs more, e.g. twice. So does Hu et al. 2025.",
            ["It costs more, e.g. twice.", "So does Hu et al. 2025."],
        ),
        ("See [a, b](c.d.md) now. [E](f.md) too.", ["See a, b now.", "E too."]),
        ("Call `a.b(c). D` once.", ["Call CODE once."]),
        ("It ends. `x` begins.", ["It ends.", "CODE begins."]),
        ("**It ends.** Next.", ["**It ends.**", "Next."]),
        ("- one item\n- another\n  that goes on", ["one item", "another that goes on"]),
        ("# A head. With two\n\n| a | b |\n\n```\ncode. Code\n```\nProse\nin two lines.", ["Prose in two lines."]),
        ("Ends in .5. Then .6 comes.", ["Ends in .5.", "Then .6 comes."]),
    ],
)
def test_sentences_are_told_apart(text, expected):
    assert list(prose.sentences(text)) == expected


@pytest.mark.parametrize(("text", "count"), [("0.47 ± 0.02 at t = .5", 5), ("a-b CODE, c", 3), ("- / |", 0)])
def test_words(text, count):
    assert prose.words(text) == count


@pytest.mark.parametrize(("text", "nested"), [("a (b) [c]", False), ("a (b [c])", True), ("((a))", True)])
def test_brackets(text, nested):
    assert prose.nested_bracket(text) is nested


def test_long_lines_and_links():
    text = "x" * 101 + "\n[a](" + "y" * 200 + ")\n| " + "z" * 200 + " |\n```\n" + "c" * 200 + "\n```\n"
    assert prose.long_lines(text, 100) == ["x" * 101]
    assert prose.links(text) == ["y" * 200]
    assert prose.anchors("# What `it` is, in short\n## A: b") == {"what-it-is-in-short", "a-b"}
