"""``python -m studies``: one entry for every study."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from inspect import getdoc
from pathlib import Path

from phasewise.errors import PhasewiseError
from studies.catalogue import STUDIES
from studies.options import add_flags, given_options, make_options
from studies.study import Study, run_study


class Wide(argparse.RawDescriptionHelpFormatter):
    """An option a line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=120)


def questions() -> str:
    """Every study and its question, one a line."""
    width = max(map(len, STUDIES))
    return "\n".join(f"{name:<{width}}  {STUDIES[name].question}" for name in sorted(STUDIES))


def parser_of(name: str) -> argparse.ArgumentParser:
    """The flags of one study: its own options, and those of every study."""
    kind = STUDIES[name]
    parser = argparse.ArgumentParser(
        prog=f"python -m studies {name}",
        usage="%(prog)s [options]",
        description=f"{kind.question}\n\n{getdoc(kind) or ''}",
        formatter_class=Wide,
    )
    add_flags(parser.add_argument_group("what to measure"), kind.options_type)
    every = parser.add_argument_group("every study")
    every.add_argument("--quick", action="store_true", help="a tiny form, in seconds: does it run?")
    every.add_argument("--summary", action="store_true", help="measure nothing, show what is there")
    every.add_argument("--out", type=Path, help="folder of the answers; the study goes on from what lies there")
    if kind.outline is not Study.outline:
        every.add_argument("--list", action="store_true", help="measure nothing, say what there is to do")
    every.add_argument("--docs", type=Path, help="docs folder: put tables and figures into the study's page there")
    return parser


def run_one(name: str, arguments: Sequence[str]) -> None:
    kind = STUDIES[name]
    parser = parser_of(name)
    parsed = parser.parse_args(arguments)
    if parsed.quick and parsed.docs:
        parser.error("the quick form's figures do not belong into a page: leave out --docs or --quick")
    options = make_options(kind.options_type, quick=parsed.quick, **given_options(kind.options_type, parsed))
    quick = Path("runs/studies") / f"{name}-quick" if parsed.quick else None
    if parsed.quick:
        print("the quick form: it shows that the study runs; its figures mean nothing")
    study = kind(options, parsed.out or quick)
    if getattr(parsed, "list", False):
        print(study.outline())
        return
    run_study(study, docs=parsed.docs, summary=parsed.summary)


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "--list"):
        print(
            questions()
            if words[:1] == ["--list"]
            else f"{__doc__}\n\n{questions()}\n\n  NAME --help  its options;  NAME --quick  does it run?"
        )
        return 0
    if words[0] not in STUDIES:
        print(f"no study {words[0]!r}; there are\n{questions()}", file=sys.stderr)
        return 2
    try:
        run_one(words[0], words[1:])
    except PhasewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
