"""The model of scaling: closed forms, limits, and what it counts against Keras."""

import json
import math
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

import keras_mobilenets as km
from experiments import scaling
from experiments import scaling_model as model
from experiments.scaling_assumptions import (
    ASSUMPTIONS,
    BENCHMARK,
    GPUS,
    LINKS,
    NVLINK_HOP,
    Gpu,
    Link,
    defaults,
)
from keras_mobilenets.training.batch_norm import make_call

A100, LINK = GPUS["a100"], LINKS["100 Gbit/s"]
V2 = km.cost("mobilenet_v2", classes=1001)
SLIM = km.recipes["slim_v2"]
NETWORKS = [("mobilenet_v1", {"alpha": 0.25}), ("mobilenet_v2", {"alpha": 0.35})]


@pytest.fixture(scope="module")
def kept():
    return json.loads(scaling.RESULT.read_text())


@pytest.fixture(params=list(LINKS))
def rows(request):
    return model.sweep(V2, SLIM, A100, LINKS[request.param], defaults())


@pytest.mark.parametrize(("name", "variant"), NETWORKS)
def test_gradients_are_those_of_the_model(name, variant):
    keras_model = km.build(name, resolution=32, **variant)
    price = km.cost(name, resolution=32, **variant)
    sizes = [math.prod(v.shape) for v in keras_model.trainable_variables]
    assert model.gradient_bytes(price) == 4 * sum(sizes)


def test_messages_of_batch_norm_are_those_that_are_sent(two_replicas, monkeypatch):
    """What each of two replicas sums up, forward and backward, over the stem's norm."""
    channels = 32
    with two_replicas.scope():
        layers = keras.layers
        norm = keras.Sequential(
            [layers.Input([4, 4, channels]), layers.BatchNormalization()]
        )
        norm.layers[0].call = make_call(norm.layers[0], synchronized=True)
    sent = []
    taken = tf.distribute.ReplicaContext.all_reduce

    def all_reduce(self, op, value, *arguments, **options):
        numbers = [8 * math.prod(t.shape) for t in tf.nest.flatten(value)]
        sent.append(sum(numbers))
        return taken(self, op, value, *arguments, **options)

    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", all_reduce)

    def step():
        x = tf.ones([2, 4, 4, channels])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = norm(x, training=True) ** 2
        return tape.gradient(y, x)

    tf.function(lambda: two_replicas.run(step)).get_concrete_function()
    price = km.cost("mobilenet_v1", resolution=32)
    stem = price._replace(layers=price.layers[:1])
    assert price.layers[0].layer.channels_out == channels
    assert sorted(sent) == sorted(2 * model.norm_messages(stem))
    assert len(model.norm_messages(price)) == 2 * 27


@pytest.mark.parametrize("ranks", [1, 2, 8, 1024])
def test_ring_and_tree_are_their_closed_forms(ranks):
    link = Link(bandwidth=1e9, hop=1e-6)
    expected = 2 * (ranks - 1) / ranks * 14e6 / 1e9 + 2 * (ranks - 1) * 1e-6
    assert model.ring(14e6, ranks, link) == pytest.approx(expected, abs=0)
    depth = {1: 0, 2: 1, 8: 3, 1024: 10}[ranks]
    assert model.tree(0, ranks, link) == pytest.approx(2 * depth * 1e-6, abs=0)


def test_all_reduce_between_two_machines_by_hand():
    given = defaults(link_efficiency=1, collective_us=0)
    gpu, link = Gpu(1, 1, 1, nvlink=1e11), Link(1e10, 1e-5)
    size = 16e6
    inside = 14 / 8 * size / 1e11 + 14 * NVLINK_HOP
    between = 2 / 2 * size / 1e10 + 2 * 1e-5
    two_levels = model.all_reduce_seconds(size, 16, gpu, link, given, "rings")
    assert two_levels == pytest.approx(inside + between)
    flat = model.all_reduce_seconds(size, 16, gpu, link, given, "ring")
    expected = 30 / 16 * size / 1e10 + 28 * NVLINK_HOP + 2 * 1e-5
    assert flat == pytest.approx(expected)
    best = model.all_reduce_seconds(size, 16, gpu, link, given)
    assert best == min(two_levels, flat)


def test_one_gpu_talks_to_nobody():
    assert model.all_reduce_seconds(1e9, 1, A100, LINK, defaults()) == 0
    row = model.predict(V2, SLIM, 1, A100, LINK, defaults(), step_seconds=0.06)
    assert row["step_ms"] == 60
    assert row["communication"] == 0
    assert row["images_per_s"] == pytest.approx(96 / 0.06)


def test_one_gpu_is_the_measure_of_efficiency(rows):
    assert rows[0]["efficiency"] == 1
    assert [row["gpus"] for row in rows] == [2**n for n in range(11)]


def test_more_gpus_are_less_efficient_each_and_send_for_longer(rows):
    for fewer, more in zip(rows, rows[1:], strict=False):
        assert more["efficiency"] < fewer["efficiency"]
        assert more["step_ms"] > fewer["step_ms"]
        assert more["norm_ms"] > fewer["norm_ms"]
        assert more["communication"] > fewer["communication"]
        assert more["memory_gb"] >= fewer["memory_gb"]
    # Fewer than two GPUs in lockstep may be slower than one; from two on it is faster.
    assert all(
        a["images_per_s"] < b["images_per_s"]
        for a, b in zip(rows[1:], rows[2:], strict=False)
    )


def test_free_communication_is_perfect_scaling():
    given = defaults(collective_us=0, link_efficiency=math.inf)
    free = model.sweep(
        V2, SLIM, A100, Link(1.0, 0.0), given, synchronized=False, counts=[1, 2, 64]
    )
    # NVLink's hops remain.
    assert [row["efficiency"] for row in free] == pytest.approx([1, 1, 1], rel=2e-3)


@pytest.mark.parametrize(
    ("worse", "how"),
    [
        ({"link": LINKS["25 Gbit/s"]}, {}),
        ({}, {"collective_us": 300}),
        ({}, {"norm_passes": 40}),
        ({}, {"memory_efficiency": 0.3}),
        ({"gpu": GPUS["v100"]}, {}),
    ],
)
def test_worse_is_slower(worse, how):
    usual = {"gpu": A100, "link": LINK}

    def step(where, given):
        row = model.predict(V2, SLIM, 64, where["gpu"], where["link"], given)
        return row["step_ms"]

    assert step(usual | worse, defaults(**how)) > step(usual, defaults())


def test_gradients_hide_behind_the_backward_pass():
    hidden = model.predict(V2, SLIM, 64, A100, LINK, defaults(overlap=1))
    assert hidden["gradient_ms"] == 0
    assert hidden["norm_ms"] > 0  # the next layer waits for it


def test_a_slow_input_sets_the_pace():
    given = defaults(cores_per_gpu=1, images_per_core_s=50)
    row = model.predict(V2, SLIM, 8, A100, LINK, given)
    assert row["images_per_s"] == pytest.approx(8 * 50)
    assert "input" in row["warnings"]


def test_batch_and_rate_follow_the_recipe():
    row = model.predict(V2, SLIM, 16, A100, LINK, defaults())
    assert row["global_batch"] == 16 * 96
    assert row["learning_rate"] == pytest.approx(16 * 0.045)
    paper = model.predict(V2, km.recipes["paper_v2"], 16, A100, LINK, defaults())
    assert paper["learning_rate"] == 0.045


@pytest.mark.parametrize(
    ("gpus", "warning"), [(64, ""), (128, "batch > 8k"), (512, "batch > 32k")]
)
def test_where_batches_are_too_large(gpus, warning):
    row = model.predict(V2, SLIM, gpus, A100, LINK, defaults())
    assert row["warnings"] == warning


def test_memory_by_hand():
    recipe = SLIM.replace(batch_size=4)
    held = model.memory_bytes(V2, recipe, 4, 1, defaults())
    assert held["weights"] == held["average"] == 4 * V2.params
    assert held["slots"] == 2 * 4 * V2.trainable_params
    assert held["gradients"] == 4 * V2.trainable_params
    sent = model.memory_bytes(V2, recipe, 4, 2, defaults())
    assert sent["gradients"] == 2 * held["gradients"]
    assert model.memory_bytes(
        V2, SLIM.replace(ema_decay=None), 8, 1, defaults()
    ) == held | {"average": 0, "activations": 2 * held["activations"],
                "input": 2 * held["input"]}  # fmt: skip


def test_kept_for_the_backward_pass_by_hand():
    """V1's first layers: image, then two maps each of convolution and ReLU6."""
    price = km.cost("mobilenet_v1", resolution=32, include_top=False)
    first = price._replace(layers=price.layers[:2])
    assert model.kept_elements(first) == 32 * 32 * 3 + 2 * (2 * 16 * 16 * 32)
    # A linear projection that only a shortcut reads is not kept after its batch norm.
    v2 = km.cost("mobilenet_v2", resolution=32, include_top=False)
    names = [row.name for row in v2.layers]
    upto = names.index("block_3_add")
    before, after = (
        model.kept_elements(v2._replace(layers=v2.layers[:n])) for n in (upto, upto + 1)
    )
    assert before == after  # the sum is not yet read by a convolution


def test_parameter_servers():
    def rate(workers, servers, **changes):
        row = model.predict_asynchronous(
            V2, SLIM.replace(**changes), workers, servers, A100, LINK, defaults()
        )
        assert row["staleness"] == workers - 1
        return row["images_per_s"], row["limit"]

    assert rate(16, 1)[1] == "workers"
    assert rate(256, 1)[1] == "servers"
    # One server holds the averages of all: more of them do not help it.
    assert rate(1024, 64)[1] == rate(1024, 512)[1] == "average"
    assert rate(1024, 512, ema_decay=None)[0] > rate(1024, 512)[0]
    assert rate(2, 1)[0] == pytest.approx(2 * rate(1, 1)[0], rel=0.1)


def test_the_model_is_within_a_tenth_of_published_speeds():
    for row in scaling.checks(defaults()):
        assert 0.9 < row["ratio"] < 1.1


def test_results_and_tables_are_current(kept):
    results = scaling.compute("a100", defaults())
    assert kept == results
    text = Path(scaling.__file__).with_suffix(".md").read_text()
    for title, table in scaling.tables(results).items():
        assert title in text
        assert table in text, title
    assert scaling.PLOT.is_file()


def test_every_assumption_is_named_in_the_text():
    text = Path(scaling.__file__).with_suffix(".md").read_text()
    for name in ASSUMPTIONS:
        assert f"`--{name.replace('_', '-')}`" in text


def test_options_replace_assumptions(capsys, kept):
    before = scaling.RESULT.read_bytes()
    scaling.main(["--gpu", "v100", "--step-ms", "100", "--gpus-per-machine", "4"])
    shown = capsys.readouterr().out
    assert "mobilenet_v2 1.0, 224 px, v100, 400 Gbit/s" in shown
    assert "96  0.045      100 " in shown
    assert scaling.RESULT.read_bytes() == before  # only the default's are kept


def test_the_comparison_on_this_machine_is_with_what_was_measured(kept):
    measured = json.loads(BENCHMARK.read_text())["steps"]
    for row in kept["loopback"]:
        steps = measured[row["case"]]
        difference = steps["workers"]["step_s"] - steps["apart_synchronized"]["step_s"]
        assert row["measured_ms"] == pytest.approx(1e3 * difference, rel=1e-4)
        assert row["messages"] == 2 * {"v2": 52, "v1": 27}[row["case"][10:12]] + 1


def test_needs_no_tensorflow():
    import subprocess

    code = "import sys, experiments.scaling; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
