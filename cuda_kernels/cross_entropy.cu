// Softmax cross-entropy: loss, gradient and the reduction's factor in one launch.
//
//   cross_entropy_labels   logits (rows, classes), labels (rows,): log sum exp(row) - row[label], dx = softmax - onehot
//   cross_entropy_soft     targets (rows, classes): -sum target log softmax, dx = softmax sum(target) - target
//
// value is one number for Reduction mean and sum, one number per row for none.  factor is 1 / (rows that are not ignored),
// for mean; if there are none, value is NaN and factor 0.  dx is the gradient of each row's loss, without the factor.
//
// Versions: 1. one warp per row up to 1024 classes, one block per row above; a row is read once for its maximum and sum
// together, and once for the gradient (this one).  Next: rows kept in registers.

#include "common/faults.cuh"
#include "common/softmax_loss.cuh"

// Computes value and factor from each thread's partial loss and partial number of rows that are not ignored.
template <class T, Reduction REDUCTION, class A>
__device__ __forceinline__ void finish(T* value, A* factor, A* partials, unsigned int* ticket, A loss, A counted) {
  loss = block_reduce<Sum>(loss);
  counted = block_reduce<Sum>(counted);
  if (threadIdx.x == 0) {
    partials[blockIdx.x] = loss;
    partials[MAX_BLOCKS + blockIdx.x] = counted;
  }
  if (last_block(ticket)) {
    const A total = sum_of_partials(partials), rows = sum_of_partials(partials + MAX_BLOCKS);
    if (threadIdx.x == 0) store_reduced<T, REDUCTION>(value, factor, total, rows);
  }
}

template <class T, Reduction REDUCTION, bool WARP_A_ROW>
__global__ void __launch_bounds__(256) cross_entropy_labels(
    T* value, T* dx, Accumulator<T>* factor, Accumulator<T>* partials, unsigned int* ticket, long long* fault, const T* logits,
    const long long* labels, int rows, int classes, long long ignore_index, int code) {
  using A = Accumulator<T>;
  using Group = RowGroup<WARP_A_ROW>;
  A loss = 0, counted = 0;
  int first_bad = -1;  // row of the group
  for (long long row = Group::first_row(); row < rows; row += Group::rows_at_once()) {
    const T* from = logits + row * classes;
    T* to = dx + row * classes;
    const long long label = labels[row];
    const bool counts = label != ignore_index, in_range = label >= 0 && label < classes;
    const A of_row = labelled_row<Group>(from, to, classes, label, counts, in_range);
    if (counts && !in_range && first_bad < 0) first_bad = row;
    if (Group::member() == 0) {
      if (REDUCTION == Reduction::none) value[row] = T(of_row);
      loss += of_row;
      counted += counts ? A(1) : A(0);
    }
  }
  if (REDUCTION != Reduction::none) finish<T, REDUCTION>(value, factor, partials, ticket, loss, counted);
  if (first_bad >= 0 && Group::member() < 32)
    report_first(
        fault, first_bad, BadLabel{labels, ignore_index, classes}, code, labels[first_bad], classes, ignore_index);
}

template <class T, Reduction REDUCTION, bool WARP_A_ROW>
__global__ void __launch_bounds__(256) cross_entropy_soft(
    T* value, T* dx, Accumulator<T>* factor, Accumulator<T>* partials, unsigned int* ticket, const T* logits, const T* targets,
    int rows, int classes) {
  using A = Accumulator<T>;
  using Group = RowGroup<WARP_A_ROW>;
  A loss = 0, counted = 0;
  for (long long row = Group::first_row(); row < rows; row += Group::rows_at_once()) {
    const T *from = logits + row * classes, *target = targets + row * classes;
    T* to = dx + row * classes;
    RunningSoftmax<A> softmax;
    A mass = 0, product = 0;
    for (int c = Group::member(); c < classes; c += Group::size()) {
      softmax.add(from[c]);
      mass += target[c];
      product += target[c] * from[c];
    }
    softmax.template share<Group>();
    mass = Group::template reduce<Sum>(mass);
    product = Group::template reduce<Sum>(product);
    const A share = mass / softmax.sum;
    for (int c = Group::member(); c < classes; c += Group::size())
      to[c] = T(exp(from[c] - softmax.greatest) * share - target[c]);
    if (Group::member() == 0) {
      const A of_row = (softmax.greatest + log(softmax.sum)) * mass - product;
      if (REDUCTION == Reduction::none) value[row] = T(of_row);
      loss += of_row;
      counted += A(1);
    }
  }
  if (REDUCTION != Reduction::none) finish<T, REDUCTION>(value, factor, partials, ticket, loss, counted);
}
