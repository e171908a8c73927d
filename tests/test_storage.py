"""Files that appear whole or not at all, and what is not replaced by one."""

import os

import pytest

from keras_mobilenets.errors import UsageError
from keras_mobilenets.storage import (
    PARTIAL,
    check_path,
    new_folder,
    read_json,
    replacing,
)


def test_a_file_is_whole_or_as_before(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(path) as beside:  # noqa: PT012
        beside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as beside:
        assert beside.name.startswith(PARTIAL)
        beside.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a pipe"])
def test_what_is_no_file_stays_what_it_is(kind, tmp_path):
    """As the superuser a rename onto /dev/null would succeed."""
    path = tmp_path / "path"
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(tmp_path / "pipe")
        path = tmp_path / "pipe"
    if kind == "link to a pipe":
        (tmp_path / "path").symlink_to(path)
        path = tmp_path / "path"
    before = os.lstat(path)
    with pytest.raises(UsageError, match="path must be that of a file"):
        with replacing(path):
            pytest.fail("was let in")
    assert os.path.samestat(os.lstat(path), before)


@pytest.mark.parametrize("wrong", ["", "/", ".", "a\0b", b"x", 3, None, ["x"]])
def test_what_is_no_path(wrong):
    with pytest.raises(UsageError, match="path must be that of a file"):
        with replacing(wrong):
            pytest.fail("was let in")


def test_paths_are_absolute_and_of_a_user_who_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert check_path("path", "a/b") == str(tmp_path / "a" / "b")
    assert check_path("path", "~/b") == str(tmp_path / "home" / "b")
    with pytest.raises(UsageError, match="path must be a path; got '~nobody-here/b'"):
        check_path("path", "~nobody-here/b")
    (tmp_path / "~nobody-here").mkdir()
    assert check_path("path", "~nobody-here") == str(tmp_path / "~nobody-here")


def test_an_error_is_one_line():
    assert str(UsageError("got [[1]\n     [2]]")) == "got [[1] [2]]"


def test_json_is_read_from_files_only(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UsageError, match="cannot be read as JSON .*not a file"):
            read_json(path)  # and no wait for a writer


@pytest.mark.parametrize("wrong", [None, ["x"], 1.5, "a\0b", b"/nonexistent"])
def test_what_is_no_path_of_json(wrong):
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        read_json(wrong)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 10**5, "\udcff"], ids=["empty", "open", "deep", "bytes"]
)
def test_what_is_no_json(text, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match="x.json' cannot be read as JSON"):
        read_json(path)


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a" / "b"
    with pytest.raises(OSError, match="full"), new_folder(path) as beside:  # noqa: PT012
        (beside / "x").touch()
        raise OSError("full")
    assert not list(tmp_path.iterdir())
    with new_folder(path) as beside:
        (beside / "x").touch()
        assert not path.exists()
    assert [file.name for file in path.rglob("*")] == ["x"]
    assert [file.name for file in path.parent.iterdir()] == ["b"]


def test_a_new_folder_takes_the_place_of_an_empty_one_only(tmp_path):
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "mine").touch()
    with new_folder(tmp_path / "empty") as beside:
        (beside / "x").touch()
    with pytest.raises(OSError), new_folder(tmp_path / "full") as beside:  # noqa: PT011
        (beside / "x").touch()
    names = sorted(file.name for file in tmp_path.rglob("*"))
    assert names == ["empty", "full", "mine", "x"]
