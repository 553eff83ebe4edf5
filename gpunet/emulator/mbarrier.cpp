// mbarriers: phases that end when all arrivals and all expected bytes have come.

#include "runtime.h"

#include <stdio.h>

#include <algorithm>
#include <unordered_map>

namespace emulator {

struct MBarrier {
  int arrivals, missing;    // of a phase; of this one
  int64_t bytes;            // expected and not come
  uint32_t phase;           // its number
  int engine;               // whose transfers signal it
  int maker;                // the thread that initialised it
  uint32_t made;            // when, by its clock
  uintptr_t site;           // and where
  Order gathered[2], over[2];  // from this block's threads, from all the cluster's: up to now, up to the last phase's end
  std::vector<int> waiting;
};

constexpr int64_t MOST_BYTES = (1 << 20) - 1;

static std::unordered_map<uintptr_t, MBarrier> barriers;
static std::unordered_map<int, std::vector<uint32_t>> init_fences;  // when each thread had them

void reset_mbarriers() {
  barriers.clear();
  init_fences.clear();
}

static uintptr_t at(void* caller) { return reinterpret_cast<uintptr_t>(caller) - launch->library; }

// ---- making and using one --------------------------------------------------------------------------------------------

void mbarrier_init(void* barrier, int arrivals, void* caller) {
  const auto address = reinterpret_cast<uintptr_t>(barrier);
  if (address % 8) fail("mbarrier", "at @%#zx: an mbarrier lies at a multiple of 8 bytes", at(caller));
  if (arrivals < 1 || arrivals > MOST_BYTES)
    fail("mbarrier", "%d arrivals at @%#zx; a phase takes 1 to %d", arrivals, at(caller), static_cast<int>(MOST_BYTES));
  if (barriers.count(address))
    fail("mbarrier", "initialised at @%#zx, and before at @%#zx: mbarrier_inval ends the first one", at(caller),
         barriers[address].site);
  access(barrier, 8, Access::write, caller);
  const int engine = static_cast<int>(barriers.size()) % MOST_ENGINES;
  const uint32_t made = launch->check ? tick(current->thread) : 0;
  barriers[address] = {arrivals, arrivals, 0, 0, engine, current->thread, made, at(caller), {}, {}, {}};
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

// `afar`: from another block, or by a transfer.
static MBarrier& used(void* barrier, bool afar, uintptr_t site) {
  const auto found = barriers.find(reinterpret_cast<uintptr_t>(barrier));
  if (found == barriers.end()) fail("mbarrier", "used at @%#zx, but no mbarrier_init was there before", site);
  MBarrier& made = found->second;
  const int me = current->thread;
  if (!launch->check || made.maker == me) return made;
  access(barrier, 8, Access::atomic, reinterpret_cast<void*>(site + launch->library));
  if (!knows(me, made.maker, made.made))
    fail("mbarrier", "%s uses it at @%#zx; %s initialises it at @%#zx, and nothing orders the two", thread_title(me), site,
         thread_title(made.maker), made.site);
  const auto& fences = init_fences[made.maker];
  if (afar && std::none_of(fences.begin(), fences.end(), [&](uint32_t f) { return f >= made.made && knows(me, made.maker, f); }))
    fail("mbarrier", "%s uses it at @%#zx from afar; %s initialises it at @%#zx and needs a fence_mbarrier_init behind that",
         thread_title(me), site, thread_title(made.maker), made.site);
  return made;
}

int mbarrier_engine(void* barrier, void* caller) { return used(barrier, true, at(caller)).engine; }

void mbarrier_inval(void* barrier, void* caller) {
  const MBarrier& made = used(barrier, false, at(caller));
  if (!made.waiting.empty())
    fail("mbarrier", "invalidated at @%#zx while %s waits for it", at(caller), thread_title(made.waiting[0]));
  access(barrier, 8, Access::write, caller);
  barriers.erase(reinterpret_cast<uintptr_t>(barrier));
}

// ---- phases ----------------------------------------------------------------------------------------------------------

static void settle(MBarrier& barrier, uintptr_t site) {
  if (barrier.missing) return;
  if (barrier.bytes < 0)
    fail("mbarrier", "the phase of the one initialised at @%#zx gets %lld bytes more than were expected, at @%#zx", barrier.site,
         static_cast<long long>(-barrier.bytes), site);
  if (barrier.bytes) return;
  barrier.phase++;
  barrier.missing = barrier.arrivals;
  if (launch->check) {
    publish_engine(barrier.gathered[1], barrier.engine);
    const size_t column = static_cast<size_t>(thread_count + barrier.engine);
    barrier.gathered[0].clocks.resize(barrier.gathered[1].clocks.size());
    barrier.gathered[0].clocks[column] = barrier.gathered[1].clocks[column];
    for (int wide = 0; wide < 2; wide++) barrier.over[wide] = barrier.gathered[wide];
  }
  std::vector<int> waiting;
  waiting.swap(barrier.waiting);
  wake_all(waiting);
}

static void expect(MBarrier& barrier, int64_t bytes, uintptr_t site) {
  barrier.bytes += bytes;
  if (std::abs(barrier.bytes) > MOST_BYTES)
    fail("mbarrier", "%lld bytes pending at @%#zx; a phase takes up to %lld", static_cast<long long>(barrier.bytes), site,
         static_cast<long long>(MOST_BYTES));
}

static void arrive(void* barrier, int arrivals, int bytes, bool engines_only, uintptr_t site) {
  const int owner = rank_of_shared(reinterpret_cast<uintptr_t>(barrier));
  const bool afar = owner >= 0 && owner != current->rank;
  MBarrier& of = used(barrier, afar, site);
  expect(of, bytes, site);
  if (arrivals && !of.missing)
    fail("mbarrier", "one arrival too many at @%#zx: a phase of the one initialised at @%#zx takes %d", site, of.site, of.arrivals);
  of.missing -= arrivals;
  if (arrivals && launch->check) {
    for (Order& order : of.gathered) publish_engines(order, current->thread);
    if (!engines_only && !afar) publish(of.gathered[0], current->thread);
    if (!engines_only) publish(of.gathered[1], current->thread);
  }
  settle(of, site);
}

void mbarrier_arrive(void* barrier, int arrivals, int bytes, void* caller) { arrive(barrier, arrivals, bytes, false, at(caller)); }
void mbarrier_arrive_async(void* barrier, void* caller) { arrive(barrier, 1, 0, true, at(caller)); }

void mbarrier_bytes_come(void* barrier, size_t bytes, uintptr_t site) {
  const auto found = barriers.find(reinterpret_cast<uintptr_t>(barrier));
  if (found == barriers.end()) fail("mbarrier", "the one that @%#zx signals was invalidated before", site);
  expect(found->second, -static_cast<int64_t>(bytes), site);
  settle(found->second, site);
}

// ---- waiting ---------------------------------------------------------------------------------------------------------

static bool is_over(const MBarrier& barrier, int parity) { return static_cast<int>(barrier.phase & 1) != (parity & 1); }

bool mbarrier_try_wait(void* barrier, int parity, void* caller) {
  MBarrier& waited = used(barrier, false, at(caller));
  if (!is_over(waited, parity)) give_way();
  if (!is_over(waited, parity)) return false;
  if (launch->check) acquire(waited.over[0], current->thread);
  return true;
}

void mbarrier_wait(void* barrier, int parity, bool of_cluster, Site site, void* caller) {
  MBarrier& waited = used(barrier, false, at(caller));
  while (!is_over(waited, parity)) {
    waited.waiting.push_back(current->thread);
    current->waits_for = barrier;
    wait("mbarrier_wait", site);
    current->waits_for = nullptr;
  }
  if (launch->check) acquire(waited.over[of_cluster], current->thread);
}

std::string describe_mbarrier(void* barrier) {
  const MBarrier& of = barriers.at(reinterpret_cast<uintptr_t>(barrier));
  char text[160];
  snprintf(text, sizeof text, ", where phase %u of the mbarrier initialised at @%#zx lacks %d of %d arrivals and %lld bytes",
           of.phase, of.site, of.missing, of.arrivals, static_cast<long long>(of.bytes));
  return text;
}

}  // namespace emulator
