// Many training steps of small perceptrons in one launch: a block for each net, which keeps the net in shared memory.
//
//   small_net_steps   for each step: gather a batch, forward, loss, backward, clip, update; a net has
//                     y = dropout(act(x w^T + b)) for each layer, the last one without activation and dropout
//
// A layer's parameters are a matrix (outputs, inputs + 1) in shared memory, whose last column is the bias; inputs and results
// have a last column of ones.  So one product computes sums and biases, and another one the gradients of both.
//
// Every sum has a fixed order, which the shapes determine: the same inputs give the same bits, in any number of nets and in any
// division of the steps into launches.
//
// Phases between barriers:
//   forward, a layer          y = dropout(act(x w^T))
//   loss                      four lanes a row
//   gradient, input; a layer  dw = factor dz^T x; then dz of the layer before, in place of what act' reads
//   update                    while the next batch is copied, and the flags of its dropout are drawn
//
// Versions: 1. plain arithmetic, one block a net (this one).  Next: a cluster a net, whose blocks share the rows of a batch.

#include "common/elementwise_losses.cuh"
#include "common/faults.cuh"
#include "common/philox.cuh"
#include "common/primitives.cuh"
#include "common/reduce.cuh"
#include "common/softmax_loss.cuh"
#include "common/tensor_table.cuh"
#include "common/update_rules.cuh"

enum { MOST_LAYERS = 8, MOST_FACTORS = 10, THREADS = 256, AHEAD = 8 };

// Places are in elements of shared memory, at multiples of four; entries are those of the table.
struct NetLayer {
  unsigned long long kept;  // of the 2^32 numbers, those that keep an element in dropout
  double scale;             // of a kept element
  int inputs, outputs, weight, bias;        // bias: -1 without one
  int parameters, gradients, states;        // (outputs, stride_of(inputs)); the states one behind the other
  int result, saved, slope;                 // (rows, stride_of(outputs)): y, what act' reads, dz
  int flags;                                // of dropout, a bit for each element of y; -1 without dropout
  int first_block;                          // of random numbers: those before in a step
  int lanes_forward, lanes_input, lanes_gradient;  // see product()
};

// Packed by gpunet.ops.small_net.
struct NetShape {
  NetLayer of[MOST_LAYERS];
  int layers, rows, entries, blocks;                  // rows of a batch; blocks of random numbers in a step
  int inputs, targets, losses, numbers, factors;      // places; of the targets, or labels, of a batch
  int size;                                           // elements of shared memory
};

enum { PARAMS, FIRST_STATE, STEPS = FIRST_STATE + 3, GRADS, LISTS };

// Tags of losses; the others are those of elementwise_losses.cuh.
struct SoftmaxOfLabels {};
template <class Loss>
constexpr bool HAS_LABELS = false;
template <>
constexpr bool HAS_LABELS<SoftmaxOfLabels> = true;

// The optimizers of gpunet/optim/stacked.py, with numbers of their own for each net.
template <bool MOMENTUM, bool NESTEROV>
struct StackedSgd : Sgd<MOMENTUM, NESTEROV> {
  using Base = Sgd<MOMENTUM, NESTEROV>;
  static __device__ __forceinline__ void prepare(double* f, const double*, const double* h) {  // h: lr, momentum, weight decay
    f[Base::RATE] = h[0], f[Base::DECAY] = h[2], f[Base::AHEAD] = f[Base::KEEP] = h[1], f[Base::SHARE] = 1.0;
  }
};
template <bool DECOUPLED>
struct StackedAdam : Adam<false, DECOUPLED> {
  using Base = Adam<false, DECOUPLED>;
  static __device__ __forceinline__ void prepare(double* f, const double* powers, const double* h) {
    Decay::prepare(f, h[0], h[4], DECOUPLED);
    Averages::prepare(f, h);
    f[Base::SIZE] = h[0] / (1.0 - powers[0] * h[1]);
    f[Base::CORRECTION] = 1.0 / sqrt(1.0 - powers[1] * h[2]);
    f[Base::EPS] = h[3];
  }
};

// The counters of a parameter, and what they are `steps` steps later; all parameters of a net share those of StackedAdam.
template <class Rule>
struct CountersOf {
  enum { COUNT = 1, ARE_SHARED = 0 };
  static __device__ __forceinline__ void pass(double* counters, int steps, const double*) { counters[0] += steps; }
};
template <bool MOMENTUM, bool NESTEROV>
struct CountersOf<StackedSgd<MOMENTUM, NESTEROV>> {
  enum { COUNT = 0, ARE_SHARED = 1 };
  static __device__ __forceinline__ void pass(double*, int, const double*) {}
};
template <bool DECOUPLED>
struct CountersOf<StackedAdam<DECOUPLED>> {  // the powers of the betas
  enum { COUNT = 2, ARE_SHARED = 1 };
  static __device__ __forceinline__ void pass(double* counters, int steps, const double* h) {
    counters[0] *= pow(h[1], static_cast<double>(steps));
    counters[1] *= pow(h[2], static_cast<double>(steps));
  }
};

// ---- shared memory ---------------------------------------------------------------------------------------------------

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

// Starts copies of rows of `columns` elements: those that `order` names from `first` on, or if it is null those from `first` on.
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

// ---- products --------------------------------------------------------------------------------------------------------

// Four steps of depth of LINES lines of an operand in shared memory.  ALONG_DEPTH: a line is a row, of which a pack is read at
// once, and the lines of a thread begin at `places`.  Else a row has one depth, and a thread's lines are neighbours in it.
template <class T, int LINES, bool ALONG_DEPTH>
struct Lines {
  T at[4][LINES];

  // Of depth from `valid` on, the elements are zero, or along depth whatever the row has there.
  __device__ __forceinline__ void load(const T* from, const int (&places)[LINES], int stride, int depth, int valid) {
    if constexpr (ALONG_DEPTH) {
#pragma unroll
      for (int line = 0; line < LINES; line++) {
        const Pack<T, 4> pack = load_pack<4>(from + places[line] + depth, 4, 4);
#pragma unroll
        for (int k = 0; k < 4; k++) at[k][line] = pack.v[k];
      }
    } else {
      constexpr int WIDTH = LINES < 4 ? LINES : 4;
#pragma unroll
      for (int k = 0; k < 4; k++)
#pragma unroll
        for (int line = 0; line < LINES; line += WIDTH) {
          Pack<T, WIDTH> pack = {};
          if (k < valid) pack = load_pack<WIDTH>(from + places[0] + (depth + k) * stride + line, WIDTH, WIDTH);
#pragma unroll
          for (int e = 0; e < WIDTH; e++) at[k][line + e] = pack.v[e];
        }
    }
  }
};

// Adds the products of four steps of depth.
template <class T, int ROWS, bool A_ALONG, bool B_ALONG>
__device__ __forceinline__ void accumulate(
    T (&sums)[ROWS][4], const T* a, const int (&rows)[ROWS], int a_stride, const T* b, const int (&columns)[4], int b_stride,
    int depth, int valid) {
  Lines<T, ROWS, A_ALONG> of_a;
  Lines<T, 4, B_ALONG> of_b;
  of_a.load(a, rows, a_stride, depth, valid);
  of_b.load(b, columns, b_stride, depth, valid);
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) sums[i][j] += of_a.at[k][i] * of_b.at[k][j];
}

// c = a b for c (rows, columns).  Calls store(row, column, pack of four columns) or, if b lies along depth, store(row, column,
// sum).  Each thread computes tiles of ROWS x 4 elements: neighbouring ones of operands across depth, and else those in the same
// place of equal parts, so that lanes read neighbouring rows.  `lanes` neighbouring lanes share the depth of a tile.
template <class T, int ROWS, bool A_ALONG, bool B_ALONG, class Store>
__device__ __forceinline__ void product_in_tiles(
    const T* a, int a_stride, const T* b, int b_stride, int num_rows, int num_columns, int depth, int lanes, Store store) {
  const int down = (num_rows + ROWS - 1) / ROWS, across = (num_columns + 3) / 4;
  const int slice = threadIdx.x % lanes;
#pragma unroll 1
  for (int tile = threadIdx.x / lanes; tile < down * across; tile += THREADS / lanes) {
    const int tile_row = tile / across, tile_column = tile % across;
    int rows[ROWS], columns[4];  // the first element of a line
#pragma unroll
    for (int i = 0; i < ROWS; i++)
      rows[i] = A_ALONG ? min(tile_row + i * down, num_rows - 1) * a_stride : tile_row * ROWS;
#pragma unroll
    for (int j = 0; j < 4; j++)
      columns[j] = B_ALONG ? min(tile_column + j * across, num_columns - 1) * b_stride : tile_column * 4;
    T sums[ROWS][4] = {};
#pragma unroll 1
    for (int k = 4 * slice; k < depth; k += 4 * lanes)
      accumulate<T, ROWS, A_ALONG, B_ALONG>(sums, a, rows, a_stride, b, columns, b_stride, k, depth - k);
#pragma unroll 1
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
      const unsigned int mask = (0xffffffffu >> (32 - lanes)) << (threadIdx.x % 32 - slice);
#pragma unroll
      for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] += __shfl_xor_sync(mask, sums[i][j], distance);
    }
    if (slice > 0) continue;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      const int row = A_ALONG ? tile_row + i * down : tile_row * ROWS + i;
      if (row >= num_rows) break;
      if constexpr (B_ALONG) {
#pragma unroll
        for (int j = 0; j < 4; j++)
          if (tile_column + j * across < num_columns) store(row, tile_column + j * across, sums[i][j]);
      } else {
        Pack<T, 4> four;
#pragma unroll
        for (int j = 0; j < 4; j++) four.v[j] = sums[i][j];
        store(row, tile_column * 4, four);
      }
    }
  }
}

// The same in tiles of 8 x 4 if `lanes` is 0, else in tiles of 2 x 4.
template <class T, bool A_ALONG, bool B_ALONG, class Store>
__device__ __forceinline__ void product(
    const T* a, int a_stride, const T* b, int b_stride, int num_rows, int num_columns, int depth, int lanes, Store store) {
  if (lanes == 0)
    product_in_tiles<T, 8, A_ALONG, B_ALONG>(a, a_stride, b, b_stride, num_rows, num_columns, depth, 1, store);
  else
    product_in_tiles<T, 2, A_ALONG, B_ALONG>(a, a_stride, b, b_stride, num_rows, num_columns, depth, lanes, store);
}

// ---- phases ----------------------------------------------------------------------------------------------------------

// Whether dropout keeps an element.
__device__ __forceinline__ bool is_kept(const unsigned char* flags, int element) { return flags[element / 8] >> element % 8 & 1; }

// Draws the flags of dropout of a layer in a step.  state: key and counter of its stream before the first step.
template <class T>
__device__ __forceinline__ void draw_flags(const NetShape& net, const NetLayer& layer, const uint64* state, int step) {
  unsigned char* const flags = reinterpret_cast<unsigned char*>(net_memory<T>() + layer.flags);
  const uint64 here[2] = {state[0], state[1] + static_cast<uint64>(step) * net.blocks + layer.first_block};
#pragma unroll 1
  for (int block = threadIdx.x; block < (net.rows * layer.outputs + 7) / 8; block += THREADS) {
    const Pack<uint64, 4> words = philox(here, block);
    unsigned int of_block = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const uint64 number = i % 2 == 0 ? words.v[i / 2] & 0xFFFFFFFF : words.v[i / 2] >> 32;
      of_block |= static_cast<unsigned int>(number < layer.kept) << i;
    }
    flags[block] = of_block;
  }
}

// y = act(x w^T) of a layer, times dropout; the last layer has neither.
template <class T, class Act, bool SAVES_Z>
__device__ __forceinline__ void forward(const NetShape& net, int number, T alpha) {
  T* const memory = net_memory<T>();
  const NetLayer& layer = net.of[number];
  const int in_stride = stride_of(layer.inputs), out_stride = stride_of(layer.outputs), outputs = layer.outputs;
  const bool is_last = number == net.layers - 1, drops = layer.flags >= 0;
  const unsigned char* const flags = reinterpret_cast<const unsigned char*>(memory + layer.flags);
  const T scale = T(layer.scale);
  product<T, true, true>(
      memory + (number == 0 ? net.inputs : net.of[number - 1].result), in_stride, memory + layer.parameters, in_stride, net.rows,
      outputs, (layer.inputs + 4) / 4 * 4, layer.lanes_forward, [&](int row, int column, T sum) {
        const int at = row * out_stride + column;
        if (is_last) {
          memory[layer.result + at] = sum;
          return;
        }
        if (SAVES_Z) memory[layer.saved + at] = sum;
        T y = Act::forward(sum, alpha);
        if (drops) y *= is_kept(flags, row * outputs + column) ? scale : T(0);
        memory[layer.result + at] = y;
      });
}

// dw = factor dz^T x, for weights and biases.  The bias is a column of the last tiles, or else has sums of its own, because tiles
// with one column in use would take a second round.
template <class T>
__device__ __forceinline__ void gradient(const NetShape& net, int number) {
  T* const memory = net_memory<T>();
  const NetLayer& layer = net.of[number];
  const int stride = stride_of(layer.inputs), out_stride = stride_of(layer.outputs);
  const T factor = memory[net.numbers];
  product<T, false, false>(
      memory + layer.slope, out_stride, memory + (number == 0 ? net.inputs : net.of[number - 1].result), stride, layer.outputs,
      layer.inputs, net.rows, layer.lanes_gradient, [&](int row, int column, Pack<T, 4> sums) {
#pragma unroll
        for (int e = 0; e < 4; e++) sums.v[e] *= factor;
        store_pack(memory + layer.gradients + row * stride + column, sums, 4, 4);
      });
  if (layer.inputs % 4 > 0) return;
#pragma unroll 1
  for (int output = threadIdx.x; output < layer.outputs; output += THREADS) {
    T sum = T(0);
#pragma unroll 4
    for (int row = 0; row < net.rows; row++) sum += memory[layer.slope + row * out_stride + output];
    memory[layer.gradients + output * stride + layer.inputs] = sum * factor;
  }
}

// dz of the layer before this one: (dz w) act' times dropout.  Not of its column of ones.
template <class T, class Act, bool SAVES_Z>
__device__ __forceinline__ void backward(const NetShape& net, int number, T alpha) {
  T* const memory = net_memory<T>();
  const NetLayer &layer = net.of[number], &before = net.of[number - 1];
  const int stride = stride_of(layer.inputs), features = layer.inputs;
  const bool drops = before.flags >= 0;
  const unsigned char* const flags = reinterpret_cast<const unsigned char*>(memory + before.flags);
  const T scale = T(before.scale), unscale = before.scale > 0.0 ? T(1.0 / before.scale) : T(0);
  product<T, true, false>(
      memory + layer.slope, stride_of(layer.outputs), memory + layer.parameters, stride, net.rows, features, layer.outputs,
      layer.lanes_input, [&](int row, int column, Pack<T, 4> sums) {
        const int at = row * stride + column;
        Pack<T, 4> saved = load_pack<4>(memory + before.saved + at, 4, 4);
#pragma unroll
        for (int e = 0; e < 4; e++) {
          if (drops) {
            const bool keeps = column + e < features && is_kept(flags, row * features + column + e);
            sums.v[e] *= keeps ? scale : T(0);
            if (!SAVES_Z) saved.v[e] *= unscale;
          }
          sums.v[e] *= Act::derivative(saved.v[e], alpha);
        }
        store_pack(memory + before.slope + at, sums, features - column, 4);
      });
}

// Four neighbouring lanes, which share a row.
struct Quad {
  static __device__ __forceinline__ int size() { return 4; }
  static __device__ __forceinline__ int member() { return threadIdx.x % 4; }
  template <class Operation, class T>
  static __device__ __forceinline__ T reduce(T value) {
    const unsigned int mask = 0xFu << threadIdx.x % 32 / 4 * 4;
    value = Operation::combine(value, __shfl_xor_sync(mask, value, 2));
    return Operation::combine(value, __shfl_xor_sync(mask, value, 1));
  }
};

// The losses of the rows, and their derivatives by the results of the last layer.
template <class T, class Loss>
__device__ __forceinline__ void loss_of_rows(const NetShape& net, long long ignore_index, T delta) {
  T* const memory = net_memory<T>();
  const NetLayer& layer = net.of[net.layers - 1];
  const int stride = stride_of(layer.outputs);
#pragma unroll 1
  for (int row = threadIdx.x / 4; row < net.rows; row += THREADS / 4) {
    const T* const result = memory + layer.result + row * stride;
    T *const slope = memory + layer.slope + row * stride, loss = T(0);
    if constexpr (HAS_LABELS<Loss>) {
      const long long label = reinterpret_cast<const long long*>(memory + net.targets)[row];
      loss = labelled_row<Quad>(
          result, slope, layer.outputs, label, label != ignore_index, label >= 0 && label < layer.outputs);
    } else {
      const T* const target = memory + net.targets + row * stride;
      for (int column = Quad::member(); column < layer.outputs; column += 4)
        loss += Loss::loss(result[column], target[column], delta, slope[column]);
      loss = Quad::reduce<Sum>(loss);
    }
    if (Quad::member() == 0) memory[net.losses + row] = loss;
  }
}

struct BadLabelOfBatch {
  const long long* labels;
  long long ignore_index;
  int classes;
  __device__ __forceinline__ bool operator()(long long row) const {
    return labels[row] != ignore_index && !(labels[row] >= 0 && labels[row] < classes);
  }
};

// Called by one warp: the factor of the gradients in a step, to numbers[0], and the rows that count, to numbers[1].
template <class T, class Loss>
__device__ __forceinline__ void find_factor(const NetShape& net, long long ignore_index, bool is_mean) {
  T* const memory = net_memory<T>();
  T counted = T(0);
  if constexpr (HAS_LABELS<Loss>) {
    const long long* const labels = reinterpret_cast<const long long*>(memory + net.targets);
    for (int row = threadIdx.x % 32; row < net.rows; row += 32) counted += labels[row] != ignore_index ? T(1) : T(0);
    counted = warp_reduce<Sum>(counted);
  } else {
    counted = T(net.rows) * T(net.of[net.layers - 1].outputs);
  }
  if (threadIdx.x % 32 > 0) return;
  memory[net.numbers] = !is_mean ? T(1) : counted > T(0) ? T(1) / counted : T(0);
  memory[net.numbers + 1] = counted;
}

// Called by one warp: stores the loss of a step, and reports the first label out of range.
template <class T, class Loss>
__device__ __forceinline__ void store_loss(
    T* value, long long* fault, const NetShape& net, long long ignore_index, int code, bool is_mean) {
  T* const memory = net_memory<T>();
  const int lane = threadIdx.x % 32;
  T total = T(0);
  for (int row = lane; row < net.rows; row += 32) total += memory[net.losses + row];
  total = warp_reduce<Sum>(total);
  if (is_mean) total = memory[net.numbers + 1] > T(0) ? total * memory[net.numbers] : not_a_number<T>();
  if (lane == 0) *value = total;
  if constexpr (HAS_LABELS<Loss>) {
    const long long* const labels = reinterpret_cast<const long long*>(memory + net.targets);
    const int classes = net.of[net.layers - 1].outputs;
    const BadLabelOfBatch is_bad{labels, ignore_index, classes};
    for (int first = 0; first < net.rows; first += 32) {
      const unsigned int found = __ballot_sync(0xffffffffu, first + lane < net.rows && is_bad(first + lane));
      if (!found) continue;
      const int row = first + __ffs(found) - 1;
      report_first(fault, row, is_bad, code, labels[row], classes, ignore_index);
      return;
    }
  }
}

// ---- parameters ------------------------------------------------------------------------------------------------------

// Calls body(row, column, valid, is_bias) for the packs of a layer's parameters that this thread updates.
template <class Body>
__device__ __forceinline__ void for_each_weight(const NetLayer& layer, Body body) {
  const int across = (layer.inputs + 3) / 4;
#pragma unroll 1
  for (int index = threadIdx.x; index < layer.outputs * across; index += THREADS) {
    const int row = index / across, column = index % across * 4;
    body(row, column, layer.inputs - column);
  }
}
template <class Body>
__device__ __forceinline__ void for_each_bias(const NetLayer& layer, Body body) {
  if (layer.bias >= 0)
#pragma unroll 1
    for (int row = threadIdx.x; row < layer.outputs; row += THREADS) body(row, layer.inputs, 1);
}

template <bool BACK_>
struct Direction {
  static constexpr bool BACK = BACK_;
};

// Copies a layer's matrix from its weight and bias in global memory, or back.
template <bool BACK, class T>
__device__ __forceinline__ void copy_parameters(T* matrix, T* weight, T* bias, const NetLayer& layer) {
  const int inputs = layer.inputs, stride = stride_of(inputs);
  auto copy = [](T& here, T& there) { BACK ? there = here : here = there; };
#pragma unroll 1
  for (int index = threadIdx.x; index < layer.outputs * inputs; index += THREADS)
    copy(matrix[index / inputs * stride + index % inputs], weight[index]);
  for_each_bias(layer, [&](int row, int column, int) { copy(matrix[row * stride + column], bias[row]); });
}

// The square of the norm of all gradients, in every thread.
template <class T>
__device__ __forceinline__ T square_of_norm(const NetShape& net) {
  T sum = T(0);
#pragma unroll 1
  for (int number = 0; number < net.layers; number++) {
    const NetLayer& layer = net.of[number];
    const T* const gradients = net_memory<T>() + layer.gradients;
    auto add = [&](int row, int column, int valid) {
      const Pack<T, 4> g = load_pack<4>(gradients + row * stride_of(layer.inputs) + column, valid, 4);
#pragma unroll
      for (int e = 0; e < 4; e++) sum += g.v[e] * g.v[e];
    };
    for_each_weight(layer, add);
    for_each_bias(layer, add);
  }
  return block_reduce<Sum>(sum);
}

// The net of a block in the tensors of the table, which are those of all nets one behind the other.
template <int CAPACITY>
struct TensorsOfNet {
  const TensorTable<LISTS, CAPACITY>& table;

  template <class T>
  __device__ __forceinline__ T* pointer(int list, int entry) const {
    return table.template pointer<T>(list, entry) + table.counts[entry] / gridDim.x * blockIdx.x;
  }
  // Returns the counters after some steps.
  template <class Rule>
  __device__ __forceinline__ Pack<double, 2> counters(int entry, int steps, const double* hyperparameters) const {
    constexpr int COUNT = CountersOf<Rule>::COUNT;
    Pack<double, 2> found = {};
#pragma unroll
    for (int c = 0; c < COUNT; c++) found.v[c] = table.template pointer<double>(STEPS, entry)[blockIdx.x * COUNT + c];
    CountersOf<Rule>::pass(found.v, steps, hyperparameters);
    return found;
  }
};

// The rule's numbers of steps from `step` on, for each entry: (AHEAD, entries, FACTORS).
template <class T, class Rule, class Tensors>
__device__ __forceinline__ void prepare_updates(
    const NetShape& net, const Tensors& tensors, const double* hyperparameters, int step) {
#pragma unroll 1
  for (int index = threadIdx.x; index < AHEAD * net.entries; index += THREADS) {
    const Pack<double, 2> counters =
        tensors.template counters<Rule>(index % net.entries, step + index / net.entries, hyperparameters);
    double factors[Rule::FACTORS];
    Rule::prepare(factors, counters.v, hyperparameters);
#pragma unroll
    for (int f = 0; f < Rule::FACTORS; f++) net_memory<T>()[net.factors + index * Rule::FACTORS + f] = T(factors[f]);
  }
}

// Multiplies the gradients by `clip`, unless it is 1, and updates the parameters and states of a layer.
template <class T, class Rule, bool HELD, class Tensors>
__device__ __forceinline__ void update_layer(
    const NetShape& net, const NetLayer& layer, const Tensors& tensors, const T* factors_of_step, T clip, int maximize) {
  constexpr int STATES = Rule::STATES;
  T* const memory = net_memory<T>();
  const int stride = stride_of(layer.inputs), size = layer.outputs * stride;
  auto update = [&](int row, int column, int valid, int entry, int stride_of_states, const T (&factors)[Rule::FACTORS]) {
    T *const gradients = memory + layer.gradients + row * stride, *states[STATES];
    int width = 4;
#pragma unroll
    for (int k = 0; k < STATES; k++) {
      if (!Rule::uses(k)) {
        states[k] = nullptr;
      } else if (HELD) {
        states[k] = memory + layer.states + k * size + row * stride;
      } else {
        states[k] = tensors.template pointer<T>(FIRST_STATE + k, entry) + row * stride_of_states - (entry == layer.bias ? column : 0);
        width = min(width, access_width(stride_of_states, states[k]));
      }
    }
    if (clip != T(1)) {
      Pack<T, 4> g = load_pack<4>(gradients + column, valid, 4);
#pragma unroll
      for (int e = 0; e < 4; e++) g.v[e] *= clip;
      store_pack(gradients + column, g, valid, 4);
    }
    update_pack<Rule>(memory + layer.parameters + row * stride, states, gradients, factors, maximize, column, valid, width);
  };
  T factors[Rule::FACTORS];
#pragma unroll
  for (int f = 0; f < Rule::FACTORS; f++) factors[f] = factors_of_step[layer.weight * Rule::FACTORS + f];
  for_each_weight(layer, [&](int row, int column, int valid) { update(row, column, valid, layer.weight, layer.inputs, factors); });
  if (layer.bias < 0) return;
#pragma unroll
  for (int f = 0; f < Rule::FACTORS; f++) factors[f] = factors_of_step[layer.bias * Rule::FACTORS + f];
  for_each_bias(layer, [&](int row, int column, int valid) { update(row, column, valid, layer.bias, 1, factors); });
}

// ---- the kernel ------------------------------------------------------------------------------------------------------

// A net with active[block] == 0 is stopped: its losses are NaN, its gradients 0, and all else is left as it is.
//
// SAVES_Z: act' reads z instead of y.  HELD: the states of the optimizer are in shared memory, too.  Without `max_norm`, 0,
// gradients are not clipped.
template <class T, class Act, bool SAVES_Z, class Loss, class Rule, bool HELD, int CAPACITY>
__global__ void __launch_bounds__(THREADS, 1) small_net_steps(
    const __grid_constant__ TensorTable<LISTS, CAPACITY> table, unsigned long long* streams, T* losses, long long* fault, const T* x, const T* targets,
    const long long* labels, const long long* order, const double* hyperparameters, const long long* active,
    const __grid_constant__ NetShape net,
    int steps, int num_hyperparameters, long long ignore_index, int code, double alpha, double delta, double max_norm, int is_mean,
    int maximize) {
  constexpr int STATES = Rule::STATES;
  static_assert(Rule::FACTORS <= MOST_FACTORS, "small_net.py reserves memory for them");
  T* const memory = net_memory<T>();
  const TensorsOfNet<CAPACITY> tensors{table};
  hyperparameters += blockIdx.x * num_hyperparameters;

  // Copies a matrix of a layer from the tensors of a list, or back.
  auto copy_list = [&](const NetLayer& layer, int place, int list, auto direction) {
    T* const bias = layer.bias < 0 ? nullptr : tensors.template pointer<T>(list, layer.bias);
    copy_parameters<decltype(direction)::BACK>(memory + place, tensors.template pointer<T>(list, layer.weight), bias, layer);
  };
  auto copy_matrices = [&](auto direction) {
#pragma unroll 1
    for (int number = 0; number < net.layers; number++) {
      const NetLayer& layer = net.of[number];
      copy_list(layer, layer.parameters, PARAMS, direction);
      if (decltype(direction)::BACK) copy_list(layer, layer.gradients, GRADS, direction);
      if (!HELD) continue;
#pragma unroll
      for (int k = 0; k < STATES; k++)
        if (Rule::uses(k)) copy_list(layer, layer.states + k * layer.outputs * stride_of(layer.inputs), FIRST_STATE + k, direction);
    }
  };
  auto start_batch = [&](int step) {
    const long long first = static_cast<long long>(step) * net.rows;
    const int outputs = net.of[net.layers - 1].outputs;
    gather(memory + net.inputs, x, order, first, net.rows, net.of[0].inputs, stride_of(net.of[0].inputs));
    if constexpr (HAS_LABELS<Loss>)
      gather(reinterpret_cast<long long*>(memory + net.targets), labels, order, first, net.rows, 1, 1);
    else
      gather(memory + net.targets, targets, order, first, net.rows, outputs, stride_of(outputs));
#pragma unroll 1
    for (int number = 0; number < net.layers; number++)
      if (net.of[number].flags >= 0) draw_flags<T>(net, net.of[number], streams + 2 * blockIdx.x, step);
  };

#pragma unroll 1
  for (int place = threadIdx.x; place < net.size; place += THREADS) memory[place] = T(0);
  __syncthreads();
  if (active != nullptr && active[blockIdx.x] == 0) {
    for (int step = threadIdx.x; step < steps; step += THREADS)
      losses[static_cast<long long>(blockIdx.x) * steps + step] = not_a_number<T>();
#pragma unroll 1
    for (int number = 0; number < net.layers; number++)
      copy_list(net.of[number], net.of[number].gradients, GRADS, Direction<true>());
    return;
  }
  copy_matrices(Direction<false>());
#pragma unroll 1
  for (int number = 0; number < net.layers; number++) {
    const int stride = stride_of(net.of[number].inputs), start = number == 0 ? net.inputs : net.of[number - 1].result;
    for (int row = threadIdx.x; row < net.rows; row += THREADS) memory[start + row * stride + net.of[number].inputs] = T(1);
  }
  start_batch(0);
  finish_copies();
  __syncthreads();

#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    if (step % AHEAD == 0) prepare_updates<T, Rule>(net, tensors, hyperparameters, step);
    if (threadIdx.x >= THREADS - 32) find_factor<T, Loss>(net, ignore_index, is_mean);
#pragma unroll 1
    for (int number = 0; number < net.layers; number++) {
      forward<T, Act, SAVES_Z>(net, number, T(alpha));
      __syncthreads();
    }
    loss_of_rows<T, Loss>(net, ignore_index, T(delta));
    __syncthreads();
    if (threadIdx.x >= THREADS - 32)
      store_loss<T, Loss>(losses + static_cast<long long>(blockIdx.x) * steps + step, fault, net, ignore_index, code, is_mean);
#pragma unroll 1
    for (int number = net.layers - 1; number >= 0; number--) {
      gradient<T>(net, number);
      __syncthreads();
      if (number == 0) break;
      backward<T, Act, SAVES_Z>(net, number, T(alpha));
      __syncthreads();
    }
    T clip = T(1);
    if (max_norm > 0.0) {
      clip = T(max_norm) / (sqrt(square_of_norm<T>(net)) + T(1e-6));
      if (clip >= T(1)) clip = T(1);  // not if it is NaN: then all gradients become NaN
    }
    if (step + 1 < steps) start_batch(step + 1);
    const T* const factors = memory + net.factors + step % AHEAD * net.entries * Rule::FACTORS;
#pragma unroll 1
    for (int number = 0; number < net.layers; number++)
      update_layer<T, Rule, HELD>(net, net.of[number], tensors, factors, clip, maximize);
    finish_copies();
    __syncthreads();
  }

  copy_matrices(Direction<true>());
  constexpr int COUNT = CountersOf<Rule>::COUNT;
  if (threadIdx.x < (CountersOf<Rule>::ARE_SHARED ? 1 : net.entries)) {
    const Pack<double, 2> counters = tensors.template counters<Rule>(threadIdx.x, steps, hyperparameters);
#pragma unroll
    for (int c = 0; c < COUNT; c++)
      table.template pointer<double>(STEPS, threadIdx.x)[blockIdx.x * COUNT + c] = counters.v[c];
  }
  if (threadIdx.x == 0 && net.blocks > 0) streams[2 * blockIdx.x + 1] += static_cast<uint64>(steps) * net.blocks;
}
