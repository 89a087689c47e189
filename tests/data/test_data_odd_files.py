"""Odd files as data: answered at once, within bounded memory, and by name."""

import io
import os
import zipfile
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest
from image_files import pixels, png, refused, table, write_folder
from PIL import Image

from phasewise.data import arrays, load_images, readers, sources
from phasewise.data.decode import decode
from phasewise.errors import DataError


@pytest.mark.parametrize("name", ["pipe", "pipe.npz", "pipe.npy", "pipe.parquet", "pipe.png"])
def test_pipes_are_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refused(tmp_path / name, str(tmp_path / name))


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin", "/dev/tty"])
def test_devices(name, tmp_path):
    if not os.path.exists(name):
        pytest.skip(f"no {name} here")
    (tmp_path / "link.npy").symlink_to(name)
    refused(name, name)
    refused(tmp_path / "link.npy", "link.npy")


def test_a_pipe_among_shards_and_images(tmp_path):
    write_folder(tmp_path / "set", pixels(30))
    os.mkfifo(tmp_path / "set" / "900.png")
    assert sum(load_images(tmp_path / "set").sizes.values()) == 30
    os.mkfifo(tmp_path / "set" / "train.parquet")
    refused(tmp_path / "set", "train.parquet is no regular file")


def test_links_that_lead_in_circles(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", "there is no file or folder")
    refused(tmp_path / "loop" / "a.npz", "there is no file or folder")
    write_folder(tmp_path / "set", pixels(30), ["cat", "dog"] * 15)
    (tmp_path / "set" / "cat" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "cat" / "999.png").symlink_to(tmp_path / "set" / "cat" / "999.png")
    assert sum(load_images(tmp_path / "set").sizes.values()) == 30
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    refused(tmp_path / "set", "again is a link that leads back to")


def header(shape):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return out.getvalue()


def test_arrays_that_claim_more_than_there_is(tmp_path):
    claim = header((10**6, 1000, 125))  # 931 GiB
    (tmp_path / "a.npy").write_bytes(claim + bytes(100))
    refused(tmp_path / "a.npy", "a.npy is not a whole")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", claim + bytes(100))
    refused(tmp_path / "a.npz", "[images] claims 1e+03 GB but holds")
    (tmp_path / "b.npy").write_bytes(header((-5, 4, 4)) + bytes(100))
    refused(tmp_path / "b.npy", "not a whole")


def test_arrays_that_unpack_to_too_much(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((40, 200, 200)))
    monkeypatch.setattr(arrays, "BOMB_BYTES", 2**20)
    refused(tmp_path / "a.npz", "[images] would unpack from", "which no pictures do")
    np.savez(tmp_path / "a.npz", images=pixels(40))
    monkeypatch.setattr(arrays.memory, "available", lambda: 1000)
    refused(tmp_path / "a.npz", "takes 1.33e-06 GB of memory", "numpy.save as .npy")
    np.save(tmp_path / "a.npy", pixels(40))
    monkeypatch.undo()
    assert load_images(tmp_path / "a.npy").sizes["train"] == 28


def test_only_what_is_taken_is_unpacked(tmp_path):
    """Objects beside the images do no harm; objects for images are refused."""
    np.savez(tmp_path / "a.npz", images=pixels(), notes=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert load_images(tmp_path / "a.npz").sizes["train"] == 28
    refused(tmp_path / "a.npz", "holds Python objects (pickle), which are never loaded", label_column="notes")


def claimed_png(width, height):
    """A PNG of a few bytes whose header claims a large image."""
    blob = bytearray(png(pixels(1)[0]))
    blob[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    blob[29:33] = zlib.crc32(bytes(blob[12:29])).to_bytes(4, "big")
    return bytes(blob)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_beyond_the_limit_are_not_decoded(tmp_path):
    for side in (13_000, 40_000):
        folder = tmp_path / str(side)
        folder.mkdir()
        for k in range(30):
            (folder / f"{k:02d}.png").write_bytes(claimed_png(side, side))
        refused(folder, "00.png", "13000x13000 pixels" if side == 13_000 else "cannot be decoded")


def test_a_row_group_that_unpacks_to_too_much(tmp_path, monkeypatch):
    from phasewise.data import tables

    pq.write_table(table(pixels(40)), tmp_path / "a.parquet")
    monkeypatch.setattr(tables, "MAX_PAGE", 1000)
    refused(tmp_path / "a.parquet", "a.parquet has a row group that unpacks to", "write it with row groups of at most")


def test_a_home_nobody_knows(monkeypatch, tmp_path):
    refused("~nobody-of-this-name/photos", "cannot find the home folder", "~nobody-of-this-name/photos")
    refused("mnist", "cannot find the home folder", data_dir="~nobody-of-this-name/data")
    with pytest.raises(DataError, match="cannot find the home folder"):
        sources.source_state("~nobody-of-this-name/photos")

    def unset(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(sources.Path, "expanduser", unset)
    refused("~/photos", "cannot find the home folder that ~/photos begins with")


def test_a_class_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write_folder(tmp_path, pixels(60), ["ant", "bee", "cow"] * 20)
    usual = os.scandir

    def closed(path):
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(readers.os, "scandir", closed)
    refused(tmp_path, f"cannot read the folder {tmp_path / 'bee'}: Permission denied")


def test_the_marks_of_turned_images_are_obeyed_in_png_too():
    image = Image.fromarray(pixels(1, (4, 8, 3))[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("png", "tiff", "webp", "jpeg"):
        out = io.BytesIO()
        image.save(out, kind, exif=exif)
        assert decode(out.getvalue(), lambda: "here").shape == (3, 8, 4), kind
    out = io.BytesIO()
    image.save(out, "png", exif=exif)
    turned = np.rot90(np.asarray(image), -1).transpose(2, 0, 1)
    assert np.array_equal(decode(out.getvalue(), lambda: "here"), turned)
