"""Compare random calls with PyTorch.

    python -m tests.torch_calls --calls 200000 --seed 0
    python -m tests.torch_calls --calls 5000 --only 'torch.var' --device cuda
    python -m tests.driver -m tests.torch_calls --calls 2000 --device cuda    on a machine without a GPU

Prints counts of the verdicts, what is missing and all faults, each with the shortest line that shows it; returns 1 if there are
faults that are not in the table of intended differences.
"""

from __future__ import annotations

import argparse
import sys

import torch

import gpunet
from tests.torch_calls.survey import survey


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torch_calls", description="Compare random calls with PyTorch.")
    parser.add_argument("--calls", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="*", metavar="NAME", help="a name or pattern: exp, 'Tensor.*', torch.sum")
    parser.add_argument("--device", default="cpu", help="where gpunet computes (default: cpu)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    gpunet.set_default_device(options.device)
    result = survey(gpunet, torch, options.calls, options.seed, options.only)
    print("\n".join(result.report()))
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
