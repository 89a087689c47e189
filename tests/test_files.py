"""Files are whole or absent: a write that fails leaves the old file and nothing else, and says what to do."""

from __future__ import annotations

import errno
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from phasewise import files
from phasewise.errors import PhasewiseError
from phasewise.files import beneath, read_json, sweep, write_bytes, write_json, write_text


def fail_with(number: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


class FullDisk(io.BytesIO):
    """Takes half of what it is given, then the disk is full; the half is on the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def write(self, content: bytes) -> int:  # type: ignore[override]
        self.path.write_bytes(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_folder_is_made_and_the_file_written_and_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.bin"
    assert write_bytes(path, b"one") == path
    assert path.read_bytes() == b"one"
    write_bytes(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["x.bin"]


def test_text_is_utf8_and_json_comes_back(tmp_path: Path) -> None:
    assert write_text(tmp_path / "x.txt", "0.5 ± 0.1\n").read_bytes() == "0.5 ± 0.1\n".encode()
    value = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    assert read_json(write_json(tmp_path / "x.json", value)) == value


def test_json_without_a_standard_meaning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("stage", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, number: int
) -> None:
    path = write_bytes(tmp_path / "x.bin", b"old")
    if stage == "write":
        monkeypatch.setattr(files, "open", lambda name, mode: FullDisk(name), raising=False)
    else:
        monkeypatch.setattr(files.os, stage, fail_with(number))
    with pytest.raises(PhasewiseError, match=r"no space left to write .*x\.bin.*run the same command again"):
        write_bytes(path, b"new content")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_another_failure_names_the_file_and_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_bytes(tmp_path / "x.bin", b"old")
    monkeypatch.setattr(files.os, "replace", fail_with(errno.EACCES))
    with pytest.raises(PhasewiseError, match=r"cannot write .*x\.bin: Permission denied"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file, not a folder")
    with pytest.raises(PhasewiseError, match=r"cannot write .*x\.bin"):
        write_bytes(tmp_path / "a" / "x.bin", b"new")


def test_unreadable_json_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(PhasewiseError, match=r"cannot read .*none\.json: No such file"):
        read_json(tmp_path / "none.json")
    for content in (b'{"a": 1', b"\xff\xfe\x00", b""):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(PhasewiseError, match=r"x\.json is not valid JSON .*; delete it and run again"):
            read_json(tmp_path / "x.json")


def test_threads_may_write_one_file_while_others_read_it(tmp_path: Path) -> None:
    path, wrong = write_json(tmp_path / "x.json", ["0"] * 2000), []

    def work(name: str) -> None:
        for _ in range(25):
            write_json(path, [name] * 2000)
            found = read_json(path)
            if len(set(found)) != 1 or len(found) != 2000:
                wrong.append(found)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, "1234"))
    assert not wrong
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_planted_link_is_neither_followed_nor_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = write_text(tmp_path / "victim", "mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 2 * n)  # even where the name were known
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".x.json.{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(PhasewiseError, match="cannot write"):
        write_json(tmp_path / "run" / "x.json", [1])
    assert victim.read_text() == "mine"


def test_a_link_in_the_place_of_the_file_is_replaced(tmp_path: Path) -> None:
    victim = write_text(tmp_path / "victim", "mine")
    (tmp_path / "x.json").symlink_to(victim)
    write_json(tmp_path / "x.json", [1])
    assert (victim.read_text(), read_json(tmp_path / "x.json")) == ("mine", [1])


def test_a_long_name_has_room_for_the_temporary_one(tmp_path: Path) -> None:
    assert read_json(write_json(tmp_path / ("x" * 250), [1])) == [1]


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    left = [tmp_path / f".run.json.{'a1' * 8}.tmp", tmp_path / "models" / f".w.{'0' * 16}.tmp"]
    kept = [tmp_path / ".hidden", tmp_path / "a.tmp", tmp_path / ".x.tmp", tmp_path / "models" / "config.json"]
    for path in (*left, *kept):
        write_text(path, "x")
    outside = write_text(tmp_path.parent / f"outside-{tmp_path.name}" / left[0].name, "x")
    (tmp_path / "link").symlink_to(outside.parent)
    sweep(tmp_path)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in (*kept, outside))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/x", "a\\b", "a\0b", "x" * 300, 3])
def test_a_name_is_one_place_right_in_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(PhasewiseError, match="a member's name becomes a folder"):
        beneath(tmp_path, name, "member's name")
    assert beneath(tmp_path, "r1") == tmp_path / "r1"
