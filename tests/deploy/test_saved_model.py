"""SavedModel folders: run by TensorFlow alone, and refused where they do more."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import keras_mobilenets as km
from keras_mobilenets.deploy import read_classifier
from tests.deploy.conftest import NAMES, SMALL
from tests.deploy.networks import images, outputs, randomize

OPERATIONS = {
    *("Conv2D", "DepthwiseConv2dNative", "BiasAdd", "Relu6", "Mean", "MatMul"),
    *("Softmax", "Reshape", "Squeeze"),
}
ALONE = """
import sys
sys.modules["keras_mobilenets"] = sys.modules["keras"] = None
import numpy as np
import tensorflow as tf
folder, images, answers = sys.argv[1:]
said = tf.saved_model.load(folder).signatures["classify"](image=np.load(images))
np.savez(answers, **{name: value.numpy() for name, value in said.items()})
"""


@pytest.fixture(scope="module")
def exported(model, calibration, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "network"
    return path, km.export(model, path, calibration=calibration, labels=NAMES)


@pytest.fixture
def folder(exported, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(exported[0], tmp_path / "network")


def test_tensorflow_runs_it_alone(exported, model, tmp_path):
    x = images(model, count=7, seed=9)
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / name) for name in ("x.npy", "said.npz")]
    subprocess.run(
        [sys.executable, "-c", ALONE, str(exported[0]), *files],
        check=True,
        capture_output=True,
    )
    said = np.load(tmp_path / "said.npz")
    assert set(said) == {"logits", "probabilities"}
    expected = outputs(model, x)
    np.testing.assert_allclose(said["probabilities"], expected, atol=1e-6)
    shares = tf.nn.softmax(said["logits"])
    np.testing.assert_allclose(said["probabilities"], shares, atol=1e-6)


def test_what_is_in_the_folder(exported):
    path, report = exported
    assert set(report["operations"]) == OPERATIONS
    assert (report["operations"]["Conv2D"], report["batch"]) == (3, None)
    files = [found for found in path.rglob("*") if found.is_file()]
    assert report["bytes"] == sum(found.stat().st_size for found in files)
    labels = (path / "assets.extra" / "labels.txt").read_text().splitlines()
    assert labels == ["cat", "dog", "naïve\\n", "bird", "fish"]
    assert report["proof"]["agreement"] == 1
    assert report["proof"]["largest_logit_error"] <= 1e-5 * report["proof"]["logits"][1]
    assert report["latency"]["threads"] >= 1
    beside = json.loads(path.with_name("network.json").read_text())
    assert beside | {"path": str(path)} == report
    assert {found.name for found in path.parent.iterdir()} == {
        "network",
        "network.json",
    }


def test_it_is_read(exported, model):
    path, report = exported
    file = read_classifier(path, 7)
    assert (file.classes, file.shape, file.batch) == (tuple(NAMES), (32, 32, 3), None)
    assert file.operations == report["operations"]
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    assert file.threads == (threads or os.cpu_count())  # whatever was asked for
    x = images(model, count=40)
    np.testing.assert_allclose(file.probabilities(x), outputs(model, x), atol=1e-6)


def test_pixels(few_blocks, tmp_path):
    model = randomize(
        km.build("mobilenet_v1", **SMALL, padding="symmetric", output_stride=8)
    )
    report = km.export(model, tmp_path / "pixels", input="uint8")
    assert set(report["operations"]) - OPERATIONS == {"Pad", "Cast", "Mul", "Sub"}
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype("uint8")
    loaded = tf.saved_model.load(str(tmp_path / "pixels")).signatures["classify"]
    said = loaded(image=tf.constant(pixels))["probabilities"]
    expected = outputs(model, (pixels / 127.5 - 1).astype("float32"))
    np.testing.assert_allclose(said, expected, atol=1e-6)


def in_graph(change):
    """With another graph in saved_model.pb."""

    def changed(folder):
        file = folder / "saved_model.pb"
        saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        change(saved)
        file.write_bytes(saved.SerializeToString())

    return changed


def network_of(saved):
    """The function that holds the network."""
    functions = saved.meta_graphs[0].graph_def.library.function
    return max(functions, key=lambda function: len(function.node_def))


def operation(op):
    def change(saved):
        network_of(saved).node_def[0].op = op

    return in_graph(change)


def circle(saved):
    function = network_of(saved)
    node = function.node_def.add(name="again", op="PartitionedCall")
    node.attr["f"].func.name = function.signature.name


def laughs(saved):
    """Each of a few functions calls the one before it 32 times."""
    library = saved.meta_graphs[0].graph_def.library
    before = network_of(saved)
    for level in range(3):
        function = library.function.add()
        function.signature.name = f"level_{level}"
        for number in range(32):
            node = function.node_def.add(name=f"call_{number}", op="PartitionedCall")
            node.attr["f"].func.name = before.signature.name
        before = function
    for function in library.function:
        if "signature_wrapper" in function.signature.name:
            node = function.node_def.add(name="start", op="PartitionedCall")
            node.attr["f"].func.name = before.signature.name


def hidden_call(saved):
    saved.meta_graphs[0].graph_def.library.function.add().signature.name = "empty"
    network_of(saved).node_def[0].attr["f"].func.name = "empty"


def no_function(saved):
    del saved.meta_graphs[0].graph_def.library.function[:]


def many_numbers(saved):
    nodes = network_of(saved).node_def
    (node, *_) = (node for node in nodes if node.op == "Const")
    node.attr["value"].tensor.tensor_shape.dim.add(size=2**40)


def two_graphs(saved):
    saved.meta_graphs.append(saved.meta_graphs[0])


def of_version_1(saved):
    saved.meta_graphs[0].ClearField("object_graph_def")


def revived(saved):
    node = saved.meta_graphs[0].object_graph_def.nodes[0]
    node.user_object.identifier = "_tf_keras_model"


def registered(saved):
    saved.meta_graphs[0].object_graph_def.nodes[0].registered_name = "Package.Class"


def link(folder):
    (folder / "assets" / "link").symlink_to("/etc/passwd")


def pipe(folder):
    (folder / "assets.extra" / "keras_mobilenets.json").unlink()
    os.mkfifo(folder / "assets.extra" / "keras_mobilenets.json")


def first_choice(folder):
    """TensorFlow takes this one where it is there."""
    shutil.copy(folder / "saved_model.pb", folder / "saved_model.pbtxt")


def variables(folder):
    with open(folder / "variables" / "variables.data-00000-of-00001", "ab") as file:
        file.write(bytes(2**17))


def cut(folder):
    content = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(content[: len(content) // 2])


def said_otherwise(**fields):
    def change(folder):
        file = folder / "assets.extra" / "keras_mobilenets.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


# What is wrong -> what is said, before TensorFlow has seen it.
HOSTILE = {
    "got WriteFile: they are no part": operation("WriteFile"),
    "got SaveV2": operation("SaveV2"),  # right only in what nothing runs
    "got PyFunc": operation("PyFunc"),
    "call each other in a circle": in_graph(circle),
    "more than 65,536 operations": in_graph(laughs),
    "which it does not hold": in_graph(no_function),
    "calls others": in_graph(hidden_call),
    "numbers, at most": in_graph(many_numbers),
    "must hold one graph": in_graph(two_graphs),
    "one graph, of tf.saved_model.save": in_graph(of_version_1),
    "holds a _tf_keras_model": in_graph(revived),
    "holds a .*user_object, which no network": in_graph(registered),
    "'assets/link' is a link": link,
    "keras_mobilenets.json' is a link or a pipe": pipe,
    "holds 'saved_model.pbtxt'": first_choice,
    "holds variables": variables,
    "cannot be used": cut,
}
WRONG = {
    "not the 5 that": said_otherwise(classes=["a"]),
    "are not names": said_otherwise(classes=[1] * 5),
    "squashing must be": said_otherwise(squashing="eval"),
}


@pytest.mark.parametrize("message", HOSTILE | WRONG)
def test_folders_that_are_none(folder, monkeypatch, message):
    (HOSTILE | WRONG)[message](folder)
    loaded, load = [], tf.saved_model.load
    monkeypatch.setattr(
        tf.saved_model, "load", lambda *args: loaded.append(1) or load(*args)
    )
    with pytest.raises(km.UsageError, match=message) as error:
        read_classifier(folder)
    assert "\n" not in str(error.value)
    assert bool(loaded) is (message in WRONG)


class Writer(tf.Module):
    """What TensorFlow lets a SavedModel do: a file is read at loading, or written."""

    def __init__(self, folder):
        super().__init__()
        (folder / "words.txt").write_text("cat\n")
        rows = tf.lookup.TextFileInitializer(
            str(folder / "words.txt"),
            *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
            *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        )
        self.table = tf.lookup.StaticHashTable(rows, -1)
        self.path = str(folder / "written")

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], name="image")])
    def classify(self, image):
        with tf.control_dependencies([tf.io.write_file(self.path, "x")]):
            return {"logits": tf.zeros([1, 5]), "probabilities": tf.zeros([1, 5])}


@pytest.mark.parametrize("with_table", [False, True])
def test_what_reads_and_writes_files(folder, tmp_path, with_table):
    module = Writer(tmp_path)
    if not with_table:
        del module.table
    saved = tmp_path / "hostile"
    tf.saved_model.save(module, str(saved), signatures={"classify": module.classify})
    shutil.copytree(folder / "assets.extra", saved / "assets.extra")
    for found in (saved / "assets").iterdir():  # let what is in the graph be the reason
        found.unlink()
    wanted = "holds a asset|holds a resource" if with_table else "got .*WriteFile"
    with pytest.raises(km.UsageError, match=wanted):
        read_classifier(saved)
    assert not (tmp_path / "written").exists()


def test_what_a_finder_leaves_is_no_matter(folder):
    (folder / ".DS_Store").write_bytes(b"\0")
    assert read_classifier(folder).classes == tuple(NAMES)


def test_damage_is_never_more_than_an_error(exported, folder):
    """Bytes at random among those that say what the graph is."""
    content = (exported[0] / "saved_model.pb").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(15):
        damaged = bytearray(content)
        for place in rng.integers(2, len(content), 40):
            damaged[place] = rng.integers(256)
        (folder / "saved_model.pb").write_bytes(damaged)
        try:
            read_classifier(folder)
        except km.UsageError:
            refused += 1
    assert refused > 0
