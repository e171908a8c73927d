"""A file that can be run, of whatever format, and what it says of itself.

With the network a file has two texts: `labels.txt`, the classes, one a line, and
`keras_mobilenets.json`, with them and how an image is prepared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_mobilenets.architecture.arguments import check_choice
from keras_mobilenets.deploy.network import SQUASHING
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import Recipe, get_recipe
from keras_mobilenets.startup import stderr_to
from keras_mobilenets.text import printable

LABELS, ABOUT = "labels.txt", "keras_mobilenets.json"
# The fields of a recipe that decide how an image is prepared to be classified.
PREPARATION = ("eval_crop", "resize", "exif_orientation", "background_class")
LARGEST_ABOUT = 2**24  # bytes
LARGEST_IMAGE = 2**26  # numbers
# Images of one batch -> logits, probabilities.
Classify = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A file that can be run.

    `classify` maps images, float32 [n, height, width, channels] in [-1, 1], to logits
    and probabilities, float32 [n, classes] each. `recipe` says how an image is prepared
    for it, if the file does.
    """

    classify: Classify
    shape: tuple[int, int, int]  # of an image: height, width, channels
    batch: int | None  # that it takes, if not any
    classes: tuple[str, ...]
    squashing: str
    recipe: Recipe | None
    operations: dict[str, int]  # of its network, and how often each is there
    threads: int  # that it runs in

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Those of the logits: a file of 8 bits has its own in steps of 1/256."""
        logits = self.classify(images)[0].astype("float64")
        if self.squashing == "sigmoid":
            return (1 / (1 + np.exp(-logits))).astype("float32")
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return (powers / powers.sum(axis=-1, keepdims=True)).astype("float32")


def describe(
    classes: Sequence[str],
    squashing: str,
    recipe: Recipe | None,
    input: str,
    quantization: str | None,
) -> dict[str, Any]:
    """What a file says of itself, ready for JSON."""
    prepared = None
    if recipe is not None:
        prepared = {name: getattr(recipe, name) for name in PREPARATION}
    return {
        "classes": list(classes),
        "squashing": squashing,
        "input": input,
        "quantization": quantization,
        "preparation": prepared,
    }


def texts_of(about: dict[str, Any]) -> dict[str, str]:
    """The two texts that go with a network, by name."""
    return {
        LABELS: "".join(f"{printable(name)}\n" for name in about["classes"]),
        ABOUT: json.dumps(about, indent=2) + "\n",
    }


def by_batches(run: Classify, size: int) -> Classify:
    """`run`, which takes `size` images at once, for any number of them."""

    def classify(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = range(0, len(images), size)
        said = [run(images[place : place + size]) for place in places]
        return (
            np.concatenate([logits for logits, _ in said]),
            np.concatenate([probabilities for _, probabilities in said]),
        )

    return classify


def classifier_of(
    text: str | bytes,
    classify: Classify,
    image: Sequence[int | None],
    operations: dict[str, int],
    threads: int,
) -> Classifier:
    """A network with what its file says of itself (`text`, in JSON), checked.

    `image` is the shape that it takes, batch first. One goes through at once, for a
    file may be wrong in ways that only a run shows.

    Raises:
        UsageError, KeyError, TypeError, ValueError: something of it cannot be.
    """
    if len(text) > LARGEST_ABOUT:
        raise UsageError(f"its {ABOUT} is too large")
    about = json.loads(text)
    batch, *sides = image
    sizes = [side for side in sides if isinstance(side, int) and side > 0]
    if len(sizes) != 3 or len(sides) != 3 or math.prod(sizes) > LARGEST_IMAGE:
        raise UsageError(f"it takes no images of one size, but {tuple(image)}")
    height, width, channels = sizes
    logits, probabilities = classify(np.zeros((1, *sizes), "float32"))
    classes = tuple(about["classes"])
    if not logits.shape == probabilities.shape == (1, len(classes)):
        raise UsageError(
            f"its classes are not the {logits.shape[-1]} that it tells apart"
        )
    if not all(isinstance(name, str) for name in classes):
        raise UsageError("its classes are not names")
    prepared = about["preparation"]
    if prepared is not None:
        fields = {name: prepared[name] for name in PREPARATION}
        prepared = get_recipe("quick").replace(**fields)
    squashing = check_choice("squashing", about["squashing"], tuple(SQUASHING))
    return Classifier(
        classify,
        (height, width, channels),
        batch if isinstance(batch, int) and batch > 0 else None,
        classes,
        squashing,
        prepared,
        operations,
        threads,
    )


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """Runtimes say on standard error what they have made."""
    with tempfile.TemporaryFile() as notices, stderr_to(notices):
        yield
