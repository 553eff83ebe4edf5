"""Settings of PyTorch that change nothing here, questions, and names of classes."""

from __future__ import annotations

import threading

import pytest

import gpunet
from gpunet.errors import ArgumentError, DtypeError


def test_debug_mode_of_deterministic_algorithms() -> None:
    assert gpunet.get_deterministic_debug_mode() == 0
    try:
        for given, expected in (("warn", 1), (2, 2), ("error", 2), ("default", 0)):
            gpunet.set_deterministic_debug_mode(given)
            assert gpunet.get_deterministic_debug_mode() == expected
        with pytest.raises(ArgumentError, match=r"set_deterministic_debug_mode\('loud'\)"):
            gpunet.set_deterministic_debug_mode("loud")
    finally:
        gpunet.set_deterministic_debug_mode(0)


def test_warnings_and_small_numbers() -> None:
    assert not gpunet.is_warn_always_enabled()
    gpunet.set_warn_always(True)
    assert gpunet.is_warn_always_enabled()
    gpunet.set_warn_always(False)
    for call in (gpunet.set_warn_always, gpunet.set_flush_denormal):
        with pytest.raises(DtypeError, match=r"\(1\): expected True or False"):
            call(1)  # type: ignore[arg-type]
    assert gpunet.set_flush_denormal(True) is False and (gpunet.tensor([1e-40]) != 0.0).all()


def test_threads_between_ops() -> None:
    assert gpunet.get_num_interop_threads() == 1
    gpunet.set_num_interop_threads(3)
    assert gpunet.get_num_interop_threads() == 3
    gpunet.set_num_interop_threads(1)
    with pytest.raises(ArgumentError, match="set_num_interop_threads: 0 threads"):
        gpunet.set_num_interop_threads(0)


def test_inference_mode_is_told() -> None:
    assert not gpunet.is_inference_mode_enabled()
    found: list[bool] = []
    with gpunet.inference_mode():
        assert gpunet.is_inference_mode_enabled() and not gpunet.is_grad_enabled()
        thread = threading.Thread(target=lambda: found.append(gpunet.is_inference_mode_enabled()))
        thread.start()
        thread.join()
        with gpunet.inference_mode(False):
            assert not gpunet.is_inference_mode_enabled()
        assert gpunet.is_inference_mode_enabled() and not gpunet.is_inference(gpunet.ones(1))
    with gpunet.no_grad():
        assert not gpunet.is_inference_mode_enabled()

    @gpunet.inference_mode
    def inside() -> bool:
        return gpunet.is_inference_mode_enabled()

    assert inside() and not gpunet.is_inference_mode_enabled() and found == [False]
    with pytest.raises(DtypeError, match="is_inference: input has type int"):
        gpunet.is_inference(3)


def test_nesting_of_autocast_blocks() -> None:
    assert gpunet.autocast_increment_nesting() == 1 and gpunet.autocast_increment_nesting() == 2
    assert gpunet.autocast_decrement_nesting() == 1 and gpunet.autocast_decrement_nesting() == 0


def test_names_of_classes() -> None:
    assert isinstance(gpunet.channels_last, gpunet.memory_format) and isinstance(gpunet.strided, gpunet.layout)
    assert gpunet.legacy_contiguous_format is gpunet.contiguous_format
    assert isinstance(gpunet.default_generator, gpunet.Generator) and gpunet.thread_safe_generator() is None
    assert gpunet.is_storage(gpunet.ones(2).storage()) and not gpunet.is_storage(gpunet.ones(2))
    gpunet.default_generator.manual_seed(4)
    assert gpunet.initial_seed() == 4 and gpunet.random.thread_safe_generator() is None


def test_switches_of_backward() -> None:
    from gpunet.autograd import enforce_grad_layout_policy, grad_mode, set_multithreading_enabled

    with set_multithreading_enabled(False), enforce_grad_layout_policy(False), grad_mode.enable_grad():
        x = gpunet.ones(2, requires_grad=True)
        x.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, 1.0]
    assert grad_mode.set_grad_enabled is gpunet.set_grad_enabled
