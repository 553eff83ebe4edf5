// Pooling over windows of up to three dimensions: x (planes, depth, height, width) -> y (planes, windows of each dimension).
//
//   max_pool_forward    y = the maximum of each window, index = its first place in the plane; of NaN, the last place
//   max_pool_backward   dx = the sum of dy over the windows whose maximum is the pixel
//   avg_pool_forward    y = the sum of each window, divided
//   avg_pool_backward   dx = the sum of dy, divided, over the windows that contain the pixel
//
// WARP: a warp computes a window; else a thread does.  ADAPTIVE: the windows divide the dimension into parts that may overlap
// (Windows.size of them), else they lie at equal distances.  Backward gathers, in the order of the windows: no atomics.
//
// Versions: 1. an element per thread (this one).  Next: rows in shared memory, packs of four.

#include "common/divisor.cuh"
#include "common/half.cuh"
#include "common/reduce.cuh"

// Places first, first + step, ...: `count` of them.
struct Range {
  int first, count;
};

// The windows of one dimension: `size` of them over `extent` elements.
struct Axis {
  int extent, size, taps, stride, padding, dilation;

  // The elements of the tensor in window w; dilation apart.
  template <bool ADAPTIVE>
  __device__ __forceinline__ Range window(int w) const {
    if (ADAPTIVE) {
      const int first = static_cast<long long>(w) * extent / size;
      return {first, static_cast<int>(((w + 1LL) * extent + size - 1) / size) - first};
    }
    const int start = w * stride - padding, skipped = (max(-start, 0) + dilation - 1) / dilation;
    const int end = min(taps, (extent - start + dilation - 1) / dilation);
    return {start + skipped * dilation, end - skipped};
  }

  // The windows between whose first and last element `at` lies.
  template <bool ADAPTIVE>
  __device__ __forceinline__ Range windows(int at) const {
    if (ADAPTIVE) {
      const int first = static_cast<long long>(at) * size / extent;
      return {first, static_cast<int>(((at + 1LL) * size + extent - 1) / extent) - first};
    }
    const int first = (max(at + padding - dilation * (taps - 1), 0) + stride - 1) / stride;
    return {first, min(size - 1, (at + padding) / stride) - first + 1};
  }

  // The number of elements of window w without dilation, with those of the padding or without.
  __device__ __forceinline__ int counted(int w, bool with_padding) const {
    const int start = w * stride - padding, end = start + taps;
    return with_padding ? min(end, extent + padding) - start : min(end, extent) - max(start, 0);
  }
};

struct PoolShape {
  Axis axes[3];  // depth, height, width
  Divisor plane, slice, row;  // numbers of elements of the destination
  int divisor;  // of a sum; 0 for the number of elements of the window
  int counts_padding;  // 0 or 1

  __device__ __forceinline__ int pixels() const { return axes[0].extent * axes[1].extent * axes[2].extent; }
  __device__ __forceinline__ int windows() const { return axes[0].size * axes[1].size * axes[2].size; }

  struct Place {
    long long plane;
    int within, at[3];
  };

  // Where element e of the destination lies.
  __device__ __forceinline__ Place place(long long e) const {
    const long long number = plane.quotient(e);
    const int within = static_cast<int>(e - number * plane.divisor), z = slice.quotient(within);
    const int rest = within - z * static_cast<int>(slice.divisor), y = row.quotient(rest);
    return {number, within, {z, y, rest - y * static_cast<int>(row.divisor)}};
  }

  template <class A>
  __device__ __forceinline__ A divided(A sum, int z, int y, int x) const {
    if (divisor) return sum / A(divisor);
    return sum / (A(axes[0].counted(z, counts_padding)) * A(axes[1].counted(y, counts_padding)) *
                  A(axes[2].counted(x, counts_padding)));
  }

  // Calls visit(index in the plane) for each element of a window, or for those of one member of a group of threads.
  template <bool ADAPTIVE, int GROUP, class Visit>
  __device__ __forceinline__ void for_each_element(const Place& place, int member, Visit visit) const {
    const Range z = axes[0].window<ADAPTIVE>(place.at[0]), y = axes[1].window<ADAPTIVE>(place.at[1]);
    const Range x = axes[2].window<ADAPTIVE>(place.at[2]);
    const auto row_of = [&](int i, int j) {
      return ((z.first + i * axes[0].dilation) * axes[1].extent + y.first + j * axes[1].dilation) * axes[2].extent + x.first;
    };
    const int step = axes[2].dilation;
    if (GROUP == 1) {
      for (int i = 0; i < z.count; i++)
        for (int j = 0; j < y.count; j++)
          for (int k = 0; k < x.count; k++) visit(row_of(i, j) + k * step);
    } else {
      for (int t = member; t < z.count * y.count * x.count; t += GROUP) {
        const int line = t / x.count, i = line / y.count;
        visit(row_of(i, line - i * y.count) + (t - line * x.count) * step);
      }
    }
  }

  // Calls visit(index of a window in the plane, its coordinates) for each window that may contain an element.
  template <bool ADAPTIVE, class Visit>
  __device__ __forceinline__ void for_each_window(const Place& place, Visit visit) const {
    const Range z = axes[0].windows<ADAPTIVE>(place.at[0]), y = axes[1].windows<ADAPTIVE>(place.at[1]);
    const Range x = axes[2].windows<ADAPTIVE>(place.at[2]);
    for (int i = z.first; i < z.first + z.count; i++)
      for (int j = y.first; j < y.first + y.count; j++)
        for (int k = x.first; k < x.first + x.count; k++) visit((i * axes[1].size + j) * axes[2].size + k, i, j, k);
  }
};

// Calls body(element, its number in the group) for each element, in a grid-stride loop; a group of threads shares an element.
template <int GROUP, class Body>
__device__ __forceinline__ void for_each_by_group(long long count, Body body) {
  const long long thread = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  const long long groups = static_cast<long long>(gridDim.x) * blockDim.x / GROUP;
  for (long long e = thread / GROUP; e < count; e += groups) body(e, static_cast<int>(thread % GROUP));
}

// The maximum so far, and its place.
template <class A>
struct Best {
  A value = A(-__int_as_float(0x7f800000));  // -infinity
  int index = 0x7fffffff;

  __device__ __forceinline__ void add(A other, int at) {
    const bool is_nan = other != other, has_nan = value != value;
    if (is_nan ? !has_nan || at > index : other > value || (other == value && at < index)) {
      value = other;
      index = at;
    }
  }
};

template <class T, bool ADAPTIVE, bool WARP>
__global__ void __launch_bounds__(256) max_pool_forward(
    T* __restrict__ y, int* __restrict__ index, const T* __restrict__ x, long long count, const PoolShape shape) {
  using A = Accumulator<T>;
  constexpr int GROUP = WARP ? 32 : 1;
  for_each_by_group<GROUP>(count, [&](long long e, int member) {
    const PoolShape::Place place = shape.place(e);
    const T* from = x + place.plane * shape.pixels();
    Best<A> best;
    shape.for_each_element<ADAPTIVE, GROUP>(place, member, [&](int at) { best.add(from[at], at); });
    if (WARP) {
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) {
        const A value = __shfl_xor_sync(0xffffffffu, best.value, distance);
        best.add(value, __shfl_xor_sync(0xffffffffu, best.index, distance));
      }
    }
    if (member == 0) {
      y[e] = T(best.value);
      if (index) index[e] = best.index;
    }
  });
}

template <class T, bool ADAPTIVE>
__global__ void __launch_bounds__(256) max_pool_backward(
    T* __restrict__ dx, const int* __restrict__ index, const T* __restrict__ dy, long long count, const PoolShape shape) {
  using A = Accumulator<T>;
  for_each_by_group<1>(count, [&](long long e, int) {
    const PoolShape::Place place = shape.place(e);
    const long long start = place.plane * shape.windows();
    A sum = 0;
    shape.for_each_window<ADAPTIVE>(place, [&](int window, int, int, int) {
      if (index[start + window] == place.within) sum += A(dy[start + window]);
    });
    dx[e] = T(sum);
  });
}

template <class T, bool WARP>
__global__ void __launch_bounds__(256) avg_pool_forward(
    T* __restrict__ y, const T* __restrict__ x, long long count, const PoolShape shape) {
  using A = Accumulator<T>;
  constexpr int GROUP = WARP ? 32 : 1;
  for_each_by_group<GROUP>(count, [&](long long e, int member) {
    const PoolShape::Place place = shape.place(e);
    const T* from = x + place.plane * shape.pixels();
    A sum = 0;
    shape.for_each_element<false, GROUP>(place, member, [&](int at) { sum += A(from[at]); });
    if (WARP) sum = warp_reduce<Sum>(sum);
    if (member == 0) y[e] = T(shape.divided(sum, place.at[0], place.at[1], place.at[2]));
  });
}

template <class T>
__global__ void __launch_bounds__(256) avg_pool_backward(
    T* __restrict__ dx, const T* __restrict__ dy, long long count, const PoolShape shape) {
  using A = Accumulator<T>;
  for_each_by_group<1>(count, [&](long long e, int) {
    const PoolShape::Place place = shape.place(e);
    const T* from = dy + place.plane * shape.windows();
    A sum = 0;
    shape.for_each_window<false>(
        place, [&](int window, int i, int j, int k) { sum += shape.divided(A(from[window]), i, j, k); });
    dx[e] = T(sum);
  });
}
