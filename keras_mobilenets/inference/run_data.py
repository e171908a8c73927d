"""The data of a finished run, or others in their place."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_mobilenets.architecture.shapes import sides
from keras_mobilenets.data import Splits, load_data
from keras_mobilenets.deploy import Classifier
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import MEMORY_BUDGET, Given, is_table, take
from keras_mobilenets.settings import Settings
from keras_mobilenets.training.workdir import INDEX


def load_run_data(
    directory: pathlib.Path,
    settings: Settings,
    stored: Mapping[str, Any],
    *,
    data: Any = None,
    label: str | None = None,
    image: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    replicas: int = 1,
) -> tuple[str, Splits]:
    """The run's data, or others with the same classes, prepared alike; and their name.

    `settings` and `stored` are what its report holds.

    Raises:
        UsageError: they have other classes, or cannot be prepared.
    """
    budget = settings.data_options.get("memory_budget", MEMORY_BUDGET)
    source = take(settings.data if data is None else data, budget)
    again = isinstance(source, Given) and str(source) == settings.data
    own = data is None or again
    for option, value in {"label": label, "image": image}.items():
        if value is not None and own:
            raise UsageError(
                f"{option} is of another source than the run's own data, of which it "
                f"knows that; got {value!r}: give that source as data"
            )
    index = directory / INDEX
    several = stored.get("multi_label", False)
    options = settings.data_options
    if not own:
        options = {"label": label, "image": image, "multi_label": several}
        if not _may_have_several(source):
            del options["multi_label"]
    splits = load_data(
        source,
        resolution=settings.resolution,
        channels=settings.channels,
        recipe=settings.recipe,
        batch_size=settings.recipe.batch_size * replicas,
        seed=settings.seed,
        data_dir=settings.data_dir if data_dir is None else data_dir,
        index=index if own and data_dir is None and index.is_file() else None,
        **options,
    )
    if list(splits.classes) != stored["classes"]:
        raise UsageError(
            f"data must have the classes that {directory} was trained on "
            f"({_few(stored['classes'])}); got {str(source)!r} with "
            f"{_few(splits.classes)}"
        )
    if splits.multi_label != several:
        counts = {True: "several labels, or none,", False: "one label"}
        raise UsageError(
            f"data must have {counts[several]} an image, as that of {directory}; got "
            f"{counts[not several].strip(',')} in {str(source)!r}"
        )
    return str(source), splits


def check_fits(
    classifier: Classifier, path: Any, settings: Settings, stored: Mapping[str, Any]
) -> None:
    """A file answers for a run: it takes its images, and knows its classes.

    Raises:
        UsageError: it does not.
    """
    wanted = (*sides(settings.resolution), settings.channels)
    if classifier.shape != wanted or list(classifier.classes) != stored["classes"]:
        raise UsageError(
            f"model must take the run's images {wanted} and have its classes "
            f"({_few(stored['classes'])}); {os.fspath(path)!r} takes "
            f"{classifier.shape} and has {_few(classifier.classes)}"
        )


def _may_have_several(source: Any) -> bool:
    """Whether images of a source have several labels only if somebody says so."""
    if isinstance(source, Given):
        return source.multi_label
    return is_table(source)


def _few(classes: Sequence[str]) -> str:
    shown = ", ".join(list(classes)[:4])
    return f"{len(classes)}: {shown}{', ...' if len(classes) > 4 else ''}"
