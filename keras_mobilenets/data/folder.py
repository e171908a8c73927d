"""Sources that are a folder of class folders."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import tensorflow as tf

from keras_mobilenets.data.images import SUFFIXES, read_image
from keras_mobilenets.data.pipeline import Part, Source

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
HELD_OUT = 0.1  # the share of the images that each split cut from train takes
PATH_BYTES = 256  # of a stored path, roughly

Files = list[tuple[str, str]]  # (class name, path), sorted


def folder_source(path: str | os.PathLike) -> Source:
    """The source in a folder: FOLDER/CLASS/IMAGE or FOLDER/SPLIT/CLASS/IMAGE.

    Splits are subfolders train, validation (or val, valid) and test. Without them,
    or without some of them:

    - no validation and no test: each takes a tenth of the images;
    - no validation: it takes a tenth of train;
    - no test: the validation images are the test images.

    Which image is in which tenth is decided by a hash of its class and file name, so
    it stays where it is when images are added or the folder moves.

    Classes are sorted by name. Files other than .jpg, .jpeg, .png, .bmp and .gif
    are passed over; so are names that begin with a dot. ValueError if the folder is
    missing, holds no images or fewer than two classes, has a class without images,
    or a class in validation or test that train has not.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise ValueError(
            f"source must be a folder of class folders; {str(path)!r} {what} "
            f"(looked for {root.absolute()})"
        )
    found = {
        split: next((root / n for n in names if (root / n).is_dir()), None)
        for split, names in SPLIT_NAMES.items()
    }
    if found["train"] is None:
        files = {"train": _images(root)}
        root_of_train = root
    else:
        files = {split: _images(folder) for split, folder in found.items() if folder}
        root_of_train = found["train"]

    classes = sorted({name for name, _ in files["train"]})
    if len(classes) < 2:
        raise ValueError(
            "source must hold at least two classes, one folder of images each; "
            f"{str(root_of_train)!r} holds {len(classes)} "
            f"({', '.join(classes) or 'no image'}); expected FOLDER/CLASS/IMAGE or "
            "FOLDER/train/CLASS/IMAGE"
        )
    for split, images in files.items():
        unknown = sorted({name for name, _ in images} - set(classes))
        if unknown:
            raise ValueError(
                f"source has the class {unknown[0]!r} in {str(found[split])!r} but "
                f"not in {str(root_of_train)!r}; remove it there or add it to train"
            )

    if "test" not in files and "validation" in files:
        files["test"] = files["validation"]
    wanted = [split for split in ("validation", "test") if split not in files]
    train = files["train"]
    files |= {split: [] for split in ("train", *wanted)}
    for name, file in train:
        place = _place(f"{name}/{Path(file).name}") / HELD_OUT
        files[wanted[int(place)] if place < len(wanted) else "train"].append(
            (name, file)
        )
    for split, images in files.items():
        if not images:
            raise ValueError(
                f"source {str(path)!r} has no image for {split}: {len(train)} images "
                f"are too few to cut a tenth from; add a {split} folder of class "
                "folders, or more images"
            )
    parts = {split: _part(images, classes) for split, images in files.items()}
    return Source(**parts, classes=tuple(classes))


def _images(folder: Path) -> Files:
    """The images in each class folder of a folder."""
    images: Files = []
    for group in sorted(folder.iterdir()):
        if not group.is_dir() or group.name.startswith("."):
            continue
        members = sorted(
            str(file)
            for file in group.rglob("*")
            if file.suffix.lower() in SUFFIXES
            and not file.name.startswith(".")
            and file.is_file()
        )
        if not members:
            raise ValueError(
                f"source has the class folder {str(group)!r} without an image "
                f"({', '.join(SUFFIXES)}); remove it or add images"
            )
        images += [(group.name, file) for file in members]
    return images


def _place(name: str) -> float:
    """Where in [0, 1) a name falls, the same everywhere and always."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def _part(images: Files, classes: list[str]) -> Part:
    label = {name: index for index, name in enumerate(classes)}
    examples = tf.data.Dataset.from_tensor_slices(
        (
            [file for _, file in images],
            tf.constant([label[name] for name, _ in images], tf.int64),
        )
    )
    return Part(examples, len(images), PATH_BYTES, read_image)
