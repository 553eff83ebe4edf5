"""CUDA's own headers, for sources that ask for its 16-bit types.  Our kernels ask for none; those of users may.

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


def _candidates() -> Iterator[Path]:
    for entry in sys.path:
        if entry:
            yield from sorted(Path(entry, "nvidia").glob("*/include"), reverse=True)
    for home in (os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        if home:
            yield Path(home, "include")


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
        folder = next((folder for folder in _candidates() if (folder / header).is_file()), None)
        if folder is None:
            raise CompileError(
                f"{file} includes <{asked[1]}>, but CUDA's headers are not installed ({header} is not found): "
                "pip install nvidia-cuda-runtime nvidia-cuda-cccl (both are in 'gpunet[cuda13]'), or set CUDA_PATH to the "
                "folder of a CUDA toolkit"
            )
        folders.append(folder)
    written = (folders[0] / asked[1]).stat().st_mtime_ns
    return (*(f"-I{folder}" for folder in dict.fromkeys(folders)), f"-DGPUNET_CUDA_HEADERS={written}")
