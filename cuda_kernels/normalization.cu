// Layer, RMS, group and instance norm: y = act(w (x - mean) rstd + b), with mean and rstd = 1 / sqrt(variance + eps) of a row.
//
// x is (n, c, s): n images of c channels of s elements.  The channels are divided into groups, and a row is a group of an
// image; w and b have a number for each channel.  In layer norm s and the number of groups are 1.  Without `mean` rows are not
// centred.
//
//   group_norm_forward          y; mean and rstd for backward
//   group_norm_backward_input   with g = dy w and h = (x - mean) rstd:  dx = rstd (g - average of g - h average of (g h))
//   norm_backward_weight        dw = scale sum of (dy h), db = scale sum of dy, of each channel; batch norm uses it as well
//
// Versions: 1. a warp per row up to 1024 elements, a block per row above, kept in registers up to 8192 elements; the variance
// is that of the centred row (this one): memory-bound, so there is no next version.

#include "common/activations.cuh"
#include "common/channels.cuh"
#include "common/rows.cuh"

// The weights of a row: that of element j belongs to channel first + j / s.
template <class T>
struct Weights {
  using A = Accumulator<T>;
  const T* of_row;  // null: all weights are `missing`
  int s, width;
  A missing;

  __device__ __forceinline__ Weights(const T* weights, long long row, int groups, int size, int s, A missing)
      : of_row(weights == nullptr ? nullptr : weights + row % groups * (size / s)),
        s(s),
        width(access_width(size / s, weights)),
        missing(missing) {}

  __device__ __forceinline__ Pack<A, 4> at(int start, int valid) const {
    if (s == 1 && of_row != nullptr) return load_pack<4>(of_row + start, valid, width);
    Pack<A, 4> pack;
    const int channel = start / s, element = start - channel * s;  // start is a multiple of 4, and s > 1: two channels at most
#pragma unroll
    for (int e = 0; e < 4; e++)
      pack.v[e] = of_row != nullptr && e < valid ? A(of_row[channel + (element + e >= s)]) : missing;
    return pack;
  }
};

template <class T, class Act, bool WARP_A_ROW, bool HELD>
__global__ void __launch_bounds__(256) group_norm_forward(
    T* y, T* z, Accumulator<T>* mean, Accumulator<T>* rstd, const T* x, const T* w, const T* b, long long rows, int size,
    int groups, int s, double eps, double alpha) {
  using A = Accumulator<T>;
  using Group = RowGroup<WARP_A_ROW>;
  const int width = access_width(size, y, z, x);
  for (long long index = Group::first_row(); index < rows; index += Group::rows_at_once()) {
    const Row<T, Group, HELD> row(x + index * size, size, width);
    A center = 0;
    if (mean != nullptr) {
      row.for_each([&](int pack, int, int) {
        const Pack<A, 4> value = row.at(pack);
#pragma unroll
        for (int e = 0; e < 4; e++) center += value.v[e];
      });
      center = Group::template reduce<Sum>(center) / A(size);
    }
    A squares = 0;
    row.for_each([&](int pack, int, int valid) {
      const Pack<A, 4> value = row.at(pack);
#pragma unroll
      for (int e = 0; e < 4; e++)
        if (e < valid) squares += (value.v[e] - center) * (value.v[e] - center);
    });
    const A scale = A(1) / sqrt(Group::template reduce<Sum>(squares) / A(size) + A(eps));
    if (Group::member() == 0) {
      if (mean != nullptr) mean[index] = center;
      rstd[index] = scale;
    }
    const Weights<T> weights(w, index, groups, size, s, A(1)), biases(b, index, groups, size, s, A(0));
    row.for_each([&](int pack, int start, int valid) {
      Pack<A, 4> value = row.at(pack);
      const Pack<A, 4> weight = weights.at(start, valid), bias = biases.at(start, valid);
#pragma unroll
      for (int e = 0; e < 4; e++) value.v[e] = (value.v[e] - center) * scale * weight.v[e] + bias.v[e];
      if (z != nullptr) store_pack(z + index * size + start, value, valid, width);
#pragma unroll
      for (int e = 0; e < 4; e++) value.v[e] = Act::forward(value.v[e], A(alpha));
      store_pack(y + index * size + start, value, valid, width);
    });
  }
}

template <class T, bool WARP_A_ROW, bool HELD>
__global__ void __launch_bounds__(256) group_norm_backward_input(
    T* dx, const T* dy, const T* x, const T* w, const Accumulator<T>* mean, const Accumulator<T>* rstd, long long rows,
    int size, int groups, int s) {
  using A = Accumulator<T>;
  using Group = RowGroup<WARP_A_ROW>;
  const int width = access_width(size, dx, dy, x);
  for (long long index = Group::first_row(); index < rows; index += Group::rows_at_once()) {
    const Row<T, Group, HELD> row(x + index * size, size, width), gradients(dy + index * size, size, width);
    const Weights<T> weights(w, index, groups, size, s, A(1));
    const A center = mean != nullptr ? mean[index] : A(0), scale = rstd[index];
    A sum = 0, product = 0;
    row.for_each([&](int pack, int start, int valid) {
      const Pack<A, 4> value = row.at(pack), gradient = gradients.at(pack), weight = weights.at(start, valid);
#pragma unroll
      for (int e = 0; e < 4; e++)
        if (e < valid) {
          sum += gradient.v[e] * weight.v[e];
          product += gradient.v[e] * weight.v[e] * ((value.v[e] - center) * scale);
        }
    });
    const A average = mean != nullptr ? Group::template reduce<Sum>(sum) / A(size) : A(0);
    product = Group::template reduce<Sum>(product) / A(size);
    row.for_each([&](int pack, int start, int valid) {
      const Pack<A, 4> value = row.at(pack), gradient = gradients.at(pack), weight = weights.at(start, valid);
      Pack<A, 4> result;
#pragma unroll
      for (int e = 0; e < 4; e++)
        result.v[e] = scale * (gradient.v[e] * weight.v[e] - average - (value.v[e] - center) * scale * product);
      store_pack(dx + index * size + start, result, valid, width);
    });
  }
}

// The sums of dy and of dy h.
template <class A>
struct GradientSums {
  static constexpr int COUNT = 2;
  A v[2] = {0, 0};

  __device__ __forceinline__ void merge(const GradientSums& other) {
    v[0] += other.v[0];
    v[1] += other.v[1];
  }
};

// The statistics are those of each group of an image, or without groups (0) of each channel.  sums (2, c) has both sums without
// the scale.
template <class T, int CHANNELS>
__global__ void __launch_bounds__(256) norm_backward_weight(
    T* dw, T* db, Accumulator<T>* sums, Accumulator<T>* partials, unsigned int* tickets, const T* dy, const T* x,
    const Accumulator<T>* mean, const Accumulator<T>* rstd, const Accumulator<T>* scale, int n, int c, int s, int groups,
    int slices) {
  using A = Accumulator<T>;
  const ChannelTile<CHANNELS> tile{{n, c, s}, slices};
  const int width = access_width(s, dy, x), channel = tile.channel();
  GradientSums<A> total;
  tile.for_each([&](const Place& place) {
    const Pack<A, 4> gradient = tile.load(dy, place, width), value = tile.load(x, place, width);
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (e < place.valid) {
        const long long at = groups == 0 ? channel : tile.image(place, e) * groups + channel / (c / groups);
        const A center = mean != nullptr ? mean[at] : A(0);
        total.v[0] += gradient.v[e];
        total.v[1] += gradient.v[e] * ((value.v[e] - center) * rstd[at]);
      }
  });
  if (tile.combine(total, partials, tickets)) {
    const A factor = scale != nullptr ? scale[0] : A(1);
    if (db != nullptr) db[channel] = T(factor * total.v[0]);
    if (dw != nullptr) dw[channel] = T(factor * total.v[1]);
    if (sums != nullptr) {
      sums[channel] = total.v[0];
      sums[c + channel] = total.v[1];
    }
  }
}
