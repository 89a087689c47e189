"""The data room: every source gives the same pixels, the split is fixed and fair, and bad input says what to do."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import pixels, png, refused, table, write_folder
from PIL import Image

from phasewise.data import KNOWN, ImageData, as_images, load_images
from phasewise.data.decode import decode, to_8_bits
from phasewise.data.form import recolour
from phasewise.data.load import MIN_IMAGES, split_rows
from phasewise.data.parts import array_part
from phasewise.errors import DataError, PhasewiseError, PhasewiseWarning

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHASEWISE_DATA", raising=False)


def together(data: ImageData) -> torch.Tensor:
    """All images of all parts, in the order of their first pixel."""
    images = torch.cat([data.train, data.validation, data.test])
    return images[images.flatten(1)[:, 0].argsort()]


def expected(images: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(images).float() / 255
    return x[:, None] if x.dim() == 3 else x.permute(0, 3, 1, 2)


# --- the embedded set -------------------------------------------------------------------------------------------


def test_digits_are_the_real_ones_in_sixteenths() -> None:
    from sklearn.datasets import load_digits

    data, bunch = load_images("digits"), load_digits()
    assert data.sizes == {"train": 1258, "validation": 180, "test": 359}
    assert data.image_shape == (1, 8, 8)
    assert data.pixel_range == (0.0, 1.0)
    assert data.classes == 10
    mine = {(x.numpy().tobytes(), int(y)) for x, y in zip(data.test * 16, data.labels_test, strict=True)}
    theirs = {(x.astype(np.float32).tobytes(), int(y)) for x, y in zip(bunch.images, bunch.target, strict=True)}
    assert mine <= theirs


def test_digits_split_is_stratified_and_in_random_order() -> None:
    data = load_images("digits")
    whole = sum(torch.bincount(x) for x in (data.labels_train, data.labels_validation, data.labels_test))
    for labels, share in ((data.labels_train, 0.7), (data.labels_validation, 0.1), (data.labels_test, 0.2)):
        assert (torch.bincount(labels) - share * whole).abs().max() <= 2
        assert len(labels[:60].unique()) == 10


def test_fingerprint_is_stable_and_sees_every_change() -> None:
    data = load_images("digits")
    assert data.fingerprint == load_images("digits").fingerprint == data.to("cpu").fingerprint == "98c9b9720849fc35"
    others = [
        load_images("digits", seed=1),
        load_images("digits", pixel_range=(-1, 1)),
        load_images("digits", limit=50),
    ]
    unlabelled = ImageData("digits", data.train, data.validation, data.test)
    assert len({data.fingerprint, unlabelled.fingerprint, *(x.fingerprint for x in others)}) == 5


def test_moments_record_and_display() -> None:
    images = pixels(60, (4, 4, 3))
    data = load_images(images.transpose(0, 3, 1, 2), pixel_range=(-1, 1))
    x = data.train.double().numpy()
    assert data.mean == pytest.approx(x.mean(), abs=1e-6)
    assert data.std == pytest.approx(x.std(), abs=1e-6)
    np.testing.assert_allclose(data.mean_per_channel, x.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(data.std_per_channel, x.std((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(data.to_unit(data.train), (x + 1) / 2, atol=1e-6)
    record = data.record()
    assert (record.image_shape, record.pixel_range, record.classes) == ((3, 4, 4), (-1.0, 1.0), None)
    assert record.sizes == {"train": 42, "validation": 6, "test": 12}
    assert record.fingerprint == data.fingerprint
    assert record.from_dict(record.to_dict()) == record
    assert "3x4x4" in repr(data)


# --- one set, many sources --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_every_source_gives_the_same_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = pixels(40, shape)
    pq.write_table(table(images), tmp_path / "set.parquet")
    np.savez(tmp_path / "set.npz", images=images)
    np.savez(tmp_path / "real.npz", x=images.astype(np.float64) / 255)
    np.save(tmp_path / "set.npy", images)
    write_folder(tmp_path / "flat", images)
    first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    paths = [tmp_path / name for name in ("set.parquet", "set.npz", "real.npz", "set.npy", "flat")]
    for source in (*paths, str(tmp_path / "flat"), torch.from_numpy(first.copy()), first / np.float32(255)):
        data = load_images(source)
        torch.testing.assert_close(together(data), expected(images), atol=1e-7, rtol=0)
        assert data.sizes == {"train": 28, "validation": 4, "test": 8}
        assert data.train.is_contiguous()
        assert data.labels_train is None


def test_class_folders_give_labels_by_sorted_name(tmp_path: Path) -> None:
    names = [("zebra", "ant", "cow")[k % 3] for k in range(42)]
    write_folder(tmp_path / "set", pixels(42), names)
    (tmp_path / "set" / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "set" / "ant" / ".hidden.png").write_text("not an image")
    data = load_images(tmp_path / "set")
    assert data.classes == 3
    for images, labels in ((data.train, data.labels_train), (data.test, data.labels_test)):
        number = (images.flatten(1)[:, 0] * 255).round().long()
        assert torch.equal(labels, torch.tensor([2, 0, 1])[number % 3])


def test_train_and_test_folders_keep_their_parts(tmp_path: Path) -> None:
    images = pixels(50)
    write_folder(tmp_path / "set" / "train", images[:40], [f"c{k // 20}" for k in range(40)])
    write_folder(tmp_path / "set" / "test", images[40:], [f"c{k // 5}" for k in range(10)])
    data = load_images(tmp_path / "set")
    assert data.sizes == {"train": 36, "validation": 4, "test": 10}
    torch.testing.assert_close(data.test[(data.test[:, 0, 0, 0]).argsort()], expected(images[40:]))
    assert sorted(data.labels_test.tolist()) == [0] * 5 + [1] * 5
    assert data.labels_test.tolist() != [0] * 5 + [1] * 5, "a part sorted by class must be put in random order"


def test_a_given_test_part_keeps_its_order_unless_sorted_by_class(tmp_path: Path) -> None:
    images, labels = pixels(50), np.arange(50) % 3
    np.savez(tmp_path / "a.npz", x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    data = load_images(tmp_path / "a.npz")
    torch.testing.assert_close(data.test, expected(images[40:]))
    assert data.labels_test.tolist() == labels[40:].tolist()


def test_given_validation_is_used_and_stands_in_for_a_missing_test(tmp_path: Path) -> None:
    images = pixels(60)
    write_folder(tmp_path / "train", images[:40])
    write_folder(tmp_path / "val", images[40:50])
    data = load_images(tmp_path)
    assert data.sizes == {"train": 36, "validation": 4, "test": 10}
    write_folder(tmp_path / "test", images[50:])
    data = load_images(tmp_path)
    assert data.sizes == {"train": 40, "validation": 10, "test": 10}
    torch.testing.assert_close(data.validation, expected(images[40:50]))


def test_a_lone_train_folder_is_no_class(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", pixels(30), [f"c{k % 2}" for k in range(30)])
    assert load_images(tmp_path).classes == 2


def test_parquet_folder_with_shards_and_named_set(tmp_path: Path) -> None:
    images, labels = pixels(60), np.arange(60) % 4
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    pq.write_table(table(images[:30], labels[:30]), folder / "train-00000-of-00002.parquet")
    pq.write_table(table(images[30:50], labels[30:50]), folder / "train-00001-of-00002.parquet")
    pq.write_table(table(images[50:], labels[50:]), folder / "test.parquet")
    data = load_images(folder)
    assert data.sizes == {"train": 45, "validation": 5, "test": 10}
    assert load_images("./fashion_mnist", data_dir=tmp_path).fingerprint == data.fingerprint
    pq.write_table(table(images[:50], labels[:50]), folder / "train.parquet")
    named = load_images("fashion_mnist", data_dir=tmp_path)
    assert (named.name, named.fingerprint) == ("fashion_mnist", data.fingerprint)


def test_data_dir_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trashnet64").mkdir()
    for part in ("train", "test"):
        pq.write_table(table(pixels(30)), tmp_path / "trashnet64" / f"{part}.parquet")
    monkeypatch.setenv("PHASEWISE_DATA", str(tmp_path))
    assert load_images("trashnet64").sizes == {"train": 27, "validation": 3, "test": 30}


@pytest.mark.parametrize(
    ("values", "top"),
    [
        (pixels().astype(np.int64), 255),
        (pixels().astype(np.uint16), 255),
        (pixels().astype(np.uint16) * 257, 65535),
        (pixels() > 127, 1),
        ((pixels() > 127).astype(np.uint8), 1),
    ],
    ids=["int64", "uint16 with 8 bits", "uint16", "bool", "zeros and ones"],
)
def test_integer_levels_fill_the_pixel_range(tmp_path: Path, values: np.ndarray, top: int) -> None:
    np.savez(tmp_path / "a.npz", images=values)
    data = load_images(tmp_path / "a.npz", pixel_range=(-1, 1))
    want = 2 * torch.from_numpy(values.astype(np.float64)) / top - 1
    got = torch.cat([data.train, data.validation, data.test])[:, 0].double()
    assert torch.allclose(got.flatten(1).sum(1).sort()[0], want.flatten(1).sum(1).sort()[0], atol=1e-5)
    assert (float(got.min()), float(got.max())) == (-1.0, 1.0)


def test_npz_layouts_and_column_labels(tmp_path: Path) -> None:
    images = pixels(40, (6, 5, 3))
    np.savez(tmp_path / "last.npz", images)
    np.savez(tmp_path / "first.npz", images=images.transpose(0, 3, 1, 2))
    np.savez(tmp_path / "parts.npz", train_images=images, train_labels=np.arange(40)[:, None] % 5)
    for name in ("last", "first", "parts"):
        torch.testing.assert_close(together(load_images(tmp_path / f"{name}.npz")), expected(images))
    assert load_images(tmp_path / "parts.npz").classes == 5


def test_real_valued_tensors_are_taken_as_they_stand() -> None:
    x = 3 * torch.randn(50, 2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = load_images(x)
    assert data.pixel_range == pytest.approx((float(x.min()), float(x.max())))
    kept = torch.cat([data.train, data.validation, data.test]).sum((1, 2, 3)).sort()[0]
    torch.testing.assert_close(kept, x.float().sum((1, 2, 3)).sort()[0])
    assert load_images(x, pixel_range=(-20, 20)).pixel_range == (-20, 20)
    with pytest.raises(DataError, match=r"outside pixel_range \(0, 1\); pass pixel_range=\(-"):
        load_images(x, pixel_range=(0, 1))


def test_as_images() -> None:
    data = load_images("digits", limit=30)
    assert as_images(data) is data
    assert load_images(data) is data
    assert as_images("digits").name == "digits"
    assert as_images(torch.rand(30, 1, 4, 4)).image_shape == (1, 4, 4)


def test_string_and_missing_labels(tmp_path: Path) -> None:
    pq.write_table(table(pixels(30), ["dog", "cat"] * 15), tmp_path / "names.parquet")
    assert load_images(tmp_path / "names.parquet").classes == 2
    pq.write_table(table(pixels(30), [1, None] * 15), tmp_path / "null.parquet")
    assert load_images(tmp_path / "null.parquet").classes is None
    images = pixels(40)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.arange(40) % 2, x_test=images, y_test=np.full(40, -1))
    data = load_images(tmp_path / "a.npz")
    assert data.labels_test is None
    assert data.classes == 2


# --- laws of the split ------------------------------------------------------------------------------------------


@QUICK
@given(
    n=st.integers(MIN_IMAGES, 300),
    classes=st.integers(0, 12),
    seed=st.integers(0, 2**31),
    limits=st.tuples(st.integers(1, 250), st.integers(1, 250)),
)
def test_split_is_a_partition_and_limits_nest(n: int, classes: int, seed: int, limits: tuple[int, int]) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, n) if classes else None
    parts = {"all": array_part(np.arange(n, dtype=np.float32)[:, None, None, None], labels, "a")}
    whole = {k: rows for k, (_, rows) in split_rows(parts, {"all": labels}, seed, None).items()}
    assert sorted(np.concatenate(list(whole.values()))) == list(range(n))
    assert abs(len(whole["train"]) - 0.7 * n) <= 2
    assert abs(len(whole["test"]) - 0.2 * n) <= 1
    assert abs(len(whole["validation"]) - 0.1 * n) <= 1
    for limit in limits:
        some = {k: rows for k, (_, rows) in split_rows(parts, {"all": labels}, seed, limit).items()}
        assert np.array_equal(some["train"], whole["train"][:limit])
        assert np.array_equal(some["test"], whole["test"])
        assert np.array_equal(some["validation"], whole["validation"])


def test_validation_of_a_given_train_part_is_a_tenth_and_at_most_5000() -> None:
    for n, aside in ((20, 2), (1000, 100), (60000, 5000)):
        part = array_part(np.arange(n, dtype=np.float32)[:, None, None, None], None, "a")
        rows = split_rows({"train": part, "test": part}, {"train": None, "test": None}, 0, None)
        assert len(rows["validation"][1]) == aside
        assert sorted(np.concatenate([rows["train"][1], rows["validation"][1]])) == list(range(n))
        assert np.array_equal(rows["test"][1], np.arange(n))


# --- kinds of image files ---------------------------------------------------------------------------------------


def decoded(image: Image.Image, kind: str = "png", **options: Any) -> np.ndarray:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return decode(out.getvalue(), lambda: "here")


def test_gray_and_colour_modes() -> None:
    gray, rgb = pixels(1)[0], pixels(1, (6, 5, 3))[0]
    assert np.array_equal(decoded(Image.fromarray(gray)), gray[None])
    assert np.array_equal(decoded(Image.fromarray(rgb)), rgb.transpose(2, 0, 1))
    assert np.array_equal(decoded(Image.fromarray(gray > 127)), 255 * (gray > 127)[None])
    assert decoded(Image.fromarray(rgb).convert("CMYK"), "tiff").shape == (3, 6, 5)


def test_palettes() -> None:
    gray, rgb = pixels(1)[0], pixels(1, (6, 5, 3))[0]
    colours = Image.fromarray(rgb).quantize(64)
    assert np.array_equal(decoded(colours), np.asarray(colours.convert("RGB")).transpose(2, 0, 1))
    grays = Image.fromarray(gray)
    grays.putpalette([v for k in range(256) for v in (255 - k,) * 3])
    assert np.array_equal(decoded(grays), 255 - gray[None])


def test_transparency_is_composited_on_white() -> None:
    gray, rgb = pixels(1)[0], pixels(1, (6, 5, 3))[0]
    alpha = np.zeros_like(gray)
    alpha[:3], alpha[3] = 255, 51
    on_white = 255 - (255 - gray.astype(float)) * alpha / 255
    got = decoded(Image.merge("LA", [Image.fromarray(gray), Image.fromarray(alpha)]))
    assert got.shape == (1, 6, 5)
    assert np.abs(got[0] - on_white).max() <= 1
    got = decoded(Image.fromarray(np.dstack([rgb, alpha])))
    assert np.array_equal(got[:, :3], rgb.transpose(2, 0, 1)[:, :3])
    assert (got[:, 4:] == 255).all()
    marked = decoded(Image.fromarray(gray), transparency=int(gray[2, 2]))
    assert (marked[0][gray == gray[2, 2]] == 255).all()


def test_sixteen_bits_are_rounded_to_eight(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257], [65535, 32896, 32768, 1000]], dtype=np.uint16)
    assert np.array_equal(decoded(Image.fromarray(values))[0], values)
    assert np.array_equal(to_8_bits(values), np.rint(values / 257))
    write_folder(tmp_path, np.repeat(values[None], 24, 0))
    data = load_images(tmp_path)
    assert np.array_equal(data.train[0, 0] * 255, np.rint(values / 257))
    (tmp_path / "023.png").write_bytes(png(to_8_bits(values)))
    assert load_images(tmp_path).fingerprint == data.fingerprint, "a file of 8 bits among them has the same scale"
    refused(tmp_path, "16 bits a pixel", "has 8", white_level=65535)


def test_rotation_mark_is_obeyed() -> None:
    image = Image.fromarray(np.full((4, 8, 3), 100, dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoded(image, "jpeg", exif=exif).shape == (3, 8, 4)


def test_recolour_weights_and_inverse() -> None:
    rgb = np.zeros((1, 3, 1, 3), dtype=np.uint8)
    rgb[0, :, 0, :] = 255 * np.eye(3)
    assert recolour(rgb, "gray").flatten().tolist() == [76, 150, 29]
    gray = pixels(3)[:, None]
    assert np.array_equal(recolour(recolour(gray, "rgb"), "gray"), gray)
    assert np.array_equal(recolour(gray, None), gray)


def test_color_makes_mixed_images_one_kind(tmp_path: Path) -> None:
    write_folder(tmp_path, pixels(30))
    (tmp_path / "900.png").write_bytes(png(pixels(1, (6, 5, 3))[0]))
    with pytest.raises(DataError, match=r"has one channel.*900\.png has three|900\.png has three.*has one") as caught:
        load_images(tmp_path)
    assert "color='gray' or color='rgb'" in str(caught.value)
    assert load_images(tmp_path, color="gray").image_shape == (1, 6, 5)
    assert load_images(tmp_path, color="rgb").image_shape == (3, 6, 5)


def test_color_converts_arrays_too() -> None:
    assert load_images("digits", color="rgb").image_shape == (3, 8, 8)
    assert load_images(torch.rand(30, 3, 4, 4), color="gray").image_shape == (1, 4, 4)
    with pytest.raises(DataError, match="2 channels cannot be made gray"):
        load_images(torch.rand(30, 2, 4, 4), color="gray")


# --- errors: each names the cause and the mend ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [("mnits", "mnist"), ("FashionMNIST", "fashion_mnist"), ("cifar-10", "cifar10"), ("Digits", "digits")],
)
def test_unknown_set_suggests_the_nearest(name: str, meant: str) -> None:
    refused(name, f"unknown data set '{name}'", f"did you mean '{meant}'?", *KNOWN)


def test_unknown_set_without_a_near_one() -> None:
    assert "did you mean" not in refused("zzzzzz", "unknown data set", "a folder of images", "hub id")
    refused("", "unknown data set ''")


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in (tmp_path / "nothing", str(tmp_path / "nothing"), "./nothing", "nothing.parquet", "a/b.npz"):
        refused(missing, "there is no file or folder", "check the path")
    refused("mnist", "the data dir does not exist", "--data-dir", "PHASEWISE_DATA", data_dir=tmp_path / "nothing")
    refused("mnist", str(tmp_path / "mnist" / "train.parquet"), "no such file", "ylecun/mnist", data_dir=tmp_path)
    monkeypatch.setenv("PHASEWISE_DATA", str(tmp_path))
    refused("cifar10", str(tmp_path / "cifar10" / "train.parquet"))


def test_trashnet_without_a_data_dir() -> None:
    refused("trashnet64", "not on the Hugging Face hub at this size", "--data-dir", "trashnet64/train.parquet")


def test_not_a_whole_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(table(pixels()), path)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], b"PAR1" + bytes(100) + b"PAR1"):
        path.write_bytes(content)
        refused(path, str(path), "not a whole parquet file", "fetch or write it again")


def test_parquet_without_image_column(tmp_path: Path) -> None:
    pq.write_table(table(pixels(), image="picture"), tmp_path / "set.parquet")
    refused(tmp_path / "set.parquet", "no column 'image' (columns: picture)", "rename")
    pq.write_table(pa.table({"image": list(range(30))}), tmp_path / "set.parquet")
    refused(tmp_path / "set.parquet", "column 'image' is int64", "store encoded images")
    pq.write_table(pa.table({"image": pa.array([{"bytes": None, "path": "a.png"}] * 30)}), tmp_path / "set.parquet")
    refused(tmp_path / "set.parquet", "store encoded images")


def test_undecodable_images_are_named(tmp_path: Path) -> None:
    blobs = [png(x) for x in pixels()]
    for bad in (b"", b"no image", blobs[7][:60], blobs[7][:-30]):
        pq.write_table(table([*blobs[:7], bad, *blobs[8:]]), tmp_path / "set.parquet")
        refused(tmp_path / "set.parquet", "set.parquet row 7 cannot be decoded", "replace or remove it")
    write_folder(tmp_path / "set", pixels())
    (tmp_path / "set" / "011.png").write_bytes(b"no image")
    refused(tmp_path / "set", "011.png cannot be decoded")
    column = pa.array([{"bytes": b, "path": None} for b in (*blobs, None)])
    pq.write_table(pa.table({"image": column}), tmp_path / "set.parquet")
    refused(tmp_path / "set.parquet", "row 40 holds no image bytes")


def test_real_valued_and_32_bit_image_files() -> None:
    with pytest.raises(DataError, match="here holds real-valued pixels; save the set as an npz"):
        decoded(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "tiff")
    assert decoded(Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)), "tiff").max() == 70000


def test_unequal_sizes_name_both_files(tmp_path: Path) -> None:
    write_folder(tmp_path, pixels(30))
    (tmp_path / "900.png").write_bytes(png(pixels(1, (9, 7))[0]))
    message = refused(tmp_path, "900.png", "6x5", "9x7", "resize")
    assert message.count(".png") == 2


def test_train_and_test_of_different_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=pixels(40), x_test=pixels(40, (9, 7)))
    refused(tmp_path / "a.npz", "test images are 1x9x7, train images 1x6x5", "resize")
    np.savez(tmp_path / "a.npz", x_train=pixels(40), x_test=pixels(40, (6, 5, 3)))
    refused(tmp_path / "a.npz", "test images are 3x6x5", "color='gray' or color='rgb'")
    assert load_images(tmp_path / "a.npz", color="gray").test.shape == (40, 1, 6, 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_pixels_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    images = pixels() / 255
    images[7, 2, 2] = images[9, 1, 1] = bad
    np.savez(tmp_path / "a.npz", images=images)
    for source in (tmp_path / "a.npz", torch.from_numpy(images)[:, None]):
        refused(source, "2 of 40 images hold NaN or infinite pixels (first: image 7)", "repair")


def test_pixels_out_of_range_suggest_the_range_to_pass(tmp_path: Path) -> None:
    images = pixels(40).astype(np.float32)
    np.savez(tmp_path / "a.npz", x_train=images - 0.3, x_test=images + 7)
    refused(tmp_path / "a.npz", "x_train", "outside pixel_range (0, 1)", "pass pixel_range=(-0.300000012, 262)")
    assert load_images(tmp_path / "a.npz", pixel_range=(-0.300000012, 262)).pixel_range[1] == 262
    np.savez(tmp_path / "a.npz", images=pixels(40).astype(np.int64) - 1)
    refused(tmp_path / "a.npz", "integers from -1 to 254", "save it as uint8")


def test_empty_and_tiny_sets(tmp_path: Path) -> None:
    refused(tmp_path, "holds no images", ".png")
    write_folder(tmp_path / "few", pixels(19))
    refused(tmp_path / "few", "has 19 images; at least 20 are needed")
    write_folder(tmp_path / "few", pixels(20))
    assert load_images(tmp_path / "few").sizes == {"train": 14, "validation": 2, "test": 4}
    refused(torch.rand(0, 1, 4, 4), "the tensor is empty")
    for part, n in (("train", 30), ("test", 0)):
        pq.write_table(table(pixels(30)).slice(0, n), tmp_path / f"{part}.parquet")
    refused(tmp_path, "test.parquet has no images")


def test_images_beside_class_folders(tmp_path: Path) -> None:
    write_folder(tmp_path, pixels(30), ["cat"] * 30)
    write_folder(tmp_path, pixels(1))
    refused(tmp_path, "000.png beside cat/", "move every image")


def test_npz_that_is_not_one(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=pixels())
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        refused(path, "not a whole npz file", "numpy.savez")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01")
    refused(tmp_path / "a.npy", "not a whole npz file")
    np.savez(path, images=np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    refused(path, "pickle", "never loaded", "save plain arrays")


def test_npz_without_images_or_with_odd_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, weights=pixels())
    refused(path, "no array 'images'", "arrays: weights", "rename")
    np.savez(path, images=np.zeros((30, 5)))
    refused(path, "shape (30, 5)", "(N, H, W, C)")
    np.savez(path, images=np.full((30, 4, 4), "a"))
    refused(path, "not pixels", "save the images as uint8 or float32")


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for labels in (np.zeros(39, int), np.eye(40)):
        np.savez(path, images=pixels(40), labels=labels)
        refused(path, "has 40 images but labels of shape", "exactly one label per image")
    np.savez(path, images=pixels(40), y=np.linspace(0, 1, 40))
    with pytest.warns(PhasewiseWarning, match="not whole numbers or names; the images are taken without labels"):
        assert load_images(path).classes is None
    refused(path, "not whole numbers", "number the classes", label_column="y")


@pytest.mark.parametrize("source", [np.full((30, 4, 4), 7, np.uint8), np.zeros((30, 4, 4)), np.full((30, 4, 4), 0.5)])
def test_constant_images(tmp_path: Path, source: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", images=source)
    refused(tmp_path / "a.npz", "nothing to learn")
    refused(source[:, None], "nothing to learn")


def test_arguments(tmp_path: Path) -> None:
    refused("digits", "limit must be", limit=0)
    refused("digits", "limit must be", limit=2.5)
    refused("digits", "seed must be", seed=-1)
    refused("digits", "color must be 'gray', 'rgb'", color="blue")
    refused("digits", "low < high", pixel_range=(1, 0))
    refused("digits", "low < high", pixel_range=(0, float("nan")))
    refused("digits", "two numbers", pixel_range=3)
    refused(None, "cannot load images from a NoneType", "give a name")
    refused(torch.rand(30, 4, 4), "must have shape (N, C, H, W), got (30, 4, 4)", "images[:, None]")
    (tmp_path / "a.png").write_bytes(png(pixels(1)[0]))
    refused(tmp_path / "a.png", "is a single image; give the folder")
    (tmp_path / "a.mat").write_bytes(b"")
    refused(tmp_path / "a.mat", "cannot read", ".npz")


def test_image_data_checks_what_it_is_given() -> None:
    x = torch.rand(4, 1, 3, 3)
    for bad, word in ((x.double(), "float32"), (x[0], "(N, C, H, W)"), (x[..., :2], "test images are 1x3x2")):
        with pytest.raises(PhasewiseError, match="mine: ") as caught:
            ImageData("mine", x, x, bad)
        assert word in str(caught.value)
    with pytest.raises(DataError, match="one int64 label per image"):
        ImageData("mine", x, x, x, labels_train=torch.zeros(3, dtype=torch.int64))


@QUICK
@given(kind=st.sampled_from(["png", "parquet", "npz"]), cut=st.floats(0, 1), value=st.integers(0, 255))
def test_damaged_files_never_raise_anything_else(tmp_path: Path, kind: str, cut: float, value: int) -> None:
    images = pixels(24)
    path = tmp_path / f"set.{kind}"
    if kind == "parquet":
        pq.write_table(table(images), path)
    elif kind == "npz":
        np.savez_compressed(path, images=images)
    else:
        path = write_folder(tmp_path / "folder", images) / "000.png"
    content = bytearray(path.read_bytes())
    content[int(cut * (len(content) - 1))] = value
    path.write_bytes(content)
    try:
        assert sum(load_images(path.parent if kind == "png" else path).sizes.values()) == 24
    except DataError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017


# --- the hub, without a network ---------------------------------------------------------------------------------


class FakeSplit:
    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def with_format(self, kind: str) -> FakeSplit:
        assert kind == "arrow"
        return self

    def __getitem__(self, _: slice) -> pa.Table:
        return self.rows


def fake_datasets(monkeypatch: pytest.MonkeyPatch, answer: dict[str, pa.Table] | Exception) -> list[str]:
    """Put a stand-in for the library ``datasets`` in place; returns the list of ids it is asked for."""
    asked: list[str] = []

    def load_dataset(hub_id: str) -> dict[str, FakeSplit]:
        asked.append(hub_id)
        if isinstance(answer, Exception):
            raise answer
        return {part: FakeSplit(rows) for part, rows in answer.items()}

    module = types.ModuleType("datasets")
    errors = types.SimpleNamespace(DatasetsError=type("DatasetsError", (Exception,), {}))
    vars(module).update(load_dataset=load_dataset, exceptions=errors)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_hub_sets_by_name_and_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(50, (6, 5, 3))
    answer = {
        "train": table(images[:40], [0, 1] * 20, image="img"),
        "test": table(images[40:], [0, 1] * 5, image="img"),
    }
    asked = fake_datasets(monkeypatch, answer)
    data = load_images("cifar10")
    torch.testing.assert_close(data.test, expected(images[40:]))
    assert load_images("some-one/else.v1").fingerprint == data.fingerprint
    assert asked == ["uoft-cs/cifar10", "some-one/else.v1"]
    fake_datasets(monkeypatch, {"full": answer["train"]})
    assert load_images("a/b").sizes == {"train": 28, "validation": 4, "test": 8}
    fake_datasets(monkeypatch, {"x": answer["train"], "y": answer["test"]})
    refused("a/b", "a/b has the splits x, y, none of them 'train'")


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_datasets(monkeypatch, ConnectionError("no route"))
    refused(
        "mnist",
        "cannot fetch ylecun/mnist",
        "ConnectionError: no route",
        "check the name and the network",
        "--data-dir",
    )
    refused("my/folder", "there is no file or folder my/folder here", "cannot fetch my/folder")
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused("mnist", "needs the library datasets", "pip install 'phasewise[hub]'", "--data-dir")


def test_hub_tables_of_the_real_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    images = pixels(50)
    for part, rows in (("train", images[:40]), ("test", images[40:])):
        pq.write_table(table(rows), tmp_path / f"{part}.parquet")
    features = datasets.Features({"image": datasets.Image()})
    local = datasets.DatasetDict(
        {p: datasets.Dataset(pq.read_table(tmp_path / f"{p}.parquet")).cast(features) for p in ("train", "test")}
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda _: local)
    torch.testing.assert_close(load_images("a/b").test, expected(images[40:]))


# --- the large sets, where they are at hand ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "mean", "std"),
    [
        ("mnist", (1, 28, 28), 0.132515, 0.310480),
        ("fashion_mnist", (1, 28, 28), 0.286849, 0.352444),
        ("trashnet64", (3, 64, 64), None, None),
    ],
)
def test_named_sets(
    shared_data: Path, name: str, shape: tuple[int, ...], mean: float | None, std: float | None
) -> None:
    data = load_images(name, data_dir=shared_data, limit=200)
    assert data.name == name
    assert data.image_shape == shape
    assert data.sizes["train"] == 200
    if mean is not None:
        assert float(data.test.double().mean()) == pytest.approx(mean, abs=2e-6)
        assert float(data.test.double().std()) == pytest.approx(std, abs=2e-6)
        assert data.sizes == {"train": 200, "validation": 5000, "test": 10000}
