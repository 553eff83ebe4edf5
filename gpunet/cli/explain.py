"""``gpunet explain``: backpropagation with every number on the table.

For a small net of given weights it prints the forward pass, the error, every link of the chain rule with its formula
and its number, the mean over the batch, and gradient descent as a step of its own; each number beside the engine's.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import shutil
import sys
import textwrap
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy

import gpunet
from gpunet.backend.devices import default_device
from gpunet.errors import ArgumentError
from gpunet.tools.by_hand import SQUASHES, Layer, Matrix, Vector
from gpunet.tools.derivation import Section, Step, derive

LARGEST_NUMBER = 1e6  # of what is given: beyond it nobody learns anything, and cubes overflow soon
MOST_WEIGHTS = 400  # times samples: every one of them is printed

#: Options of the two parts that are shown where none are given.
_CHAIN = {"weights": "0.5,-1.2,0.8", "biases": "0.1,0,0.3", "input": "0.5", "target": "1"}
_NET = {
    "layers": "2,1,2", "weights": "0.6,-0.4,0.9,-0.7", "biases": "0.1,0,0.2",
    "input": "1,0.5;-0.5,1", "target": "1,0;0,1",
}  # fmt: skip

_EPILOG = """\
examples:
  gpunet explain                                          a chain of neurons, then a small net and two samples
  gpunet explain --weights 0.5,-1.2,0.8 --biases 0.1,0,0.3 --input 0.5 --target 1
  gpunet explain --layers 2,3,1 --activation tanh --seed 7 --input "0.5,1;-1,0.2" --target "1;0"
  gpunet explain --weights net.npz                        w1, b1, w2, b2, ... as NumPy saves them, weights (out, in)
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the subcommand ``explain``."""
    parser = subparsers.add_parser(
        "explain",
        help="show backpropagation number by number, checked against the engine",
        description="Show what backpropagation does: forward pass, error, every link of the chain rule with its\n"
        "formula and its number, the mean over the batch, and the step of gradient descent, each checked\n"
        "against the engine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser._negative_number_matcher = re.compile(r"^-[\d.]")  # so that "--weights -0.5,1" is a value, not an option
    add = parser.add_argument
    add("--layers", metavar="N,N,...", help="sizes of the layers, inputs first: 2,3,1 (default: a chain, all 1)")
    add("--weights", metavar="W,W,...", help="weights, neuron by neuron from the first layer on, or a .npz file")
    add("--biases", metavar="B,B,...", help="biases, neuron by neuron (default: 0)")
    add("--input", metavar="X,...", help="inputs of a sample; samples are separated by ';' (quote them for the shell)")
    add("--target", metavar="Y,...", help="what the last layer should give, for each sample")
    names = ", ".join(SQUASHES)
    add("--activation", default="sigmoid", metavar="NAME", help=f"{names}; or one for each layer: tanh,sigmoid")
    add("--lr", default="0.5", metavar="RATE", help="learning rate of the step of gradient descent (default: 0.5)")
    add("--seed", type=int, default=0, help="draws the weights of --layers where --weights are not given (default: 0)")
    add("--precision", type=int, default=6, metavar="DIGITS", help="digits after the decimal point (default: 6)")
    add("--plain", action="store_true", help="ASCII only (by itself where the terminal has no UTF-8)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the derivation.

    Returns:
        0 when every number agrees with the engine's, else 1.

    Raises:
        ArgumentError: an option that cannot be used; the message names it, its value and what was expected.
    """
    if not 1 <= arguments.precision <= 15:
        raise ArgumentError(f"--precision {arguments.precision}: expected 1 to 15 digits")
    (lr,) = _numbers(arguments.lr, "--lr", 1)
    if lr <= 0.0:
        raise ArgumentError(f"--lr {arguments.lr}: expected a positive learning rate")
    sections: list[Section] = []
    given = (arguments.layers, arguments.weights, arguments.biases, arguments.input, arguments.target)
    if given == (None,) * 5 and "," not in arguments.activation:
        first = argparse.Namespace(**{**vars(arguments), **_CHAIN})
        net = _net(first)
        sections += derive(net, *_samples(first, net), lr, "1. A chain of three neurons")
        second = argparse.Namespace(**{**vars(arguments), **_NET})
        net = _net(second)
        title = "2. A neuron that feeds two others, and two samples"
        sections += derive(net, *_samples(second, net), lr, title, taught=True)
    else:
        net = _net(arguments)
        inputs, targets = _samples(arguments, net)
        sections += derive(net, inputs, targets, lr, _title(net, len(inputs)))
    plain = arguments.plain or not _speaks_unicode()
    sys.stdout.write(render(sections, arguments.precision, plain, shutil.get_terminal_size((100, 24)).columns))
    return 0 if all(step.agrees for section in sections for step in section.steps) else 1


# ---- from options to a net ------------------------------------------------------------------------------------------


def _title(net: Sequence[Layer], samples: int) -> str:
    sizes = [len(net[0].w[0]), *(len(layer.w) for layer in net)]
    chain = f"A chain of {len(net)} neurons" if len(net) > 1 else "One neuron"
    what = chain if max(sizes) == 1 else f"A net of layers {'-'.join(map(str, sizes))}"
    return what + (f" and {samples} samples" if samples > 1 else "")


def _numbers(text: str, option: str, count: int | None = None, what: str = "number(s)") -> Vector:
    """Numbers separated by commas, ``count`` of them."""
    values = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            raise ArgumentError(
                f"{option} {text!r}: {part.strip()!r} is not a number; expected numbers separated by commas"
            ) from None
        if not abs(value) <= LARGEST_NUMBER:
            raise ArgumentError(f"{option} {text!r}: {part.strip()} is out of range; expected -1e6 to 1e6")
        values.append(value)
    if count is not None and len(values) != count:
        raise ArgumentError(f"{option} {text!r}: got {len(values)}, expected {count} {what}")
    return values


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) < 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentError(f"--layers {text!r}: expected at least two positive whole numbers, inputs first: 2,3,1")
    return [int(part) for part in parts]


def _net(arguments: argparse.Namespace) -> list[Layer]:
    sizes = None if arguments.layers is None else _sizes(arguments.layers)
    if arguments.weights is not None and arguments.weights.endswith(".npz"):
        matrices, biases = _read(Path(arguments.weights), arguments.biases)
        found = [len(matrices[0][0]), *map(len, matrices)]
        if sizes not in (None, found):
            raise ArgumentError(f"--layers {arguments.layers}: {arguments.weights} holds layers {found}")
        return _with_activations(matrices, biases, arguments.activation)
    given_biases = arguments.biases
    if sizes is None:
        if arguments.weights is None and given_biases is None:
            given_biases = _CHAIN["biases"]
        weights = _numbers(arguments.weights if arguments.weights is not None else _CHAIN["weights"], "--weights")
        sizes = [1] * (len(weights) + 1)
    shapes = list(zip(sizes[1:], sizes))
    count, neurons = sum(out * into for out, into in shapes), sum(sizes[1:])
    if count > MOST_WEIGHTS:
        raise ArgumentError(f"a net of {count} weights: explain prints them all, and takes up to {MOST_WEIGHTS}")
    draw = random.Random(arguments.seed)
    if arguments.weights is not None:
        weights = _numbers(arguments.weights, "--weights", count, f"weights for layers {sizes}")
    elif arguments.layers is not None:
        weights = [round(draw.uniform(-1.0, 1.0), 2) for _ in range(count)]
    if given_biases is not None:
        flat = _numbers(given_biases, "--biases", neurons, "biases, one for each neuron")
    elif arguments.layers is not None and arguments.weights is None:
        flat = [round(draw.uniform(-0.5, 0.5), 2) for _ in range(neurons)]
    else:
        flat = [0.0] * neurons
    rest, rest_biases = iter(weights), iter(flat)
    matrices = [[[next(rest) for _ in range(into)] for _ in range(out)] for out, into in shapes]
    biases = [[next(rest_biases) for _ in range(out)] for out in sizes[1:]]
    return _with_activations(matrices, biases, arguments.activation)


def _with_activations(matrices: list[Matrix], biases: list[Vector], text: str) -> list[Layer]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SQUASHES:
            raise ArgumentError(f"--activation {name!r}: unknown activation; expected one of {', '.join(SQUASHES)}")
    if len(names) not in (1, len(matrices)):
        raise ArgumentError(
            f"--activation {text!r}: got {len(names)}; expected one, or one for each of {len(matrices)} layers"
        )
    names *= len(matrices) // len(names)
    return [Layer(*layer) for layer in zip(matrices, biases, names)]


def _read(path: Path, given_biases: str | None) -> tuple[list[Matrix], list[Vector]]:
    """Weights and biases of a .npz file: two-dimensional arrays in their order, each with the bias that follows it."""
    option = f"--weights {str(path)!r}"
    if given_biases is not None:
        raise ArgumentError(f"--biases {given_biases!r}: {path} brings its own biases; leave the option out")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ArgumentError(f"{option}: not a readable .npz file; numpy.savez writes one")
    try:
        # opened here, since numpy.load leaves a file open that it cannot read
        with path.open("rb") as file, numpy.load(file, allow_pickle=False) as archive:
            arrays = {name: numpy.asarray(archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise ArgumentError(
            f"{option}: there is no such file; expected numbers separated by commas, or a .npz file"
        ) from None
    except Exception as error:  # a damaged archive raises many kinds
        raise ArgumentError(f"{option}: not a readable .npz file: {error}") from error
    matrices: list[Matrix] = []
    biases: list[Vector] = []
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or not array.size:
            raise ArgumentError(f"{option}: {name} has shape {array.shape}, {array.dtype}; expected weights or a bias")
        if not (numpy.abs(array) <= LARGEST_NUMBER).all():
            raise ArgumentError(f"{option}: {name} holds numbers out of range; expected -1e6 to 1e6")
        if array.ndim == 2:
            if matrices and array.shape[1] != len(matrices[-1]):
                raise ArgumentError(f"{option}: {name} has shape {array.shape}; expected (out, {len(matrices[-1])})")
            matrices.append(array.astype(float).tolist())
            biases.append([0.0] * len(array))
        elif not matrices or len(array) != len(biases[-1]):
            raise ArgumentError(f"{option}: {name} has shape {array.shape}; expected a bias right after its weights")
        else:
            biases[-1] = array.astype(float).tolist()
    if not matrices:
        raise ArgumentError(f"{option}: no weights in it; expected two-dimensional arrays (out, in)")
    return matrices, biases


def _samples(arguments: argparse.Namespace, net: Sequence[Layer]) -> tuple[Matrix, Matrix]:
    """Inputs and targets, a row a sample; what is not given is made up, for as many samples as the other has."""
    into, out = len(net[0].w[0]), len(net[-1].w)
    inputs = targets = None
    if arguments.input is not None:
        rows = arguments.input.split(";")
        inputs = [_numbers(row, "--input", into, "for each sample (samples are separated by ';')") for row in rows]
    if arguments.target is not None:
        rows = arguments.target.split(";")
        targets = [_numbers(row, "--target", out, "for each sample (samples are separated by ';')") for row in rows]
    count = len(inputs or targets or [0])
    if inputs is None:
        inputs = [[round(0.5 - 0.3 * ((i + 2 * j) % 5), 1) for j in range(into)] for i in range(count)]
    if targets is None:
        targets = [[float((i + k) % 2 == 0) for k in range(out)] for i in range(count)]
    if len(inputs) != len(targets):
        raise ArgumentError(
            f"--target {arguments.target!r}: {len(targets)} sample(s); expected {len(inputs)}, as in --input"
        )
    weights = sum(len(layer.w) * len(layer.w[0]) for layer in net)
    if weights * count > MOST_WEIGHTS:
        raise ArgumentError(
            f"{weights} weights and {count} sample(s): explain prints each, and takes up to {MOST_WEIGHTS} in all"
        )
    return inputs, targets


# ---- from a derivation to text ---------------------------------------------------------------------------------------

_ASCII = {
    "∂": "d", "·": "*", "−": "-", "²": "^2", "³": "^3", "σ": "sigmoid", "η": "lr", "←": "<-", "✓": "ok", "✗": "WRONG",
    "Φ": "Phi", "φ": "phi", "√": "sqrt", "π": "pi", "…": "...", "─": "-", "═": "=", "\u00a0": " ",
}  # fmt: skip
_PLAIN = str.maketrans(_ASCII)
_NICE = str.maketrans({"\u00a0": " "})


def _speaks_unicode() -> bool:
    try:
        "".join(_ASCII).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def render(sections: Iterable[Section], precision: int, plain: bool, width: int) -> str:
    """The sections as text of at most ``width`` columns where formulas allow it, in ASCII where ``plain``."""
    table = _PLAIN if plain else _NICE
    lines: list[str] = []
    steps: list[Step] = []
    for section in sections:
        steps += section.steps
        lines += _heading(section.level, section.heading.translate(table), min(width, 100))
        for text in section.text:
            lines += _paragraph(text.translate(table), width)
        if section.steps:
            show = _brief if section.brief else _table
            lines += show(section.steps, precision, width, table)
        for text in section.remarks:
            lines += ["", *_paragraph(text.translate(table), width)]
    return "\n".join([*lines, "", *_verdict(steps), ""]).translate(table).lstrip("\n")


def _heading(level: int, heading: str, width: int) -> list[str]:
    if level == 1:
        return ["", f"═══ {heading} ".ljust(width, "═")]
    if level == 2:
        return ["", f"─── {heading} ".ljust(width, "─")]
    return [f"{heading}:"]


def _paragraph(text: str, width: int) -> list[str]:
    # no line break beside an operator: the spaces there are made unbreakable, and plain again at the end
    glued = re.sub(r" ([=+−<-]|←|<-) ", "\u00a0\\1\u00a0", text)
    label = re.match(r"[\w ]+:  ", text)
    indent = " " * label.end() if label else ""
    return textwrap.wrap(
        glued, min(width, 100), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip


def _value(value: float, precision: int) -> str:
    value += 0.0  # takes the sign off -0.0
    if value != 0.0 and not 10.0 ** min(2 - precision, -1) <= abs(value) < 1e6 and math.isfinite(value):
        return f"{value:.{max(precision - 3, 1)}e}"
    return f"{value:.{precision}f}"


def _check(step: Step, precision: int) -> str:
    return f"{'✓' if step.agrees else '✗'} engine {_value(step.engine, precision)}"


def _table(steps: Sequence[Step], precision: int, width: int, table: dict[int, str]) -> list[str]:
    """Name, formula, the formula with numbers, value and the engine's value, in columns; long ones on two lines."""
    ends = [(_value(step.value, precision), _check(step, precision).translate(table)) for step in steps]
    values, checks = (max(len(end[column]) for end in ends) for column in range(2))
    for digits in (max(4, precision - 2), 3):  # rather fewer digits in the formulas than two lines for each
        rows = [[cell.translate(table) for cell in (step.name, step.symbols, step.numbers(digits))] for step in steps]
        names = max(len(name) for name, _, _ in rows)
        room = width - len(f"  {'':{names}} = " + " = " + f" = {'':{values}}  {'':{checks}}")
        short = sorted(rows, key=lambda row: len(row[1]) + len(row[2]))
        while True:
            formulas, numbers = (max((len(row[column]) for row in short), default=0) for column in (1, 2))
            if formulas + numbers <= room:
                break
            short.pop()  # that row goes on two lines
        if len(short) == len(rows):
            break
    left = max([formulas + 3 + numbers, *(len(row[2]) for row in rows if row not in short)])
    lines = []
    for (name, formula, with_numbers), (value, check) in zip(rows, ends):
        equals = " = " if with_numbers else "   "
        start = f"  {name:<{names}} = "
        if [name, formula, with_numbers] in short:
            start += f"{formula:<{formulas}}" + (equals + with_numbers if numbers else "")
        else:
            lines.append(start + formula)
            start = f"  {'':<{names}}{equals}{with_numbers}"
        lines.append(f"{start:<{2 + names + 3 + left}} = {value:>{values}}  {check}")
    return lines


def _brief(steps: Sequence[Step], precision: int, width: int, table: dict[int, str]) -> list[str]:
    """Names and values, several on a line."""
    names = max(len(step.name.translate(table)) for step in steps)
    values = max(len(_value(step.value, precision)) for step in steps)
    cells = [
        f"{step.name.translate(table):<{names}} = {_value(step.value, precision):>{values}}  {_check(step, precision)}"
        for step in steps
    ]
    cells = [cell.translate(table) for cell in cells]
    longest = max(map(len, cells))
    columns = max(1, (width + 2) // (longest + 4))
    rows = math.ceil(len(cells) / columns)  # read downwards, as the derivation goes
    return [
        ("  " + "    ".join(f"{cell:<{longest}}" for cell in cells[row::rows])).rstrip() for row in range(rows)
    ]  # fmt: skip


def _verdict(steps: Sequence[Step]) -> list[str]:
    wrong = [step for step in steps if not step.agrees]
    if not wrong:
        where = f"gpunet {gpunet.__version__}, float64 on {default_device()}"
        return [
            f"✓ All {len(steps)} numbers agree with the engine ({where}).",
            "  Inside the formulas they are rounded for reading; the values are computed in full.",
        ]
    lines = [
        f"✗ {len(wrong)} of {len(steps)} numbers differ from the engine's. That is a bug in gpunet; please report it:"
    ]
    return [*lines, *(f"    {step.name}: by hand {step.value!r}, engine {step.engine!r}" for step in wrong[:20])]
