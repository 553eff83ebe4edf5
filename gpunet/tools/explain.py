"""``gpunet explain``: backpropagation of a small net with every number shown.

The output is the forward pass, the error, every link of the chain rule with its formula and value, the mean over the batch,
and a step of gradient descent. Each value is computed by hand and by the engine.
"""

from __future__ import annotations

import random
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import is_floating, is_integer
from gpunet.backend.files import replacing
from gpunet.errors import ArgumentError
from gpunet.tools.derivation import Section, derive
from gpunet.tools.derivation_text import render, terminal_has_unicode
from gpunet.tools.explain_model import derive_model
from gpunet.tools.explain_page import Part, render_page
from gpunet.tools.textbook import TEXTBOOK_ACTIVATIONS, Layer, Matrix, Vector

MAX_NUMBER = 1e6  # largest weight, bias, input or target: larger numbers teach nothing, and their cubes soon overflow
MAX_WEIGHTS = 400  # weights times samples: each of them is printed


class Options(NamedTuple):
    """The options of the command line as given; None selects a default."""

    layers: str | None = None
    weights: str | None = None
    biases: str | None = None
    input: str | None = None
    target: str | None = None
    activation: str = "sigmoid"
    lr: str = "0.5"
    seed: int = 0
    precision: int = 6
    plain: bool = False
    html: str | None = None
    model: str | None = None
    row: int | None = None
    data: str | None = None


#: The two parts that are shown by default.
_CHAIN: dict[str, Any] = {"weights": "0.5,-1.2,0.8", "biases": "0.1,0,0.3", "input": "0.5", "target": "1"}
_NET: dict[str, Any] = {
    "layers": "2,1,2", "weights": "0.6,-0.4,0.9,-0.7", "biases": "0.1,0,0.2",
    "input": "1,0.5;-0.5,1", "target": "1,0;0,1",
}  # fmt: skip


def explain(options: Options) -> int:
    """Print the derivation, or write it as a page.

    Returns:
        The exit code: 0 if every number agrees with the engine's, else 1.

    Raises:
        ArgumentError: an invalid option; the message has its value and what was expected.
    """
    if not 1 <= options.precision <= 15:
        raise ArgumentError(f"--precision {options.precision}: expected 1 to 15 digits")
    (lr,) = _numbers(options.lr, "--lr", 1)
    if lr <= 0.0:
        raise ArgumentError(f"--lr {options.lr}: expected a positive learning rate")
    plain = options.plain or not terminal_has_unicode()
    if options.model is not None or options.row is not None or options.data is not None:
        return _print(_of_model(options), options.precision, plain)
    parts = _parts(options)
    if options.html is not None:
        return _write_page(options.html, render_page(parts, lr, options.precision))
    sections: list[Section] = []
    for number, part in enumerate(parts, 1):
        title = f"{number}. {part.title}" if len(parts) > 1 else part.title
        sections += derive(part.net, part.inputs, part.targets, lr, title, is_continued=number > 1)
    return _print(sections, options.precision, plain)


def _of_model(options: Options) -> list[Section]:
    """The derivation for a row of a trained network."""
    if options.model is None:
        raise ArgumentError("--row and --data need --model: a folder that 'gpunet train' has written")
    others = {"--layers": options.layers, "--weights": options.weights, "--biases": options.biases, "--input": options.input,
              "--target": options.target, "--html": options.html}  # fmt: skip
    given = [name for name, value in others.items() if value is not None]
    if given == ["--html"]:
        raise ArgumentError("--html shows a net of --layers and --weights, not that of --model; leave out --html for the text")
    if given:
        raise ArgumentError(f"{given[0]} describes a net, but --model {options.model} has one already; remove one of them")
    return derive_model(options.model, 1 if options.row is None else options.row, options.data)


def _print(sections: list[Section], precision: int, plain: bool) -> int:
    sys.stdout.write(render(sections, precision, plain, shutil.get_terminal_size((100, 24)).columns))
    return 0 if all(step.agrees for section in sections for step in section.steps) else 1


def _write_page(path: str, page: str) -> int:
    try:
        with replacing(Path(path)) as temporary:
            Path(temporary).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"--html {path}: cannot write it: {error.strerror}") from None
    sys.stdout.write(f"wrote {path}; open it in a browser\n")
    return 0


def _parts(options: Options) -> list[Part]:
    """The nets that the options describe; two examples if they describe none."""
    given = (options.layers, options.weights, options.biases, options.input, options.target)
    if given != (None,) * 5 or "," in options.activation:
        net = _net(options)
        inputs, targets = _samples(options, net)
        return [Part(_title(net, len(inputs)), net, inputs, targets)]
    titles = {"A chain of three neurons": _CHAIN, "A neuron that feeds two others, and two samples": _NET}
    chosen = {title: options._replace(**example) for title, example in titles.items()}
    return [Part(title, net := _net(example), *_samples(example, net)) for title, example in chosen.items()]


# ---- from options to a net ------------------------------------------------------------------------------------------


def _title(net: Sequence[Layer], samples: int) -> str:
    sizes = [len(net[0].w[0]), *(len(layer.w) for layer in net)]
    chain = f"A chain of {len(net)} neurons" if len(net) > 1 else "One neuron"
    title = chain if max(sizes) == 1 else f"A net of layers {'-'.join(map(str, sizes))}"
    return title + (f" and {samples} samples" if samples > 1 else "")


def _numbers(text: str, option: str, count: int | None = None, expected: str = "number(s)") -> Vector:
    """Parse numbers separated by commas, and check that there are ``count``."""
    values = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            raise ArgumentError(
                f"{option} {text!r}: {part.strip()!r} is not a number; expected numbers separated by commas"
            ) from None
        if not abs(value) <= MAX_NUMBER:
            raise ArgumentError(f"{option} {text!r}: {part.strip()} is out of range; expected -1e6 to 1e6")
        values.append(value)
    if count is not None and len(values) != count:
        raise ArgumentError(f"{option} {text!r}: got {len(values)}, expected {count} {expected}")
    return values


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) < 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentError(f"--layers {text!r}: expected at least two positive integers, inputs first: 2,3,1")
    return [int(part) for part in parts]


def _net(options: Options) -> list[Layer]:
    sizes = None if options.layers is None else _sizes(options.layers)
    if options.weights is not None and options.weights.endswith(".npz"):
        matrices, biases = _read_npz(Path(options.weights), options.biases)
        found = [len(matrices[0][0]), *map(len, matrices)]
        if sizes not in (None, found):
            raise ArgumentError(f"--layers {options.layers}: {options.weights} holds layers {found}")
        return _with_activations(matrices, biases, options.activation)
    given_biases = options.biases
    if sizes is None:
        if options.weights is None and given_biases is None:
            given_biases = _CHAIN["biases"]
        weights = _numbers(options.weights if options.weights is not None else _CHAIN["weights"], "--weights")
        sizes = [1] * (len(weights) + 1)
    shapes = list(zip(sizes[1:], sizes))
    count, neurons = sum(out * into for out, into in shapes), sum(sizes[1:])
    if count > MAX_WEIGHTS:
        raise ArgumentError(f"the net has {count} weights; expected at most {MAX_WEIGHTS}, since each is printed")
    draw = random.Random(options.seed)
    if options.weights is not None:
        weights = _numbers(options.weights, "--weights", count, f"weights for layers {sizes}")
    elif options.layers is not None:
        weights = [round(draw.uniform(-1.0, 1.0), 2) for _ in range(count)]
    if given_biases is not None:
        flat = _numbers(given_biases, "--biases", neurons, "biases, one per neuron")
    elif options.layers is not None and options.weights is None:
        flat = [round(draw.uniform(-0.5, 0.5), 2) for _ in range(neurons)]
    else:
        flat = [0.0] * neurons
    next_weight, next_bias = iter(weights), iter(flat)
    matrices = [[[next(next_weight) for _ in range(into)] for _ in range(out)] for out, into in shapes]
    biases = [[next(next_bias) for _ in range(out)] for out in sizes[1:]]
    return _with_activations(matrices, biases, options.activation)


def _with_activations(matrices: list[Matrix], biases: list[Vector], text: str) -> list[Layer]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TEXTBOOK_ACTIVATIONS:
            raise ArgumentError(f"--activation {name!r}: unknown activation; expected one of {', '.join(TEXTBOOK_ACTIVATIONS)}")
    if len(names) not in (1, len(matrices)):
        raise ArgumentError(
            f"--activation {text!r}: got {len(names)}; expected one, or one per layer ({len(matrices)})"
        )
    names *= len(matrices) // len(names)
    return [Layer(*layer) for layer in zip(matrices, biases, names)]


def _read_npz(path: Path, given_biases: str | None) -> tuple[list[Matrix], list[Vector]]:
    """Weights and biases of a .npz file: 2-d arrays in the order of the file, each optionally followed by its 1-d bias."""
    option = f"--weights {str(path)!r}"
    if given_biases is not None:
        raise ArgumentError(f"--biases {given_biases!r}: {path} contains the biases; remove the option")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ArgumentError(f"{option}: not a readable .npz file; numpy.savez writes one")
    try:
        # numpy.load(path) does not close a file that it cannot read
        with path.open("rb") as file, numpy.load(file, allow_pickle=False) as archive:
            arrays = {name: numpy.asarray(archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise ArgumentError(
            f"{option}: no such file; expected numbers separated by commas, or a .npz file"
        ) from None
    except Exception as error:  # a damaged archive raises exceptions of many types
        raise ArgumentError(f"{option}: not a readable .npz file: {error}") from error
    matrices: list[Matrix] = []
    biases: list[Vector] = []
    for name, array in arrays.items():
        if not (is_floating(array.dtype) or is_integer(array.dtype)) or array.ndim not in (1, 2) or not array.size:
            raise ArgumentError(f"{option}: {name} has shape {array.shape}, {array.dtype}; expected weights or a bias")
        if not (numpy.abs(array) <= MAX_NUMBER).all():
            raise ArgumentError(f"{option}: {name} contains numbers out of range; expected -1e6 to 1e6")
        if array.ndim == 2:
            if matrices and array.shape[1] != len(matrices[-1]):
                raise ArgumentError(f"{option}: {name} has shape {array.shape}; expected (out, {len(matrices[-1])})")
            matrices.append(array.astype(float).tolist())
            biases.append([0.0] * len(array))
        elif not matrices or len(array) != len(biases[-1]):
            raise ArgumentError(f"{option}: {name} has shape {array.shape}; expected a bias that follows its weights")
        else:
            biases[-1] = array.astype(float).tolist()
    if not matrices:
        raise ArgumentError(f"{option}: the file contains no weights; expected 2-d arrays of shape (out, in)")
    return matrices, biases


def _samples(options: Options, net: Sequence[Layer]) -> tuple[Matrix, Matrix]:
    """Inputs and targets, one row per sample. If one of them is not given, it is generated for the same number of samples."""
    into, out = len(net[0].w[0]), len(net[-1].w)
    inputs = targets = None
    if options.input is not None:
        rows = options.input.split(";")
        inputs = [_numbers(row, "--input", into, "per sample (samples are separated by ';')") for row in rows]
    if options.target is not None:
        rows = options.target.split(";")
        targets = [_numbers(row, "--target", out, "per sample (samples are separated by ';')") for row in rows]
    count = len(inputs or targets or [0])
    if inputs is None:
        inputs = [[round(0.5 - 0.3 * ((i + 2 * j) % 5), 1) for j in range(into)] for i in range(count)]
    if targets is None:
        targets = [[float((i + k) % 2 == 0) for k in range(out)] for i in range(count)]
    if len(inputs) != len(targets):
        raise ArgumentError(
            f"--target {options.target!r}: {len(targets)} sample(s); expected {len(inputs)}, as in --input"
        )
    weights = sum(len(layer.w) * len(layer.w[0]) for layer in net)
    if weights * count > MAX_WEIGHTS:
        raise ArgumentError(
            f"{weights} weights and {count} sample(s); expected at most {MAX_WEIGHTS} weights times samples, since each is printed"
        )
    return inputs, targets
