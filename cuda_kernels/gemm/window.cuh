// Sources of convolutions (see source.cuh): filters and images, where depth has two parts, and windows of images.

#include "common/divisor.cuh"
#include "source.cuh"

// Which pixels a window reads: pixel (i, j) of the result and tap (c, r, s) of a filter meet at channel c of the image, row
// (first_y + i step_y + r tap_y) / spacing_y if that is an integer, and column likewise.  Outside of the image there are zeros.
struct WindowShape {
  int channels, height, width;  // of the images that are read
  int step_y, step_x, first_y, first_x, tap_y, tap_x;
  Divisor pixels, columns;  // of an image of the result, and of its rows
  Divisor taps, taps_x;     // of a channel of a filter, and of its rows
  Divisor spacing_y, spacing_x;

  __device__ __forceinline__ long long plane() const { return static_cast<long long>(height) * width; }
  __device__ __forceinline__ long long of_group(int groups) const { return channels / groups * plane(); }
};

// A matrix whose depth is (outer, inner): the inner elements are neighbours, and blocks of them lie outer_stride apart.
// Filters (o, c, r, s) as lines c of depth (o, r s), and images (n, c, y, x) as lines c of depth (n, y x).
template <class T>
struct Blocks {
  static constexpr bool ALONG_DEPTH = true;

  const T* data;
  int lines;
  long long line_stride, outer_stride;
  const Divisor& inner;
  int width;  // of accesses, in elements

  struct Place {
    const T* start;  // of the line
    bool is_inside;
  };

  __device__ __forceinline__ Blocks(
      const T* data, int lines, long long line_stride, long long outer_stride, const Divisor& inner)
      : data(data), lines(lines), line_stride(line_stride), outer_stride(outer_stride), inner(inner),
        width(access_width(line_stride | outer_stride | inner.divisor, data)) {}

  __device__ __forceinline__ Place prepare(int line, int) const { return {data + line * line_stride, line < lines}; }

  template <int N>
  __device__ __forceinline__ Pack<T, N> load(const Place& place, int depth, int end) const {
    const int outer = inner.quotient(depth), rest = depth - outer * static_cast<int>(inner.divisor);
    const int valid = place.is_inside ? end - depth : 0;
    const T* source = place.start + outer * outer_stride + rest;
    if (width >= N) return load_stored<N>(source, valid, width);  // blocks consist of whole packs
    Pack<T, N> pack = {};
    int left = static_cast<int>(inner.divisor) - rest;  // in the block
#pragma unroll
    for (int e = 0; e < N; e++) {
      if (e < valid) pack.v[e] = *source;
      source++;
      if (--left == 0) {
        source += outer_stride - static_cast<int>(inner.divisor);
        left = inner.divisor;
      }
    }
    return pack;
  }

  __device__ __forceinline__ void advance(Place&, int) const {}
};

// Windows of images (n, channels, height, width), as a matrix of pixels (n, i, j) of the result by taps (c, r, s).  Packs are
// of neighbouring pixels.  TAPS_ARE_LINES: pixels are depth, else they are lines.  DIVIDES: the spacing is not 1.
template <class T, bool TAPS_ARE_LINES, bool DIVIDES>
struct Window {
  static constexpr bool ALONG_DEPTH = TAPS_ARE_LINES;

  const T* data;  // of the first channel that taps read
  int lines;
  const WindowShape& shape;

  // A pixel, or a tap: its part of the address and of the coordinates.
  struct Place {
    long long offset;
    int y, x;
    int valid;  // lines from this one on
  };

  __device__ __forceinline__ Window(const T* data, int lines, const WindowShape& shape)
      : data(data), lines(lines), shape(shape) {}

  // A pixel by its place in the result, not in the image.
  __device__ __forceinline__ Place pixel(int index) const {
    const int image = shape.pixels.quotient(index);
    index -= image * static_cast<int>(shape.pixels.divisor);
    const int row = shape.columns.quotient(index);
    return {image * (shape.channels * shape.plane()), row, index - row * static_cast<int>(shape.columns.divisor), 0};
  }

  __device__ __forceinline__ Place tap(int index) const {
    const int channel = shape.taps.quotient(index);
    index -= channel * static_cast<int>(shape.taps.divisor);
    const int row = shape.taps_x.quotient(index), column = index - row * static_cast<int>(shape.taps_x.divisor);
    return {channel * shape.plane(), shape.first_y + row * shape.tap_y, shape.first_x + column * shape.tap_x, 0};
  }

  __device__ __forceinline__ Place prepare(int line, int) const {
    Place place = TAPS_ARE_LINES ? tap(line) : pixel(line);
    place.valid = lines - line;
    return place;
  }

  // Sets `at` to the coordinate that is read, and returns whether there is one in the image.
  static __device__ __forceinline__ bool is_inside(int& at, int extent, const Divisor& spacing) {
    if (DIVIDES) {
      if (at < 0) return false;
      const int quotient = spacing.quotient(at);
      if (quotient * static_cast<int>(spacing.divisor) != at) return false;
      at = quotient;
    }
    return static_cast<unsigned int>(at) < extent;
  }

  template <int N>
  __device__ __forceinline__ Pack<T, N> load(const Place& place, int depth, int end) const {
    const Place other = TAPS_ARE_LINES ? pixel(depth) : tap(depth);
    const Place &of_pixel = TAPS_ARE_LINES ? other : place, &of_tap = TAPS_ARE_LINES ? place : other;
    const int valid = TAPS_ARE_LINES ? (place.valid > 0 ? end - depth : 0) : (depth < end ? place.valid : 0);
    const T* channel = data + of_pixel.offset + of_tap.offset;
    int row = of_pixel.y, column = of_pixel.x;
    Pack<T, N> pack = {};
#pragma unroll
    for (int e = 0; e < N; e++) {
      int y = row * shape.step_y + of_tap.y, x = column * shape.step_x + of_tap.x;
      if (e < valid && is_inside(y, shape.height, shape.spacing_y) && is_inside(x, shape.width, shape.spacing_x))
        pack.v[e] = channel[static_cast<long long>(y) * shape.width + x];
      if (++column == shape.columns.divisor) {
        column = 0;
        if (++row * shape.columns.divisor == shape.pixels.divisor) {
          row = 0;
          channel += shape.channels * shape.plane();
        }
      }
    }
    return pack;
  }

  __device__ __forceinline__ void advance(Place&, int) const {}
};

// A batch of images (n, channels, pixels) as the result of a product of channels, from the first of a group on, by pixels
// (n, pixels): a target of epilogues (gemm/epilogue.cuh), with biases by channel.
struct Images {
  int channels;
  const int& first;
  const Divisor& pixels;

  // The place of a pack of pixels, which may belong to several images.
  struct Place {
    long long at;  // of the first pixel
    int rest;      // its number in the image
  };

  __device__ __forceinline__ Place place(int row, int pixel) const {
    const int image = pixels.quotient(pixel), count = pixels.divisor, rest = pixel - image * count;
    return {(static_cast<long long>(image) * channels + first + row) * count + rest, rest};
  }

  template <class T>
  __device__ __forceinline__ Pack<Accumulator<T>, 4> bias(const T* b, int row, int, int) const {
    const Accumulator<T> of_channel(b[first + row]);
    return {{of_channel, of_channel, of_channel, of_channel}};
  }

  // Calls visit(element, its place) for each element before `valid`.
  template <class Visit>
  __device__ __forceinline__ void for_each(Place place, int valid, Visit visit) const {
    const int count = pixels.divisor;
#pragma unroll
    for (int e = 0; e < 4; e++) {
      if (e < valid) visit(e, place.at);
      place.at++;
      if (++place.rest == count) {
        place.rest = 0;
        place.at += (channels - 1LL) * count;
      }
    }
  }

  template <class T>
  __device__ __forceinline__ Pack<Accumulator<T>, 4> load(const T* source, const Place& place, int valid) const {
    if (pixels.divisor % 4 == 0) return load_pack<4>(source + place.at, valid, access_width(0, source));
    Pack<Accumulator<T>, 4> pack = {};
    for_each(place, valid, [&](int e, long long at) { pack.v[e] = Accumulator<T>(source[at]); });
    return pack;
  }

  template <class T>
  __device__ __forceinline__ void store(
      T* destination, const Place& place, const Pack<Accumulator<T>, 4>& pack, int valid) const {
    if (pixels.divisor % 4 == 0) {
      store_pack(destination + place.at, pack, valid, access_width(0, destination));
    } else {
      for_each(place, valid, [&](int e, long long at) { destination[at] = T(pack.v[e]); });
    }
  }
};
