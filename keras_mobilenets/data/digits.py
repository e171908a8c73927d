"""scikit-learn's handwritten digits as a TFDS dataset that needs no download.

1,797 grey images of 8x8 pixels: the test part of UCI's "Optical Recognition of
Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from keras_mobilenets.data.local import prepared

HELD_OUT = 180  # images for validation, and as many for the test: a tenth each


# Not registered: `tfds.builder` needs no registration once the data is prepared,
# and a registered name could clash with another package's, or on re-import.
class Digits(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """The digits: uint8 [8, 8, 1], 0..16 scaled to 0..255, labels "0" to "9".

    Splits: train 1,437, validation 180 and test 180 images, drawn once at random
    and stratified: scikit-learn orders the images by writer.

    >>> Digits(data_dir="data").download_and_prepare()
    """

    name = "digits"
    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict] = {}  # no downloads, so no checksums to look for

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits that scikit-learn ships.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(
                        names=[str(digit) for digit in range(10)]
                    ),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        from sklearn.datasets import load_digits  # slow to import, used once
        from sklearn.model_selection import train_test_split

        data = load_digits()
        images = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        train, rest = train_test_split(
            np.arange(len(images)), test_size=2 * HELD_OUT, random_state=0,
            stratify=data.target,
        )  # fmt: skip
        validation, test = train_test_split(
            rest, test_size=HELD_OUT, random_state=0, stratify=data.target[rest]
        )
        return {
            split: self._generate_examples(images, data.target, np.sort(chosen))
            for split, chosen in (
                ("train", train),
                ("validation", validation),
                ("test", test),
            )
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices.tolist():
            yield index, {"image": images[index], "label": int(labels[index])}


def prepared_digits(data_dir: str | os.PathLike | None = None) -> Digits:
    """The builder of the digits, prepared in TFDS's `data_dir` if they are not yet.

    Takes about a second the first time; prints nothing; no network. ValueError if
    the directory cannot be written.

    >>> prepared_digits().as_dataset(split="train")
    """
    return prepared(Digits, data_dir)
