// Elementwise losses, one struct each; ELEMENTWISE_LOSSES in gpunet/ops/losses.py has a row for each struct.
//
//   loss(x, y, delta, slope)   the loss of an element, and its derivative by x

#include "activations.cuh"

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
