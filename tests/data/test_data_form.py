"""The form of images: areas averaged exactly, central cuts, and the same form whatever the images came in."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import pixels, png, refused, table, write_folder
from torch.nn import functional as F

from phasewise.data import KNOWN, first_look, load_images
from phasewise.data.form import Form, average_areas
from phasewise.runs.sizes import NAMED


def test_two_by_two_blocks_are_averaged_exactly(tmp_path):
    images = pixels(40, (8, 12, 3))
    np.savez(tmp_path / "set.npz", images=images)
    whole, half = load_images(tmp_path / "set.npz"), load_images(tmp_path / "set.npz", resize=(4, 6))
    assert half.image_shape == (3, 4, 6)
    torch.testing.assert_close(half.train, F.avg_pool2d(whole.train, 2), atol=1e-7, rtol=0)
    blocks = images.reshape(40, 4, 2, 6, 2, 3).astype(int).sum((2, 4))
    averaged = average_areas(images.transpose(0, 3, 1, 2), (4, 6))
    assert np.array_equal(averaged, (blocks / 4).transpose(0, 3, 1, 2).astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.data(), st.sampled_from([np.uint8, np.uint16, np.float64]),
)  # fmt: skip
def test_every_ratio_shares_pixels_by_area(height, width, data, kind):
    """Against the definition: every new pixel is the integral over its area, so the mean over all stays."""
    rows, columns = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    images = np.random.default_rng(height * 10 + width).integers(0, 256, (2, 1, height, width)).astype(kind)

    def shares(size, n):  # (n, size): how much of an old pixel lies in a new one
        ends = np.arange(n + 1) * size / n
        return np.clip(
            np.minimum(ends[1:, None], np.arange(1, size + 1)) - np.maximum(ends[:-1, None], np.arange(size)), 0, 1
        )

    down, across = shares(height, rows) * rows / height, shares(width, columns) * columns / width
    got = average_areas(images, (rows, columns))
    np.testing.assert_allclose(got, down @ images.astype(float) @ across.T, atol=1e-4)
    np.testing.assert_allclose(got.mean((2, 3)), images.mean((2, 3)), atol=1e-4)
    assert got.min() >= images.min()
    assert got.max() <= images.max()


def test_resized_once_or_twice_is_the_same():
    images = torch.rand(30, 1, 12, 12)
    at_once, twice = load_images(images, resize=3), load_images(load_images(images, resize=6).train, resize=3)
    torch.testing.assert_close(at_once.train[twice.train.shape[0] - 1], at_once.train[twice.train.shape[0] - 1])
    torch.testing.assert_close(F.avg_pool2d(load_images(images).train, 4), at_once.train)


def test_the_same_form_from_every_source(tmp_path):
    images = pixels(40, (9, 7, 3))
    np.savez(tmp_path / "set.npz", images=images)
    pq.write_table(table(images), tmp_path / "set.parquet")
    write_folder(tmp_path / "set", images)
    first = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    options = {"crop": "square", "resize": 3, "color": "gray", "pixel_range": (-1, 1)}
    data = [
        load_images(source, **options) for source in (first, *(tmp_path / f"set{k}" for k in ("", ".npz", ".parquet")))
    ]
    assert {x.fingerprint for x in data} == {data[0].fingerprint}
    assert (data[0].image_shape, len(data[0].train)) == first_look(tmp_path / "set", **options) == ((1, 3, 3), 28)
    wanted = F.avg_pool2d(load_images(first, color="gray").train[:, :, 1:8, :][:, :, :6, :6], 3)
    assert wanted.shape[1:] == (1, 2, 2)
    cut = load_images(first, crop=(6, 6), resize=2, color="gray")
    torch.testing.assert_close(cut.train, wanted, atol=1e-6, rtol=0)


def test_photographs_of_many_sizes_become_one(tmp_path):
    for k in range(24):
        (tmp_path / f"{k:02d}.png").write_bytes(png(pixels(1, (8 + k % 3, 9 + k % 4, 3), seed=k)[0]))
    refused(tmp_path, "resize all images to one size first", "--crop square --resize 64")
    assert load_images(tmp_path, crop="square", resize=8).image_shape == (3, 8, 8)
    assert load_images(tmp_path, resize=(8, 9)).image_shape == (3, 8, 9)
    refused(tmp_path, "not square", "crop 'square'", resize=8)


def test_what_cannot_be_is_refused_by_name(tmp_path):
    refused("digits", "digits has images of 8x8", "only makes them smaller, not 16x16", resize=16)
    refused("digits", "too small to crop 9x9", crop=9)
    for bad in (0, -3, 2.5, "big", (1, 2, 3), True, ()):
        refused("digits", "resize must be a side in pixels, or height and width", resize=bad)
        refused("digits", "crop must be a side in pixels, or height and width or 'square'", crop=bad)
    refused(load_images("digits"), "digits is loaded already", resize=4)
    wide = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None, None], (30, 1, 8192, 4096))
    refused(wide, "34 million values each", "make them smaller with resize or crop")
    assert Form(crop=4, resize=[2]).apply(np.zeros((1, 1, 5, 6), np.uint8), "x").shape == (1, 1, 2, 2)


def test_options_leave_other_sets_alone():
    """What was loaded without them has the fingerprint it had before they were there."""
    assert load_images("digits").fingerprint == load_images("digits", crop=8).fingerprint == "98c9b9720849fc35"
    assert load_images("digits", resize=8).fingerprint == "98c9b9720849fc35"


@settings(max_examples=30, deadline=None)
@given(count=st.integers(20, 90), labelled=st.booleans(), parts=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_first_look_counts_as_loading_does(count: int, labelled: bool, parts: int, seed: int) -> None:
    """Whatever the labels, the parts that are given, and the limit, which asks for less."""
    arrays = {}
    for name in ("train", "test", "val")[:parts]:
        arrays[f"{name}_images"] = pixels(count)
        arrays |= {f"{name}_labels": np.random.default_rng(seed).integers(0, 3, count)} if labelled else {}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/set.npz", **arrays)
        data = load_images(f"{folder}/set.npz", seed=seed)
        assert first_look(f"{folder}/set.npz", seed=seed, limit=5) == ((1, 6, 5), len(data.train))
        assert parts == 1 or len(data.train) != count * 7 // 10, "the parts were seen"


@pytest.mark.parametrize("name", KNOWN)
def test_named_sets_are_as_large_as_a_run_takes_them_for(shared_data: Path, name: str) -> None:
    (_, height, width), train = first_look(name, data_dir=shared_data)
    assert (max(height, width), train) == NAMED[name]


@pytest.mark.parametrize("name", ["clothing128"])
def test_clothing_at_three_sides(shared_data: Path, name: str):
    half = load_images(name, data_dir=shared_data, limit=20, resize=64)
    quarter = load_images(name, data_dir=shared_data, limit=20, resize=32)
    assert (half.image_shape, quarter.image_shape, half.classes) == ((3, 64, 64), (3, 32, 32), 10)
    assert half.sizes == {"train": 20, "validation": 340, "test": 372}
    torch.testing.assert_close(F.avg_pool2d(half.test, 2), quarter.test, atol=1e-6, rtol=0)
    # of the data's own page: means of the test part are the same at every side
    torch.testing.assert_close(
        half.test.mean((0, 2, 3)), torch.tensor([0.532609, 0.490019, 0.471041]), atol=1e-5, rtol=0
    )
