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
    "torch", "torch.Tensor", "torch.autograd", "torch.func", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.nn.utils",
    "torch.nn.utils.rnn", "torch.nn.utils.parametrize", "torch.optim", "torch.optim.lr_scheduler", "torch.optim.swa_utils",
    "torch.utils.data", "torch.distributions", "torch.linalg", "torch.special", "torch.fft", "torch.random", "torch.cuda",
    "torch.accelerator",
)  # fmt: skip
#: Names that stand in PyTorch's modules by accident, or that only its own code uses, by room: it documents none of them.
INTERNAL = {
    "torch":
        "FatalError PRIVATE_OPS TYPE_CHECKING USE_GLOBAL_DEPS USE_RTLD_GLOBAL_WITH_LIBTORCH batch_norm_backward_elemt "
        "batch_norm_backward_reduce batch_norm_elemt batch_norm_gather_stats batch_norm_gather_stats_with_counts "
        "batch_norm_stats batch_norm_update_stats classproperty compiled_with_cxx11_abi get_file_path has_lapack has_mkl "
        "has_openmp has_spectral init_num_threads merge_type_from_type_comment native_norm parse_schema parse_type_comment "
        "prepare_multiprocessing_environment profiler_allow_cudagraph_cupti_lazy_reinit_cuda12 slice_inverse unify_type_list",
    "torch.Tensor": "index slice_inverse",
    "torch.autograd": "NestedIOFunction",
    "torch.nn": "factory_kwargs",
    "torch.nn.functional":
        "BroadcastingList1 BroadcastingList2 BroadcastingList3 Callable DType GRID_SAMPLE_INTERPOLATION_MODES "
        "GRID_SAMPLE_PADDING_MODES Optional TYPE_CHECKING Tensor assert_int_or_pair boolean_dispatch reproducibility_notes "
        "sparse_support_notes tf32_notes",
    "torch.linalg": "common_notes",
    "torch.fft": "Tensor",
    "torch.cuda": "CudaError DeferredCudaCallError check_error cudaStatus",
}  # fmt: skip
#: Why a name is absent on purpose: a pattern of its path -> the reason.  The first that matches counts.
REASONS = {
    r"(torch|Tensor)\.(eig|lstsq|matrix_rank|solve|symeig|reinforce)$|nn\.Container$": "removed",
    r"[Ss]parse|coalesce|(Tensor\.|torch\.)_?(indices|values)(_copy)?\b|\.(crow|ccol|row|col)_|to_dense|dense_dim|spmm|hspmm|smm|"
    r"sspaddmm|saddmm": "sparse",
    r"jagged|to_padded_tensor": "nested",
    r"[Qq]uant|int_repr|q_scale|q_zero|q_per|Observer|qint|dequantize|qscheme|per_(channel|tensor)_|fbgemm|qparams": "quantized",
    r"torch\.(bit|bits\w+|u?int[1-7]|float[48]_\w+|quint\w+)$|scaled_(grouped_)?mm": "narrow",
    r"complex|cfloat|cdouble|chalf|torch\.fft|real\b|imag\b|conj|angle|polar|stft|istft|is_neg|resolve_|view_as_": "complex",
    r"torch_function|TorchFunction": "overrides",
    r"LinearCrossEntropyOptions": "tuning",
    r"[Ss]cript|\bjit|trace_|TracedModule|export|_dynamo|compiler|onnx|import_ir|parse_ir|\.(fork|wait)$|JITException|"
    r"\bSym(Int|Float|Bool)|\.sym_": "compilers",
    r"distributed|nccl|DataParallel|comm\b": "distributed",
    r"CUDAGraph|[Mm]em_?[Pp]ool|graph(s|_pool_handle)?$|accelerator\.Graph|graphed|caching_allocator|[Aa]llocator|memory_snapshot|"
    r"host_memory_stats|default_generators|GreenContext|tunable|AcceleratorError|cuda\.profiler|cudart": "runtime",
    r"miopen|mkldnn|cudnn_|xpu|mps|ipu|hpu|mtia|maia|xla|vulkan|nvtx|jiterator|current_(blas|solver)_handle": "backends",
    r"named|names\b|align_|refine_names|rename": "named",
    r"\w+Storage|storage_type|from_file|torch\.Storage(Base)?$": "storage",
}
EXPLANATIONS = {
    "internal": "no public interface of PyTorch: names that its modules import, or its own code uses, without documentation",
    "removed": "PyTorch itself has removed them, and raises an error, or has deprecated them: use `linalg` and `nn.Module`",
    "sparse": "sparse tensors: layouts other than strided are not planned",
    "nested": "nested tensors are not planned; `nn.utils.rnn` pads and packs sequences of different lengths",
    "quantized": "quantized tensors are not planned; use float16 or bfloat16",
    "narrow": "dtypes of fewer than 16 bits but int8, uint8 and bool: NumPy does not compute with them",
    "complex": "complex32 is not planned; [complex numbers](complex-numbers.md) lists what takes the other complex dtypes",
    "overrides": "`__torch_function__`: a subclass of Tensor overrides methods, not functions",
    "tuning": "how PyTorch divides the work of a loss: here that follows from the shapes",
    "compilers": "PyTorch's compilers and exporters, with their sizes that are symbols; `gpunet.capture` compiles training steps",
    "distributed": "sharded models, RPC and direct calls of NCCL; [several processes](distributed.md) train over MPI and NCCL",
    "runtime": "the allocator, the graphs and the generators of PyTorch's CUDA runtime: CuPy's pool allocates, `gpunet.capture` "
    "records graphs, and one generator draws on all GPUs",
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
    room, _, last = path.rpartition(".")
    if last in INTERNAL.get(room, "").split():
        return Name(path, "absent", "internal")
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
    accounted = [name for name in total if name.state != "absent" or name.note]
    documented = [name for name in total if name.note != "internal"]
    planned = [name for name in total if not name.note or name.state != "absent"]
    lines = [
        "# Coverage of PyTorch's names", "",
        "Written by `python -m gpunet.tools.coverage_page --write`. A name is *present*, *partly* present if parameters of its "
        "signature are missing, or *absent*. The names are those that PyTorch's modules show, documented or not.", "",
        f"Of {len(total)} public names of PyTorch {_share(total)} are present, at least partly; "
        f"{100 * len(accounted) / len(total):.0f} % are present or absent for a [reason](#why-names-are-absent). Without the "
        f"{len(total) - len(documented)} names that are [no public interface](#internal) {_share(documented)} are present; without "
        f"all that are absent for a reason {_share(planned)}.", "",
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
