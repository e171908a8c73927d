"""The order of an epoch: a true shuffle of folders, shards as near as can be."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import keras_mobilenets as km
from experiments import shuffling
from keras_mobilenets.data.order import permutation, shards_at_once, stretches
from keras_mobilenets.data.parts import Running, shuffled
from keras_mobilenets.data.prepared import builder_source

CLASSES, EACH = 20, 100


def test_a_permutation_is_a_function_of_seed_and_epoch():
    first = permutation(1000, 3, 5)
    np.testing.assert_array_equal(np.sort(first), np.arange(1000))
    np.testing.assert_array_equal(first, permutation(1000, 3, 5))
    assert not np.array_equal(first, permutation(1000, 3, 6))
    assert not np.array_equal(first, permutation(1000, 4, 5))
    # A stored run goes on in this order, whatever the version of NumPy.
    assert permutation(8, 2**63 - 1, 2**40).tolist() == [7, 5, 4, 2, 1, 3, 6, 0]


def test_permutations_are_a_true_shuffle():
    """20 classes of 100, sorted: chi-square of classes and tenths, over 20 seeds."""
    group = np.repeat(np.arange(CLASSES), EACH)
    statistics, moved = [], []
    for seed in range(20):
        first, second = (permutation(CLASSES * EACH, seed, epoch) for epoch in (0, 1))
        statistics.append(shuffling.tenths(first, group))
        moved.append(shuffling.moved(first, second))
    degrees = 20 * (CLASSES - 1) * 9
    assert abs(np.mean(statistics) - 1) < 3 * np.sqrt(2 / degrees)
    assert np.mean(moved) == pytest.approx(1 / 3, abs=0.003)
    assert shuffling.tenths(np.arange(CLASSES * EACH), group) > 50, "the test can fail"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """20 classes of 100 pictures; the colours count them."""
    root = tmp_path_factory.mktemp("sorted") / "photos"
    for split, each in (("train", EACH), ("val", 1)):
        for number in range(CLASSES * each):
            folder = root / split / f"{number // each:02}"
            folder.mkdir(parents=True, exist_ok=True)
            color = (number // 256, number % 256, 0)
            Image.new("RGB", (4, 4), color).save(folder / f"{number:04}.png")
    return root


def numbers_of(batches):
    """What the colours count to, in order."""
    images = np.concatenate([images for images, *_ in batches.as_numpy_iterator()])
    pixels = np.rint((images[:, 0, 0] + 1) * 127.5).astype(int)
    return pixels[:, 0] * 256 + pixels[:, 1]


def test_a_folder_sorted_by_class_comes_as_a_true_shuffle(
    photos, monkeypatch, tmp_path
):
    """With the smallest memory budget: 0.1.0 left the last classes to the end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    group = np.repeat(np.arange(CLASSES), EACH)
    for seed in (0, 1):
        data = km.load_data(
            photos, resolution=32, batch_size=50, seed=seed, memory_budget=0
        )
        epochs = [numbers_of(data.train) for _ in range(2)]
        for epoch, order in enumerate(epochs):
            expected = permutation(CLASSES * EACH, seed, epoch)
            np.testing.assert_array_equal(order, expected)
            assert shuffling.tenths(order, group) < 1.5
        data.set_position(1, 17)
        np.testing.assert_array_equal(numbers_of(data.train), epochs[1][17 * 50 :])


# Shards


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_stretches_give_every_record_to_one_worker(workers):
    lengths = np.array([5, 1, 9, 4, 2])
    order = permutation(5, 0, 0)
    parts = [stretches(lengths, order, worker, workers) for worker in range(workers)]
    sizes = [part[:, 2].sum() for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    records = [
        (shard, first + n)
        for shard, first, count in np.concatenate(parts).tolist()
        for n in range(count)
    ]
    assert sorted(records) == [(s, n) for s in range(5) for n in range(lengths[s])]


class Sharded(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Images that count themselves, in several shards."""

    name = "sharded"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = {}

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(num_classes=20),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._examples(1600), "validation": self._examples(30)}

    def _generate_examples(self):
        raise NotImplementedError

    def _examples(self, count):
        for number in range(count):
            image = np.full((4, 4, 3), (number // 256, number % 256, 0), np.uint8)
            yield number, {"image": image, "label": number // 80 % 20}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A builder of sixteen shards of 100."""
    folder = tmp_path_factory.mktemp("tfds")
    config = tfds.download.DownloadConfig(num_shards=16)
    Sharded(data_dir=folder).download_and_prepare(download_config=config)
    return folder


def load(sharded, **arguments):
    arguments = {"batch_size": 32, "resolution": 32, "memory_budget": 0, **arguments}
    return km.load_data("sharded", data_dir=sharded, **arguments)


def test_the_model_of_reading_shards_is_the_pipeline(sharded):
    data = load(sharded)
    lengths = np.array(data.index.as_dict()["parts"]["train"]["shards"])
    assert lengths.sum() == 1600
    assert len(lengths) == 16
    assert shards_at_once(16) == 2
    for epoch in range(2):
        expected = shuffling.from_shards(lengths, buffer=1)(epoch)
        np.testing.assert_array_equal(numbers_of(data.train), expected)


def test_shards_come_in_another_order_each_epoch(sharded):
    """0.1.0 left an image where it was, up to its buffer."""
    data = load(sharded)
    orders = [numbers_of(data.train) for _ in range(6)]
    moved = [shuffling.moved(*pair) for pair in zip(orders, orders[1:], strict=False)]
    assert np.mean(moved) == pytest.approx(1 / 3, abs=0.06)  # of 16 shards
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1600))
    data.set_position(2, 9)
    np.testing.assert_array_equal(numbers_of(data.train), orders[2][9 * 32 :])


def test_the_buffer_of_the_model_mixes_as_the_pipelines_does(sharded):
    part = builder_source(tfds.builder("sharded", data_dir=sharded), memory=1).train
    size = 400
    part = part.__class__(**{**vars(part), "buffer": size})
    made = shuffled(part, 0, Running(32), by_chance=False)
    found = []
    for epoch in range(4):
        place = tf.constant([epoch, 0], tf.int64)
        order = made(place, tf.constant(epoch + 1, tf.int64)).map(lambda n, _: n)
        found.append(np.array(list(order.as_numpy_iterator())))
    model = shuffling.from_shards(np.array(part.shards.lengths), size)
    for epoch, order in enumerate(found):
        read = shuffling.from_shards(np.array(part.shards.lengths), 1)(epoch)
        away = [
            np.abs(shuffling.places(one) - shuffling.places(read)).mean()
            for one in (order, model(epoch))
        ]
        assert away[0] == pytest.approx(away[1], rel=0.1)


def test_workers_deal_each_epoch_anew(sharded):
    context = [tf.distribute.InputContext(2, worker, 2) for worker in range(2)]
    workers = [load(sharded, input_context=one) for one in context]
    epochs = [[numbers_of(one.train) for one in workers] for _ in range(2)]
    for parts in epochs:
        assert {len(part) for part in parts} == {800}
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1600))
    both = set(epochs[0][0]) & set(epochs[1][0])
    assert 200 < len(both) < 600
    workers[1].set_position(1, 7)
    np.testing.assert_array_equal(numbers_of(workers[1].train), epochs[1][1][7 * 16 :])


def test_shards_without_python_have_every_image(sharded):
    data = load(sharded)
    order = numbers_of(data.endless(anywhere=True).take(50))
    np.testing.assert_array_equal(np.sort(order), np.arange(1600))


def test_evaluation_of_shards_is_in_order(sharded):
    np.testing.assert_array_equal(numbers_of(load(sharded).train_once), range(1600))
    context = tf.distribute.InputContext(3, 1, 3)
    mine = numbers_of(
        load(sharded, batch_size=30, input_context=context, pad_evaluation=False).test
    )
    np.testing.assert_array_equal(mine, range(10, 20))
