"""Data: reading, inference, held-out splits, standardisation, and error messages with file, line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet.data import load, split, standardise
from gpunet.data.columns import Column, Source, describe
from gpunet.errors import ArgumentError, DataError
from gpunet.launch.random import Generator

GOOD = "age,height,kind\n1,2.5,cat\n2,3.5,dog\n3,4.5,cat\n4,5.5,dog\n"


@pytest.fixture
def csv(tmp_path: Path) -> Any:
    def write(text: str, name: str = "animals.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def npz(tmp_path: Path) -> Any:
    def write(**arrays: Any) -> Path:
        path = tmp_path / "data.npz"
        numpy.savez(path, **arrays)
        return path

    return write


# ---- built-in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "features", "classes"),
    [("digits", 1797, 64, 10), ("breast-cancer", 569, 30, 2), ("diabetes", 442, 10, 0)],
)
def test_built_in(name: str, rows: int, features: int, classes: int) -> None:
    pytest.importorskip("sklearn")
    data = load(name)
    assert data.features.shape == (rows, features)
    assert len(data.class_names) == classes
    assert data.task == ("classification" if classes else "regression")
    assert len(data.feature_names) == features


def test_built_in_data_have_a_fixed_target() -> None:
    with pytest.raises(DataError, match="target 'age': the built-in data 'digits' have a fixed target"):
        load("digits", "age")


def test_unknown_name_lists_the_built_in_data() -> None:
    with pytest.raises(DataError, match="no data 'digit': expected digits, breast-cancer, diabetes or the path"):
        load("digit")


# ---- CSV ------------------------------------------------------------------------------------------------------------


def test_text_targets_become_class_names(csv: Any) -> None:
    data = load(csv(GOOD))
    assert data.task == "classification"
    assert data.class_names == ("cat", "dog")
    assert data.targets.tolist() == [0, 1, 0, 1]
    assert data.feature_names == ("age", "height")
    assert data.features.tolist() == [[1, 2.5], [2, 3.5], [3, 4.5], [4, 5.5]]
    assert "the last one" in data.notes[0]
    assert data.notes[1] == "classification into 2 classes: the target is text"


@pytest.mark.parametrize("target", ["height", 1, "1", -2, "-2"])
def test_target_by_name_or_number(csv: Any, target: Any) -> None:
    data = load(csv("age,height,weight\n1,2.5,3\n2,3.5,4\n"), target)
    assert data.feature_names == ("age", "weight")
    assert data.targets.tolist() == [2.5, 3.5]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1;2;a\n3;4;b\n5;6;a\n", ("0", "1")),  # no header, semicolons
        ("x\ty\tz\n1\t2\ta\n3\t4\tb\n5\t6\ta\n", ("x", "y")),
        ('\ufeffx,"y, in m",z\r\n1,2,a\r\n\r\n3, 4 ,b\r\n5,6,a\r\n', ("x", "y, in m")),  # as written by Excel
    ],
    ids=["no header", "tabs", "byte order mark"],
)
def test_dialects(csv: Any, text: str, names: tuple[str, ...]) -> None:
    data = load(csv(text))
    assert data.feature_names == names
    assert data.features.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert data.class_names == ("a", "b")


@pytest.mark.parametrize(
    ("values", "task", "expected"),
    [
        ([0, 1, 0, 1], "auto", "classification"),
        ([3, 5, 3, 5], "auto", "classification"),
        ([0.5, 1.5, 2.0, 3.0], "auto", "regression"),
        (range(25), "auto", "regression"),  # too many integers to be classes
        ([0, 1, 0, 1], "regression", "regression"),
        ([*range(25), *range(25)], "classification", "classification"),
    ],
)
def test_task_is_inferred_and_noted(csv: Any, values: Any, task: str, expected: str) -> None:
    data = load(csv("x,y\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values))), task=task)
    assert data.task == expected
    assert data.notes[-1].startswith(expected)
    assert (data.targets.dtype == numpy.int64) == (expected == "classification")


BAD = {
    "text": ("a,b,y\n1,2,0\n3,high,1\n5,6,1\n", r"line 3, column 'b': 'high' is not a number \(1 of 3 values are text"),
    "infinite": ("a,b,y\n1,2,0\n3,inf,1\n", "line 3, column 'b': inf is not finite"),
    "missing targets": ("a,b,y\n1,2,\n3,4,NA\n", "target column 'y': all values are missing"),
    "day or month": (
        "a,when,y\n1,03/04/2021,1.5\n2,05/06/2021,2.5\n", "column 'when': '03/04/2021' may begin with the month or the day"
    ),
    "currency": ('a,y\n"$1,200",1.5\n$300,2.5\n', "column 'a': '.*' seems to be a number; write the numbers without currency"),
    "currency of the target": ('a,y\n1.5,"$1,200"\n2.5,$300\n', "target column 'y': '.*' seems to be a number"),
    "comma": ("a;y\n1,234;0\n5;1\n", "the comma in '1,234' may separate thousands or decimals"),
    "names": ("name,y\n" + "".join(f"n{i},{i % 2}\n" for i in range(32)), r"no column is left .*name: text with 32"),
    "typo in the target": (
        "a,y\n1,2.5\n2,3.5\n3,4,\n".replace("4,\n", "4x\n"),
        "line 4, target column 'y': '4x' is not a number",
    ),
    "ragged": ("a,b,y\n1,2,0\n3,4\n", r"line 3: 2 cells; expected 3, as in the header \(a, b, y\)"),
    "one class": ("a,b,y\n1,2,0\n3,4,0\n", "only one class, '0', in all 2 rows"),
    "one text class": ("a,b,y\n1,2,no\n3,4,no\n", "only one class, 'no'"),
    "identifiers": ("a,y\n1,x1\n2,x2\n3,x3\n", "seems to contain identifiers"),
    "empty": ("", "is empty; expected a header"),
    "blank": ("\n \n", "is empty; expected a header"),
    "header only": ("a,b,y\n", r"no rows below the header \(a, b, y\)"),
    "one column": ("y\n1\n2\n", "only one column, 'y'; expected feature columns"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_invalid_csv(csv: Any, text: str, message: str) -> None:
    path = csv(text)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_errors_have_the_line_of_the_file(csv: Any) -> None:
    with pytest.raises(DataError, match="line 6, column 'a': 'x'"):
        load(csv('a,y\n\n1,"two\nlines"\n\nx,b\n'))


@pytest.mark.parametrize("target", ["weight", "7", "-4"])
def test_unknown_target_lists_the_columns(csv: Any, target: str) -> None:
    with pytest.raises(DataError, match="no column .*age, height, kind"):
        load(csv(GOOD), target)


def test_duplicate_column_names(csv: Any) -> None:
    path = csv("a,a,b\n1,2,3\n2,3,5\n")
    with pytest.raises(DataError, match="2 columns are named 'a'"):
        load(path, "a")
    assert load(path, "b").feature_names == ("a", "a")


def test_constant_regression_target(csv: Any) -> None:
    with pytest.raises(DataError, match=r"every row has the value 2\.5"):
        load(csv("a,y\n1,2.5\n2,2.5\n"))


def test_not_a_data_file(csv: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unsupported file extension '\.xlsx'"):
        load(csv("", "table.xlsx"))
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path)
    path = tmp_path / "latin.csv"
    path.write_bytes("größe,y\n1,a\n2,b\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load(path)


# ---- real files -------------------------------------------------------------------------------------------------------

PEOPLE = """\
# people of a town
# of 2020
id,2020,Joined,member,town,income,share,note,kind
1,3,2020-01-02,yes,Ulm,"1,234.50",12%,a b,cat
2,4,2021-02-03,no,Bonn,999,3%,,dog
3,,2021-03-01,yes,Ulm,"12,000",5%,c,cat
4,6,2022-01-02,,Kiel,7,5%,d,
# the end
5,7,2022-12-31,no,Bonn,8,6%,e,dog
"""


def test_columns_of_every_kind(csv: Any) -> None:
    data = load(csv(PEOPLE), ignore=["id"])
    assert data.target_name == "kind" and data.class_names == ("cat", "dog")
    assert data.feature_names == (
        "2020", "2020 is missing", "Joined", "member", "town=Bonn", "town=Ulm", "income", "share",
        "note=a b", "note=c", "note=e",
    )  # fmt: skip
    expected = [
        [3, 0, 18263, 1, 0, 1, 1234.5, 0.12, 1, 0, 0], [4, 0, 18661, 0, 1, 0, 999, 0.03, 0, 0, 0],
        [numpy.nan, 1, 18687, 1, 0, 1, 12000, 0.05, 0, 1, 0], [7, 0, 19357, 0, 1, 0, 8, 0.06, 0, 0, 1],
    ]  # fmt: skip
    numpy.testing.assert_allclose(data.features, expected)
    assert data.notes == (
        "target: column 'kind' (the last one)", "left out: 1 rows without a target", "as 0 and 1: member",
        "as days since 1970: Joined",
        "a column of 0 and 1 for each value: town (2 values), note (3 values)", "numbers with thousands: income",
        "numbers with percentage: share", "missing values, the mean instead, and a column that says where: 2020",
        "left out: id (as asked)", "classification into 2 classes: the target is text",
    )  # fmt: skip


@pytest.mark.parametrize(("text", "target", "names", "row"), [
    ("x|y|z\n1|2|a\n3|4|b\n5|6|a\n", None, ("x", "y"), [1, 2]),
    ("x  y  z\n1 2   a\n3 4 b\n5 6 a\n", None, ("x", "y"), [1, 2]),
    ("x;y;z\n1,5;2;a\n3;4;b\n5,25;6;a\n", None, ("x", "y"), [1.5, 2]),
    (",x,y\n0,5,1.5\n1,6,2.5\n", None, ("x",), [5]),  # row numbers, as pandas writes them
    (",x,y\n5,5,1.5\n2,6,2.5\n9,7,3.5\n", None, ("x",), [5]),  # of shuffled rows
    (",x,y\n5,5,1.5\n5,6,2.5\n", None, ("0", "x"), [5, 5]),  # no row numbers
    ('"x","y"\n"1",5,1.5\n"2",6,2.5\n', None, ("x",), [5]),  # as R does
    ("1,0,2\n9,2,3\n3,8,4\n", "1", ("0", "2"), [1, 2]),
    ("#,Name,hp\n1,a,45.5\n2,b,60\n3,a,80\n", None, ("#", "Name=a", "Name=b"), [1, 1, 0]),
    ("# x y\n1 2.5\n2 3\n", None, ("x",), [1]),
    ("# some, words\nx,y\n1,2.5\n2,3\n", None, ("x",), [1]),
    ('x,y\n"0,500",1.5\n"1,250",2.5\n', None, ("x",), [0.5]),
    ('x,y\n"1.234,56",1.5\n"999,10",2.5\n17,3.5\n', None, ("x",), [1234.56]),
    ("x;y\n1.234;1,5\n12.500;2,5\n999;2,5\n", None, ("x",), [1.234]),
    ('"a, b, c";y\n1;1.5\n2;2.5\n', None, ("a, b, c",), [1]),
    ("id,2020,y\n1,2,3.5\n4,5,6.5\n", "y", ("id", "2020"), [1, 2]),
    ("a,when,y\n1,01/31/2020,1.5\n2,02/01/2020,2.5\n", None, ("a", "when"), [1, 18292]),
    ("a,when,y\n1,2020-01-31 12:00,1.5\n2,2020-02-01 00:00,2.5\n", None, ("a", "when"), [1, 18292.5]),
], ids=str)  # fmt: skip
def test_forms_of_files(csv: Any, text: str, target: Any, names: tuple[str, ...], row: list[float]) -> None:
    data = load(csv(text), target)
    assert data.feature_names == names and data.features[0].tolist() == row


def test_notes_of_the_header_and_of_numbers(csv: Any) -> None:
    assert "no header found: the columns are named 0 to 3" in load(csv("country,2019,2020,2021\nUlm,1,2,3\nBonn,4,5,6.5\n")).notes
    assert load(csv("country,2019,2020,2021\nUlm,1,2,3\nBonn,4,5,6.5\n"), "2020").feature_names[2:] == ("2019", "2021")
    notes = load(csv(",x,y\n5,5,1.5\n2,6,2.5\n")).notes
    assert any(note.startswith("left out: the first column, which has no name") for note in notes)
    notes = load(csv("x;y\n1.234;1,5\n12.500;2,5\n999;2,5\n")).notes
    assert "numbers with a decimal point: x; if it separates thousands, write the numbers without it" in notes
    assert not any("point" in note for note in load(csv("x;y\n0.234;1,5\n12.500;2,5\n999;2,5\n")).notes)


def test_underscores_are_no_part_of_numbers() -> None:
    for form, cell in (("plain", "1_0"), ("percentage", "1_0%"), ("thousands", "1_0"), ("decimal comma", "1_0")):
        with pytest.raises(DataError, match=f"new.csv, line 2, column 'a': '{cell}' is no number"):
            Column("a", "number", form).encode([cell], Source("new.csv", [2]))


def test_encoded_categories_are_float64() -> None:
    column = describe("species", ["Adelie", "Gentoo", "Adelie"], Source("birds.csv", range(2, 5)))
    encoded = column.encode(["Gentoo"], Source("birds.csv", [2]))
    assert encoded.dtype == numpy.float64 and encoded.tolist() == [[0.0, 1.0]]


def test_many_texts_become_ranks(csv: Any) -> None:
    rows = "".join(f"{i},t{i % 30:02},{i / 2}\n" for i in range(90))
    data = load(csv("a,t,y\n" + rows))
    assert data.features[:31, 1].tolist() == [*range(30), 0] and "text as the rank of its value: t (30 values)" in data.notes


def test_integer_targets_are_exact(csv: Any, npz: Any) -> None:
    """Neighbours above 2^53 are one number as float64, and those above 2^63 are negative as int64."""
    rows = "".join(f"{i},{9007199254740992 + i % 3}\n" for i in range(9))
    assert load(csv("a,y\n" + rows)).class_names == tuple(str(9007199254740992 + i) for i in range(3))
    labels = numpy.array([2**63, 2**63 + 1] * 3, numpy.uint64)
    assert load(npz(X=numpy.ones((6, 2)), y=labels)).class_names == ("9223372036854775808", "9223372036854775809")
    rows = "".join(f'{i},"{i % 3 + 1},000"\n' for i in range(9))
    assert load(csv("a,y\n" + rows)).class_names == ("1000", "2000", "3000")


def test_columns_to_ignore(csv: Any, npz: Any) -> None:
    assert load(csv(GOOD), ignore=["age"]).feature_names == ("height",)
    assert load(csv(GOOD), ignore=[2]).task == "regression"  # the last one that is left is the target
    with pytest.raises(DataError, match="no column 'weight'; the columns are age, height, kind"):
        load(csv(GOOD), ignore=["weight"])
    with pytest.raises(DataError, match="the target 'kind' is to be ignored"):
        load(csv(GOOD), "kind", ignore=["kind"])
    with pytest.raises(DataError, match="has no columns to ignore"):
        load(npz(X=numpy.ones((3, 2)), y=[0, 1, 0]), ignore=["X"])


def test_missing_values_become_the_mean(csv: Any) -> None:
    parts = split(load(csv("a,b,y\n" + "".join(f"{'' if i % 3 else i},{i},{i / 2}\n" for i in range(40)))), 0.25)
    fitted = standardise(parts.train)
    is_missing = numpy.isnan(parts.test.features[:, 0])
    assert is_missing.any() and (fitted.features(parts.test.features)[is_missing, 0] == 0).all()
    numpy.testing.assert_allclose(fitted.mean[0], numpy.nanmean(parts.train.features[:, 0]))


# ---- .npz -----------------------------------------------------------------------------------------------------------


def test_npz(npz: Any) -> None:
    data = load(npz(X=numpy.ones((4, 2, 3), numpy.uint8), y=numpy.array(["b", "a", "b", "a"])))
    assert data.features.shape == (4, 6)
    assert data.features.dtype == numpy.float32
    assert data.class_names == ("a", "b")
    assert data.notes[0] == "features: array 'X', target: array 'y'"


def test_npz_target_by_name(npz: Any) -> None:
    data = load(npz(inputs=numpy.ones((4, 2)), price=numpy.arange(4)[:, None] + 0.5), "price")
    assert data.targets.tolist() == [0.5, 1.5, 2.5, 3.5]


def test_npz_with_its_own_split(npz: Any) -> None:
    parts = {
        "x_train": numpy.ones((6, 2)),
        "y_train": numpy.arange(6) % 2,
        "x_test": numpy.zeros((2, 2)),
        "y_test": [0, 1],
    }
    parts = split(load(npz(**parts)))
    assert parts.train.features.tolist() == [[1, 1]] * 6
    assert parts.test.features.tolist() == [[0, 0]] * 2


@pytest.mark.parametrize(
    ("arrays", "target", "message"),
    [
        ({"X": numpy.ones((3, 2)), "y": [0, 1]}, None, "3 rows of features, but 2 targets"),
        (
            {"a": numpy.ones((3, 2)), "b": [0, 1, 0]},
            None,
            r"no array of targets, named y or .*the file contains a \(3, 2\), b \(3,\)",
        ),
        ({"X": numpy.ones((3, 2)), "y": [0, 1, 0]}, "price", r"no array 'price'; the file contains X \(3, 2\), y \(3,\)"),
        ({"X": numpy.ones(3), "y": [0, 1, 0]}, None, r"array 'X' is float64 of shape \(3,\); expected numbers"),
        ({"X": numpy.ones((3, 2)), "y": numpy.ones((3, 2))}, None, r"array 'y' .* expected one target per row"),
        ({"X": [[1.0, 2], [numpy.nan, 3]], "y": [0, 1]}, None, "row 1, column 0 of the features is nan"),
        ({"X": numpy.ones((3, 2)), "y": [0.5, numpy.nan, 1]}, None, "row 1, target 'y': nan is not finite"),
        ({"X": numpy.ones((0, 2)), "y": []}, None, "no rows"),
        ({"X": numpy.ones((3, 2)), "y": numpy.array([{}, 1, 2], object)}, None, "Object arrays are not supported"),
    ],
)
def test_invalid_npz(npz: Any, arrays: Any, target: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(npz(**arrays), target)


def test_damaged_npz(npz: Any) -> None:
    path = npz(X=numpy.ones((30, 2)), y=numpy.arange(30))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"data\.npz is damaged"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"data\.npz is damaged"):
        load(path)


# ---- split and standardisation --------------------------------------------------------------------------------------


def test_split_is_stratified_complete_and_deterministic() -> None:
    pytest.importorskip("sklearn")
    data = load("breast-cancer")
    first, second, other = (split(data, 0.25, Generator(seed)) for seed in (3, 3, 4))
    numpy.testing.assert_array_equal(first.test.features, second.test.features)
    assert not numpy.array_equal(first.test.features, other.test.features)
    assert len(first.train) + len(first.test) == len(data)
    both = numpy.concatenate([first.train.features, first.test.features])
    numpy.testing.assert_array_equal(numpy.sort(both, axis=0), numpy.sort(data.features, axis=0))
    for number in (0, 1):
        members = (data.targets == number).sum()
        assert abs((first.test.targets == number).sum() - 0.25 * members) <= 0.5


def test_split_of_few_rows(csv: Any) -> None:
    parts = split(load(csv("a,y\n1,u\n2,u\n3,v\n")), 0.1)
    assert parts.test.targets.tolist() == [0]  # one of the two rows; a class with one row is not held out
    assert len(parts.train) == 2
    with pytest.raises(ArgumentError, match=r"test_size=1\.5"):
        split(load(csv(GOOD)), 1.5)


def test_standardisation_uses_training_rows_only(csv: Any) -> None:
    parts = split(load(csv("a,c,y\n" + "".join(f"{i * i},7,{i / 2}\n" for i in range(20)))), 0.25)
    fitted = standardise(parts.train)
    train = fitted.features(parts.train.features)
    numpy.testing.assert_allclose(train[:, 0].mean(), 0, atol=1e-6)
    numpy.testing.assert_allclose(train[:, 0].std(), 1, rtol=1e-6)
    assert (train[:, 1] == 0).all()  # a constant column
    assert train.dtype == numpy.float32
    numpy.testing.assert_allclose(fitted.targets(parts.train.targets).mean(), 0, atol=1e-6)
    expected = (parts.test.features[:, 0] - parts.train.features[:, 0].mean()) / parts.train.features[:, 0].std()
    numpy.testing.assert_allclose(fitted.features(parts.test.features)[:, 0], expected, rtol=1e-5)
