"""Markdown as a reader meets it: blocks of prose, their sentences, their words; headings, links and code blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

FENCE = re.compile(r"^```(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[([^\[\]]*)\]\(([^()\s]+)\)")
MADE = re.compile(r"<!-- table: .*?<!-- end of table -->|<!--.*?-->", re.DOTALL)
"""What a study writes into a page, between its marks; and remarks to the writer."""
ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
VARIABLE = re.compile(r"\$([A-Z]+)")
ABBREVIATIONS = ("e.g.", "i.e.", "et al.", "cf.", "vs.", "eq.", "eqs.", "fig.", "sec.", "approx.", "no.")
ENDS = re.compile(r"[.!?][\"'*_)\]]*(?=\s+[\"'*_(\[]*[A-Z0-9`.])")
"""An end of a sentence: a mark, whatever closes after it, white space, and something that can begin the next one."""


def code_blocks(text: str) -> list[tuple[str, str]]:
    """(what the fence says, the code) of every fenced block."""
    return [(found[1].strip(), found[2]) for found in FENCE.finditer(text)]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command line in a block that names no language, what NAME="..." said before put in."""
    said: dict[str, str] = {}
    for fence, code in code_blocks(text):
        for line in code.replace("\\\n", " ").splitlines() if fence in ("", "bash") else ():
            line = VARIABLE.sub(lambda found: said.get(found[1], found[0]), line)
            if assigned := re.fullmatch(r'([A-Z]+)="([^"]*)"', line.strip()):
                said[assigned[1]] = assigned[2]
            yield from (
                shlex.split(part, comments=True)
                for part in line.split("&&")
                if part.strip().startswith(("phasewise ", "python -m "))
            )


def blocks(text: str) -> Iterator[str]:
    """Paragraphs and list items, each on one line: no code, tables, comments or headings."""
    text = MADE.sub("", FENCE.sub("\n", text))
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        apart = not line.strip() or line.lstrip().startswith(("|", "#"))
        if (apart or ITEM.match(line)) and block:
            yield " ".join(block)
            block = []
        if not apart:
            block.append(ITEM.sub("", line).strip())


def plain(block: str) -> str:
    """The block as it is read: a link is its text, inline code is one word, a picture is nothing."""
    block = re.sub(r"!\[[^\[\]]*\]\([^()\s]+\)", "", block)
    return LINK.sub(r"\1", re.sub(r"`[^`]+`", "CODE", block)).strip()


def sentences(text: str) -> Iterator[str]:
    for block in blocks(text):
        rest, start = plain(block), 0
        for end in ENDS.finditer(rest):
            if not rest[start : end.start() + 1].lower().endswith(ABBREVIATIONS):
                yield rest[start : end.end()].strip()
                start = end.end()
        if rest[start:].strip():
            yield rest[start:].strip()


def words(sentence: str) -> int:
    return sum(any(c.isalnum() for c in token) for token in sentence.split())


def nested_bracket(sentence: str) -> bool:
    """Whether a bracket opens inside another, of whatever kind."""
    depth = 0
    for c in sentence:
        depth += (c in "([{") - (c in ")]}")
        if depth > 1:
            return True
    return False


def links(text: str) -> list[str]:
    return [found[2] for found in LINK.finditer(FENCE.sub("\n", text))]


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    heads = re.findall(r"^#+\s+(.*?)\s*$", FENCE.sub("\n", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", plain(head.replace("`", "")).lower()).replace(" ", "-") for head in heads}


def long_lines(text: str, limit: int) -> list[str]:
    """Lines beyond ``limit`` outside code and tables; the address of a link does not count."""
    lines = MADE.sub("", FENCE.sub("\n", text)).splitlines()
    return [s for s in lines if not s.lstrip().startswith("|") and len(LINK.sub(r"[\1]", s)) > limit]


def broken_links(page: Path) -> list[str]:
    """Relative links whose file or heading is not there."""
    broken = []
    for link in links(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        address, _, anchor = link.partition("#")
        file = (page.parent / address).resolve() if address else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(link)
    return broken
