"""Vocabularies: tokens of a text and back, files, and errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.data import BytePairVocabulary, ByteVocabulary, CharacterVocabulary, load_vocabulary
from gpunet.errors import ArgumentError, DataError, MissingDependencyError, ShapeError

TEXT = "the cat sat on the mat; the rat, too. Größe: 5 µm, 日本 👩‍🔬\n\t" * 3


def byte_pairs(text: str = TEXT, size: int = 300) -> BytePairVocabulary:
    pytest.importorskip("tokenizers")
    return BytePairVocabulary.train(text, size)


MAKE: dict[str, Any] = {"bytes": ByteVocabulary, "characters": lambda: CharacterVocabulary.of(TEXT), "byte pairs": byte_pairs}


@pytest.mark.parametrize("name", MAKE)
def test_texts_are_decoded_to_themselves(name: str, tmp_path: Path) -> None:
    vocabulary = MAKE[name]()
    tokens = vocabulary.encode(TEXT)
    assert tokens.dtype == gpunet.int64 and tokens.ndim == 1 and 0 <= int(tokens.min()) <= int(tokens.max()) < len(vocabulary)
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = load_vocabulary(tmp_path / "vocabulary.json")
    assert type(loaded) is type(vocabulary) and len(loaded) == len(vocabulary)
    for other in (vocabulary, loaded):
        assert other.encode(TEXT).tolist() == tokens.tolist()
        for form in (tokens, tokens.numpy(), tokens.tolist(), tokens.to("int16")):
            assert other.decode(form) == TEXT
    assert vocabulary.encode("").tolist() == [] and vocabulary.decode([]) == ""


def test_tokens() -> None:
    assert ByteVocabulary().encode("aé").tolist() == [97, 0xC3, 0xA9] and len(ByteVocabulary()) == 256
    assert ByteVocabulary().decode([97, 0xC3]) == "a\N{REPLACEMENT CHARACTER}"
    assert CharacterVocabulary("zab").encode("abz").tolist() == [1, 2, 0]
    assert CharacterVocabulary.of("banana").characters == "abn"


def test_byte_pairs_merge_what_is_frequent_and_take_any_text() -> None:
    vocabulary = byte_pairs("low lower lowest " * 50, 260)
    assert len(vocabulary) == 260 and len(vocabulary.encode("low low")) == 2  # "low" and " low"
    strange = "".join(map(chr, numpy.random.default_rng(0).integers(32, 0xD000, 500)))
    assert vocabulary.decode(vocabulary.encode(strange)) == strange
    assert len(byte_pairs(["ab", "ab"], 257)) == 257


def test_a_tokenizer_of_another_model_neither_cuts_nor_pads(tmp_path: Path) -> None:
    vocabulary = byte_pairs()
    tokens = vocabulary.encode(TEXT).tolist()
    vocabulary.tokenizer.enable_truncation(3)
    vocabulary.tokenizer.enable_padding(length=2 * len(tokens))
    vocabulary.save(tmp_path / "tokenizer.json")
    assert load_vocabulary(tmp_path / "tokenizer.json").encode(TEXT).tolist() == tokens


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_saved_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    ByteVocabulary().save(tmp_path / "vocabulary.json")
    assert (tmp_path / "vocabulary.json").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert len([*tmp_path.iterdir()]) == 2


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = CharacterVocabulary("abc")
    with pytest.raises(DataError, match="the character 'x' at position 2 is not among the 3 of the vocabulary; .*ByteVocabulary"):
        letters.encode("abx")
    with pytest.raises(ArgumentError, match="the token 3; expected 0 to 2"):
        letters.decode([0, 3])
    with pytest.raises(ArgumentError, match="tokens of dtype float32; expected integers"):
        letters.decode(gpunet.ones(2))
    with pytest.raises(ShapeError, match=r"tokens of shape \(1, 1\); expected one dimension"):
        letters.decode([[0]])
    with pytest.raises(ShapeError, match="tokens in lists of several lengths; expected one dimension"):
        letters.decode([[0], [1, 2]])
    for function, text in ((ByteVocabulary().encode, b"ab"), (letters.encode, None), (CharacterVocabulary.of, ["ab", "c"])):
        with pytest.raises(ArgumentError, match=f"a text of type {type(text).__name__}; expected str"):
            function(text)  # type: ignore[operator]
    for characters in ("", "aa", ["a"]):
        with pytest.raises(ArgumentError, match="expected different characters"):
            CharacterVocabulary(characters)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not Unicode"):
        ByteVocabulary().encode("\ud800")
    with pytest.raises(ArgumentError, match="size=255; expected an integer of 256 or more"):
        BytePairVocabulary.train("a", 255)
    with pytest.raises(DataError, match="cannot read"):
        load_vocabulary(tmp_path / "nothing.json")
    path = tmp_path / "vocabulary.json"
    for content in ("", "[" * 100_000, '{"gpunet": "characters"}', '{"gpunet": "characters", "characters": "aa"}', "\udcff"):
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(DataError, match="contains no vocabulary"):
            load_vocabulary(path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gpunet\[text\]'"):
        BytePairVocabulary.train("a", 300)


@pytest.mark.parametrize("content", ["{}", "[1]", '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_damaged_files_of_byte_pairs(content: str, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(DataError, match=r"vocabulary\.json contains no vocabulary"):
        load_vocabulary(tmp_path / "vocabulary.json")
