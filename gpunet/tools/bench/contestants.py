"""The contestants: for each peer its package, the command that installs it, and its variants."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from gpunet.tools.bench.cases import KINDS, Case, Perceptron
from gpunet.tools.bench.networks import Network


class Variant(NamedTuple):
    """One way of using a peer. The table shows the fastest of the variants with the same name."""

    name: str  # in tables
    key: str  # ``variant`` of the peer's ``make``
    devices: tuple[str, ...] = ("cpu", "cuda")
    kinds: tuple[str, ...] = KINDS
    cases: str = "all"  # or "perceptrons", or "images"

    def takes(self, case: Case, kind: str) -> bool:
        """Whether the variant measures this kind of step of this case."""
        is_perceptron = isinstance(case, Perceptron)
        takes_case = {"all": True, "perceptrons": is_perceptron, "images": isinstance(case, Network) and case.has_images}
        return kind in self.kinds and takes_case[self.cases]


class Peer(NamedTuple):
    """A library that trains networks."""

    module: str  # in gpunet.tools.bench.peers
    package: str  # the import name
    install: str  # the command that installs it
    variants: tuple[Variant, ...]

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def on(self, device: str) -> list[Variant]:
        """The variants that run on a device; "cuda:1" counts as "cuda"."""
        return [variant for variant in self.variants if device.partition(":")[0] in variant.devices]


_EVERYWHERE = ("cpu", "cuda", "emulated")
_STEPS = ("sgd", "adam")
_NO_STEPS = ("forward", "backward")

PEERS = {
    "gpunet": Peer(
        "ours",
        "gpunet",
        "",
        (
            Variant("gpunet eager", "eager", _EVERYWHERE),
            Variant("gpunet captured", "numpy", ("cpu",)),
            Variant("gpunet captured, numba", "numba", ("cpu",)),
            Variant("gpunet captured", "auto", ("cuda", "emulated")),
        ),
    ),
    "numpy": Peer("by_hand", "numpy", "", (Variant("NumPy by hand", "flat", ("cpu",), cases="perceptrons"),)),
    "torch": Peer(
        "pytorch",
        "torch",
        "pip install torch",
        (
            Variant("torch eager", "eager", kinds=_NO_STEPS),
            Variant("torch eager", "foreach", kinds=_STEPS),
            Variant("torch eager", "fused", kinds=_STEPS),
            Variant("torch eager", "channels_last", kinds=_STEPS, cases="images"),
            Variant("torch compile", "compile"),
            Variant("torch CUDA graph", "graph", ("cuda",)),
        ),
    ),
    "jax": Peer(
        "jax_jit", "jax", "pip install jax; for a GPU: pip install 'jax[cuda13]'", (Variant("JAX jit", "jit"),)
    ),
    "tinygrad": Peer(
        "tiny", "tinygrad", "pip install tinygrad; it needs clang", (Variant("tinygrad", "jit", cases="perceptrons"),)
    ),
    "thinc": Peer("thinc_model", "thinc", "pip install thinc", (Variant("Thinc", "model", ("cpu",), cases="perceptrons"),)),
    "sklearn": Peer(
        "scikit_learn",
        "sklearn",
        "pip install scikit-learn",
        (Variant("scikit-learn", "partial_fit", ("cpu",), _STEPS, "perceptrons"),),
    ),
}
