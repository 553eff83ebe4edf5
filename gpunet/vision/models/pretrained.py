"""The arguments of torchvision's functions that ask for pretrained weights."""

from __future__ import annotations

from typing import Any

from gpunet.errors import ArgumentError


def refuse_weights(function: str, weights: Any, options: dict[str, Any]) -> None:
    """Check that no pretrained weights are asked for, by ``weights`` or by the older ``pretrained``, which is taken out of options.

    Raises:
        ArgumentError: weights are asked for.
    """
    asked = {"weights": weights, "pretrained": options.pop("pretrained", None)}
    for name, value in asked.items():
        if value not in (None, False):
            raise ArgumentError(
                f"{function}: {name}={value!r}; expected None, because nothing is downloaded. Where torchvision is installed, "
                f"write its weights by safetensors.torch.save_file(torchvision.models.{function}({name}=...).state_dict(), path); "
                f"here call {function}().load_state_dict(gpunet.load(path))"
            )
