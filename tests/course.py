"""Run the chapters of docs/course, and write what they print and draw into the documentation.

python -m tests.course            run all chapters
python -m tests.course --write    and update the ``text`` blocks of the pages and docs/images/course

The Python blocks of a chapter run in their order, in one namespace.  A ``text`` block behind a Python block shows what it prints;
``savefig("name.png")`` draws the picture that the page shows as ``../images/course/name.png``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images" / "course"
CHAPTERS = sorted((ROOT / "docs" / "course").glob("[0-9]*.md"))
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?P<shown>\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?")


def run(chapter: Path, folder: Path) -> list[str]:
    """Run the Python blocks of a chapter; return the output of each.

    Args:
        folder: where its pictures are written.
    """
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("Agg")
    text = chapter.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "__chapter__"}
    outputs = []
    with contextlib.chdir(folder), matplotlib.rc_context():
        for block in BLOCK.finditer(text):
            lines = text[: block.start("code")].count("\n")  # empty lines, so that a traceback has the line of the page
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile("\n" * lines + block["code"], str(chapter), "exec"), namespace)
            outputs.append(output.getvalue())
    pyplot.close("all")
    return outputs


def shown_outputs(chapter: Path) -> list[str]:
    """Return what the page shows as the output of each Python block; an empty string where it shows none."""
    return [block["output"] or "" for block in BLOCK.finditer(chapter.read_text(encoding="utf-8"))]


def shown_pictures(chapter: Path) -> set[str]:
    """Return the names of the pictures that the page shows."""
    return set(re.findall(r"\]\(\.\./images/course/([\w.-]+)\)", chapter.read_text(encoding="utf-8")))


def is_same_output(expected: str, output: str) -> bool:
    """Whether the words are equal and the numbers almost: they may differ by 5 %, or by 3 in the last decimal.

    Trained networks differ a little between processors, because their products are summed in another order.
    """
    if NUMBER.sub("0", expected) != NUMBER.sub("0", output):
        return False
    return all(_is_close(a, b) for a, b in zip(NUMBER.findall(expected), NUMBER.findall(output)))


def _is_close(expected: str, number: str) -> bool:
    mantissa, _, exponent = expected.partition("e")
    last_digit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    digits = 3.01 if "." in mantissa else 1.01 if exponent else 0.0
    allowed = max(0.05 * abs(float(expected)), digits * last_digit)
    return abs(float(expected) - float(number)) <= allowed


def picture_difference(first: Path, second: Path) -> float:
    """Return the largest difference of grey, 0 to 1, between squares of 16 x 16 pixels; 1 if the sizes differ.

    Averages of squares, since versions of matplotlib place letters differently by parts of a pixel.
    """
    from matplotlib.image import imread

    pictures = [imread(path)[..., :3].mean(axis=-1) for path in (first, second)]
    if pictures[0].shape != pictures[1].shape:
        return 1.0
    rows, columns = (size // 16 * 16 for size in pictures[0].shape)
    squares = [p[:rows, :columns].reshape(rows // 16, 16, columns // 16, 16).mean(axis=(1, 3)) for p in pictures]
    return float(numpy.abs(squares[0] - squares[1]).max())


def with_outputs(text: str, outputs: Sequence[str]) -> str:
    """Return the text of a page with other outputs."""
    remaining = iter(outputs)

    def block(match: re.Match[str]) -> str:
        output = next(remaining)
        return f"```python\n{match['code']}```\n" + (f"\n```text\n{output}```\n" if output else "")

    return BLOCK.sub(block, text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.course", description="Run the chapters of docs/course.")
    parser.add_argument("--write", action="store_true", help="update the outputs in the pages, and docs/images/course")
    parser.add_argument("--only", default="", help="chapters whose name contains this")
    options = parser.parse_args(arguments)
    for chapter in CHAPTERS:
        if options.only not in chapter.name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            outputs = run(chapter, Path(folder))
            print(f"{chapter.name}: {time.process_time() - start:.1f} s of a core")
            if options.write:
                text = chapter.read_text(encoding="utf-8")
                chapter.write_text(with_outputs(text, outputs), encoding="utf-8")
                for picture in Path(folder).iterdir():
                    shutil.copy(picture, IMAGES / picture.name)
    return 0


if __name__ == "__main__":
    os.environ["GPUNET_BLAS"] = "numpy"
    sys.exit(main())
