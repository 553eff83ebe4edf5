// Packs: a few neighbouring elements that one thread loads, works on and stores together.
//
// A whole, aligned pack moves in accesses of 16 bytes; a ragged or unaligned one element by element.  So every kernel
// takes any pointer and any size, and is fast where it can be.

template <class T, int N>
struct __align__(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Pack {
  T v[N];
};

// Elements in 16 bytes.
template <class T>
constexpr int VECTOR = 16 / sizeof(T);

// Whether packs of four at multiples of four from `pointer` may be accessed whole.  Null may: nobody will.
template <class T>
__device__ __forceinline__ bool aligned(const T* pointer) {
  return reinterpret_cast<unsigned long long>(pointer) % alignof(Pack<T, 4>) == 0;
}

// source[0], source[step], ... ; zero from `valid` on.  `whole` promises alignment and step 1.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* source, long long valid, bool whole, long long step = 1) {
  Pack<T, N> pack;
  if (whole && valid >= N) {
    pack = *reinterpret_cast<const Pack<T, N>*>(source);
  } else {
#pragma unroll
    for (int e = 0; e < N; e++) pack.v[e] = e < valid ? source[e * step] : T(0);
  }
  return pack;
}

template <int N, class T>
__device__ __forceinline__ void store_pack(T* destination, const Pack<T, N>& pack, long long valid, bool whole) {
  if (whole && valid >= N) {
    *reinterpret_cast<Pack<T, N>*>(destination) = pack;
  } else {
#pragma unroll
    for (int e = 0; e < N; e++)
      if (e < valid) destination[e] = pack.v[e];
  }
}

// body(start, valid) for every pack of four of `count` elements, in a grid-stride loop.
template <class Body>
__device__ __forceinline__ void for_each_pack(long long count, Body body) {
  const long long stride = 4LL * gridDim.x * blockDim.x;
  for (long long start = 4 * (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x); start < count; start += stride)
    body(start, count - start);
}
