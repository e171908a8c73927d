import json

import numpy as np
import pytest

from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.weights.safetensors import read_tensors

VALUES = np.arange(6, dtype="<f4").reshape(2, 3)


def write(path, header, data=b""):
    """As the format says; `header` is a mapping or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin=0, end=24, shape=(2, 3), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("F32", VALUES.tobytes()),
        ("F64", VALUES.astype("<f8").tobytes()),
        ("F16", VALUES.astype("<f2").tobytes()),
        ("I64", VALUES.astype("<i8").tobytes()),
        ("BF16", (VALUES.view("<u4") >> 16).astype("<u2").tobytes()),
    ],
)
def test_numbers(tmp_path, dtype, data):
    header = {
        "__metadata__": {"format": "pt"},
        "one": entry(4, 4 + len(data), dtype=dtype),
        "empty": entry(0, 0, (0, 2)),
        "scalar": entry(0, 4, ()),
    }
    padding = np.float32(7).tobytes()
    tensors = read_tensors(write(tmp_path / "a", header, padding + data))
    np.testing.assert_array_equal(tensors["one"], VALUES)
    assert tensors["one"].shape == (2, 3)
    assert tensors["empty"].shape == (0, 2)
    assert tensors["scalar"] == 7


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry()}, VALUES.tobytes()[:-1], "a is not where .* cut off"),
        ({"a": entry(end=20)}, VALUES.tobytes(), "a is not where"),
        ({"a": entry(begin=-24, end=0)}, VALUES.tobytes(), "no whole numbers"),
        ({"a": entry(shape=(2.0, 3))}, VALUES.tobytes(), "no whole numbers"),
        ({"a": entry(dtype="F8_E4M3")}, VALUES.tobytes(), "a is of F8_E4M3"),
        ([1], b"", "no mapping"),
    ],
    ids=str,
)
def test_odd_files(tmp_path, header, data, message):
    with pytest.raises(UsageError, match=message):
        read_tensors(write(tmp_path / "a", header, data))


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 20, b"\x80\x02}q\x00."])
def test_no_safetensors_at_all(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UsageError, match="no safetensors file, or cut off"):
        read_tensors(tmp_path / "a")
