"""Options of ``gpunet export``."""

from __future__ import annotations

import argparse
from typing import Any

_EPILOG = """\
examples:
  gpunet export --c runs/2026-01-01-digits -o net.c          void net(const float* x, float* y), one sample
  gpunet export --onnx runs/2026-01-01-digits -o net.onnx    any number of samples
  gpunet export --c model.onnx -o model.c --batch 4
"""


def add_parser(subparsers: Any) -> None:
    """Add ``export`` and its options."""
    parser = subparsers.add_parser(
        "export",
        help="write a trained network as an ONNX file, or as one file of C",
        description="Export the network of a run folder, or of an ONNX file. That of a run folder takes the features as numbers,\n"
        "not standardised, and returns probabilities of the classes, or targets in their unit.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="a folder that 'gpunet train' has written, or an .onnx file")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--onnx", action="store_true", help="write ONNX; onnxruntime compares the results before")
    kind.add_argument("--c", action="store_true", help="write C99 without dependencies")
    parser.add_argument("-o", "--out", required=True, help="the file to write")
    parser.add_argument("--name", default="net", help="name of the C function (default: net)")
    parser.add_argument("--batch", type=int, default=1, help="samples that the C function takes at once (default: 1)")
    parser.add_argument("--opset", type=int, help="version of the operators of ONNX, 18 to 21 (default: 18)")


def run(arguments: argparse.Namespace) -> int:
    """Export; see :func:`gpunet.onnx.export` and :func:`gpunet.export_c`."""
    from gpunet.interop.c import export_c
    from gpunet.interop.onnx import export
    from gpunet.interop.trained import Predictor, model_in

    model, inputs = model_in(arguments.model, arguments.batch)
    if arguments.c:
        export_c(model, inputs, arguments.out, name=arguments.name)
    else:
        export(model, inputs, arguments.out, opset_version=arguments.opset)
    if isinstance(model, Predictor):
        print(model.describe())
    print(f"wrote {arguments.out}")
    return 0
