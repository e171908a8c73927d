"""Images a second and memory of input pipelines, side by side in one run.

    python -m experiments.benchmarks.pipeline [--torch-python PYTHON]

2,000 generated JPEG files of 500 x 375 pixels, 224 pixels in, batches of 32, for
training and for evaluation. Contenders, each in a process of its own:

- ours: `km.load_data` with the recipe slim_v2;
- keras: `image_dataset_from_directory` at 256 pixels, then Keras layers: random crop
  to 224, flip, brightness and saturation; or centre crop;
- slim: slim's operations in slim's order: decode the whole image, convert it to
  floats, crop, resize, flip, brightness and saturation; or central crop, resize;
- torch: torchvision's ImageFolder and DataLoader with a worker process for each core,
  RandomResizedCrop, flip, brightness and saturation; or resize to 256, centre crop
  (with --torch-python where torch is installed for another interpreter).

A turn is a pass over all images by a fresh iterator, after an untimed one over a few
batches; contenders take turns; medians. It ends with the last batch: where tf.data
tunes itself, as for keras and slim, to be rid of an iterator can take until the tuning
wakes next, and its naps double. Processor time, of all threads and worker processes,
is what counts where the machine is shared. Memory is the peak of the process, the
framework included, and of its worker processes. Written to
experiments/results/benchmark_pipeline.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

from experiments.benchmarks.contenders import (
    ROOT,
    Contender,
    peak_memory,
    serve,
)

RESULT = ROOT / "experiments" / "results" / "benchmark_pipeline.json"
COUNT, WIDTH, HEIGHT, CLASSES = 2000, 500, 375, 10
SIZE, BATCH, WHOLE = 224, 32, 256  # WHOLE: before a crop to SIZE, where one is taken
MODES = ("train", "eval")
WARM_UP = 4  # batches
BARS = {"keras": 2.5, "slim": 1.5, "torch": 2.0}  # ours / it, for training


def generate(folder: pathlib.Path, count: int = COUNT) -> None:
    """Class folders of JPEG files with the spectrum and the size of photographs.

    Noise whose amplitude falls with the frequency, as in natural images; about 80 kB
    a file. `validation` is a link to `train`.
    """
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    side = 2048
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / side) ** 1.1
    phases = random.uniform(0, 2 * np.pi, (3, *amplitude.shape))
    phases[1:] = phases[0] + 0.3 * phases[1:]  # colours go mostly together
    scene = np.fft.irfft2(amplitude * np.exp(1j * phases)).transpose(1, 2, 0)
    scene = np.clip(128 + 55 * scene / scene.std(), 0, 255).astype(np.uint8)
    for number in range(count):
        group = folder / "train" / f"class_{number % CLASSES}"
        group.mkdir(parents=True, exist_ok=True)
        top, left = random.integers(0, (side - HEIGHT, side - WIDTH))
        part = scene[top : top + HEIGHT, left : left + WIDTH]
        Image.fromarray(part).save(group / f"{number:05}.jpg", quality=85)
    (folder / "validation").symlink_to("train", target_is_directory=True)


def _ours(folder: str) -> dict[str, Iterable]:
    import keras_mobilenets as km

    data = km.load_data(folder, resolution=SIZE, batch_size=BATCH, recipe="slim_v2")
    return {"train": data.train, "eval": data.validation}


def _keras(folder: str) -> dict[str, Iterable]:
    import keras
    import tensorflow as tf

    layers = keras.layers
    scale = layers.Rescaling(1 / 127.5, offset=-1)
    steps = {
        "train": [
            layers.RandomCrop(SIZE, SIZE),
            layers.RandomFlip("horizontal"),
            layers.RandomBrightness(32 / 255),
            layers.RandomSaturation(0.5),
            scale,
        ],
        "eval": [layers.CenterCrop(SIZE, SIZE), scale],
    }

    def batches(mode: str) -> tf.data.Dataset:
        def prepare(images, labels):
            for layer in steps[mode]:
                images = layer(images, training=True)
            return images, labels

        files = keras.utils.image_dataset_from_directory(
            os.path.join(folder, "train"), image_size=(WHOLE, WHOLE),
            batch_size=BATCH, shuffle=mode == "train", verbose=False,
        )  # fmt: skip
        return files.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).prefetch(
            tf.data.AUTOTUNE
        )

    return {mode: batches(mode) for mode in MODES}


def _slim(folder: str) -> dict[str, Iterable]:
    import tensorflow as tf

    paths = sorted(map(str, pathlib.Path(folder, "train").glob("*/*.jpg")))
    labels = [int(path.split("class_")[1][0]) for path in paths]

    def train(image):
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image), tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1, aspect_ratio_range=(0.75, 1.33),
            area_range=(0.05, 1.0), max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )  # fmt: skip
        image = resize(tf.slice(image, begin, size))
        image = tf.image.random_flip_left_right(image)
        image = tf.image.random_brightness(image, 32 / 255)
        image = tf.image.random_saturation(image, 0.5, 1.5)
        return tf.clip_by_value(image, 0.0, 1.0)

    def evaluate(image):
        return resize(tf.image.central_crop(image, 0.875))

    def resize(image):
        return tf.compat.v1.image.resize_bilinear(image[tf.newaxis], [SIZE, SIZE])[0]

    def batches(mode: str) -> tf.data.Dataset:
        def prepare(path, label):
            image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
            image = tf.image.convert_image_dtype(image, tf.float32)
            image = {"train": train, "eval": evaluate}[mode](image)
            return (image - 0.5) * 2.0, label

        examples = tf.data.Dataset.from_tensor_slices((paths, labels))
        if mode == "train":
            examples = examples.shuffle(len(paths))
        return (
            examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(BATCH)
            .prefetch(tf.data.AUTOTUNE)
        )

    return {mode: batches(mode) for mode in MODES}


def _torch(folder: str) -> dict[str, Iterable]:
    import torch
    from torchvision import datasets, transforms

    to_signed = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    steps = {
        "train": [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=32 / 255, saturation=0.5),
        ],
        "eval": [transforms.Resize(WHOLE), transforms.CenterCrop(SIZE)],
    }
    return {
        mode: torch.utils.data.DataLoader(
            datasets.ImageFolder(
                os.path.join(folder, "train"),
                transforms.Compose([*steps[mode], *to_signed]),
            ),
            batch_size=BATCH,
            shuffle=mode == "train",
            num_workers=os.cpu_count(),
            persistent_workers=True,  # their start is not part of a pass
        )
        for mode in MODES
    }


CONTENDERS: dict[str, Callable[[str], dict[str, Iterable]]] = {
    "ours": _ours,
    "keras": _keras,
    "slim": _slim,
    "torch": _torch,
}


def _commands(which: str, folder: str) -> dict[str, Callable]:
    """What a contender's process answers to."""
    data = CONTENDERS[which](folder)

    def warm_up() -> int:
        return sum(1 for m in MODES for _ in itertools.islice(data[m], WARM_UP))

    def one_pass(mode: str) -> tuple[float, float]:
        """Images a second, and milliseconds of processor time an image."""
        batches = iter(data[mode])
        start, used, images = time.perf_counter(), _processor_time(), 0
        for _, labels in batches:
            images += len(labels)
        elapsed = time.perf_counter() - start
        return images / elapsed, (_processor_time() - used) * 1000 / images

    return {
        "warm_up": warm_up,
        **{mode: lambda mode=mode: one_pass(mode) for mode in MODES},
        "memory": lambda: peak_memory() + _peak_of_workers(),
    }


def _processor_time() -> float:
    """Seconds of this process and of its own."""
    import multiprocessing

    ticks = 0
    for worker in multiprocessing.active_children():
        fields = pathlib.Path(f"/proc/{worker.pid}/stat").read_text().split(")")[1]
        ticks += sum(map(int, fields.split()[11:13]))  # user and system
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _peak_of_workers() -> int:
    """Bytes of this process's own processes; pages they share count for each."""
    import multiprocessing

    peaks = 0
    for worker in multiprocessing.active_children():
        status = pathlib.Path(f"/proc/{worker.pid}/status").read_text()
        peaks += int(status.split("VmHWM:")[1].split()[0]) * 1024
    return peaks


def measure(folder: str, contenders: dict[str, str], rounds: int) -> dict[str, dict]:
    """Figures of every contender (name -> its interpreter)."""
    live = {
        which: Contender(__spec__.name, [which, folder], python)
        for which, python in contenders.items()
    }
    speeds = {which: {mode: [] for mode in MODES} for which in live}
    for contender in live.values():
        contender.ask("warm_up")
    for _, mode in itertools.product(range(rounds), MODES):
        for which, contender in live.items():
            speeds[which][mode].append(contender.ask(mode))
    figures = {}
    for which, contender in live.items():
        figures[which] = {
            **{
                f"{mode}_{figure}": round(statistics.median(values), digits)
                for mode in MODES
                for (figure, digits), values in zip(
                    (("images_per_s", 1), ("cpu_ms", 3)),
                    zip(*speeds[which][mode], strict=True),
                    strict=True,
                )
            },
            "peak_memory_mb": round(contender.ask("memory") / 2**20),
            "passes": rounds,
        }
        contender.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="interpreter that has torchvision")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--count", type=int, default=COUNT, help="images")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(_commands(*options.serve))

    from keras_mobilenets.machine import about_machine
    from keras_mobilenets.text import table

    contenders = dict.fromkeys(("ours", "keras", "slim"), sys.executable)
    if options.torch_python:
        contenders["torch"] = options.torch_python
    with tempfile.TemporaryDirectory() as folder:
        generate(pathlib.Path(folder), options.count)
        files = list(pathlib.Path(folder, "train").glob("*/*.jpg"))
        mean_bytes = sum(file.stat().st_size for file in files) // len(files)
        figures = measure(folder, contenders, options.rounds)
    rows = []
    for which, figure in figures.items():
        ours = figures["ours"]
        faster = [
            round(ours[f"{mode}_images_per_s"] / figure[f"{mode}_images_per_s"], 2)
            for mode in MODES
        ]
        leaner = [
            round(figure[f"{mode}_cpu_ms"] / ours[f"{mode}_cpu_ms"], 2)
            for mode in MODES
        ]
        rows.append((which, *figure.values(), *faster, *leaner, BARS.get(which)))
        figure["ours_is_faster"] = dict(zip(MODES, faster, strict=True))
        figure["ours_takes_less_cpu"] = dict(zip(MODES, leaner, strict=True))
    header = [
        "pipeline", "train img/s", "cpu ms", "eval img/s", "cpu ms", "peak MB",
        "passes", "ours/it train", "eval", "it/ours cpu train", "eval", "bar (train)",
    ]  # fmt: skip
    print(table(header, rows))
    about = {
        "images": options.count,
        "pixels": [WIDTH, HEIGHT],
        "mean_bytes": mean_bytes,
        **about_machine(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**figures, "about": about}, indent=2) + "\n")


if __name__ == "__main__":
    main()
