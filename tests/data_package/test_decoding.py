"""Image files of every kind, whole and in part, as their own decoders read them."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_mobilenets.data import decoding
from keras_mobilenets.data import preprocessing as pre
from keras_mobilenets.data.decoding import decode
from keras_mobilenets.recipe import recipes

SLIM = recipes["slim_v2"]


def photo(height=120, width=150, mode="RGB"):
    """A smooth picture, as photographs are."""
    small = np.random.default_rng(7).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert(mode)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


JPEGS = {
    "444": ("RGB", {"subsampling": 0}),
    "422": ("RGB", {"subsampling": 1}),
    "420": ("RGB", {"subsampling": 2}),
    "progressive": ("RGB", {"progressive": True}),
    "grey": ("L", {}),
    "CMYK": ("CMYK", {}),
}


def boxes(recipe):
    seeds = [tf.constant([3, number], tf.int64) for number in range(12)]
    return [*(pre.train_box(seed, recipe) for seed in seeds), pre.eval_box(recipe)]


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("size", [(120, 150), (33, 17), (1, 1)], ids=str)
def test_a_part_of_a_jpeg_has_the_pixels_of_the_whole(kind, size):
    mode, options = JPEGS[kind]
    encoded = encode(photo(*size, mode), "JPEG", **options)
    whole = tf.io.decode_jpeg(encoded, channels=3)
    np.testing.assert_array_equal(decode(encoded), whole)
    for box in boxes(SLIM):
        np.testing.assert_array_equal(decode(encoded, box), pre.cropped(whole, box))


def in_dataset(encoded, function):
    dataset = tf.data.Dataset.from_tensors(encoded).map(function)
    return next(dataset.as_numpy_iterator())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_parts_are_the_same_inside_a_dataset(kind, mode):
    encoded = encode(photo(mode=mode), kind)
    whole = decode(encoded)
    for box in boxes(SLIM)[-3:]:
        part = in_dataset(encoded, lambda x, box=box: decode(x, box))
        np.testing.assert_array_equal(part, pre.cropped(whole, box))


def test_all_pipelines_have_what_was_traced_once():
    """It was most of what each of the three of a run takes to begin."""
    image = photo()
    image.putalpha(photo(mode="L"))
    encoded = encode(image, "PNG")
    traced = (decoding.exif_orientation, decoding._rgb, decoding._rgba)
    for _ in range(2):
        for alpha in (False, True):
            for bmp in (False, True):
                found = in_dataset(
                    encoded,
                    lambda x, a=alpha, b=bmp: decode(x, None, a, bmp=b, exif=True),
                )
                shown = np.asarray(image)[..., : 4 if alpha else 3]
                np.testing.assert_array_equal(found, shown)
        assert [f.experimental_get_tracing_count() for f in traced] == [1, 1, 1]
        keras.utils.clear_session()  # as KerasTuner does between trials


@pytest.mark.parametrize("number", range(3))
def test_a_jpeg_is_distorted_as_its_whole_image_is(number):
    seed = tf.constant([5, number], tf.int64)
    encoded = encode(photo(), "JPEG")
    whole = tf.io.decode_jpeg(encoded, channels=3)
    part = decode(encoded, pre.train_box(seed, SLIM))
    np.testing.assert_array_equal(
        pre.after_train_box(part, seed, 64, SLIM),
        pre.train_image(whole, seed, 64, SLIM),
    )
    middle = decode(encoded, pre.eval_box(SLIM))
    np.testing.assert_array_equal(
        pre.after_eval_box(middle, 64, SLIM), pre.eval_image(whole, 64, SLIM)
    )


KINDS = {
    "PNG": (photo(), "PNG", {}),
    "grey PNG": (photo(mode="L"), "PNG", {}),
    "palette PNG": (photo(mode="P"), "PNG", {}),
    "PNG of 1 bit": (photo(mode="1"), "PNG", {}),
    "BMP": (photo(), "BMP", {}),
    "black BMP": (Image.new("P", (9, 9)), "BMP", {}),
    "grey BMP": (photo(mode="L"), "BMP", {}),
    "palette BMP": (photo(mode="P"), "BMP", {}),
    "BMP of 1 bit": (photo(mode="1"), "BMP", {}),
    "GIF": (photo(mode="P"), "GIF", {}),
    "animated GIF": (
        photo(mode="P"),
        "GIF",
        {"save_all": True, "append_images": [photo(mode="L").convert("P")]},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_read_right(kind):
    image, name, options = KINDS[kind]
    encoded = encode(image, name, **options)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_array_equal(decode(encoded), expected)


def test_alpha_is_dropped():
    image = photo(mode="RGBA")
    image.putalpha(photo(mode="L"))
    np.testing.assert_array_equal(decode(encode(image, "PNG")), photo())


def test_cmyk_is_read_as_pillow_reads_it():
    encoded = encode(photo(mode="CMYK"), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), int)
    np.testing.assert_allclose(decode(encoded), expected, atol=2)


def test_of_16_bits_the_upper_8_are_read():
    levels = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    image = decode(encode(Image.fromarray(levels), "PNG"))
    np.testing.assert_array_equal(image[..., 0], levels >> 8)
    np.testing.assert_array_equal(image[..., 2], levels >> 8)


def transparent(mode):
    """A picture with an alpha of its own."""
    alpha = photo().convert("L").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = photo(mode=mode.removesuffix("A"))
    image.putalpha(alpha)
    return image


ALPHAS = {
    "PNG": (transparent("RGBA"), "PNG", {}),
    "grey PNG": (transparent("LA"), "PNG", {}),
    "palette PNG": (photo(mode="P"), "PNG", {"transparency": bytes(range(256))}),
    "palette PNG of 4 bits": (photo(mode="P"), "PNG", {"bits": 4, "transparency": 3}),
    "PNG of 1 bit": (photo(mode="1"), "PNG", {"transparency": 0}),
    "WebP": (transparent("RGBA"), "WebP", {"lossless": True, "exact": True}),
}


@pytest.mark.parametrize("kind", ALPHAS)
def test_alpha_is_kept_where_it_is_asked_for(kind):
    image, name, options = ALPHAS[kind]
    encoded = encode(image, name, **options)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGBA"))
    assert expected[..., 3].min() < 255
    kept = decode(encoded, None, True)
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(decode(encoded), expected[..., :3])
    for box in boxes(SLIM)[-3:]:
        part = in_dataset(encoded, lambda x, box=box: decode(x, box, True))
        np.testing.assert_array_equal(part, pre.cropped(kept, box))


OPAQUE = {
    **KINDS,
    "palette PNG of 4 bits": (photo(mode="P"), "PNG", {"bits": 4}),
    **{kind: (photo(mode=mode), "JPEG", o) for kind, (mode, o) in JPEGS.items()},
    "WebP": (photo(), "WebP", {"lossless": True}),
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_what_has_no_alpha_is_opaque(kind):
    image, name, options = OPAQUE[kind]
    encoded = encode(image, name, **options)
    for box in (None, pre.eval_box(SLIM)):
        rgba = in_dataset(encoded, lambda x, box=box: decode(x, box, True))
        np.testing.assert_array_equal(rgba[..., :3], decode(encoded, box))
        assert rgba.shape[-1] == 4
        assert rgba[..., 3].min() == 255


def test_a_photograph_is_turned_with_its_alpha():
    exif = Image.Exif()
    exif[0x112] = 6
    encoded = encode(photo(), "JPEG", exif=exif)
    upright = decode(encoded, exif=True)
    rgba = decode(encoded, None, True, exif=True)
    assert rgba.shape == (150, 120, 4)
    np.testing.assert_array_equal(rgba[..., :3], upright)
