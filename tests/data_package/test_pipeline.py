"""Batches for several workers, padded evaluation, and passes that begin midway."""

import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mobilenets.data import load_data
from keras_mobilenets.data.digits import prepared_digits
from keras_mobilenets.recipe import get_recipe
from tests.training.noise import make_folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    prepared_digits(directory)
    return directory


@pytest.fixture
def digits(data_dir):
    def load(**arguments):
        few = {"train": "train[:430]"}
        arguments = {
            "resolution": 32, "recipe": "slim_v2", "splits": few, **arguments,
        }  # fmt: skip
        return load_data("digits", data_dir=data_dir, **arguments)

    return load


def batches(dataset):
    return list(dataset.as_numpy_iterator())


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


# Stopping and continuing


@pytest.mark.parametrize("memory", [0, 64 * 100, 2**28])
def test_a_stopped_epoch_continues_as_if_it_had_not_stopped(digits, memory):
    whole = digits(batch_size=30, memory_budget=memory)
    epochs = [batches(whole.train) for _ in range(2)]
    resumed = digits(batch_size=30, memory_budget=memory)
    for step in (0, 5, 5, 13):
        resumed.set_position(1, step)
        for _ in range(2):  # it stays until set again
            assert_same(batches(resumed.train), epochs[1][step:])
    resumed.set_epoch(0)
    assert_same(batches(resumed.train), epochs[0])


def test_what_lies_before_is_not_decoded(tmp_path):
    paths = []
    for number in range(40):
        path = tmp_path / f"{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        image = tf.fill([40, 40, 3], tf.constant(number, tf.uint8))
        path.write_bytes(tf.io.encode_png(image).numpy())
        paths.append(path)
    data = load_data(tmp_path, resolution=32, batch_size=4)
    images, _ = batches(data.train)[-1]
    last = {round((image[0, 0, 0] + 1) * 127.5) for image in images}
    data.set_position(0, data.steps_per_epoch - 1)
    for number, path in enumerate(paths):
        if number not in last:
            path.unlink()
    ((images, _),) = batches(data.train)
    assert {round((image[0, 0, 0] + 1) * 127.5) for image in images} == last


def network(classes=11, **arguments):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(classes)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, **arguments)
    return model


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_fit_on_the_rest_of_an_epoch(digits):
    data = digits(batch_size=30)
    seen = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: data.set_position(epoch, 0 if epoch else 10),
        on_train_batch_end=lambda batch, logs: seen.append(batch),
    )
    network().fit(data.train, epochs=2, verbose=0, shuffle=False, callbacks=[count])
    assert seen == [*range(4), *range(14)]


@pytest.mark.parametrize(
    ("epoch", "step", "message"),
    [
        (-1, 0, "epoch must be a whole number"),
        (0, -1, "step must be a whole number of at least 0 and at most 13; got -1"),
        (0, 14, "step must be .*at most 13; got 14"),
        (0, 0.5, "step must be a whole number"),
    ],
)
def test_positions_that_are_none(digits, epoch, step, message):
    with pytest.raises(ValueError, match=message):
        digits(batch_size=30).set_position(epoch, step)


# The same batches, however they are made


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(digits, threads):
    data = digits(batch_size=30, threads=threads)
    options = data.train.options()
    assert options.threading.private_threadpool_size == threads
    assert options.deterministic
    assert_same(batches(data.train), batches(digits(batch_size=30).train))


def test_a_budget_of_nothing_keeps_nothing(digits):
    """Then the images are stored encoded, and read anew in each epoch."""
    data = digits(batch_size=60, memory_budget=0)
    assert_same(batches(data.test), batches(digits(batch_size=60).test))
    assert sum(len(labels) for _, labels in batches(data.train)) == 7 * 60


def test_chosen_splits(digits):
    data = digits(batch_size=10, splits={"train": "train[:50%]", "test": "train[-7:]"})
    assert (data.num_train, data.num_validation, data.num_test) == (718, 180, 7)
    ((images, _),) = batches(data.test)
    whole = np.concatenate(
        [b[0] for b in batches(digits(splits={"test": "train"}).test)]
    )
    np.testing.assert_array_equal(images, whole[-7:])


def test_splits_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match="splits are for TFDS names"):
        load_data(tmp_path, resolution=32, splits={"train": "train[:50%]"})


# Evaluation, padded


@pytest.mark.parametrize("batch_size", [50, 60, 180, 256])
def test_padded_evaluation_has_every_image_once(digits, batch_size):
    padded = batches(digits(batch_size=batch_size, pad_evaluation=True).test)
    assert {image.shape[0] for image, *_ in padded} == {batch_size}
    images, labels, weights = map(np.concatenate, zip(*padded, strict=True))
    assert weights.sum() == 180
    assert weights.dtype == np.float32
    assert set(weights.tolist()) <= {0.0, 1.0}
    plain = batches(digits(batch_size=batch_size).test)
    expected = [np.concatenate(part) for part in zip(*plain, strict=True)]
    assert_same([(images[weights == 1], labels[weights == 1])], [expected])


def test_padding_does_not_count(digits):
    model = network(weighted_metrics=["accuracy"])
    data = [digits(batch_size=50, pad_evaluation=pad) for pad in (False, True)]
    plain, padded = (model.evaluate(d.test, verbose=0, return_dict=True) for d in data)
    assert padded["accuracy"] == pytest.approx(plain["accuracy"])


def test_padding_has_a_label_that_exists(digits):
    data = digits(batch_size=256, pad_evaluation=True, recipe="slim_v1")
    ((_, labels, _),) = batches(data.test)
    assert labels.min() >= 0
    assert labels.max() < len(data.classes)


# Several workers


def joined(parts):
    """The images of one global step, in an order of their own."""
    return sorted(
        (int(label), image.tobytes())
        for images, labels, *_ in parts
        for image, label in zip(images, labels, strict=True)
    )


@pytest.mark.parametrize(("workers", "replicas"), [(1, 2), (2, 1), (3, 2)])
def test_workers_share_the_batches_of_one(digits, workers, replicas):
    size = 60
    contexts = [
        tf.distribute.InputContext(workers, worker, workers * replicas)
        for worker in range(workers)
    ]
    alone = digits(batch_size=size)
    shared = [digits(batch_size=size, input_context=context) for context in contexts]
    for one in shared:
        assert one.steps_per_epoch == alone.steps_per_epoch == 7
        assert len(one.train) == 7 * replicas
    parts = [batches(one.train) for one in shared]
    for step, (images, labels) in enumerate(batches(alone.train)):
        mine = slice(step * replicas, (step + 1) * replicas)
        of_step = [batch for part in parts for batch in part[mine]]
        assert {len(b[1]) for b in of_step} == {size // (workers * replicas)}
        assert joined(of_step) == joined([(images, labels)])

    tests = [batches(one.test) for one in shared]
    assert len({len(test) for test in tests}) == 1, "workers wait for each other"
    kept = [
        (images[weights == 1], labels[weights == 1])
        for test in tests
        for images, labels, weights in test
    ]
    assert joined(kept) == joined(batches(alone.test))


def of_workers(digits, workers, replicas, **arguments):
    contexts = [
        tf.distribute.InputContext(workers, worker, workers * replicas)
        for worker in range(workers)
    ]
    return [digits(input_context=context, **arguments) for context in contexts]


@pytest.mark.parametrize(
    ("size", "workers", "replicas"),
    [
        (60, 2, 1),
        (66, 3, 2),
        pytest.param(66, 2, 1, marks=pytest.mark.slow),
        pytest.param(60, 3, 2, marks=pytest.mark.slow),
    ],
)
def test_workers_read_portions_of_what_is_too_large(digits, workers, replicas, size):
    """Nothing is too small to be too large for a budget of nothing."""
    arguments = dict(batch_size=size, memory_budget=0, recipe="quick")
    shared = of_workers(digits, workers, replicas, **arguments)
    steps = 430 // size
    epochs = [batches(one.train) for one in shared]
    assert {len(epoch) for epoch in epochs} == {steps * replicas}
    assert {len(one.train) for one in shared} == {steps * replicas}
    assert {len(b[1]) for epoch in epochs for b in epoch} == {
        size // (workers * replicas)
    }
    every = [image.tobytes() for e in epochs for images, _ in e for image in images]
    alone = [i.tobytes() for b in batches(digits(**arguments).train) for i in b[0]]
    assert len(every) == len(alone) == steps * size
    whole = splits_images(digits, "train[:430]")
    assert not set(every) - whole
    assert len(set(every)) > 0.98 * len(every)  # some digits are drawn alike

    tests = [batches(one.test) for one in shared]
    assert len({len(test) for test in tests}) == 1
    kept = [
        (images[weights == 1], labels[weights == 1])
        for test in tests
        for images, labels, weights in test
    ]
    assert joined(kept) == joined(batches(digits(recipe="quick").test))


def splits_images(digits, split):
    data = digits(splits={"test": split}, recipe="quick")
    return {image.tobytes() for images, _ in batches(data.test) for image in images}


def test_a_portion_continues_and_keeps_its_distortions(digits):
    arguments = dict(batch_size=60, memory_budget=0)
    whole, resumed = (of_workers(digits, 2, 1, **arguments)[1] for _ in range(2))
    epochs = [batches(whole.train) for _ in range(2)]
    resumed.set_position(1, 3)
    assert_same(batches(resumed.train), epochs[1][3:])
    # The last image of the second portion is the last of all, and distorted as such.
    few = {"train": "train[:4]"}
    arguments = dict(batch_size=4, splits=few, memory_budget=0)
    alone = digits(**arguments)
    parts = [one.train for one in of_workers(digits, 2, 1, **arguments)]
    assert joined([b for part in parts for b in batches(part)]) == joined(
        batches(alone.train)
    )


def test_a_sum_of_splits_is_shared_out_too(digits):
    """Of 131 images 120 fill steps; which 11 are left over is each epoch's own."""
    arguments = dict(batch_size=60, memory_budget=0, recipe="quick")
    arguments["splits"] = {"train": "train[:100]+validation[:31]"}
    whole = splits_images(digits, "train[:100]+validation[:31]")
    shared = of_workers(digits, 2, 1, **arguments)
    for _ in range(2):
        every = [b for one in shared for b in batches(one.train)]
        images = [image.tobytes() for images, _ in every for image in images]
        assert len(images) == 120
        assert set(images) <= whole
        assert len(set(images)) > 117  # some digits are drawn alike


def test_distribute_datasets_from_function(digits, two_replicas):
    def load(context):
        return digits(batch_size=64, input_context=context).train

    alone = batches(digits(batch_size=64).train)
    steps = list(two_replicas.distribute_datasets_from_function(load))
    assert len(steps) == len(alone)
    for (images, labels), expected in zip(steps, alone, strict=True):
        values = [two_replicas.experimental_local_results(v) for v in (images, labels)]
        parts = [(i.numpy(), n.numpy()) for i, n in zip(*values, strict=True)]
        assert joined(parts) == joined([expected])


def test_the_shares_of_splits_are_those_of_load_data(digits):
    context = tf.distribute.InputContext(2, 1, 4)
    whole, mine = digits(batch_size=64), digits(batch_size=64, input_context=context)
    share = whole.for_worker(context)
    for part in ("validation", "test"):
        expected = [b for b in getattr(mine, part).as_numpy_iterator()]
        for ours, theirs in zip(getattr(share, part), expected, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other)
    whole.set_position(2, 3)  # of either holds for both
    mine.set_position(2, 3)
    assert joined(batches(share.train)) == joined(batches(mine.train))


def test_endless_is_epoch_after_epoch(digits):
    data = digits(batch_size=200)
    data.set_position(1, 1)
    endless = batches(data.endless().take(1 + 2 + 1))
    assert data.endless().cardinality() < 0
    expected = batches(data.train)  # the one that is left of epoch 1
    for epoch in (2, 3):
        data.set_epoch(epoch)
        expected += batches(data.train)
    for one, other in zip(endless, expected[: len(endless)], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_anywhere_begins_by_chance_and_keeps_to_the_images(digits):
    data = digits(batch_size=200)
    passes = [batches(data.endless(anywhere=True).take(7)) for _ in range(2)]
    assert joined(passes[0]) != joined(passes[1])
    labels = np.bincount(np.concatenate([b[1] for b in passes[0]]), minlength=10)
    assert labels[1:].min() > 100  # 0 is the background


# Many images


@pytest.mark.slow
def test_memory_is_bounded_over_100_000_images(tmp_path, monkeypatch):
    status = pathlib.Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("needs /proc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = tmp_path / "first.jpg"
    noise = tf.random.stateless_uniform([40, 40, 3], [1, 2], maxval=256, dtype=tf.int32)
    first.write_bytes(tf.io.encode_jpeg(tf.cast(noise, tf.uint8)).numpy())
    for name in ("red", "green"):
        for split in ("train", "validation"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
        os.link(first, tmp_path / "photos" / "validation" / name / "0.jpg")
        for number in range(50_000):
            file = tmp_path / "photos" / "train" / name / f"{number}.jpg"
            # A file has no more than some 65,000 names, and less on some systems.
            if number % 1000 == 0:
                shutil.copy(first, file)
                source = file
            else:
                os.link(source, file)
    data = load_data(tmp_path / "photos", resolution=32, batch_size=100)
    assert data.num_train == 100_000
    used = []
    for step, _ in enumerate(data.train):
        if step % 100 == 0:
            used.append(int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert step + 1 == 1000
    assert max(used) - used[0] < 64 * 2**20


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_rows_come_in_the_order_of_the_images(kind, data_dir, tmp_path):
    """From the middle of an epoch on, and into the next."""
    source = make_folder(tmp_path / "noise", 12) if kind == "folder" else "digits"
    splits = load_data(
        source,
        resolution=32,
        batch_size=8,
        recipe=get_recipe("quick", background_class=True, eval_crop=0.5),
        seed=3,
        data_dir=data_dir,
    )
    assert splits.numbered
    columns = zip(*batches(splits.undistorted()), strict=True)
    images, labels = (np.concatenate(parts) for parts in columns)
    assert len(labels) == splits.num_train
    steps = splits.steps_per_epoch + 1
    for place in ((2, 1), (0, 0)):
        splits.set_position(*place)
        whole = batches(splits.endless().take(steps))
        splits.set_position(*place)
        assert_same(whole, batches(splits.endless(rows=(images, labels)).take(steps)))


def test_shards_that_are_read_in_turn_have_no_numbers(digits):
    assert not digits(memory_budget=1).numbered
