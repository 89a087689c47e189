"""Decoded images kept on disk: found again by content, never out of date, never half-written, and never needed."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from image_files import pixels, table, write_folder

from phasewise.data import cache, decode, load_images, parts
from phasewise.errors import DataError, PhasewiseWarning


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALL", 100)
    return tmp_path / "cache" / "images"


@pytest.fixture
def decodings(monkeypatch):
    """Grows by one with every image that is decoded."""
    seen = []
    usual = decode.decode
    monkeypatch.setattr(decode, "decode", lambda blob, where: seen.append(1) or usual(blob, where))
    return seen


def test_decoded_once_and_the_same_every_time(tmp_path, folder, decodings):
    pq.write_table(table(pixels(40, (6, 5, 3)), np.arange(40) % 3), tmp_path / "set.parquet")
    without = load_images(tmp_path / "set.parquet", cache=False)
    assert not folder.exists()
    first = load_images(tmp_path / "set.parquet")
    again = load_images(tmp_path / "set.parquet", seed=3)
    assert len(decodings) == 80
    assert first.fingerprint == without.fingerprint
    assert again.fingerprint == load_images(tmp_path / "set.parquet", seed=3, cache=False).fingerprint
    assert len(list(folder.iterdir())) == 1, "and nothing half-written beside it"
    first.train.zero_()
    assert load_images(tmp_path / "set.parquet").fingerprint == without.fingerprint, "what is kept cannot be written"


def test_content_and_form_name_it(tmp_path, folder, decodings):
    images = pixels(30)
    write_folder(tmp_path / "set", images)
    seen = {load_images(tmp_path / "set").fingerprint}
    (tmp_path / "set").rename(tmp_path / "elsewhere")
    assert load_images(tmp_path / "elsewhere").fingerprint in seen
    assert len(decodings) == 30, "the same content elsewhere is not decoded again"
    write_folder(tmp_path / "elsewhere", images[::-1].copy())
    seen.add(load_images(tmp_path / "elsewhere").fingerprint)
    seen.add(load_images(tmp_path / "elsewhere", resize=(3, 5)).fingerprint)
    assert len(seen) == 3, "other pixels, and another form, are others"
    assert len(list(folder.iterdir())) == 3


def test_a_damaged_file_is_made_again(tmp_path, folder):
    write_folder(tmp_path / "set", pixels(30))
    good = load_images(tmp_path / "set").fingerprint
    (kept,) = folder.iterdir()
    for content in (b"", kept.read_bytes()[:-5], b"junk" * 100):
        kept.write_bytes(content)
        assert load_images(tmp_path / "set").fingerprint == good
    assert np.load(kept).shape == (30, 1, 6, 5)


def test_few_of_many_are_not_kept(tmp_path, folder, monkeypatch):
    write_folder(tmp_path / "set", pixels(30))
    load_images(tmp_path / "set", limit=5)
    monkeypatch.setattr(cache, "SMALL", 10**6)
    load_images(tmp_path / "set")
    assert not folder.exists() or not list(folder.iterdir())


def test_a_damaged_image_leaves_nothing(tmp_path, folder):
    write_folder(tmp_path / "set", pixels(30))
    (tmp_path / "set" / "011.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"011\.png cannot be decoded"):
        load_images(tmp_path / "set")
    assert not list(folder.iterdir())


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PHASEWISE_CACHE", "")
    assert cache.cache_folder() is None
    monkeypatch.delenv("PHASEWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "phasewise" / "images"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "phasewise" / "images"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PHASEWISE_CACHE", str(tmp_path / "file"))
    write_folder(tmp_path / "set", pixels(30))
    with pytest.warns(PhasewiseWarning, match="cannot be kept in"):
        assert load_images(tmp_path / "set").sizes["train"] == 21


def test_what_does_not_fit_into_memory_is_mapped(tmp_path, folder, monkeypatch):
    """Float pixels beyond half of what is free lie in a file without a name; the interface is the same."""
    write_folder(tmp_path / "set", pixels(30))
    inside = load_images(tmp_path / "set")
    monkeypatch.setattr(cache.memory, "available", lambda: 2000)
    outside = load_images(tmp_path / "set")
    assert isinstance(cache.large_array(tuple(outside.train.shape)), np.memmap)
    assert outside.fingerprint == inside.fingerprint
    assert torch.equal(outside.train[:4] + 1, inside.train[:4] + 1)
    assert len(list(folder.iterdir())) == 1

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"no room on disk \(No space left on device\); use limit, crop or resize"):
        load_images(tmp_path / "set")


def test_pixels_are_worked_on_a_few_at_a_time(monkeypatch):
    whole = load_images("digits").fingerprint
    monkeypatch.setattr(parts, "CHUNK", 200)
    assert load_images("digits").fingerprint == whole
