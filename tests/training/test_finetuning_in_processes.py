"""Phases of freezing, and several labels an image, on two workers and after kills."""

import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from tests.training.noise import RUN, make_folder
from tests.training.test_distribution import assert_close, run_workers
from tests.training.test_resuming import assert_same, kill

pytestmark = pytest.mark.slow

FROZEN = {"body": {"freeze": "body"}, "phases": {"head_epochs": 1}}
SETTINGS = {**RUN, "batch_norm": "frozen", "body_learning_rate": 0.3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("noise") / "noise", images=70)


@pytest.fixture(scope="module")
def donor(folder, tmp_path_factory):
    """A network that has learned something, its statistics among it."""
    workdir = tmp_path_factory.mktemp("donor") / "run"
    settings = {**RUN, "epochs": 4, "background_class": True}
    run = km.train(**settings, data=str(folder), workdir=workdir)
    assert run.report["validation"]["accuracy"] > 0.8
    return workdir


def train_on_one_and_on_two(settings, folder):
    """In float64, on one device and on two workers: within 1e-5 of each other."""
    keras.config.set_dtype_policy("float64")
    try:
        one = km.train(**settings, workdir=folder / "one")
    finally:
        keras.config.set_dtype_policy("float32")
    half = {**settings, "batch_size": settings["batch_size"] // 2}
    run_workers({**half, "workdir": str(folder / "workers")})
    assert_close(folder / "one", folder / "workers", 1e-5)
    return one


@pytest.mark.parametrize("case", FROZEN)
def test_two_workers_freeze_as_one_device_does(case, folder, donor, tmp_path):
    """Losses and weights within 1e-5, in float64; and what rests is the donor's."""
    settings = {**SETTINGS, **FROZEN[case], "data": str(folder), "weights": str(donor)}
    one = train_on_one_and_on_two(settings, tmp_path)
    before = keras.saving.load_model(donor / "model.keras").weights
    after = keras.saving.load_model(tmp_path / "workers" / "model.keras").weights
    resting = {
        new.path
        for old, new in zip(before, after, strict=True)
        if old.shape == new.shape and np.array_equal(old, np.array(new, "float32"))
    }
    body = {new.path for new in after if not new.path.startswith("logits")}
    statistics = {path for path in body if "moving" in path}
    assert resting == (body if case == "body" else statistics)
    assert one.report["pretrained"]["new"] == ["logits"]


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])
def test_kept_features_are_as_accurate_by_a_body_that_has_learned(
    several, folder, donor, tmp_path
):
    """The classifier alone, on features and through the network: not by chance."""
    data = {"data": str(folder)}
    if several:
        data = {"data": write_labels(tmp_path), "multi_label": True}
    settings = {**SETTINGS, **data, "freeze": "body", "weights": str(donor)}
    settings |= {"epochs": 6, "learning_rate": 0.05}
    kept, plain = (
        km.train(**settings, **more, workdir=tmp_path / name).report["validation"]
        for name, more in (("kept", {}), ("plain", {"memory_budget": 1000}))
    )
    assert kept == pytest.approx(plain, rel=1e-4, abs=1e-6)
    assert kept["f1_score" if several else "accuracy"] > (0.6 if several else 0.8)


def write_labels(folder, count=160):
    """A CSV file of noise in which a bright channel is a label."""
    random = np.random.default_rng(0)
    lines = ["path,label"]
    for number in range(count):
        row = random.integers(0, 2, 3)
        pixels = random.normal(90 + 70 * row, 40, (32, 32, 3))
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(folder / f"{number:08}.png")
        names = [n for n, has in zip(("a", "b", "c"), row, strict=True) if has]
        lines.append(f"{number:08}.png,{'|'.join(names)}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder / "labels.csv"


def test_two_workers_learn_several_labels_as_one_device_does(tmp_path):
    table = write_labels(tmp_path)
    settings = {**RUN, "data": str(table), "multi_label": True}
    one = train_on_one_and_on_two(settings, tmp_path)
    assert one.report["multi_label"]


# Data in a process of its own: the same each time that it is made.
FORMS = {
    "table": "km.train(data=sys.argv[2] + '/labels.csv', multi_label=True, **settings)",
    "list": """
lines = open(sys.argv[2] + '/labels.csv').read().splitlines()[1:]
pairs = [line.split(',') for line in lines]
data = [(f'{sys.argv[2]}/{p}', [x for x in t.split('|') if x]) for p, t in pairs]
km.train(data=data, **settings)""",
    "arrays": """
random = np.random.default_rng(0)
rows = random.integers(0, 2, (160, 3))
images = random.integers(0, 256, (160, 32, 32, 3)).astype('uint8')
km.train(data=(images, rows), **settings)""",
    "dataset": """
import tensorflow as tf
random = np.random.default_rng(0)
rows = random.integers(0, 2, (160, 3))
images = random.integers(0, 256, (160, 32, 32, 3)).astype('uint8')
km.train(data=tf.data.Dataset.from_tensor_slices((images, rows)), **settings)""",
    "one label of a list": """
lines = open(sys.argv[2] + '/labels.csv').read().splitlines()[1:]
pairs = [line.split(',') for line in lines]
data = [(f'{sys.argv[2]}/{p}', t.split('|')[0] or 'none') for p, t in pairs]
km.train(data=data, **settings)""",
}
KILLS = 2


@pytest.mark.parametrize("form", FORMS)
def test_kill_9_with_every_form_of_data(form, tmp_path):
    write_labels(tmp_path)
    settings = {**RUN, "deterministic": True, "epochs": 4, "checkpoint_steps": 2}
    program = (
        "import sys\nimport numpy as np\nimport keras_mobilenets as km\n"
        f"settings = {{**{settings!r}, 'workdir': sys.argv[1]}}\n{FORMS[form]}"
    )

    def arguments(name):
        return [sys.executable, "-c", program, str(tmp_path / name), str(tmp_path)]

    subprocess.run(arguments("whole"), check=True, stdout=subprocess.DEVNULL)
    killed = tmp_path / "killed"
    kills = sum(
        kill(arguments("killed"), killed / "checkpoints", seed, False)
        for seed in range(KILLS)
    )
    assert kills >= 1
    if not (killed / "report.json").exists():
        subprocess.run(arguments("killed"), check=True, stdout=subprocess.DEVNULL)
    assert_same(tmp_path / "whole", killed)
    shutil.rmtree(killed)
