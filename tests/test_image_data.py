"""Images: the photographs' facts, folders and zips of one's own, ellipses, and every bad input in one line.

Labels: own-images, sec-4-2.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from efvae import cli
from efvae.data import images
from efvae.data.cache import DataError
from efvae.data.synthetic_images import draw_ellipses, ellipse_images

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def jpeg(width=178, height=218, mode="RGB", colour=None) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height), colour or ((200, 30, 30) if mode == "RGB" else 90)).save(out, "PNG")
    return out.getvalue()


def png(pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("EFVAE_IMAGES", raising=False)
    monkeypatch.delenv("EFVAE_DATA", raising=False)
    monkeypatch.setenv("EFVAE_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "mine"
    (place / "a").mkdir(parents=True)
    (place / "b").mkdir()
    for index in range(6):
        (place / "a" / f"{index}.png").write_bytes(jpeg())
        (place / "b" / f"{index}.png").write_bytes(jpeg(40, 30, "L"))
    return place


@pytest.fixture(scope="module")
def photographs():
    root = os.environ.get("EFVAE_DATA") or (str(BESIDE) if BESIDE.is_dir() else "")
    if not (root and (Path(root) / "images").is_dir()):
        pytest.skip("the photographs are not here: set EFVAE_DATA to the folder that holds images/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFVAE_DATA", root)
        yield images.load_photographs(16)


def test_photographs_are_those_of_their_readme(photographs):
    assert photographs.train.shape == (16477, 3, 16, 16)
    assert photographs.test.shape == (5535, 3, 16, 16)
    assert len(photographs.classes) == 34
    assert 427 <= int(photographs.train_label.bincount().min()) <= int(photographs.train_label.bincount().max()) <= 492
    assert photographs.train_label.bincount(minlength=34).min() > 0
    # means of all 22012 images, printed in the data set's readme; averaging pixels keeps them up to rounding
    pixels = torch.cat([photographs.train, photographs.test]).double().div(255)
    assert torch.allclose(pixels.mean((0, 2, 3)), torch.tensor([0.6874, 0.5835, 0.4818]).double(), atol=1e-3)


def test_a_folder_is_cropped_scaled_converted_and_split(folder):
    found = images.load_folder(folder, 16, held_out=0.25)
    assert found.train.shape[1:] == (3, 16, 16)
    assert found.train.dtype == torch.uint8
    assert len(found.train) + len(found.test) == 12
    assert len(found.test) > 0
    assert found.classes == ("a", "b")
    red = found.train[found.train_label == 0][0, :, 8, 8]
    assert red.tolist() == [200, 30, 30]
    grey = found.train[found.train_label == 1][0, :, 8, 8]
    assert grey.tolist() == [90, 90, 90]
    assert images.load_folder(folder, 16, held_out=0.25).sha256 == found.sha256
    assert images.load_folder(folder, 32, held_out=0.25).sha256 != found.sha256


def test_the_crop_is_at_the_centre():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    square = images._square(png(wide), 10)
    assert square.min() == 255
    # scaling alone, without the crop, would leave the black margins in
    assert images._square(jpeg(178, 218), 64).shape == (3, 64, 64)


def test_the_crop_of_a_portrait_is_at_the_centre_too():
    tall = np.zeros((30, 10, 3), np.uint8)
    tall[10:20] = 255
    assert images._square(png(tall), 10).min() == 255


def test_scaling_averages_by_a_triangle_and_picks_no_pixels():
    """The tutorial's bilinear scaling with antialiasing, by its formula: rows of 0 and 255 in turn, 25 to 10."""
    striped = np.zeros((25, 26, 3), np.uint8)
    striped[::2] = 255
    centres, rows = 2.5 * (np.arange(10) + 0.5), np.arange(25) + 0.5
    weight = np.clip(1 - np.abs(rows - centres[:, None]) / 2.5, 0, None)
    wanted = weight / weight.sum(1, keepdims=True) @ striped[:, 0, 0]
    found = images._square(png(striped), 10)
    assert np.abs(found - wanted[:, None]).max() <= 1
    assert 0 < found.min() < found.max() < 255


def test_an_image_keeps_its_part_when_another_is_added(tmp_path):
    """The colour tells which image it is."""
    for index in range(40):
        (tmp_path / f"{index:02}.png").write_bytes(jpeg(16, 16, colour=(5 * index, 0, 0)))
    before = images.load_folder(tmp_path, 16, held_out=0.25)
    for name in ("+1.png", "+2.png", "+3.png", "+4.png", "+5.png", "20b.png", "z.png"):
        (tmp_path / name).write_bytes(jpeg(16, 16, colour=(255, 0, 0)))
    after = images.load_folder(tmp_path, 16, held_out=0.25)

    def reds(part):
        return set(part[:, 0, 0, 0].tolist()) - {255}

    assert reds(after.train) == reds(before.train)
    assert reds(after.test) == reds(before.test)
    assert 5 <= len(reds(before.test)) <= 15


def test_a_zip_is_read_like_a_folder(folder, tmp_path):
    path = tmp_path / "mine.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder).as_posix())
        archive.writestr("__MACOSX/a/._0.png", b"no image")
    assert images.load_folder(path, 16).sha256 == images.load_folder(folder, 16).sha256


def test_unreadable_files_are_named_and_counted(folder, capsys):
    (folder / "a" / "7.jpg").write_bytes(jpeg()[:60])
    (folder / "a" / "8.jpg").write_bytes(b"text")
    with pytest.raises(DataError, match=r"2 of 14 images in .* cannot be read: a/7.jpg .*a/8.jpg .*on_bad=skip"):
        images.load_folder(folder, 16)
    found = images.load_folder(folder, 16, on_bad="skip")
    assert found.skipped == ("a/7.jpg", "a/8.jpg")
    assert len(found.train) + len(found.test) == 12
    assert "2 of 14 images" in capsys.readouterr().err


def zipped(folder, path, method=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def header(content: bytes, name: bytes) -> int:
    """Where the entry of a member begins in the central directory."""
    return content.rindex(name) - 46


@pytest.mark.parametrize(
    ("method", "offset", "change", "why"),
    [
        (zipfile.ZIP_STORED, 16, 0xFF, "Bad CRC-32"),
        (zipfile.ZIP_DEFLATED, 16, 0xFF, "Bad CRC-32"),
        (zipfile.ZIP_STORED, 8, 0x01, "is encrypted"),
        (zipfile.ZIP_STORED, 10, 0x63, "compression method is not supported"),
        (zipfile.ZIP_STORED, 10, zipfile.ZIP_DEFLATED, "Error -3"),
        (zipfile.ZIP_STORED, 10, zipfile.ZIP_LZMA, "."),
    ],
)
def test_a_damaged_member_of_a_zip_is_named_or_skipped(folder, tmp_path, method, offset, change, why):
    path = zipped(folder, tmp_path / "mine.zip", method)
    content = bytearray(path.read_bytes())
    content[header(content, b"a/3.png") + offset] ^= change
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"1 of 12 images in .*mine.zip cannot be read: a/3.png \(.*{why}") as info:
        images.load_folder(path, 16)
    assert "\n" not in str(info.value)
    found = images.load_folder(path, 16, on_bad="skip")
    assert found.skipped == ("a/3.png",)
    (folder / "a" / "3.png").unlink()
    assert found.sha256 == images.load_folder(folder, 16).sha256


def test_a_zip_with_a_damaged_directory_is_one_line(folder, tmp_path):
    path = zipped(folder, tmp_path / "mine.zip")
    content = bytearray(path.read_bytes())
    content[header(content, b"a/3.png")] ^= 0xFF
    path.write_bytes(content)
    for on_bad in ("stop", "skip"):
        with pytest.raises(DataError, match=r"mine.zip is a (damaged zip \(|file but no zip).*") as info:
            images.load_folder(path, 16, on_bad=on_bad)
        assert "\n" not in str(info.value)


def test_an_empty_and_an_oversized_picture_are_named_or_skipped(folder, monkeypatch):
    sound = images.load_folder(folder, 16).sha256
    (folder / "a" / "7.png").write_bytes(b"")
    (folder / "a" / "8.png").write_bytes(jpeg(300, 200))  # more than our limit
    (folder / "a" / "9.png").write_bytes(jpeg(500, 400))  # Pillow's error
    (folder / "b" / "7.png").write_bytes(jpeg(2, 600))  # small until it is scaled to 16 x 4800
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90_000)
    monkeypatch.setattr(images, "MOST_PIXELS", 50_000)
    big, narrow = "more than 50000 pixels", "too narrow: 2 x 600 pixels"
    line = rf"read: a/7.png \(an empty file\), a/8.png \({big}\), a/9.png \({big}\), b/7.png \({narrow}\); mend"
    with pytest.raises(DataError, match=line):
        images.load_folder(folder, 16)
    found = images.load_folder(folder, 16, on_bad="skip")
    assert (found.skipped, found.sha256) == (("a/7.png", "a/8.png", "a/9.png", "b/7.png"), sound)


def test_a_huge_file_is_named_or_skipped_before_it_is_read(folder, tmp_path, monkeypatch):
    sound = images.load_folder(folder, 16).sha256
    (folder / "a" / "7.png").write_bytes(bytes(100_001))
    monkeypatch.setattr(images, "MOST_BYTES", 100_000)
    packed = zipped(folder, tmp_path / "mine.zip", zipfile.ZIP_DEFLATED)
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "open", None)  # nor is it opened
        with pytest.raises(ValueError, match="more than 100000 bytes"), images._opened(packed) as (_, content):
            content("a/7.png")
    for place in (folder, packed):
        with pytest.raises(DataError, match=r"1 of 13 images in .* cannot be read: a/7.png \(more than 100000 bytes\)"):
            images.load_folder(place, 16)
        found = images.load_folder(place, 16, on_bad="skip")
        assert (found.skipped, found.sha256) == (("a/7.png",), sound)


@pytest.mark.parametrize("value", [0, -3, 2.5, 5000, "16"])
def test_a_size_out_of_range_is_refused(folder, value):
    for load in (lambda: images.load_folder(folder, value), lambda: images.load_photographs(value)):
        with pytest.raises(ValueError, match=rf"size must be a whole number of pixels in \[1, 4096\]; got {value}"):
            load()


@pytest.mark.parametrize("value", [0, 1, 2, -1, float("nan")])
def test_a_share_out_of_range_is_refused(folder, value):
    with pytest.raises(ValueError, match=rf"held_out must be a number in \(0, 1\); got {value}"):
        images.load_folder(folder, 16, held_out=value)


def stored_as_png(pixels, mode=None, **options) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(out, "PNG", **options)
    return out.getvalue()


def test_sixteen_bits_of_grey_are_scaled():
    wide = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    grey = images._square(stored_as_png(wide), 16)
    assert (grey == (wide // 257).astype(np.uint8)).all()


def test_what_is_transparent_is_white():
    colours = np.full((16, 16, 4), (200, 30, 31, 255), np.uint8)
    opaque = images._square(stored_as_png(colours), 16)
    assert (opaque == images._square(stored_as_png(colours[:, :, :3]), 16)).all()
    colours[:8, :, 3] = 0
    half = images._square(stored_as_png(colours), 16)
    assert (half[:, :8] == 255).all()
    assert (half[:, 8:] == opaque[:, 8:]).all()
    black = np.zeros((16, 16), np.uint8)
    black[8:] = 90
    for mode, clear in (("L", 0), ("P", b"\0"), ("RGB", (0, 0, 0))):
        marked = images._square(stored_as_png(black, mode, transparency=clear), 16)
        assert (marked[:, :8] == 255).all(), mode
        assert (marked[:, 8:] == 90).all(), mode


def test_a_wrong_place_is_told_from_a_missing_one(folder, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no images were named: let EFVAE_IMAGES"):
        images.load_folder(None, 16)
    with pytest.raises(DataError, match="does not exist"):
        images.load_folder(tmp_path / "nowhere", 16)
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "notes.txt").write_text("no image")
    monkeypatch.setenv("EFVAE_IMAGES", str(tmp_path / "wrong"))
    with pytest.raises(DataError, match=r"wrong place: it holds 1 other files \(such as notes.txt\) and no image"):
        images.load_folder(None, 16)
    with pytest.raises(DataError, match="is a file but no zip"):
        images.load_folder(tmp_path / "wrong" / "notes.txt", 16)


def test_the_command_verifies_the_zip(folder, tmp_path, monkeypatch, capsys):
    """What it says to do can be done: no address serves the photographs."""

    def refused(action: str) -> str:
        assert cli.main(["data", action, "images"]) == 2
        line = capsys.readouterr().err.strip()
        assert "\n" not in line
        assert "efvae data fetch" not in line
        return line

    there = "no address serves it; let EFVAE_DATA name the folder that holds images/ with fruits360-34-64px.zip"
    assert refused("verify").endswith(f"images is not here (looked for {tmp_path / 'cache' / 'images'}): {there}")
    assert "no address" in refused("fetch")
    for root in (tmp_path / "cache", tmp_path):
        (root / "images").mkdir(parents=True)
        if root == tmp_path:
            monkeypatch.setenv("EFVAE_DATA", str(tmp_path))
        assert re.search(r"zip is missing .*; put the original file there", refused("verify"))
        with (root / "images" / "fruits360-34-64px.zip").open("wb") as file:
            file.truncate(48703881)
        assert re.search(r"fruits360-34-64px.zip is altered.*; put the original file there", refused("verify"))


def test_the_command_verifies_celeba(folder, tmp_path, monkeypatch, capsys):
    def refused(action: str) -> str:
        assert cli.main(["data", action, "celeba"]) == 2
        told = capsys.readouterr()
        assert (told.out, told.err.count("\n")) == ("", 1)
        return told.err

    assert re.search("celeba is not downloaded.*zip from https://mmlab.*let EFVAE_IMAGES name it", refused("fetch"))
    assert "no images were named: let EFVAE_IMAGES" in refused("verify")
    monkeypatch.setenv("EFVAE_IMAGES", str(tmp_path / "nowhere"))
    assert "nowhere does not exist" in refused("verify")
    monkeypatch.setenv("EFVAE_IMAGES", str(folder))
    assert f"CelebA has 202599 images, {folder} holds 12" in refused("verify")
    monkeypatch.setattr(images, "CELEBA_IMAGES", 12)
    for place in (folder, zipped(folder, tmp_path / "mine.zip")):
        monkeypatch.setenv("EFVAE_IMAGES", str(place))
        assert cli.main(["data", "verify", "celeba"]) == 0
        assert capsys.readouterr().out == f"{place}\n"
    (folder / "b" / "3.png").write_bytes(jpeg()[:-30])
    monkeypatch.setenv("EFVAE_IMAGES", str(folder))
    assert f"1 of 12 images in {folder} cannot be read: b/3.png (" in refused("verify")
    assert cli.main(["data", "verify", "celebra"]) == 2
    assert "unknown data set 'celebra': did you mean 'celeba'?" in capsys.readouterr().err


def test_ellipses_are_a_function_of_their_factors():
    drawn = draw_ellipses(64, 32, seed=1)
    assert torch.equal(draw_ellipses(64, 32, seed=1).images, drawn.images)
    assert not torch.equal(draw_ellipses(64, 32, seed=2).images, drawn.images)
    red = drawn.label < 2
    darkness = 255 - drawn.images.double()
    assert (darkness[red][:, 2].sum((1, 2)) > darkness[red][:, 0].sum((1, 2))).all()  # red keeps its red channel
    # the centre of what is not white is the centre factor
    weight = darkness.sum(1)
    side = torch.linspace(-1, 1, 32, dtype=torch.float64)
    x = (weight.sum(1) * side).sum(1) / weight.sum((1, 2))
    assert (x - drawn.factors[:, 0]).abs().max() < 0.08
    found = ellipse_images(64, 16)
    assert found.train.shape == (48, 3, 16, 16)
    assert found.test.shape == (16, 3, 16, 16)
    with pytest.raises(ValueError, match="at least 4"):
        ellipse_images(3)


def test_scaling():
    assert images.scaled(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
