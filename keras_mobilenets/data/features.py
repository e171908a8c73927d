"""Which features of a TFDS dataset are the image and the label."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from keras_mobilenets.architecture.arguments import suggest
from keras_mobilenets.errors import UsageError


class Chosen(NamedTuple):
    """What was asked for; None is the usual."""

    label: str | None = None
    image: str | None = None


USUAL = Chosen()


class Pair(NamedTuple):
    """The image and the label of an example, by their paths: "attributes/Smiling"."""

    image: str
    label: str
    classes: tuple[str, ...]

    def of(self, example: Mapping[str, Any]) -> tuple[Any, Any]:
        """The two values."""
        return _at(example, self.image), _at(example, self.label)

    def decoders(self, decoder: Any) -> dict[str, Any]:
        """As `as_dataset` takes them: one for the image."""
        nested: Any = decoder
        for name in reversed(self.image.split("/")):
            nested = {name: nested}
        return nested


def find_pair(info: tfds.core.DatasetInfo, chosen: Chosen = USUAL) -> Pair:
    """The features that are called image and label, or those that were chosen.

    By default "image", or the only image there is, and "label". Features of features
    are named by the last part of their path, where that is not in several, or by all
    of it. A label is a class label, or yes or no, which makes two classes.

    UsageError, with what there is, if there are none.

    >>> find_pair(builder.info, Chosen(label="Smiling")).classes
    ('not Smiling', 'Smiling')
    """
    features = dict(_flat(info.features))
    images = [
        path for path, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    ]  # fmt: skip
    labels = [path for path, feature in features.items() if _classes(path, feature)]
    pick = functools.partial(_pick, info.name, features)
    alone = images[0] if len(images) == 1 else "image"
    image = pick("image", chosen.image, images, alone)
    label = pick("label", chosen.label, labels, "label")
    return Pair(image, label, _classes(label, features[label]))


def _pick(
    name: str,
    features: Mapping[str, Any],
    option: str,
    asked: str | None,
    fitting: list[str],
    usual: str,
) -> str:
    """The path of the feature that is to be the image, or the label."""
    if asked is None:
        if usual in fitting:
            return usual
        raise UsageError(
            "source must have an image and a class label for each example; TFDS's "
            f"{name!r} has {', '.join(features)}"
            + (f": give {option}, one of {', '.join(fitting)}" if fitting else "")
        )
    if not isinstance(asked, str):
        raise UsageError(f"{option} must be the name of a feature; got {asked!r}")
    places = [
        path for path in features if path == asked or path.split("/")[-1] == asked
    ]
    if asked in places:
        places = [asked]
    right = [path for path in places if path in fitting]
    if len(places) != 1 or not right:
        what = "several of that name" if len(places) > 1 else "no such feature"
        if len(places) == 1:
            what = f"{type(features[places[0]]).__name__}"
        short = [path.split("/")[-1] for path in fitting]
        raise UsageError(
            f"{option} must be one of {', '.join(fitting) or 'none'} of TFDS's "
            f"{name!r}; got {asked!r} ({what}){suggest(asked, [*fitting, *short])}"
        )
    return right[0]


def _flat(features: Any, before: str = "") -> list[tuple[str, Any]]:
    """All features by their paths, sorted."""
    found = []
    for name, feature in sorted(features.items()):  # TFDS's order is by chance
        if isinstance(feature, tfds.features.FeaturesDict):
            found += _flat(feature, f"{before}{name}/")
        else:
            found.append((f"{before}{name}", feature))
    return found


def _classes(path: str, feature: Any) -> tuple[str, ...]:
    """The names of the classes of a feature; none if it has no classes."""
    if isinstance(feature, tfds.features.ClassLabel):
        return tuple(feature.names or ())
    if feature.shape == () and feature.np_dtype == np.bool_:
        name = path.split("/")[-1]
        return f"not {name}", name
    return ()


def _at(example: Mapping[str, Any], path: str) -> Any:
    return functools.reduce(operator.getitem, path.split("/"), example)
