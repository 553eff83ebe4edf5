"""The benchmark kit: contestants compute the same losses, others are excluded, and a run writes its files."""

from __future__ import annotations

import importlib
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend import devices
from gpunet.cli.main import main
from gpunet.errors import ArgumentError
from gpunet.launch.kernel import KERNELS
from gpunet.launch.tape import Tape, record
from gpunet.ops.dropout import dropout_apply
from gpunet.ops.linear import linear_backward_input, linear_backward_weight, linear_forward
from gpunet.ops.matmul import matmul_forward
from gpunet.tools import kernel_cases
from gpunet.tools.bench import ceilings, kernels, report, scaling, session
from gpunet.tools.bench import measure as measuring
from gpunet.tools.bench.cases import KINDS, LEARNING_RATES, Case, Perceptron, select
from gpunet.tools.bench.contestants import PEERS
from gpunet.tools.bench.measure import AGREEMENT, Bench, Entry, Measurement, Settings
from gpunet.tools.bench.networks import CASES, NETWORKS, PERCEPTRONS
from gpunet.tools.bench.peers import by_hand, ours
from gpunet.tools.bench.worker import COMPARED_STEPS, Worker, WorkerError

SMALL = (Perceptron("classes", (7, 9, 5), 6), Perceptron("regression", (5, 8, 8, 1), 4))
QUICK = Settings(rounds=2, turn=1e-4, timeout=60.0)


def first_losses(make: Any, case: Case, kind: str, variant: str, device: str = "cpu") -> list[float]:
    runner = make(case, kind, variant, device)
    return [runner.read(runner.step(*batch)) for batch in runner.batches[:COMPARED_STEPS]]


# ---- contestants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_losses_by_hand_equal_gpunets(case: Perceptron, kind: str) -> None:
    reference = first_losses(ours.make, case, kind, "eager")
    assert first_losses(by_hand.make, case, kind, "flat") == pytest.approx(reference, rel=1e-5)
    assert len(set(reference)) == COMPARED_STEPS  # each step has another batch


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
@pytest.mark.parametrize("peer, package", [("torch", "torch"), ("sklearn", "sklearn")])
def test_losses_of_peers_equal_gpunets(peer: str, package: str, case: Perceptron, kind: str) -> None:
    pytest.importorskip(package)
    make = importlib.import_module(f"gpunet.tools.bench.peers.{PEERS[peer].module}").make
    variants = [v for v in PEERS[peer].on("cpu") if v.takes(case, kind) and v.key != "compile"]
    for variant in variants:
        found = first_losses(make, case, kind, variant.key)
        assert found == pytest.approx(first_losses(ours.make, case, kind, "eager"), rel=1e-4), variant.key


@pytest.mark.parametrize("peer", ["torch", "jax"])
@pytest.mark.parametrize("name", NETWORKS)
def test_losses_of_networks_equal_gpunets(name: str, peer: str) -> None:
    pytest.importorskip(peer)
    make, network = importlib.import_module(f"gpunet.tools.bench.peers.{PEERS[peer].module}").make, NETWORKS[name]
    expected = first_losses(ours.make, network, "adam", "eager")
    assert len({f"{loss:.5f}" for loss in expected}) == COMPARED_STEPS
    for variant in PEERS[peer].on("cpu"):
        if variant.takes(network, "adam") and variant.key != "compile":
            assert first_losses(make, network, "adam", variant.key) == pytest.approx(expected, rel=1e-4), variant.key


def test_variants_that_are_written_for_perceptrons_or_images_take_no_others() -> None:
    networks = NETWORKS["lenet"], NETWORKS["lstm"], SMALL[0]
    takes = {v.key: [v.takes(case, "adam") for case in networks] for p in ("torch", "numpy") for v in PEERS[p].on("cpu")}
    assert takes["flat"] == [False, False, True] and takes["channels_last"] == [True, False, False]
    assert takes["fused"] == [True, True, True] and takes["eager"] == [False] * 3


def test_gradients_by_hand_equal_gpunets() -> None:
    """The losses do not depend on the gradients of ``backward``, so the gradients are compared directly."""
    for case in SMALL:
        network = by_hand.Network(case)
        model = case.build(gpunet)
        model.load_state_dict(case.state())
        x, y = case.batches()[0]
        loss_of = gpunet.nn.MSELoss() if case.regression else gpunet.nn.CrossEntropyLoss()
        loss_of(model(gpunet.tensor(x)), gpunet.tensor(y)).backward()
        network.backward(x, y)
        expected = numpy.concatenate([p.grad.array.reshape(-1) for p in model.parameters()])
        numpy.testing.assert_allclose(network.g, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_comparison_detects_a_wrong_update(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate 10 % too high exceeds AGREEMENT, in every fast case."""
    for name in ("tiny", "digits", "tabular"):
        right = first_losses(by_hand.make, PERCEPTRONS[name], kind, "flat")
        monkeypatch.setitem(LEARNING_RATES, kind, 1.1 * LEARNING_RATES[kind])
        wrong = first_losses(by_hand.make, PERCEPTRONS[name], kind, "flat")
        monkeypatch.undo()
        assert max(abs(a / b - 1) for a, b in zip(wrong, right)) > AGREEMENT


def test_peers_with_different_losses_are_reported_and_excluded(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Worker.ask

    def ask(self: Worker, do: str, timeout: float = 60.0, **request: Any) -> dict[str, Any]:
        answer = real(self, do, timeout, **request)
        if do == "build" and self.name == "by_hand":
            answer["losses"][3] *= 1 + 2 * AGREEMENT
        return answer

    monkeypatch.setattr(Worker, "ask", ask)
    with Bench(["numpy", "gpunet"], QUICK) as bench:
        [found] = bench.measure(SMALL[0], ["sgd"])
    entry = next(e for e in found.entries if e.peer == "numpy")
    assert (entry.status, entry.seconds) == ("disagrees", [])
    assert "at step 4" in entry.detail
    assert "NumPy by hand" not in found.best()
    assert any("disagrees" in line for line in report.case_block(SMALL[0], [found], {}))


@pytest.mark.parametrize("kind", ["forward", "backward", "sgd"])
def test_cuda_graph_starts_from_the_initial_state(kind: str, torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA graph step on stand-ins for PyTorch's streams and graphs; replay runs the step."""
    from gpunet.tools.bench.peers import pytorch

    class Stream:
        def wait_stream(self, other: Any) -> None: ...

    class Graph:
        def replay(self) -> None:
            losses.append(function[0](*buffers[0]))

    def capture(torch: Any, step: Any, batch: Any, model: Any, optimizer: Any) -> Any:
        def watched(x: Any, y: Any) -> Any:
            buffers[:] = [(x, y)]
            return step(x, y)

        function[:] = [watched]
        return real(torch, watched, batch, model, optimizer)

    losses: list[Any] = []
    buffers: list[Any] = []
    function: list[Any] = []
    real = pytorch._cuda_graph
    monkeypatch.setattr(pytorch, "_cuda_graph", capture)
    for name, value in {
        "Stream": Stream, "current_stream": Stream, "CUDAGraph": Graph, "stream": nullcontext, "graph": nullcontext,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    case = SMALL[0]
    runner = pytorch.make(case, kind, "graph", "cpu")
    for batch in runner.batches[:COMPARED_STEPS]:
        runner.step(*batch)
    expected = first_losses(ours.make, case, kind, "eager")
    assert [float(loss) for loss in losses] == pytest.approx(expected, rel=1e-4)


def test_crash_of_a_contestant_does_not_affect_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Worker.ask

    def ask(self: Worker, do: str, timeout: float = 60.0, **request: Any) -> dict[str, Any]:
        if do == "build" and request["variant"] == "numpy":
            self._process.kill()
            self._process.wait()
        return real(self, do, timeout, **request)

    monkeypatch.setattr(Worker, "ask", ask)
    with Bench(["gpunet"], QUICK) as bench:
        [found] = bench.measure(SMALL[0], ["sgd"])
    status = {entry.variant: entry.status for entry in found.entries}
    assert status["numpy"] == "failed"
    assert status["eager"] == "ok"
    assert len(found.best()["gpunet eager"].seconds) == QUICK.rounds


# ---- cases ------------------------------------------------------------------------------------------------------------


def test_cases_are_deterministic_and_batches_differ() -> None:
    case = PERCEPTRONS["digits"]
    first, again = case.batches(), Perceptron("another name", case.sizes, case.batch).batches()
    assert all((a.x == b.x).all() and (a.y == b.y).all() for a, b in zip(first, again))
    assert len({batch.x.tobytes() for batch in first}) == len(first) >= 8
    assert all(batch.x.std() > 0.9 and len(set(batch.y.tolist())) > 5 for batch in first)


def test_flops_and_launches_match_a_recorded_step() -> None:
    """Compare flop() and launches() with the recorded launches of a step."""
    for case in SMALL:
        for kind in ("forward", "sgd"):
            runner = ours.make(case, kind, "eager", "cpu")
            runner.step(*runner.batches[0])
            with record(Tape()) as tape:
                runner.step(*runner.batches[0])
            flop = 0.0
            for launch in tape.launches:
                if launch.kernel is linear_forward:
                    y, *_, x, _, _ = launch.arrays
                    flop += 2.0 * y.size * x.shape[1]
                elif launch.kernel is linear_backward_input:
                    dx, _, _, dy, *_ = launch.arrays
                    flop += 2.0 * dx.size * dy.shape[1]
                elif launch.kernel is linear_backward_weight:
                    dw, _, _, _, dy, *_ = launch.arrays
                    flop += 2.0 * dw.size * len(dy)
            assert flop == case.flop(kind)
            assert len(tape) == case.launches(kind)


def test_parameter_counts_match_the_layers() -> None:
    for case in PERCEPTRONS.values():
        assert case.parameters == sum(a.size for layer in case.layers() for a in layer)
    for network in NETWORKS.values():
        assert network.parameters == sum(p.numel() for p in network.build(gpunet).parameters())


def test_selection_lists_the_names_in_its_error() -> None:
    assert select("cases", "mnist*,tiny", CASES) == ["tiny", "mnist", "mnist-large-batch"]
    with pytest.raises(ArgumentError, match="unknown --cases 'nist'; expected some of tiny, digits"):
        select("cases", "tiny,nist", CASES)


# ---- processes --------------------------------------------------------------------------------------------------------


def test_worker_reports_errors() -> None:
    with Worker("by_hand", "cpu") as worker:
        request = {
            "number": 0,
            "case": {"name": "x", "sizes": [3, 2], "batch": 2},
            "kind": "nothing",
            "variant": "flat",
        }
        with pytest.raises(WorkerError, match="AttributeError.*nothing"):
            worker.ask("build", 60.0, **request)
        assert worker.ask("build", 60.0, **(request | {"kind": "sgd"}))["losses"]  # the worker is still usable
        with pytest.raises(WorkerError, match="did not time within 1 s"):
            worker.ask("time", 1.0, number=0, steps=10**9, untimed=0)
        with pytest.raises(WorkerError, match="has ended"):
            worker.ask("drop", number=0)


def test_worker_that_ends_reports_the_last_line_of_stderr() -> None:
    with Worker("no_such_peer", "cpu") as worker, pytest.raises(WorkerError, match="No module named"):
        worker.ask("drop", 60.0, number=0)


# ---- a run ------------------------------------------------------------------------------------------------------------


def run(*arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert main(["bench", *arguments]) == code
    return capsys.readouterr().out


@pytest.mark.exhaustive
def test_run_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(measuring, "import_seconds", lambda package: 0.1)
    monkeypatch.setattr("gpunet.tools.bench.session.import_seconds", lambda package: 0.1)
    options = ["--cases", "tiny", "--peers", "numpy", "--rounds", "3", "--threads", "1", "--clock", "processor"]
    options += ["--out", str(tmp_path / "run")]
    out = run(*options, capsys=capsys)
    assert "tiny: 8-32-32-1, batch 32" in out
    assert "gpunet eager" in out
    assert "NumPy by hand" in out
    assert "backward / forward by FLOPs of the matrix products: 1.80" in out
    found = json.loads((tmp_path / "run" / "bench.json").read_text())
    assert set(found) == {
        "gpunet", "commit", "date", "machine", "versions", "environment", "settings", "peers", "measurements",
    }  # fmt: skip
    assert [m["kind"] for m in found["measurements"]] == list(KINDS)
    for measurement in found["measurements"]:
        assert measurement["ceilings"]["gemm"] > 0
        timed = [e for e in measurement["entries"] if e["status"] == "ok"]
        assert {"gpunet eager", "NumPy by hand"} <= {e["name"] for e in timed}
        for entry in timed:
            assert len(entry["wall"]) == 3
            assert entry["seconds"] == entry["processor"]
            assert entry["median"] > 0
            assert len(entry["losses"]) == COMPARED_STEPS
    assert (tmp_path / "run" / "bench.md").read_text().count("|") > 6
    assert (tmp_path / "run" / "bench.txt").stat().st_size > 0
    pytest.importorskip("matplotlib")
    assert (tmp_path / "run" / "bench.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.exhaustive
def test_scaling_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("gpunet.tools.bench.session.import_seconds", lambda package: 0.1)
    monkeypatch.setattr(scaling, "BATCHES", (4, 8))
    monkeypatch.setattr(scaling, "DEPTHS", (1, 2))
    options = ["--scaling", "--peers", "numpy", "--kinds", "forward,sgd", "--rounds", "2", "--out", str(tmp_path / "run")]
    assert "layers of 64" in run(*options, capsys=capsys)
    found = json.loads((tmp_path / "run" / "scaling.json").read_text())
    axes = ("batch, 64-128-10", "layers of 64, batch 128")
    assert list(found["series"]) == [f"{axis}: {title}" for axis in axes for title in ("forward", "step, SGD")]
    assert [n for n, _, _ in found["series"]["batch, 64-128-10: step, SGD"]["gpunet eager"]] == [4, 8]
    assert {m["kind"] for m in found["measurements"]} == {"forward", "sgd"}


@pytest.mark.parametrize("options, kinds, rounds", [([], KINDS, 15), (["--scaling"], ("adam",), 5)])
def test_defaults_of_kinds_and_rounds(options: list[str], kinds: Any, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(session, "run", lambda *given, **more: asked.append(given) or 0)
    assert main(["bench", *options]) == 0
    (choice, settings, _) = asked[0]
    assert (tuple(choice.kinds), settings.rounds) == (tuple(kinds), rounds)


def test_scaling_excludes_torch_compile() -> None:
    written: list[str] = []
    settings = Settings(without=session._excluded_from_scaling(Settings(), ["gpunet", "torch"], written.append))
    assert written == ["torch compile is excluded: it would recompile for every network"]
    assert "compile" not in [variant.key for _, variant in Bench(["torch"], settings)._variants(SMALL[0], "adam")]


def test_scaling_fit() -> None:
    a, b = scaling.fit([1, 10, 100], [7e-6 + 3e-6 * n for n in (1, 10, 100)])
    assert (a, b) == (pytest.approx(7e-6), pytest.approx(3e-6))


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("--cases", "nothing", "expected some of tiny, digits"),
        ("--peers", "pytorch", "expected some of gpunet, numpy, torch"),
        ("--kinds", "backwards", "expected some of forward, backward"),
        ("--rounds", "0", "expected 1 or more"),
        ("--device", "gpu", "unknown device 'gpu'"),
        ("--clock", "sun", "expected one of wall, processor"),
        ("--clock", "processor", "use it with --threads 1"),
    ],
)
def test_invalid_options(option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", option, value]) == 2
    assert message in capsys.readouterr().err


def test_list_shows_how_to_install_peers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "jax", PEERS["jax"]._replace(package="no_such_package"))
    out = run("--list", capsys=capsys)
    assert "mnist: 784-512-512-10, batch 64" in out
    assert "is not installed: pip install jax" in out


# ---- figures ----------------------------------------------------------------------------------------------------------


def test_ratios_are_within_rounds_and_the_fastest_variant_counts() -> None:
    entries = [
        Entry("gpunet", "gpunet eager", "eager", seconds=[1.0, 10.0, 1.0]),
        Entry("torch", "torch eager", "foreach", seconds=[3.0, 20.0, 2.0]),
        Entry("torch", "torch eager", "fused", seconds=[9.0, 90.0, 9.0]),
    ]
    best = Measurement(SMALL[0], "adam", entries).best()
    assert best["torch eager"].variant == "foreach"
    assert best["torch eager"].ratio(best["gpunet eager"]) == 2.0


def test_floor_is_the_largest_of_its_parts() -> None:
    assert ceilings.floor(100.0, 10.0, 5, {"gemm": 10.0, "bandwidth": 10.0}) == 10.0
    assert ceilings.floor(1.0, 10.0, 5, {"gemm": 10.0, "bandwidth": 10.0}) == 1.0
    assert ceilings.floor(1.0, 1.0, 5, {"gemm": 10.0, "bandwidth": 10.0, "node": 2.0}) == 10.0


# ---- kernels ----------------------------------------------------------------------------------------------------------


def test_every_kernel_has_a_launch_to_time() -> None:
    launches = list(kernels.launches(devices.Device("cpu"), width=16))
    for launch in launches:
        launch()
    assert [launch.kernel for launch in launches] == [k for k in KERNELS.values() if kernel_cases.has_cases(k)]


def test_rate_of_a_launch_is_that_of_its_limit() -> None:
    (product,) = kernels.launches(devices.Device("cpu"), 512, [matmul_forward])
    (copy,) = kernels.launches(devices.Device("cpu"), 512, [dropout_apply])
    assert product.rate(1.0) == (2 * 512**3 / 1e9, "GFLOP/s")
    assert copy.rate(1.0) == ((4 + 4 + 1) * 512**2 / 1e9, "GB/s")


def test_equivalents_compute_the_same_results(torch: Any) -> None:
    """For the equivalents that return the first destination of the launch, or gradients."""
    for launch in kernels.launches(devices.Device("cpu"), width=16):
        run_theirs = launch.in_pytorch("cpu")
        if run_theirs is None or launch.kernel.file == "optimizers.cu" or "state" in launch.kernel.parameters:  # random numbers
            continue
        theirs = run_theirs()
        if theirs is None:
            continue
        launch()
        if isinstance(theirs, tuple):  # the gradient of a mean; the launch writes gradient and factor separately
            named = dict(zip(launch.kernel.parameters, launch.arrays))
            numpy.testing.assert_allclose(theirs[0].numpy(), named["dx"] * named["factor"], rtol=1e-4, atol=1e-7)
        else:
            expected = theirs.detach().numpy()  # products of many terms may cancel: the scale is that of the largest
            numpy.testing.assert_allclose(launch.arrays[0], expected, rtol=1e-4, atol=1e-6 * numpy.abs(expected).max())
