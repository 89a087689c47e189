"""Streams have names: no two purposes share a number, no number stands free, and the streams are those of before."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from phasewise import seeding
from phasewise.seeding import FoldPurpose, Purpose, Stage

SOURCE = Path(seeding.__file__).parent


def module_numbers(tree: ast.Module) -> set[str]:
    """Names that a module binds to numbers (or unpacks from a range) at its top."""
    out: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Name | ast.Attribute):
            values = {type(v.value) for v in ast.walk(node.value) if isinstance(v, ast.Constant)}
            if values == {int}:
                out |= {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return out


def bare_numbers(source: str) -> Iterator[int]:
    """Lines of ``source`` where a stream is opened by a number in place of a purpose."""
    tree = ast.parse(source)
    constants = module_numbers(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) > 1:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            purpose = node.args[1]
            number = isinstance(purpose, ast.Constant) and isinstance(purpose.value, int)
            named = isinstance(purpose, ast.Name) and purpose.id in constants
            if called in ("generator", "mix") and (number or named):
                yield node.lineno


def shifted_seeds(source: str) -> Iterator[int]:
    """Lines of ``source`` where a number is added to a seed."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and isinstance(node.right, ast.Constant):
            left = node.left.attr if isinstance(node.left, ast.Attribute) else getattr(node.left, "id", "")
            if left.endswith("seed"):
                yield node.lineno


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("g = seeding.generator(seed, 11, k)", [1]),
        ("A, B = range(100, 102)\ng = mix(p.seed, B)", [2]),
        ("FOLDS = 200\n\ng = generator(p.seed, FOLDS)", [3]),
        ("g = seeding.generator(seed, Purpose.LOSSES, 0)", []),
        ("g = mix(seed, key, refit)\ngenerator(seed)", []),
    ],
)
def test_the_walker_sees_numbers(source: str, found: list[int]) -> None:
    assert list(bare_numbers(source)) == found
    assert list(shifted_seeds("x = f(config.seed + 1, seed + 2, seed + k, speed + 1)")) == [1, 1]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_stream_has_a_name(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not list(bare_numbers(source))
    assert not list(shifted_seeds(source))


@pytest.mark.parametrize("purposes", [Purpose, FoldPurpose, Stage])
def test_no_two_purposes_share_a_number(purposes: type[Purpose]) -> None:
    assert len(purposes) == len(purposes.__members__)
    streams = [seeding.mix(7, purpose) for purpose in purposes]
    assert len(set(streams)) == len(purposes)


def test_every_purpose_is_used() -> None:
    text = "".join(p.read_text(encoding="utf-8") for p in SOURCE.rglob("*.py"))
    assert [p.name for p in Purpose if f"Purpose.{p.name}" not in text] == []


def test_streams_are_those_of_before() -> None:
    """Figures of earlier runs rest on them."""
    assert seeding.mix(3, Purpose.CMI_FOLD, 1) == seeding.mix(3, 21, 1) == 8249392681725875185
    drawn = torch.randint(1000, (4,), generator=seeding.generator(0, Purpose.TRAINING_NOISE, 5))
    assert drawn.tolist() == torch.randint(1000, (4,), generator=seeding.generator(0, 1, 5)).tolist()
    numbers = {
        "TRAINING_NOISE": 1, "TRAINING_ORDER": 2, "TRAINING_VALIDATION": 3, "LOSSES": 10, "PENALTY_NOISE": 11,
        "CMI_FOLDS": 20, "CMI_FOLD": 21, "SOLVER_NOISE": 30, "CRITIC_SPLIT": 100, "CRITIC_INIT": 101,
        "CRITIC_BATCHES": 102, "CRITIC_FROZEN_NOISE": 103, "CRITIC_SCORING": 104, "CRITIC_CALIBRATION": 105,
        "GAUSSIAN_FOLDS": 200, "NEIGHBOURS_SPLIT": 300, "NEIGHBOURS_NOISE": 301,
    }  # fmt: skip
    assert {name: int(Purpose[name]) for name in numbers} == numbers
    assert [seeding.stage_seed(7, stage) for stage in Stage] == [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
