"""Signatures of modules, functions, initialisation, optimizers and schedules are PyTorch's: by inspect and by call.

The test finds the names itself: all that a module exports and PyTorch has, and the methods of classes.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import gpunet

MODULES = (
    "nn", "nn.functional", "nn.init", "nn.utils", "nn.utils.rnn", "nn.utils.parametrize", "nn.utils.parametrizations", "optim",
    "optim.lr_scheduler", "optim.swa_utils",
)  # fmt: skip
#: Parameters that PyTorch does not have, by a pattern of names -> the reason.
EXTRA = {
    r"nn\.functional\.linear (activation|alpha)": "the activation runs in the epilogue of the product",
    r"optim\.lr_scheduler\.\w+ verbose": "older scripts pass it; it has no effect and warns. PyTorch has removed it",
    r"nn\.Module\.forward options": "a message instead of a TypeError",
}
#: Defaults that differ -> the reason.
DEFAULTS = {
    "optim.lr_scheduler.ReduceLROnPlateau.step metrics": "a message that names the way out",
    **{f"nn.Transformer{part} activation": "the same function, of gpunet" for part in ("", "EncoderLayer", "DecoderLayer")},
}
#: Builtins whose docstrings show another signature than they have.
MISDOCUMENTED = {
    "conv_tbc": "(input, weight, bias, pad=0)", "log_sigmoid": "(input)", "gelu": "(input, *, approximate='none')",
    "one_hot": "(input, num_classes=-1)",
    "rrelu_": "(input, lower=0.125, upper=0.3333333333333333, training=False, generator=None)",
    "scaled_dot_product_attention":
        "(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False)",
}  # fmt: skip
#: Arguments that constructors need.
REQUIRED = {
    "LinearCrossEntropyLoss": (2, 3), "SyncBatchNorm": (2,),
    **{f"{kind}{dims}d": (2, 4, 3) for kind in ("Conv", "ConvTranspose") for dims in (1, 2, 3)},
    **{f"LazyConv{kind}{dims}d": (4, 3) for kind in ("", "Transpose") for dims in (1, 2, 3)},
    "AdaptiveLogSoftmaxWithLoss": (8, 20, [4]),
    "Linear": (2, 3), "Unflatten": (1, (1, 2)), "StepLR": (2,), "MultiStepLR": ([1],), "ExponentialLR": (0.9,),
    "CosineAnnealingLR": (5,), "CosineAnnealingWarmRestarts": (5,), "CyclicLR": (0.1, 0.2), "OneCycleLR": (0.1, 10),
    "LambdaLR": (abs,), "LazyLinear": (3,), "Bilinear": (2, 3, 4), "Threshold": (0.1, 2.0), "MultiplicativeLR": (abs,),
    "Embedding": (4, 2), "EmbeddingBag": (4, 2), "GroupNorm": (2, 4), "LayerNorm": (3,), "LocalResponseNorm": (2,), "RMSNorm": (3,),
    **{f"{kind}Norm{n}d": (3,) for kind in ("Batch", "Instance") for n in (1, 2, 3)},
    **{f"{kind}Pool{dims}d": (2,) for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg") for dims in (1, 2, 3)},
    **{f"{kind}Pad{dims}d": (1,) for kind in ("Zero", "Reflection", "Replication", "Circular") for dims in (1, 2, 3)},
    **{f"ConstantPad{dims}d": (1, 2.5) for dims in (1, 2, 3)},
    "MultiheadAttention": (4, 2), "TransformerEncoderLayer": (4, 2), "TransformerDecoderLayer": (4, 2),
    "Unfold": (2,), "Fold": ((4, 4), 2), "PixelShuffle": (2,), "PixelUnshuffle": (2,), "ChannelShuffle": (2,),
    "RNN": (2, 3), "LSTM": (2, 3), "GRU": (2, 3), "RNNBase": ("GRU", 2, 3), "RNNCellBase": (2, 3, True, 4), "RNNCell": (2, 3),
    "LSTMCell": (2, 3), "GRUCell": (2, 3), **{f"LPPool{dims}d": (2, 3) for dims in (1, 2, 3)},
    **{f"MaxUnpool{dims}d": (2,) for dims in (1, 2, 3)}, "CrossMapLRN2d": (2,),
    "FractionalMaxPool2d": (2,), "FractionalMaxPool3d": (2,),
}  # fmt: skip


class Parameter(NamedTuple):
    name: str
    kind: str  # "", "*", "**" or "keyword-only"
    default: Any


KINDS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.KEYWORD_ONLY: "keyword-only"}


def parameters(function: Any) -> list[Parameter]:
    """The parameters of a function without ``self`` and private ones; of overloads those of the first one, of a builtin those in
    the first line of its docstring.
    """
    constructor = vars(function).get("__init__") if inspect.isclass(function) else None
    overloads = [] if constructor is None else typing.get_overloads(constructor)
    try:
        signature = inspect.signature(overloads[0] if overloads else function)
    except ValueError:
        name = function.__name__
        text = MISDOCUMENTED.get(name) or re.findall(rf"{name}(\(.*?\)) ->", function.__doc__)[0]
        signature = inspect.signature(eval(f"lambda {text[1:-1]}: None"))
    return [
        Parameter(p.name, KINDS.get(p.kind, ""), p.default)
        for p in signature.parameters.values()
        if p.name != "self" and not p.name.startswith("_")
    ]


def resolve(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root


def callables(torch: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, ours, PyTorch's) of all functions, classes and methods that both have."""
    for path in MODULES:
        ours, theirs = resolve(gpunet, path), resolve(torch, path)
        for name in getattr(ours, "__all__", None) or [n for n in dir(ours) if not n.startswith("_")]:
            mine, other = getattr(ours, name), getattr(theirs, name, None)
            if other is None or not callable(mine) or not getattr(mine, "__module__", "").startswith("gpunet"):
                continue
            if [p.name for p in parameters(other)] == ["args", "kwargs"]:  # of boolean_dispatch
                other = getattr(theirs, f"_{name}", other)
            yield f"{path}.{name}", mine, other
            if inspect.isclass(mine):
                for key, method in vars(mine).items():
                    if not key.startswith("_") and inspect.isfunction(method) and callable(getattr(other, key, None)):
                        yield f"{path}.{name}.{key}", method, getattr(other, key)


def differences(name: str, mine: list[Parameter], theirs: list[Parameter]) -> list[str]:
    found = []
    mine = [p for p in mine if p in theirs or not any(re.fullmatch(e, f"{name} {p.name}") for e in EXTRA)]
    if [p.name for p in mine] != [p.name for p in theirs]:
        return [f"{name}: {[p.name for p in mine]}, PyTorch {[p.name for p in theirs]}"]
    for p, other in zip(mine, theirs, strict=True):
        if p.kind != other.kind:
            found.append(f"{name}: {p.name} is {p.kind or 'positional'}, in PyTorch {other.kind or 'positional'}")
        values = [getattr(q.default, "__name__", q.default) for q in (p, other)]  # functions are equal if their names are
        if values[0] != values[1] and f"{name} {p.name}" not in DEFAULTS:
            found.append(f"{name}: {p.name}={p.default!r}, PyTorch {other.default!r}")
    return found


def test_signatures_are_those_of_torch(torch: Any) -> None:
    found, count = [], 0
    for name, mine, theirs in callables(torch):
        found += differences(name, parameters(mine), parameters(theirs))
        count += 1
    assert found == []
    assert count > 150


def test_a_difference_is_found(torch: Any) -> None:
    """Of names, order, kind and default."""

    def reference(input: Any, dim: int = 0, *, out: Any = None) -> None: ...
    def order(dim: int = 0, input: Any = None, *, out: Any = None) -> None: ...
    def kind(input: Any, dim: int = 0, out: Any = None) -> None: ...
    def default(input: Any, dim: int = 1, *, out: Any = None) -> None: ...
    def fewer(input: Any, dim: int = 0) -> None: ...

    theirs = parameters(reference)
    assert differences("f", parameters(reference), theirs) == []
    assert all(differences("f", parameters(f), theirs) for f in (order, kind, default, fewer))


@pytest.mark.filterwarnings("ignore:.*NLLLoss2d:FutureWarning")
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.parametrize("path", ["nn", "optim", "optim.lr_scheduler"])
def test_constructors_take_the_arguments_of_torch(path: str, torch: Any) -> None:
    """All defaults of PyTorch by position and by keyword; on both sides the same calls are accepted."""
    for name, mine, theirs in callables(torch):
        if not inspect.isclass(mine) or name.rpartition(".")[0] != path or name.endswith(("Module", "Optimizer", "LRScheduler")):
            continue
        short = name.rpartition(".")[2]
        options = {p.name: p.default for p in parameters(theirs) if p.default is not inspect.Parameter.empty}
        ordered = [p.default for p in parameters(theirs) if p.name in options and not p.kind]
        if short in ("RNN", "GRU"):  # PyTorch takes device and dtype by keyword only, against its declaration
            ordered = ordered[:-2]
        if short == "EmbeddingBag":  # a private parameter stands before the others
            ordered = ordered[:5]
        for module, make in ((gpunet, mine), (torch, theirs)):
            weights = [module.zeros(2, 2, requires_grad=True)]
            required: Any = REQUIRED.get(short, ())
            if short == "DataParallel":
                required = (module.nn.Linear(2, 2),)
            elif short in ("TransformerEncoder", "TransformerDecoder"):
                required = (getattr(module.nn, f"{short}Layer")(4, 2), 1)
            if path == "optim":
                required = (weights,)
            elif path == "optim.lr_scheduler":
                optimizer = module.optim.SGD(weights, lr=0.1, momentum=0.9)
                required = (optimizer, *required)
                if short in ("SequentialLR", "ChainedScheduler"):
                    schedules = module.optim.lr_scheduler
                    parts = [schedules.ConstantLR(optimizer), schedules.ExponentialLR(optimizer, 0.9)]
                    required = (optimizer, parts, [3]) if short == "SequentialLR" else (parts,)
            keywords = dict(options)
            if short == "OneCycleLR":  # total_steps is required where epochs is None
                keywords["total_steps"] = ordered[0] = 10
                required = required[:2]
            if short.startswith("FractionalMaxPool"):
                keywords["output_size"] = ordered[0] = 3
            make(*required, **keywords)
            make(*required, *ordered)
