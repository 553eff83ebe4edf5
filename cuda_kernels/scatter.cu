// Adding into places that may be named several times: the gradient of indexing.
//
//   scatter_add   out[o][positions[j]][i] += values[o][order[j]][i];  out (outer, size, inner), values (outer, count, inner),
//                 positions, order (count,), positions sorted; -1 adds nowhere
//
// Versions: 1. the thread at the first of equal positions adds all of theirs, in order (this one): no atomics, the same
// bits every run, and as slow as the most frequent position is frequent.  Next: long runs in pieces of fixed length.

template <class T>
__global__ void __launch_bounds__(256) scatter_add(
    T* __restrict__ out, const T* __restrict__ values, const long long* __restrict__ positions,
    const long long* __restrict__ order, long long total, long long count, long long size, long long inner) {
  const long long e = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (e >= total) return;
  const long long row = e / inner, j = row % count, first_row = row - j, position = positions[j];
  if (position < 0 || (j > 0 && positions[j - 1] == position)) return;
  T* place = out + (row / count * size + position) * inner + e % inner;
  T sum = *place;
  for (long long term = j; term < count && positions[term] == position; term++)
    sum += values[(first_row + order[term]) * inner + e % inner];
  *place = sum;
}
