"""``gpunet predict``: the columns of a file by name, encoded and standardised as in training."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy
import pytest

from gpunet.cli.main import main
from gpunet.errors import CheckpointError, DataError
from gpunet.train import load_run, predict

COLOURS, SIZES = ("red", "green", "blue"), ("small", "large", "small")
ROWS = "".join(f"{i % 7},{COLOURS[i % 3]},{i % 2},{SIZES[i % 3]},{i % 7 * 2.5 + i % 3}\n" for i in range(60))
HEADER = "weight,colour,flag,size,price\n"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("things.csv").write_text(HEADER + ROWS)


def train(*options: str) -> None:
    assert main(["train", "--data", "things.csv", "--epochs", "30", "--dropout", "0", "--out", "run", *options]) == 0


def predicted(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["predict", "run", *arguments]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_classes_of_rows_in_another_order_of_columns(capsys: pytest.CaptureFixture[str]) -> None:
    train("--target", "size", "--ignore", "price")
    Path("new.csv").write_text("colour,extra,flag,weight\ngreen,1,0,3\nred,1,1,2\n,1,1,2\n")
    rows = predicted(capsys, "new.csv", "--probabilities")
    assert [row["predicted size"] for row in rows[:2]] == ["large", "small"]
    assert list(rows[0]) == ["colour", "extra", "flag", "weight", "predicted size", "probability of large", "probability of small"]
    for row in rows:
        assert float(row["probability of large"]) + float(row["probability of small"]) == pytest.approx(1, abs=1e-5)
    assert float(rows[0]["probability of large"]) > 0.9


def test_one_output_of_two_classes(capsys: pytest.CaptureFixture[str]) -> None:
    train("--target", "size", "--ignore", "price", "--loss", "bce")
    rows = predicted(capsys, "things.csv", "--probabilities")
    assert all(row["predicted size"] == row["size"] for row in rows)
    assert float(rows[1]["probability of large"]) < 0.5 < float(rows[0]["probability of large"]) or rows[0]["size"] == "small"


def test_numbers_in_the_unit_of_the_target(capsys: pytest.CaptureFixture[str]) -> None:
    train()
    capsys.readouterr()
    assert main(["predict", "run", "things.csv", "--out", "out.csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(Path("out.csv").read_text())))
    found, expected = (numpy.array([float(row[name]) for row in rows]) for name in ("predicted price", "price"))
    assert len(rows) == 60 and numpy.abs(found - expected).mean() < 1.5
    assert predict("run", "things.csv").values.tolist() == found.tolist()


@pytest.mark.parametrize(("text", "message"), [
    ("weight,colour,flag\n1,red,1\n", "no column 'size'; the columns are weight, colour, flag"),
    ("weight,colour,flag,size\n1,pink,1,small\n", "line 2, column 'colour': 'pink' did not occur in training; expected blue, gr"),
    ("weight,colour,flag,size\nten,red,1,small\n", "line 2, column 'weight': 'ten' is no number"),
])  # fmt: skip
def test_files_that_do_not_fit(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    train()
    Path("new.csv").write_text(text)
    capsys.readouterr()
    assert main(["predict", "run", "new.csv"]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(DataError):
        predict("run", "new.csv")


def test_folders_that_are_no_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="is not a run folder"):
        predict("nothing", "things.csv")
    train()
    config = Path("run/config.json")
    config.write_text(config.read_text().replace('"columns"', '"rows"'))
    load_run("run")
    with pytest.raises(CheckpointError, match="was not written by this version of gpunet train"):
        predict("run", "things.csv")


def test_files_without_a_header() -> None:
    """The first row is data, also if it has numbers of columns, which are names then."""
    Path("things.csv").write_text("".join(f"{i % 7},{i % 5},{i % 7 * 10 - i % 5 + 0.5}\n" for i in range(70)))
    train()
    Path("new.csv").write_text("1,0\n9,2\n3,8\n")
    found = predict("run", "new.csv")
    assert found.table.rows() == [["1", "0"], ["9", "2"], ["3", "8"]] and found.table.names == ["0", "1"]
    assert numpy.corrcoef(found.values, [10.5, 88.5, 22.5])[0, 1] > 0.9


def test_parquet_and_csv_are_encoded_alike(capsys: pytest.CaptureFixture[str]) -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pandas.read_csv("things.csv").assign(seen=pandas.date_range("2020-01-01", periods=60))
    frame.to_parquet("things.parquet")
    frame.to_csv("things.csv", index=False)
    assert main(["train", "things.parquet", "--target", "size", "--ignore", "price", "--epochs", "3", "--out", "run"]) == 0
    rows = predicted(capsys, "things.parquet", "--probabilities")
    assert [{**row, "seen": row["seen"][:10]} for row in rows] == predicted(capsys, "things.csv", "--probabilities")
    assert predict("run", frame).values.tolist() == [row["predicted size"] for row in rows]
    assert list(rows[0])[:6] == [*frame.columns] and rows[1]["colour"] == "green"
    for change, message in [
        ({"colour": frame["weight"]}, "the DataFrame, column 'colour': its type is int64, but in training the column was text"),
        ({"weight": frame["colour"]}, "the DataFrame, row 0, column 'weight': 'red' is no number"),
        ({"colour": "pink"}, "the DataFrame, row 0, column 'colour': 'pink' did not occur in training; expected blue, green, red"),
    ]:
        with pytest.raises(DataError, match=message):
            predict("run", frame.assign(**change))
    with pytest.raises(DataError, match="the Table: no column 'colour'; the columns are weight, flag"):
        predict("run", pyarrow.table({"weight": [1], "flag": [0]}))


def test_data_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "things.csv", "--data", "digits"]) == 2
    assert "gpunet train things.csv --data digits; expected one of the two" in capsys.readouterr().err


def test_columns_of_one_name_are_refused_in_training(capsys: pytest.CaptureFixture[str]) -> None:
    Path("things.csv").write_text("x,x,price\n" + "".join(f"{i},{i % 3},{i / 2}\n" for i in range(40)))
    assert main(["train", "--data", "things.csv", "--epochs", "1", "--out", "run"]) == 2
    assert "things.csv: 2 columns are named 'x'; rename them" in capsys.readouterr().err
