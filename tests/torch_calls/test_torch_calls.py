"""A sample of random calls, and the instrument itself: it finds planted faults, and none where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

import gpunet
from gpunet.errors import DtypeError
from tests.torch_calls.draw import Call, draw, with_out
from tests.torch_calls.judge import BOTH_REFUSE, CRASH, EQUAL, MISSING, RAW, SILENT, judge
from tests.torch_calls.outcome import quietly
from tests.torch_calls.survey import survey, verdicts
from tests.torch_calls.targets import NOT_COMPARED, Target, find_targets
from tests.torch_calls.values import GROW_WITH_NUMBERS


@pytest.fixture
def targets(torch: Any) -> list[Target]:
    return find_targets(gpunet, torch)


@pytest.mark.parametrize("seed", [0, 1])
def test_sample(device: str, seed: int, torch: Any) -> None:
    result = survey(gpunet, torch, 2500 if device == "cpu" else 200, seed)
    assert not result.faults, "\n".join(result.report())


def test_calls_follow_from_the_seed(targets: list[Target]) -> None:
    def texts(seed: int) -> list[str]:
        return [draw(Random(f"{seed} {number}"), target).text for number, target in enumerate(targets)]

    assert texts(0) == texts(0) != texts(1)


def test_most_calls_are_valid(torch: Any, targets: list[Target]) -> None:
    accepted = [v.kind in (EQUAL, SILENT) for v in verdicts(torch, torch, 1000, 0, targets=targets)]
    # many functions in place refuse integers, many products and equations of tensors other shapes than one, many native forms
    # all but a few combinations
    assert sum(accepted) > 620


def test_no_call_needs_much_memory_or_time(targets: list[Target]) -> None:
    growing = [target for target in targets if GROW_WITH_NUMBERS.fullmatch(target.name)]
    assert {"torch.bincount", "F.one_hot", "torch.range", "torch.special.hermite_polynomial_h"} <= {t.full_name for t in growing}
    texts = [draw(Random(f"large {number}"), target).text for target in growing for number in range(100)]
    assert [text for text in texts if re.search(r"1e30|2\*\*40|(?<![-.\d])\d{9}", text)] == []


def test_lines_that_end_the_process_are_not_run(torch: Any, targets: list[Target]) -> None:
    [target] = [target for target in targets if target.full_name == "torch.range"]
    call = Call(target, (), "r = torch.range(3, -0.5, -0.5, dtype=torch.int8)")
    with quietly():
        assert judge(call, torch, gpunet, Random(0)).kind == CRASH and with_out(call, torch, Random(0)) is None
        assert judge(Call(target, (), "r = torch.range(3, -0.5, -0.5)"), torch, gpunet, Random(0)).kind == EQUAL


def test_pivots_of_lu_unpack_fit(targets: list[Target]) -> None:  # PyTorch reads beyond the end of others
    [target] = [target for target in targets if target.full_name == "torch.lu_unpack"]
    calls = [draw(Random(f"pivots {number}"), target) for number in range(50)]
    assert all("dtype=torch.int32" in call.setup[-1] for call in calls)


@pytest.mark.parametrize("name", ["F.embedding", "F.embedding_bag"])
def test_many_tables_and_indices_fit(name: str, torch: Any, targets: list[Target]) -> None:
    chosen = [target for target in targets if target.full_name == name]
    assert sum(v.kind == EQUAL for v in verdicts(torch, torch, 100, 0, targets=chosen)) > 35


def test_pytorch_agrees_with_itself(torch: Any, targets: list[Target]) -> None:
    assert [v.text for v in verdicts(torch, torch, 3000, 7, targets=targets) if v.kind == SILENT] == []


#: Functions that take and return no tensor.
SETTINGS_AND_FILES = {
    "are_deterministic_algorithms_enabled", "can_cast", "compile", "finfo", "from_dlpack", "from_file", "frombuffer",
    "get_default_device", "get_default_dtype", "get_deterministic_debug_mode", "get_device", "get_device_module",
    "get_float32_matmul_precision", "get_num_interop_threads", "get_num_threads", "get_rng_state", "iinfo", "inference_mode",
    "initial_seed", "is_anomaly_check_nan_enabled", "is_anomaly_enabled", "is_deterministic_algorithms_warn_only_enabled",
    "is_grad_enabled", "is_inference_mode_enabled", "is_storage", "is_tensor", "is_warn_always_enabled", "load", "manual_seed",
    "promote_types", "save", "seed", "set_anomaly_enabled", "set_default_device", "set_default_dtype", "set_default_tensor_type",
    "set_deterministic_debug_mode", "set_float32_matmul_precision", "set_flush_denormal", "set_grad_enabled",
    "set_num_interop_threads", "set_num_threads", "set_printoptions", "set_rng_state", "set_warn_always", "thread_safe_generator",
    "to_dlpack", "typename", "use_deterministic_algorithms", "vmap", "while_loop",
}  # fmt: skip


#: Functions whose parameters PyTorch gives no types; tests/ops/test_running.py and test_strided_and_parts.py have their calls.
WITHOUT_TYPES = {"broadcast_shapes", "cdist"}


def test_what_is_left_out(torch: Any, targets: list[Target]) -> None:
    drawn = {target.name for target in targets}
    functions = {name for name in gpunet.__all__ if callable(getattr(gpunet, name)) and callable(getattr(torch, name, None))}
    functions = {name for name in functions if "autocast" not in name and not isinstance(getattr(torch, name), type)}
    assert functions - drawn <= SETTINGS_AND_FILES | WITHOUT_TYPES
    layers = {name for name in dir(gpunet.nn.functional) if hasattr(torch.nn.functional, name) and not name.startswith("_")}
    assert not layers - drawn
    methods = {name for name in dir(gpunet.Tensor) if hasattr(torch.Tensor, name) and not name.startswith("_")}
    assert methods - drawn <= NOT_COMPARED


# ---- planted faults -------------------------------------------------------------------------------------------------


Judged = Callable[..., str]


@pytest.fixture
def judged(torch: Any) -> Judged:
    """The verdict on a call of PyTorch with functions replaced, compared with PyTorch."""

    def judged(statement: str, setup: str = "x = torch.tensor([1.0, 2.0])", **planted: Any) -> str:
        library = SimpleNamespace(**{**vars(torch), **planted})
        call = Call(Target("function", "exp", ()), (setup,), statement, ("x",) if "requires_grad" in setup else ())
        verdict = judge(call, torch, library, Random(0))
        return f"{verdict.kind}: {verdict.detail}" if verdict.detail else verdict.kind

    return judged


def raising(error: Exception) -> Any:
    def function(*args: Any, **options: Any) -> Any:
        raise error

    return function


def test_planted_differences_are_found(torch: Any, judged: Judged) -> None:
    call, with_grad = "r = torch.exp(x)", "x = torch.tensor([1.0, 2.0], requires_grad=True)"
    assert judged(call) == judged(call, with_grad) == EQUAL
    assert judged(call, exp=lambda x: torch.exp(x) * (1 + 1e-5)) == f"{SILENT}: value"
    assert judged(call, exp=lambda x: torch.exp(x).double()) == f"{SILENT}: dtype"
    assert judged(call, exp=lambda x: torch.exp(x)[:1]) == f"{SILENT}: shape"
    assert judged(call, exp=lambda x: torch.exp(x).tolist()) == f"{SILENT}: type"
    assert judged(call, exp=lambda x: x.exp_()) == f"{SILENT}: argument: value"
    assert judged(call, with_grad, exp=lambda x: torch.exp(x).detach()) == f"{SILENT}: requires_grad"
    assert judged(call, with_grad, exp=lambda x: x + (torch.exp(x) - x).detach()) == f"{SILENT}: gradient: value"
    assert judged("r = torch.exp(2.0)", exp=lambda x: torch.tensor(x).exp()) == f"{SILENT}: accepted"


def test_rounding_is_no_difference(torch: Any, judged: Judged) -> None:
    assert judged("r = torch.exp(x)", exp=lambda x: torch.exp(x) * (1 + 1e-7)) == EQUAL
    setup = "x = torch.tensor([1e4, 1.0, -1e4], dtype=torch.float32)"
    assert judged("r = torch.sum(x)", setup, sum=lambda x: torch.sum(x) + 1e-3) == EQUAL  # the terms cancel
    assert judged("r = torch.sum(x)", setup, sum=lambda x: torch.sum(x) + 1.0) == f"{SILENT}: value"


def test_rounding_of_an_intermediate_result_is_no_difference(judged: Judged) -> None:
    call, setup = "r = torch.sub(torch.exp(x), torch.exp(x))", "x = torch.tensor([10.0, 9.0], dtype=torch.float32)"
    assert judged(call, setup, sub=lambda a, b: a - b + 1e-3) == EQUAL  # exp(10) has errors of 1e-3
    assert judged(call, setup, sub=lambda a, b: a - b + 1.0) == f"{SILENT}: value"
    matrix = "x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)"
    assert judged("r = torch.inverse(x)", matrix, inverse=lambda x: x.inverse() * (1 + 1e-12)) == f"{SILENT}: value"


def test_rounding_of_complex_numbers_is_no_difference(judged: Judged) -> None:
    call, setup = "r = torch.sub(torch.exp(x), torch.exp(x))", "x = torch.tensor([10 + 1j, 9 - 2j], dtype=torch.complex64)"
    assert judged(call, setup, sub=lambda a, b: a - b + 1e-3j) == EQUAL  # both parts of exp(10 + 1j) have errors of 1e-3
    assert judged(call, setup, sub=lambda a, b: a - b + 1.0j) == f"{SILENT}: value"


def test_errors_are_classed(judged: Judged) -> None:
    call = "r = torch.exp(x)"
    assert judged(call, exp=raising(DtypeError("exp: x has dtype int64"))).startswith(MISSING)
    assert judged(call, exp=raising(DtypeError("exp: ufunc 'exp' did not contain a loop"))).startswith(RAW)
    assert judged(call, exp=raising(TypeError("exp() got an unexpected keyword argument 'y'"))).startswith(MISSING)
    assert judged(call, exp=raising(TypeError("_exp.<locals>.call() got an unexpected keyword argument 'y'"))).startswith(RAW)
    assert judged(call, exp=raising(ValueError("axes don't match array"))).startswith(RAW)
    assert judged("r = torch.exp('q')", exp=raising(DtypeError("exp: 'q' is no tensor"))) == BOTH_REFUSE
    assert judged("r = torch.exp('q')", exp=raising(KeyError("q"))).startswith(RAW)
    assert judged("r = int(x)", "x = float('nan')") == BOTH_REFUSE  # the same error of Python
