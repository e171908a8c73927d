"""The names of ImageNet's classes, as keras.applications has them."""

from __future__ import annotations

from keras_mobilenets import storage
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.weights.applications import download
from keras_mobilenets.models.weights.stored import WITH_BACKGROUND

# keras/src/applications/imagenet_utils.py, CLASS_INDEX_PATH
URL = (
    "https://storage.googleapis.com/download.tensorflow.org/data/"
    "imagenet_class_index.json"
)
CLASSES = 1000
BACKGROUND = "background"  # class 0 of the authors' 1001


def imagenet_names(classes: int) -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, or of 1001 with the background first.

    Of keras.applications' file {"0": ["n01440764", "tench"], ...}, downloaded once.

    Raises:
        UsageError: another number of classes; the file cannot be had, or is damaged.

    >>> imagenet_names(1001)[:2]
    ('background', 'tench')
    """
    if classes not in (CLASSES, WITH_BACKGROUND):
        raise UsageError(
            f"weights must be of ImageNet's {CLASSES} classes, or {WITH_BACKGROUND} "
            f"with a background, for their names to be known; got {classes}: a run "
            "knows its own, give its directory as workdir"
        )
    file = download(URL, "the names of ImageNet's classes")
    named = storage.read_json(file)
    try:
        names = [named[str(number)][1].replace("_", " ") for number in range(CLASSES)]
        if len(named) != CLASSES or not all(names):
            raise ValueError(f"{len(named)} classes")
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{str(file)!r} must be keras.applications' file of ImageNet's classes "
            f"({type(error).__name__}: {error}): remove it, or get {URL}"
        ) from error
    return (*[BACKGROUND] * (classes - CLASSES), *names)
