"""Spellings of one call: positional and keyword arguments, defaults written out, unknown and surplus arguments."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from tests.torch_calls.draw import Call, Drawing
from tests.torch_calls.outcome import run
from tests.torch_calls.schemas import Overload, Parameter
from tests.torch_calls.targets import Target
from tests.torch_calls.values import BACKENDS, NUMPY_NAMES

#: How often arguments are drawn until PyTorch accepts them.
ATTEMPTS = 300

Arguments = list[tuple[Parameter, str]]


class Spelling:
    """Arguments of an overload that PyTorch accepts, and the ways to write them."""

    def __init__(self, drawing: Drawing, receiver: str, arguments: Arguments) -> None:
        self.drawing, self.receiver, self.arguments = drawing, receiver, arguments

    def call(self, positional: Arguments, by_keyword: Arguments, *more: str) -> Call:
        texts = [text for _, text in positional]
        texts += [f"{self.drawing.keyword(p)}={text}" for p, text in by_keyword]
        return self.drawing.done(f"r = {self.receiver}{self.drawing.target.name}({', '.join([*texts, *more])})")

    def positional(self) -> tuple[Arguments, Arguments]:
        """The arguments split into those that can be positional, and the rest."""
        arguments = self.arguments
        count = next((i for i, (p, _) in enumerate(arguments) if p.is_keyword_only), len(arguments))
        return arguments[:count], arguments[count:]

    def all(self, overload: Overload) -> Iterator[Call]:
        positional, rest = self.positional()
        yield self.call(positional, rest)
        for count in range(len(positional)):
            yield self.call(positional[:count], positional[count:] + rest)
        yield self.call([], rest[::-1] + positional[::-1])
        required = [(p, text) for p, text in self.arguments if p.default is None]
        yield self.call([], required)
        for p in overload.parameters:
            if p.default is not None:
                yield self.call([], [*required, (p, p.default)])
        for p, text in self.arguments:
            if (alias := NUMPY_NAMES.get(self.drawing.keyword(p))) is not None:
                others = [a for a in self.arguments if a[0] is not p]
                yield self.call([], others, f"{alias}={text}")
        yield self.call(positional, rest, "unexpected=1")
        yield self.call([*positional, (overload.parameters[0], "None")], rest)


def spellings(target: Target, torch: Any, gpunet: Any) -> Iterator[Call]:
    """Calls of each overload of a target, with arguments that both libraries accept in one spelling, if there are any.

    Nothing for an overload that PyTorch does not have on this machine.
    """
    for number, overload in enumerate(target.overloads):
        if overload.has_out:
            continue
        chosen = None
        for attempt in range(ATTEMPTS):
            spelling = _draw(target, overload, Random(f"{target.full_name} {number} {attempt}"))
            texts = [call.text for call in (spelling.call(*spelling.positional()), spelling.call([], spelling.arguments))]
            if run(texts[0], torch).error is None:
                chosen = chosen or spelling
                if any(run(text, gpunet).error is None for text in texts):
                    chosen = spelling
                    break
        if chosen is not None:
            yield from chosen.all(overload)


def _draw(target: Target, overload: Overload, random: Random) -> Spelling:
    drawing = Drawing(random, target)
    drawing.is_special = drawing.has_grad = False
    arguments: Arguments = []
    for p in overload.parameters:
        if p.type.rstrip("?") in BACKENDS or p.name == "out":
            continue
        if (text := drawing.argument(p)) is not None:
            arguments.append((p, text))
    receiver = drawing.take_receiver(arguments)
    return Spelling(drawing, receiver, arguments)
