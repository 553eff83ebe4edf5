// Packs: neighbouring elements that one thread loads, processes and stores together.
//
// A full, aligned pack is moved in 16-byte accesses; a ragged or unaligned pack element by element.  So kernels accept any
// pointer and size, and use vector accesses where possible.  Halves are widened by loads and rounded by stores.

#include "half.cuh"

template <class T, int N>
struct __align__(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Pack {
  T v[N];
};

// Number of elements in 16 bytes.
template <class T>
constexpr int VECTOR = 16 / sizeof(T);

// Converts each element: halves to float32 and back, rounding to nearest.
template <class To, class From, int N>
__device__ __forceinline__ Pack<To, N> converted(const Pack<From, N>& pack) {
  Pack<To, N> result;
#pragma unroll
  for (int e = 0; e < N; e++) result.v[e] = To(pack.v[e]);
  return result;
}

// Returns whether packs of four at multiples of four elements from `pointer` are aligned.  True for null, which is not
// accessed.
template <class T>
__device__ __forceinline__ bool aligned(const T* pointer) {
  return reinterpret_cast<unsigned long long>(pointer) % alignof(Pack<T, 4>) == 0;
}

// Loads source[0], source[step], ... as they are stored; elements from `valid` on are zero.  `whole` promises alignment and
// step 1.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_stored(const T* source, long long valid, bool whole, long long step = 1) {
  Pack<T, N> pack;
  if (whole && valid >= N) {
    pack = *reinterpret_cast<const Pack<T, N>*>(source);
  } else {
#pragma unroll
    for (int e = 0; e < N; e++) pack.v[e] = e < valid ? source[e * step] : T(0);
  }
  return pack;
}

// The same, widened to the accumulator.
template <int N, class T>
__device__ __forceinline__ Pack<Accumulator<T>, N> load_pack(const T* source, long long valid, bool whole) {
  return converted<Accumulator<T>>(load_stored<N>(source, valid, whole));
}

template <int N, class T>
__device__ __forceinline__ void store_pack(T* destination, const Pack<Accumulator<T>, N>& values, long long valid, bool whole) {
  const Pack<T, N> pack = converted<T>(values);
  if (whole && valid >= N) {
    *reinterpret_cast<Pack<T, N>*>(destination) = pack;
  } else {
#pragma unroll
    for (int e = 0; e < N; e++)
      if (e < valid) destination[e] = pack.v[e];
  }
}

// Calls body(start, valid) for every pack of four of `count` elements, in a grid-stride loop.
template <class Body>
__device__ __forceinline__ void for_each_pack(long long count, Body body) {
  const long long stride = 4LL * gridDim.x * blockDim.x;
  for (long long start = 4 * (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x); start < count; start += stride)
    body(start, count - start);
}
