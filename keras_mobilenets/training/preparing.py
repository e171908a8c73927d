"""What a run needs before its first step: data, compiled model, directory."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_mobilenets import storage
from keras_mobilenets.data import Splits, load_data
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models import build
from keras_mobilenets.models.weights import load_weights
from keras_mobilenets.settings import Settings, differences
from keras_mobilenets.text import printable
from keras_mobilenets.training import workdir as work
from keras_mobilenets.training.checkpoints import Checkpoints
from keras_mobilenets.training.compiling import compile
from keras_mobilenets.training.distribution import gather_text, is_chief
from keras_mobilenets.training.scale import Scale, make_scale
from keras_mobilenets.weight_files import find_weights

# What `compile` is given where an image may have several labels.
OF_LABELS: dict[str, Any] = {
    "loss": "binary_crossentropy",
    "metrics": ["binary_accuracy"],
}


def prepare(
    workdir: pathlib.Path | None,
    settings: Settings,
    strategy: tf.distribute.Strategy,
    index: str | os.PathLike[str] | None,
    may_resume: bool,
) -> tuple[Splits, keras.Model, Scale, dict[str, Any]] | None:
    """Data and compiled model of a run, before anything is written.

    None where the run is finished already. The last of the four is what decides it.
    """
    scale = make_scale(settings.recipe, strategy)
    record = {**settings.as_dict(), "images_a_step": scale.batch_size}
    _check_agreement(strategy, record)
    checkpoints: list[pathlib.Path] = []
    record["pretrained"] = None
    if workdir is not None and (workdir / work.SETTINGS).is_file():
        _check_same_run(workdir, record, may_resume)
        if work.is_finished(workdir):
            return None
        if index is None and (workdir / work.INDEX).is_file():
            index = workdir / work.INDEX
        checkpoints = Checkpoints(workdir / work.CHECKPOINTS).all()
        record["pretrained"] = work.read_settings(workdir)[1].get("pretrained")
    elif workdir is not None and is_chief(strategy):
        work.check_unused(workdir)
    if settings.weights is not None and not checkpoints:
        find_weights(settings.weights)  # now: preparing data may take hours
    splits = load_data(
        settings.data,
        resolution=settings.resolution,
        channels=settings.channels,
        recipe=settings.recipe,
        seed=settings.seed,
        data_dir=settings.data_dir,
        batch_size=scale.batch_size,
        index=index,
        **settings.data_options,
    )
    # Only now: preparing data for the first time draws from Python's generator too.
    keras.utils.set_random_seed(settings.seed % 2**32)
    with strategy.scope():
        model = build(
            settings.name,
            classes=len(splits.classes),
            dropout=settings.recipe.dropout,
            kernel_stddev=settings.recipe.kernel_stddev,
            classifier_activation="sigmoid" if splits.multi_label else "softmax",
            **settings.network,
        )
        # A checkpoint holds all weights; the file may be gone by now.
        if settings.weights is not None and not checkpoints:
            record["pretrained"] = load_weights(model, settings.weights).as_dict()
        compile(
            model,
            settings.recipe,
            steps_per_epoch=splits.steps_per_epoch,
            **(OF_LABELS if splits.multi_label else {}),
        )
    return splits, model, scale, record


@contextlib.contextmanager
def claim_directory(
    workdir: pathlib.Path | None,
    strategy: tf.distribute.Strategy,
    splits: Splits,
    record: dict[str, Any],
) -> Iterator[pathlib.Path]:
    """The directory of the run, the chief's until the end of the block."""
    if not is_chief(strategy):
        (of_the_chief, *_) = gather_text(strategy, "")
        yield pathlib.Path(of_the_chief)
        return
    label = printable(pathlib.Path(splits.source).name.replace(":", "_")) or "data"
    with work.claim(workdir, label) as directory:
        if not work.is_unfinished(directory):
            splits.index.save(directory / work.INDEX)
            storage.write_json(
                directory / work.SETTINGS,
                record | {"classes": list(splits.classes), "images": splits.counts},
            )
        gather_text(strategy, os.fspath(directory))
        yield directory


def _check_agreement(strategy: tf.distribute.Strategy, record: dict[str, Any]) -> None:
    """All processes of a cluster were given the same settings."""
    ours = json.dumps(record)
    for theirs in gather_text(strategy, ours):
        if theirs != ours:
            different = "; ".join(differences(record, json.loads(theirs)))
            raise UsageError(
                f"all workers must be given the same settings; got {different}"
            )


def _check_same_run(
    workdir: pathlib.Path, record: dict[str, Any], may_resume: bool
) -> None:
    """The run that was begun there is the one that is asked for."""
    before, stored = work.read_settings(workdir)
    stored = {**before.as_dict(), "images_a_step": stored.get("images_a_step")}
    different = differences(record, stored)
    if work.is_finished(workdir):
        if different or not may_resume:
            what = f" ({'; '.join(different)})" if different else ""
            raise UsageError(
                f"workdir {str(workdir)!r} exists and is not empty: it holds another "
                f"run{what}; give the name of a new directory (nothing is overwritten)"
            )
    elif different or not may_resume:
        what = "; ".join(different) or "resume=False"
        raise UsageError(
            f"workdir {str(workdir)!r} holds an unfinished run; got {what}: resume "
            "it with its own settings (resume=True), or give another directory"
        )
