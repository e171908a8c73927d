"""Preparing TFDS datasets from data that is already on the machine."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.utils import tqdm_utils

from keras_mobilenets.errors import UsageError


def prepared(
    make: type[tfds.core.GeneratorBasedBuilder],
    data_dir: str | os.PathLike | None = None,
) -> tfds.core.GeneratorBasedBuilder:
    """A builder that needs no download, prepared in `data_dir` if it is not yet.

    Prints nothing. Processes may call it at the same time: each writes beside and
    renames, and the first wins. ValueError if the directory cannot be written.

    >>> prepared(Digits).as_dataset(split="train")
    """
    with _quiet():
        builder = make(data_dir=data_dir)
        if builder.is_prepared():
            return builder
        try:
            builder.download_and_prepare()
        except ValueError:  # of the data, which says what is wrong
            raise
        except Exception as error:
            if not make(data_dir=data_dir).is_prepared():
                place = data_dir if data_dir else builder.data_path
                raise UsageError(
                    "data_dir must be a folder that can be written; got "
                    f"{os.fspath(place)!r} ({error})"
                ) from error
        return make(data_dir=data_dir)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TFDS's progress bars, messages and warnings."""
    active = getattr(tqdm_utils, "_active", True)  # there is no public getter
    verbosity = logging.get_verbosity()
    tfds.disable_progress_bar()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if active:
            tfds.enable_progress_bar()
