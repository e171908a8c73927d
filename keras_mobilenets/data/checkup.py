"""`check_data`: what a source holds and what is wrong with it, before a run."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_mobilenets.architecture.arguments import (
    check_channels,
    check_integer,
    check_resolution,
)
from keras_mobilenets.architecture.shapes import Resolution
from keras_mobilenets.data.checking import Broken
from keras_mobilenets.data.contact_sheet import draw_sheet, enumerate_stored
from keras_mobilenets.data.decoding import exif_orientation
from keras_mobilenets.data.finding import find_source
from keras_mobilenets.data.parts import PARTS, Part, Source
from keras_mobilenets.given import JOINT, MEMORY_BUDGET, Given, take
from keras_mobilenets.recipe import Recipe, get_recipe
from keras_mobilenets.storage import check_new_file, check_path
from keras_mobilenets.text import printable

# What has to be fetched by hand, after registering at image-net.org, with its size in
# bytes. Source: TFDS, datasets/imagenet2012/checksums.tsv.
TAR_FILES = {
    "imagenet2012": {
        "ILSVRC2012_img_train.tar": 147_897_477_120,
        "ILSVRC2012_img_val.tar": 6_744_924_160,
    }
}


class Example(NamedTuple):
    """One image of a split."""

    name: str  # its path, or SPLIT/NUMBER
    orientation: int  # of EXIF, of a file; else 1
    labels: tuple[int, ...]  # the numbers of its classes
    height: int
    width: int
    content: bytes  # the same for the same pixels


def check_data(
    source: Any = "digits",
    *,
    data_dir: str | os.PathLike | None = None,
    splits: Mapping[str, str] | None = None,
    label: str | None = None,
    image: str | None = None,
    multi_label: bool | None = None,
    memory_budget: int = MEMORY_BUDGET,
    resolution: Resolution = 224,
    channels: int = 3,
    recipe: str | Recipe = "slim_v2",
    sheet: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """What a source holds and what is wrong with it; reads every image once.

    Args:
        source, data_dir, splits, label, image, multi_label, memory_budget: as in
            `load_data`.
        resolution, channels, recipe: of the contact sheet.
        sheet: a new PNG file, named so: a row for one training image of each of the
            first eight classes, prepared as for evaluation and then as in seven epochs.

    Returns:
        A dict, ready for JSON:
        "source"; "multi_label", whether an image may have several; "classes" {name:
        {split: images}}; "splits" {split: {"images", "height", "width" (each [smallest,
        median, largest], pixels), "repeated" (images that the split had already)}};
        "broken" [{"path", "reason"}]; "duplicates" [[{"split", "image", "class"}, ...],
        ...], each a set of images with the same pixels in several splits or classes
        (several labels are joined by "|"); "tar_files" [{"path", "bytes", "found"
        (bytes, or None)}], what TFDS needs for `imagenet2012`; "sheet"; "notes";
        "problems", a list of sentences, empty where all is well.

    Raises:
        ValueError: as `load_data` about the source, or a sheet that exists.

    Example:
        km.check_data("photos/", sheet="photos.png")["problems"]
    """
    resolution = check_resolution(None, resolution)
    channels = check_channels(channels)
    recipe = get_recipe(recipe)
    if sheet is not None:
        sheet = check_new_file("sheet", sheet, ".png")
    data_dir = None if data_dir is None else check_path("data_dir", data_dir)
    source = take(source, check_integer("memory_budget", memory_budget, low=0))
    report: dict[str, Any] = {
        "source": str(source),
        "multi_label": False,
        "classes": {},
        "splits": {},
        "broken": [],
        "duplicates": [],
        "tar_files": _tar_files(source, data_dir),
        "sheet": None,
        "notes": [],
        "problems": [],
    }
    report["problems"] += [
        f"{file['path']} is " + ("missing" if file["found"] is None else "incomplete")
        for file in report["tar_files"]
        if file["found"] != file["bytes"]
    ]
    if report["tar_files"]:
        if not report["problems"]:
            report["notes"].append(f"{source} is ready for `tfds build {source}`")
        return report

    broken: Broken = {}
    parts = find_source(
        source,
        data_dir,
        splits,
        answer=lambda found, _: broken.update(found),
        note=lambda sentence, loses_images: report[
            "problems" if loses_images else "notes"
        ].append(sentence),
        exif=recipe.exif_orientation,
        label=label,
        image=image,
        multi_label=multi_label,
    )
    report["multi_label"] = parts.label_sets is not None
    report["broken"] = [{"path": p, "reason": r} for p, r in broken.items()]
    if broken:
        report["problems"].append(f"{_number(broken, 'file')} cannot be read")
    examples = {split: _examples(parts, split) for split in PARTS}
    if _contents(examples["test"]) == _contents(examples["validation"]):
        del examples["test"]
        report["notes"].append("there is no test split: validation stands in for it")
    report["splits"] = {split: _sizes(found) for split, found in examples.items()}
    _count_classes(report, examples, parts)
    _find_duplicates(report, examples, parts.classes)
    _note_orientations(report, examples, recipe)
    if sheet is not None:
        labels = [example.labels for example in examples["train"]]
        draw_sheet(parts.train, labels, resolution, channels, recipe, sheet)
        report["sheet"] = os.fspath(sheet)
    return report


def _tar_files(
    source: str | os.PathLike | Given, data_dir: str | os.PathLike | None
) -> list[dict[str, Any]]:
    """What has to lie where before TFDS can prepare a source; empty once it has."""
    if not isinstance(source, str) or source not in TAR_FILES:
        return []
    builder = tfds.builder(source, data_dir=data_dir)
    if builder.is_prepared():
        return []
    # data_path is DATA_DIR/NAME/VERSION
    manual = Path(builder.data_path).parents[1] / "downloads" / "manual"
    return [
        {
            "path": str(manual / name),
            "bytes": size,
            "found": (manual / name).stat().st_size
            if (manual / name).exists()
            else None,
        }
        for name, size in TAR_FILES[source].items()
    ]


def _examples(parts: Source, split: str) -> list[Example]:
    """All images of a split, without their pixels."""
    part: Part = getattr(parts, split)
    sets = parts.label_sets or [(number,) for number in range(len(parts.classes))]

    def describe(_, pair, *itself):
        stored, label = pair
        image = part.decode(stored, None, False)
        content = tf.raw_ops.Fingerprint(
            data=tf.reshape(image, [1, -1]), method="farmhash64"
        )
        name, turned = tf.constant(""), tf.constant(1)
        if part.of_files:
            name, turned = stored, exif_orientation(tf.io.read_file(stored))
        return name, label, turned, tf.shape(image), content[0]

    described = (
        enumerate_stored(part)
        .map(describe, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    return [
        Example(
            os.fsdecode(name) or f"{split}/{number}",
            int(turned),
            tuple(sets[int(label)]),
            int(shape[0]),
            int(shape[1]),
            content.tobytes() + shape.tobytes(),
        )
        for number, (name, label, turned, shape, content) in enumerate(
            described.as_numpy_iterator()
        )
    ]


def _note_orientations(
    report: dict[str, Any], examples: dict[str, list[Example]], recipe: Recipe
) -> None:
    """How many files a camera has marked to be turned, and what the recipe does."""
    turned = [e.name for found in examples.values() for e in found if e.orientation > 1]
    if turned:
        does = "turns them" if recipe.exif_orientation else "takes them as they lie"
        report["notes"].append(
            f"{_number(turned, 'image')} with an EXIF orientation, such as "
            f"{turned[0]!r}: the recipe {recipe.name!r} {does} "
            f"(exif_orientation={recipe.exif_orientation})"
        )


def _contents(examples: list[Example]) -> list[bytes]:
    return [example.content for example in examples]


def _sizes(examples: list[Example]) -> dict[str, Any]:
    def spread(values: list[int]) -> list[int]:
        return [min(values), int(np.median(values)), max(values)]

    return {
        "images": len(examples),
        "height": spread([example.height for example in examples]),
        "width": spread([example.width for example in examples]),
        "repeated": len(examples) - len(set(_contents(examples))),
    }


def _count_classes(
    report: dict[str, Any],
    examples: dict[str, list[Example]],
    parts: Source,
) -> None:
    counts = {
        split: Counter(label for example in found for label in example.labels)
        for split, found in examples.items()
    }
    report["classes"] = {
        name: {split: counts[split][label] for split in examples}
        for label, name in enumerate(parts.classes)
    }
    if parts.label_sets is not None:
        each = [len(e.labels) for found in examples.values() for e in found]
        report["notes"].append(
            f"images have {min(each)} to {max(each)} labels, {np.mean(each):.2f} on "
            f"average; {each.count(0):,} of {len(each):,} have none"
        )
    for split in examples:
        absent = [name for name, has in report["classes"].items() if not has[split]]
        if absent:
            report["notes"].append(
                f"{split} has no image of {_number(absent, 'class', 'classes')}: "
                f"{', '.join(map(printable, absent[:5]))}"
                f"{', ...' if len(absent) > 5 else ''}"
            )


def _find_duplicates(
    report: dict[str, Any],
    examples: dict[str, list[Example]],
    classes: tuple[str, ...],
) -> None:
    places = defaultdict(list)
    for split, found in examples.items():
        for example in found:
            places[example.content].append((split, example))
    across = contradictions = 0
    for same in places.values():
        several_splits = len({split for split, _ in same}) > 1
        several_classes = len({example.labels for _, example in same}) > 1
        across += several_splits
        contradictions += several_classes
        if several_splits or several_classes:
            report["duplicates"].append(
                [
                    {
                        "split": split,
                        "image": e.name,
                        "class": JOINT.join(classes[label] for label in e.labels),
                    }
                    for split, e in same
                ]
            )
    if across:
        report["problems"].append(f"{across:,} of the images are in several splits")
    if contradictions:
        report["problems"].append(
            f"{contradictions:,} of the images are in several classes"
            if not report["multi_label"]
            else f"{contradictions:,} of the images are there with different labels"
        )


def _number(things: Any, one: str, many: str | None = None) -> str:
    return f"{len(things):,} {one if len(things) == 1 else many or one + 's'}"
