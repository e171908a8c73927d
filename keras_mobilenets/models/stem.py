"""The first convolution of a trained network, for images of other channels."""

from __future__ import annotations

import numpy as np

from keras_mobilenets.errors import UsageError

NOTES = {
    1: "its first convolution was summed over red, green and blue, for grey images",
    4: "its first convolution got zeros for alpha, which it does not see until trained",
}


def fit_stem(kernel: np.ndarray, channels: int) -> tuple[np.ndarray, list[str]]:
    """A stem [height, width, inputs, outputs] for so many inputs, and what was done.

    Of one that was trained on RGB: the sum over the inputs for grey images, whose three
    channels would be equal, so that its outputs are those of the RGB network; zeros for
    a fourth channel, so that alpha changes nothing yet.

    Raises:
        UsageError: it was trained on images of other channels, and not on RGB.

    >>> kernel, notes = fit_stem(np.ones([3, 3, 3, 32], np.float32), 1)
    >>> kernel.shape, float(kernel.max())
    ((3, 3, 1, 32), 3.0)
    """
    kernel = np.asarray(kernel)
    has = kernel.shape[2] if kernel.ndim == 4 else None
    if has == channels:
        return kernel, []
    if has != 3:
        raise UsageError(
            f"its first convolution has shape {kernel.shape}, not [height, width, 3 or "
            f"{channels}, outputs]"
        )
    if channels == 1:
        summed = kernel.sum(axis=2, keepdims=True, dtype="float64")
        return summed.astype(kernel.dtype), [NOTES[1]]
    return np.pad(kernel, [(0, 0), (0, 0), (0, 1), (0, 0)]), [NOTES[4]]
