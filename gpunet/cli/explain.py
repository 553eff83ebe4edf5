"""Options of ``gpunet explain``."""

from __future__ import annotations

import argparse
import re
from typing import Any

from gpunet.cli.names import fill_in

_EPILOG = """\
examples:
  gpunet explain                                          a chain of neurons, then a small net and two samples
  gpunet explain --weights 0.5,-1.2,0.8 --biases 0.1,0,0.3 --input 0.5 --target 1
  gpunet explain --layers 2,3,1 --activation tanh --seed 7 --input "0.5,1;-1,0.2" --target "1;0"
  gpunet explain --model runs/2026-01-01-digits --row 7   the chain rule through a trained network, for one row
  gpunet explain --html                                   the same as a page, step by step, with weights to drag
  gpunet explain --weights net.npz                        w1, b1, w2, b2, ... saved by NumPy, weights of shape (out, in)
"""


def add_parser(subparsers: Any) -> None:
    """Add ``explain`` and its options."""
    parser = subparsers.add_parser(
        "explain",
        help="show backpropagation number by number, checked against the engine",
        description="Show how backpropagation works: the forward pass, the error, every link of the chain rule with its\n"
        "formula and value, the mean over the batch, and the step of gradient descent. Each value is checked\n"
        "against the engine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser._negative_number_matcher = re.compile(r"^-[\d.]")  # so that "--weights -0.5,1" is a value, not an option
    add = parser.add_argument
    add("--layers", metavar="N,N,...", help="sizes of the layers, inputs first: 2,3,1 (default: a chain, all 1)")
    add("--weights", metavar="W,W,...", help="weights, neuron by neuron from the first layer on, or a .npz file")
    add("--biases", metavar="B,B,...", help="biases, neuron by neuron (default: 0)")
    add("--input", metavar="X,...", help="inputs of a sample; separate samples by ';' (quote them for the shell)")
    add("--target", metavar="Y,...", help="target outputs of each sample")
    activation = add("--activation", default="sigmoid", metavar="NAME", help="{}; or one per layer: tanh,sigmoid")
    fill_in(parser, activation, _activations)
    add("--lr", default="0.5", metavar="RATE", help="learning rate of the step of gradient descent (default: 0.5)")
    add("--seed", type=int, default=0, help="seed of the weights of --layers if --weights is not given (default: 0)")
    add("--precision", type=int, default=6, metavar="DIGITS", help="digits after the decimal point (default: 6)")
    add("--model", metavar="RUN_FOLDER", help="explain a network that 'gpunet train' has trained, for one row of its data")
    add("--row", type=int, metavar="N", help="with --model: the number of the row, from 1 (default: 1)")
    add("--data", metavar="DATA", help="with --model: the data of the run, if they have moved")
    page = "write a page for the browser instead, to step through all numbers and drag weights (default: explain.html)"
    add("--html", nargs="?", const="explain.html", metavar="FILE", help=page)
    add("--plain", action="store_true", help="print ASCII only (default if the terminal has no UTF-8)")


def _activations() -> str:
    from gpunet.tools.textbook import TEXTBOOK_ACTIVATIONS

    return ", ".join(TEXTBOOK_ACTIVATIONS)


def run(arguments: argparse.Namespace) -> int:
    """Print the derivation; see :func:`gpunet.tools.explain.explain`."""
    from gpunet.tools.explain import Options, explain

    options = vars(arguments)
    return explain(Options(**{name: options[name] for name in Options._fields}))
