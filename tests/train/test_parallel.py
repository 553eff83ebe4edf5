"""Training in several processes: shared batches, the same bits for any number of processes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.test_distributed import needs_mpi, run
from tests.train import rank_kills

for _package in ("safetensors", "sklearn"):
    pytest.importorskip(_package, reason="pip install 'gpunet[train]'")


@needs_mpi
@pytest.mark.parametrize(
    "name, count", [("sharing", 3), ("bits", 2), ("divided", 3), ("refused", 2), ("unseeded", 2), ("resumed", 2)]
)
def test_program(name: str, count: int) -> None:
    done = run(count, "-m", "tests.train.parallel_programs", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") == count


@needs_mpi
@pytest.mark.exhaustive
def test_bits_of_four_processes() -> None:
    done = run(4, "-m", "tests.train.parallel_programs", "bits")
    assert done.returncode == 0, done.stdout + done.stderr


def model_file(folder: Path, count: int, *options: str) -> bytes:
    """The weights that ``gpunet train`` writes in ``count`` processes."""
    arguments = ["--device", "cpu", "--epochs", "2", "--hidden", "12", "--test-size", "0.5", "--batch-size", "62", *options]
    done = rank_kills.train(count, ["train", *arguments, "--out", str(folder)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out accuracy") == 1  # one process prints
    assert count == 1 or f"processes: {count} share each batch; rank 0 is process " in done.stdout
    return (folder / "model.safetensors").read_bytes()


@needs_mpi
@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_the_model_file_of_gpunet_train_is_that_of_one_process(count: int, tmp_path: Path) -> None:
    expected = model_file(tmp_path / "one", 1, "--deterministic")
    assert model_file(tmp_path / "several", count, "--deterministic") == expected


@needs_mpi
def test_a_killed_process_stops_the_others_and_the_run_resumes_to_the_same_bits() -> None:
    assert rank_kills.check(2, seed=3) > 0


@needs_mpi
@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(5))
def test_many_killed_processes(seed: int) -> None:
    assert rank_kills.check(10, seed) > 3
