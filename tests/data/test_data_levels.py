"""What integers mean: one scale for the whole source, stated; and where the channels of an array are."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import pixels, refused, write_folder
from PIL import Image

import phasewise as pw
from phasewise.data import load_images
from phasewise.errors import DataError, PhasewiseWarning


def twelve_bits(n=40, seed=0):
    images = np.random.default_rng(seed).integers(0, 4096, (n, 6, 5)).astype(np.uint16)
    images[0, 0, :2] = (0, 4095)
    return images


def save(path, image, kind):
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())


def test_parts_share_one_scale(tmp_path):
    """16-bit arrays with a train part up to 4,000 and a test part up to 200 had a scale each."""
    train, test = twelve_bits(), twelve_bits(20) // 20
    np.savez(tmp_path / "a.npz", x_train=train, x_test=test)
    with pytest.warns(PhasewiseWarning, match=r"go from 0 to 4095 only, of 65535, as if 16 bits held 12; if 4095"):
        data = load_images(tmp_path / "a.npz")
    assert data.white_level == data.record().white_level == 65535
    torch.testing.assert_close(data.test[:, 0], torch.from_numpy(test.astype(np.float32)) / 65535)
    data = load_images(tmp_path / "a.npz", white_level=4095)
    torch.testing.assert_close(data.test[:, 0], torch.from_numpy(test.astype(np.float32)) / 4095)
    assert "from levels 0..4095" in repr(data)
    refused(tmp_path / "a.npz", "pixels up to 4095, above the white level 4000", "--white-level", white_level=4000)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pixels().astype(np.uint8) // 16, "from 0 to 15 only, of 255, as if 8 bits held 4; if 15 is white"),
        (pixels().astype(np.uint16), "16-bit pixels go up to 255 only and are read as 0..255"),
        (pixels().astype(np.int64) // 2, "from 0 to 127 only, of 255"),
    ],
)
def test_few_levels_are_warned_of(values, said):
    with pytest.warns(PhasewiseWarning, match=said):
        assert load_images(values[:, None]).white_level == 255


def test_twelve_bits_in_files_keep_their_levels(tmp_path):
    images = twelve_bits()
    for k, image in enumerate(images):
        save(tmp_path / "set" / f"{k:02d}.png", image, "png")
    with pytest.warns(PhasewiseWarning, match="16 bits held 12"):
        rounded = load_images(tmp_path / "set")
    assert len(rounded.train.unique()) <= 17
    np.savez(tmp_path / "set.npz", images=images)
    stated = load_images(tmp_path / "set", white_level=4095)
    assert stated.fingerprint == load_images(tmp_path / "set.npz", white_level=4095).fingerprint
    assert float(stated.train.max()) <= 1
    small = load_images(tmp_path / "set", white_level=4095, resize=(3, 5))
    torch.testing.assert_close(small.train, stated.train.unflatten(2, (3, 2)).mean(3), atol=1e-6, rtol=0)
    with pytest.warns(PhasewiseWarning):
        again = load_images(tmp_path / "set", resize=(3, 5))
    torch.testing.assert_close(again.train * 65535, small.train * 4095, atol=0.1, rtol=0)


@pytest.mark.parametrize("top", [255, 200])
def test_a_tiff_of_32_bits_is_what_the_array_is(tmp_path, top):
    """It was divided by 257, while the same numbers in an array were 0..255."""
    images = np.minimum(pixels(), top).astype(np.int32)
    for k, image in enumerate(images):
        save(tmp_path / "set" / f"{k:02d}.tif", image, "tiff")
    np.savez(tmp_path / "set.npz", images=images)
    files, array = load_images(tmp_path / "set"), load_images(tmp_path / "set.npz")
    assert files.fingerprint == array.fingerprint
    assert float(array.train.max()) == pytest.approx(top / 255)


def test_integers_beyond_every_rule_are_asked_about(tmp_path):
    images = pixels().astype(np.int32) * 300
    save(tmp_path / "set" / "00.tif", images[0], "tiff")
    for k, image in enumerate(images):
        save(tmp_path / "set" / f"{k:02d}.tif", image, "tiff")
    np.savez(tmp_path / "set.npz", images=images)
    for source in ("set", "set.npz"):
        refused(tmp_path / source, "holds integers up to 76500", "--white-level")
    files, array = (load_images(tmp_path / source, white_level=76500) for source in ("set", "set.npz"))
    assert files.fingerprint == array.fingerprint
    refused(tmp_path / "set.npz", "white_level must be the whole number that is white", white_level=0)
    refused((images / 76500)[:, None], "white_level is for integer pixels", white_level=255)
    np.savez(tmp_path / "mixed.npz", x_train=pixels() > 99, x_test=pixels())
    refused(tmp_path / "mixed.npz", "mix bool and other integers")
    np.savez(tmp_path / "mixed.npz", x_train=twelve_bits(), x_test=pixels())
    refused(tmp_path / "mixed.npz", "mix uint16 and other integers")


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([np.uint8, np.uint16, np.int32, np.int64]), st.integers(2, 255), st.integers(0, 3))
def test_a_stated_level_is_the_scale_whatever_holds_the_numbers(kind, white, shift):
    images = np.random.default_rng(white).integers(0, white + 1, (30, 1, 4, 4)).astype(kind)
    data = load_images(images, white_level=white, seed=shift, pixel_range=(-1, 1))
    wanted = np.sort((2 * images.astype(float) / white - 1).sum((1, 2, 3)))
    got = np.sort(torch.cat([data.train, data.validation, data.test]).double().sum((1, 2, 3)).numpy())
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_channels_last_is_asked_about(tmp_path):
    last = pixels(60, (8, 10, 1))
    refused(last, "look as if their 1 channels came last", "channels='last'")
    refused(torch.rand(100, 16, 16, 3), "look as if their 3 channels came last")
    assert load_images(last, channels="last").image_shape == (1, 8, 10)
    assert load_images(last, channels="first").image_shape == (8, 10, 1)
    np.savez(tmp_path / "a.npz", images=last)
    assert load_images(tmp_path / "a.npz").image_shape == (1, 8, 10)
    np.savez(tmp_path / "a.npz", images=pixels(60, (4, 10, 3)))
    refused(tmp_path / "a.npz", "may be the second axis or the last", "--channels")
    assert load_images(tmp_path / "a.npz", channels="last").image_shape == (3, 4, 10)
    np.savez(tmp_path / "a.npz", images=pixels(60, (16, 9, 8)))
    assert load_images(tmp_path / "a.npz", channels="first").image_shape == (16, 9, 8)
    refused(tmp_path / "a.npz", "say where more channels are")
    refused(last, "channels must be 'first', 'last' or None", channels="middle")
    with pytest.raises(DataError, match="channels came last"):
        pw.cmi_map(torch.rand(100, 8, 8, 3), times=(0.5,), radii=(1,))


def test_photographs_of_dark_rooms_are_warned_of(tmp_path):
    write_folder(tmp_path, pixels(30) // 4)
    with pytest.warns(PhasewiseWarning, match="only, of 255"):
        assert load_images(tmp_path).white_level == 255
