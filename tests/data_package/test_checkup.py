"""check_data and the verb doctor, on real folders and prepared TFDS data."""

import json

import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from keras_mobilenets.data import checkup
from keras_mobilenets.data.digits import prepared_digits


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def save(path, number, size=(50, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3))
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path):
    """Pictures of noise, all different: 8 to train, 4 to validate, 4 to test."""
    number = 0
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        for name in ("cat", "dog"):
            for index in range(count):
                save(tmp_path / "photos" / split / name / f"{index}.png", number)
                number += 1
    return tmp_path / "photos"


def test_a_good_folder(photos):
    save(photos / "train" / "dog" / "large.png", 99, (300, 200))
    report = km.check_data(photos)
    assert report["source"] == str(photos)
    assert report["classes"] == {
        "cat": {"train": 4, "validation": 2, "test": 2},
        "dog": {"train": 5, "validation": 2, "test": 2},
    }
    assert report["splits"]["train"] == {
        "images": 9,
        "height": [40, 40, 200],
        "width": [50, 50, 300],
        "repeated": 0,
    }
    assert report["splits"]["test"]["images"] == 4
    for part in ("broken", "duplicates", "tar_files", "notes", "problems"):
        assert report[part] == []
    assert report["sheet"] is None


def test_broken_files_are_listed(photos):
    bad = photos / "train" / "cat" / "x.jpg"
    bad.write_bytes(b"")
    report = km.check_data(photos)
    assert report["broken"] == [{"path": str(bad), "reason": "empty"}]
    assert report["problems"] == ["1 file cannot be read"]
    assert report["splits"]["train"]["images"] == 8


def test_the_same_image_in_two_splits(photos):
    """In another file format, under another name."""
    Image.open(photos / "train" / "cat" / "1.png").save(
        photos / "test" / "cat" / "t.bmp"
    )
    report = km.check_data(photos)
    assert report["problems"] == ["1 of the images are in several splits"]
    ((one, other),) = report["duplicates"]
    assert one == {
        "split": "train",
        "image": str(photos / "train" / "cat" / "1.png"),
        "class": "cat",
    }
    assert other["split"] == "test"
    assert other["image"].endswith("t.bmp")


def test_the_same_image_in_two_classes(photos):
    save(photos / "train" / "dog" / "again.png", 0)
    report = km.check_data(photos)
    assert report["problems"] == ["1 of the images are in several classes"]
    assert [e["class"] for e in report["duplicates"][0]] == ["cat", "dog"]


def test_repeats_inside_a_class_are_counted(photos):
    save(photos / "train" / "cat" / "again.png", 0)
    report = km.check_data(photos)
    assert report["splits"]["train"]["repeated"] == 1
    assert report["duplicates"] == report["problems"] == []


def test_the_same_pixels_in_another_shape_are_another_image(photos):
    for name, size in (("a", (40, 30)), ("b", (30, 40))):
        path = photos / "train" / "cat" / f"{name}.png"
        Image.new("RGB", size, (1, 2, 3)).save(path)
    assert km.check_data(photos)["splits"]["train"]["repeated"] == 0


def test_no_test_split(photos):
    (photos / "test").rename(photos.parent / "elsewhere")
    report = km.check_data(photos)
    assert set(report["splits"]) == {"train", "validation"}
    assert "no test split" in report["notes"][0]
    assert report["problems"] == []


def test_a_class_that_a_split_lacks_is_noted(photos):
    save(photos / "train" / "owl" / "0.png", 50)
    report = km.check_data(photos)
    assert report["notes"] == [
        "1 class of 3 has a single image to train on: 'owl'",
        "validation has no image of 1 class: owl",
        "test has no image of 1 class: owl",
    ]
    assert report["classes"]["owl"] == {"train": 1, "validation": 0, "test": 0}


def test_the_contact_sheet(photos, tmp_path):
    sheet = tmp_path / "sheet.png"
    report = km.check_data(photos, sheet=sheet, resolution=32)
    assert report["sheet"] == str(sheet)
    with Image.open(sheet) as image:
        assert image.format == "PNG"
        assert image.size == (8 * 36 - 4, 2 * 36 - 4)
        tiles = np.asarray(image)
    first = tiles[:32, :32].astype(float) / 127.5 - 1
    path = photos / "train" / "cat" / "0.png"
    expected = km.data.load_image(path, 32, "slim_v2")
    np.testing.assert_allclose(first, expected, atol=0.005)
    augmented = {tiles[:32, 36 * n : 36 * n + 32].tobytes() for n in range(8)}
    assert len(augmented) == 8
    with pytest.raises(ValueError, match=r"sheet must be a new file; .*sheet\.png"):
        km.check_data(photos, sheet=sheet)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_the_contact_sheet_shows_what_the_network_sees(
    photos, tmp_path, channels, mode
):
    sheet = tmp_path / "sheet.png"
    km.check_data(photos, sheet=sheet, resolution=(32, 48), channels=channels)
    with Image.open(sheet) as image:
        assert (image.mode, image.size) == (mode, (8 * 52 - 4, 2 * 36 - 4))
        tiles = np.asarray(image).reshape(2 * 36 - 4, 8 * 52 - 4, channels)
    first = tiles[:32, :48].astype(float) / 127.5 - 1
    path = photos / "train" / "cat" / "0.png"
    expected = km.data.load_image(path, (32, 48), "slim_v2", channels)
    np.testing.assert_allclose(first, expected, atol=0.005)


def test_digits(tmp_path):
    prepared_digits(tmp_path)
    sheet = tmp_path / "sheet.png"
    report = km.check_data("digits", data_dir=tmp_path, sheet=sheet, resolution=32)
    assert {split: of["images"] for split, of in report["splits"].items()} == {
        "train": 1437, "validation": 180, "test": 180,
    }  # fmt: skip
    assert report["splits"]["train"]["height"] == [8, 8, 8]
    assert sum(of["train"] for of in report["classes"].values()) == 1437
    assert report["problems"] == []
    with Image.open(sheet) as image:
        assert image.size == (8 * 36 - 4, 8 * 36 - 4)


# ImageNet


def test_imagenets_tar_files(tmp_path, monkeypatch, capsys):
    manual = tmp_path / "downloads" / "manual"
    names = ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"]
    report = km.check_data("imagenet2012", data_dir=tmp_path)
    assert [f["path"] for f in report["tar_files"]] == [str(manual / n) for n in names]
    assert [f["found"] for f in report["tar_files"]] == [None, None]
    assert report["problems"] == [f"{manual / name} is missing" for name in names]

    manual.mkdir(parents=True)
    (manual / names[0]).write_bytes(bytes(9))
    (manual / names[1]).write_bytes(bytes(5))
    monkeypatch.setitem(checkup.TAR_FILES, "imagenet2012", {names[0]: 9, names[1]: 10})
    options = ["--data", "imagenet2012", "--data-dir", str(tmp_path)]
    assert main(["doctor", *options]) == 1
    printed = capsys.readouterr().out
    assert f"tar file: {manual / names[0]} (9 bytes; 9 found)" in printed
    assert f"problem: {manual / names[1]} is incomplete" in printed
    (manual / names[1]).write_bytes(bytes(10))
    assert main(["doctor", *options]) == 0
    assert "ready for `tfds build imagenet2012`" in capsys.readouterr().out


# The command line


def test_doctor_prints_what_it_finds(photos, capsys, tmp_path):
    bad = photos / "train" / "cat" / "x.jpg"
    bad.write_bytes(b"text")
    save(photos / "test" / "dog" / "again.png", 0)
    sheet = tmp_path / "sheet.png"
    arguments = ["--data", str(photos), "--sheet", str(sheet), "--resolution", "32"]
    assert main(["doctor", *arguments]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].split() == ["train", "8", *"40 ... 40 ... 40".split(),
                                  *"50 ... 50 ... 50".split(), "0"]  # fmt: skip
    assert f"broken: {bad} (not a JPEG, PNG, BMP, GIF or WebP image)" in printed
    assert "problem: 1 of the images are in several splits" in printed
    assert f"contact sheet: {sheet}" in printed
    assert printed[-1] == "problems were found"
    assert sheet.exists()


def test_doctor_on_good_data(photos, capsys):
    assert main(["doctor", "--data", str(photos)]) == 0
    assert capsys.readouterr().out.endswith("no problems found\n")
    assert main(["doctor", "--data", str(photos), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == km.check_data(str(photos))


def test_doctor_on_no_data(tmp_path, capsys):
    assert main(["doctor", "--data", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
