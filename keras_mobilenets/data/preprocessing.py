"""The papers' preprocessing: slim's inception_preprocessing, on one image.

Every function is pure and works eagerly and inside `tf.data.Dataset.map`. Random
ones take a seed, an integer tensor of shape [2]: the same seed gives the same
result. Images are [height, width, channels]; "unit" images are float32 in [0, 1].

Source: tensorflow/models, research/slim/preprocessing/inception_preprocessing.py.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_mobilenets.architecture.shapes import Resolution, aspect, sides
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import Recipe

# From the shape of an image, int32 [3], to the part of it to take: (begin, size), for
# `tf.slice`, int32 [3] each. None takes all of it.
Box = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None

CROP_ATTEMPTS = 100  # draws before the whole image is taken
BRIGHTNESS = 32 / 255  # largest shift
HUE = 0.2  # largest rotation
SATURATION = CONTRAST = (0.5, 1.5)  # factors
RED, GREEN = 0.299, 0.587  # in grey, the rest blue: ITU-R BT.601, as JPEG and Pillow


def with_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """A unit image as grey (1 channel), RGB (3) or RGBA (4), whatever it was.

    Grey becomes three equal channels, and these the same grey again, to the bit: it
    does not matter how a source stores it. Alpha is dropped, or 1 where there was none.

    The number of channels must be known. UsageError if it is not 1, 3 or 4.

    >>> with_channels(tf.zeros([8, 8, 1]), 3).shape
    TensorShape([8, 8, 3])
    """
    has = image.shape[-1]
    if has not in (1, 3, 4):
        raise UsageError(
            f"image must have 1 (grey), 3 (RGB) or 4 (RGBA) channels; got shape "
            f"{image.shape}"
        )
    if has == channels:
        return image
    if channels == 1:
        red, green, blue = (image[..., i : i + 1] for i in range(3))
        # Not tf.image.rgb_to_grayscale, whose weights have the sum 0.9999.
        return blue + RED * (red - blue) + GREEN * (green - blue)
    image = tf.image.grayscale_to_rgb(image) if has == 1 else image[..., :3]
    if channels == 4:
        image = tf.pad(image, [[0, 0], [0, 0], [0, 1]], constant_values=1)
    return image


def to_unit(image: tf.Tensor) -> tf.Tensor:
    """uint8 in 0..255 to float32 in [0, 1]; a float image passes as it is."""
    return tf.image.convert_image_dtype(image, tf.float32)


def to_signed(image: tf.Tensor) -> tf.Tensor:
    """[0, 1] to the networks' input range [-1, 1]."""
    return (image - 0.5) * 2.0


def crop_box(
    shape: tf.Tensor,
    seed: tf.Tensor,
    area: tuple[float, float] = (0.05, 1.0),
    aspect: tuple[float, float] = (0.75, 1.33),
    min_covered: float = 0.1,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where to crop for training: (begin, size), for `tf.slice`, int32 [3] each.

    `area` is the crop's share of the image, `aspect` its width / height. The object
    of which a crop must cover at least `min_covered` is the whole image, as slim
    passes no boxes; so no crop is smaller than that share, and the default area is
    in effect [0.1, 1]. The sampler is uniform in height, not in area. After
    `CROP_ATTEMPTS` draws without a fit the whole image is taken.

    >>> begin, size = crop_box(tf.constant([400, 500, 3]), tf.constant([0, 7]))
    """
    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=whole,
        seed=seed,
        min_object_covered=min_covered,
        aspect_ratio_range=aspect,
        area_range=area,
        max_attempts=CROP_ATTEMPTS,
        use_image_if_no_bounding_boxes=True,
    )
    return begin, size


def cropped(image: tf.Tensor, box: Box) -> tf.Tensor:
    """The part of an image [h, w, channels] that a box takes.

    >>> cropped(tf.zeros([500, 400, 3]), eval_box(recipes["slim_v2"])).shape
    TensorShape([438, 350, 3])
    """
    if box is None:
        return image
    part = tf.slice(image, *box(tf.shape(image)))
    part.set_shape([None, None, image.shape[-1]])
    return part


def train_box(seed: tf.Tensor, recipe: Recipe, wide: float = 1.0) -> Box:
    """The recipe's random crop for the image of this seed; None if it crops none.

    `wide` is the network's width / height, of which the recipe's `crop_aspect` is a
    multiple: so resizing stretches a crop as it does for a square network. [our choice]
    slim trains on squares only; crops near the square, stretched to 96x160, would show
    things wider by 1.3 to 2.2 than evaluation on images of that aspect does.
    """
    area = recipe.crop_area
    if area is None:
        return None
    low, high = recipe.crop_aspect
    return lambda shape: crop_box(
        shape,
        seed,
        area,
        (low * wide, high * wide),
        recipe.crop_min_covered,
    )


def eval_box(recipe: Recipe) -> Box:
    """The middle: the recipe's `eval_crop` of each side (not of the area); or all.

    Rounds as `tf.image.central_crop`, which slim calls, does.
    """
    fraction = recipe.eval_crop
    if fraction is None:
        return None

    def middle(shape: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sides = tf.cast(shape[:2], tf.float64)
        begin = tf.cast((sides - sides * fraction) / 2, tf.int32)
        size = shape[:2] - 2 * begin
        return tf.concat([begin, [0]], 0), tf.concat([size, [-1]], 0)

    return middle


def resize(image: tf.Tensor, resolution: Resolution, kernel: str = "tf1") -> tf.Tensor:
    """Bilinear resize to `resolution`, without antialiasing.

    The image's aspect ratio is not kept. `kernel` is "tf1", whose samples start at
    the first pixel's centre (8 pixels to 4 take 0, 2, 4, 6), or "half_pixel", whose
    samples sit in the middle (0.5, 2.5, 4.5, 6.5). Returns float32 values in the
    range of the input.
    """
    return tf.raw_ops.ResizeBilinear(
        images=image[tf.newaxis],
        size=list(sides(resolution)),
        align_corners=False,
        half_pixel_centers=kernel == "half_pixel",
    )[0]


def distort_color(
    image: tf.Tensor, draws: tf.Tensor, mode: str | None = "fast"
) -> tf.Tensor:
    """Random colours for a unit RGB image, clipped to [0, 1] again; alpha stays.

    "fast" changes brightness, then saturation; "full" also hue and contrast, in one
    of slim's four orders; None changes nothing. `draws`, float32 [5], uniform in
    [0, 1), are the strengths of the four and the order.

    >>> distort_color(image, tf.random.stateless_uniform([5], seed))
    """
    if mode is None:
        return image
    if image.shape[-1] == 4:
        colored = distort_color(image[..., :3], draws, mode)
        return tf.concat([colored, image[..., 3:]], -1)

    def between(number, low, high):
        return low + draws[number] * (high - low)

    def brightness(x):
        return x + between(0, -BRIGHTNESS, BRIGHTNESS)

    def saturation(x):
        return saturated(x, between(1, *SATURATION))

    def hue(x):
        return tf.image.adjust_hue(x, between(2, -HUE, HUE))

    def contrast(x):
        return tf.image.adjust_contrast(x, between(3, *CONTRAST))

    def in_order(*steps):
        def apply():
            x = image
            for step in steps:
                x = step(x)
            return x

        return apply

    if mode == "fast":
        image = in_order(brightness, saturation)()
    else:
        orders = (
            in_order(brightness, saturation, hue, contrast),
            in_order(saturation, brightness, contrast, hue),
            in_order(contrast, hue, brightness, saturation),
            in_order(hue, saturation, contrast, brightness),
        )
        drawn = tf.cast(draws[4] * len(orders), tf.int32)
        image = tf.switch_case(drawn, orders)
    return tf.clip_by_value(image, 0.0, 1.0)


def saturated(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The HSV saturation of an RGB image times a factor, at most 1, as TensorFlow's.

    `tf.image.adjust_saturation` without its way to HSV and back, which takes a quarter
    of the time of preparing an image: hue and value stay, so each channel moves
    towards the largest, or away from it, by one factor a pixel.

    >>> saturated(tf.constant([[[0.8, 0.4, 0.2]]]), 0.5)  # 0.8, 0.6, 0.5
    """
    red, green, blue = planes = tf.unstack(image, axis=-1)
    value = tf.maximum(red, tf.maximum(green, blue))
    spread = value - tf.minimum(red, tf.minimum(green, blue))
    most = tf.maximum(tf.math.divide_no_nan(value, spread), 0.0)
    factor = tf.minimum(factor, most)
    return tf.stack([value + (plane - value) * factor for plane in planes], axis=-1)


def train_image(
    image: tf.Tensor,
    seed: tf.Tensor,
    resolution: Resolution,
    recipe: Recipe,
    channels: int = 3,
) -> tf.Tensor:
    """One training image: crop, resize, flip, colour, in slim's order.

    `image` is uint8 [h, w, 1, 3 or 4]; returns float32 [height, width, channels] in
    [-1, 1]. `seed` of shape [2] decides everything random.

    >>> train_image(image, tf.constant([seed, index]), 224, recipes["slim_v2"])
    """
    image = cropped(image, train_box(seed, recipe, aspect(resolution)))
    return after_train_box(image, seed, resolution, recipe, channels)


def after_train_box(
    image: tf.Tensor,
    seed: tf.Tensor,
    resolution: Resolution,
    recipe: Recipe,
    channels: int = 3,
) -> tf.Tensor:
    """What `train_image` does with the part of the image that its box took."""
    # Colours are those of RGB; without them grey is a third of the work.
    meanwhile = channels if recipe.color is None else max(channels, 3)
    image = with_channels(to_unit(image), meanwhile)
    image = resize(image, resolution, recipe.resize)
    image.set_shape([*sides(resolution), meanwhile])
    if not recipe.flip and recipe.color is None:
        return to_signed(image)
    draws = tf.random.stateless_uniform([6], _other(seed))
    return _distorted(image, draws, recipe.flip, recipe.color, channels)


# Compiled, it takes a third of the time that the kernels one by one take.
@tf.function(jit_compile=tf.test.is_built_with_xla(), autograph=False)
def _distorted(
    image: tf.Tensor, draws: tf.Tensor, flip: bool, color: str | None, channels: int
) -> tf.Tensor:
    """A unit image flipped or not, in other colours, in [-1, 1]."""
    if flip:
        image = tf.where(draws[0] < 0.5, tf.reverse(image, [1]), image)
    return to_signed(with_channels(distort_color(image, draws[1:], color), channels))


def _other(seed: tf.Tensor) -> tf.Tensor:
    """A second seed: the crop takes the first, and equal seeds draw equal numbers."""
    return tf.cast(seed, tf.int64) + tf.constant([2**62, 0], tf.int64)


def eval_image(
    image: tf.Tensor, resolution: Resolution, recipe: Recipe, channels: int = 3
) -> tf.Tensor:
    """One image to evaluate: central crop and resize, nothing random.

    `image` is uint8 [h, w, 1, 3 or 4]; returns float32 [height, width, channels] in
    [-1, 1].

    >>> eval_image(image, 224, recipes["slim_v2"])
    """
    middle = cropped(image, eval_box(recipe))
    return after_eval_box(middle, resolution, recipe, channels)


def after_eval_box(
    image: tf.Tensor, resolution: Resolution, recipe: Recipe, channels: int = 3
) -> tf.Tensor:
    """What `eval_image` does with the part of the image that its box took."""
    image = with_channels(to_unit(image), channels)
    image = to_signed(resize(image, resolution, recipe.resize))
    image.set_shape([*sides(resolution), channels])
    return image
