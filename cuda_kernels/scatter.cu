// Scatter-add with repeated positions: the gradient of indexing.
//
//   scatter_add   out[positions[j]] += values[order[j]];  out (n,), values, positions, order (count,), positions sorted
//
// Versions: 1. for each run of equal positions, the thread at its first element adds all of its values in order (this one):
// no atomics and reproducible, but the time is that of the longest run.  Next: split long runs into pieces of fixed length.

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
