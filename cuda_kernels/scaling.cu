// Loss scaling: the gradients of a loss that was multiplied by a scale, and the scale of the next one.
//
//   unscale_gradients    g /= scale; found = whether an element of any tensor is infinite or NaN
//   update_scale         smaller after gradients that were not finite, larger after `interval` steps in a row that were
//
// All numbers are in device memory, so that a CUDA graph uses their current values.  If the tensors do not fit into one table
// there are several launches; the first one sets found, the others add to it.
//
// Versions: 1. packs of four (this one): memory-bound.

#include "common/faults.cuh"
#include "common/gradients.cuh"
#include "common/reduce.cuh"

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) unscale_gradients(
    const __grid_constant__ TensorTable<1, CAPACITY> table, double* found, unsigned int* partials, unsigned int* ticket,
    const float* scale, int first) {
  using A = Accumulator<T>;
  const A factor = A(static_cast<float>(1.0 / static_cast<double>(scale[0])));
  unsigned int bad = 0;
  for_each_pack_of_gradient<T>(table, [&](T* grads, long long valid, int width) {
    Pack<A, 4> g = load_pack<4>(grads, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) {
      if (g.v[e] - g.v[e] != A(0)) bad = 1;  // inf - inf and NaN - NaN are NaN; elements out of range are 0
      g.v[e] *= factor;
    }
    store_pack(grads, g, valid, width);
  });
  bad = block_reduce<Sum>(bad);
  if (threadIdx.x == 0) partials[blockIdx.x] = bad;
  if (!last_block(ticket)) return;
  bad = sum_of_partials(partials);
  if (threadIdx.x == 0 && (first || bad)) found[0] = bad ? 1.0 : 0.0;
}

// One warp.  counters: finite steps since the scale has changed, skipped steps in a row.
template <class T>
__global__ void __launch_bounds__(32) update_scale(
    float* scale, long long* counters, long long* record, const double* found, double growth, double backoff, int interval,
    int max_skips, int code, int number) {
  const bool is_skipped = found[0] != 0.0;
  const float before = scale[0];
  const long long finite = is_skipped ? 0 : counters[0] + 1, skips = is_skipped ? counters[1] + 1 : 0;
  __syncwarp();
  if (threadIdx.x == 0) {
    const float grown = static_cast<float>(before * growth);
    if (is_skipped) scale[0] = static_cast<float>(before * backoff);
    else if (finite == interval && grown - grown == 0.0f) scale[0] = grown;
    counters[0] = finite == interval ? 0 : finite;
    counters[1] = skips;
  }
  if (is_skipped && skips % max_skips == 0)
    report_first(record, 0, [](long long) { return false; }, code, skips, __float_as_int(before), number);
}
