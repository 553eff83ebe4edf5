// wgmma: matrix multiplication by the four warps of a warpgroup, with operands in shared memory and registers.

#include <string.h>

#include <algorithm>
#include <map>
#include <memory>

#include "runtime.h"  // last: its macros would clash with <memory>

namespace emulator {

constexpr int GROUP = 128;  // threads of a warpgroup

// ---- synchronising a warpgroup ---------------------------------------------------------------------------------------

struct Call {
  const char* what;
  Site site;
  uint64_t values[4];  // must be equal in all threads
};

struct PendingCall {
  int arrived;
  Call call;
  float* d[GROUP];
  unsigned int a[GROUP][4];
};

static std::map<int, PendingCall> pending_calls;  // by the warpgroup's first thread

static int first_of_group() {
  const int first = current->thread - index_in_block(current->thread) % GROUP;
  if (index_in_block(first) + GROUP > block_threads)
    fail("divergence", "a warpgroup needs four warps, but the last warpgroup of the block has fewer");
  return first;
}

// Waits for the warpgroup.  Returns true in the last thread to arrive, without waiting; that thread must call release().
static bool arrive(PendingCall& pending, const Call& call) {
  if (!pending.arrived) pending.call = call;
  const Call& other = pending.call;
  if (strcmp(other.what, call.what) || other.site.line != call.site.line || strcmp(other.site.file, call.site.file))
    fail("divergence", "%d threads of a warpgroup are at the %s of %s:%d, but %s is at the %s of %s:%d", pending.arrived,
         other.what, other.site.file, other.site.line, thread_title(current->thread), call.what, call.site.file, call.site.line);
  if (memcmp(other.values, call.values, sizeof call.values))
    fail("divergence", "%s passes other operands to the %s of %s:%d than the first thread of its warpgroup",
         thread_title(current->thread), call.what, call.site.file, call.site.line);
  if (++pending.arrived < GROUP) {
    wait(call.what, call.site);
    return false;
  }
  return true;
}

static void release(PendingCall& pending) {
  pending.arrived = 0;
  std::vector<int> others;
  for (int first = first_of_group(), thread = first; thread < first + GROUP; thread++)
    if (thread != current->thread) others.push_back(thread);
  wake_all(others);
  yield_fiber();  // so that the last thread to arrive does not always continue first
}

void set_registers(int count, Site site) {
  PendingCall& pending = pending_calls[first_of_group()];
  if (arrive(pending, {"setmaxnreg", site, {static_cast<uint64_t>(count)}})) release(pending);
}

bool elect_one(Site site) {
  warp_collective(0xffffffffu, Collective::elect, site, nullptr, nullptr);
  return lane() == 0;
}

// ---- operands --------------------------------------------------------------------------------------------------------

struct Operand {  // in shared memory
  uintptr_t base;   // address of the block's shared memory
  uint32_t start;
  uint32_t span, leading, stride;  // span: bytes of a row; 16 without swizzle
  bool mn;
};

static Operand operand(uint64_t descriptor, bool mn) {
  const auto field = [&](int shift) { return static_cast<uint32_t>(descriptor >> shift & 0x3fff) << 4; };
  static const uint32_t spans[] = {16, 128, 64, 32};
  const auto base = reinterpret_cast<uintptr_t>(shared_memory_of(current->rank));
  return {base, field(0), spans[descriptor >> 62], field(16), field(32), mn};
}

// The address of element (i, k), where i is an index of M or N.
static uintptr_t address_of(const Operand& of, uint32_t element_bytes, uint32_t i, uint32_t k) {
  const uint32_t along = of.mn ? i : k, across = of.mn ? k : i;  // along: the contiguous dimension
  const uint32_t byte = along * element_bytes;
  uint32_t offset = across % 8 * of.span;
  if (of.span > 16)
    offset += across / 8 * of.stride + byte / of.span * of.leading + byte % of.span;
  else if (of.mn)
    offset += across / 8 * of.leading + byte / 16 * of.stride + byte % 16;
  else
    offset += across / 8 * of.stride + byte / 16 * of.leading + byte % 16;
  const uint32_t address = (of.start + offset) & 0x3ffff;
  return of.base + (address ^ (address >> 7 & (of.span / 16 - 1)) << 4);
}

static float as_float(Format format, const void* at) {
  uint32_t word = 0;
  uint16_t half;
  memcpy(&half, at, 2);
  if (format == Format::f16) return float_of_half(half);
  if (format == Format::bf16)
    word = static_cast<uint32_t>(half) << 16;
  else
    memcpy(&word, at, 4), word &= ~0x1fffu;
  float value;
  memcpy(&value, &word, 4);
  return value;
}

// ---- a multiplication ------------------------------------------------------------------------------------------------

// A warpgroup's accumulators while lazy multiplications are pending.  Until a thread waits, its registers contain NaN.
struct Accumulators {
  uint32_t n;
  float* d[GROUP];
  std::vector<float> values;
  int num_pending = 0;      // multiplications
  int num_handed_back = 0;  // threads that have waited and have their registers back
  bool handed_back[GROUP] = {};
};

struct Multiplication {
  Format format;
  uint32_t n, k, element_bytes;
  bool accumulate, a_in_registers;
  Operand a, b;
  float* d[GROUP];
  unsigned int a_registers[GROUP][4];
  std::shared_ptr<Accumulators> held;
};

static std::map<int, std::vector<std::shared_ptr<Accumulators>>> held;  // for each warpgroup
static std::map<float*, uint64_t> last_hashes;  // hash of the values that a multiplication left in a thread's registers
static std::map<int, Order> completed;          // for each warpgroup: the completed multiplications
static std::vector<char> fenced;                // for each thread: whether it has executed wgmma_fence since its last wait

void reset_wgmma() {
  pending_calls.clear();
  held.clear();
  last_hashes.clear();
  completed.clear();
  fenced.assign(static_cast<size_t>(thread_count), false);
}

constexpr uint32_t POISON = 0xffffffffu;

static uint64_t hash_of(const float* d, uint32_t n) {
  uint64_t hash = n;
  for (uint32_t i = 0; i < n / 2; i++) {
    uint32_t word;
    memcpy(&word, d + i, 4);
    hash = (hash ^ word) * 0x100000001b3ull;
  }
  return hash;
}

// Row and column of the accumulator in register `i` of thread `t` of the warpgroup.
static uint32_t row_of(uint32_t t, uint32_t i) { return t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8; }
static uint32_t column_of(uint32_t t, uint32_t i) { return i / 4 * 8 + t % 4 * 2 + i % 2; }

static void gather_a(const Multiplication& m, float (&a)[64][16]) {
  if (!m.a_in_registers) {
    for (uint32_t i = 0; i < 64; i++)
      for (uint32_t k = 0; k < m.k; k++)
        a[i][k] = as_float(m.format, reinterpret_cast<void*>(address_of(m.a, m.element_bytes, i, k)));
    return;
  }
  for (uint32_t t = 0; t < GROUP; t++)
    for (uint32_t word = 0; word < 4; word++) {
      const uint32_t row = t / 32 * 16 + t % 32 / 4 + word % 2 * 8;
      const unsigned int bits = m.a_registers[t][word], upper = bits >> 16;
      if (m.format == Format::tf32) {
        a[row][word / 2 * 4 + t % 4] = as_float(m.format, &bits);
      } else {
        a[row][word / 2 * 8 + t % 4 * 2] = as_float(m.format, &bits);
        a[row][word / 2 * 8 + t % 4 * 2 + 1] = as_float(m.format, &upper);
      }
    }
}

static void multiply(const Multiplication& m) {
  static float a[64][16], b[256][16];
  gather_a(m, a);
  for (uint32_t j = 0; j < m.n; j++)
    for (uint32_t k = 0; k < m.k; k++)
      b[j][k] = as_float(m.format, reinterpret_cast<void*>(address_of(m.b, m.element_bytes, j, k)));
  for (uint32_t t = 0; t < GROUP; t++)
    for (uint32_t i = 0; i < m.n / 2; i++) {
      float& d = m.held ? m.held->values[t * m.n / 2 + i] : m.d[t][i];
      const float *of_a = a[row_of(t, i)], *of_b = b[column_of(t, i)];
      double sum = m.accumulate ? d : 0.0;
      for (uint32_t k = 0; k < m.k; k++) sum += static_cast<double>(of_a[k]) * of_b[k];
      d = static_cast<float>(sum);
    }
}

// ---- accumulators of pending multiplications --------------------------------------------------------------------------

static void check_poison(const float* d, uint32_t n) {
  for (uint32_t i = 0; i < n / 2; i++) {
    uint32_t word;
    memcpy(&word, d + i, 4);
    if (word != POISON) fail("registers", "accumulators were written before the wgmma that uses them was waited for");
  }
}

static void hold_accumulators(Multiplication& m, int first) {
  auto& of_group = held[first];
  const auto found = std::find_if(of_group.begin(), of_group.end(), [&](const auto& h) { return h->d[0] == m.d[0]; });
  if (found != of_group.end()) {
    m.held = *found;
    if (!m.held->num_pending)
      fail("registers", "accumulators are used by a wgmma before all threads have waited for the previous one");
    for (const float* d : m.d) check_poison(d, m.n);
  } else {
    m.held = std::make_shared<Accumulators>();
    of_group.push_back(m.held);
    m.held->n = m.n;
    std::copy(m.d, m.d + GROUP, m.held->d);
    for (float* d : m.d) {
      m.held->values.insert(m.held->values.end(), d, d + m.n / 2);
      memset(d, 0xff, m.n / 2 * sizeof(float));
    }
  }
  m.held->num_pending++;
}

static void remember_hash(float* d, uint32_t n) {
  if (launch->check) last_hashes[d] = hash_of(d, n);
}

// The current thread has waited: copies the results of completed multiplications to its registers.
static void hand_back_accumulators(int first) {
  const int mine = current->thread - first;
  auto& of_group = held[first];
  for (const auto& h : of_group) {
    if (h->num_pending || h->handed_back[mine]) continue;
    check_poison(h->d[mine], h->n);
    memcpy(h->d[mine], &h->values[mine * h->n / 2], h->n / 2 * sizeof(float));
    remember_hash(h->d[mine], h->n);
    h->handed_back[mine] = true;
    h->num_handed_back++;
  }
  const auto is_unused = [](const auto& h) { return h->num_handed_back == GROUP; };
  of_group.erase(std::remove_if(of_group.begin(), of_group.end(), is_unused), of_group.end());
}

static void perform(const Multiplication& m) {
  multiply(m);
  if (m.held) m.held->num_pending--;
  else for (float* d : m.d) remember_hash(d, m.n);
}

// ---- the instructions ------------------------------------------------------------------------------------------------

static void add_ranges(std::vector<Range>& ranges, const Operand& of, const Multiplication& m, uint32_t rows) {
  std::vector<uintptr_t> chunks;  // addresses of 16-byte chunks
  const uint32_t each = 16 / m.element_bytes;
  for (uint32_t i = 0; i < rows; i += of.mn ? each : 1)
    for (uint32_t k = 0; k < m.k; k += of.mn ? 1 : each) chunks.push_back(address_of(of, m.element_bytes, i, k));
  std::sort(chunks.begin(), chunks.end());
  for (uintptr_t chunk : chunks) {
    if (!ranges.empty() && ranges.back().address + ranges.back().bytes == chunk)
      ranges.back().bytes += 16;
    else
      ranges.push_back({chunk, 16, false});
  }
}

static void check_operand(const Operand& of, const char* name, Site site) {
  if (of.span > 16 && of.start % (8 * of.span) >= of.span)
    fail("misaligned", "operand %s of the wgmma of %s:%d does not begin in the first row of the swizzle's pattern of %u bytes",
         name, site.file, site.line, 8 * of.span);
}

void wgmma_fence() { fenced[current->thread] = true; }

static void check_fence(const float* d, uint32_t n, bool accumulate, Site site) {
  uint32_t word;
  memcpy(&word, d, 4);
  const bool is_held = word == POISON && launch->completion == static_cast<int>(Completion::lazy);
  if (fenced[current->thread] || is_held) return;
  const auto last = last_hashes.find(const_cast<float*>(d));
  if (last != last_hashes.end() && (!accumulate || last->second == hash_of(d, n))) return;
  fail("registers", "the wgmma of %s:%d needs a wgmma_fence before it: its accumulators were written by other instructions",
       site.file, site.line);
}

void wgmma(float* d, int n, int format, const unsigned int* a_registers, unsigned long long a, bool a_mn, unsigned long long b,
           bool b_mn, bool accumulate, Site site, void* caller) {
  const int first = first_of_group();
  auto shared = std::make_shared<Multiplication>();
  Multiplication& m = *shared;
  m.format = static_cast<Format>(format);
  m.n = static_cast<uint32_t>(n);
  m.k = m.format == Format::tf32 ? 8 : 16;
  m.element_bytes = m.format == Format::tf32 ? 4 : 2;
  m.accumulate = accumulate;
  m.a_in_registers = a_registers;
  m.a = operand(a, a_mn);
  m.b = operand(b, b_mn);
  if (!a_registers) check_operand(m.a, "A", site);
  check_operand(m.b, "B", site);
  PendingCall& pending = pending_calls[first];
  const int mine = current->thread - first;
  pending.d[mine] = d;
  if (a_registers) memcpy(pending.a[mine], a_registers, sizeof pending.a[mine]);
  std::vector<Range> ranges;
  if (launch->check) {
    check_fence(d, m.n, accumulate, site);
    if (lane() == 0 || pending.arrived == GROUP - 1) {
      if (!a_registers) add_ranges(ranges, m.a, m, 64);
      add_ranges(ranges, m.b, m, m.n);
    }
    // each warp must have waited for the operands
    if (lane() == 0) check_reads(ranges, caller);
  }
  const bool last = arrive(pending, {"wgmma", site, {a, b, static_cast<uint64_t>(n) << 8 | static_cast<uint64_t>(format) << 4 |
                                                   static_cast<uint64_t>(accumulate) << 2 | uint64_t(a_mn) << 1 | uint64_t(b_mn)}});
  if (!last) return;
  std::copy(pending.d, pending.d + GROUP, m.d);
  memcpy(m.a_registers, pending.a, sizeof m.a_registers);
  if (launch->completion == static_cast<int>(Completion::lazy)) hold_accumulators(m, first);
  Transfer transfer = start(std::move(ranges), [shared] { perform(*shared); }, caller);
  if (launch->check) check_proxy(transfer);
  add_to_group(groups_of(Kind::matrix, first), std::move(transfer));
  release(pending);
}

void wgmma_commit(Site site) {
  const int first = first_of_group();
  PendingCall& pending = pending_calls[first];
  if (!arrive(pending, {"wgmma_commit", site, {}})) return;
  commit(groups_of(Kind::matrix, first));
  release(pending);
}

// The reads of completed multiplications are recorded as an engine's, so that every thread that waits acquires them.
void wgmma_wait(int left) {
  const int first = first_of_group(), engine = MAX_ENGINES - 1 - first / GROUP % (MAX_ENGINES / 2);
  Groups& groups = groups_of(Kind::matrix, first);
  const size_t before = groups.pending.size();
  complete(groups, static_cast<uint32_t>(left), MAX_THREADS + engine);
  hand_back_accumulators(first);
  fenced[current->thread] = false;
  if (!launch->check) return;
  if (groups.pending.size() != before) publish_engine(completed[first], engine);
  acquire(completed[first], current->thread);
}

}  // namespace emulator
