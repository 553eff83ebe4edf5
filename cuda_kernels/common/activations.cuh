// Activations, one struct each; gpunet/ops/activation_table.py has a row for each struct.
//
//   forward(z, alpha)         act(z)
//   derivative(saved, alpha)  act'(z); `saved` is the output y = act(z) or the pre-activation z, as the row says
//
// `reads_saved` is false if the derivative is constant: backward then does not read `saved`, which may be null.

template <class T>
__device__ __forceinline__ T logistic(T z) {
  return T(1) / (T(1) + exp(-z));
}

struct Identity {
  static constexpr bool reads_saved = false;
  template <class T>
  static __device__ T forward(T z, T) { return z; }
  template <class T>
  static __device__ T derivative(T, T) { return T(1); }
};

struct Relu {
  static constexpr bool reads_saved = true;
  template <class T>  // fmax(z, 0) would turn NaN into 0; the derivative at NaN is 1
  static __device__ T forward(T z, T) { return z < T(0) ? T(0) : z; }
  template <class T>
  static __device__ T derivative(T y, T) { return y <= T(0) ? T(0) : T(1); }
};

struct LeakyRelu {
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T alpha) { return z > T(0) ? z : alpha * z; }
  template <class T>  // y has the sign of z, because alpha is not negative
  static __device__ T derivative(T y, T alpha) { return y > T(0) ? T(1) : alpha; }
};

struct Sigmoid {
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T) { return logistic(z); }
  template <class T>
  static __device__ T derivative(T y, T) { return y * (T(1) - y); }
};

struct Tanh {
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T) { return tanh(z); }
  template <class T>
  static __device__ T derivative(T y, T) { return T(1) - y * y; }
};

struct Gelu {  // z Phi(z), Phi the normal distribution function; saves z
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T distribution(T z) { return T(0.5) * (T(1) + erf(z * T(0.70710678118654752440))); }
  template <class T>
  static __device__ T forward(T z, T) { return z * distribution(z); }
  template <class T>  // Phi(z) + z phi(z)
  static __device__ T derivative(T z, T) {
    return distribution(z) + z * T(0.39894228040143267794) * exp(T(-0.5) * z * z);
  }
};

struct GeluTanh {  // z (1 + t) / 2, t = tanh(sqrt(2 / pi) (z + 0.044715 z^3)); saves z
  static constexpr bool reads_saved = true;
  static constexpr double SCALE = 0.79788456080286535588, CUBE = 0.044715;
  template <class T>
  static __device__ T inner(T z) { return tanh(z * (T(SCALE) + T(SCALE * CUBE) * z * z)); }
  template <class T>
  static __device__ T forward(T z, T) { return z * (T(0.5) * (T(1) + inner(z))); }
  template <class T>
  static __device__ T derivative(T z, T) {
    // beyond 10 tanh is constant, and the square of z may overflow; NaN comes from t
    const T t = inner(z), near = fmin(fmax(z, T(-10)), T(10));
    const T slope = near * (T(SCALE) + T(3 * SCALE * CUBE) * near * near);
    return T(0.5) * (T(1) + t + slope * (T(1) - t * t));
  }
};

struct Silu {  // z sigmoid(z); saves z
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T) { return z * logistic(z); }
  template <class T>
  static __device__ T derivative(T z, T) {
    const T s = logistic(z);
    return s * (T(1) + z * (T(1) - s));
  }
};

struct Elu {
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T alpha) { return z > T(0) ? z : alpha * expm1(z); }
  template <class T>  // alpha exp(z) = y + alpha; 1 at NaN
  static __device__ T derivative(T y, T alpha) { return y <= T(0) ? y + alpha : T(1); }
};

struct Softplus {
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T) { return (z > T(0) ? z : T(0)) + log1p(exp(-fabs(z))); }
  template <class T>  // sigmoid(z) = 1 - exp(-y)
  static __device__ T derivative(T y, T) { return -expm1(-y); }
};

struct Hardtanh {  // z limited to [-alpha, alpha]; saves z
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T alpha) { return z < -alpha ? -alpha : z > alpha ? alpha : z; }
  template <class T>  // 0 at the bounds, 1 at NaN
  static __device__ T derivative(T z, T alpha) { return z <= -alpha || z >= alpha ? T(0) : T(1); }
};

struct Relu6 {  // z limited to [0, alpha]; saves z
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T alpha) { return z < T(0) ? T(0) : z > alpha ? alpha : z; }
  template <class T>  // 0 at the bounds, 1 at NaN
  static __device__ T derivative(T z, T alpha) { return z <= T(0) || z >= alpha ? T(0) : T(1); }
};

struct Hardsigmoid {  // z + 3 limited to [0, 6], divided by 6; saves z
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T) { return z < T(-3) ? T(0) : z > T(3) ? T(1) : (z + T(3)) / T(6); }
  template <class T>
  static __device__ T derivative(T z, T) { return z > T(-3) && z < T(3) ? T(1.0 / 6) : T(0); }
};

struct Hardswish {  // z hardsigmoid(z); saves z
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T) { return z * Hardsigmoid::forward(z, T(0)); }
  template <class T>  // 1 at NaN
  static __device__ T derivative(T z, T) { return z <= T(-3) ? T(0) : z < T(3) ? z / T(3) + T(0.5) : T(1); }
};

struct Hardshrink {
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T alpha) { return z >= -alpha && z <= alpha ? T(0) : z; }
  template <class T>  // y is 0 exactly where z is within [-alpha, alpha]
  static __device__ T derivative(T y, T) { return y == T(0) ? T(0) : T(1); }
};

struct Softshrink {  // saves z: the output of a half may underflow to 0
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T alpha) { return z - Hardtanh::forward(z, alpha); }
  template <class T>
  static __device__ T derivative(T z, T alpha) { return z >= -alpha && z <= alpha ? T(0) : T(1); }
};

struct Tanhshrink {  // z - tanh(z); saves z
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T) { return z - tanh(z); }
  template <class T>
  static __device__ T derivative(T z, T) { return tanh(z) * tanh(z); }
};

struct Threshold {
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T alpha) { return z <= alpha ? T(0) : z; }
  template <class T>  // y is 0 exactly where z is at most alpha, which is not negative
  static __device__ T derivative(T y, T) { return y == T(0) ? T(0) : T(1); }
};

struct LogSigmoid {
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T) { return (z < T(0) ? z : T(0)) - log1p(exp(-fabs(z))); }
  template <class T>  // sigmoid(-z) = 1 - exp(y)
  static __device__ T derivative(T y, T) { return -expm1(y); }
};

struct Celu {
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T alpha) { return z > T(0) ? z : alpha * expm1(z / alpha); }
  template <class T>  // exp(z / alpha) = y / alpha + 1; 1 at NaN
  static __device__ T derivative(T y, T alpha) { return y <= T(0) ? y / alpha + T(1) : T(1); }
};

struct Selu {
  static constexpr bool reads_saved = true;
  static constexpr double SCALE = 1.0507009873554804935, ALPHA = 1.6732632423543772848;
  template <class T>
  static __device__ T forward(T z, T) { return T(SCALE) * Elu::forward(z, T(ALPHA)); }
  template <class T>  // scale alpha exp(z) = y + scale alpha; scale at NaN
  static __device__ T derivative(T y, T) { return y <= T(0) ? y + T(SCALE * ALPHA) : T(SCALE); }
};

struct Mish {  // z t, t = tanh(softplus(z)); saves z
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T gate(T z) { return tanh(Softplus::forward(z, T(0))); }
  template <class T>
  static __device__ T forward(T z, T) { return z * gate(z); }
  template <class T>
  static __device__ T derivative(T z, T) {
    const T t = gate(z);
    return t + z * (T(1) - t * t) * logistic(z);
  }
};

struct Softsign {  // z / (1 + |z|); saves z
  static constexpr bool reads_saved = true;
  template <class T>
  static __device__ T forward(T z, T) { return z / (T(1) + fabs(z)); }
  template <class T>
  static __device__ T derivative(T z, T) {
    const T size = T(1) + fabs(z);
    return T(1) / (size * size);
  }
};
