"""``docs/coverage.md``: which of PyTorch's public names gpunet has.

python -m gpunet.tools.coverage_page            print it; PyTorch must be installed
python -m gpunet.tools.coverage_page --write    update the page
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from gpunet.errors import MissingDependencyError, MissingNameError
from gpunet.interop.port import MISSING, resolve
from gpunet.tools.page_command import print_or_write

#: The rooms of the page: the path in PyTorch.
ROOMS = (
    "torch", "torch.Tensor", "torch.autograd", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.nn.utils",
    "torch.nn.utils.rnn", "torch.nn.utils.parametrize", "torch.optim", "torch.optim.lr_scheduler", "torch.optim.swa_utils",
    "torch.utils.data", "torch.distributions", "torch.linalg", "torch.special", "torch.fft", "torch.random", "torch.cuda",
    "torch.accelerator",
)  # fmt: skip
#: Why a name is absent on purpose: a pattern of its path -> the reason.
REASONS = {
    r"[Ss]parse|coalesce|Tensor\._?(indices|values)\b|\.(crow|ccol|row|col)_|to_dense|dense_dim|spmm|hspmm|smm|sspaddmm": "sparse",
    r"[Qq]uant|fake_quant|int_repr|q_scale|q_zero|q_per|Observer|qint|dequantize": "quantized",
    r"complex|cfloat|cdouble|chalf|torch\.fft|real\b|imag\b|conj|angle|polar|stft|istft|is_neg|resolve_|view_as_": "complex",
    r"[Ss]cript|\bjit|trace_|TracedModule|export|_dynamo|compiler|vmap|torch\.cond\b|while_loop|onnx": "compilers",
    r"distributed|nccl|DataParallel|comm\b": "distributed",
    r"miopen|mkldnn|cudnn_|_foobar|xpu|mps|ipu|hpu|mtia|xla|vulkan|nvtx|jiterator|graphs?\b|CUDAGraph|MemPool": "backends",
    r"named|names\b|align_|refine_names|rename": "named",
    r"\w+Storage|storage_type|from_file": "storage",
}
EXPLANATIONS = {
    "sparse": "sparse tensors: layouts other than strided are not planned",
    "quantized": "quantized tensors are not planned; use float16 or bfloat16",
    "complex": "complex32 is not planned; [complex numbers](complex-numbers.md) lists what takes the other complex dtypes",
    "compilers": "PyTorch's compilers and exporters; `gpunet.capture` compiles training steps",
    "distributed": "NCCL, sharded models and RPC; [several processes](distributed.md) train over MPI",
    "backends": "libraries and devices that gpunet does not use",
    "named": "named dimensions, which PyTorch itself does not recommend",
    "storage": "a class of storages for each dtype, or in a file: `x.storage()` and `x.untyped_storage()` are there",
}


class Name(NamedTuple):
    """A public name of PyTorch.

    Attributes:
        state: "present", "partly" (parameters are missing) or "absent".
        note: the missing parameters, or the key of the reason.
    """

    path: str
    state: str
    note: str = ""


def public_names(room: Any) -> list[str]:
    """The public names of a module or class of PyTorch: its ``__all__``, or its own functions and classes."""
    if isinstance(room, ModuleType) and hasattr(room, "__all__") and room.__name__ != "torch":
        return sorted({name for name in room.__all__ if not name.startswith("_")})
    names = [name for name in dir(room) if not name.startswith("_")]
    if isinstance(room, ModuleType):  # types of PyTorch's compiler and runtime stand there, too
        objects = {name: getattr(room, name) for name in names}
        of_runtime = {n for n, o in objects.items() if "pybind11" in f"{type(o)} {type(type(o))}" or type(o).__name__ == "enum"}
        names = [name for name in names if name not in of_runtime]
    return [name for name in names if not isinstance(getattr(room, name, None), ModuleType)]


def judge(path: str, theirs: Any) -> Name:
    """Compare a name with gpunet's."""
    mine = resolve(path)
    if mine is MISSING:
        reason = next((key for pattern, key in REASONS.items() if re.search(pattern, path)), "")
        return Name(path, "absent", reason)
    missing = _parameters(theirs) - _parameters(mine) if callable(theirs) else set()
    return Name(path, "partly", ", ".join(sorted(missing))) if missing and _parameters(mine) else Name(path, "present")


def _parameters(function: Any) -> set[str]:
    """The names of the parameters; none if the function takes any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set()
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        return set()
    return {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY and p.name not in ("self", "input")}


def coverage() -> dict[str, list[Name]]:
    """The names of each room.

    Raises:
        MissingDependencyError: PyTorch is not installed.
    """
    try:
        importlib.import_module("torch")
    except ImportError:
        raise MissingDependencyError("the page of coverage needs PyTorch: pip install torch") from None
    found: dict[str, list[Name]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in ROOMS:
            module, _, last = path.rpartition(".")
            room = importlib.import_module(path) if path != "torch.Tensor" else getattr(importlib.import_module(module), last)
            names = []
            for name in public_names(room):
                try:
                    names.append(judge(f"{path}.{name}", getattr(room, name, None)))
                except MissingNameError:
                    names.append(Name(f"{path}.{name}", "absent"))
            found[path] = names
    return found


def page() -> str:
    """The page, in Markdown."""
    rooms = coverage()
    total = [name for names in rooms.values() for name in names]
    planned = [name for name in total if not name.note or name.state != "absent"]
    lines = [
        "# Coverage of PyTorch's names", "",
        "Written by `python -m gpunet.tools.coverage_page --write`. A name is *present*, *partly* present if parameters of its "
        "signature are missing, or *absent*.", "",
        f"Of {len(total)} public names of PyTorch {_share(total)} are present, at least partly; without those that are absent for "
        f"a [reason](#why-names-are-absent) {_share(planned)}.", "",
        "| room | present | partly | absent | absent for a reason |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for room, names in rooms.items():
        states = [n.state for n in names if n.state != "absent" or not n.note]
        counts = [states.count(state) for state in ("present", "partly", "absent")]
        lines.append(f"| {room} | {counts[0]} | {counts[1]} | {counts[2]} | {len(names) - sum(counts)} |")
    lines += ["", "## Why names are absent", ""]
    lines += [f"- <a id='{key}'></a>{key}: {text}" for key, text in EXPLANATIONS.items()]
    for room, names in rooms.items():
        lines += ["", f"## {room}", ""]
        of_state = {state: [n for n in names if n.state == state] for state in ("present", "partly", "absent")}
        lines += [f"Present: {', '.join(_last(n) for n in of_state['present']) or 'none'}.", ""]
        if of_state["partly"]:
            lines += ["Partly: " + ", ".join(f"{_last(n)} (without {n.note})" for n in of_state["partly"]) + ".", ""]
        plain = [_last(n) for n in of_state["absent"] if not n.note]
        lines += [f"Absent: {', '.join(plain) or 'none'}.", ""]
        for key in EXPLANATIONS:
            listed = [_last(n) for n in of_state["absent"] if n.note == key]
            if listed:
                lines += [f"Absent ([{key}](#{key})): {', '.join(listed)}.", ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _last(name: Name) -> str:
    return f"`{name.path.rpartition('.')[2]}`"


def _share(names: Sequence[Name]) -> str:
    return f"{100 * sum(n.state != 'absent' for n in names) / len(names):.0f} %"


def page_path() -> Path:
    """``docs/coverage.md`` of the source tree."""
    return Path(__file__).parents[2] / "docs" / "coverage.md"


def main(arguments: Sequence[str] | None = None) -> int:
    return print_or_write(page, page_path(), "gpunet.tools.coverage_page", arguments)


if __name__ == "__main__":
    sys.exit(main())
