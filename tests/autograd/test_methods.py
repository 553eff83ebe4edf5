"""The typing face of Tensor's methods is what the library really attaches."""

from __future__ import annotations

from pathlib import Path

import gpunet.autograd
from tests.typing_face import face


def test_the_face_is_up_to_date():
    path = Path(gpunet.autograd.__file__).with_name("methods.pyi")
    assert path.read_text() == face(), "run: python -m tests.typing_face > gpunet/autograd/methods.pyi"
