// Elementwise losses: loss, gradient and the reduction's factor in one launch.
//
//   elementwise_loss       value = reduction of loss(x, y), dx = d loss / d x; x, y, dx have the same `count` elements
//
// value is one number for Reduction mean and sum, one number per element for none; factor is 1 / count, for mean.
// dx is the gradient of each element's loss; the factor is not yet applied.

#include "common/elementwise_losses.cuh"
#include "common/loss.cuh"
#include "common/pack.cuh"
#include "common/reduce.cuh"

template <class T, class Loss, Reduction REDUCTION>
__global__ void __launch_bounds__(256) elementwise_loss(
    T* value, T* dx, Accumulator<T>* factor, Accumulator<T>* partials, unsigned int* ticket, const T* x, const T* y,
    long long count, double delta) {
  using A = Accumulator<T>;
  const int width = access_width(0, dx, x, y, value);
  A sum = 0;
  for_each_pack(count, [&](long long start, long long valid) {
    const Pack<A, 4> of_x = load_pack<4>(x + start, valid, width), of_y = load_pack<4>(y + start, valid, width);
    Pack<A, 4> slope, loss;
#pragma unroll
    for (int e = 0; e < 4; e++) {
      loss.v[e] = Loss::loss(of_x.v[e], of_y.v[e], A(delta), slope.v[e]);
      if (e < valid) sum += loss.v[e];
    }
    store_pack(dx + start, slope, valid, width);
    if (REDUCTION == Reduction::none) store_pack(value + start, loss, valid, width);
  });
  if (REDUCTION == Reduction::none) return;

  sum = block_reduce<Sum>(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
  if (last_block(ticket)) {
    A total = sum_of_partials(partials);
    if (threadIdx.x == 0) {
      if (REDUCTION == Reduction::mean) {
        factor[0] = count ? A(1.0 / count) : A(0);
        total = count ? total * factor[0] : not_a_number<A>();
      }
      value[0] = T(total);
    }
  }
}
