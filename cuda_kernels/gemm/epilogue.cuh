// What kernels do with the sums of a product (gemm/product.cuh), a pack of four along a row at a time.  The functors say what
// is computed; a target, `Rows` here or `Images` of gemm/window.cuh, says where the packs of an array lie:
//
//   target.place(row, column)                  the place of a pack
//   target.load(source, place, valid)          a pack of an array; elements from `valid` on are not accessed
//   target.store(destination, place, pack, valid)
//   target.bias(b, row, column, valid)         the biases of a pack's elements

#include "common/activations.cuh"
#include "common/pack.cuh"

// A matrix with contiguous rows, and biases by column.
struct Rows {
  int columns;

  __device__ __forceinline__ long long place(int row, int column) const {
    return static_cast<long long>(row) * columns + column;
  }

  template <class T>
  __device__ __forceinline__ Pack<Accumulator<T>, 4> load(const T* source, long long at, int valid) const {
    return load_pack<4>(source + at, valid, access_width(columns, source));
  }

  template <class T>
  __device__ __forceinline__ void store(T* destination, long long at, const Pack<Accumulator<T>, 4>& pack, int valid) const {
    store_pack(destination + at, pack, valid, access_width(columns, destination));
  }

  template <class T>
  __device__ __forceinline__ Pack<Accumulator<T>, 4> bias(const T* b, int, int column, int valid) const {
    return load_pack<4>(b + column, valid, access_width(0, b));
  }
};

// y = act(sums + b), and the pre-activation z if it is not null.  b may be null.
template <class T, class Act, class Target>
struct Activated {
  using A = Accumulator<T>;
  const Target target;
  T *const y, *const z;
  const T* const b;
  const double alpha;

  __device__ __forceinline__ void operator()(int row, int column, Pack<A, 4>& value, int valid) const {
    const auto place = target.place(row, column);
    if (b) {
      const Pack<A, 4> bias = target.bias(b, row, column, valid);
#pragma unroll
      for (int e = 0; e < 4; e++) value.v[e] += bias.v[e];
    }
    if (z) target.store(z, place, value, valid);
#pragma unroll
    for (int e = 0; e < 4; e++) value.v[e] = Act::forward(value.v[e], A(alpha));
    target.store(y, place, value, valid);
  }
};

// dx = sums act'(saved): the derivative of the activation that made the input of the forward pass.
template <class T, class Act, class Target>
struct Derived {
  using A = Accumulator<T>;
  const Target target;
  T* const dx;
  const T* const saved;
  const double alpha;

  __device__ __forceinline__ void operator()(int row, int column, Pack<A, 4>& value, int valid) const {
    const auto place = target.place(row, column);
    if (Act::reads_saved) {
      const Pack<A, 4> of_forward = target.load(saved, place, valid);
#pragma unroll
      for (int e = 0; e < 4; e++) value.v[e] *= Act::derivative(of_forward.v[e], A(alpha));
    }
    target.store(dx, place, value, valid);
  }
};

// out = scale sums: the mean over the batch, or the sums themselves if scale is null.  `out` is a reference, since a kernel may
// keep it in shared memory.
template <class T>
struct Scaled {
  using A = Accumulator<T>;
  const Rows rows;
  T* const& out;
  const A* const scale;

  __device__ __forceinline__ A factor() const { return scale ? scale[0] : A(1); }

  __device__ __forceinline__ void operator()(int row, int column, Pack<A, 4>& value, int valid) const {
    const A by = factor();
#pragma unroll
    for (int e = 0; e < 4; e++) value.v[e] *= by;
    rows.store(out, rows.place(row, column), value, valid);
  }
};
