// Dropout, elementwise over `count` elements.  random.cu draws the mask; forward and backward both apply it.
//
//   dropout_apply   y = x scale where mask is true, 0 elsewhere
//
// Versions: 1. packs of four in a grid-stride loop (this one).  Next: draw the mask in the same launch.

#include "common/pack.cuh"

template <class T>
__global__ void __launch_bounds__(256) dropout_apply(T* y, const T* x, const bool* mask, long long count, double scale) {
  using A = Accumulator<T>;
  const int width = access_width(0, y, x, mask);
  for_each_pack(count, [&](long long start, long long valid) {
    Pack<A, 4> value = load_pack<4>(x + start, valid, width);
    const Pack<bool, 4> keep = load_pack<4>(mask + start, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) value.v[e] *= keep.v[e] ? A(scale) : A(0);  // a product, so NaN stays NaN as in the twin
    store_pack(y + start, value, valid, width);
  });
}
