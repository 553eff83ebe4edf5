"""Captured steps: ``gpunet.capture`` records a training step once and replays its launches.

    step            the public face: choose the recording for a call, or record again
    recording       one recording: run once, lowered, replayed
    guards          values outside the step, compared before each replay
    ir              the recorded step as data: buffers, views, calls
    trace           launches to NumPy calls
    plan, merge     memory planning; fewer and smaller passes over memory
    lowering        plan, then one of three ways to run: numpy_calls, compiled, cuda_graph
    explain         launches with their shapes, bytes, FLOPs and times
    epoch           one pass over the data, the step replayed on each batch
"""

from gpunet.captured.step import CapturedStep, capture
