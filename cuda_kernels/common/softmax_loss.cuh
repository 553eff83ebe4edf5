// Softmax cross-entropy of rows of logits, shared by the kernels that compute it.

#include "half.cuh"
#include "loss.cuh"
#include "rows.cuh"

// Computes the maximum and the sum of exp(value - maximum) in one pass.  `greatest` starts at the lowest finite number, not
// at -infinity: a masked logit of -infinity then adds 0, while -infinity - (-infinity) would be NaN.
template <class T>
struct RunningSoftmax {
  T greatest = LOWEST<T>, sum = T(0);

  __device__ __forceinline__ void add(T x) {
    if (x > greatest) {
      sum = sum * exp(greatest - x) + (T(1) + (x - x));  // x - x is NaN if x is +infinity, which makes the row NaN
      greatest = x;
    } else {
      sum += exp(x - greatest);
    }
  }

  template <class Group>
  __device__ __forceinline__ void share() {
    const T mine = greatest;
    greatest = Group::template reduce<Maximum>(mine);
    sum = Group::template reduce<Sum>(sum * exp(mine - greatest));
  }
};

// Returns the loss of a row of logits with a label, and writes its gradient: softmax - onehot.  Both are 0 if it does not
// count, and NaN if it does and its label is not in range.
template <class Group, class T>
__device__ __forceinline__ Accumulator<T> labelled_row(
    const T* from, T* to, int classes, long long label, bool counts, bool in_range) {
  using A = Accumulator<T>;
  if (!counts || !in_range) {
    const A nothing = counts ? not_a_number<A>() : A(0);
    for (int c = Group::member(); c < classes; c += Group::size()) to[c] = T(nothing);
    return nothing;
  }
  RunningSoftmax<A> softmax;
  for (int c = Group::member(); c < classes; c += Group::size()) softmax.add(from[c]);
  softmax.template share<Group>();
  const A share = A(1) / softmax.sum;
  for (int c = Group::member(); c < classes; c += Group::size())
    to[c] = T(exp(from[c] - softmax.greatest) * share - (c == label ? A(1) : A(0)));
  return log(softmax.sum) + (softmax.greatest - from[label]);
}

// Whether the label of a row counts and is out of range; for report_first of faults.cuh.
struct BadLabel {
  const long long* labels;
  long long ignore_index;
  int classes;
  __device__ __forceinline__ bool operator()(long long row) const {
    return labels[row] != ignore_index && (labels[row] < 0 || labels[row] >= classes);
  }
};

// Stores the mean or the sum of losses, given their sum and the number of rows that count.
template <class T, Reduction REDUCTION, class A>
__device__ __forceinline__ void store_reduced(T* value, A* factor, A total, A rows) {
  if (REDUCTION == Reduction::mean) {
    factor[0] = rows > A(0) ? A(1) / rows : A(0);
    total = rows > A(0) ? total * factor[0] : not_a_number<A>();
  }
  value[0] = T(total);
}
