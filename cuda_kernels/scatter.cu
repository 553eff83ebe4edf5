// Adding into places that may be named several times: the gradient of indexing.
//
//   scatter_add   out[positions[j]] += values[order[j]];  out (n,), values, positions, order (count,), positions sorted
//
// Versions: 1. the thread at the first of equal positions adds all of theirs, in order (this one): no atomics, the same
// bits every run, and as slow as the most frequent position is frequent.  Next: long runs in pieces of fixed length.

template <class T>
__global__ void __launch_bounds__(256) scatter_add(
    T* __restrict__ out, const T* __restrict__ values, const long long* __restrict__ positions,
    const long long* __restrict__ order, long long count) {
  const long long j = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (j >= count) return;
  const long long position = positions[j];
  if (j > 0 && positions[j - 1] == position) return;
  T sum = out[position];
  for (long long term = j; term < count && positions[term] == position; term++) sum += values[order[term]];
  out[position] = sum;
}
