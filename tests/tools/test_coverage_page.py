"""The page of PyTorch's names that gpunet has."""

from __future__ import annotations

import re
from typing import Any

import gpunet
from gpunet.tools import coverage_page
from gpunet.tools.coverage_page import judge


def test_page_is_up_to_date(torch: Any) -> None:
    page = coverage_page.page_path().read_text(encoding="utf-8")
    assert page == coverage_page.page(), "run: python -m gpunet.tools.coverage_page --write"
    count, share = re.search(r"Of (\d+) public names of PyTorch (\d+ %)", page).groups()  # type: ignore[union-attr]
    readme = coverage_page.page_path().parents[1] / "README.md"
    assert f"{share} of {count} are there" in readme.read_text(encoding="utf-8")


def test_states(torch: Any, monkeypatch: Any) -> None:
    assert judge("torch.nn.Linear", torch.nn.Linear).state == "present"
    assert judge("torch.sparse_coo_tensor", torch.sparse_coo_tensor) == ("torch.sparse_coo_tensor", "absent", "sparse")
    assert judge("torch.stft", torch.stft).state == "present" and judge("torch.chalf", torch.chalf).note == "complex"

    def mse_loss(input: Any, target: Any) -> None: ...

    monkeypatch.setattr(gpunet.nn.functional, "mse_loss", mse_loss)
    found = judge("torch.nn.functional.mse_loss", torch.nn.functional.mse_loss)
    assert found.state == "partly" and "reduction" in found.note
