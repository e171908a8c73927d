"""Fashion-MNIST from the files of Debian's package dataset-fashion-mnist.

70,000 grey images of 28x28 pixels of clothes in 10 classes (H. Xiao, K. Rasul,
R. Vollgraf, 2017), as the four idx files that the authors publish.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from keras_mobilenets.data.local import prepared
from keras_mobilenets.errors import UsageError

FOLDER = Path("/usr/share/datasets/fashion-mnist")
FILES = {"train": "train", "test": "t10k"}  # split: how its files begin
IMAGES, LABELS = "{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"
MAGIC = {1: 0x801, 3: 0x803}  # dimensions: the first four bytes, for unsigned bytes


def has_fashion_mnist() -> bool:
    """Whether the package is installed."""
    return all(
        (FOLDER / pattern.format(start)).is_file()
        for start in FILES.values()
        for pattern in (IMAGES, LABELS)
    )


def prepared_fashion_mnist(
    data_dir: str | os.PathLike | None = None,
) -> tfds.core.DatasetBuilder:
    """TFDS's fashion_mnist, prepared from the package's files instead of a download.

    Later calls of TFDS find it prepared. ValueError if a file is damaged or the
    directory cannot be written.

    >>> prepared_fashion_mnist().info.splits["train"].num_examples
    60000
    """

    # TFDS's own class for the features, the version and the name of its folder.
    base: Any = tfds.builder_cls("fashion_mnist")

    class FashionMnist(base, skip_registration=True):  # type: ignore[call-arg]
        name = "fashion_mnist"
        url_infos: ClassVar[dict] = {}  # no downloads, so no checksums to look for

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: examples(start) for split, start in FILES.items()}

    return prepared(FashionMnist, data_dir)


def examples(start: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The examples of "train" or "t10k", in the package's order."""
    images = _read(FOLDER / IMAGES.format(start), 3)[..., np.newaxis]
    labels = _read(FOLDER / LABELS.format(start), 1)
    if len(images) != len(labels):
        raise UsageError(
            f"{str(FOLDER)!r} has {len(images)} images but {len(labels)} labels "
            f"in {start!r}; install dataset-fashion-mnist again"
        )
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        yield index, {"image": image, "label": label}


def _read(path: Path, dimensions: int) -> np.ndarray:
    """An idx file of unsigned bytes: a magic number, the sizes, the values."""
    try:
        with gzip.open(path) as file:
            head = np.frombuffer(file.read(4 * (1 + dimensions)), ">u4").tolist()
            values = np.frombuffer(file.read(), np.uint8)
        magic, *sizes = head
        if magic != MAGIC[dimensions]:
            raise UsageError("not an idx file of that many dimensions")
        return values.reshape(sizes)
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(
            f"{str(path)!r} is damaged ({error}); install dataset-fashion-mnist again"
        ) from error
