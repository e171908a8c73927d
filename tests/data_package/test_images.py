"""load_image, and files that are dangerous to read, in a folder and alone."""

import io
import os
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

import keras_mobilenets as km
from keras_mobilenets.data import load_image
from keras_mobilenets.data.checking import problem
from keras_mobilenets.data.decoding import decode, exif_orientation
from keras_mobilenets.data.preprocessing import cropped, eval_box, train_box
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import recipes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(size=(61, 40)):
    small = np.random.default_rng(7).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


# Large or dangerous files


def claimed(kind, side=60_000):
    """A small file that claims to be a large image."""
    encoded = bytearray(encode(Image.new("RGB", (16, 16)), kind))
    if kind == "JPEG":
        at = encoded.find(b"\xff\xc0") + 5
        encoded[at : at + 4] = struct.pack(">HH", side, side)
    elif kind == "PNG":
        encoded[16:24] = struct.pack(">II", side, side)
        encoded[29:33] = struct.pack(">I", zlib.crc32(encoded[12:29]))
    elif kind == "BMP":
        encoded[18:26] = struct.pack("<ii", side, side)
    elif kind == "GIF":
        encoded[6:10] = struct.pack("<HH", side, side)
    else:
        encoded[26:30] = struct.pack("<HH", 16383, 16383)
    return bytes(encoded)


KINDS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")


@pytest.mark.parametrize("kind", KINDS)
def test_what_decodes_too_large_is_not_decoded(tmp_path, kind):
    path = tmp_path / f"x.{kind.lower()}"
    path.write_bytes(claimed(kind))
    with pytest.raises(UsageError, match="pixels are more than 89,478,485: make"):
        load_image(path, 32)


def test_a_large_png_of_a_few_bytes(tmp_path):
    raw = zlib.compress(bytes(12_001 * 12_000), 1)
    head = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", raw), (b"IEND", b"")]
    encoded = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data
        + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )  # fmt: skip
    assert "12,000 x 12,000 pixels" in problem(encoded)


def test_an_animation_of_many_frames():
    """TensorFlow unpacks all of them to show the first."""
    frame = encode(Image.new("P", (3000, 3000)), "GIF")
    at = 19  # behind two colours
    assert frame[at : at + 1] == b","
    assert problem(frame) is None
    many = frame[:at] + frame[at:-1] * 20 + b"\x3b"
    assert problem(many).startswith("20 frames of 3,000 x 3,000 pixels")


def test_a_jpeg_that_decodes_at_an_eighth_only(tmp_path):
    """Found before the run: in 0.1.0 it ended one."""
    bomb = claimed("JPEG", 65_500)
    assert len(bomb) < 1000
    folder(tmp_path, bomb=bomb)
    with pytest.warns(UserWarning, match=r"1 file or folder.*65,500 x 65,500 pixels"):
        data = km.load_data(tmp_path / "photos", resolution=32, batch_size=1)
    assert sum(1 for _ in data.train) == data.num_train == 4
    report = km.check_data(tmp_path / "photos")
    assert "65,500 x 65,500" in report["broken"][0]["reason"]


def folder(tmp_path, **files):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            place = tmp_path / "photos" / split / name
            place.mkdir(parents=True)
            for number in range(2):
                photo().save(place / f"{number}.png")
    for stem, content in files.items():
        (tmp_path / "photos" / "train" / "cat" / f"{stem}.jpg").write_bytes(content)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_only_regular_files_are_opened(tmp_path):
    """A pipe would be waited for, and /dev/zero never ends."""
    folder(tmp_path)
    cats = tmp_path / "photos" / "train" / "cat"
    os.mkfifo(cats / "pipe.png")
    (cats / "zero.png").symlink_to("/dev/zero")
    done = []

    def look():
        for name in ("pipe", "zero"):
            with pytest.raises(UsageError, match=f"{name}.png': not a regular file"):
                load_image(cats / f"{name}.png", 32)
        done.append(km.check_data(tmp_path / "photos")["broken"])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(600)
    assert done, "waits"
    assert [file["reason"] for file in done[0]] == ["not a regular file"] * 2


def test_an_animated_webp_is_refused(tmp_path):
    """TensorFlow's decoder writes past its memory, whatever the file's name."""
    content = encode(photo(), "WEBP", save_all=True, append_images=[photo().rotate(9)])
    folder(tmp_path, x=content)
    with pytest.warns(UserWarning, match="an animated WebP image"):
        km.load_data(tmp_path / "photos", resolution=32, batch_size=1)
    with pytest.raises(UsageError, match="an animated WebP image"):
        load_image(tmp_path / "photos" / "train" / "cat" / "x.jpg", 32)


@pytest.mark.parametrize("top", [1, 255, 300, 4095])
def test_16_bits_that_would_turn_black_are_named(tmp_path, top):
    levels = np.linspace(0, top, 1600).astype(np.uint16).reshape(40, 40)
    folder(tmp_path, x=encode(Image.fromarray(levels), "PNG"))
    with pytest.warns(UserWarning, match=f"16 bits whose values reach {top} of 65,535"):
        km.load_data(tmp_path / "photos", resolution=32, batch_size=1)


@pytest.mark.parametrize("top", [0, 4096, 65_535])
def test_16_bits_that_do_not(top):
    levels = np.full((9, 9), top, np.uint16)
    assert problem(encode(Image.fromarray(levels), "PNG")) is None


@pytest.mark.parametrize(
    ("options", "mode"),
    [({}, "RGB"), ({"lossless": True}, "RGB"), ({"lossless": True}, "RGBA")],
    ids=["lossy", "lossless", "alpha"],
)
def test_webp_as_pillow_reads_it(options, mode):
    image = photo().convert(mode)
    if mode == "RGBA":
        image.putalpha(photo().convert("L"))
    encoded = encode(image, "WEBP", **options)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_array_equal(decode(encoded), expected)
    box = eval_box(recipes["slim_v2"])
    np.testing.assert_array_equal(decode(encoded, box), cropped(decode(encoded), box))


# Orientation


def turned(orientation, kind="JPEG", **options):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    return encode(photo(), kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_applied_as_pillow_does(orientation, kind):
    encoded = turned(orientation, kind)
    assert int(exif_orientation(encoded)) == orientation
    plain = Image.fromarray(decode(encoded).numpy())
    assert plain.size == photo().size
    plain.getexif()[0x0112] = orientation
    found = decode(encoded, exif=True)
    np.testing.assert_array_equal(found, ImageOps.exif_transpose(plain))
    for box in (train_box([1, 2], recipes["slim_v2"]), eval_box(recipes["slim_v2"])):
        part = decode(encoded, box, exif=True)
        np.testing.assert_array_equal(part, cropped(found, box))


def big_endian(orientation):
    """As Motorola's byte order has it, behind another segment."""
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0)
    plain = encode(photo(), "JPEG")
    segment = b"Exif\0\0" + tiff
    other = b"\xff\xe5" + struct.pack(">H", 400) + bytes(398)
    head = other + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    return plain[:2] + head + plain[2:]


def in_chunk(orientation, last=b""):
    """A PNG whose EXIF begins as a JPEG's, behind another chunk."""
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
    plain = encode(photo(), "PNG")
    head = 8 + 25  # the mark of a PNG, and its first chunk
    chunks = [
        struct.pack(">I", len(body)) + kind + body + bytes(4)
        for kind, body in ((b"teSt", bytes(300)), (b"eXIf", b"Exif\0\0" + tiff))
    ]
    return plain[:head] + last + b"".join(chunks) + plain[head:]


ODD_EXIF = {
    "in a PNG, as in a JPEG": (in_chunk(6), 6),
    "behind the pixels of a PNG": (in_chunk(6, b"\0\0\0\0IDAT" + bytes(4)), 1),
    "an endless chunk": (in_chunk(6, b"\xff\xff\xff\xffteSt"), 1),
    "a PNG cut off": (in_chunk(6)[:345], 1),
    "nothing but the start of a PNG": (b"\x89PNG\r\n\x1a\n", 1),
    "nothing but the start of a WebP": (b"RIFF\0\0\0\0WEBP", 1),
    "chunks of nothing": (b"RIFF\0\0\0\0WEBP" + bytes(4000), 1),
    "a GIF": (b"GIF89a" + bytes(50), 1),
    "nothing": (b"", 1),
    "big endian": (big_endian(6), 6),
    "impossible": (big_endian(9), 1),
    "zero": (big_endian(0), 1),
    "none": (encode(photo(), "JPEG"), 1),
    "cut off": (big_endian(6)[:430], 1),
    "nothing but a start": (b"\xff\xd8\xff", 1),
    "an endless segment": (b"\xff\xd8\xff\xe1\0\0" + bytes(50), 1),
}


@pytest.mark.parametrize("kind", ODD_EXIF)
def test_odd_exif(kind):
    encoded, orientation = ODD_EXIF[kind]
    assert int(exif_orientation(encoded)) == orientation


def test_training_evaluation_prediction_and_doctor_turn_alike(tmp_path):
    left = np.zeros((40, 60, 3), np.uint8)
    left[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the left lies above once it is turned
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            place = tmp_path / "photos" / split / name
            place.mkdir(parents=True)
            Image.fromarray(left).save(place / "0.jpg", exif=exif, quality=100)
    for recipe, is_turned in (("quick", True), (recipes["quick"].replace(
        exif_orientation=False), False)):  # fmt: skip
        with pytest.warns(UserWarning, match="single image"):
            data = km.load_data(
                tmp_path / "photos", resolution=32, batch_size=1, recipe=recipe
            )
        seen = [
            load_image(place / "0.jpg", 32, recipe).numpy(),
            *(
                image
                for images, _ in data.train.as_numpy_iterator()
                for image in images
            ),
            *(image for images, _ in data.test.as_numpy_iterator() for image in images),
        ]
        assert len(seen) == 5
        for image in seen:
            bright = image[..., 0] > 0.9
            assert bright[2, 2]
            assert (bright[2, 28], bright[28, 2]) == (is_turned, not is_turned)
    notes = km.check_data(tmp_path / "photos", recipe="quick")["notes"]
    (note,) = [note for note in notes if "EXIF" in note]
    assert note.startswith("4 images with an EXIF orientation")
    assert "'quick' turns them (exif_orientation=True)" in note
    notes = km.check_data(tmp_path / "photos", recipe="slim_v2")["notes"]
    assert any("'slim_v2' takes them as they lie" in note for note in notes)


# Paths


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody-of-that-name/x.png", "must be an image file"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
        (None, "got None"),
        (7, "got 7"),
        (b"x.png", "got b'x.png'"),
    ],
    ids=["no user", "long", "zero", "none", "number", "bytes"],
)
def test_paths_that_cannot_be(path, message):
    with pytest.raises(UsageError, match=message):
        load_image(path, 32)


def test_a_name_that_is_not_utf8(tmp_path):
    path = os.path.join(tmp_path, os.fsdecode(b"caf\xe9.png"))
    photo().save(path)
    assert load_image(path, 32).shape == (32, 32, 3)
    with pytest.raises(UsageError, match=r"caf\\udce9.jpg'") as caught:
        load_image(path.replace("png", "jpg"), 32)
    assert str(caught.value).isprintable()
