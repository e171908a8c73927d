"""load_data and load_image on real files and prepared TFDS data, offline."""

import gc

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from keras_mobilenets.data import load_data, load_image
from keras_mobilenets.data.digits import prepared_digits
from keras_mobilenets.data.preprocessing import eval_image
from keras_mobilenets.recipe import recipes


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    prepared_digits(directory)
    return directory


def digits(data_dir, **arguments):
    return load_data("digits", data_dir=data_dir, resolution=32, **arguments)


def one_pass(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


# Digits


def test_what_splits_say(data_dir):
    data = digits(data_dir)
    assert data.classes == tuple("0123456789")
    assert (data.num_train, data.num_validation, data.num_test) == (1437, 180, 180)
    assert (data.batch_size, data.steps_per_epoch, len(data.train)) == (32, 44, 44)
    assert (data.source, data.resolution) == ("digits", 32)
    images, labels = data.train.element_spec
    assert images.shape == (32, 32, 32, 3)
    assert images.dtype == tf.float32
    assert labels.shape == (32,)
    assert labels.dtype == tf.int64


@pytest.mark.parametrize("recipe", ["quick", "slim_v2"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_batches_of_any_shape(data_dir, recipe, channels):
    data = load_data(
        "digits",
        data_dir=data_dir,
        resolution=(32, 48),
        channels=channels,
        recipe=recipe,
        batch_size=60,
        pad_evaluation=True,
    )
    assert (data.resolution, data.channels) == ((32, 48), channels)
    for batches in (data.train, data.train_once, data.test):
        images, *_ = batches.element_spec
        assert images.shape[1:] == (32, 48, channels)
    images, *_ = next(data.test.as_numpy_iterator())
    (example,) = prepared_digits(data_dir).as_dataset(split="test[:1]")
    expected = eval_image(example["image"], (32, 48), recipes[recipe], channels)
    np.testing.assert_array_equal(images[0], expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("recipe", ["quick", "slim_v2"])
def test_the_same_images_give_the_same_batches_in_any_form(
    data_dir, tmp_path, monkeypatch, recipe, channels
):
    """Grey arrays of TFDS, and grey, RGB and RGBA files of the same images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    builder = prepared_digits(data_dir)
    batches = {}
    for mode in ("L", "RGB", "RGBA"):
        for split in ("train", "validation"):
            for number, example in enumerate(builder.as_dataset(split=f"{split}[:40]")):
                folder = tmp_path / mode / split / str(int(example["label"]))
                folder.mkdir(parents=True, exist_ok=True)
                picture = Image.fromarray(example["image"].numpy()[..., 0])
                picture.convert(mode).save(folder / f"{number:03}.png")
        data = load_data(
            tmp_path / mode,
            resolution=(32, 48),
            channels=channels,
            recipe=recipe,
            batch_size=8,
        )
        batches[mode] = [one_pass(data.train), one_pass(data.validation)]
    for mode in ("RGB", "RGBA"):
        for first, second in zip(batches["L"], batches[mode], strict=True):
            assert_same(first, second)
    stored = {
        eval_image(e["image"], (32, 48), recipes[recipe], channels).numpy().tobytes()
        for e in builder.as_dataset(split="validation[:40]")
    }
    assert {image.tobytes() for image in batches["L"][1][0]} == stored


def test_alpha_of_files_reaches_the_network(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split in ("train", "validation"):
        for name, alpha in (("clear", 0), ("half", 51)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                color = (10 * number, 200, 30, alpha)
                Image.new("RGBA", (9, 7), color).save(folder / f"{number}.png")
    arguments = {"resolution": (32, 48), "batch_size": 8, "recipe": "slim_v2"}
    data = load_data(tmp_path / "photos", channels=4, **arguments)
    for batches in (data.train, data.validation):
        images, labels = one_pass(batches)
        expected = np.where(labels == 1, -1, 51 / 127.5 - 1)[:, None, None]
        np.testing.assert_allclose(
            images[..., 3], np.broadcast_to(expected, (8, 32, 48)), atol=1e-6
        )
    rgb = load_data(tmp_path / "photos", **arguments)
    np.testing.assert_array_equal(
        one_pass(rgb.validation)[0], one_pass(data.validation)[0][..., :3]
    )
    path = tmp_path / "photos" / "train" / "half" / "0.png"
    image = load_image(path, (32, 48), "slim_v2", 4)
    np.testing.assert_allclose(image[..., 3], 51 / 127.5 - 1, atol=1e-6)


def test_training_images_keep_their_labels(data_dir):
    images, labels = one_pass(digits(data_dir).train)
    builder = prepared_digits(data_dir)
    label_of = {
        eval_image(example["image"], 32, recipes["quick"]).numpy().tobytes(): int(
            example["label"]
        )
        for example in builder.as_dataset(split="train")
    }
    found = [label_of[image.tobytes()] for image in images]
    assert found == labels.tolist()
    assert len({image.tobytes() for image in images}) > 1390  # no repeats
    assert (labels[1:] != labels[:-1]).mean() > 0.8  # shuffled


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_has_every_image_once(data_dir, split):
    images, labels = one_pass(getattr(digits(data_dir, batch_size=50), split))
    expected = [
        (eval_image(e["image"], 32, recipes["quick"]).numpy(), int(e["label"]))
        for e in prepared_digits(data_dir).as_dataset(split=split)
    ]
    assert_same((images, labels), zip(*expected, strict=True))


@pytest.mark.parametrize("recipe", ["quick", "slim_v2"])
def test_values_are_in_the_networks_range(data_dir, recipe):
    data = digits(data_dir, recipe=recipe)
    for batches in (data.train, data.test):
        images, _ = one_pass(batches)
        assert -1 <= images.min() < -0.9
        assert 0.9 < images.max() <= 1


def test_one_seed_gives_the_same_epochs(data_dir):
    first = digits(data_dir, recipe="slim_v2", seed=4)
    tf.random.set_seed(99)  # must not matter
    again = digits(data_dir, recipe="slim_v2", seed=4)
    epochs = []
    for _ in range(2):
        epochs.append(one_pass(first.train))
        assert_same(epochs[-1], one_pass(again.train))
    assert not np.array_equal(epochs[0][1], epochs[1][1])  # another order
    other = one_pass(digits(data_dir, recipe="slim_v2", seed=5).train)
    assert not np.array_equal(epochs[0][1], other[1])


def test_augmentation_is_new_each_epoch(data_dir):
    data = digits(data_dir, recipe="slim_v2")
    seen = [{image.tobytes() for image in one_pass(data.train)[0]} for _ in range(2)]
    assert len(seen[0] & seen[1]) < 20


def test_an_epoch_can_be_chosen(data_dir):
    data = digits(data_dir)
    passes = [one_pass(data.train) for _ in range(3)]
    data.set_epoch(1)
    for _ in range(2):  # it stays until set again
        assert_same(one_pass(data.train), passes[1])
    data.set_epoch(2)
    assert_same(one_pass(data.train), passes[2])
    with pytest.raises(ValueError, match="epoch must be a whole number"):
        data.set_epoch(-1)


def test_batches_outlive_their_splits(data_dir):
    train = digits(data_dir).train
    gc.collect()
    assert len(one_pass(train)[1]) == 44 * 32


def test_the_background_class_shifts_labels(data_dir):
    plain = digits(data_dir)
    shifted = digits(data_dir, recipe=recipes["quick"].replace(background_class=True))
    assert shifted.classes == ("background", *plain.classes)
    for split in ("train", "test"):
        _, labels = one_pass(getattr(plain, split))
        _, moved = one_pass(getattr(shifted, split))
        np.testing.assert_array_equal(moved, labels + 1)


def test_a_small_shuffle_buffer_loses_nothing(data_dir):
    data = digits(data_dir, batch_size=1, memory_budget=64 * 100)  # 100 digits
    first, second = one_pass(data.train), one_pass(data.train)
    assert len(first[1]) == 1437
    np.testing.assert_array_equal(np.bincount(first[1]), np.bincount(second[1]))
    assert not np.array_equal(first[1], second[1])


# Folders of class folders


def picture(color, number, size=(40, 52)):
    """A plain picture whose blue value is `number`, which survives PNG exactly."""
    return tf.fill([*size, 1], tf.constant(0, tf.uint8)) + tf.constant(
        [*color, number], tf.uint8
    )


COLORS = {"green": (0, 200), "red": (200, 0)}
ENCODERS = {"png": tf.io.encode_png, "jpg": tf.io.encode_jpeg}


def write(folder, per_class, suffix="png", colors=COLORS):
    for name, color in colors.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            encoded = ENCODERS[suffix](picture(color, number))
            (folder / name / f"{number:03}.{suffix}").write_bytes(encoded.numpy())
    return folder


def blues(images):
    return np.rint((images[:, 0, 0, 2] + 1) * 127.5).astype(int).tolist()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_folder_with_splits(tmp_path, suffix):
    for split, count in (("train", 12), ("val", 5), ("test", 4)):
        write(tmp_path / split, count, suffix)
    (tmp_path / "train" / "red" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".hidden").mkdir()
    data = load_data(tmp_path, resolution=32, batch_size=8)
    assert data.classes == ("green", "red")
    assert (data.num_train, data.num_validation, data.num_test) == (24, 10, 8)
    for batches, count in ((data.train, 24), (data.validation, 10), (data.test, 8)):
        images, labels = one_pass(batches)
        assert len(labels) == count
        np.testing.assert_array_equal(images[:, 9, 9, 0] > 0, labels == 1)
    if suffix == "png":
        assert blues(one_pass(data.test)[0]) == [0, 1, 2, 3] * 2


def test_folder_without_splits_is_cut_by_a_stable_hash(tmp_path):
    first = write(tmp_path / "first", 60)
    again = write(tmp_path / "elsewhere" / "again", 60)
    members = []
    for folder in (first, again):
        data = load_data(str(folder), resolution=32, batch_size=1)
        assert data.num_train + data.num_validation + data.num_test == 120
        assert 3 <= data.num_validation <= 25
        assert 3 <= data.num_test <= 25
        members.append(
            {
                (split, int(label), blue)
                for split in ("train", "validation", "test")
                for images, labels in [one_pass(getattr(data, split))]
                for label, blue in zip(labels, blues(images), strict=True)
            }
        )
    assert members[0] == members[1]
    assert len({(label, blue) for _, label, blue in members[0]}) == 120

    write(first, 70)  # more images leave the old ones where they were
    data = load_data(first, resolution=32, batch_size=1)
    images, labels = one_pass(data.test)
    test = {("test", int(n), b) for n, b in zip(labels, blues(images), strict=True)}
    assert {m for m in members[0] if m[0] == "test"} == {m for m in test if m[2] < 60}


def test_folder_without_test_tests_on_validation(tmp_path):
    write(tmp_path / "train", 6)
    write(tmp_path / "validation", 3)
    data = load_data(tmp_path, resolution=32, batch_size=4)
    assert (data.num_train, data.num_validation, data.num_test) == (12, 6, 6)
    assert_same(one_pass(data.validation), one_pass(data.test))


def test_folder_without_validation_cuts_it_from_train(tmp_path):
    write(tmp_path / "train", 60)
    write(tmp_path / "test", 3)
    data = load_data(tmp_path, resolution=32, batch_size=4)
    assert data.num_test == 6
    assert data.num_train + data.num_validation == 120
    assert data.num_validation > 0


def test_folder_named_by_a_bare_word(tmp_path, monkeypatch):
    write(tmp_path / "holiday" / "train", 6)
    write(tmp_path / "holiday" / "val", 3)
    monkeypatch.chdir(tmp_path)
    for source in ("holiday", "./holiday"):
        assert load_data(source, resolution=32, batch_size=2).num_train == 12


def empty(folder):
    folder.mkdir()
    return folder


def one_class(folder):
    return write(folder, 3, colors={"red": (200, 0)})


def stranger(folder):
    write(folder / "train", 3)
    write(folder / "val", 3, colors={"red": (200, 0), "violet": (200, 0)})
    return folder


def text_file(folder):
    folder.write_text("text")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder, "'.*photos' does not exist"),
        (text_file, "'.*photos' is a file"),
        (empty, "at least two classes.*photos' holds 0"),
        (one_class, r"at least two classes.*photos' holds 1 \('red'\)"),
        (stranger, "class 'violet' in '.*val' but not in '.*train'"),
        (lambda folder: write(folder, 1), "no image for .*too few"),
    ],
)
def test_bad_folders_are_named(tmp_path, make, message):
    folder = make(tmp_path / "photos")
    with pytest.raises(ValueError, match=message):
        load_data(folder, resolution=32, batch_size=1)


# TFDS names


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A small TFDS dataset, written by the test that needs it."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {}

    def __init__(self, name, image, counts, data_dir, unlabelled=()):
        self.name, self._image, self._counts = name, image, counts
        self._unlabelled = unlabelled
        super().__init__(data_dir=data_dir)

    def _info(self):
        label = tfds.features.ClassLabel(names=["no", "yes", "perhaps"])
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"image": self._image, "label": label}),
        )

    def _split_generators(self, dl_manager):
        return {split: self._examples(split) for split in self._counts}

    def _generate_examples(self):
        raise NotImplementedError

    def _examples(self, split):
        height, width, channels = self._image.shape
        for n in range(self._counts[split]):
            size = (height or 30 + n, width or 40, channels)
            image = np.full(size, n, np.uint8)
            label = -1 if split in self._unlabelled else n % 3
            yield n, {"image": image, "label": label}


GREY = tfds.features.Image(shape=(28, 28, 1))
COLOR = tfds.features.Image(shape=(None, None, 3), encoding_format="png")


def prepare(tmp_path, name, image, **arguments):
    Prepared(name, image, data_dir=tmp_path, **arguments).download_and_prepare()
    return load_data(name, resolution=32, batch_size=4, data_dir=tmp_path)


def levels(batches):
    images, labels = one_pass(batches)
    level = np.rint((images[:, 0, 0, 0] + 1) * 127.5).astype(int)
    np.testing.assert_array_equal(level % 3, labels)
    np.testing.assert_allclose(images[..., 0], images[..., 2])
    return sorted(level.tolist())


@pytest.mark.parametrize("image", [GREY, COLOR], ids=["grey", "any size"])
def test_tfds_with_its_own_splits(tmp_path, image):
    counts = {"train": 20, "validation": 6, "test": 5}
    data = prepare(tmp_path, "complete", image, counts=counts)
    assert data.classes == ("no", "yes", "perhaps")
    for split, count in counts.items():
        assert levels(getattr(data, split)) == list(range(count))
        assert getattr(data, f"num_{split}") == count
    same = dict(resolution=32, batch_size=10, recipe="flowers", data_dir=tmp_path)
    first, again = (one_pass(load_data("complete", **same).train) for _ in range(2))
    assert_same(first, again)


def test_tfds_without_validation(tmp_path):
    data = prepare(tmp_path, "tested", GREY, counts={"train": 40, "test": 5})
    assert (data.num_train, data.num_validation, data.num_test) == (36, 4, 5)
    assert sorted(levels(data.train) + levels(data.validation)) == list(range(40))


def test_tfds_with_an_unlabelled_test_split(tmp_path):
    counts = {"train": 8, "validation": 6, "test": 5}
    data = prepare(tmp_path, "contest", GREY, counts=counts, unlabelled=("test",))
    assert data.num_test == 6
    assert_same(one_pass(data.validation), one_pass(data.test))


def test_tfds_with_train_only(tmp_path):
    data = prepare(tmp_path, "lonely", GREY, counts={"train": 40})
    assert (data.num_train, data.num_validation, data.num_test) == (32, 4, 4)
    together = levels(data.train) + levels(data.validation) + levels(data.test)
    assert sorted(together) == list(range(40))


def test_tfds_without_train(tmp_path):
    with pytest.raises(ValueError, match="train split; TFDS's 'odd' has test"):
        prepare(tmp_path, "odd", GREY, counts={"test": 4})


def test_tfds_without_image(tmp_path):
    matrix = tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8)
    with pytest.raises(ValueError, match="must have an image and a class label"):
        prepare(tmp_path, "sound", matrix, counts={"train": 4})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fashion_mnst", "TFDS does not know.*did you mean 'fashion_mnist'"),
        ("cifar1O/x", "TFDS does not know.*did you mean 'cifar10'"),
        ("digit", "did you mean 'digits'"),
        ("my photos!", "source must be 'digits', a TFDS name or a folder"),
        ("", "source must be"),
        (None, "source must be"),
        (7, "source must be"),
    ],
)
def test_unknown_sources_are_answered_with_the_nearest(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        load_data(name, resolution=32, data_dir=tmp_path)


def test_data_that_cannot_be_prepared_is_named(tmp_path):
    # TFDS never downloads ImageNet itself: it asks for the files.
    with pytest.raises(ValueError, match=r"'imagenet2012' is not prepared in .*tfds"):
        load_data("imagenet2012", resolution=32, data_dir=tmp_path)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(resolution=16), "resolution must be a whole number of at least 32"),
        (dict(resolution=48.5), "resolution must be a whole number"),
        (dict(batch_size=0), "batch_size must be a whole number of at least 1"),
        (dict(batch_size=2000), "batch_size must be at most the 1437 training images"),
        (dict(seed=-1), "seed must be a whole number of at least 0"),
        (dict(seed=0.5), "seed must be a whole number"),
        (dict(seed=2**63), "seed must be a whole number .* at most"),
        (dict(recipe="quik"), "recipe must be one of.*did you mean 'quick'"),
        (dict(pad_evaluation=1), "pad_evaluation must be True or False; got 1"),
        (dict(memory_budget=-1), "memory_budget must be a whole number of at least 0"),
        (dict(threads=0), "threads must be a whole number of at least 1"),
        (dict(input_context=2), "input_context must be a tf.distribute.InputContext"),
        (
            dict(input_context=tf.distribute.InputContext(2, 0, 2), batch_size=9),
            "batch_size must be a multiple of the 2 replicas",
        ),
        (dict(broken="ignore"), "broken must be one of 'skip', 'fail'"),
        (dict(splits={"training": "train"}), "splits has no argument 'training'"),
        (dict(splits={"train": "tran[:10%]"}), "splits must name.*'digits'.*'tran"),
        (dict(splits={"train": 5}), "splits must name splits.*got {'train': 5}"),
        (dict(splits=5), "splits must name splits .*got 5"),
    ],
)
def test_bad_arguments_are_named(data_dir, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_data("digits", **{"resolution": 32, "data_dir": data_dir} | arguments)


# One image


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_load_image_prepares_as_evaluation_does(tmp_path, suffix):
    pixels = tf.cast(tf.random.stateless_uniform([50, 40, 3], [1, 2]) * 255, tf.uint8)
    encoded = ENCODERS[suffix](pixels)
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(encoded.numpy())
    image = load_image(path, 64, "slim_v2")
    expected = eval_image(tf.io.decode_image(encoded), 64, recipes["slim_v2"])
    np.testing.assert_array_equal(image, expected)
    assert load_image(str(path), 32).shape == (32, 32, 3)


def test_load_image_repeats_grey(tmp_path):
    path = tmp_path / "grey.png"
    grey = tf.fill([9, 9, 1], tf.constant(51, tf.uint8))
    path.write_bytes(tf.io.encode_png(grey).numpy())
    expected = np.full((32, 32, 3), -0.6)
    np.testing.assert_allclose(load_image(path, 32), expected, atol=1e-6)


def test_load_image_names_what_it_cannot_read(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png' cannot be read as one"):
        load_image(text, 32)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"empty\.jpg' cannot be read as one"):
        load_image(tmp_path / "empty.jpg", 32)
    with pytest.raises(ValueError, match=r"missing\.png' does not exist"):
        load_image(tmp_path / "missing.png", 32)
    with pytest.raises(ValueError, match="is a directory"):
        load_image(tmp_path, 32)


@pytest.mark.parametrize("wrong", [3, "", b"x", "a\0b", "~nobody-here/data"])
def test_an_impossible_data_dir(wrong):
    with pytest.raises(ValueError, match="data_dir must be a path"):
        load_data("digits", data_dir=wrong, resolution=32)
