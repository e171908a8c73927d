"""How near the order of an epoch comes to a true shuffle.

    python -m experiments.shuffling

What fits in memory, and every folder, comes in a permutation. A larger TFDS dataset
is read from its shards: their order is the epoch's own, up to sixteen are read at once,
and a buffer lies behind them. A NumPy model of that reading, which the tests hold to
the pipeline, is measured here on ImageNet's 1,024 shards and on smaller sets, beside a
true shuffle, and beside a buffer behind a fixed order, as version 0.1.0 had it:

- `moved`: by how much of the epoch an image's place changes from one epoch to the
  next, in the mean; of a true shuffle a third;
- `classes`: chi-square of how often each class comes in each tenth of an epoch, over
  its degrees of freedom; of a true shuffle 1. TFDS deals images to shards by chance
  when it prepares a dataset, so classes are spread over all shards;
- `shards`: the same of shards; one that is read at once comes in one tenth or two;
- `together`: of the images that share an image's batch of 96, how many do again in the
  next epoch; of a true shuffle 96 / images.

Written to experiments/results/shuffling.json.
"""

from __future__ import annotations

import itertools
import pathlib
import statistics
from collections.abc import Callable, Iterable

import numpy as np

from keras_mobilenets.data.order import permutation, shards_at_once, stretches
from keras_mobilenets.storage import write_json
from keras_mobilenets.text import table

RESULT = pathlib.Path(__file__).parent / "results" / "shuffling.json"
BATCH = 96
IMAGENET, SHARDS = 1_281_167, 1024
IMAGENET_BUFFER = 2334  # of its images, of 115 kB, in 256 MiB

Order = Callable[[int], np.ndarray]  # from an epoch to the numbers in its order


def interleave(rows: np.ndarray, at_once: int) -> np.ndarray:
    """In which order records are read, as `tf.data.Dataset.interleave` does.

    `rows` are stretches (shard, first, count); returns int64 [n, 2]: the shard of each
    record, and its number there.

    >>> interleave(np.array([[7, 0, 2], [4, 5, 2]]), at_once=2)[:, 0]
    array([7, 4, 7, 4])
    """
    waiting = iter(rows.tolist())
    slots: list[list[int] | None] = [None] * at_once
    read, empty, slot = [], 0, 0
    while empty < at_once:
        current = slots[slot] or next(waiting, None)
        slots[slot] = None
        empty = 0 if current else empty + 1
        if current and current[2]:  # an exhausted one is given up at its next turn
            shard, first, left = current
            read.append((shard, first))
            slots[slot] = [shard, first + 1, left - 1]
        slot = (slot + 1) % at_once
    return np.array(read, np.int64).reshape(-1, 2)


def pass_buffer(
    numbers: np.ndarray, size: int, random: np.random.Generator
) -> np.ndarray:
    """In which order numbers leave a shuffle buffer such as tf.data's.

    The buffer is full before the first leaves; then each that leaves is one of it by
    chance, and the next takes its place.

    >>> pass_buffer(np.arange(4), 1, np.random.default_rng(0))
    array([0, 1, 2, 3])
    """
    size = min(size, len(numbers))
    buffer, left = numbers[:size].tolist(), []
    draws = random.random(len(numbers)).tolist()
    for draw, number in zip(draws, numbers[size:].tolist(), strict=False):
        chosen = int(draw * size)
        left.append(buffer[chosen])
        buffer[chosen] = number
    random.shuffle(buffer)
    return np.array([*left, *buffer], np.int64)


def from_shards(lengths: np.ndarray, buffer: int, seed: int = 0) -> Order:
    """The order of a dataset that is read from its shards, by one worker."""
    before = np.cumsum([0, *lengths])[:-1]

    def order(epoch: int) -> np.ndarray:
        rows = stretches(lengths, permutation(len(lengths), seed, epoch), 0, 1)
        shard, record = interleave(rows, shards_at_once(len(lengths))).T
        random = np.random.default_rng([seed, epoch])
        return pass_buffer(before[shard] + record, buffer, random)

    return order


def behind_a_fixed_order(count: int, buffer: int, seed: int = 0) -> Order:
    """The order that a buffer alone makes."""

    def order(epoch: int) -> np.ndarray:
        random = np.random.default_rng([seed, epoch])
        return pass_buffer(np.arange(count), buffer, random)

    return order


def places(order: np.ndarray) -> np.ndarray:
    """The place of each number in an order."""
    found = np.empty_like(order)
    found[order] = np.arange(len(order))
    return found


def moved(first: np.ndarray, second: np.ndarray) -> float:
    """The mean change of place between two epochs, as a share of the epoch."""
    return float(np.abs(places(first) - places(second)).mean() / len(first))


def tenths(order: np.ndarray, group: np.ndarray) -> float:
    """Chi-square of groups and tenths of an epoch, over its degrees of freedom."""
    count, groups = len(order), int(group.max()) + 1
    tenth = np.arange(count) * 10 // count
    cells = np.bincount(group[order] * 10 + tenth, minlength=groups * 10)
    expected = np.outer(np.bincount(group), np.bincount(tenth)) / count
    statistic = ((cells.reshape(groups, 10) - expected) ** 2 / expected).sum()
    return float(statistic / ((groups - 1) * 9))


def together(first: np.ndarray, second: np.ndarray, batch: int = BATCH) -> float:
    """Of the others in an image's batch, the share that is there in the next epoch."""
    batches = len(first) // batch + 1
    pair = (places(first) // batch) * batches + places(second) // batch
    _, same = np.unique(pair, return_counts=True)
    return float((same * (same - 1)).sum() / (len(first) * (batch - 1)))


def measure(
    order: Order, classes: np.ndarray, shards: np.ndarray, epochs: int
) -> dict[str, float]:
    """The means of the figures over some epochs, and over what lies between them."""
    orders = [order(epoch) for epoch in range(epochs)]
    pairs = list(itertools.pairwise(orders))

    def mean(values: Iterable[float], digits: int) -> float:
        return round(statistics.mean(values), digits)

    return {
        "moved": mean((moved(*pair) for pair in pairs), 4),
        "classes": mean((tenths(one, classes) for one in orders), 3),
        "shards": mean((tenths(one, shards) for one in orders), 3),
        "together": mean((together(*pair) for pair in pairs), 6),
    }


def main() -> None:
    results = {}
    for name, shards, count, buffer in (
        ("4 shards, buffer of 1/2", 4, 20_000, 10_000),
        ("8 shards, no buffer", 8, 20_000, 1),
        ("8 shards, buffer of 1/8", 8, 20_000, 2500),
        ("16 shards, buffer of 1/16", 16, 20_000, 1250),
        ("64 shards, buffer of 1/64", 64, 64_000, 1000),
        ("ImageNet, no buffer", SHARDS, IMAGENET, 1),
        ("ImageNet, default budget", SHARDS, IMAGENET, IMAGENET_BUFFER),
    ):
        lengths = np.full(shards, count // shards)
        lengths[: count % shards] += 1
        large = count >= IMAGENET
        shard = np.repeat(np.arange(shards), lengths)
        classes = permutation(count, 1, 0) % (1000 if large else 20)
        orders = {
            "ours": from_shards(lengths, buffer),
            "buffer alone": behind_a_fixed_order(count, buffer),
            "true shuffle": lambda epoch, count=count: permutation(count, 0, epoch),
        }
        results[name] = {
            "images": count,
            "shards": shards,
            "buffer": buffer,
            **{
                which: measure(order, classes, shard, epochs=3 if large else 20)
                for which, order in orders.items()
            },
        }
    header = ["data", "order", "moved", "classes", "shards", "together"]
    rows = [
        (name, which, *of.values())
        for name, figures in results.items()
        for which, of in figures.items()
        if isinstance(of, dict)
    ]
    print(table(header, rows))
    write_json(RESULT, results)


if __name__ == "__main__":
    main()
