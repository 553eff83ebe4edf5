"""Recorded steps: ``gpunet.capture``.

    step           the public face: which recording fits a call, and when to record anew
    recording      one recording: run once, lowered, replayed
    surroundings   what the step's Python depends on: numbers and objects that it names
"""

from gpunet.captured.step import CapturedStep, capture

__all__ = ["CapturedStep", "capture"]
