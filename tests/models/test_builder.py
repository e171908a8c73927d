import re

import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.architecture import NETWORKS, make_plan
from keras_mobilenets.architecture.shapes import sides
from keras_mobilenets.models import copy_weights
from tests import golden

VARIANTS = [
    ("mobilenet_v1", {}),
    ("mobilenet_v1", {"shallow": True}),
    ("mobilenet_v1", {"separable": False}),
    ("mobilenet_v1", {"output_stride": 16, "activation": "relu"}),
    ("mobilenet_v2", {}),
    ("mobilenet_v2", {"linear_bottleneck": False}),
    ("mobilenet_v2", {"shortcut": "expansion"}),
    ("mobilenet_v2", {"shortcut": "none"}),
    ("mobilenet_v2", {"expansion": 1}),
    ("mobilenet_v2", {"expansion": 3.5, "output_stride": 8}),
]


def counted_macs(model: keras.Model) -> int:
    """Mult-adds from the layers of a Keras model, not from the plan."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            _, height, width, channels = layer.output.shape
            total += height * width * channels * np.prod(layer.kernel.shape[:2])
        elif isinstance(layer, keras.layers.Conv2D):
            _, height, width, _ = layer.output.shape
            total += height * width * np.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            total += np.prod(layer.kernel.shape)
    return int(total)


def randomize(model: keras.Model, seed: int = 0) -> None:
    """Weights under which a wrong network gives visibly wrong outputs."""
    rng = np.random.default_rng(seed)
    values = []
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.path.endswith("gamma"):
            values.append(rng.uniform(0.5, 4, shape))
        elif len(shape) == 1:
            values.append(rng.normal(0, 1, shape) ** 2 + 0.1)
        else:
            values.append(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape))
    model.set_weights(values)


def outputs(model: keras.Model) -> np.ndarray:
    shape = (8, *model.input_shape[1:])
    x = np.random.default_rng(1).uniform(-1, 1, shape).astype("float32")
    return np.array(model(x, training=True))


# Of the input: sides that differ, odd ones, and ones of which a map is square again.
SHAPES = [
    {"resolution": (96, 160), "channels": 1},
    {"resolution": (160, 96), "channels": 4},
    {"resolution": (97, 33)},
    {"resolution": (33, 34), "channels": 1, "output_stride": 16},
]


@pytest.mark.parametrize(
    ("name", "variant"),
    [*VARIANTS, *((name, shape) for name in NETWORKS for shape in SHAPES)],
)
def test_cost_of_the_plan_is_the_cost_of_the_model(name, variant):
    network = {"alpha": 0.35, "resolution": 75, "classes": 7, **variant}
    model = km.build(name, **network)
    cost = km.cost(name, **network)
    assert counted_macs(model) == cost.macs
    assert model.count_params() == cost.params
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert trainable == cost.trainable_params


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", km.recommend(), ids=lambda p: f"{p.name}-{p.alpha}-{p.resolution}"
)
def test_cost_of_every_published_point_is_the_cost_of_the_model(point):
    model = km.build(
        point.name, alpha=point.alpha, resolution=point.resolution, classes=1001
    )
    assert counted_macs(model) == point.macs
    assert model.count_params() == point.params


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75, 1.0])
def test_v1_has_the_tensors_of_keras_applications(alpha):
    theirs = keras.applications.MobileNet(
        input_shape=(64, 64, 3), alpha=alpha, weights=None
    )
    ours = km.build("mobilenet_v1", alpha=alpha, resolution=64)
    assert ours.count_params() == theirs.count_params()
    body = [tuple(v.shape) for v in ours.weights[:-2]]
    assert body == [tuple(v.shape) for v in theirs.weights[:-2]]


# The cost of every published network, to the unit: tests/architecture.
@pytest.mark.parametrize(
    "alpha",
    [
        *(0.35, 0.75, 1.4),
        *(pytest.param(alpha, marks=pytest.mark.slow) for alpha in (0.5, 1.0, 1.3)),
    ],
)
def test_v2_has_the_tensors_of_keras_applications(alpha):
    theirs = keras.applications.MobileNetV2(
        input_shape=(64, 64, 3), alpha=alpha, weights=None
    )
    ours = km.build(alpha=alpha, resolution=64)
    assert ours.count_params() == theirs.count_params()
    shapes = [tuple(v.shape) for v in theirs.weights]
    assert [tuple(v.shape) for v in ours.weights] == shapes


@pytest.mark.parametrize(
    ("alpha", "shape"),
    [
        (0.35, (96, 96, 3)),
        (0.5, (97, 97, 3)),
        (1.3, (64, 64, 3)),
        (0.35, (96, 160, 3)),
        (0.35, (96, 160, 1)),
        (0.35, (97, 65, 4)),
    ],
)
@pytest.mark.filterwarnings("ignore:This model usually expects 1 or 3 input channels")
def test_v2_computes_bit_for_bit_what_keras_applications_does(alpha, shape):
    theirs = keras.applications.MobileNetV2(
        input_shape=shape, alpha=alpha, weights=None, classes=10
    )
    randomize(theirs)
    ours = km.build(
        alpha=alpha, resolution=shape[:2], channels=shape[2], classes=10, dropout=0.0
    )
    assert ours.count_params() == theirs.count_params()
    ours.set_weights(theirs.get_weights())
    expected = outputs(theirs)
    assert expected.std(axis=0).mean() > 1e-3  # the images do give different outputs
    np.testing.assert_array_equal(outputs(ours), expected)
    for our, their in zip(ours.weights, theirs.weights, strict=True):
        assert our.shape == their.shape


@pytest.mark.parametrize(
    ("alpha", "shape"),
    [
        (0.25, (96, 96, 3)),
        (0.75, (64, 64, 3)),
        (0.25, (96, 160, 3)),
        (0.25, (96, 160, 1)),
        (0.75, (64, 96, 4)),
    ],
)
@pytest.mark.filterwarnings("ignore:This model usually expects 1 or 3 input channels")
def test_v1_computes_what_keras_applications_does(alpha, shape):
    # At sizes that are no multiples of 32 keras.applications pads V1 otherwise
    # than slim; golden case G has an odd map.
    theirs = keras.applications.MobileNet(
        input_shape=shape,
        alpha=alpha,
        weights=None,
        classes=10,
        dropout=0.0,
    )
    randomize(theirs)
    ours = km.build(
        "mobilenet_v1",
        alpha=alpha,
        resolution=shape[:2],
        channels=shape[2],
        classes=10,
        dropout=0.0,
    )
    copy_weights(ours, theirs.get_weights())
    expected = outputs(theirs)
    assert expected.std(axis=0).mean() > 1e-3
    np.testing.assert_allclose(outputs(ours), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "network"),
    [
        ("E", {"name": "mobilenet_v2", "classes": 1001}),
        ("G", {"name": "mobilenet_v1", "alpha": 0.5, "resolution": 144, "classes": 10}),
    ],
)
def test_logits_are_those_of_the_authors_code(case, network):
    stored = golden.load(case)
    model = km.build(classifier_activation=None, **network)
    golden.set_weights(model, stored, inference=True)
    x = golden.images(0, model.input_shape[1])[:4]
    logits = np.array(model(x, training=False))
    assert golden.deviation(logits, stored["logits"]) < 5e-5


def test_relu_differs_from_relu6():
    relu6 = km.build("mobilenet_v1", alpha=0.25, resolution=32, dropout=0.0)
    relu = km.build(
        "mobilenet_v1", alpha=0.25, resolution=32, dropout=0.0, activation="relu"
    )
    randomize(relu6)
    relu.set_weights(relu6.get_weights())
    assert np.abs(outputs(relu) - outputs(relu6)).max() > 1e-4


def test_build_without_arguments():
    model = km.build()
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)
    names = {layer.name for layer in model.layers}
    expected = {"stem", "stem_bn", "stem_relu", "top", "top_bn", "top_relu", "logits"}
    expected |= {f"block_{k}_project_bn" for k in range(1, 18)}
    expected |= {f"block_{k}_expand_relu" for k in range(2, 18)}
    assert expected <= names
    assert "block_1_expand" not in names
    assert sum(isinstance(la, keras.layers.Add) for la in model.layers) == 10
    assert sum(bool(re.fullmatch(r".*_project_relu", n)) for n in names) == 0


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
@pytest.mark.parametrize("resolution", [97, (97, 65)], ids=str)
def test_sizes_and_strides_are_the_plans(name, resolution):
    network = {"alpha": 0.25, "resolution": resolution, "output_stride": 16}
    model = km.build(name, **network)
    for layer in make_plan(name, **network):
        if layer.kind in ("conv", "depthwise", "add"):
            shape = (None, *sides(layer.size_out), layer.channels_out)
            assert model.get_layer(layer.name).output.shape == shape


@pytest.mark.parametrize(
    ("pooling", "shape"), [(None, (2, 2, 256)), ("avg", (256,)), ("max", (256,))]
)
def test_features(pooling, shape):
    model = km.build(
        "mobilenet_v1", alpha=0.25, resolution=64, include_top=False, pooling=pooling
    )
    assert model.output_shape == (None, *shape)


def test_a_square_is_one_whichever_way_it_is_written():
    expected = km.build("mobilenet_v1", alpha=0.25, resolution=64).get_config()
    for resolution in ((64, 64), [64, 64], "64x64"):
        model = km.build("mobilenet_v1", alpha=0.25, resolution=resolution, channels=3)
        assert model.get_config() == expected


def test_only_plain_keras_layers(tmp_path):
    model = km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=3)
    modules = {type(layer).__module__.split(".")[0] for layer in model.layers}
    assert modules == {"keras"}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(loaded).shape, (8, 3))


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_the_layout_of_images_is_not_that_of_keras_json(name):
    """channels_first there made another network, which trained all the same."""
    network = {"alpha": 0.35, "resolution": 32, "classes": 3, "dropout": 0.0}
    expected = km.build(name, **network)
    keras.config.set_image_data_format("channels_first")
    try:
        model = km.build(name, **network)
        pooled = km.build(name, include_top=False, pooling="max", **network)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert model.input_shape == expected.input_shape
    assert model.get_config() == expected.get_config()
    assert pooled.output_shape == (None, 1280 if name == "mobilenet_v2" else 358)
    model.set_weights(expected.get_weights())
    np.testing.assert_array_equal(outputs(model), outputs(expected))


def test_constants_reach_the_layers():
    model = km.build(
        "mobilenet_v1",
        alpha=0.25,
        resolution=32,
        batch_norm_momentum=0.9,
        batch_norm_epsilon=1e-5,
        kernel_stddev=0.01,
        dropout=0.5,
    )
    bn = model.get_layer("stem_bn")
    assert (bn.momentum, bn.epsilon) == (0.9, 1e-5)
    assert model.get_layer("dropout").rate == 0.5
    kernel = np.array(model.get_layer("block_13_project").kernel)
    assert np.abs(kernel).max() <= 0.02  # truncated at two standard deviations
    assert kernel.std() == pytest.approx(0.0088, rel=0.02)


def test_probabilities_stay_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=5)
        assert model.output.dtype == "float32"
        assert model.get_layer("stem").compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mobilenet_v3"}, "name must be one of .*mobilenet_v3.*did you mean"),
        ({"depth_multiplier": 0.5}, "depth_multiplier.*use alpha"),
        ({"width_mult": 0.5}, "width_mult.*use alpha"),
        ({"input_shape": (96, 96, 3)}, r"input_shape.*use resolution.*channels=3"),
        ({"resolution": (96, 160, 3)}, r"resolution must .*\(96, 160, 3\).*channels"),
        ({"channels": 2}, "channels must be one of 1, 3, 4; got 2"),
        ({"expnsion": 4}, "expnsion.*did you mean 'expansion'"),
        ({"classes": 0}, "classes must be .*got 0"),
        ({"rho": 0.5, "resolution": 112}, "not both"),
        ({"dropout": 1}, "dropout .*below 1; got 1"),
        ({"dropout": -0.1}, "dropout .*got -0.1"),
        ({"classifier_activation": "relu"}, "classifier_activation must be one of"),
        ({"pooling": "sum"}, "pooling must be one of"),
        ({"include_top": "yes"}, "include_top must be True or False"),
        ({"batch_norm_momentum": 1}, "batch_norm_momentum must be below 1"),
        ({"weights": "missing.keras"}, "weights .*missing.keras.*not a file"),
        ({"weights": 3}, "weights must be"),
        ({"weights": "imagenet", "alpha": 0.6}, "exist at alpha"),
        ({"weights": "imagenet", "expansion": 4}, "as published"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        km.build(
            **{"resolution": 96, **arguments} if "rho" not in arguments else arguments
        )
