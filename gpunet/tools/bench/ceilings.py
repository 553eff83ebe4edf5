"""What the machine can do, measured in the same run as the contestants.

On the CPU: the rate of a large matrix product, the best of what NumPy, PyTorch and JAX reach where they take part, and of a
copy as large as what a step touches, so that caches count.  On a card also what a node of a CUDA graph and a launch cost,
and products in TF32 and bfloat16.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy

from gpunet.backend import blas, devices
from gpunet.backend.devices import Device
from gpunet.errors import DeviceError

_GEMM = {"cpu": 1024, "cuda": 8192}
_LAUNCHES = 200


def best_seconds(function: Callable[[], object], clock: str = "wall") -> float:
    """The shortest of the calls that fit into 50 ms, and of five at least, after one that is not counted."""
    now = time.process_time if clock == "processor" else time.perf_counter
    function()
    found: list[float] = []
    end = now() + 0.05
    while len(found) < 5 or now() < end:
        start = now()
        function()
        found.append(now() - start)
    return min(found)


def measure(device: str, footprint: float, clock: str = "wall", size: int | None = None) -> dict[str, float]:
    """Ceilings of a device.

    Args:
        device: "cpu", "cuda" or "emulated", whose ceilings are the CPU's.
        footprint: bytes that a step touches: the bandwidth is that of a copy of half of it, read and written.
        clock: "wall", or on the CPU "processor".
        size: edge of the matrices of the product.

    Returns:
        "gemm" in operations a second, "bandwidth" in bytes a second; on a card also "node" and "launch" in seconds.
    """
    where = Device(device)
    if where.type != "cuda":
        return {"gemm": cpu_gemm("gpunet", clock, size), "bandwidth": _cpu_bandwidth(footprint, clock)}
    return {**_of_the_card(size), "bandwidth": cuda_bandwidth(footprint)}


@functools.cache
def _of_the_card(size: int | None) -> dict[str, float]:
    """What does not depend on a step, measured once a process."""
    return {"gemm": gemm_rate("float32", size), **graph_latency()}


def floor(flop: float, moved: float, launches: int, ceilings: dict[str, float]) -> float:
    """Seconds that a step takes at least: the largest of its products, its bytes, and its launches one after another."""
    return max(flop / ceilings["gemm"], moved / ceilings["bandwidth"], launches * ceilings.get("node", 0.0))


# ---- CPU --------------------------------------------------------------------------------------------------------------


def cpu_gemm(through: str, clock: str = "wall", size: int | None = None) -> float:
    """Operations a second of a product through "gpunet", "numpy", "torch" or "jax": each calls a BLAS of its own."""
    size = size or _GEMM["cpu"]
    a, b = numpy.random.default_rng(0).standard_normal((2, size, size), numpy.float32)
    product: Callable[[], object]
    if through == "torch":
        import torch

        x, y = torch.from_numpy(a), torch.from_numpy(b)
        z = torch.empty_like(x)
        product = lambda: torch.mm(x, y, out=z)  # noqa: E731
    elif through == "jax":
        import jax

        function, u, v = jax.jit(lambda u, v: u @ v), jax.numpy.asarray(a), jax.numpy.asarray(b)
        product = lambda: function(u, v).block_until_ready()  # noqa: E731
    else:
        out = numpy.empty_like(a)
        dot = blas.dot if through == "gpunet" else numpy.dot
        product = lambda: dot(a, b, out)  # noqa: E731
    return 2.0 * size**3 / best_seconds(product, clock)


def _cpu_bandwidth(footprint: float, clock: str) -> float:
    source = numpy.random.default_rng(0).standard_normal(max(1024, int(footprint) // 8), numpy.float32)
    target = numpy.empty_like(source)
    return 2.0 * source.nbytes / best_seconds(lambda: numpy.copyto(target, source), clock)


# ---- a card -----------------------------------------------------------------------------------------------------------


def cuda_seconds(function: Callable[[], object], repeats: int = 20, rounds: int = 5) -> float:
    """Seconds of one call on the current stream, by events around ``repeats`` of them; the shortest of some rounds."""
    cuda = devices.cupy().cuda
    function()
    stream = cuda.get_current_stream()
    start, end, found = cuda.Event(), cuda.Event(), []
    for _ in range(rounds):
        start.record(stream)
        for _ in range(repeats):
            function()
        end.record(stream)
        end.synchronize()
        found.append(cuda.get_elapsed_time(start, end) / 1e3 / repeats)
    return float(min(found))


def cuda_bandwidth(footprint: float) -> float:
    """Bytes a second, read and written, of a copy on the card."""
    xp = devices.cupy()
    source = xp.asarray(numpy.random.default_rng(0).standard_normal(max(1024, int(footprint) // 8), numpy.float32))
    target = xp.empty_like(source)
    return 2.0 * source.nbytes / cuda_seconds(lambda: xp.copyto(target, source))


def gemm_rate(precision: str, size: int | None = None) -> float:
    """Operations a second of cuBLAS: "float32" strictly, "tf32" or "bfloat16"; through PyTorch, float32 also through CuPy.

    Raises:
        DeviceError: neither of them has cuBLAS here.
    """
    size = size or _GEMM["cuda"]
    values = numpy.random.default_rng(0).standard_normal((2, size, size), numpy.float32)
    function = _torch_product(values, precision) or (_cupy_product(values) if precision == "float32" else None)
    if function is None:
        raise DeviceError(
            f"no cuBLAS for products in {precision}: install PyTorch for CUDA, or CuPy's cuBLAS for float32"
        )
    return 2.0 * size**3 / cuda_seconds(function, repeats=5)


def _torch_product(values: numpy.ndarray, precision: str) -> Callable[[], object] | None:
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.from_numpy(v).to("cuda", dtype) for v in values)
    out = torch.empty_like(a)

    def product() -> None:  # on the default stream, like CuPy's events
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.matmul(a, b, out=out)
        torch.backends.cuda.matmul.allow_tf32 = before

    return product


def _cupy_product(values: numpy.ndarray) -> Callable[[], object] | None:
    xp = devices.cupy()
    a, b = map(xp.asarray, values)
    out = xp.empty_like(a)
    try:
        xp.matmul(a, b, out=out)
    except Exception:  # cuBLAS is not installed: CuPy says so in several ways
        return None
    return lambda: xp.matmul(a, b, out=out)


def graph_latency() -> dict[str, float]:
    """Seconds of an empty node in a chain of a CUDA graph ("node"), and of the host for a plain launch ("launch")."""
    from gpunet.backend import compiler, nvrtc

    cuda = devices.cupy().cuda
    capability = cuda.Device().compute_capability
    architecture = compiler.architecture((int(capability[:-1]), int(capability[-1])))
    options = (*compiler.OPTIONS, f"--gpu-architecture={architecture}")
    text = "template <class T> __global__ void nothing() {}"
    program = nvrtc.load().compile(text, "nothing.cu", ("nothing<float>",), options)
    module = cuda.Module()
    module.load(program.cubin)
    nothing = module.get_function(program.lowered["nothing<float>"])
    stream = cuda.Stream(non_blocking=True)
    with stream:
        nothing((1,), (32,), ())
        stream.synchronize()
        stream.begin_capture()
        for _ in range(_LAUNCHES):
            nothing((1,), (32,), ())
        graph = stream.end_capture()
        graph.upload(stream)
        node = cuda_seconds(lambda: graph.launch(stream), repeats=10) / _LAUNCHES

        def launch() -> None:
            for _ in range(_LAUNCHES):
                nothing((1,), (32,), ())

        launched = best_seconds(launch) / _LAUNCHES
        stream.synchronize()
    return {"node": node, "launch": launched}
