"""The folders of an installed CUDA toolkit, and its headers cuda_fp16.h and cuda_bf16.h for users' kernels.

The headers are found in NVIDIA's wheels (nvidia-cuda-runtime and nvidia-cuda-cccl, both in ``gpunet[cuda13]``), in
``CUDA_PATH``, ``CUDA_HOME`` and ``/usr/local/cuda``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from gpunet.errors import CompileError

_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<(cuda_(?:fp16|bf16)\.h)>", re.MULTILINE)
_DEPENDENCY = "nv/target"  # included by those headers; in the wheels for CUDA 12 it is in another folder


def installed(in_wheels: str, in_homes: str) -> Iterator[Path]:
    """Yield installed files or folders of CUDA, in order of preference.

    Args:
        in_wheels: glob pattern below the folder of NVIDIA's wheels.
        in_homes: glob pattern below the folder of a CUDA toolkit.
    """
    wheels = [Path(entry, "nvidia") for entry in sys.path if entry]
    homes = [Path(h) for h in (os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda") if h]
    for folder, pattern in (*((w, in_wheels) for w in wheels), *((h, in_homes) for h in homes)):
        yield from sorted(folder.glob(pattern), reverse=True)


def options(text: str, file: str) -> tuple[str, ...]:
    """Return the compiler options (of NVRTC or g++) for a source that includes cuda_fp16.h or cuda_bf16.h; else ().

    The options contain the header's modification time, so a cache key made of them changes with the headers.

    Raises:
        CompileError: the source includes a header, but CUDA's headers are not installed; the message says what to install.
    """
    include = _INCLUDE.search(text)
    if include is None:
        return ()
    folders = []
    for header in (include[1], _DEPENDENCY):
        folder = next((f for f in installed("*/include", "include") if (f / header).is_file()), None)
        if folder is None:
            raise CompileError(
                f"{file} includes <{include[1]}>, but CUDA's headers are not installed ({header} is not found): "
                "pip install nvidia-cuda-runtime nvidia-cuda-cccl (both are in 'gpunet[cuda13]'), or set CUDA_PATH to the "
                "folder of a CUDA toolkit"
            )
        folders.append(folder)
    modified = (folders[0] / include[1]).stat().st_mtime_ns
    return (*(f"-I{folder}" for folder in dict.fromkeys(folders)), f"-DGPUNET_CUDA_HEADERS={modified}")
