// Scatter-add with repeated positions: the gradient of indexing.
//
//   add_rows   out[o][positions[j]][i] += values[o][order[j]][i];  out (outer, size, inner), values (outer, count, inner),
//              positions, order (count,), positions sorted; -1 adds nowhere
//
// Versions: 1. for each run of equal positions, the thread at its first element adds all of its values in order (this one):
// no atomics and reproducible, but the time is that of the longest run.  Next: split long runs into pieces of fixed length.

#include "common/half.cuh"

template <class T>
__global__ void __launch_bounds__(256) add_rows(
    T* __restrict__ out, const T* __restrict__ values, const long long* __restrict__ positions,
    const long long* __restrict__ order, long long total, long long count, long long size, long long inner) {
  const long long e = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (e >= total) return;
  const long long row = e / inner, j = row % count, first_row = row - j, position = positions[j];
  if (position < 0 || (j > 0 && positions[j - 1] == position)) return;
  T* place = out + (row / count * size + position) * inner + e % inner;
  Accumulator<T> sum = *place;
  for (long long term = j; term < count && positions[term] == position; term++)
    sum += values[(first_row + order[term]) * inner + e % inner];
  *place = T(sum);
}
