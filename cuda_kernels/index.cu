// Indexing with index arrays: positions from indices, rows read and written at positions.
//
//   index_positions   positions[e] = (start * size + index) * inner + e % inner, or -1 for an index out of range;
//                     start = e / span, or, continuing, what an earlier launch left in positions[e]
//   gather_rows       out[o][j][i] = x[o][positions[j]][i];  x (outer, size, inner), out (outer, count, inner)
//   scatter_rows      x[o][positions[j]][i] = values[o][order[j]][i];  positions sorted, the last of equal ones counts
//
// A position of -1 reads `fill` and writes nothing.  Rows are copied as bits, in words of an element's size.

#include "common/faults.cuh"

template <class T, bool CONTINUES>
__global__ void __launch_bounds__(256) index_positions(
    long long* positions, long long* fault, const long long* index, long long count, long long size, long long repeat,
    long long length, long long span, long long inner, bool wraps, int code, long long detail) {
  const long long e = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  const auto value_at = [=](long long position) { return index[position / repeat % length]; };
  const auto is_bad = [=](long long value) { return value >= size || value < (wraps ? -size : 0); };
  const bool inside = e < count;
  const long long value = inside ? value_at(e) : 0;
  const bool bad = inside && is_bad(value);
  if (inside && positions) {
    const long long start = CONTINUES ? positions[e] : e / span;
    positions[e] = bad || start < 0 ? -1 : (start * size + (value < 0 ? value + size : value)) * inner + e % inner;
  }
  const unsigned int bad_lanes = __ballot_sync(0xffffffffu, bad);
  if (bad_lanes) {
    const int lane = __ffs(bad_lanes) - 1;
    const long long first_value = __shfl_sync(0xffffffffu, value, lane);
    report_first(
        fault, e - threadIdx.x % 32 + lane, [=](long long p) { return is_bad(value_at(p)); }, code, first_value, size, detail);
  }
}

template <class T, class Word>
__global__ void __launch_bounds__(256) gather_rows(
    unsigned char* __restrict__ out, const unsigned char* __restrict__ x, const long long* __restrict__ positions,
    long long total, long long count, long long size, long long inner, unsigned long long fill) {
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long e = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; e < total; e += step) {
    const long long row = e / inner, position = positions[row % count];
    const Word* from = reinterpret_cast<const Word*>(x) + (row / count * size + position) * inner + e % inner;
    reinterpret_cast<Word*>(out)[e] = position < 0 ? static_cast<Word>(fill) : *from;
  }
}

template <class T, class Word>
__global__ void __launch_bounds__(256) scatter_rows(
    unsigned char* __restrict__ x, const unsigned char* __restrict__ values, const long long* __restrict__ positions,
    const long long* __restrict__ order, long long total, long long count, long long size, long long inner) {
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long e = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; e < total; e += step) {
    const long long row = e / inner, j = row % count, position = positions[j];
    if (position < 0 || (j + 1 < count && positions[j + 1] == position)) continue;
    const Word* from = reinterpret_cast<const Word*>(values) + (row / count * count + order[j]) * inner + e % inner;
    reinterpret_cast<Word*>(x)[(row / count * size + position) * inner + e % inner] = *from;
  }
}
