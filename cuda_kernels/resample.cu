// Sparse linear maps along one dimension: interpolation, its gradient, means of parts of a dimension.
//
//   resample_rows   y[o][r][i] = sum over k of weight[r][k] x[o][index[r][k]][i]
//
// x (outer, columns, inner), index and weight (rows, taps), y (outer, rows, inner).
//
// Elements whose weight is 0 are not read: rows with fewer elements are filled up with them, and 0 times infinity is NaN.
//
// Versions: 1. an element per thread (this one).

#include "common/divisor.cuh"
#include "common/half.cuh"

template <class T>
__global__ void __launch_bounds__(256) resample_rows(
    T* __restrict__ y, const T* __restrict__ x, const int* __restrict__ index, const Accumulator<T>* __restrict__ weight,
    long long count, long long inner, int columns, int rows, int taps) {
  using A = Accumulator<T>;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long e = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; e < count; e += step) {
    const long long line = quotient(e, inner), outer = quotient(line, rows), first = (line - outer * rows) * taps;
    const T* from = x + outer * columns * inner + (e - line * inner);
    A sum = 0;
    for (int k = 0; k < taps; k++) {
      const A factor = weight[first + k];
      if (factor != A(0)) sum += factor * A(from[index[first + k] * inner]);
    }
    y[e] = T(sum);
  }
}
