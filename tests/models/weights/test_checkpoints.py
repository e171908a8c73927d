"""The authors' checkpoints, made of the golden cases that their own code computed."""

import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets.models import load_weights
from tests import golden

CASES = {
    "E": {"name": "mobilenet_v2", "resolution": 224, "classes": 1001},
    "G": {"name": "mobilenet_v1", "alpha": 0.5, "resolution": 144, "classes": 10},
}


def slim_tensors(case):
    """Every variable of slim's network by its name there."""
    stored = golden.load(case)
    model_order = zip(stored["names"], stored["kinds"], stored["shapes"], strict=True)
    tensors = {}
    for index, (name, kind, shape) in enumerate(model_order):
        shape = tuple(int(n) for n in str(shape).strip("()[] ").split(",") if n.strip())
        value = golden.tensor(index, str(kind), shape, inference=True)
        if "Conv2d_1c_1x1/weights" in str(name):
            value = value.reshape(1, 1, *value.shape[-2:])
        tensors[str(name)] = value
    return tensors


def save(folder, tensors):
    """What TensorFlow 1's Saver writes; the prefix."""
    prefix = str(folder / "model.ckpt-1000")
    tensors = {"global_step": np.int64(1000), **tensors}
    names = sorted(tensors)
    values = [tf.constant(tensors[name]) for name in names]
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names),
        tensors=values,
    )  # fmt: skip
    return prefix


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_authors_code(tmp_path, case):
    tensors = slim_tensors(case)
    slots = {f"{name}/RMSProp": value for name, value in tensors.items()}
    prefix = save(tmp_path, tensors | slots)
    model = km.build(classifier_activation=None, **CASES[case])
    loaded = load_weights(model, prefix)
    assert (loaded.new, loaded.adapted) == ((), ())
    x = golden.images(0, model.input_shape[1])[:4]
    expected = golden.load(case)["logits"]
    assert golden.deviation(model(x, training=False), expected) < 1e-5
    if loaded.classes == 1001:
        network = CASES[case] | {"classes": 1000, "classifier_activation": None}
        with pytest.warns(UserWarning, match="class 0, the background, was dropped"):
            without = km.build(weights=f"{prefix}.index", **network)
        assert golden.deviation(without(x, training=False), expected[:, 1:]) < 1e-5


def test_averages_are_preferred(tmp_path):
    tensors = slim_tensors("G")
    averages = {f"{k}/ExponentialMovingAverage": v + 1 for k, v in tensors.items()}
    del averages["MobilenetV1/Conv2d_0/weights/ExponentialMovingAverage"]
    model = km.build("mobilenet_v1", alpha=0.5, resolution=32, classes=10)
    loaded = load_weights(model, save(tmp_path, tensors | averages))
    assert "moving averages" in loaded.kind
    kernel = model.get_layer("block_1_depthwise").kernel
    name = "MobilenetV1/Conv2d_1_depthwise/depthwise_weights"
    np.testing.assert_array_equal(kernel, tensors[name] + 1)
    stem = model.get_layer("stem").kernel
    np.testing.assert_array_equal(stem, tensors["MobilenetV1/Conv2d_0/weights"])


def test_other_classes_and_other_networks(tmp_path):
    prefix = save(tmp_path, slim_tensors("G"))
    with pytest.warns(UserWarning, match="untrained: logits"):
        km.build(
            "mobilenet_v1", alpha=0.5, resolution=32, classes=7, weights=prefix
        )  # fmt: skip
    for other, message in (
        ({"name": "mobilenet_v1", "alpha": 0.25}, "V1, alpha 0.5, 10 .* alpha 0.25"),
        ({"name": "mobilenet_v2"}, "alpha 0.5, 10 classes; asked for MobileNetV2"),
        (
            {"name": "mobilenet_v1", "alpha": 0.5, "padding": "symmetric"},
            "trained with padding='same'",
        ),
    ):
        with pytest.raises(km.UsageError, match=message):
            km.build(resolution=32, weights=prefix, **other)


def test_files_that_are_none(tmp_path):
    prefix = save(tmp_path, {"conv/kernel": np.ones(3, "float32")})
    with pytest.raises(km.UsageError, match="no MobilenetV1/ .* but conv/kernel"):
        km.build("mobilenet_v1", alpha=0.5, resolution=32, weights=prefix)
    prefix = save(tmp_path, slim_tensors("G"))
    data = tmp_path / "model.ckpt-1000.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(km.UsageError, match="model.ckpt-1000' cannot be read"):
        km.build("mobilenet_v1", alpha=0.5, resolution=32, weights=prefix)
