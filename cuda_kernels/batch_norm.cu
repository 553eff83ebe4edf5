// Batch norm: y = act(w (x - mean) rstd + b), with mean and rstd = 1 / sqrt(variance + eps) of each channel of x (n, c, s).
//
//   batch_norm_statistics      mean and rstd over n and s; in the same launch the running statistics move towards them
//   batch_norm_apply           y, with the statistics of the batch, or with running ones: rstd is then given as a variance
//   batch_norm_backward_input  with h = (x - mean) rstd, count = n s and the sums over a channel:
//                              dx = w rstd (dy - sum of dy / count - h sum of (dy h) / count),
//                              or by running statistics dx = w rstd dy
//
// The sums of backward, which are the gradients of w and b, are those of norm_backward_weight (normalization.cu).
//
// Versions: 1. one pass for the statistics, which merges means and squared deviations of packs, one for the result (this one).

#include "common/activations.cuh"
#include "common/channels.cuh"

// Count, mean and sum of squared deviations from it (Chan, Golub and LeVeque 1983).
template <class A>
struct Moments {
  static constexpr int COUNT = 3;
  A v[3] = {0, 0, 0};

  __device__ __forceinline__ void merge(const Moments& other) {
    const A count = v[0] + other.v[0];
    if (count == A(0)) return;
    const A difference = other.v[1] - v[1], share = other.v[0] / count;
    v[1] += difference * share;
    v[2] += other.v[2] + difference * difference * (v[0] * share);
    v[0] = count;
  }

  static __device__ __forceinline__ Moments of(const Pack<A, 4>& pack, int valid) {
    Moments result;
    result.v[0] = A(valid < 4 ? valid : 4);
    result.v[1] = (pack.v[0] + pack.v[1] + pack.v[2] + pack.v[3]) / result.v[0];  // elements from `valid` on are 0
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (e < valid) result.v[2] += (pack.v[e] - result.v[1]) * (pack.v[e] - result.v[1]);
    return result;
  }
};

// The running statistics and `batches`, the number of batches in them, may be null.  With `averages` the running statistics are
// those of all batches, and their share is 1 / batches instead of the momentum.  The running variance is unbiased.
template <class T, int CHANNELS>
__global__ void __launch_bounds__(256) batch_norm_statistics(
    Accumulator<T>* mean, Accumulator<T>* rstd, Accumulator<T>* running_mean, Accumulator<T>* running_var, long long* batches,
    Accumulator<T>* partials, unsigned int* tickets, const T* x, int n, int c, int s, int slices, double momentum,
    bool averages, double eps) {
  using A = Accumulator<T>;
  const ChannelTile<CHANNELS> tile{{n, c, s}, slices};
  const int width = access_width(s, x), channel = tile.channel();
  Moments<A> total;
  tile.for_each([&](const Place& place) { total.merge(Moments<A>::of(tile.load(x, place, width), place.valid)); });
  const bool has_result = tile.combine(total, partials, tickets);
  if (has_result) {
    mean[channel] = total.v[1];
    rstd[channel] = A(1) / sqrt(total.v[2] / total.v[0] + A(eps));
    if (running_mean != nullptr) {
      const A share = averages ? A(1) / A(batches[0] + 1) : A(momentum);
      running_mean[channel] = share * total.v[1] + (A(1) - share) * running_mean[channel];
      running_var[channel] = share * (total.v[2] / (total.v[0] - A(1))) + (A(1) - share) * running_var[channel];
    }
  }
  // counted when every tile has read it
  if (batches != nullptr && is_last(tickets + gridDim.x, gridDim.x * gridDim.y) && threadIdx.x == 0) batches[0] += 1;
}

// The numbers of four channels, or `missing` if `values` is null.  `width` is 4 if they are neighbours and aligned.
template <class T>
__device__ __forceinline__ Pack<Accumulator<T>, 4> of_channels(
    const T* values, const int* channels, int width, Accumulator<T> missing = Accumulator<T>(0)) {
  if (values != nullptr && width == 4) return load_pack<4>(values + channels[0], 4, width);
  Pack<Accumulator<T>, 4> pack;
#pragma unroll
  for (int e = 0; e < 4; e++) pack.v[e] = values != nullptr ? Accumulator<T>(values[channels[e]]) : missing;
  return pack;
}

// w rstd of four channels.  VARIANCE: `spread` holds variances, else rstd.
template <bool VARIANCE, class T, class A>
__device__ __forceinline__ Pack<A, 4> factors_of(const T* w, const A* spread, const int* channels, int width, double eps) {
  const Pack<A, 4> weight = of_channels(w, channels, width, A(1));
  Pack<A, 4> factor = of_channels(spread, channels, width);
#pragma unroll
  for (int e = 0; e < 4; e++) factor.v[e] = weight.v[e] * (VARIANCE ? A(1) / sqrt(factor.v[e] + A(eps)) : factor.v[e]);
  return factor;
}

template <class T, class Act, bool VARIANCE>
__global__ void __launch_bounds__(256) batch_norm_apply(
    T* y, T* z, const T* x, const T* w, const T* b, const Accumulator<T>* mean, const Accumulator<T>* spread, int n, int c,
    int s, double eps, double alpha) {
  using A = Accumulator<T>;
  const int width = access_width(0, y, z, x), of_weights = s == 1 ? access_width(c, w, b, mean, spread) : 1;
  for_each_pack_of_channels({n, c, s}, [&](long long start, long long valid, const int* channels) {
    Pack<A, 4> value = load_pack<4>(x + start, valid, width);
    const Pack<A, 4> factor = factors_of<VARIANCE>(w, spread, channels, of_weights, eps);
    const Pack<A, 4> center = of_channels(mean, channels, of_weights), bias = of_channels(b, channels, of_weights);
#pragma unroll
    for (int e = 0; e < 4; e++) value.v[e] = (value.v[e] - center.v[e]) * factor.v[e] + bias.v[e];
    if (z != nullptr) store_pack(z + start, value, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) value.v[e] = Act::forward(value.v[e], A(alpha));
    store_pack(y + start, value, valid, width);
  });
}

template <class T, bool VARIANCE>
__global__ void __launch_bounds__(256) batch_norm_backward_input(
    T* dx, const T* dy, const T* x, const T* w, const Accumulator<T>* mean, const Accumulator<T>* spread,
    const Accumulator<T>* sums, int n, int c, int s, double eps) {
  using A = Accumulator<T>;
  const int width = access_width(0, dx, dy, x);
  const int of_weights = s == 1 ? access_width(c, w, mean, spread, sums) : 1;
  const A share = A(1) / (A(n) * A(s));
  for_each_pack_of_channels({n, c, s}, [&](long long start, long long valid, const int* channels) {
    Pack<A, 4> gradient = load_pack<4>(dy + start, valid, width);
    const Pack<A, 4> factor = factors_of<VARIANCE>(w, spread, channels, of_weights, eps);
    if constexpr (!VARIANCE) {
      const Pack<A, 4> value = load_pack<4>(x + start, valid, width), center = of_channels(mean, channels, of_weights);
      const Pack<A, 4> rstd = of_channels(spread, channels, of_weights), sum = of_channels(sums, channels, of_weights);
      const Pack<A, 4> product = of_channels(sums + c, channels, of_weights);
#pragma unroll
      for (int e = 0; e < 4; e++)
        gradient.v[e] -= (sum.v[e] + (value.v[e] - center.v[e]) * rstd.v[e] * product.v[e]) * share;
    }
#pragma unroll
    for (int e = 0; e < 4; e++) gradient.v[e] *= factor.v[e];
    store_pack(dx + start, gradient, valid, width);
  });
}
