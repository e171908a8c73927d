"""Files that are no images, planted among good ones: nothing good is lost."""

import io
import os
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_mobilenets.data import checking, load_data
from keras_mobilenets.data.checking import CheckedFiles, fingerprint

COLORS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What is remembered of checks, in a folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode="RGB"):
    values = np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


GOOD = encode(Image.new("RGB", (40, 40), (90, 90, 90)), "PNG")
JPEG, PNG = encode(noise(), "JPEG"), encode(noise(), "PNG")


@pytest.fixture
def photos(tmp_path):
    """Six good pictures of each colour in each split: 54."""
    for split in ("train", "validation", "test"):
        for name, color in COLORS.items():
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(6):
                Image.new("RGB", (40, 30), color).save(folder / f"{number}.png")
    return tmp_path / "photos"


def labels_of(data):
    """How many images of each class every split has, all of them read."""
    counts = {}
    for split in ("train", "validation", "test"):
        labels = []
        for images, numbers in getattr(data, split).as_numpy_iterator():
            assert np.isfinite(images).all()
            labels += numbers.tolist()
        counts[split] = np.bincount(labels, minlength=3).tolist()
    return counts


def load(photos, **arguments):
    return load_data(photos, resolution=32, batch_size=1, **arguments)


# Broken files


def write(content):
    return lambda path: path.write_bytes(content)


BROKEN = {
    "zero bytes": ("x.jpg", write(b""), "empty"),
    "truncated JPEG": ("x.jpg", write(JPEG[: len(JPEG) // 2]), "damaged or cut off"),
    "JPEG without its end": ("x.jpg", write(JPEG[:-2]), "damaged or cut off"),
    "JPEG header": ("x.jpeg", write(JPEG[:20]), "damaged or cut off"),
    "truncated PNG": ("x.png", write(PNG[:-40]), "damaged or cut off"),
    "flipped PNG": (
        "x.png",
        write(PNG[:500] + bytes(8) + PNG[508:]),
        "damaged or cut off",
    ),
    "text": (
        "x.jpg",
        write(b"no image at all\n"),
        "not a JPEG, PNG, BMP, GIF or WebP image",
    ),
    "web page": ("x.png", write(b"<html>404</html>"), "not a JPEG, PNG"),
    "truncated BMP": ("x.bmp", write(b"BM" + bytes(30)), "damaged or cut off"),
    "truncated GIF": ("x.gif", write(b"GIF89a" + bytes(9)), "damaged or cut off"),
    "BMP named .jpg": (
        "x.jpg",
        write(encode(noise("P"), "BMP")),
        "a BMP image, but not named .bmp",
    ),
    "folder": ("x.jpg", lambda path: path.mkdir(), "is a directory"),
    "link to nowhere": (
        "x.jpg",
        lambda path: path.symlink_to("nowhere"),
        "no such file or directory",
    ),
}


@pytest.mark.parametrize(
    ("kind", "split"),
    [*((kind, "train") for kind in BROKEN), ("zero bytes", "test"), ("folder", "test")],
)
def test_a_broken_file_is_named_and_nothing_good_is_lost(photos, kind, split):
    name, plant, reason = BROKEN[kind]
    path = photos / split / "green" / name
    plant(path)
    with pytest.warns(UserWarning, match="passed over") as caught:
        data = load(photos)
    (message,) = [str(w.message) for w in caught if "passed over" in str(w.message)]
    assert f"1 file or folder in '{photos}'" in message
    assert f"'{path}' ({reason}" in message
    assert labels_of(data) == dict.fromkeys(("train", "validation", "test"), [6, 6, 6])
    assert (data.num_train, data.num_validation, data.num_test) == (18, 18, 18)
    assert data.steps_per_epoch == 18
    with pytest.raises(ValueError, match="cannot be read as images") as caught:
        load(photos, broken="fail")
    assert f"'{path}' ({reason}" in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="as root")
def test_a_file_that_may_not_be_read(photos):
    path = photos / "train" / "green" / "0.png"
    path.chmod(0)
    with pytest.warns(UserWarning, match="permission denied"):
        assert load(photos).num_train == 17


def test_many_broken_files_are_counted_and_some_shown(photos):
    for number in range(40):
        (photos / "train" / "red" / f"x{number:02}.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match="passed over") as caught:
        data = load(photos)
    message = str(caught[0].message)
    assert "40 files or folders" in message
    assert "x04.jpg' (empty) and 35 more" in message
    assert "x05.jpg" not in message
    assert data.num_train == 18


@pytest.mark.parametrize("content", [None, b""], ids=["no file", "a broken file"])
def test_an_empty_class_folder_is_named_and_no_class(photos, content):
    for split in ("train", "test"):
        (photos / split / "white").mkdir()
        if content is not None:
            (photos / split / "white" / "x.jpg").write_bytes(content)
    with pytest.warns(UserWarning, match="class folder without a readable image"):
        data = load(photos)
    assert data.classes == ("blue", "green", "red")
    assert labels_of(data)["test"] == [6, 6, 6]
    with pytest.raises(ValueError, match="white' .a class folder without"):
        load(photos, broken="fail")


def test_a_class_that_only_validation_lacks_stays(photos):
    (photos / "train" / "white").mkdir()
    (photos / "validation" / "white").mkdir()
    (photos / "train" / "white" / "0.png").write_bytes(GOOD)
    with pytest.warns(UserWarning, match="validation/white' .a class folder without"):
        assert load(photos).classes == ("blue", "green", "red", "white")


def test_a_folder_named_as_an_image_keeps_its_images(photos):
    folder = photos / "train" / "green" / "album.jpg"
    folder.mkdir()
    (folder / "0.png").write_bytes(GOOD)
    with pytest.warns(UserWarning, match="album.jpg' .is a directory"):
        assert labels_of(load(photos))["train"] == [6, 7, 6]


def test_the_cut_of_a_folder_without_splits_stays(tmp_path):
    for name in ("green", "red"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(60):
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(GOOD)
    before = load(tmp_path / "photos")
    (tmp_path / "photos" / "red" / "x.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match="passed over"):
        after = load(tmp_path / "photos")
    for split in ("train", "validation", "test"):
        assert getattr(after, f"num_{split}") == getattr(before, f"num_{split}")


# Files that break during a run


LATER = {
    "gone": (lambda path: path.unlink(), "no such file or directory"),
    "cut off": (write(PNG[:-40]), "damaged or cut off"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a directory"),
}


def seen(batches):
    """Colour (0 blue, 1 green, 2 red) and label of every image, and the sizes."""
    images, labels, *_ = zip(*batches.as_numpy_iterator(), strict=True)
    colors = [2 - int(np.argmax(i.mean((0, 1)))) for batch in images for i in batch]
    return colors, np.concatenate(labels).tolist(), [len(batch) for batch in labels]


@pytest.mark.parametrize("kind", LATER)
def test_a_file_that_breaks_later_is_named_once_and_batches_stay_full(photos, kind):
    damage, reason = LATER[kind]
    data, other = (load_data(photos, resolution=32, batch_size=4) for _ in range(2))
    seen(data.train)
    path = photos / "train" / "red" / "3.png"
    damage(path)
    with pytest.warns(UserWarning, match="cannot be read") as caught:
        passes = [seen(data.train) for _ in range(3)]
    for colors, labels, sizes in passes:
        assert colors == labels
        assert sizes == [4] * 4
    (message,) = [str(w.message) for w in caught]
    assert f"'{path}' ({reason}" in message
    assert message.startswith("1 file")
    data.set_position(2, 1)
    rest = list(data.train.as_numpy_iterator())
    other.set_epoch(2)
    with pytest.warns(UserWarning, match="cannot be read"):
        whole = list(other.train.as_numpy_iterator())
    for one, again in zip(rest, whole[1:], strict=True):
        np.testing.assert_array_equal(one[0], again[0])


def test_a_file_that_breaks_later_does_not_count_in_evaluation(photos):
    plain, padded = (
        load_data(photos, resolution=32, batch_size=4, pad_evaluation=pad)
        for pad in (False, True)
    )
    for number in (1, 4):
        (photos / "test" / "green" / f"{number}.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="2 files or folders") as caught:
        colors, labels, sizes = seen(plain.test)
    assert [str(w.message)[0] for w in caught] == ["1", "2"], "counted"
    assert np.bincount(labels).tolist() == [6, 4, 6]
    assert (colors, sizes) == (labels, [4] * 4)
    with pytest.warns(UserWarning, match="2 files or folders"):
        batches = list(padded.test.as_numpy_iterator())
    _, labels, weights = map(np.concatenate, zip(*batches, strict=True))
    assert {len(b[1]) for b in batches} == {4}
    assert np.bincount(labels, weights).tolist() == [6, 4, 6]


def test_a_file_that_breaks_later_ends_the_run_that_asked_for_it(photos):
    data = load_data(photos, resolution=32, batch_size=4, broken="fail")
    path = photos / "train" / "red" / "3.png"
    path.write_bytes(PNG[:-40])
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="no broken files"
    ) as caught:
        list(data.train)
    assert f"'{path}' (damaged or cut off)" in str(caught.value)


def test_another_image_in_its_place_is_read(photos):
    data = load_data(photos, resolution=32, batch_size=18)
    Image.new("RGB", (50, 50), (0, 200, 0)).save(photos / "test" / "red" / "3.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        colors, labels, _ = seen(data.test)
    assert sum(color != label for color, label in zip(colors, labels, strict=True)) == 1


def test_a_file_that_comes_back_counts_again(photos):
    data = load_data(photos, resolution=32, batch_size=18)
    path = photos / "test" / "red" / "3.png"
    path.rename(photos / "away")
    with pytest.warns(UserWarning, match="no such file"):
        assert len(seen(data.test)[1]) == 17
    (photos / "away").rename(path)
    assert len(seen(data.test)[1]) == 18


@pytest.mark.parametrize("most", [5, 100])
def test_a_disk_that_is_gone_ends_the_run(photos, monkeypatch, most):
    monkeypatch.setattr(checking, "MAX_LOST", most)
    data = load_data(photos, resolution=32, batch_size=4)
    (photos / "train").rename(photos / "elsewhere")
    message = f"source has lost {min(most, 18)} files in a row.*still there"
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(tf.errors.InvalidArgumentError, match=message),
    ):
        list(data.train)


def test_a_fingerprint_tells_what_is_no_longer_the_same(photos):
    path = photos / "train" / "red" / "3.png"
    before = fingerprint(str(path))
    assert fingerprint(str(path)) == before
    path.chmod(0)
    assert fingerprint(str(path)) != before


# Unusual files that are images


def animation():
    frames = [noise("P"), noise("L").convert("P")]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def sixteen_bits():
    return encode(Image.fromarray(np.full((40, 40), 40000, np.uint16)), "PNG")


UNUSUAL = {
    "CMYK JPEG": ("x.jpg", encode(noise("CMYK"), "JPEG")),
    "grey JPEG": ("x.jpg", encode(noise("L"), "JPEG")),
    "progressive JPEG": ("x.jpg", encode(noise(), "JPEG", progressive=True)),
    "JPEG with a tail": ("x.jpg", JPEG + bytes(50)),
    "PNG of 16 bits": ("x.png", sixteen_bits()),
    "PNG with alpha": ("x.png", encode(noise("RGBA"), "PNG")),
    "PNG named .jpg": ("x.jpg", PNG),
    "JPEG named .png": ("x.png", JPEG),
    "GIF named .jpg": ("x.jpg", encode(noise("P"), "GIF")),
    "animated GIF": ("x.gif", animation()),
    "palette BMP": ("x.bmp", encode(noise("P"), "BMP")),
    "capitals": ("X.JPG", JPEG),
}


@pytest.mark.parametrize("recipe", ["quick", "slim_v2"])
def test_unusual_images_are_read(photos, recipe):
    for number, (name, content) in enumerate(UNUSUAL.values()):
        stem, suffix = name.split(".")
        (photos / "train" / "red" / f"{stem}{number}.{suffix}").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(photos, recipe=recipe)
    assert data.num_train == 18 + len(UNUSUAL)
    seen = np.array(labels_of(data)["train"][-3:])
    assert seen.tolist() == [6, 6, 6 + len(UNUSUAL)]


def test_a_png_of_16_bits_has_its_own_brightness(photos):
    (photos / "test" / "red" / "9.png").write_bytes(sixteen_bits())
    images, _ = list(load(photos).test.as_numpy_iterator())[-1]
    np.testing.assert_allclose(images, (40000 >> 8) / 127.5 - 1, atol=1e-6)


# What is remembered


def counted(monkeypatch):
    seen = []
    look = checking._problem_of_file
    monkeypatch.setattr(
        checking, "_problem_of_file", lambda path: seen.append(path) or look(path)
    )
    return seen


def test_good_files_are_checked_once(photos, cache, monkeypatch):
    monkeypatch.setattr(checking, "KEEP_AFTER", 0)
    bad = photos / "train" / "red" / "x.jpg"
    bad.write_bytes(b"")
    paths = sorted(str(path) for path in photos.rglob("*.*g"))
    seen = counted(monkeypatch)
    expected = {str(bad): "empty"}
    assert CheckedFiles(photos).find_broken(paths) == expected
    assert sorted(seen) == paths
    seen.clear()
    assert CheckedFiles(photos).find_broken(paths) == expected
    assert seen == [str(bad)], "what is broken may be mended"

    changed = photos / "train" / "red" / "0.png"
    changed.write_bytes(b"changed")
    added = photos / "train" / "red" / "added.png"
    added.write_bytes(GOOD)
    seen.clear()
    assert set(CheckedFiles(photos).find_broken([*paths, str(added)])) == {
        str(bad),
        str(changed),
    }
    assert sorted(seen) == sorted(map(str, (bad, changed, added)))
    assert len(list(cache.rglob("*"))) == 2, "one folder, one file, nothing beside it"


def test_a_quick_check_leaves_nothing(photos, cache, monkeypatch):
    monkeypatch.setattr(checking, "KEEP_AFTER", 60)
    load(photos)
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"no array", None])
def test_a_memory_that_cannot_be_used(photos, cache, monkeypatch, damage):
    monkeypatch.setattr(checking, "KEEP_AFTER", 0)
    if damage is None:
        cache.write_text("a file where the folder would be")
    else:
        assert load(photos).num_train == 18
        (memory,) = cache.rglob("*.npy")
        memory.write_bytes(damage)
    assert load(photos).num_train == 18


def test_many_files_are_announced(photos, capsys, monkeypatch):
    monkeypatch.setattr(checking, "TELL_FROM", 54)
    load(photos)
    assert capsys.readouterr().err == "checking 54 image files, once\n"


def test_no_files():
    assert CheckedFiles("nowhere").find_broken([]) == {}


def test_decoding_an_eighth_finds_what_decoding_all_finds():
    for end in range(3, len(JPEG), 97):
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.io.decode_jpeg(JPEG[:end], channels=3)
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.io.decode_jpeg(JPEG[:end], channels=3, ratio=8)
