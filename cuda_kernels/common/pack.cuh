// Packs: neighbouring elements that one thread loads, processes and stores together.
//
// A pack of four is moved in one access of 16 bytes (8 bytes of halves, two accesses of float64) where the rows allow it, else
// in pairs, else element by element; so is the ragged end of a row.  Kernels accept any pointer and size, and use the widest
// access possible: rows of 10 floats are moved in pairs.  Halves are widened by loads and rounded by stores.

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

// Returns the widest access in elements, 4, 2 or 1, for packs at multiples of four elements from all pointers, in rows that
// begin `stride` elements apart (0: one row).  Null pointers, which are not accessed, allow any.
template <class... T>
__device__ __forceinline__ int access_width(long long stride, const T*... pointers) {
  const unsigned int offsets = ((4 | stride) | ... | (reinterpret_cast<unsigned long long>(pointers) / sizeof(T)));
  return offsets & -offsets;  // the lowest bit that is set
}

// Loads source[0], source[step], ... as they are stored; elements from `valid` on are zero.  A width above 1 requires step 1.
// A pack that is ragged, or wider than `width`, is loaded as two halves.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_stored(const T* source, long long valid, int width, long long step = 1) {
  Pack<T, N> pack;
  if ((N == 1 || width >= N) && valid >= N) {
    pack = *reinterpret_cast<const Pack<T, N>*>(source);
  } else if constexpr (N == 1) {
    pack.v[0] = T(0);
  } else {
    const Pack<T, N / 2> low = load_stored<N / 2>(source, valid, width, step);
    const Pack<T, N / 2> high = load_stored<N / 2>(source + N / 2 * step, valid - N / 2, width, step);
#pragma unroll
    for (int e = 0; e < N; e++) pack.v[e] = e < N / 2 ? low.v[e] : high.v[e - N / 2];
  }
  return pack;
}

// The same, widened to the accumulator.
template <int N, class T>
__device__ __forceinline__ Pack<Accumulator<T>, N> load_pack(const T* source, long long valid, int width) {
  return converted<Accumulator<T>>(load_stored<N>(source, valid, width));
}

// Stores the elements before `valid`, in the same accesses as load_stored.
template <int N, class T>
__device__ __forceinline__ void store_stored(T* destination, const Pack<T, N>& pack, long long valid, int width) {
  if ((N == 1 || width >= N) && valid >= N) {
    *reinterpret_cast<Pack<T, N>*>(destination) = pack;
  } else if constexpr (N > 1) {
    Pack<T, N / 2> low, high;
#pragma unroll
    for (int e = 0; e < N; e++) (e < N / 2 ? low : high).v[e % (N / 2)] = pack.v[e];
    store_stored(destination, low, valid, width);
    store_stored(destination + N / 2, high, valid - N / 2, width);
  }
}

// The same, rounded to T.
template <int N, class T>
__device__ __forceinline__ void store_pack(T* destination, const Pack<Accumulator<T>, N>& values, long long valid, int width) {
  store_stored(destination, converted<T>(values), valid, width);
}

// Calls body(start, valid) for every pack of four of `count` elements, in a grid-stride loop.
template <class Body>
__device__ __forceinline__ void for_each_pack(long long count, Body body) {
  const long long stride = 4LL * gridDim.x * blockDim.x;
  for (long long start = 4 * (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x); start < count; start += stride)
    body(start, count - start);
}
