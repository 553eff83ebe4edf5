"""Declarations of kernels, read from CUDA sources."""

from __future__ import annotations

from gpunet.backend.signature import entries


def test_declarations() -> None:
    found = entries(
        "// __global__ void in_a_comment(int* x) {}\n"
        'extern "C" __global__\nvoid __launch_bounds__(f(1), 2) first(float *__restrict__ y, float const* x, const unsigned n,\n'
        "    long long int m, int a[], unsigned long long * z /* , int no */, Pair<float, 3> q) {}\n"
        "__global__ void only_declared(int*);\n"
        '#line 7 "other.cuh"\n'
        "template <typename scalar_t, class Op = Plus<int>, int N = 4>\n__global__ static void second(scalar_t* y) { }\n"
    )
    assert list(found) == ["first", "second"]
    assert str(found["first"]) == (
        "first(float* y, const float* x, unsigned int n, long long m, int* a, unsigned long long* z, Pair<float, 3> q)"
    )
    assert found["first"].place == "source:3"
    assert found["second"].place == "other.cuh:8"
    assert (found["second"].types, found["second"].values) == (("scalar_t", "Op"), ("N",))
