"""That a file says what the Keras model says, measured before it counts."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np

from keras_mobilenets.deploy.classifier import Classifier
from keras_mobilenets.deploy.network import Network, in_batches
from keras_mobilenets.deploy.pictures import Pictures
from keras_mobilenets.errors import ExportFailed, UsageError

SURE = 0.5  # a probability above it
TIE = 1e-4  # of the largest score: so near, as all are before training, none is first
ENOUGH = 20  # sure images, to judge a file by them alone
RUNS, SECONDS = 50, 2.0  # of the measured latency, whichever ends first
THREADS = 1


def compare(
    model: keras.Model, network: Network, file: Classifier, pictures: Pictures
) -> dict[str, Any]:
    """What a file says of real images, beside what the Keras model says.

    Answers are compared with those of `model` as it is, unless it computes in half
    precision, which a file does not; logits with those of `network`, the same folded.

    Raises:
        UsageError: the Keras model gives what is no number.
        ExportFailed: the file does.
    """
    images = pictures.proof
    expected = in_batches(lambda x: network.logits(x, training=False), images)
    theirs = expected
    if {layer.compute_dtype for layer in model.layers} == {"float32"}:
        theirs = in_batches(lambda x: model(x, training=False), images)
    if not (np.isfinite(theirs).all() and np.isfinite(expected).all()):
        raise UsageError(
            "model must give numbers; it gives NaN or infinity for some of the images "
            f"({pictures.source})"
        )
    logits, probabilities = file.classify(images)
    if not (np.isfinite(logits).all() and np.isfinite(probabilities).all()):
        raise ExportFailed(
            "the file gives NaN or infinity where the Keras model gives numbers: "
            "something in it is larger than its format holds"
        )
    squash = keras.activations.get(network.squashing)
    sure = np.array(squash(expected)).max(-1) > SURE
    answers = np.take_along_axis(theirs, logits.argmax(-1)[:, None], -1)[:, 0]
    same = theirs.max(-1) - answers <= TIE * np.abs(theirs).max()
    error = logits.astype("float64") - expected
    result: dict[str, Any] = {
        "images": len(images),
        "source": pictures.source,
        "agreement": float(same.mean()),
        "sure_images": int(sure.sum()),
        "agreement_where_sure": float(same[sure].mean()) if sure.any() else None,
        "largest_logit_error": float(np.abs(error).max()),
        "rms_logit_error": float(np.sqrt((error**2).mean())),
        "logits": [float(expected.min()), float(expected.max())],
    }
    if pictures.labels is not None:
        for name, answers in (("keras_accuracy", theirs), ("accuracy", logits)):
            result[name] = float((answers.argmax(-1) == pictures.labels).mean())
    return result


def judged(compared: dict[str, Any]) -> tuple[str, float]:
    """By which of the figures a file is judged, and that figure.

    Where the model is sure of enough images, by these: of the others a hair decides.
    """
    enough = compared["sure_images"] >= ENOUGH
    name = "agreement_where_sure" if enough else "agreement"
    return name, compared[name]


def measure_latency(file: Classifier, image: np.ndarray) -> dict[str, Any]:
    """Milliseconds for one image, on this machine."""
    file.classify(image[None])  # the first one allocates
    times: list[float] = []
    while len(times) < RUNS and (len(times) < 5 or sum(times) < SECONDS):
        start = time.perf_counter()
        file.classify(image[None])
        times.append(time.perf_counter() - start)
    return {
        "threads": file.threads,
        "batch": 1,
        "runs": len(times),
        "median_ms": round(1000 * float(np.median(times)), 3),
        "least_ms": round(1000 * min(times), 3),
    }
