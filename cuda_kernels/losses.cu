// Elementwise losses: loss, gradient and the reduction's factor in one launch.
//
//   elementwise_loss       value = reduction of loss(x, y), dx = d loss / d x; x, y, dx have the same `count` elements
//
// value is one number for Reduction mean and sum, one number per element for none; factor is 1 / count, for mean.
// dx is the gradient of each element's loss; the factor is not yet applied.

#include "common/activations.cuh"
#include "common/loss.cuh"
#include "common/pack.cuh"
#include "common/reduce.cuh"

struct SquaredError {
  template <class T>
  static __device__ T loss(T x, T y, T, T& slope) {
    const T d = x - y;
    slope = T(2) * d;
    return d * d;
  }
};

struct AbsoluteError {
  template <class T>
  static __device__ T loss(T x, T y, T, T& slope) {
    const T d = x - y;
    slope = d > T(0) ? T(1) : d < T(0) ? T(-1) : T(0);  // 0 for NaN, as in PyTorch
    return fabs(d);
  }
};

struct HuberError {
  template <class T>  // the slope c is d clipped to [-delta, delta]; the loss is c (d - c / 2)
  static __device__ T loss(T x, T y, T delta, T& slope) {
    const T d = x - y;
    slope = d > delta ? delta : d < -delta ? -delta : d;
    return slope * (d - T(0.5) * slope);
  }
};

struct BinaryCrossEntropy {
  template <class T>  // x are logits
  static __device__ T loss(T x, T y, T, T& slope) {
    slope = logistic(x) - y;
    return x * ((x > T(0) ? T(1) : T(0)) - y) + log1p(exp(-fabs(x)));  // max(x, 0) - x y, without inf - inf
  }
};

struct ProbabilityCrossEntropy {
  template <class T>  // x are probabilities; logarithms are at least -100, and x (1 - x) is at least 1e-12
  static __device__ T loss(T x, T y, T, T& slope) {
    const T variance = x * (T(1) - x), of_x = log(x), of_rest = log1p(-x);
    slope = (x - y) / (variance < T(1e-12) ? T(1e-12) : variance);
    return (y - T(1)) * (of_rest < T(-100) ? T(-100) : of_rest) - y * (of_x < T(-100) ? T(-100) : of_x);
  }
};

struct KlDivergence {
  template <class T>  // y (log y - x), 0 log 0 = 0
  static __device__ T loss(T x, T y, T, T& slope) {
    slope = -y;
    return y * log(y == T(0) ? T(1) : y) - x * y;
  }
};

struct KlDivergenceOfLogs {
  template <class T>  // y are logarithms of probabilities
  static __device__ T loss(T x, T y, T, T& slope) {
    const T probability = exp(y);
    slope = -probability;
    return probability * (y - x);
  }
};

struct Poisson {
  template <class T>  // x are rates, to which delta is added
  static __device__ T loss(T x, T y, T delta, T& slope) {
    slope = T(1) - y / (x + delta);
    return x - y * log(x + delta);
  }
};

struct PoissonOfLogs {
  template <class T>  // x are logarithms of rates
  static __device__ T loss(T x, T y, T, T& slope) {
    const T rate = exp(x);
    slope = rate - y;
    return rate - x * y;
  }
};

struct SoftMargin {
  template <class T>  // log(1 + exp(-y x)), without overflow
  static __device__ T loss(T x, T y, T, T& slope) {
    const T product = x * y;
    slope = -y / (T(1) + exp(product));
    return log1p(exp(-fabs(product))) - (product < T(0) ? product : T(0));
  }
};

struct HingeEmbedding {
  template <class T>  // x where y is 1, max(delta - x, 0) where it is -1, the sum of both elsewhere
  static __device__ T loss(T x, T y, T delta, T& slope) {
    const T hinge = delta - x;
    const bool has_x = y != T(-1), has_hinge = y != T(1) && !(hinge < T(0));
    slope = (has_x ? T(1) : T(0)) - (has_hinge && hinge >= T(0) ? T(1) : T(0));  // of the hinge 0 for NaN, as in PyTorch
    return (has_x ? x : T(0)) + (has_hinge ? hinge : T(0));
  }
};

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
