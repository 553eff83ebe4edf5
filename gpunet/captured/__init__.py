"""Recorded steps: ``gpunet.capture``.

    step           the public face: which recording fits a call, and when to record anew
    recording      one recording: run once, lowered, replayed
    conditions     what must still be so for a replay, as one expression
    surroundings   what the step's Python depends on: numbers and objects that it names
    split          a step that cannot be one recording: its Python runs at every call
    deferred       the tape of such a step: launches noted now, and run where a value is needed
    segment        launches between two such places, lowered to one function
    explanation    what a step does, launch by launch, for people
    epoch          a pass over data, the step replayed on each batch
"""

from gpunet.captured.step import CapturedStep, capture
