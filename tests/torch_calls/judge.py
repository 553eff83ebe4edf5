"""The verdict on a call: runs it with both libraries and classes the difference."""

from __future__ import annotations

import re
from random import Random
from typing import Any, NamedTuple

from tests.torch_calls.compare import EPSILON, PARTS, difference
from tests.torch_calls.draw import Call
from tests.torch_calls.outcome import (
    FILE,
    Other,
    Outcome,
    TensorValue,
    Value,
    crashes,
    innermost,
    is_tensor,
    run,
    snapshot,
)
from tests.torch_calls.reference import is_rounding, is_undefined

EQUAL, BOTH_REFUSE, MISSING, SILENT, RAW = "equal", "both refuse", "missing", "silent difference", "raw error"
FAULTS = (SILENT, RAW)
CRASH = "PyTorch crashes"
#: Words of messages that only the authors of the library understand.
INTERNAL_WORDS = re.compile(
    r"\bufunc|numpy (boolean|array)|launch of|\bshim\b|<locals>|(?<!\w)_[a-z]\w*[:(]|(?<!head_attention)_forward|_backward\b|"
    r"'NoneType' object|has no attribute|not subscriptable|unhashable|object is not iterable|an integer is required|"
    r"could not be broadcast|positional and keyword",
    re.IGNORECASE,
)


class Verdict(NamedTuple):
    """What a call showed."""

    call: Call
    text: str  # the line that shows it, with what follows the call
    kind: str  # one of the classes above
    detail: str = ""  # how the results differ, or the class and message of the error
    theirs: str = ""
    ours: str = ""
    values: tuple[Value, Value] | None = None  # PyTorch's and gpunet's, of a difference in values
    leaf: Value | None = None  # the tensor that differing gradients belong to


def judge(call: Call, torch: Any, gpunet: Any, random: Random) -> Verdict:
    """Run a call, and as a rule what follows (backward, a second backward, a change in place of the result)."""
    text = call.text
    if crashes(text):
        return Verdict(call, text, CRASH)
    torch.manual_seed(0)
    theirs, ours = run(text, torch), run(text, gpunet)
    verdict = _compare_errors(call, text, theirs, ours) or _compare_variables(call, text, theirs, ours, torch)
    if verdict is not None:
        return verdict
    for follow in (_following, _second_backward):
        statement = follow(call, theirs, random)
        if statement:
            theirs, ours = run(statement, torch, theirs.variables), run(statement, gpunet, ours.variables)
            text = f"{text}; {statement}"
            verdict = _compare_errors(call, text, theirs, ours) or _compare_variables(call, text, theirs, ours, torch)
            if verdict is not None:
                return verdict
    return Verdict(call, text, EQUAL)


# ---- errors ---------------------------------------------------------------------------------------------------------


def error_class(error: BaseException, call: Call) -> str:
    """Return "named" for an error in the user's words, else "raw"."""
    message = str(error)
    if INTERNAL_WORDS.search(message):
        return "raw"
    if type(error).__module__ == "gpunet.errors":
        return "raw" if type(error).__name__ == "LaunchError" else "named"
    if isinstance(error, MemoryError):
        return "named"
    if isinstance(error, TypeError):
        is_python = innermost(error)[0] == FILE or re.match(r"(\w+\.)*[a-z]\w*\(\) (got|takes|missing)", message)
        return "named" if is_python else "raw"
    return "raw"


def _compare_errors(call: Call, text: str, theirs: Outcome, ours: Outcome) -> Verdict | None:
    if ours.error is not None and repr(ours.error) == repr(theirs.error):  # Python's own: int(x) of a nan
        return Verdict(call, text, BOTH_REFUSE)
    if ours.error is not None:
        detail = f"{type(ours.error).__name__}: {ours.error}"
        kind = RAW if error_class(ours.error, call) == "raw" else MISSING if theirs.error is None else BOTH_REFUSE
        shown = f"{type(theirs.error).__name__}: {theirs.error}" if theirs.error is not None else _shown(theirs)
        return Verdict(call, text, kind, detail if kind != BOTH_REFUSE else "", shown, detail)
    if theirs.error is not None:
        message = f"{type(theirs.error).__name__}: {str(theirs.error).splitlines()[0] if str(theirs.error) else ''}"
        return Verdict(call, text, SILENT, "accepted", message, _shown(ours))
    return None


def _shown(outcome: Outcome) -> str:
    result = outcome.variables.get("r")
    try:
        return re.sub(r"\s+", " ", repr(result))[:200]
    except Exception as error:
        return f"(repr: {type(error).__name__})"


# ---- values ---------------------------------------------------------------------------------------------------------


def _compare_variables(call: Call, text: str, theirs: Outcome, ours: Outcome, torch: Any) -> Verdict | None:
    for name in theirs.variables:
        if len(name) > 1 or name.startswith("_"):
            continue
        a, b = theirs.variables[name], ours.variables[name]
        if name == "g":
            found, what = _compare_gradients(text, name, a, b, torch), "gradient: "
        else:
            found, what = _compare(text, name, snapshot(a), snapshot(b), torch, theirs), "" if name == "r" else "argument: "
        if not found and name in call.leaves:
            found, what = _compare_gradients(text, f"{name}.grad", a.grad, b.grad, torch), "gradient: "
            a, b, name = a.grad, b.grad, f"{name}.grad"
        if found:
            values = (snapshot(a), snapshot(b)) if found == "value" else None
            leaf = theirs.variables.get(_leaf_of(name, text)) if what == "gradient: " else None
            return Verdict(
                call, text, SILENT, what + found, _repr(a), _repr(b), values, snapshot(leaf) if is_tensor(leaf) else None
            )
    return None


def _leaf_of(name: str, text: str) -> str:
    """The name of the tensor that a gradient belongs to: of ``x.grad``, or of g, which :func:`_following` computes."""
    found = re.search(r"g, = torch\.autograd\.grad\(.*?, \[?(\w+)[\],]", text)
    return name.removesuffix(".grad") if name != "g" else found[1] if found else ""


def _repr(value: Any) -> str:
    text = re.sub(r"\s+", " ", repr(value))[:200]
    return f"{text} {tuple(value.shape)} {value.dtype}" if hasattr(value, "dtype") else text


#: Magnitude of the gradients that :func:`_weights` draws.
_LARGEST_WEIGHT = 3.0


def _compare_gradients(text: str, expression: str, a: Any, b: Any, torch: Any) -> str:
    """Compare gradients: a derivative is computed from saved results, which are rounded, so its error is relative to 1."""
    if a is None or b is None:
        return "" if a is b else "missing" if b is None else "not expected"
    theirs, ours = snapshot(a), snapshot(b)
    if isinstance(ours, TensorValue) and isinstance(theirs, TensorValue):
        ours = ours._replace(requires_grad=theirs.requires_grad)
    return _compare(text, expression, theirs, ours, torch, None)


def _compare(text: str, expression: str, theirs: Value, ours: Value, torch: Any, outcome: Outcome | None) -> str:
    """How two values differ beyond rounding; ``outcome`` has the arguments of a result, None stands for gradients."""
    # the weights of both backward passes multiply a second derivative
    scale = 0.0 if outcome is not None else _LARGEST_WEIGHT ** (2 if "g.backward" in text else 1)
    found = difference(theirs, ours, scale)
    if found != "value":
        return found
    if is_undefined(text, torch, expression, theirs):
        return ""
    magnitude = scale if outcome is None else _magnitude(outcome)
    return "" if _is_rounding(text, expression, theirs, ours, torch, magnitude) else found


def _magnitude(outcome: Outcome) -> float:
    """The largest ordinary number among the arguments: intermediate results are rounded relative to it."""
    arrays = [abs(v.array) for x in outcome.variables.values() if is_tensor(x) and isinstance(v := snapshot(x), TensorValue)]
    return max((float(a.max(initial=0, where=a < 1e3)) for a in arrays if a.dtype != bool), default=0.0)


def _is_rounding(text: str, expression: str, theirs: Value, ours: Value, torch: Any, magnitude: float) -> bool:
    if isinstance(theirs, TensorValue) and isinstance(ours, TensorValue):
        if theirs.dtype not in EPSILON and theirs.dtype not in PARTS:
            return False
        return is_rounding(text, torch, expression, theirs, ours, magnitude)
    if isinstance(theirs, tuple) and not isinstance(theirs, Other):
        assert isinstance(ours, tuple)
        pairs = list(zip(theirs, ours))[1:]
        return all(
            not difference(a, b) or _is_rounding(text, f"{expression}[{i}]", a, b, torch, magnitude)
            for i, (a, b) in enumerate(pairs)
        )
    return False


# ---- what follows ---------------------------------------------------------------------------------------------------


def _following(call: Call, outcome: Outcome, random: Random) -> str:
    """A statement behind the call: backward, backward of the gradient, or a change in place; "" for none."""
    result = outcome.variables["r"]
    name = "r"
    if isinstance(result, (tuple, list)) and result and is_tensor(result[0]):
        index = random.randrange(len(result))
        result, name = result[index], f"r[{index}]"
    if not is_tensor(result):
        return ""
    if not result.requires_grad:
        return f"{name}.zero_()" if random.random() < 0.2 else ""
    if not call.leaves or result.is_leaf:
        return ""
    weights = _weights(result, random)
    if random.random() < 0.7:
        return f"{name}.backward({weights})"
    leaf = random.choice(call.leaves)
    return f"g, = torch.autograd.grad({name}, [{leaf}], [{weights}], create_graph=True, allow_unused=True)"


def _second_backward(call: Call, outcome: Outcome, random: Random) -> str:
    """Backward of the gradient g, where PyTorch has a graph for it."""
    gradient = outcome.variables.get("g")
    if gradient is None or not gradient.requires_grad:
        return ""
    return f"g.backward({_weights(gradient, random)})"


def _weights(tensor: Any, random: Random) -> str:
    """A tensor literal like ``tensor``."""
    dtype = str(tensor.dtype)
    shape = tuple(tensor.shape)
    if 0 in shape:
        return f"torch.zeros({shape}, dtype={dtype})"

    def nested(sizes: tuple[int, ...]) -> Any:
        return [nested(sizes[1:]) for _ in range(sizes[0])] if sizes else random.choice((-1.5, -1.0, 0.5, 1.0, 2.0, 3.0))

    return f"torch.tensor({nested(shape)}, dtype={dtype})"
