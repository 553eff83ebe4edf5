"""The course: its chapters run, print and draw what their pages show, and the glossary is in order.

If a chapter was changed on purpose, ``python -m tests.course --write`` updates outputs and pictures.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy
import pytest

from tests import course

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


@pytest.mark.parametrize("chapter", course.CHAPTERS, ids=lambda chapter: chapter.stem)
def test_chapter_prints_and_draws_what_its_page_shows(chapter: Path, tmp_path: Path) -> None:
    outputs = course.run(chapter, tmp_path)
    expected = course.shown_outputs(chapter)
    differing = [(e, o) for e, o in zip(expected, outputs) if not course.is_same_output(e, o)]
    assert not differing

    [picture] = course.shown_pictures(chapter)
    assert [path.name for path in tmp_path.iterdir()] == [picture]
    assert course.picture_difference(course.IMAGES / picture, tmp_path / picture) < 0.25


def test_every_picture_is_shown() -> None:
    shown = set().union(*map(course.shown_pictures, course.CHAPTERS))
    assert {path.name for path in course.IMAGES.iterdir()} == shown


def test_outputs_differ_by_words_and_by_numbers() -> None:
    shown = "loss 0.412 after 60 steps, gradient 2e-13\n"
    assert course.is_same_output(shown, "loss 0.409 after 61 steps, gradient 3e-13\n")
    for other in ("cost 0.412 after 60 steps, gradient 2e-13\n", "loss 0.44 after 60 steps, gradient 2e-13\n"):
        assert not course.is_same_output(shown, other)
    assert not course.is_same_output(shown, shown.replace("e-13", "e-12"))
    assert not course.is_same_output("w = 0.2188\n", "w = -0.2188\n")


def test_pictures_differ_by_a_line_and_not_by_a_pixel(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    picture = numpy.ones((64, 64, 3))
    picture[32] = 0.0
    moved, other = numpy.roll(picture, 1, axis=0), numpy.roll(picture, 8, axis=1)
    other[40:48] = 0.0
    for name, pixels in (("a.png", picture), ("moved.png", moved), ("other.png", other), ("small.png", picture[:32])):
        image.imsave(tmp_path / name, pixels)
    assert course.picture_difference(tmp_path / "a.png", tmp_path / "moved.png") < 0.01
    assert course.picture_difference(tmp_path / "a.png", tmp_path / "other.png") > 0.4
    assert course.picture_difference(tmp_path / "a.png", tmp_path / "small.png") == 1.0


def test_writing_a_page_again_changes_nothing() -> None:
    for chapter in course.CHAPTERS:
        text = chapter.read_text(encoding="utf-8")
        assert course.with_outputs(text, course.shown_outputs(chapter)) == text


def test_glossary_is_sorted_and_complete() -> None:
    text = (course.ROOT / "docs" / "course" / "glossary.md").read_text(encoding="utf-8")
    entries = re.sub(r"\n  ", " ", text).split("\n- ")[1:]
    parts = [re.fullmatch(r"\*\*`?(.+?)`?\*\*, \*(.+?)\*: .+\. \[Chapter (\d+)\]\((\d+)-[\w-]+\.md\)", e.strip()) for e in entries]
    assert all(parts), [e for e, p in zip(entries, parts) if p is None]
    terms = [p[1].lower().replace("-", " ") for p in parts if p]
    assert terms == sorted(set(terms))
    assert all(int(p[3]) == int(p[4]) for p in parts if p)
    assert {int(p[3]) for p in parts if p} == set(range(1, len(course.CHAPTERS) + 1))
