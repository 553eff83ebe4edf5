// Many nets at once: linear layers, the mean of each net's losses, and dropout.  x and y (nets, n, features), w (nets, o, i).
//
//   stacked_linear_forward           y[s] = x[s] w[s]^T + b[s]
//   stacked_linear_backward_input    dx[s] = dy[s] w[s]
//   stacked_linear_backward_weight   dw[s] = dy[s]^T x[s] and db[s] = column sums of dy[s]
//   stacked_mean_forward             value[s] = the mean of each[s]
//   stacked_dropout                  y[s] = x[s] scale[s] with the probability of net s, else x[s] 0, by the numbers of net s
//
// The sums of a net are computed in an order that its shapes determine, and not the number of nets: tiles are not split along
// depth.  A net with active[s] == 0 is stopped: its outputs and gradients are zeros, its mean is NaN; its numbers are computed
// nevertheless.
//
// Products are computed in plain arithmetic, in T's accumulator.
//
// Versions: 1. the products of linear.cu, of all nets in one launch (this one).  Next: a whole step of a net in one block.

#include "common/loss.cuh"
#include "common/philox.cuh"
#include "gemm/epilogue.cuh"
#include "gemm/product.cuh"

__device__ __forceinline__ bool is_trained(const long long* active, int net) { return active == nullptr || active[net] != 0; }

// Stores `sums`, or zeros if the net is stopped.
template <class T, class Store>
struct Trained {
  const Store store;
  const bool is_trained;

  __device__ __forceinline__ void operator()(int row, int column, Pack<Accumulator<T>, 4>& value, int valid) const {
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (!is_trained) value.v[e] = Accumulator<T>(0);
    store(row, column, value, valid);
  }
};

// ---- linear layers ---------------------------------------------------------------------------------------------------

template <class T, int ROWS, int COLUMNS, bool WHOLE>
__global__ void __launch_bounds__(
    TileOf<T, ROWS, COLUMNS, Simt>::THREADS, TileOf<T, ROWS, COLUMNS, Simt>::BLOCKS) stacked_linear_forward(
    T* __restrict__ y, T* __restrict__ packed, const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b,
    const long long* __restrict__ active, int n, int o, int i, int num_tiles, long long x_of_net) {
  using OfProduct = TileOf<T, ROWS, COLUMNS, Simt>;
  constexpr int PACK = OfProduct::PACK;
  const int of_net = tiles(n, ROWS) * tiles(o, COLUMNS);
  for_each_part<OfProduct>(num_tiles, i, [&](const Part& part) {
    const long long net = part.tile / of_net;
    const bool trained = is_trained(active, net);
    NoSums none;
    product<T, OfProduct>(
        part, part.tile % of_net, Strided<T, true, WHOLE, PACK>(x + net * x_of_net, n, i, 1),
        Strided<T, true, WHOLE, PACK>(w + net * o * i, o, i, 1), i, {nullptr, nullptr},
        Trained<T, Activated<T, Identity, Rows>>{
            {{o}, y + net * n * o, nullptr, b && trained ? b + net * o : nullptr, 0.0}, trained},
        none);
  });
}

template <class T, int ROWS, int COLUMNS, bool WHOLE>
__global__ void __launch_bounds__(
    TileOf<T, ROWS, COLUMNS, Simt>::THREADS, TileOf<T, ROWS, COLUMNS, Simt>::BLOCKS) stacked_linear_backward_input(
    T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const long long* __restrict__ active, int n, int i,
    int o, int num_tiles) {
  using OfProduct = TileOf<T, ROWS, COLUMNS, Simt>;
  constexpr int PACK = OfProduct::PACK;
  const int of_net = tiles(n, ROWS) * tiles(i, COLUMNS);
  for_each_part<OfProduct>(num_tiles, o, [&](const Part& part) {
    const long long net = part.tile / of_net;
    T* const out = dx + net * n * i;
    NoSums none;
    product<T, OfProduct>(
        part, part.tile % of_net, Strided<T, true, WHOLE, PACK>(dy + net * n * o, n, o, 1),
        Strided<T, false, WHOLE, PACK>(w + net * o * i, i, 1, i), o, {nullptr, nullptr},
        Trained<T, Scaled<T>>{{{i}, out, nullptr}, is_trained(active, net)}, none);
  });
}

template <class T, int ROWS, int COLUMNS, bool WHOLE>
__global__ void __launch_bounds__(
    TileOf<T, ROWS, COLUMNS, Simt>::THREADS, TileOf<T, ROWS, COLUMNS, Simt>::BLOCKS) stacked_linear_backward_weight(
    T* __restrict__ dw, T* __restrict__ db, const T* __restrict__ dy, const T* __restrict__ x,
    const long long* __restrict__ active, int o, int i, int n, int num_tiles, long long x_of_net) {
  using OfWeight = TileOf<T, ROWS, COLUMNS, Simt>;
  constexpr int PACK = OfWeight::PACK;
  const int across = tiles(i, COLUMNS), of_net = tiles(o, ROWS) * across;
  for_each_part<OfWeight>(num_tiles, n, [&](const Part& part) {
    const long long net = part.tile / of_net;
    const int tile = part.tile % of_net;
    const bool trained = is_trained(active, net);
    T* const out = dw + net * o * i;
    LineSums<T, OfWeight, false> of_dy{{}, tile % across == 0};
    const bool is_whole = product<T, OfWeight>(
        part, tile, Strided<T, false, WHOLE, PACK>(dy + net * n * o, o, 1, o),
        Strided<T, false, WHOLE, PACK>(x + net * x_of_net, i, 1, i), n, {nullptr, nullptr},
        Trained<T, Scaled<T>>{{{i}, out, nullptr}, trained}, of_dy);
    if (!is_whole || !of_dy.is_needed || !db) return;
    const int first_row = tile / across * ROWS;
    of_dy.finish([&](int column, Accumulator<T> sum) {
      const int row = first_row + column;
      if (row < o) db[net * o + row] = T(trained ? sum : Accumulator<T>(0));
    });
  });
}

// ---- means, and dropout ----------------------------------------------------------------------------------------------

// A block for each net.
template <class T>
__global__ void __launch_bounds__(256) stacked_mean_forward(T* value, const T* each, const long long* active, int count) {
  using A = Accumulator<T>;
  const T* of_net = each + static_cast<long long>(blockIdx.x) * count;
  A sum = A(0);
  for (int i = threadIdx.x; i < count; i += 256) sum += A(of_net[i]);
  sum = block_reduce<Sum>(sum);
  if (threadIdx.x == 0) value[blockIdx.x] = T(is_trained(active, blockIdx.x) ? sum / A(count) : not_a_number<A>());
}

// A block for each net.  kept (nets,): how many of the 2^32 numbers keep an element.  With `advances`, `start` (if not null)
// receives the states (nets, 2) of the streams, which then pass the used numbers.
template <class T>
__global__ void __launch_bounds__(256) stacked_dropout(
    T* y, unsigned long long* start, unsigned long long* state, const T* x, const long long* kept, int count, bool advances) {
  using A = Accumulator<T>;
  const long long first = static_cast<long long>(blockIdx.x) * count;
  unsigned long long* of_net = state + 2 * blockIdx.x;
  const uint64 threshold = kept[blockIdx.x];
  const A scale = threshold > 0 ? A(0x1p32 / static_cast<double>(threshold)) : A(0);
  const int blocks = count / 8 + (count % 8 != 0);
  for (int block = threadIdx.x; block < blocks; block += 256) {
    const Pack<uint64, 4> words = philox(of_net, block);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (8 * block + i >= count) break;
      const uint64 number = i % 2 == 0 ? words.v[i / 2] & 0xFFFFFFFF : words.v[i / 2] >> 32;
      y[first + 8 * block + i] = T(A(x[first + 8 * block + i]) * (number < threshold ? scale : A(0)));
    }
  }
  if (!advances) return;
  if (threadIdx.x < 2 && start != nullptr) start[2 * blockIdx.x + threadIdx.x] = of_net[threadIdx.x];
  __syncthreads();  // all threads have read the state
  if (threadIdx.x == 0) of_net[1] += blocks;
}
