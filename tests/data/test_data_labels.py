"""Labels and columns as other people have them; parquet in the layouts of the hub."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import pixels, png, refused, table, write_folder

from phasewise.data import load_images
from phasewise.errors import PhasewiseWarning


def write(path, images, labels=None, **names):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(images, labels, **names), path)


def test_large_numbers_are_numbered_anew(tmp_path):
    numbers = np.arange(40) % 3 * 10_000_000 + 20_000_000
    write(tmp_path / "set.parquet", pixels(40), numbers)
    data = load_images(tmp_path / "set.parquet")
    assert data.classes == 3
    assert data.class_names == ("20000000", "30000000", "40000000")
    number = (data.train.flatten(1)[:, 0] * 255).round().long()
    assert data.labels_train.tolist() == (number % 3).tolist()
    # parts are numbered together, and numbers that can be a count of classes stay
    np.savez(tmp_path / "a.npz", x_train=pixels(), y_train=numbers, x_test=pixels(), y_test=numbers[::-1] + 10_000_000)
    assert load_images(tmp_path / "a.npz").classes == 4
    np.savez(tmp_path / "a.npz", x=pixels(), y=np.arange(40) % 3 * 4 + 1)
    assert load_images(tmp_path / "a.npz").classes == 10
    assert load_images(tmp_path / "a.npz").class_names is None


def test_names_are_kept(tmp_path):
    write_folder(tmp_path, pixels(30), [("ant", "bee")[k % 2] for k in range(30)])
    assert load_images(tmp_path).class_names == ("ant", "bee")
    assert load_images(tmp_path, label_column="none").classes is None


@pytest.mark.parametrize(
    "labels",
    [np.linspace(0, 1, 40), [[1, 2]] * 40, [{"a": 1}] * 40, [float("nan")] * 40, [[b"x"]] * 40],
    ids=["fractions", "lists", "records", "nan", "lists of bytes"],
)
def test_labels_that_are_no_classes_do_not_refuse_the_set(tmp_path, labels):
    pq.write_table(table(pixels(40)).append_column("target", pa.array(labels)), tmp_path / "a.parquet")
    with pytest.warns(PhasewiseWarning, match="not whole numbers or names; the images are taken without labels"):
        assert load_images(tmp_path / "a.parquet").classes is None
    refused(tmp_path / "a.parquet", "not whole numbers or names; number the classes", label_column="target")


def test_columns_can_be_chosen(tmp_path):
    columns = {
        "photo": pa.array([png(x) for x in pixels(30)]),
        "image": pa.array([png(x) for x in pixels(30, seed=1)]),
        "breed": pa.array(["cat", "dog", "cow"] * 10),
        "label": pa.array([0, 1] * 15),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    usual = load_images(tmp_path / "a.parquet")
    chosen = load_images(tmp_path / "a.parquet", image_column="photo", label_column="breed")
    assert (usual.classes, chosen.classes, chosen.class_names) == (2, 3, ("cat", "cow", "dog"))
    assert usual.fingerprint != chosen.fingerprint
    assert load_images(tmp_path / "a.parquet", label_column="none").classes is None
    refused(tmp_path / "a.parquet", "no image column 'foto'; it has photo, image, breed, label", image_column="foto")
    refused(tmp_path / "a.parquet", "no label column 'x'", label_column="x")
    np.savez(tmp_path / "a.npz", pics=pixels(), marks=np.arange(40) % 2, x_train=pixels(30))
    assert load_images(tmp_path / "a.npz", image_column="pics", label_column="marks").sizes["train"] == 28
    refused(tmp_path / "a.npz", "no image column 'x'; it has pics, marks", image_column="x")
    refused(tmp_path / "a.npz", "labels are named", label_column="marks")


@pytest.mark.parametrize(
    "layout",
    [
        ("train/0000.parquet", "test/0000.parquet"),
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("train-0.parquet", "test-0.parquet"),
    ],
)
def test_layouts_of_the_hub(tmp_path, layout):
    for name, rows in zip(layout, (slice(0, 40), slice(40, 50)), strict=True):
        write(tmp_path / name, pixels(50)[rows], np.arange(50)[rows] % 2)
    data = load_images(tmp_path)
    assert data.sizes == {"train": 36, "validation": 4, "test": 10}
    assert data.classes == 2
    if not layout[0].startswith(("data", "default", "train-")):
        write(tmp_path / "train" / "0001.parquet", pixels(30), np.arange(30) % 2)
        assert load_images(tmp_path).sizes["train"] == 63


def test_shards_may_differ_in_what_does_not_matter(tmp_path):
    narrow, wide = pa.array(np.arange(30) % 3, pa.int8()), pa.array(np.arange(20) % 3, pa.int64())
    pq.write_table(table(pixels(30)).append_column("label", narrow), tmp_path / "train-0.parquet")
    pq.write_table(table(pixels(20)).append_column("label", wide), tmp_path / "train-1.parquet")
    assert load_images(tmp_path).classes == 3
    pq.write_table(table(pixels(20)).append_column("label", pa.nulls(20)), tmp_path / "train-1.parquet")
    assert load_images(tmp_path).classes is None, "one null label drops all"
    names = pa.array(["a", "b"] * 10)
    pq.write_table(table(pixels(20)).append_column("label", names), tmp_path / "train-1.parquet")
    refused(tmp_path, "differ in their labels", "give all the same kind")


def test_rows_of_many_groups_and_files(tmp_path):
    """Any rows, whatever the groups they lie in: those asked for, and an error names file and row."""
    images = pixels(60)
    for k in range(2):
        pq.write_table(table(images[30 * k : 30 * k + 30]), tmp_path / f"{k}.parquet", row_group_size=7)
    whole, few = load_images(tmp_path), load_images(tmp_path, limit=3)
    assert few.train.equal(whole.train[:3])
    assert few.test.equal(whole.test)
    blobs = [png(x) for x in images[30:]]
    pq.write_table(table([*blobs[:11], b"no image", *blobs[12:]]), tmp_path / "1.parquet", row_group_size=7)
    refused(tmp_path, f"{tmp_path / '1.parquet'} row 11 cannot be decoded")
