// Special functions, elementwise over `count` elements.
//
//   erf_forward   y = erf(x)
//
// Versions: 1. packs of four in a grid-stride loop (this one): memory-bound, so there is no next version.

#include "common/pack.cuh"

template <class T>
__global__ void __launch_bounds__(256) erf_forward(T* y, const T* x, long long count) {
  const int width = access_width(0, y, x);
  for_each_pack(count, [&](long long start, long long valid) {
    Pack<Accumulator<T>, 4> value = load_pack<4>(x + start, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) value.v[e] = erf(value.v[e]);
    store_pack(y + start, value, valid, width);
  });
}
