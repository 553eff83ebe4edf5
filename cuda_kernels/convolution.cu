// Convolution of images, forward and backward.  x (n, c, height, width), w (o, c / groups, r, s), b (o,), y and dy (n, o, p, q)
//
//   conv2d_forward           y = act(x * w + b), and the pre-activation z if backward needs it
//   conv2d_backward_input    dx = (w over the windows of dy) act'(saved): an activation's derivative, in the epilogue
//   conv2d_backward_weight   dw = scale (dy over the windows of x) and db = scale (sums of dy by channel), in one pass over dy
//
// Each is one launch, of one product for each group of channels: channels by pixels by taps (c, r, s); channels by pixels by
// taps (o, r, s); channels by taps by pixels.  Windows of images are operands of the product (gemm/window.cuh), and nothing is
// stored but the result.
//
// Versions: 1. SIMT tiles (this one).  Next: tensor cores.

#include "gemm/epilogue.cuh"
#include "gemm/product.cuh"
#include "gemm/window.cuh"

template <class T, int ROWS, int COLUMNS, bool WHOLE, class Act>
__global__ void __launch_bounds__(Tile<T, ROWS, COLUMNS>::THREADS, Tile<T, ROWS, COLUMNS>::BLOCKS) conv2d_forward(
    T* __restrict__ y, T* __restrict__ z, Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets,
    const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, int channels, int pixels, int taps,
    int num_tiles, int groups, const WindowShape shape, double alpha) {
  const int of_product = tiles(channels, ROWS) * (pixels ? tiles(pixels, COLUMNS) : 1);
  for_each_part<Tile<T, ROWS, COLUMNS>>(num_tiles, taps, [&](const Part& part) {
    const int group = part.tile / of_product;
    __shared__ int first_channel;  // the mainloop needs the registers
    if (threadIdx.x == 0) first_channel = group * channels;
    NoSums none;
    product<T, Tile<T, ROWS, COLUMNS>>(
        part, part.tile % of_product,
        Strided<T, true, WHOLE>(w + static_cast<long long>(group) * channels * taps, channels, taps, 1),
        Window<T, false, false>(x + group * shape.of_group(groups), pixels, shape), taps, {partials, tickets},
        Activated<T, Act, Images>{{channels * groups, first_channel, shape.pixels}, y, z, b, alpha}, none);
  });
}

// `shape` has the images dy, where pixels and taps of dx meet.  DIVIDES: a stride is not 1.
template <class T, int ROWS, int COLUMNS, bool DIVIDES, class Act>
__global__ void __launch_bounds__(Tile<T, ROWS, COLUMNS>::THREADS, Tile<T, ROWS, COLUMNS>::BLOCKS) conv2d_backward_input(
    T* __restrict__ dx, Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets,
    const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ saved, int channels, int pixels, int taps,
    int num_tiles, int groups, const WindowShape shape, double alpha) {
  const int of_product = tiles(channels, ROWS) * (pixels ? tiles(pixels, COLUMNS) : 1);
  for_each_part<Tile<T, ROWS, COLUMNS>>(num_tiles, taps, [&](const Part& part) {
    const int group = part.tile / of_product;
    const long long of_filter = shape.taps.divisor;
    __shared__ int first_channel;
    if (threadIdx.x == 0) first_channel = group * channels;
    NoSums none;
    product<T, Tile<T, ROWS, COLUMNS>>(
        part, part.tile % of_product,
        Blocks<T>(
            w + static_cast<long long>(group) * channels * taps, channels, of_filter, channels * of_filter, shape.taps),
        Window<T, false, DIVIDES>(dy + group * shape.of_group(groups), pixels, shape), taps, {partials, tickets},
        Derived<T, Act, Images>{{channels * groups, first_channel, shape.pixels}, dx, saved, alpha}, none);
  });
}

// Without dw, taps is 0: the product has no columns, and only the sums by channel are computed.
template <class T, int ROWS, int COLUMNS>
__global__ void __launch_bounds__(Tile<T, ROWS, COLUMNS>::THREADS, Tile<T, ROWS, COLUMNS>::BLOCKS) conv2d_backward_weight(
    T* __restrict__ dw, T* __restrict__ db, Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets,
    const T* __restrict__ dy, const T* __restrict__ x, const Accumulator<T>* __restrict__ scale, int channels, int taps,
    int pixels, int num_tiles, int groups, const WindowShape shape) {
  using OfWeight = Tile<T, ROWS, COLUMNS>;
  const int across = taps ? tiles(taps, COLUMNS) : 1, of_product = tiles(channels, ROWS) * across;
  for_each_part<OfWeight>(num_tiles, pixels, [&](const Part& part) {
    const int group = part.tile / of_product, tile = part.tile % of_product;
    __shared__ T* of_group;  // the mainloop needs the registers
    __shared__ int first_channel, first_row;
    if (threadIdx.x == 0) {
      first_channel = group * channels;
      first_row = tile / across * ROWS;
      of_group = dw + static_cast<long long>(first_channel) * taps;
    }
    LineSums<T, OfWeight, true> of_dy{{}, tile % across == 0};
    const long long of_image = shape.pixels.divisor;
    const Scaled<T> mean{{taps}, of_group, scale};
    const bool is_whole = product<T, OfWeight>(
        part, tile, Blocks<T>(dy + group * channels * of_image, channels, of_image, groups * channels * of_image, shape.pixels),
        Window<T, true, false>(x + group * shape.of_group(groups), taps, shape), pixels, {partials, tickets}, mean, of_dy);
    if (!is_whole || !of_dy.is_needed || !db) return;
    of_dy.finish([&](int line, Accumulator<T> sum) {
      const int row = first_row + line;
      if (row < channels) db[first_channel + row] = T(sum * mean.factor());
    });
  });
}
