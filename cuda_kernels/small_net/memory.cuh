// A small net in shared memory: the places of its arrays, and copies of batches to it.

#include "common/pack.cuh"
#include "common/primitives.cuh"

// Of the losses of a batch; ROW_MEAN divides by all rows, also those that are ignored.
enum { SUM, MEAN, ROW_MEAN };

enum { MOST_LAYERS = 8, MOST_FACTORS = 10, THREADS = 256, AHEAD = 8 };

// Places are in elements of shared memory, at multiples of four; entries are those of the table.
struct NetLayer {
  unsigned long long kept;  // of the 2^32 numbers, those that keep an element in dropout
  double scale;             // of a kept element
  int inputs, outputs, weight, bias;        // bias: -1 without one
  int parameters, gradients, states;        // (outputs, stride_of(inputs)); the states one behind the other
  int result, saved, slope;                 // (rows, stride_of(outputs)): y, what act' reads, dz
  int flags;                                // of dropout, a bit for each element of y; -1 without dropout
  int stream, first_block, blocks;          // of random numbers: those before in a step, and those of the stream in a step
  int mask, first_mask;                     // a place, -1 without a mask; and where it begins in the masks of a net
  int lanes_forward, lanes_input, lanes_gradient;  // see product()
};

// Packed by gpunet.ops.small_net.
struct NetShape {
  NetLayer of[MOST_LAYERS];
  int layers, rows, entries, streams, masks;          // rows of a batch; streams and masked features of a net
  int inputs, targets, losses, numbers, factors;      // places; of the targets, or labels, of a batch
  int size;                                           // elements of shared memory
};

// Tags of losses; the others are those of elementwise_losses.cuh.
struct SoftmaxOfLabels {};
template <class Loss>
constexpr bool HAS_LABELS = false;
template <>
constexpr bool HAS_LABELS<SoftmaxOfLabels> = true;

// Elements from a row of features to the next one: room for the column of ones, and an odd number of packs, so that packs in
// the same place of neighbouring rows lie in different banks.
__device__ __forceinline__ int stride_of(int features) { return (features + 7) / 8 * 8 + 4; }

template <class T>
__device__ __forceinline__ T* net_memory() {
  extern __shared__ __align__(16) unsigned char memory_of_net[];
  return reinterpret_cast<T*>(memory_of_net);
}

// Starts a copy of BYTES from global to shared memory, which is complete after finish_copies().
template <int BYTES, class T>
__device__ __forceinline__ void start_copy(T* to, const T* from) {
  if constexpr (IS_SM_80)
    cp_async<BYTES>(to, from);
  else
    *reinterpret_cast<Pack<T, BYTES / sizeof(T)>*>(to) = *reinterpret_cast<const Pack<T, BYTES / sizeof(T)>*>(from);
}

__device__ __forceinline__ void finish_copies() {
  if constexpr (IS_SM_80) cp_async_wait_all();
}

// Starts copies of rows of `columns` elements: those that `order` names from `first` on, or without it those from `first` on.
template <class T>
__device__ __forceinline__ void gather(
    T* to, const T* from, const long long* order, long long first, int rows, int columns, int stride) {
  const bool is_whole = columns % VECTOR<T> == 0 && reinterpret_cast<unsigned long long>(from) % 16 == 0;
  const int pieces = is_whole ? columns / VECTOR<T> : columns, size = is_whole ? VECTOR<T> : 1;
#pragma unroll 1
  for (int index = threadIdx.x; index < rows * pieces; index += THREADS) {
    const int row = index / pieces, column = index % pieces * size;
    const long long source = order == nullptr ? first + row : order[first + row];
    T* const place = to + row * stride + column;
    if (is_whole)
      start_copy<16>(place, from + source * columns + column);
    else
      start_copy<sizeof(T)>(place, from + source * columns + column);
  }
}
