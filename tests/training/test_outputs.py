"""What the end of any classification model is taken for."""

import keras
import pytest
from keras import layers

import keras_mobilenets as km
from keras_mobilenets.training.outputs import (
    classifier_dropouts,
    count_classes,
    ends_in_logits,
)

SHAPE = (8, 8, 3)


def network(*end) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), layers.Flatten(), *end])


def functional(*end) -> keras.Model:
    inputs = x = keras.Input(SHAPE)
    for layer in (layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), *end):
        x = layer(x)
    return keras.Model(inputs, x)


CASES = {
    "logits": (lambda: network(layers.Dense(3)), True),
    "softmax": (lambda: network(layers.Dense(3, "softmax")), False),
    "a Softmax layer": (lambda: network(layers.Dense(3), layers.Softmax()), False),
    "an Activation": (
        lambda: network(layers.Dense(3), layers.Activation("softmax")),
        False,
    ),
    "log softmax": (lambda: network(layers.Dense(3, "log_softmax")), True),
    "augmentation in front of a network": (
        lambda: keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                layers.Rescaling(1 / 127.5, -1),
                km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=4),
            ]
        ),
        False,
    ),
    "nested twice": (
        lambda: keras.Sequential(
            [keras.Input(SHAPE), network(network_of_vectors("softmax"))]
        ),
        False,
    ),
    "softmax behind a nested network": (
        lambda: network(network_of_vectors(None), layers.Softmax()),
        False,
    ),
    "layers that change nothing": (
        lambda: functional(
            layers.Dense(3, "softmax"),
            layers.Dropout(0.1),
            layers.Identity(),
            layers.Activation("linear"),
            layers.Reshape((3,)),
        ),
        False,
    ),
    "a convolution for classifier": (
        lambda: keras.Sequential(
            [keras.Input(SHAPE), layers.Conv2D(3, 8), layers.Flatten()]
        ),
        True,
    ),
    "averaged maps of logits": (
        lambda: keras.Sequential(
            [keras.Input(SHAPE), layers.Conv2D(3, 1), layers.GlobalAveragePooling2D()]
        ),
        True,
    ),
    "an einsum": (lambda: network(layers.EinsumDense("bc,cd->bd", 3)), True),
}


def network_of_vectors(activation):
    return keras.Sequential([keras.Input((192,)), layers.Dense(3, activation)])


@pytest.mark.parametrize("case", list(CASES))
def test_logits_and_probabilities_are_told_apart(case):
    """Nested models and Softmax layers were taken for logits."""
    make, expected = CASES[case]
    assert ends_in_logits(make()) is expected


@pytest.mark.parametrize(
    "end",
    [
        lambda: [layers.Dense(3), layers.ReLU()],
        lambda: [layers.Dense(3, "relu")],
        lambda: [layers.Dense(3, "sigmoid")],
        lambda: [layers.Dense(3), layers.Lambda(keras.ops.softmax)],
        lambda: [layers.Dense(3), layers.LayerNormalization()],
    ],
    ids=["ReLU", "relu", "sigmoid", "Lambda", "LayerNormalization"],
)
def test_what_cannot_be_told_is_refused(end):
    with pytest.raises(km.UsageError, match="cannot be told .*from_logits"):
        ends_in_logits(network(*end()))
    model = network(*end())
    km.compile(model, "quick", steps_per_epoch=99, from_logits=True)
    assert model.loss.from_logits


def test_several_producers_cannot_be_told():
    inputs = keras.Input((4,))
    total = layers.Add()([layers.Dense(3)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(km.UsageError, match="cannot be told what Add"):
        ends_in_logits(keras.Model(inputs, total))


def two_outputs() -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(3)(inputs)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_outputs, "must have one output; got 2"),
        (lambda: network(layers.Dense(1, "sigmoid")), "at least two classes; got one"),
        (
            lambda: km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=1),
            "at least two classes; got one",
        ),
        (lambda: keras.Sequential([layers.Dense(3)]), "must be a built functional"),
        (lambda: keras.Model(), "must be a built functional"),
        (lambda: functional(layers.Reshape((4, 1))), "one vector of classes"),
    ],
    ids=["two", "one unit", "one class", "not built", "no outputs", "a map"],
)
def test_models_that_do_not_classify(make, message):
    """One unit trained to nothing, two outputs ended in a TypeError."""
    with pytest.raises(km.UsageError, match=message):
        km.compile(make(), "quick", steps_per_epoch=99)
    with pytest.raises(km.UsageError, match="must be a keras.Model; got 'x'"):
        km.compile("x", steps_per_epoch=9)


def test_the_dropout_before_the_classifier_is_the_recipes():
    """EfficientNet's per-block stochastic depth was overwritten."""
    model = keras.applications.EfficientNetB0(
        input_shape=(32, 32, 3), weights=None, classes=4
    )
    assert [layer.name for layer in classifier_dropouts(model)] == ["top_dropout"]
    hidden = [layers.Dropout(0.5), layers.Dense(4), layers.Dropout(0.4, name="last")]
    model = functional(*hidden, layers.Activation("relu"), layers.Dense(3))
    assert [layer.name for layer in classifier_dropouts(model)] == ["last"]
    model = functional(layers.Dropout(0.4, (None, 1)), layers.Dense(3))
    assert classifier_dropouts(model) == []


def test_classes_are_counted():
    assert count_classes(network(layers.Dense(7))) == 7
