// mbarriers: a phase completes when all arrivals and all expected bytes have come.

#include "runtime.h"

#include <stdio.h>

#include <algorithm>
#include <unordered_map>

namespace emulator {

struct MBarrier {
  int arrivals, missing;    // arrivals per phase; arrivals that the current phase still needs
  int64_t bytes;            // expected bytes that have not come
  uint32_t phase;           // number of the current phase
  int engine;               // the engine of the transfers that signal it
  int init_thread;          // the thread that initialised it
  uint32_t init_clock;      // that thread's clock at the initialisation
  uintptr_t site;           // line of the initialisation
  // published by this block's threads [0] or by all threads of the cluster [1]: until now; until the end of the last phase
  Order arrived_order[2], released[2];
  std::vector<int> waiting;
};

constexpr int64_t MAX_BYTES = (1 << 20) - 1;

static std::unordered_map<uintptr_t, MBarrier> barriers;
static std::unordered_map<int, std::vector<uint32_t>> init_fences;  // for each thread: its clocks at fence_mbarrier_init

void reset_mbarriers() {
  barriers.clear();
  init_fences.clear();
}

static uintptr_t site_of(void* caller) { return reinterpret_cast<uintptr_t>(caller) - launch->library; }

// ---- initialisation and lookup ---------------------------------------------------------------------------------------

void mbarrier_init(void* barrier, int arrivals, void* caller) {
  const auto address = reinterpret_cast<uintptr_t>(barrier);
  if (address % 8) fail("mbarrier", "at @%#zx: its address %#zx is not a multiple of 8 bytes", site_of(caller), address);
  if (arrivals < 1 || arrivals > MAX_BYTES)
    fail("mbarrier", "%d arrivals at @%#zx; expected 1 to %d", arrivals, site_of(caller), static_cast<int>(MAX_BYTES));
  if (barriers.count(address))
    fail("mbarrier", "initialised again at @%#zx: it was initialised at @%#zx and not invalidated (mbarrier_inval)",
         site_of(caller), barriers[address].site);
  access(barrier, 8, Access::write, caller);
  const int engine = static_cast<int>(barriers.size()) % MAX_ENGINES;
  const uint32_t init_clock = launch->check ? tick(current->thread) : 0;
  barriers[address] = {arrivals, arrivals, 0, 0, engine, current->thread, init_clock, site_of(caller), {}, {}, {}};
}

void fence_mbarrier_init() {
  if (launch->check) init_fences[current->thread].push_back(tick(current->thread));
}

static void fence_proxies(bool global) {
  if (!launch->check) return;
  order_proxy_fence(global);
  fence_mbarrier_init();
}
void proxy_fence() { fence_proxies(true); }
void proxy_fence_shared() { fence_proxies(false); }

// Finds a barrier and checks that its initialisation is ordered before this use; `remote`: by another block or a transfer.
static MBarrier& find_barrier(void* barrier, bool remote, uintptr_t site) {
  const auto found = barriers.find(reinterpret_cast<uintptr_t>(barrier));
  if (found == barriers.end()) fail("mbarrier", "used at @%#zx, but not initialised (mbarrier_init)", site);
  MBarrier& state = found->second;
  const int me = current->thread;
  if (!launch->check || state.init_thread == me) return state;
  access(barrier, 8, Access::atomic, reinterpret_cast<void*>(site + launch->library));
  if (!knows(me, state.init_thread, state.init_clock))
    fail("mbarrier", "%s uses it at @%#zx; %s initialises it at @%#zx, and nothing orders the two", thread_title(me), site,
         thread_title(state.init_thread), state.site);
  const auto& fences = init_fences[state.init_thread];
  const auto is_fence_after_init = [&](uint32_t f) { return f >= state.init_clock && knows(me, state.init_thread, f); };
  if (remote && std::none_of(fences.begin(), fences.end(), is_fence_after_init))
    fail("mbarrier", "%s uses it at @%#zx in another block or for a transfer; %s, which initialises it at @%#zx, needs a "
         "fence_mbarrier_init after that", thread_title(me), site, thread_title(state.init_thread), state.site);
  return state;
}

int mbarrier_engine(void* barrier, void* caller) { return find_barrier(barrier, true, site_of(caller)).engine; }

void mbarrier_inval(void* barrier, void* caller) {
  const MBarrier& state = find_barrier(barrier, false, site_of(caller));
  if (!state.waiting.empty())
    fail("mbarrier", "invalidated at @%#zx while %s waits for it", site_of(caller), thread_title(state.waiting[0]));
  access(barrier, 8, Access::write, caller);
  barriers.erase(reinterpret_cast<uintptr_t>(barrier));
}

// ---- phases ----------------------------------------------------------------------------------------------------------

static void complete_phase_if_done(MBarrier& barrier, uintptr_t site) {
  if (barrier.missing) return;
  if (barrier.bytes < 0)
    fail("mbarrier", "the phase of the mbarrier initialised at @%#zx gets %lld bytes more than were expected, at @%#zx",
         barrier.site, static_cast<long long>(-barrier.bytes), site);
  if (barrier.bytes) return;
  barrier.phase++;
  barrier.missing = barrier.arrivals;
  if (launch->check) {
    publish_engine(barrier.arrived_order[1], barrier.engine);
    const size_t column = static_cast<size_t>(thread_count + barrier.engine);
    barrier.arrived_order[0].clocks.resize(barrier.arrived_order[1].clocks.size());
    barrier.arrived_order[0].clocks[column] = barrier.arrived_order[1].clocks[column];
    for (int scope = 0; scope < 2; scope++) barrier.released[scope] = barrier.arrived_order[scope];
  }
  std::vector<int> waiting;
  waiting.swap(barrier.waiting);
  wake_all(waiting);
}

static void expect(MBarrier& barrier, int64_t bytes, uintptr_t site) {
  barrier.bytes += bytes;
  if (std::abs(barrier.bytes) > MAX_BYTES)
    fail("mbarrier", "%lld bytes pending at @%#zx; a phase can have up to %lld", static_cast<long long>(barrier.bytes), site,
         static_cast<long long>(MAX_BYTES));
}

static void arrive(void* barrier, int arrivals, int bytes, bool engines_only, uintptr_t site) {
  const int owner = rank_of_shared(reinterpret_cast<uintptr_t>(barrier));
  const bool remote = owner >= 0 && owner != current->rank;
  MBarrier& state = find_barrier(barrier, remote, site);
  expect(state, bytes, site);
  if (arrivals && !state.missing)
    fail("mbarrier", "one arrival too many at @%#zx: a phase of the mbarrier initialised at @%#zx takes %d", site, state.site,
         state.arrivals);
  state.missing -= arrivals;
  if (arrivals && launch->check) {
    for (Order& order : state.arrived_order) publish_engines(order, current->thread);
    if (!engines_only && !remote) publish(state.arrived_order[0], current->thread);
    if (!engines_only) publish(state.arrived_order[1], current->thread);
  }
  complete_phase_if_done(state, site);
}

void mbarrier_arrive(void* barrier, int arrivals, int bytes, void* caller) {
  arrive(barrier, arrivals, bytes, false, site_of(caller));
}
void mbarrier_arrive_async(void* barrier, void* caller) { arrive(barrier, 1, 0, true, site_of(caller)); }

void mbarrier_complete_bytes(void* barrier, size_t bytes, uintptr_t site) {
  const auto found = barriers.find(reinterpret_cast<uintptr_t>(barrier));
  if (found == barriers.end()) fail("mbarrier", "the mbarrier that the transfer at @%#zx signals was invalidated", site);
  expect(found->second, -static_cast<int64_t>(bytes), site);
  complete_phase_if_done(found->second, site);
}

// ---- waiting ---------------------------------------------------------------------------------------------------------

static bool is_complete(const MBarrier& barrier, int parity) { return static_cast<int>(barrier.phase & 1) != (parity & 1); }

bool mbarrier_try_wait(void* barrier, int parity, void* caller) {
  MBarrier& waited = find_barrier(barrier, false, site_of(caller));
  if (!is_complete(waited, parity)) yield_in_loop();
  if (!is_complete(waited, parity)) return false;
  if (launch->check) acquire(waited.released[0], current->thread);
  return true;
}

void mbarrier_wait(void* barrier, int parity, bool of_cluster, Site site, void* caller) {
  MBarrier& waited = find_barrier(barrier, false, site_of(caller));
  while (!is_complete(waited, parity)) {
    waited.waiting.push_back(current->thread);
    current->waits_for = barrier;
    wait("mbarrier_wait", site);
    current->waits_for = nullptr;
  }
  if (launch->check) acquire(waited.released[of_cluster], current->thread);
}

std::string describe_mbarrier(void* barrier) {
  const MBarrier& of = barriers.at(reinterpret_cast<uintptr_t>(barrier));
  char text[160];
  snprintf(text, sizeof text, ", where phase %u of the mbarrier initialised at @%#zx lacks %d of %d arrivals and %lld bytes",
           of.phase, of.site, of.missing, of.arrivals, static_cast<long long>(of.bytes));
  return text;
}

}  // namespace emulator
