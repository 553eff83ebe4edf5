// The update rules of optimizers.  The formulas and the order of the hyperparameters are those of the NumPy twins in
// gpunet/optim/.  A rule is a struct:
//
//   STATES, uses(k)    the lists of states, and whether this specialisation has the k-th one
//   FACTORS, prepare   the numbers of a step: computed in float64, once per block, from the hyperparameters and the tensor's
//                      counters (its step count, and what else changes once per step)
//   update             one element: its parameter, its states, its gradient, and the factors as accumulators
//   advance            the counters' values after the step
//
// States have the dtype of their parameter; halves are widened, and what is computed of them is rounded once, at its store.

#include "pack.cuh"

// Updates the elements of a pack of four before `valid`, from `start` on: those of a parameter and of its states.
template <class Rule, class T>
__device__ __forceinline__ void update_pack(
    T* params, T* const (&states)[Rule::STATES], const T* grads, const Accumulator<T> (&factors)[Rule::FACTORS], int maximize,
    long long start, long long valid, int width) {
  using A = Accumulator<T>;
  constexpr int STATES = Rule::STATES;
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
