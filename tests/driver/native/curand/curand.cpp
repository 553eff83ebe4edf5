// The stand-in for libcurand.so.10: random numbers on a stream, one hash of seed and position for each.  The numbers are not
// cuRAND's; their distributions are.
#include <cuda.h>
#include <math.h>
#include <stdint.h>

#include <random>

#include "../host_work.h"

namespace curand {

enum Status {
  kSuccess = 0,
  kTypeError = 103,
  kOutOfRange = 104,
  kLengthNotMultiple = 105,
  kLaunchFailure = 201
};  // of curandStatus_t

struct Generator {
  CUstream stream = nullptr;
  uint64_t seed = 0, position = 0;
};

uint64_t mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}
uint64_t bits_at(uint64_t seed, uint64_t position) { return mix(mix(seed) ^ mix(position + 0x632be59bd9b4e019u)); }

template <class T>
T uniform_at(uint64_t seed, uint64_t position) {  // in (0, 1]
  constexpr int digits = std::is_same_v<T, float> ? 24 : 53;
  return static_cast<T>((bits_at(seed, position) >> (64 - digits)) + 1) * static_cast<T>(ldexp(1.0, -digits));
}

// Calls fill(i, seed, position) for the n numbers of a call, when the work runs.
template <class Fill>
int enqueue(Generator* generator, size_t n, Fill fill) {
  const uint64_t seed = generator->seed, position = generator->position;
  generator->position += n;
  const bool queued = host_work::enqueue(generator->stream, [=] {
    for (size_t i = 0; i < n; i++) fill(i, seed, position + i);
  });
  return queued ? kSuccess : kLaunchFailure;
}

template <class T>
int normal(Generator* generator, T* to, size_t n, T mean, T deviation, bool exponential) {
  if (n % 2) return kLengthNotMultiple;  // they come in pairs
  return enqueue(generator, n, [=](size_t i, uint64_t seed, uint64_t position) {
    const uint64_t first = position - i % 2;
    const double radius = sqrt(-2 * log(uniform_at<double>(seed, first))),
                 angle = 2 * M_PI * uniform_at<double>(seed, first + 1);
    const double value = mean + deviation * radius * (i % 2 ? sin(angle) : cos(angle));
    to[i] = static_cast<T>(exponential ? exp(value) : value);
  });
}
}  // namespace curand

using namespace curand;

#define API extern "C" __attribute__((visibility("default"))) int

API curandCreateGenerator(Generator** generator, int type) {
  if (type < 100 || type >= 300) return kTypeError;
  *generator = new Generator;
  return kSuccess;
}
API curandDestroyGenerator(Generator* generator) {
  delete generator;
  return kSuccess;
}
API curandGetVersion(int* version) {
  *version = 10400;
  return kSuccess;
}
API curandSetStream(Generator* generator, CUstream stream) {
  generator->stream = stream;
  return kSuccess;
}
API curandSetPseudoRandomGeneratorSeed(Generator* generator, unsigned long long seed) {
  generator->seed = seed;
  generator->position = 0;
  return kSuccess;
}
API curandSetGeneratorOffset(Generator* generator, unsigned long long offset) {
  generator->position = offset;
  return kSuccess;
}
API curandSetGeneratorOrdering(Generator*, int) { return kSuccess; }

API curandGenerate(Generator* generator, unsigned* to, size_t n) {
  return enqueue(generator, n, [to](size_t i, uint64_t seed, uint64_t position) {
    to[i] = static_cast<unsigned>(bits_at(seed, position) >> 32);
  });
}
API curandGenerateLongLong(Generator* generator, unsigned long long* to, size_t n) {
  return enqueue(generator, n, [to](size_t i, uint64_t seed, uint64_t position) { to[i] = bits_at(seed, position); });
}
API curandGenerateUniform(Generator* generator, float* to, size_t n) {
  return enqueue(generator, n, [to](size_t i, uint64_t seed, uint64_t position) { to[i] = uniform_at<float>(seed, position); });
}
API curandGenerateUniformDouble(Generator* generator, double* to, size_t n) {
  return enqueue(generator, n,
                 [to](size_t i, uint64_t seed, uint64_t position) { to[i] = uniform_at<double>(seed, position); });
}
API curandGenerateNormal(Generator* generator, float* to, size_t n, float mean, float deviation) {
  return normal(generator, to, n, mean, deviation, false);
}
API curandGenerateNormalDouble(Generator* generator, double* to, size_t n, double mean, double deviation) {
  return normal(generator, to, n, mean, deviation, false);
}
API curandGenerateLogNormal(Generator* generator, float* to, size_t n, float mean, float deviation) {
  return normal(generator, to, n, mean, deviation, true);
}
API curandGenerateLogNormalDouble(Generator* generator, double* to, size_t n, double mean, double deviation) {
  return normal(generator, to, n, mean, deviation, true);
}
API curandGeneratePoisson(Generator* generator, unsigned* to, size_t n, double mean) {
  if (!(mean > 0)) return kOutOfRange;
  return enqueue(generator, n, [=](size_t i, uint64_t seed, uint64_t position) {
    std::mt19937_64 engine(bits_at(seed, position));
    to[i] = std::poisson_distribution<unsigned>(mean)(engine);
  });
}
