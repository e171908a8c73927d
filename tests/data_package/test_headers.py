"""Sizes that files claim, read before anything is decoded."""

import contextlib
import io
import struct

import numpy as np
import pytest
from PIL import Image

from keras_mobilenets.data.headers import MAX_DECODED_BYTES, Header, read_header

KINDS = {"JPEG": "JPEG", "PNG": "PNG", "GIF": "GIF", "BMP": "BMP", "WEBP": "WebP"}


def encode(kind, size=(37, 23), mode="RGB", **options):
    buffer = io.BytesIO()
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    if options.pop("frames", 1) > 1:
        options = {"save_all": True, "append_images": [image.rotate(180), image]}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(37, 23), (1, 1), (300, 2)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_what_a_file_says(kind, size, mode):
    mode = "RGB" if kind in ("JPEG",) and mode == "RGBA" else mode
    header = read_header(encode(kind, size, mode))
    assert header == Header(KINDS[kind], size[1], size[0])


JPEGS = {
    "progressive": {"progressive": True},
    "EXIF": {"exif": b"Exif\0\0" + b"x" * 99},
    "fine": {"quality": 100, "subsampling": 0},
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_every_jpeg(options):
    assert read_header(encode("JPEG", **options)) == Header("JPEG", 23, 37)


def test_webp_without_loss():
    assert read_header(encode("WEBP", lossless=True)) == Header("WebP", 23, 37)


def test_animations_are_counted():
    assert read_header(encode("GIF", frames=3)).frames == 3
    assert read_header(encode("WEBP", frames=3)).frames == 2  # more than one


def test_bits():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((5, 4), np.uint16)).save(buffer, "PNG")
    assert read_header(buffer.getvalue()) == Header("PNG", 5, 4, bits=16)


def test_the_oldest_bmp():
    old = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 40, 30, 1, 24)
    assert read_header(old) == Header("BMP", 30, 40)


def test_a_claim_is_read_without_what_it_claims():
    claims = b"BM" + bytes(12) + struct.pack("<Iii", 40, 60_000, -60_000)
    assert read_header(claims).decoded_bytes == 3 * 60_000**2 > MAX_DECODED_BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_ends_too_early(kind):
    whole = encode(kind)
    with pytest.raises(ValueError, match="not a JPEG"):
        read_header(whole[:1])
    with pytest.raises(ValueError, match="damaged or cut off"):
        read_header(whole[: 9 if kind == "GIF" else 12])
    for end in range(len(whole)):
        with contextlib.suppress(ValueError):
            assert read_header(whole[:end]).kind == KINDS[kind]


OTHER = {
    "nothing": b"",
    "text": b"text",
    "page": b"<html>",
    "sound": b"RIFF....WAVE",
    "TIFF": b"II*\0",
}


@pytest.mark.parametrize("content", OTHER.values(), ids=OTHER)
def test_no_image(content):
    with pytest.raises(ValueError, match="not a JPEG"):
        read_header(content)
