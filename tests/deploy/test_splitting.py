"""`km.split`: the same outputs, one group of wide channels after another."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_mobilenets as km
from keras_mobilenets.architecture.tables import NETWORKS
from keras_mobilenets.deploy.splitting import SplitBottleneck
from tests.deploy.networks import images, outputs, randomize

# Of each of V2's blocks: channels in, expansion, channels out, stride, with shortcut.
BLOCKS = [
    (32, 1, 16, 1, False),
    (16, 6, 24, 2, False),
    (24, 6, 24, 1, True),
    (24, 6, 32, 2, False),
    (32, 6, 32, 1, True),
    (32, 6, 64, 2, False),
    (64, 6, 64, 1, True),
    (64, 6, 96, 1, False),
    (96, 6, 96, 1, True),
    (96, 6, 160, 2, False),
    (160, 6, 160, 1, True),
    (160, 6, 320, 1, False),
]
ODD = [
    (7, 3, 5, 1, False),
    (5, 5, 5, 1, True),
    (3, 7, 9, 2, False),
    (9, 1, 4, 1, False),
]


def bottleneck(narrow, t, wanted, stride, shortcut, size=9):
    """One block with the names of `build`, of any number of channels."""
    x = start = keras.Input((size, size, narrow))

    def normed(x, name, relu):
        x = layers.BatchNormalization(name=f"{name}_bn", epsilon=1e-3)(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    if t > 1:
        name = "block_1_expand"
        x = normed(
            layers.Conv2D(t * narrow, 1, use_bias=False, name=name)(x), name, True
        )
    else:  # so that there is one that expands; of one channel in, one out
        name = "block_2_expand"
        x = normed(layers.Conv2D(narrow, 1, use_bias=False, name=name)(x), name, True)
        x = layers.Conv2D(narrow, 1, name="block_2_project")(x)
    name = "block_1_depthwise"
    x = layers.DepthwiseConv2D(
        3, stride, padding="same", use_bias=False, name=name
    )(x)  # fmt: skip
    x = normed(x, name, True)
    name = "block_1_project"
    x = normed(layers.Conv2D(wanted, 1, use_bias=False, name=name)(x), name, False)
    if shortcut:
        x = layers.Add(name="block_1_add")([start, x])
    return randomize(keras.Model(start, x))


def assert_split(model, splits, fused=False):
    """Nothing but the rounding of sums differs; what it was split into."""
    x = images(model)
    before = outputs(model, x)
    assert before.std(axis=0).mean() > 1e-3 * np.abs(before).max()
    made = km.split(km.fuse(model) if fused else model, splits)
    after = outputs(made, x)
    assert np.abs(after - before).max() <= 1e-6 * max(1, np.abs(before).max())
    assert made.output_shape == model.output_shape
    assert (made.name, made.compiled) == (model.name, False)
    return [layer for layer in made.layers if isinstance(layer, SplitBottleneck)]


@pytest.mark.parametrize("block", [*BLOCKS, *ODD], ids=str)
@pytest.mark.parametrize("splits", [2, 5])
def test_each_block(block, splits):
    narrow, t, *_ = block
    split = assert_split(bottleneck(*block), splits)[-1]
    sizes = split.sizes
    assert (sum(sizes), len(sizes)) == (t * narrow, splits)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == -(-t * narrow // splits)  # as cost counts them
    kernels = [group.layers[-1].kernel.shape[2] for group in split.groups]
    assert kernels == list(sizes)


def test_one_group_and_one_channel_a_group():
    model = bottleneck(3, 7, 9, 2, False)
    assert [list(s.sizes) for s in assert_split(model, 1)] == [[21]]
    for splits in (21, 10**6):
        assert [list(s.sizes) for s in assert_split(model, splits)] == [[1] * 21]


VARIANTS = [
    {"alpha": 0.35, "resolution": 64},
    {"alpha": 1.0, "resolution": (33, 64), "output_stride": 16},
    {"alpha": 0.35, "resolution": 47, "padding": "symmetric", "activation": "relu"},
    {"alpha": 0.5, "resolution": 32, "linear_bottleneck": False, "shortcut": "none"},
    {"alpha": 0.35, "resolution": 33, "expansion": 2.5, "include_top": False,
     "channels": 1},
]  # fmt: skip


@pytest.fixture(autouse=True)
def fewer_blocks(monkeypatch):
    """A stage less of each: tracing is what costs."""
    whole = NETWORKS["mobilenet_v2"]
    few = whole._replace(rows=(*whole.rows[:4], whole.rows[-2], whole.rows[-1]))
    monkeypatch.setitem(NETWORKS, "mobilenet_v2", few)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("fused", [False, True], ids=["built", "fused"])
def test_networks(variant, fused):
    model = randomize(km.build(**{"classes": 10, **variant}))
    split = assert_split(model, 3, fused)
    assert [layer.name for layer in split] == [
        f"block_{k}_project" for k in range(1, 8)
    ]
    padded = variant.get("padding") == "symmetric"  # a layer of its own, at stride 2
    assert len(split[1].groups[0].layers) == (5 if fused else 7) + padded


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.35, 1.4])
def test_the_whole_network(alpha, monkeypatch):
    monkeypatch.undo()
    model = randomize(km.build(alpha=alpha, resolution=65, classes=10))
    assert len(assert_split(model, 5)) == 17
    assert len(assert_split(model, 4, fused=True)) == 17


SMALL = {"alpha": 0.35, "resolution": 32, "classes": 5}


def test_the_model_is_left_as_it_is():
    model = km.compile(km.build(**SMALL), "quick", steps_per_epoch=10)
    before = [value.copy() for value in randomize(model).get_weights()]
    names = [layer.name for layer in model.layers]
    assert_split(model, 2)
    assert model.compiled
    assert [layer.name for layer in model.layers] == names
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)
    assert km.split(model, 2).count_params() == model.count_params()


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = randomize(km.build(**SMALL))
    finally:
        keras.config.set_dtype_policy("float32")
    made = km.split(model, 2)
    x = images(model)
    np.testing.assert_allclose(outputs(made, x), outputs(model, x), atol=2e-3)
    assert made.get_layer("block_2_project").compute_dtype == "float16"


def test_it_is_saved_and_loaded(tmp_path):
    model = km.split(randomize(km.build(**SMALL)), 3)
    model.save(tmp_path / "split.keras")
    np.save(tmp_path / "images.npy", images(model))
    code = (
        "import keras, keras_mobilenets, numpy as np; keras_mobilenets.split\n"
        "model = keras.saving.load_model('split.keras')\n"
        "np.save('outputs.npy', model(np.load('images.npy')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    there = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(there, outputs(model, images(model)), atol=1e-7)


def test_groups_run_one_after_another_in_a_graph():
    """Each but the first waits for the sum of those before it."""
    model = km.split(bottleneck(4, 6, 4, 1, False), 3)
    graph = tf.function(model).get_concrete_function(images(model)).graph
    expansions = [
        operation
        for operation in graph.get_operations()
        if operation.type == "Conv2D" and operation.inputs[0].shape[-1] == 4
    ]
    waits = [
        [waited.type for waited in operation.inputs[0].op.control_inputs]
        for operation in expansions
    ]
    assert waits[:1] == [[]]
    assert len(waits) == 3
    assert all(len(types) == 1 for types in waits[1:])
    assert waits[2] == ["AddV2"]


REFUSED = {
    "'mobilenet_v1' has none": lambda: km.build(
        "mobilenet_v1", alpha=0.25, resolution=32
    ),
    "'mobilenet_v2' has none": lambda: km.build(**SMALL, expansion=1),
    "shortcut='bottleneck'": lambda: km.build(**SMALL, shortcut="expansion"),
    "got 'model.keras'": lambda: "model.keras",
    "got None": lambda: None,
    "must be functional": lambda: keras.Sequential([layers.Dense(3)]),
    "code of its own": lambda: km.split(km.build(**SMALL), 2),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_split(reason):
    with pytest.raises(km.UsageError, match=reason):
        km.split(REFUSED[reason](), 2)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, None, "2"])
def test_splits_that_are_no_number(wrong):
    with pytest.raises(km.UsageError, match="splits must be a whole number"):
        km.split(bottleneck(4, 3, 4, 1, False), wrong)
