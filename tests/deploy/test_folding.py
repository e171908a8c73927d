"""`km.fuse`: the same outputs, without a batch norm."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_mobilenets as km
from tests.deploy.networks import images, in_float64, outputs, randomize

GONE = (layers.BatchNormalization, layers.Dropout)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def names_of(model: keras.Model) -> list[str]:
    """Of all layers that are to stay; inputs may get other names."""
    unnamed = (*GONE, layers.InputLayer)
    return [layer.name for layer in model.layers if not isinstance(layer, unnamed)]


def assert_folded(
    model: keras.Model, fused: keras.Model
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, and the outputs before and after."""
    x = images(model)
    before, after = outputs(model, x), outputs(fused, x)
    assert before.std(axis=0).mean() > 1e-3 * np.abs(before).max()
    assert np.abs(after - before).max() <= 3e-6 * np.abs(before).max()
    assert not any(isinstance(layer, GONE) for layer in fused.layers)
    assert {layer.dtype_policy.name for layer in fused.layers} == {"float32"}
    assert names_of(fused) == names_of(model)
    assert (fused.name, fused.compiled) == (model.name, False)
    return x, before, after


NETWORKS = [
    ("mobilenet_v1", {"alpha": 0.25, "resolution": 65}),
    ("mobilenet_v1", {"alpha": 1.0, "resolution": (33, 64), "output_stride": 16}),
    ("mobilenet_v1", {"alpha": 0.75, "resolution": 47}),
    ("mobilenet_v2", {"alpha": 0.35, "resolution": 97}),
    ("mobilenet_v2", {"alpha": 1.0, "resolution": (64, 33), "output_stride": 16}),
    ("mobilenet_v2", {"alpha": 1.4, "resolution": 65}),
]


@pytest.mark.parametrize(("name", "network"), NETWORKS)
def test_outputs_stay(name, network):
    network = {"classes": 10, "classifier_activation": None, **network}
    model = randomize(km.build(name, **network))
    x, before, after = assert_folded(model, km.fuse(model))
    assert np.abs(softmax(after) - softmax(before)).max() <= 1e-6
    # Folding costs no more digits than float32 does.
    exact = outputs(in_float64(model, name, **network), x)
    assert np.abs(after - exact).max() <= 2 * np.abs(before - exact).max()


VARIANTS = [
    ("mobilenet_v1", {"shallow": True, "channels": 1, "padding": "symmetric"}),
    ("mobilenet_v1", {"separable": False, "activation": "relu", "dropout": 0}),
    ("mobilenet_v1", {"include_top": False, "channels": 4, "output_stride": 8}),
    ("mobilenet_v2", {"linear_bottleneck": False, "shortcut": "none"}),
    ("mobilenet_v2", {"shortcut": "expansion", "classifier_activation": "sigmoid"}),
    ("mobilenet_v2", {"expansion": 2, "include_top": False, "pooling": "max"}),
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_variants(name, variant):
    model = km.build(name, alpha=0.25, resolution=33, classes=10, **variant)
    assert_folded(randomize(model), km.fuse(model))


@pytest.mark.parametrize("network", ["MobileNet", "MobileNetV2"])
def test_networks_of_keras_applications(network):
    application = getattr(keras.applications, network)
    model = application(input_shape=(64, 64, 3), alpha=0.35, weights=None, classes=10)
    assert_folded(randomize(model), km.fuse(model))


SMALL = {"alpha": 0.25, "resolution": 32, "classes": 5}


@pytest.fixture(scope="module")
def model(few_blocks):
    return randomize(km.build("mobilenet_v1", **SMALL))


def test_a_copy_of_one_without_batch_norm(model):
    fused = km.fuse(model)
    again = km.fuse(fused)
    assert again is not fused
    assert again.layers[1] is not fused.layers[1]
    np.testing.assert_array_equal(
        outputs(again, images(model)), outputs(fused, images(model))
    )


def test_mixed_precision_becomes_float32(few_blocks, model):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = km.build("mobilenet_v1", **SMALL)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    assert_folded(model, km.fuse(mixed))


def test_a_compiled_model_is_left_as_it_is(few_blocks, model):
    compiled = km.compile(
        km.build("mobilenet_v1", **SMALL), "quick", steps_per_epoch=100
    )
    compiled.set_weights(model.get_weights())
    before = [value.copy() for value in compiled.get_weights()]
    assert_folded(compiled, km.fuse(compiled))
    assert compiled.compiled
    for value, old in zip(compiled.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_a_sequential_model_and_operations():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, groups=3, use_bias=True),
            layers.BatchNormalization(scale=False),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            layers.BatchNormalization(center=False),
            layers.Flatten(),
            layers.Dense(4),
            layers.BatchNormalization(),
        ]
    )
    assert_folded(randomize(model), km.fuse(model))
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(inputs))
    model = keras.Model(inputs, keras.ops.relu(x * 2 + inputs))
    x = images(randomize(model))
    np.testing.assert_allclose(outputs(km.fuse(model), x), outputs(model, x), atol=1e-6)


def test_it_loads_where_this_package_is_not(model, tmp_path):
    km.fuse(model).save(tmp_path / "fused.keras")
    np.save(tmp_path / "images.npy", images(model))
    code = (
        "import sys; sys.modules['keras_mobilenets'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.saving.load_model('fused.keras')\n"
        "np.save('outputs.npy', model(np.load('images.npy')))"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True)
    there = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(there, outputs(model, images(model)), atol=1e-6)


def conv(x, **options):
    return layers.Conv2D(4, 3, name="conv", **options)(x)


def norm(x, **options):
    return layers.BatchNormalization(name="norm", **options)(x)


def shared(x):
    made, normed = layers.Conv2D(3, 3, padding="same", name="conv"), norm
    return normed(made(made(x)))


def nested(x):
    inner = keras.Input((8, 8, 3))
    return keras.Model(inner, norm(conv(inner)), name="inner")(x)


class Mine(layers.Layer):
    def call(self, x):
        return x


REFUSED = {
    "it follows the input": norm,
    "it follows a MaxPooling2D": lambda x: norm(layers.MaxPooling2D()(conv(x))),
    "has an activation": lambda x: norm(conv(x, activation="relu")),
    "normalises axis 1": lambda x: norm(conv(x), axis=1),
    "something else reads": lambda x: layers.Add()([norm(y := conv(x)), y]),
    "used in several places": shared,
    "'inner' is a model in the model": nested,
    "is a Lambda with code of its own": lambda x: layers.Lambda(lambda y: y)(x),
    "is a Mine with code of its own": lambda x: Mine()(x),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_folded(reason):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, REFUSED[reason](inputs))
    with pytest.raises(km.UsageError, match=reason):
        km.fuse(model)


@pytest.mark.parametrize("wrong", [None, "model.keras", layers.Dense(3)])
def test_what_is_no_model(wrong):
    with pytest.raises(km.UsageError, match="must be a Keras model"):
        km.fuse(wrong)


def test_a_model_without_a_graph():
    class Own(keras.Model):
        def call(self, x):
            return x

    for model in (Own(), keras.Sequential([layers.Dense(3)])):
        with pytest.raises(km.UsageError, match="must be functional or sequential"):
            km.fuse(model)


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
def test_quantised_layers_are_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    model.quantize("int8")
    with pytest.raises(km.UsageError, match="must not be quantised"):
        km.fuse(model)


@pytest.mark.parametrize(
    ("variable", "value"), [("gamma", np.nan), ("moving_variance", -1.0)]
)
def test_weights_that_are_no_numbers(few_blocks, model, variable, value):
    broken = km.build("mobilenet_v1", **SMALL)
    broken.set_weights(model.get_weights())
    bad = getattr(broken.get_layer("block_1_project_bn"), variable)
    bad.assign(np.full(bad.shape, value))
    with pytest.raises(km.UsageError, match="'block_1_project' are not"):
        km.fuse(broken)
