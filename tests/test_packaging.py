"""The wheel and the sdist: their files, their size, and the project's metadata."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.driver.build import CUPY_VERSION, PACKAGES

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 2_000_000  # enough for sources; an accidental binary or data set exceeds it

pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install 'gpunet[test]'")


def build(kind: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


def sources(folder: str, *suffixes: str) -> set[str]:
    return {str(p.relative_to(ROOT)) for s in suffixes for p in (ROOT / folder).rglob(f"*{s}")}


def test_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < MAX_BYTES
    assert wheel.name.endswith("-py3-none-any.whl")


def test_wheel_contains_the_package_and_its_cuda_sources(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    cuda = sources("cuda_kernels", ".cu", ".cuh")
    assert cuda
    expected = (
        {f"gpunet/{name}" for name in cuda} | sources("gpunet", ".py", ".pyi", ".h", ".cpp") | {"gpunet/py.typed"}
    )
    expected -= {"gpunet/testing/plugin/pytest_gpunet.py"}  # installed at the top level
    assert expected <= names
    unexpected = {n for n in names if not n.startswith(("gpunet/", "gpunet-")) or "__pycache__" in n}
    assert unexpected == {"pytest_gpunet.py"}


def test_wheel_works_by_itself(wheel: Path, tmp_path: Path) -> None:
    """From the extracted wheel alone, the package imports and finds its CUDA sources."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, '.'); import gpunet; from gpunet.backend import cuda_sources;"
        "print(gpunet.__file__); print(cuda_sources.kernel_directory()); print(len(cuda_sources.kernel_files()))"
    )
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    module, kernels, count = done.stdout.splitlines()
    assert Path(module).resolve() == (tmp_path / "gpunet" / "__init__.py").resolve()
    assert Path(kernels).resolve() == (tmp_path / "gpunet" / "cuda_kernels").resolve()
    assert int(count) == len(sources("cuda_kernels", ".cu"))


def test_sdist_can_build_and_test_itself(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources("cuda_kernels", ".cu", ".cuh") <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/conftest.py", "gpunet/py.typed"} <= names


def test_project_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [dependency] = project["dependencies"]
    assert dependency.startswith("numpy")
    extras = project["optional-dependencies"]
    requirements = [dependency, *(r for group in extras.values() for r in group)]
    bounded = [r for r in requirements if "<" in r or "==" in r.partition(";")[0]]
    # Upper bounds cause conflicts; only the stand-in driver of the tests needs one version of CuPy, whose parts it replaces.
    assert [r.partition(";")[0] for r in bounded] == [f"cupy-cuda13x=={CUPY_VERSION}"] and bounded[0] in extras["test"]
    for name in ("cuda12", "cuda13"):
        assert not any("cublas" in r or "curand" in r or "[ctk]" in r for r in extras[name])
    assert not any("torch" in r for name in ("train", "test", "bench", "dev") for r in extras[name])


def test_the_test_extra_installs_what_the_stand_in_driver_needs() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]["test"]
    names = {re.split("[;=><]", requirement)[0] for requirement in extra}
    assert {package.partition("==")[0] for package in PACKAGES} <= names
