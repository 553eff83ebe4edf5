"""Dtypes: PyTorch's names for them, their C names, and the dtypes that kernels compute in."""

from __future__ import annotations

import numpy

__all__ = ["bool", "double", "float", "float32", "float64", "int", "int32", "int64", "long"]

float32 = float = numpy.dtype("float32")
float64 = double = numpy.dtype("float64")
int32 = int = numpy.dtype("int32")
int64 = long = numpy.dtype("int64")
bool = numpy.dtype("bool")

#: C name of each dtype that a kernel's parameter may have.
C_TYPES = {
    "float32": "float",
    "float64": "double",
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
}
#: Dtypes that a kernel's floating dtype ``T`` may be.
FLOATING = (float32, float64)
