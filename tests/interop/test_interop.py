"""Scripts that are written for PyTorch, run and read under gpunet's names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpunet
from gpunet.cli.main import main
from gpunet.errors import ArgumentError, MissingModuleError, MissingNameError
from gpunet.interop.port import read_script
from gpunet.interop.run_script import run_script
from gpunet.interop.torch_modules import place_of, torch_names

SCRIPT = """
import sys
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.backends.cudnn as cudnn
from torch import optim
from torch.autograd import Variable
from torch.nn.modules.loss import MSELoss
from torch.nn.parameter import Parameter
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.dataset import Dataset
from torchvision import transforms
from torchvision.utils import make_grid

assert __name__ == "__main__" and sys.argv[1:] == ["--epochs", "60"]
cudnn.benchmark = True
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = optim.Adam(net.parameters(), lr=0.05)
x = torch.FloatTensor([[0, 0], [0, 1], [1, 0], [1, 1]])
y = torch.FloatTensor([[0], [1], [1], [0]])
for epoch in range(60):
    for a, b in DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(net(Variable(a)), b)
        loss.backward()
        optimizer.step()
print(torch.__version__.split("+")[0], round(loss.item(), 1), isinstance(net[0].weight, Parameter))
"""


def test_script_runs_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(sys.modules), list(sys.argv), list(sys.path)
    spec = gpunet.nn.__spec__
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    assert main(["run", str(path), "--epochs", "60"]) == 0
    assert capsys.readouterr().out == "2.13.0 0.0 True\n"
    assert [m for m in sys.modules if m.startswith("torch") and sys.modules[m] is not before[0].get(m)] == []
    assert (sys.argv, sys.path) == before[1:] and gpunet.nn.__spec__ is spec
    assert main(["port", str(path)]) == 0


def test_modules_beside_the_script_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_model_of_a_test.py").write_text("import torch\nclass Net(torch.nn.Module): pass\n")
    (tmp_path / "train.py").write_text("from my_model_of_a_test import Net\nprint(Net().state_dict())\n")
    run_script(tmp_path / "train.py")
    assert "OrderedDict" in capsys.readouterr().out


def notebook(*cells: str) -> str:
    found = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": ["text"]}, *found], "nbformat": 4})


def test_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = "%matplotlib inline\n!pip install torch\nimport torch", "if True:\n    !ls\n    x = torch.ones(2)"
    continued = "print('%d'\n      % 5)\ntext = \'\'\'\n!kept\n\'\'\'\nprint(text.strip())"
    cells = (first, second, "%%bash\nls", "print(x)", continued)
    path = tmp_path / "book.ipynb"
    path.write_text(notebook(*cells))
    assert main(["run", str(path)]) == 0
    assert capsys.readouterr().out == "tensor([1., 1.])\n5\n!kept\n"
    path.write_text("{}")
    with pytest.raises(ArgumentError, match="is no notebook"):
        run_script(path)


def test_missing_names_are_named() -> None:
    with torch_names():
        import torch

        assert torch.nn is gpunet.nn and not hasattr(torch, "quantization")
        with pytest.raises(MissingNameError, match=r"torch\.fourier is not in gpunet; `gpunet port SCRIPT` lists all"):
            torch.fourier  # noqa: B018
        with pytest.raises(MissingModuleError, match=r"torch\.quantization is not in gpunet: use float16"):
            import torch.quantization
        with pytest.raises(MissingModuleError, match=r"torch\.jit is not in gpunet: leave the function as it is"):
            from torch import jit  # noqa: F401
    assert place_of("torch.nn.modules.linear") == "gpunet.nn" and place_of("torch.nn.nothing") is None
    assert place_of("torchvision.transforms") == "gpunet.vision.transforms"
    with torch_names():
        import torchvision.transforms.functional as v1_functional
        import torchvision.transforms.v2.functional as functional
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        assert v2.functional is functional is v1_functional and tv_tensors.Mask is gpunet.vision.tv_tensors.Mask
        assert v2.Compose is gpunet.vision.transforms.Compose


def test_error_of_the_script_has_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("import torch\n\nx = torch.ones(2) @ torch.ones(3)\n")
    assert main(["run", str(path)]) == 1
    printed = capsys.readouterr().err
    assert f'File "{path}", line 3, in <module>' in printed and "ShapeError" in printed and "runpy" not in printed
    path.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(SystemExit, match="3"):
        main(["run", str(path)])
    assert main(["run", str(tmp_path / "none.py")]) == 2
    assert "no file" in capsys.readouterr().err


PORTED = """
import torch
from torch import nn as layers
import torch.quantization as quantization
from torchvision.models import resnet18
m = layers.Conv7d(1, 2)
y = torch.foo(3)
x = torch.ones(3).to_sparse(4)
z = torch.nn.functional.relu(x, inplac=True)
model.transform(x)
"""


def test_port_names_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "script.py"
    path.write_text(PORTED)
    found = {(f.line, f.name) for f in read_script(path).findings}
    assert found >= {
        (4, "torch.quantization"), (6, "torch.nn.Conv7d"), (7, "torch.foo"), (8, "Tensor.to_sparse"),
        (9, "torch.nn.functional.relu"),
    }  # fmt: skip
    assert not {name for _, name in found} & {"Tensor.transform", "torch.ones", "torch.nn.functional"}
    assert main(["port", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "script.py:9: torch.nn.functional.relu: takes no keyword inplac=" in printed and "names missing: " in printed
    path.write_text("import (")
    with pytest.raises(ArgumentError, match=r"script\.py, line 1"):
        read_script(path)


def test_torch_of_a_process_is_put_aside(torch: Any) -> None:
    with torch_names():
        import torch as mine

        assert mine is not torch and isinstance(mine.ones(1), gpunet.Tensor)
    assert sys.modules["torch"] is torch


def test_import_of_torch_in_a_new_process(tmp_path: Path) -> None:
    """Without PyTorch, and from the command line."""
    path = tmp_path / "script.py"
    path.write_text("import sys\nsys.modules['numba'] = None\nimport torch\nprint(torch.ones(2).sum().item())\n")
    done = subprocess.run([sys.executable, "-m", "gpunet", "run", str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == "2.0\n", done.stderr


SPAWNS = """
import os
import torch
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.tensor([index**2, "gpunet" in type(torch.ones(1)).__module__])

def show(rank, text):
    print(text, "gpunet" in type(torch.ones(1)).__module__)

if __name__ == "__main__":
    os.chdir("/")
    torch.multiprocessing.spawn(show, ("spawned",), nprocs=1)
    print([b.tolist() for b in DataLoader(Squares(), 2, num_workers=1, multiprocessing_context="spawn")])
"""


def test_spawned_processes_have_the_same_names(tmp_path: Path) -> None:
    """Also after the script has changed its folder."""
    (tmp_path / "script.py").write_text(SPAWNS)
    command = [sys.executable, "-m", "gpunet", "run", "script.py"]
    environment = {**os.environ, "PYTHONPATH": str(Path(gpunet.__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "spawned True\n[[[0, 1], [1, 1]]]\n", done.stderr
