"""``gpunet train --report``: one page that needs no other file, with all sections, and text that is escaped."""

from __future__ import annotations

import html.parser
import re
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpunet.cli.main import main
from tests.tools.train_command import error_message, in_temporary_folder, train  # noqa: F401  a fixture among them

for _package in ("safetensors", "sklearn", "matplotlib"):
    pytest.importorskip(_package, reason="pip install 'gpunet[train]'")


class Page(html.parser.HTMLParser):
    """The elements of a page, which must be nested properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.words = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def pictures(self) -> list[str]:
        return [attributes["src"] for tag, attributes in self.elements if tag == "img"]


def report(folder: str = "run") -> Page:
    page = Page(Path(folder, "report.html").read_text(encoding="utf-8"))
    assert not any("href" in attributes or tag in ("script", "link") for tag, attributes in page.elements)
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.pictures())
    return page


def test_images_of_wrong_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--report", "--epochs", 2, "--out", "run") == 0
    assert "report: run/report.html" in capsys.readouterr().out
    page = report()
    assert len(page.pictures()) == 4  # curves, confusion matrix, examples, gradient flow
    wrong, rows = map(int, re.search(r"Wrong examples: (\d+) of (\d+) held-out rows", page.words).groups())
    accuracy = float(re.search(r"accuracy (0\.\d+)\)", page.words)[1])
    assert rows == 359 and accuracy == pytest.approx(1 - wrong / rows, abs=5e-5)
    best = re.search(r"best epoch: val_accuracy(0\.\d+)", page.words)
    assert float(best[1]) == pytest.approx(accuracy, abs=1e-4)
    assert "gradients reach all layers" in page.words or "Remedy" in page.words


def test_rows_with_the_largest_errors_are_those_of_predict() -> None:
    from gpunet.data import load
    from gpunet.tools.training_run import of_split

    random = numpy.random.default_rng(0)
    x = random.normal(size=(80, 2)).round(3)
    Path("t.csv").write_text("a,b,y\n" + "".join(f"{a},{b},{a - b + c:.4f}\n" for (a, b), c in zip(x, random.normal(size=80))))
    assert train("t.csv", "--report", "--epochs", 2, "--hidden", "4", "--out", "run") == 0
    page = report()
    assert len(page.pictures()) == 3
    from gpunet.train import predict

    data = load("t.csv")
    held_out = of_split(data).test
    rows = [int(numpy.flatnonzero((data.features == row).all(1))[0]) for row in held_out.features]
    error = abs(predict("run", "t.csv").values[rows] - held_out.targets)
    assert f"mean absolute error {error.mean():.5g})" in page.words
    first = held_out.features[error.argmax()]
    assert re.search(rf"predictedab\s*\S+, is {held_out.targets[error.argmax()]:.5g}{first[0]:.6g}{first[1]:.6g}", page.words)


def test_text_is_escaped() -> None:
    """Names of classes, columns and files are no HTML, and no formulas of matplotlib."""
    classes = ("<script>alert(1)</script>", "$\\frac{", "日本 & \"x\"")
    rows = "".join(f'{i % 5},{i % 7},"{classes[i * i % 3].replace(chr(34), chr(34) * 2)}"\n' for i in range(60))
    Path("<b>&.csv").write_text("<i>a</i>,$b$,y\n" + rows, encoding="utf-8")
    assert train("<b>&.csv", "--report", "--epochs", 1, "--hidden", "2", "--out", "run") == 0
    text = Path("run/report.html").read_text(encoding="utf-8")
    assert "<script" not in text and "<i>" not in text and "<b>" not in text
    assert "<i>a</i>" in report().words and "gpunet train: <b>&" in report().words


def test_a_resumed_run_and_folds_have_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("breast-cancer", "--report", "--epochs", 1, "--hidden", "4", "--folds", 2, "--out", "run") == 0
    first = Path("run/fold-1/report.html")
    assert "features30" in report("run/fold-2").words
    before = first.read_bytes()
    assert main(["train", "--resume", "run"]) == 0
    assert first.read_bytes() == before and "No step was recorded" not in report("run/fold-1").words
    first.unlink()
    assert main(["train", "--resume", "run/fold-1"]) == 0
    assert "No step was recorded" in report("run/fold-1").words
    Path("o.toml").write_text("report = 1\n")
    capsys.readouterr()
    assert "--config o.toml: report = 1; expected true or false" in error_message(capsys, "train", "--config", "o.toml")


def test_without_matplotlib(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "matplotlib, which is not installed: pip install 'gpunet[train]'" in error_message(capsys, "train", "--report")
