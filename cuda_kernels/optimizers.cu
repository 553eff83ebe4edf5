// Optimizers: one launch over all parameters of a group.  Each block processes 2048 elements of one tensor.
//
// The formulas and the order of the hyperparameters are those of the NumPy twins in gpunet/optim/.  Here each is an update
// rule, a struct whose functions are called by one kernel body, update_tensors:
//
//   STATES, uses(k)    the lists of states, and whether this specialisation has the k-th one
//   FACTORS, prepare   the numbers of a step: computed in float64, once per block, from the hyperparameters and the tensor's
//                      counters (its step count, and what else changes once per step)
//   update             one element: its parameter, its states, its gradient, and the factors as accumulators
//   advance            the counters' values after the step
//
// States have the dtype of their parameter; halves are widened, and what is computed of them is rounded once, at its store.
// The hyperparameters and the counters are in device memory, so that a CUDA graph uses their current values.  All blocks
// read the counters first; the last block to finish advances them.  A launch does nothing if *skip is not 0: the gradients of a
// scaled loss were not finite.
//
// Versions: 1. packs of four, pointers by value: memory-bound.  2. update rules (this one).  Next: unscaling and clipping
// fused in.

#include "common/pack.cuh"
#include "common/reduce.cuh"
#include "common/tensor_table.cuh"

// ---- the kernel body ------------------------------------------------------------------------------------------------

// Calls body(start, valid) for each pack of four in this block's part of `count` elements.
template <class Body>
__device__ __forceinline__ void for_each_pack_of_block(long long first, long long count, Body body) {
#pragma unroll
  for (int offset = 0; offset < ELEMENTS_PER_BLOCK; offset += 4 * 256) {
    const long long start = first + offset + 4 * threadIdx.x;
    if (start < count) body(start, count - start);
  }
}

template <class Rule, int LISTS, int CAPACITY, int COUNTERS>
__device__ __forceinline__ void load_counters(
    double (&counters)[COUNTERS], const TensorTable<LISTS, CAPACITY>& table, int tensor) {
#pragma unroll
  for (int c = 0; c < COUNTERS; c++) counters[c] = table.template pointer<double>(1 + Rule::STATES + c, tensor)[0];
}

// Updates all tensors of a table whose lists are the parameters, the states of the rule, the counters and the gradients.
template <class Rule, class T, int LISTS, int CAPACITY>
__device__ __forceinline__ void update_tensors(
    const TensorTable<LISTS, CAPACITY>& table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  if (skip != nullptr && skip[0] != 0.0) return;  // all blocks alike
  using A = Accumulator<T>;
  constexpr int STATES = Rule::STATES;
  const int tensor = table.tensor_of_block();
  double counters[LISTS - STATES - 2];
  __shared__ double shared_factors[Rule::FACTORS];
  if (threadIdx.x == 0) {  // float64 pow is slow on most GPUs
    load_counters<Rule>(counters, table, tensor);
    Rule::prepare(shared_factors, counters, hyperparameters);
  }
  __syncthreads();
  A factors[Rule::FACTORS];
#pragma unroll
  for (int f = 0; f < Rule::FACTORS; f++) factors[f] = A(shared_factors[f]);
  T* params = table.template pointer<T>(0, tensor);
  const T* grads = table.template pointer<const T>(LISTS - 1, tensor);
  T* states[STATES];
  int width = access_width(0, params, grads);
#pragma unroll
  for (int k = 0; k < STATES; k++) {
    states[k] = table.template pointer<T>(1 + k, tensor);
    width = min(width, access_width(0, states[k]));
  }
  const long long first = static_cast<long long>(blockIdx.x - table.first_block[tensor]) * ELEMENTS_PER_BLOCK;
  for_each_pack_of_block(first, table.counts[tensor], [&](long long start, long long valid) {
    Pack<A, 4> p = load_pack<4>(params + start, valid, width), packs[STATES] = {};
    const Pack<A, 4> gradient = load_pack<4>(grads + start, valid, width);
#pragma unroll
    for (int k = 0; k < STATES; k++)
      if (Rule::uses(k)) packs[k] = load_pack<4>(states[k] + start, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) {
      A of_element[STATES];
#pragma unroll
      for (int k = 0; k < STATES; k++) of_element[k] = packs[k].v[e];
      Rule::update(p.v[e], of_element, maximize ? -gradient.v[e] : gradient.v[e], factors);
#pragma unroll
      for (int k = 0; k < STATES; k++) packs[k].v[e] = of_element[k];
    }
    store_pack(params + start, p, valid, width);
#pragma unroll
    for (int k = 0; k < STATES; k++)
      if (Rule::uses(k)) store_pack(states[k] + start, packs[k], valid, width);
  });
  if (!last_block(ticket)) return;
  for (int each = threadIdx.x; each < table.tensors; each += blockDim.x) {
    load_counters<Rule>(counters, table, each);
    Rule::advance(counters, hyperparameters);
#pragma unroll
    for (int c = 0; c < LISTS - STATES - 2; c++) table.template pointer<double>(1 + STATES + c, each)[0] = counters[c];
  }
}

// averages = (1 - weight) averages + weight values, which is exact at weight 1.
template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) average_step(
    const __grid_constant__ TensorTable<2, CAPACITY> table, const double* weight) {
  using A = Accumulator<T>;
  const int tensor = table.tensor_of_block();
  T* averages = table.template pointer<T>(0, tensor);
  const T* values = table.template pointer<const T>(1, tensor);
  const A share = A(weight[0]), rest = A(1.0 - weight[0]);
  const int width = access_width(0, averages, values);
  const long long first = static_cast<long long>(blockIdx.x - table.first_block[tensor]) * ELEMENTS_PER_BLOCK;
  for_each_pack_of_block(first, table.counts[tensor], [&](long long start, long long valid) {
    Pack<A, 4> a = load_pack<4>(averages + start, valid, width);
    const Pack<A, 4> b = load_pack<4>(values + start, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) a.v[e] = rest * a.v[e] + share * b.v[e];
    store_pack(averages + start, a, valid, width);
  });
}

// ---- parts of rules --------------------------------------------------------------------------------------------------

template <class A>
__device__ __forceinline__ A sign(A x) {
  return x > A(0) ? A(1) : x < A(0) ? A(-1) : x;  // of NaN NaN
}

template <class A>
__device__ __forceinline__ A larger(A a, A b) {
  return !(a < b) ? b != b ? b : a : b;  // NaN if either is
}

// average = decay average + (1 - decay) value, given the second factor.
template <class A>
__device__ __forceinline__ void decay_average(A& average, A decay, A share, A value) {
  average = decay * average + share * value;
}

// A rule that uses all of its states, and whose only counter is the number of steps.
struct PlainRule {
  static __device__ constexpr bool uses(int state) { return true; }
  static __device__ __forceinline__ void advance(double* counters, const double* h) { counters[0] += 1.0; }
};

// Weight decay, coupled (added to the gradient) or decoupled (shrinks the parameter before the step).
struct Decay {
  enum { SHRINK, ADD, COUNT };  // the first factors of a rule with decay
  static __device__ __forceinline__ void prepare(double* factors, double rate, double weight_decay, int decoupled) {
    factors[SHRINK] = decoupled ? 1.0 - rate * weight_decay : 1.0;
    factors[ADD] = decoupled ? 0.0 : weight_decay;
  }
  template <class A>
  static __device__ __forceinline__ void apply(A& p, A& g, const A* factors) {
    p *= factors[SHRINK];
    g += factors[ADD] * p;
  }
};

// ---- the rules -------------------------------------------------------------------------------------------------------

template <bool MOMENTUM, bool NESTEROV>
struct Sgd : PlainRule {
  enum { VELOCITY, STATES };
  enum { RATE, DECAY, KEEP, SHARE, AHEAD, FACTORS };
  static __device__ constexpr bool uses(int state) { return MOMENTUM; }
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    const bool is_first = counters[0] == 0.0;  // then the velocity is the gradient
    f[RATE] = h[0], f[DECAY] = h[3], f[AHEAD] = h[1];
    f[KEEP] = is_first ? 0.0 : h[1], f[SHARE] = is_first ? 1.0 : 1.0 - h[2];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    g += f[DECAY] * p;
    if (MOMENTUM) {
      decay_average(s[VELOCITY], f[KEEP], f[SHARE], g);
      g = NESTEROV ? g + f[AHEAD] * s[VELOCITY] : s[VELOCITY];
    }
    p -= f[RATE] * g;
  }
};

// The averages that Adam and its variants have, after three hyperparameters: lr, b1, b2.
struct Averages {
  enum { KEEP1 = Decay::COUNT, SHARE1, KEEP2, SHARE2, COUNT };
  static __device__ __forceinline__ void prepare(double* f, const double* h) {
    f[KEEP1] = h[1], f[SHARE1] = 1.0 - h[1], f[KEEP2] = h[2], f[SHARE2] = 1.0 - h[2];
  }
  template <class A>
  static __device__ __forceinline__ void apply(A* s, A g, const A* f) {
    decay_average(s[0], f[KEEP1], f[SHARE1], g);
    decay_average(s[1], f[KEEP2], f[SHARE2], g * g);
  }
};

template <bool AMSGRAD, bool DECOUPLED>
struct Adam : PlainRule {
  enum { AVERAGE, SQUARE, MAXIMUM, STATES };
  enum { SIZE = Averages::COUNT, CORRECTION, EPS, FACTORS };
  static __device__ constexpr bool uses(int state) { return AMSGRAD || state != MAXIMUM; }
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    const double step = counters[0] + 1.0;
    Decay::prepare(f, h[0], h[4], DECOUPLED);
    Averages::prepare(f, h);
    f[SIZE] = h[0] / (1.0 - pow(h[1], step));
    f[CORRECTION] = 1.0 / sqrt(1.0 - pow(h[2], step));
    f[EPS] = h[3];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    Decay::apply(p, g, f);
    Averages::apply(s, g, f);
    A square = s[SQUARE];
    if (AMSGRAD) square = s[MAXIMUM] = larger(s[MAXIMUM], square);
    p -= f[SIZE] * (s[AVERAGE] / (sqrt(square) * f[CORRECTION] + f[EPS]));
  }
};

struct Adamax : PlainRule {
  enum { AVERAGE, LARGEST, STATES };
  enum { SIZE, DECAY, KEEP1, SHARE1, KEEP2, EPS, FACTORS };
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    f[SIZE] = h[0] / (1.0 - pow(h[1], counters[0] + 1.0)), f[DECAY] = h[4];
    f[KEEP1] = h[1], f[SHARE1] = 1.0 - h[1], f[KEEP2] = h[2], f[EPS] = h[3];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    g += f[DECAY] * p;
    decay_average(s[AVERAGE], f[KEEP1], f[SHARE1], g);
    s[LARGEST] = larger(s[LARGEST] * f[KEEP2], abs(g) + f[EPS]);
    p -= f[SIZE] * (s[AVERAGE] / s[LARGEST]);
  }
};

template <bool DECOUPLED>
struct Nadam : PlainRule {
  enum { STATES = 2 };
  enum { OF_GRADIENT = Averages::COUNT, OF_AVERAGE, CORRECTION, EPS, FACTORS };
  static __device__ __forceinline__ double momentum(double step, const double* h) {
    return h[1] * (1.0 - 0.5 * pow(0.96, step * h[5]));
  }
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    const double step = counters[0] + 1.0, now = momentum(step, h), next = momentum(step + 1.0, h);
    const double product = counters[1] * now;
    Decay::prepare(f, h[0], h[4], DECOUPLED);
    Averages::prepare(f, h);
    f[OF_GRADIENT] = h[0] * (1.0 - now) / (1.0 - product);
    f[OF_AVERAGE] = h[0] * next / (1.0 - product * next);
    f[CORRECTION] = 1.0 / sqrt(1.0 - pow(h[2], step));
    f[EPS] = h[3];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    Decay::apply(p, g, f);
    Averages::apply(s, g, f);
    p -= (f[OF_GRADIENT] * g + f[OF_AVERAGE] * s[0]) / (sqrt(s[1]) * f[CORRECTION] + f[EPS]);
  }
  static __device__ __forceinline__ void advance(double* counters, const double* h) {
    counters[0] += 1.0;
    counters[1] *= momentum(counters[0], h);
  }
};

template <bool DECOUPLED>
struct Radam : PlainRule {
  enum { STATES = 2 };
  enum { SIZE = Averages::COUNT, PLAIN, RECTIFIED, EPS, FACTORS };
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    const double step = counters[0] + 1.0, decayed = pow(h[2], step), limit = 2.0 / (1.0 - h[2]) - 1.0;
    const double length = limit - 2.0 * step * decayed / (1.0 - decayed);
    Decay::prepare(f, h[0], h[4], DECOUPLED);
    Averages::prepare(f, h);
    f[SIZE] = h[0] / (1.0 - pow(h[1], step));
    f[PLAIN] = !(length > 5.0);
    f[RECTIFIED] = sqrt((length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length) * (1.0 - decayed));
    f[EPS] = h[3];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    Decay::apply(p, g, f);
    Averages::apply(s, g, f);
    p -= f[SIZE] * s[0] * (f[PLAIN] != A(0) ? A(1) : f[RECTIFIED] / (sqrt(s[1]) + f[EPS]));
  }
};

template <bool MOMENTUM, bool CENTERED>
struct Rmsprop : PlainRule {
  enum { SQUARE, AVERAGE, VELOCITY, STATES };
  enum { RATE, DECAY, KEEP, SHARE, EPS, AHEAD, FACTORS };
  static __device__ constexpr bool uses(int state) { return state == AVERAGE ? CENTERED : state == VELOCITY ? MOMENTUM : true; }
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    f[RATE] = h[0], f[KEEP] = h[1], f[SHARE] = 1.0 - h[1], f[EPS] = h[2], f[DECAY] = h[3], f[AHEAD] = h[4];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    g += f[DECAY] * p;
    decay_average(s[SQUARE], f[KEEP], f[SHARE], g * g);
    A square = s[SQUARE];
    if (CENTERED) {
      decay_average(s[AVERAGE], f[KEEP], f[SHARE], g);
      square -= s[AVERAGE] * s[AVERAGE];
    }
    g /= sqrt(square) + f[EPS];
    if (MOMENTUM) g = s[VELOCITY] = f[AHEAD] * s[VELOCITY] + g;
    p -= f[RATE] * g;
  }
};

struct Adagrad : PlainRule {
  enum { SUM, STATES };
  enum { RATE, DECAY, EPS, FACTORS };
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    f[RATE] = h[0] / (1.0 + counters[0] * h[1]), f[DECAY] = h[2], f[EPS] = h[3];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    g += f[DECAY] * p;
    s[SUM] += g * g;
    p -= f[RATE] * (g / (sqrt(s[SUM]) + f[EPS]));
  }
};

struct Adadelta : PlainRule {
  enum { SQUARE, CHANGE, STATES };
  enum { RATE, DECAY, KEEP, SHARE, EPS, FACTORS };
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    f[RATE] = h[0], f[KEEP] = h[1], f[SHARE] = 1.0 - h[1], f[EPS] = h[2], f[DECAY] = h[3];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    g += f[DECAY] * p;
    decay_average(s[SQUARE], f[KEEP], f[SHARE], g * g);
    g *= sqrt(s[CHANGE] + f[EPS]) / sqrt(s[SQUARE] + f[EPS]);
    decay_average(s[CHANGE], f[KEEP], f[SHARE], g * g);
    p -= f[RATE] * g;
  }
};

struct Asgd : PlainRule {
  enum { AVERAGE, STATES };
  enum { RATE, SHRINK, DECAY, SHARE, FACTORS };
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    f[RATE] = counters[1], f[SHRINK] = h[1] * counters[1], f[DECAY] = h[4], f[SHARE] = counters[2];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    g += f[DECAY] * p;
    p -= f[SHRINK] * p + f[RATE] * g;
    s[AVERAGE] += f[SHARE] * (p - s[AVERAGE]);
  }
  static __device__ __forceinline__ void advance(double* counters, const double* h) {
    counters[0] += 1.0;
    counters[1] = h[0] / pow(1.0 + h[1] * h[0] * counters[0], h[2]);
    counters[2] = 1.0 / max(1.0, counters[0] - h[3]);
  }
};

struct Rprop : PlainRule {
  enum { PREVIOUS, SIZE, STATES };
  enum { SMALLER, LARGER, LOWEST, HIGHEST, FACTORS };
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    f[SMALLER] = h[1], f[LARGER] = h[2], f[LOWEST] = h[3], f[HIGHEST] = h[4];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    const A agreement = g * s[PREVIOUS];
    const bool turned = agreement < A(0);
    A size = s[SIZE] * (agreement > A(0) ? f[LARGER] : turned ? f[SMALLER] : A(1));
    size = size < f[LOWEST] ? f[LOWEST] : size > f[HIGHEST] ? f[HIGHEST] : size;
    if (turned) g = A(0);
    p -= sign(g) * size;
    s[PREVIOUS] = g, s[SIZE] = size;
  }
};

struct Lion : PlainRule {
  enum { AVERAGE, STATES };
  enum { RATE = Decay::COUNT, KEEP1, SHARE1, KEEP2, SHARE2, FACTORS };
  static __device__ __forceinline__ void prepare(double* f, const double* counters, const double* h) {
    Decay::prepare(f, h[0], h[3], true);
    f[RATE] = h[0], f[KEEP1] = h[1], f[SHARE1] = 1.0 - h[1], f[KEEP2] = h[2], f[SHARE2] = 1.0 - h[2];
  }
  template <class A>
  static __device__ __forceinline__ void update(A& p, A* s, A g, const A* f) {
    p *= f[Decay::SHRINK];
    p -= f[RATE] * sign(f[KEEP1] * s[AVERAGE] + f[SHARE1] * g);
    decay_average(s[AVERAGE], f[KEEP2], f[SHARE2], g);
  }
};

// ---- entry points ----------------------------------------------------------------------------------------------------

template <class T, bool MOMENTUM, bool NESTEROV, int CAPACITY>
__global__ void __launch_bounds__(256) sgd_step(
    const __grid_constant__ TensorTable<4, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Sgd<MOMENTUM, NESTEROV>, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, bool AMSGRAD, bool DECOUPLED, int CAPACITY>
__global__ void __launch_bounds__(256) adam_step(
    const __grid_constant__ TensorTable<6, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Adam<AMSGRAD, DECOUPLED>, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) adamax_step(
    const __grid_constant__ TensorTable<5, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Adamax, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, bool DECOUPLED, int CAPACITY>
__global__ void __launch_bounds__(256) nadam_step(
    const __grid_constant__ TensorTable<6, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Nadam<DECOUPLED>, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, bool DECOUPLED, int CAPACITY>
__global__ void __launch_bounds__(256) radam_step(
    const __grid_constant__ TensorTable<5, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Radam<DECOUPLED>, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, bool MOMENTUM, bool CENTERED, int CAPACITY>
__global__ void __launch_bounds__(256) rmsprop_step(
    const __grid_constant__ TensorTable<6, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Rmsprop<MOMENTUM, CENTERED>, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) adagrad_step(
    const __grid_constant__ TensorTable<4, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Adagrad, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) adadelta_step(
    const __grid_constant__ TensorTable<5, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Adadelta, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) asgd_step(
    const __grid_constant__ TensorTable<6, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Asgd, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) rprop_step(
    const __grid_constant__ TensorTable<5, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Rprop, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) lion_step(
    const __grid_constant__ TensorTable<4, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Lion, T>(table, hyperparameters, skip, ticket, maximize);
}
