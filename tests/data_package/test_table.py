"""CSV files of images, as people and spreadsheets write them."""

import pytest

from keras_mobilenets.data.table import read_table
from keras_mobilenets.errors import UsageError


@pytest.fixture
def read(tmp_path):
    def read(content, **options):
        file = tmp_path / "labels.csv"
        encoded = content if isinstance(content, bytes) else content.encode()
        file.write_bytes(encoded)
        rows = read_table(file, **options)
        start = len(str(tmp_path)) + 1
        return {
            split: [(label, path[start:]) for label, path in some]
            for split, some in rows.items()
        }

    return read


TWO = {"train": [("cat", "1.png"), ("dog", "b/2.png")]}


@pytest.mark.parametrize(
    "content",
    [
        "1.png,cat\nb/2.png,dog\n",
        "path,label\n1.png,cat\nb/2.png,dog",
        "Label,File\ncat,1.png\ndog,./b/../b/2.png\n",
        "path,width,label\n1.png,20,cat\nb/2.png,,dog\n",
        b'\xef\xbb\xbfpath,label\r\n"1.png","cat"\r\nb/2.png,dog\r\n',
        "path;label\r\n1.png;cat\r\nb/2.png;dog\r\n",
        "path\tlabel\n1.png\tcat\nb/2.png\tdog\n",
        "\n1.png, cat\n\n,\nb/2.png, dog \n,,\n",
        "1.png,cat,\nb/2.png,dog,\n",
    ],
    ids=[
        "plain", "names", "other names and order", "a column more", "Excel",
        "semicolons", "tabs", "empty lines and spaces", "an empty column",
    ],
)  # fmt: skip
def test_as_it_is_written(read, content):
    assert read(content) == TWO


def test_quotes_commas_and_other_letters(read):
    rows = read('"a, b.png","cat ""big"""\n"é;ü.png","chat\nnoir"\n')
    assert rows["train"] == [('cat "big"', "a, b.png"), ("chat\nnoir", "é;ü.png")]


def test_absolute_paths(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("/photos/1.png,cat\n~/2.png,dog\n")
    (one, other) = read_table(file)["train"]
    assert one == ("cat", "/photos/1.png")
    assert other[1].startswith("/")
    assert "~" not in other[1]


@pytest.mark.parametrize("header", ["", "path,label,split\n"])
def test_splits(read, header):
    rows = read(header + "1,a,Train\n2,a,val\n3,b,TEST\n4,b,training\n5,b,validation\n")
    assert rows == {
        "train": [("a", "1"), ("b", "4")],
        "validation": [("a", "2"), ("b", "5")],
        "test": [("b", "3")],
    }


def test_columns_by_name(read):
    content = "id,label,Species,photo\n7,x,cat,1.png\n8,y,dog,b/2.png\n"
    assert read(content, label="species", image="photo") == TWO


BAD = {
    "empty": ("", r"labels.csv' has no rows; expected the columns path,label"),
    "blank": ("\n,,\n", "has no rows"),
    "names only": ("path,label\n", "has no row for train"),
    "one column": ("1.png\n2.png\n", "has 1 columns in a line"),
    "four columns": ("1.png,cat,train,x\n", "has 4 columns in a line"),
    "a comma too many": (
        "path,label\n1.png,cat\na,b.png,dog\n", "3 values in line 3, and 2 columns",
    ),
    "no label": ("1.png,cat\n2.png,\n", "has no label in line 2"),
    "no path": ("path,label\n ,cat\n", "has no path in line 2"),
    "no split": ("1.png,cat,train\n2.png,dog\n", "has no split in line 2"),
    "another split": ("1.png,a,train\n2.png,b,holdout\n", "split 'holdout' in line 2"),
    "no train": ("1.png,a,val\n2.png,b,test\n", "no row for train, and some for valid"),
    "no label column": ("path,species\n1.png,cat\n", "named label.*label=NAME"),
    "two paths": ("path,file,label\na,b,c\n", "one column for path.*path, file"),
    "two labels": ("path,label,class\na,b,c\n", "one column for label"),
    "Latin 1": ("1.png,caf\xe9\n".encode("latin-1"), "must be UTF-8.*CSV UTF-8"),
    "UTF-16": ("1.png,cat\n".encode("utf-16"), "must be UTF-8"),
    "open quote": ('1.png,"cat\n2.png,dog\n', "is no CSV file, near line"),
    "letters behind a quote": ('1.png,"cat"s\n', "is no CSV file, near line 1"),
    "a zero": ("1.png,c\0at\n", "labels.csv' holds zero bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named_with_its_line(read, case):
    content, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        read(content)


def test_other_columns_than_there_are(read):
    with pytest.raises(UsageError, match=r"label must name one column.*path, kind"):
        read("path,kind\n1.png,cat\n", label="species")
    with pytest.raises(UsageError, match=r"image must name one column.*got 'photo'"):
        read("path,kind\n1.png,cat\n", label="kind", image="photo")
    with pytest.raises(UsageError, match="a column named path.*give image=NAME"):
        read("photo,kind\n1.png,cat\n", label="kind")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"none\.csv' does not exist"):
        read_table(tmp_path / "none.csv")
