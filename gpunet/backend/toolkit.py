"""CUDA's own folders, and its headers for sources that ask for its 16-bit types, as those of users may.

``#include <cuda_fp16.h>`` and ``<cuda_bf16.h>`` are found in NVIDIA's wheels (nvidia-cuda-runtime and nvidia-cuda-cccl, both
in ``gpunet[cuda13]``), in ``CUDA_PATH``, ``CUDA_HOME`` and ``/usr/local/cuda``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from gpunet.errors import CompileError

_ASKED = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<(cuda_(?:fp16|bf16)\.h)>", re.MULTILINE)
_NEEDED = "nv/target"  # which those headers include; in wheels for CUDA 12 it has a folder of its own


def installed(in_wheels: str, in_homes: str) -> Iterator[Path]:
    """What is there of CUDA, most wanted first: patterns below the folders of NVIDIA's wheels, and below CUDA's own."""
    wheels = [Path(entry, "nvidia") for entry in sys.path if entry]
    homes = [Path(h) for h in (os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda") if h]
    for folder, pattern in (*((w, in_wheels) for w in wheels), *((h, in_homes) for h in homes)):
        yield from sorted(folder.glob(pattern), reverse=True)


def options(text: str, file: str) -> tuple[str, ...]:
    """What the compiler, NVRTC or g++, must be told for a source: nothing if it does not ask for such a header.

    The options change with the headers, so they may stand for them in the name of what is compiled.

    Raises:
        CompileError: a header is asked for, and CUDA's headers are not installed; the message says what to install.
    """
    asked = _ASKED.search(text)
    if asked is None:
        return ()
    folders = []
    for header in (asked[1], _NEEDED):
        folder = next((f for f in installed("*/include", "include") if (f / header).is_file()), None)
        if folder is None:
            raise CompileError(
                f"{file} includes <{asked[1]}>, but CUDA's headers are not installed ({header} is not found): "
                "pip install nvidia-cuda-runtime nvidia-cuda-cccl (both are in 'gpunet[cuda13]'), or set CUDA_PATH to the "
                "folder of a CUDA toolkit"
            )
        folders.append(folder)
    written = (folders[0] / asked[1]).stat().st_mtime_ns
    return (*(f"-I{folder}" for folder in dict.fromkeys(folders)), f"-DGPUNET_CUDA_HEADERS={written}")
