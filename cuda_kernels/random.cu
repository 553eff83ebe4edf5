// Random numbers: Philox4x64-10, the bit stream of numpy.random.Philox.  state = (key, counter), two uint64 on the device.
//
// Number j of a launch is computed from word j % 4 of block counter + 1 + j / 4; one thread computes a block of four.  A flag
// is computed from 32 bits, the low or the high half of a word: a block has eight.
//
//   random_uniform     out = low + (high - low) u, u in [0, 1)
//   random_normal      out = mean + std z, z the inverse of the normal distribution function of one word
//   random_exponential out = -log(p) / rate
//   random_choice      out[row, j] = the first index of the row whose cumulative weight is above u times their sum
//   random_integers    out = low + word % (high - low)
//   random_bernoulli   mask = u < probability
//   random_advance     counter += blocks
//
// The bits equal those of the NumPy twins in gpunet/launch/random.py, also for normal numbers: so the operations are
// __dadd_rn and __dmul_rn, which the compiler may not fuse, in the twins' order.
//
// Versions: 1. one block of four words per thread (this one).

#include "common/philox.cuh"

// Writes out[j] = number(word j) for j < count; the numbers have the accumulator type of Out.
template <class Out, class Number>
__device__ __forceinline__ void draw(Out* out, const uint64* state, long long count, Number number) {
  const int width = access_width(0, out);
  for_each_pack(count, [&](long long start, long long valid) {
    const Pack<uint64, 4> words = philox(state, start / 4);
    Pack<Accumulator<Out>, 4> numbers;
#pragma unroll
    for (int e = 0; e < 4; e++) numbers.v[e] = number(words.v[e]);
    store_pack(out + start, numbers, valid, width);
  });
}

// ---- the inverse normal distribution function ------------------------------------------------------------------------

// Wichura, algorithm AS 241 (PPND16), Applied Statistics 37 (1988).
__device__ const double CENTRAL[2][8] = {
    {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3},
    {1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3}};
__device__ const double MIDDLE[2][8] = {
    {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4},
    {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9}};
__device__ const double TAIL[2][8] = {
    {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7},
    {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15}};
__device__ const double ARTANH[11] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9, 1.0 / 11,
                                      1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};

template <int N>
__device__ __forceinline__ double horner(const double (&coefficients)[N], double x) {
  double value = coefficients[N - 1];
#pragma unroll
  for (int power = N - 2; power >= 0; power--) value = __dadd_rn(__dmul_rn(value, x), coefficients[power]);
  return value;
}

__device__ __forceinline__ double ratio(const double (&coefficients)[2][8], double x) {
  return __ddiv_rn(horner(coefficients[0], x), horner(coefficients[1], x));
}

// log(m 2^e) = e log 2 + 2 artanh((m - 1) / (m + 1))
__device__ __forceinline__ double exact_log(double x) {
  int exponent;
  double mantissa = frexp(x, &exponent);
  if (mantissa < 0.70710678118654752) {
    mantissa = __dmul_rn(mantissa, 2.0);
    exponent -= 1;
  }
  const double s = __ddiv_rn(__dadd_rn(mantissa, -1.0), __dadd_rn(mantissa, 1.0));
  const double series = horner(ARTANH, __dmul_rn(s, s));
  return __dadd_rn(__dmul_rn(exponent, 0.69314718055994531), __dmul_rn(__dmul_rn(2.0, s), series));
}

__device__ __forceinline__ double inverse_normal(double p) {
  const double q = __dadd_rn(p, -0.5);
  if (fabs(q) <= 0.425) return __dmul_rn(q, ratio(CENTRAL, __dadd_rn(0.180625, -__dmul_rn(q, q))));
  const double r = __dsqrt_rn(-exact_log(q < 0.0 ? p : __dadd_rn(1.0, -p)));
  const double magnitude = r <= 5.0 ? ratio(MIDDLE, __dadd_rn(r, -1.6)) : ratio(TAIL, __dadd_rn(r, -5.0));
  return q < 0.0 ? -magnitude : magnitude;
}

// A number in (0, 1): 52 bits + 0.5 is exact in float64, so it is never 0 or 1.
__device__ __forceinline__ double probability(uint64 word) {
  return __dmul_rn(__dadd_rn(static_cast<double>(word >> 12), 0.5), 0x1p-52);
}

// ---- launches --------------------------------------------------------------------------------------------------------

// Returns low + width u, rounded after the product and after the sum, like the twin.
__device__ __forceinline__ float scaled(float u, float width, float low) { return __fadd_rn(__fmul_rn(u, width), low); }
__device__ __forceinline__ double scaled(double u, double width, double low) {
  return __dadd_rn(__dmul_rn(u, width), low);
}

template <class T>
__global__ void __launch_bounds__(256)
    random_uniform(T* out, const unsigned long long* state, long long count, double low, double high, int bits) {
  using A = Accumulator<T>;
  const A unit = A(1.0 / static_cast<double>(1ull << bits)), width = A(__dadd_rn(high, -low));
  draw(out, state, count, [=](uint64 word) { return scaled(static_cast<A>(word >> (64 - bits)) * unit, width, A(low)); });
}

template <class T>
__global__ void __launch_bounds__(256)
    random_normal(T* out, const unsigned long long* state, long long count, double mean, double std) {
  draw(out, state, count, [=](uint64 word) {
    return Accumulator<T>(__dadd_rn(__dmul_rn(inverse_normal(probability(word)), std), mean));
  });
}

template <class T>
__global__ void __launch_bounds__(256)
    random_exponential(T* out, const unsigned long long* state, long long count, double rate) {
  draw(out, state, count, [=](uint64 word) {
    return Accumulator<T>(__ddiv_rn(exact_log(probability(word)), -rate));
  });
}

// A block computes a row.  One thread sums the weights, in the twin's order.
template <class T>
__global__ void __launch_bounds__(256) random_choice(
    long long* out, double* cumulative, const T* weights, const unsigned long long* state, long long samples, long long n) {
  double* sums = cumulative + blockIdx.x * n;
  if (threadIdx.x == 0) {
    double sum = 0.0;
    for (long long i = 0; i < n; i++) sums[i] = sum = __dadd_rn(sum, double(Accumulator<T>(weights[blockIdx.x * n + i])));
  }
  __syncthreads();
  for (long long j = threadIdx.x; j < samples; j += blockDim.x) {
    const long long number = blockIdx.x * samples + j;
    const uint64 word = philox(state, number / 4).v[number % 4];
    const double point = __dmul_rn(__dmul_rn(static_cast<double>(word >> 11), 0x1p-53), sums[n - 1]);
    long long low = 0, high = n;  // the index is in [low, high]
    while (low < high) {
      const long long middle = (low + high) / 2;
      if (sums[middle] > point) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    out[number] = low;
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    random_integers(long long* out, const unsigned long long* state, long long count, long long low, long long high) {
  const uint64 width = static_cast<uint64>(high) - static_cast<uint64>(low);
  draw(out, state, count, [=](uint64 word) { return static_cast<long long>(static_cast<uint64>(low) + word % width); });
}

template <class T>
__global__ void __launch_bounds__(256)
    random_bernoulli(bool* mask, const unsigned long long* state, long long count, double probability) {
  const int width = access_width(0, mask);
  for_each_flags(state, count, probability, [&](long long start, long long valid, unsigned int flags) {
    Pack<bool, 4> pack;
#pragma unroll
    for (int e = 0; e < 4; e++) pack.v[e] = flags >> e & 1;
    store_pack(mask + start, pack, valid, width);
  });
}

// Launched with one thread.
template <class T>
__global__ void random_advance(unsigned long long* state, unsigned long long blocks) {
  state[1] += blocks;
}
