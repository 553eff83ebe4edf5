"""Compares what the launches of a kernel pack with the parameters that its cubin declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gpunet.backend import compiler
from gpunet.backend.devices import Device
from gpunet.launch.kernel import Kernel
from gpunet.tools import cubin
from gpunet.tools.kernel_cases import cases


def differences(kernel: Kernel, machine_code: bytes, lowered: Mapping[str, str], tag: str = "edge") -> list[str]:
    """Return the specialisations whose launches pack other sizes or offsets than the kernel expects.

    Nothing runs: the function that would launch records its arguments.

    Args:
        machine_code: a cubin.
        lowered: the mangled names of the specialisations in it.
        tag: of the cases that are launched.

    Returns:
        A line for each difference, and one for each specialisation that no case launches.
    """
    packed: dict[str, set[tuple[cubin.Parameter, ...]]] = {}

    def load(file: Any, expression: str, device: Device) -> Any:
        def launch(grid: Any, block: Any, arguments: Any, *rest: Any) -> None:
            packed.setdefault(expression, set()).add(tuple(cubin.packed(arguments)))

        return launch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "function", load)
        for case in cases(kernel, tag):
            if case.expression() in lowered:
                case.launch(case.on_device(Device("emulated")))
    declared = cubin.parameters(machine_code)
    found = []
    for expression, name in lowered.items():
        layouts = packed.get(expression, set())
        if not layouts:
            found.append(f"{expression}: no case launches it")
        found += [
            f"{expression} expects {declared[name]}, and a launch packs {list(layout)}"
            for layout in layouts
            if list(layout) != declared[name]
        ]
    return found
