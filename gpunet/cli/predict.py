"""Options of ``gpunet predict``."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``predict`` and its options."""
    parser = subparsers.add_parser(
        "predict",
        help="predict the target of each row of a CSV or Parquet file by a trained network",
        description="Read a CSV or Parquet file with the columns that a network was trained on, and write it as CSV with the "
        "prediction as a further column.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("run_folder", metavar="RUN_FOLDER", help="a folder that 'gpunet train' has written")
    parser.add_argument("data", metavar="DATA", help="a CSV or Parquet file; it may lack the target")
    parser.add_argument("--out", default=argparse.SUPPRESS, help="the file to write (default: print)")
    parser.add_argument("--probabilities", action="store_true", help="add a column with the probability of each class")
    parser.add_argument("--device", default="auto", help="auto (a GPU if CUDA is ready, else the CPU), cpu, cuda, cuda:N")


def run(arguments: argparse.Namespace) -> int:
    """Write the predictions; see :func:`gpunet.train.predict`."""
    from pathlib import Path

    from gpunet.backend.devices import Device
    from gpunet.backend.files import replacing
    from gpunet.train.predict import predict

    text = predict(arguments.run_folder, arguments.data, Device(arguments.device)).as_csv(arguments.probabilities)
    if not hasattr(arguments, "out"):
        print(text, end="")
        return 0
    with replacing(Path(arguments.out)) as temporary:
        Path(temporary).write_text(text, encoding="utf-8", newline="")
    print(f"wrote {arguments.out}")
    return 0
