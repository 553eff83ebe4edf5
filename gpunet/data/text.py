"""Text as numbers: bytes, characters, or byte pairs, with one interface.

    vocabulary = CharacterVocabulary.of(text)
    tokens = vocabulary.encode(text)     # int64 (n,)
    vocabulary.decode(tokens)            # the text again
    vocabulary.save("vocabulary.json")
    vocabulary = load_vocabulary("vocabulary.json")
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.dtypes import is_integer
from gpunet.backend.files import write_whole
from gpunet.errors import ArgumentError, DataError, MissingDependencyError, ShapeError

__all__ = ["BytePairVocabulary", "ByteVocabulary", "CharacterVocabulary", "load_vocabulary"]

#: What every text is made of: a vocabulary of byte pairs has at least the bytes.
NUM_BYTES = 256
#: The largest size of a file that :func:`load_vocabulary` reads.
_MAX_FILE = 1 << 28


class Vocabulary:
    """Base class of vocabularies: the tokens of a text, numbered from 0 to ``len(vocabulary) - 1``."""

    def __len__(self) -> int:
        raise NotImplementedError

    def encode(self, text: str) -> Tensor:
        """The tokens of a text, int64 (n,), on the CPU.

        Raises:
            ArgumentError: it is no str.
            DataError: the vocabulary lacks a character.
        """
        _check_text(f"{type(self).__name__}.encode", text)
        return make_tensor(self._encoded(text))

    def decode(self, tokens: Any) -> str:
        """The text of tokens: a tensor, an array or a list of integers, of one dimension.

        Raises:
            ArgumentError: the tokens are no integers, or the vocabulary lacks one.
            ShapeError: they have another number of dimensions.
        """
        array = tokens.detach().array if isinstance(tokens, Tensor) else tokens
        try:
            array = devices.to_host(array) if devices.is_array(array) else numpy.asarray(array)
        except ValueError:
            raise ShapeError(f"{type(self).__name__}.decode: tokens in lists of several lengths; expected one dimension") from None
        array = array.astype(numpy.int64) if not array.size else array
        if array.ndim != 1:
            raise ShapeError(f"{type(self).__name__}.decode: tokens of shape {array.shape}; expected one dimension")
        if not is_integer(array.dtype):
            raise ArgumentError(f"{type(self).__name__}.decode: tokens of dtype {array.dtype}; expected integers")
        is_unknown = (array < 0) | (array >= len(self))
        if is_unknown.any():
            token = int(array[is_unknown.argmax()])
            raise ArgumentError(f"{type(self).__name__}.decode: the token {token}; expected 0 to {len(self) - 1}")
        return self._decoded(array)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as JSON, whole or not at all; :func:`load_vocabulary` reads it."""
        write_whole(Path(path), self._as_json(), is_durable=True)

    def _encoded(self, text: str) -> numpy.ndarray:
        raise NotImplementedError

    def _decoded(self, tokens: numpy.ndarray) -> str:
        raise NotImplementedError

    def _as_json(self) -> str:
        raise NotImplementedError


class ByteVocabulary(Vocabulary):
    """The 256 bytes, of text in UTF-8.  Bytes that are no UTF-8 are decoded as the replacement character."""

    def __len__(self) -> int:
        return NUM_BYTES

    def __repr__(self) -> str:
        return "ByteVocabulary()"

    def _encoded(self, text: str) -> numpy.ndarray:
        return numpy.frombuffer(_utf8(text), numpy.uint8).astype(numpy.int64)

    def _decoded(self, tokens: numpy.ndarray) -> str:
        return tokens.astype(numpy.uint8).tobytes().decode("utf-8", errors="replace")

    def _as_json(self) -> str:
        return json.dumps({"gpunet": "bytes"})


class CharacterVocabulary(Vocabulary):
    """Characters, in a fixed order.

    Args:
        characters: each once.

    Raises:
        ArgumentError: there are none, or one occurs twice.
    """

    def __init__(self, characters: str) -> None:
        if not isinstance(characters, str) or not characters or len(set(characters)) < len(characters):
            raise ArgumentError(f"CharacterVocabulary: characters={characters!r:.80}; expected different characters")
        self.characters = characters
        self._points = numpy.array([*map(ord, characters)], numpy.int64)
        self._order = numpy.argsort(self._points)

    @classmethod
    def of(cls, text: str) -> CharacterVocabulary:
        """The characters of a text, in the order of their code points.

        Raises:
            ArgumentError: the text is empty, or no str.
        """
        _check_text("CharacterVocabulary.of", text)
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def __repr__(self) -> str:
        return f"CharacterVocabulary({self.characters!r})"

    def _encoded(self, text: str) -> numpy.ndarray:
        points = numpy.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), "<u4").astype(numpy.int64)
        places = numpy.searchsorted(self._points, points, sorter=self._order).clip(max=len(self) - 1)
        tokens = self._order[places]
        is_unknown = self._points[tokens] != points
        if is_unknown.any():
            at = int(is_unknown.argmax())
            raise DataError(
                f"CharacterVocabulary.encode: the character {text[at]!r} at position {at} is not among the {len(self)} of the "
                "vocabulary; make it of a text with all characters, or use ByteVocabulary"
            )
        return tokens

    def _decoded(self, tokens: numpy.ndarray) -> str:
        return "".join(map(self.characters.__getitem__, tokens.tolist()))

    def _as_json(self) -> str:
        return json.dumps({"gpunet": "characters", "characters": self.characters})


class BytePairVocabulary(Vocabulary):
    """Frequent sequences of bytes, by the package tokenizers.

    With a vocabulary of :meth:`train`, any text can be encoded, and is decoded to itself.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``, such as one of another model, whose rules of truncation and padding apply.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def train(cls, texts: str | Iterable[str], size: int) -> BytePairVocabulary:
        """Merge the most frequent pairs of tokens of texts, beginning with the bytes, until there are ``size`` tokens.

        Args:
            texts: a text, or several.
            size: at most so many tokens; 256 or more.

        Raises:
            ArgumentError: the size is below 256.
            MissingDependencyError: tokenizers is not installed.
        """
        if not isinstance(size, int) or size < NUM_BYTES:
            raise ArgumentError(f"BytePairVocabulary.train: size={size!r}; expected an integer of {NUM_BYTES} or more, the bytes")
        tokenizers = _tokenizers()
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), show_progress=False
        )
        tokenizer.train_from_iterator([texts] if isinstance(texts, str) else texts, trainer)
        return cls(tokenizer)

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def __repr__(self) -> str:
        return f"<BytePairVocabulary of {len(self)} tokens>"

    def _encoded(self, text: str) -> numpy.ndarray:
        _utf8(text)
        return numpy.array(self.tokenizer.encode(text, add_special_tokens=False).ids, numpy.int64)

    def _decoded(self, tokens: numpy.ndarray) -> str:
        return str(self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False))

    def _as_json(self) -> str:
        return str(self.tokenizer.to_str())


def load_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
    """Read a vocabulary that was saved, or the tokenizer.json of the package tokenizers, without its truncation and padding.

    Raises:
        DataError: the file cannot be read, or contains no vocabulary.
        MissingDependencyError: byte pairs need tokenizers.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE + 1)
        text = content.decode("utf-8")
        found = json.loads(text)
    except OSError as error:
        raise DataError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{os.fspath(path)} contains no vocabulary: {error}; expected JSON of Vocabulary.save") from None
    kind = found.get("gpunet") if isinstance(found, dict) else None
    try:
        if kind == "bytes":
            return ByteVocabulary()
        if kind == "characters":
            return CharacterVocabulary(found["characters"])
    except (KeyError, ArgumentError) as error:
        raise DataError(f"{os.fspath(path)} contains no vocabulary: {error}") from None
    try:
        tokenizer = _tokenizers().Tokenizer.from_str(text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return BytePairVocabulary(tokenizer)
    except MissingDependencyError:
        raise
    except Exception as error:  # the only type that tokenizers raises
        raise DataError(f"{os.fspath(path)} contains no vocabulary: {error}; expected JSON of Vocabulary.save") from None


def _check_text(function: str, text: Any) -> None:
    if not isinstance(text, str):
        raise ArgumentError(f"{function}: a text of type {type(text).__name__}; expected str")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"encode: the text is not Unicode: {error}") from None


def _tokenizers() -> Any:
    try:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers  # noqa: F401  which the package has as attributes then
    except ImportError:
        raise MissingDependencyError(
            "byte pairs need tokenizers, which is not installed: pip install 'gpunet[text]'"
        ) from None
    return tokenizers

