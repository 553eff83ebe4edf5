"""The generated stub methods.pyi matches the methods that the library attaches to Tensor."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpunet.autograd
from tests.typing_face import face


def test_stub_is_up_to_date() -> None:
    path = Path(gpunet.autograd.__file__).with_name("methods.pyi")
    assert path.read_text() == face(), "run: python -m tests.typing_face > gpunet/autograd/methods.pyi"


def test_backward_is_named_in_messages() -> None:
    with pytest.raises(TypeError, match=r"^Tensor\.backward\(\) got an unexpected keyword argument 'unknown'"):
        gpunet.ones(1, requires_grad=True).backward(unknown=1)
