"""PyTorch: eager, compiled, and on a GPU as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.tools.bench.cases import BETAS, EPSILON, LEARNING_RATES, Case, Runner


def make(case: Case, kind: str, variant: str, device: str) -> Runner:
    """Variants: "eager"; "foreach" and "fused", which name the optimizer's implementation; "channels_last", the memory format of
    images, with the fused optimizer; "compile"; "graph".
    """
    import torch

    layout = torch.channels_last if variant == "channels_last" else torch.contiguous_format
    model = case.build(torch)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in case.state().items()})
    model = model.to(device, memory_format=layout)
    optimizer = _optimizer(torch, case, kind, variant, model)
    parameters = list(model.parameters())

    def forward(x: Any, y: Any) -> Any:
        with torch.inference_mode():
            return case.loss(torch, model(x), y)

    def backward(x: Any, y: Any) -> Any:
        if optimizer is None:
            model.zero_grad(set_to_none=True)
        else:
            optimizer.zero_grad(set_to_none=True)
        loss = case.loss(torch, model(x), y)
        loss.backward()
        return loss.detach()

    def step(x: Any, y: Any) -> Any:
        loss = backward(x, y)
        optimizer.step()
        return loss

    def gradients(x: Any, y: Any) -> Any:
        loss = case.loss(torch, model(x), y)
        return loss.detach(), torch.autograd.grad(loss, parameters)

    batches = [[torch.from_numpy(array).to(device) for array in batch] for batch in case.batches()]
    if variant == "channels_last":
        batches = [[a.contiguous(memory_format=layout) if a.ndim == 4 else a for a in batch] for batch in batches]
    function = {"forward": forward, "backward": backward}.get(kind, step)
    if variant == "compile":
        function = _compiled(torch, case, forward if kind == "forward" else gradients, parameters, optimizer)
    elif variant == "graph":
        function = _cuda_graph(torch, function, batches[0], model, optimizer)

    def read(loss: Any) -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return float(loss.item())

    notes = f"{torch.get_num_threads()} threads, float32_matmul_precision {torch.get_float32_matmul_precision()}"
    return Runner(function, [(x, y) for x, y in batches], read, notes)


_compiled_case: Case | None = None


def _compiled(torch: Any, case: Case, function: Any, parameters: list[Any], optimizer: Any) -> Any:
    """Compile loss and gradients as one graph and the update as another, as PyTorch's tutorial does.

    They cannot be one graph, because ``optimizer.step`` forces a graph break. On a GPU both use CUDA graphs.
    """
    global _compiled_case
    if case != _compiled_case:
        torch._dynamo.reset()  # Dynamo recompiles the same code at most 8 times, over all cases
        _compiled_case = case
    config, on_gpu = torch._dynamo.config, parameters[0].is_cuda
    if hasattr(config, "trace_autograd_ops"):
        config.trace_autograd_ops = True
    mode = "reduce-overhead" if on_gpu else "default"
    compiled = torch.compile(function, mode=mode)
    update = None if optimizer is None else torch.compile(optimizer.step, mode=mode)

    def step(x: Any, y: Any) -> Any:
        if on_gpu:
            torch.compiler.cudagraph_mark_step_begin()
        result = compiled(x, y)
        if not isinstance(result, tuple):
            return result
        loss, gradients = result
        if update is not None:
            for p, gradient in zip(parameters, gradients):
                p.grad = gradient
            update()
        return loss

    return step


def _optimizer(torch: Any, case: Case, kind: str, variant: str, model: Any) -> Any:
    if kind not in LEARNING_RATES:
        return None
    options: dict[str, Any] = {"foreach": True} if variant in ("foreach", "compile") else {"fused": True}
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=case.learning_rates[kind], **options)
    if variant == "graph" or (variant == "compile" and next(model.parameters()).is_cuda):
        options["capturable"] = True  # keeps the step count on the GPU
    return torch.optim.Adam(model.parameters(), lr=case.learning_rates[kind], betas=BETAS, eps=EPSILON, **options)


def _cuda_graph(torch: Any, function: Callable[[Any, Any], Any], batch: Any, model: Any, optimizer: Any) -> Any:
    """Record the step as a CUDA graph; a call copies its inputs into the recorded buffers and replays.

    PyTorch requires warm-up steps on a side stream. Model and optimizer state are reset after them.
    """
    x, y = (tensor.clone() for tensor in batch)
    first = [p.detach().clone() for p in model.parameters()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function(x, y)
    torch.cuda.current_stream().wait_stream(stream)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = function(x, y)
    with torch.no_grad():
        for p, value in zip(model.parameters(), first):
            p.copy_(value)
        for state in optimizer.state.values() if optimizer is not None else ():
            for value in state.values():
                if torch.is_tensor(value):
                    value.zero_()

    def replay(new_x: Any, new_y: Any) -> Any:
        x.copy_(new_x)
        y.copy_(new_y)
        graph.replay()
        return loss

    return replay
