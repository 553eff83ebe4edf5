"""In place of ``nvcc`` for CuPy's ``backend="nvcc"``: compiles device code to a cubin or PTX, with NVRTC.

NVCC's own cubins hold machine code alone, which no CPU runs.  Options are those that CuPy gives: ``-gencode``, ``--cubin``,
``--ptx``, ``-o``, and NVRTC's own.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

from tests.driver import build


def _log(library: ctypes.CDLL, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(max(size.value, 1))
    library.nvrtcGetProgramLog(program, log)
    return log.value.decode()


def compile_to(path: Path, kind: str, source: Path, options: list[str]) -> None:
    """Compile a source to a "cubin" or "ptx" file."""
    folder = build.build()
    ctypes.CDLL(str(folder / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(folder / "libnvrtc.so.13"))
    library.standin_load_nvrtc(str(build.cuda_wheels() / "lib" / "libnvrtc.so.13").encode())
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), str(source).encode(), 0, None, None)
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = library.nvrtcCompileProgram(program, len(options), array)
    print(_log(library, program), file=sys.stderr)
    if status:
        sys.exit(1)
    name = "CUBIN" if kind == "cubin" else "PTX"
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{name}Size")(program, ctypes.byref(size))
    image = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{name}")(program, image)
    path.write_bytes(image.raw)


def main(arguments: list[str]) -> None:
    kind, output, capability = "cubin", None, "90"
    source: Path | None = None
    options = []
    given = iter(arguments)
    for argument in given:
        if argument == "--version":
            print("gpunet's stand-in for nvcc\nCuda compilation tools, release 13.0, V13.0.0")
            return
        if argument.lstrip("-") in ("cubin", "ptx"):
            kind = argument.lstrip("-")
        elif argument == "-o":
            output = Path(next(given))
        elif match := re.match(r"-gencode=arch=compute_(\d+)", argument):
            capability = match[1]
        elif argument.endswith(".cu"):
            source = Path(argument)
        elif argument in ("--device-link", "-dlink", "-rdc=true", "-dc", "--device-c"):
            sys.exit(f"{argument}: device code cannot be linked without a GPU's linker")
        else:
            options.append(argument)
    if source is None:
        sys.exit("no source file")
    options.append(f"-arch={'sm' if kind == 'cubin' else 'compute'}_{capability}")
    options += [f"-I{build.cuda_wheels() / 'include'}", f"-I{source.parent}"]
    compile_to(output or Path(source.with_suffix(f".{kind}").name), kind, source, options)


if __name__ == "__main__":
    main(sys.argv[1:])
