// Dropout, elementwise over `count` elements.
//
//   dropout_drawn   y = x scale with `probability`, else x 0: draws the numbers of random_bernoulli, and advances the stream
//   dropout_apply   y = x scale where mask is true, else x 0
//
// Both are for forward and backward alike.  They multiply, so that NaN stays NaN as in the twins.
//
// Versions: 1. packs of four in a grid-stride loop (this one).

#include "common/philox.cuh"
#include "common/reduce.cuh"

// Without `advances`, only `state` is read.  With it, `start` (if not null) receives the state, and the last block advances it.
template <class T>
__global__ void __launch_bounds__(256) dropout_drawn(
    T* y, unsigned long long* start, unsigned long long* state, unsigned int* ticket, const T* x, long long count,
    double probability, double scale, bool advances) {
  using A = Accumulator<T>;
  const int width = access_width(0, y, x);
  for_each_flags(state, count, probability, [&](long long first, long long valid, unsigned int flags) {
    Pack<A, 4> value = load_pack<4>(x + first, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) value.v[e] *= flags >> e & 1 ? A(scale) : A(0);
    store_pack(y + first, value, valid, width);
  });
  if (!advances) return;
  if (blockIdx.x == 0 && threadIdx.x < 2 && start != nullptr) start[threadIdx.x] = state[threadIdx.x];
  if (last_block(ticket) && threadIdx.x == 0) state[1] += (count + 7) / 8;  // every block has read it
}

template <class T>
__global__ void __launch_bounds__(256) dropout_apply(T* y, const T* x, const bool* mask, long long count, double scale) {
  using A = Accumulator<T>;
  const int width = access_width(0, y, x, mask);
  for_each_pack(count, [&](long long start, long long valid) {
    Pack<A, 4> value = load_pack<4>(x + start, valid, width);
    const Pack<bool, 4> keep = load_pack<4>(mask + start, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) value.v[e] *= keep.v[e] ? A(scale) : A(0);
    store_pack(y + start, value, valid, width);
  });
}
