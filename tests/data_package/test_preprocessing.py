"""Preprocessing against slim's, eagerly and inside tf.data."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_mobilenets.data import preprocessing as pre
from keras_mobilenets.recipe import recipes

SLIM = recipes["slim_v2"]
FULL = SLIM.replace(color="full")
QUICK = recipes["quick"]


def seed(number=0):
    return tf.constant([11, number], tf.int64)


def photo(height=50, width=40, channels=3):
    values = np.random.default_rng(3).integers(0, 256, (height, width, channels))
    return tf.constant(values, tf.uint8)


def in_dataset(function, image, number=0):
    """What a function of (image, seed) gives inside tf.data, shapes unknown."""
    channels = image.shape[-1]

    def apply(image, number):
        image = tf.ensure_shape(image, [None, None, channels])
        return function(image, tf.stack([tf.constant(11, tf.int64), number]))

    dataset = tf.data.Dataset.from_generator(
        lambda: [(image, number)],
        output_signature=(
            tf.TensorSpec([None, None, None], image.dtype),
            tf.TensorSpec([], tf.int64),
        ),
    ).map(apply)
    return next(iter(dataset))


# The area and aspect ratio of slim's crops


@pytest.fixture(scope="module")
def crops():
    """4,000 crops of a 400 x 500 image: (height, width)."""
    shape = tf.constant([400, 500, 3])
    sizes = tf.data.Dataset.range(4000).map(
        lambda n: pre.crop_box(shape, tf.stack([tf.constant(5, tf.int64), n]))[1][:2]
    )
    return np.array(list(sizes.as_numpy_iterator()))


def test_crop_area_is_distributed_as_slims(crops):
    area = crops.prod(axis=1) / (400 * 500)
    assert 0.0995 <= area.min() <= 0.105  # not 0.05: a tenth must be covered
    assert area.max() <= 1
    quantiles = np.quantile(area, [0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(quantiles, [0.12, 0.22, 0.38, 0.57, 0.81], atol=0.025)
    assert area.mean() == pytest.approx(0.41, abs=0.015)


def test_crop_aspect_is_uniform_in_its_range(crops):
    height, width = crops.T
    aspect = width / height
    assert aspect.min() >= 0.75 - 0.01
    assert aspect.max() <= 1.33 + 0.01
    assert (height <= 400).all()
    assert (width <= 500).all()


def test_crops_lie_anywhere_inside():
    begins, ends = [], []
    for number in range(200):
        begin, size = pre.crop_box(tf.constant([60, 40, 3]), seed(number))
        begins.append(begin.numpy()[:2])
        ends.append((begin + size).numpy()[:2])
        assert begin[2] == 0
        assert size[2] in (-1, 3)
    assert np.min(begins) == 0
    assert np.max(begins) > 10
    assert (np.max(ends, axis=0) <= [60, 40]).all()
    assert (np.max(ends, axis=0) >= [58, 38]).all()


def test_an_impossible_crop_is_the_whole_image():
    _, size = pre.crop_box(
        tf.constant([10, 1000, 3]), seed(), area=(0.9, 1.0), aspect=(0.9, 1.1)
    )
    assert size.numpy()[:2].tolist() == [10, 1000]


def test_a_recipe_without_crop_keeps_the_image():
    image = photo()
    np.testing.assert_array_equal(
        pre.cropped(image, pre.train_box(seed(), QUICK)), image
    )


# Sizes and ranges


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [("tf1", [0, 2, 4, 6]), ("half_pixel", [0.5, 2.5, 4.5, 6.5])],
)
def test_resize_takes_the_kernels_samples(kernel, expected):
    ramp = tf.tile(tf.range(8.0)[tf.newaxis, :, tf.newaxis], [8, 1, 3])
    small = pre.resize(ramp, 4, kernel)
    assert small.shape == (4, 4, 3)
    np.testing.assert_allclose(small[0, :, 0], expected)
    turned = pre.resize(tf.transpose(ramp, [1, 0, 2]), 4, kernel)
    np.testing.assert_allclose(turned[:, 0, 0], expected)


def test_half_pixel_resize_is_tf2s():
    image = pre.to_unit(photo(37, 53))
    np.testing.assert_allclose(
        pre.resize(image, 24, "half_pixel"), tf.image.resize(image, [24, 24]), atol=1e-6
    )


def test_tf1_resize_is_tf1s():
    image = pre.to_unit(photo(37, 53))
    expected = tf.compat.v1.image.resize_bilinear(image[None], [24, 24])[0]
    np.testing.assert_array_equal(pre.resize(image, 24, "tf1"), expected)


def middle(image, fraction):
    recipe = SLIM.replace(eval_crop=fraction)
    return pre.cropped(image, pre.eval_box(recipe))


def test_the_middle_is_of_each_side():
    rows = tf.tile(tf.range(500.0)[:, None, None], [1, 400, 3])
    inner = middle(rows, 0.875)
    assert inner.shape == (438, 350, 3)
    assert inner[0, 0, 0] == 31
    assert middle(rows, None).shape == (500, 400, 3)
    inside = in_dataset(lambda x, _: middle(x, 0.875), rows)
    np.testing.assert_array_equal(inside, inner)


@pytest.mark.parametrize("fraction", [0.875, 0.9, 0.33, 1.0])
def test_the_middle_is_tensorflows(fraction):
    for side in range(1, 60):
        image = photo(side, 61 - side)
        np.testing.assert_array_equal(
            middle(image, fraction), tf.image.central_crop(image, fraction)
        )


def test_scaling_maps_0_to_minus_1_and_255_to_1():
    image = tf.constant([[[0], [255]], [[51], [204]]], tf.uint8)
    signed = pre.to_signed(pre.to_unit(image))
    np.testing.assert_allclose(signed[..., 0], [[-1, 1], [-0.6, 0.6]], atol=1e-6)


def test_channels_become_three():
    grey = pre.to_unit(photo(channels=1))
    rgb = pre.with_channels(grey, 3)
    assert rgb.shape == (50, 40, 3)
    for channel in range(3):
        np.testing.assert_array_equal(rgb[..., channel], grey[..., 0])
    rgba = pre.to_unit(photo(channels=4))
    np.testing.assert_array_equal(pre.with_channels(rgba, 3), rgba[..., :3])
    image = pre.to_unit(photo())
    assert pre.with_channels(image, 3) is image
    with pytest.raises(ValueError, match="1 .grey., 3 .RGB. or 4 .RGBA. channels"):
        pre.with_channels(pre.to_unit(photo(channels=2)), 3)


def test_grey_is_weighted_as_jpeg_does():
    image = photo()
    grey = pre.with_channels(pre.to_unit(image), 1)
    assert grey.shape == (50, 40, 1)
    weighted = image.numpy() / 255 @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey[..., 0], weighted, atol=1e-6)
    pillow = np.asarray(Image.fromarray(image.numpy()).convert("L"))
    np.testing.assert_allclose(255 * grey[..., 0], pillow, atol=0.51)
    rgba = tf.concat([image, photo(channels=1)], -1)
    np.testing.assert_array_equal(pre.with_channels(pre.to_unit(rgba), 1), grey)


def test_grey_stays_the_same_grey_to_the_bit():
    grey = tf.reshape(tf.range(256.0) / 255, [16, 16, 1])
    again = pre.with_channels(pre.with_channels(grey, 3), 1)
    np.testing.assert_array_equal(again, grey)


def test_what_has_no_alpha_is_opaque():
    for channels in (1, 3):
        image = pre.to_unit(photo(channels=channels))
        rgba = pre.with_channels(image, 4)
        np.testing.assert_array_equal(rgba[..., :3], pre.with_channels(image, 3))
        np.testing.assert_array_equal(rgba[..., 3], np.ones([50, 40]))


def test_a_resize_is_to_height_and_width():
    image = pre.to_unit(photo(37, 53))
    for kernel, half in (("tf1", False), ("half_pixel", True)):
        expected = tf.raw_ops.ResizeBilinear(
            images=image[None], size=[24, 40], half_pixel_centers=half
        )[0]
        np.testing.assert_array_equal(pre.resize(image, (24, 40), kernel), expected)


@pytest.mark.parametrize("resolution", [(32, 64), (64, 32), (96, 160)], ids=str)
def test_crops_have_the_aspect_of_the_network(resolution):
    """So that a crop is stretched as much as it is for a square network."""
    wide = resolution[1] / resolution[0]
    square, ours = (
        np.array(
            [
                pre.train_box(seed(n), SLIM, aspect)(tf.constant([800, 800, 3]))[1]
                for n in range(200)
            ]
        )
        for aspect in (1.0, wide)
    )
    low, high = SLIM.crop_aspect
    stretch = ours[:, 1] / ours[:, 0] / wide
    assert low - 0.02 < stretch.min() < low + 0.1
    assert high - 0.1 < stretch.max() < high + 0.02
    assert np.any(square != ours)
    np.testing.assert_array_equal(
        square[0], pre.train_box(seed(0), SLIM)(tf.constant([800, 800, 3]))[1]
    )


# Colours


def draws(number=0):
    return tf.random.stateless_uniform([5], seed(number))


def test_fast_colour_is_brightness_then_saturation():
    image = pre.to_unit(photo())
    for number in range(5):
        u = draws(number)
        expected = tf.image.adjust_brightness(image, (2 * u[0] - 1) * 32 / 255)
        expected = tf.image.adjust_saturation(expected, 0.5 + u[1])
        distorted = pre.distort_color(image, u, "fast")
        np.testing.assert_allclose(distorted, np.clip(expected, 0, 1), atol=1e-6)


@pytest.mark.parametrize("mode", ["fast", "full"])
@pytest.mark.parametrize("number", range(4))
def test_colours_are_the_same_compiled(mode, number):
    u = tf.tensor_scatter_nd_update(draws(number), [[4]], [number / 4 + 0.1])
    image = pre.to_unit(photo())
    compiled = tf.function(pre.distort_color, jit_compile=True)(image, u, mode)
    np.testing.assert_allclose(
        compiled, pre.distort_color(image, u, mode), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.5, 9.0])
@pytest.mark.parametrize("shift", [-1.1, -0.1, 0.0, 0.1])
def test_saturation_is_tensorflows(factor, shift):
    image = pre.to_unit(photo()) + shift  # brightness leaves [0, 1]
    image = tf.concat([image, tf.fill([50, 4, 3], 0.3), tf.zeros([50, 4, 3])], 1)
    np.testing.assert_allclose(
        pre.saturated(image, factor),
        tf.image.adjust_saturation(image, factor),
        atol=1e-6,
    )


def test_brightness_shifts_grey_by_at_most_32_of_255():
    grey = tf.fill([2, 2, 3], 0.5)
    shifts = np.array(
        [float(pre.distort_color(grey, draws(n))[0, 0, 0]) - 0.5 for n in range(300)]
    )
    assert np.abs(shifts).max() <= 32 / 255 + 1e-6
    assert shifts.min() < -0.11
    assert shifts.max() > 0.11
    assert abs(shifts.mean()) < 0.02


def test_full_colour_has_slims_four_orders():
    image, u = pre.to_unit(photo()), draws()

    def brightness(x):
        return tf.image.adjust_brightness(x, (2 * u[0] - 1) * 32 / 255)

    def saturation(x):
        return tf.image.adjust_saturation(x, 0.5 + u[1])

    def hue(x):
        return tf.image.adjust_hue(x, (2 * u[2] - 1) * 0.2)

    def contrast(x):
        return tf.image.adjust_contrast(x, 0.5 + u[3])

    orders = (
        (brightness, saturation, hue, contrast),
        (saturation, brightness, contrast, hue),
        (contrast, hue, brightness, saturation),
        (hue, saturation, contrast, brightness),
    )
    for number, order in enumerate(orders):
        expected = image
        for step in order:
            expected = step(expected)
        for drawn in (number / 4, number / 4 + 0.249):
            changed = tf.tensor_scatter_nd_update(u, [[4]], [drawn])
            np.testing.assert_allclose(
                pre.distort_color(image, changed, "full"),
                np.clip(expected, 0, 1),
                atol=1e-5,
            )


def test_no_colour_changes_nothing():
    image = pre.to_unit(photo())
    assert pre.distort_color(image, draws(), None) is image


def test_crop_flip_and_colours_are_drawn_independently():
    """Each from numbers of its own: none can be told from another."""
    whole = tf.constant([400, 500, 3])
    drawn = []
    for number in range(300):
        begin, size = pre.train_box(seed(number), SLIM)(whole)
        u = tf.random.stateless_uniform([6], pre._other(seed(number)))
        drawn.append([*begin.numpy()[:2], *size.numpy()[:2], *u.numpy()])
    related = np.corrcoef(np.transpose(drawn))
    assert np.abs(related[4:, :4]).max() < 0.25
    assert np.abs(related[4:, 4:] - np.eye(6)).max() < 0.25


# Whole images


SHAPES = [((32, 48), 1), ((48, 32), 3), (32, 4)]


@pytest.mark.parametrize("recipe", [SLIM, FULL, QUICK], ids=["slim", "full", "quick"])
@pytest.mark.parametrize(("resolution", "channels"), SHAPES, ids=str)
def test_batches_do_not_depend_on_how_a_source_stores_grey(
    recipe, resolution, channels
):
    grey = photo(channels=1)
    forms = [grey, tf.image.grayscale_to_rgb(grey)]
    forms.append(tf.pad(forms[1], [[0, 0], [0, 0], [0, 1]], constant_values=255))
    first, *others = (
        [
            pre.eval_image(form, resolution, recipe, channels),
            *(
                pre.train_image(form, seed(n), resolution, recipe, channels)
                for n in range(4)
            ),
        ]
        for form in forms
    )
    sides = (32, 32) if resolution == 32 else resolution
    assert {tuple(image.shape) for image in first} == {(*sides, channels)}
    for other in others:
        for one, same in zip(first, other, strict=True):
            np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("recipe", [SLIM, FULL, QUICK], ids=["slim", "full", "quick"])
def test_grey_is_that_of_the_distorted_colours(recipe):
    image = photo()
    for number in range(4):
        rgb, grey = (
            pre.train_image(image, seed(number), (32, 48), recipe, channels)
            for channels in (3, 1)
        )
        expected = rgb.numpy() @ np.float32([0.299, 0.587, 0.114])
        np.testing.assert_allclose(grey[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("recipe", [SLIM, FULL, QUICK], ids=["slim", "full", "quick"])
def test_alpha_is_cropped_and_flipped_with_the_colours_and_not_distorted(recipe):
    image = photo(channels=1)
    rgba = tf.concat([photo(), image], -1)  # its alpha is that image
    plain = recipe.replace(color=None)
    for number in range(4):
        both = pre.train_image(rgba, seed(number), (32, 48), recipe, 4)
        rgb = pre.train_image(rgba[..., :3], seed(number), (32, 48), recipe)
        alpha = pre.train_image(image, seed(number), (32, 48), plain, 1)
        np.testing.assert_allclose(both[..., :3], rgb, atol=1e-6)
        np.testing.assert_allclose(both[..., 3:], alpha, atol=1e-6)


@pytest.mark.parametrize("recipe", [SLIM, FULL, QUICK], ids=["slim", "full", "quick"])
@pytest.mark.parametrize("channels", [1, 3])
def test_train_image_is_the_same_eagerly_and_in_tf_data(recipe, channels):
    image = photo(channels=channels)
    for number in range(3):
        eager = pre.train_image(image, seed(number), 32, recipe)
        inside = in_dataset(
            lambda x, s: pre.train_image(x, s, 32, recipe), image, number
        )
        assert eager.shape == inside.shape == (32, 32, 3)
        assert eager.dtype == tf.float32
        assert float(tf.reduce_min(eager)) >= -1
        assert float(tf.reduce_max(eager)) <= 1
        np.testing.assert_allclose(inside, eager, atol=1e-5)


@pytest.mark.parametrize("recipe", [SLIM, QUICK], ids=["slim", "quick"])
@pytest.mark.parametrize("channels", [1, 3])
def test_eval_image_is_the_same_eagerly_and_in_tf_data(recipe, channels):
    image = photo(channels=channels)
    eager = pre.eval_image(image, 32, recipe)
    inside = in_dataset(lambda x, _: pre.eval_image(x, 32, recipe), image)
    assert eager.shape == inside.shape == (32, 32, 3)
    np.testing.assert_allclose(inside, eager, atol=1e-6)


def test_eval_image_is_slims():
    image = photo(500, 400)
    middle = tf.cast(image, tf.float32)[31:469, 25:375] / 255
    expected = tf.compat.v1.image.resize_bilinear(middle[None], [96, 96])[0] * 2 - 1
    np.testing.assert_allclose(pre.eval_image(image, 96, SLIM), expected, atol=1e-5)


@pytest.mark.parametrize("number", range(4))
def test_train_image_is_slims_steps_in_order(number):
    image = photo()
    begin, size = pre.train_box(seed(number), SLIM)(tf.shape(image))
    u = tf.random.stateless_uniform([6], pre._other(seed(number)))
    step = tf.image.convert_image_dtype(tf.slice(image, begin, size), tf.float32)
    step = tf.compat.v1.image.resize_bilinear(step[None], [32, 32])[0]
    if u[0] < 0.5:
        step = tf.image.flip_left_right(step)
    step = pre.distort_color(step, u[1:], "fast") * 2 - 1
    np.testing.assert_allclose(
        pre.train_image(image, seed(number), 32, SLIM), step, atol=1e-6
    )


def test_half_of_the_images_are_flipped():
    recipe = QUICK.replace(flip=True)
    image = photo(32, 32)
    plain = pre.eval_image(image, 32, recipe)
    same = sum(
        np.allclose(pre.train_image(image, seed(n), 32, recipe), plain)
        for n in range(200)
    )
    assert 70 <= same <= 130


def test_one_seed_one_result():
    image = photo()
    first, again, other = (
        pre.train_image(image, seed(n), 32, SLIM).numpy() for n in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
