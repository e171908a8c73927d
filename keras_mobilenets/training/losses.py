"""The recipe's loss: smoothed cross entropy on whole-number labels, and L2."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class SmoothedCrossentropy(keras.losses.Loss):
    """Softmax cross entropy of integer labels [batch] with label smoothing.

    Targets are (1 - s) * one_hot + s / classes, spread over all classes of the
    model, a background class included: `tf.losses.softmax_cross_entropy`, as in
    slim's train_image_classifier.py. `from_logits`: whether the model ends
    without softmax.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        from_logits: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str = "smoothed_crossentropy",
        **kwargs: Any,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.label_smoothing = float(label_smoothing)
        self.from_logits = bool(from_logits)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        classes = y_pred.shape[-1]
        labels = tf.cast(tf.reshape(y_true, [-1]), tf.int32)
        targets = tf.one_hot(labels, classes, dtype=y_pred.dtype)
        smoothing = self.label_smoothing
        if smoothing:
            targets = targets * (1 - smoothing) + smoothing / classes
        return keras.ops.categorical_crossentropy(
            targets, y_pred, from_logits=self.from_logits
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
            "from_logits": self.from_logits,
        }


class HalfL2(keras.regularizers.Regularizer):
    """`weight_decay / 2 * sum(w ** 2)`: what slim's l2_regularizer means.

    Keras' L2 has no half: slim's 4e-5 is Keras' 2e-5.
    """

    def __init__(self, weight_decay: float):
        self.weight_decay = float(weight_decay)

    def __call__(self, variable: Any) -> tf.Tensor:
        return self.weight_decay * tf.nn.l2_loss(tf.convert_to_tensor(variable))

    def get_config(self) -> dict[str, Any]:
        return {"weight_decay": self.weight_decay}


def regularize(model: keras.Model, weight_decay: float, scope: str) -> None:
    """Give the model's trainable variables the recipe's L2, and no other.

    `scope` "kernels": convolution and classifier kernels, not depthwise kernels,
    biases or batch norm (slim's arg scopes; V1 section 3.2). "all": every
    trainable variable, as PyTorch's weight_decay does.
    """
    kernels = {
        id(layer.kernel)
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
    }
    for variable in model.trainable_variables:
        chosen = scope == "all" or id(variable) in kernels
        variable.regularizer = HalfL2(weight_decay) if chosen and weight_decay else None
