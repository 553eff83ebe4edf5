"""RMS normalisation as a custom op: the CUDA kernel, its NumPy twin, and its backward."""

from pathlib import Path

import numpy

import gpunet


def backward(dy, dr, y, r):
    """dx = r (dy - y mean(dy y)) - dr r² y / columns, the sum of the gradients through y and through r."""
    r = r.unsqueeze(1)
    return r * (dy - y * (dy * y).mean(1, keepdim=True)) - dr.unsqueeze(1) * r * r * y / y.shape[1]


def twin(x, eps):
    r = 1 / numpy.sqrt((x * x).mean(1) + eps)
    return x * r[:, None], r


rms_norm = gpunet.cuda_op(
    Path(__file__).with_name("rms_norm.cu"),
    shapes=lambda x: (x.shape, x.shape[:1]),
    launch=lambda x: dict(grid=x.shape[0], block=128, columns=x.shape[1]),
    twin=twin,
    backward=backward,
)
