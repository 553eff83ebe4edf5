// Check mode: every access to memory is held to the bounds of the launch's arrays and to the order that barriers,
// fences and atomics make.
//
// Each thread of the running block has a clock, which moves on at whatever publishes its work, and knows of the clocks
// of others: an access is ordered before another one if its clock is known to the other's thread (vector clocks).  A
// barrier of the whole block is by far the most frequent, so what everybody knows is kept once, in `known_to_all`, and
// a thread has a row of its own only after something else told it more.
//
// Blocks run one after another, but a card promises no order, so accesses of two blocks are ordered only by a fence and
// an atomic in the first, and an atomic on the same address and a fence in the second.

#include "runtime.h"

#include <stdio.h>

#include <algorithm>
#include <unordered_map>

namespace emulator {

// ---- who knows what --------------------------------------------------------------------------------------------------

struct Publication {  // made through the atomics on one address
  uintptr_t address;
  uint64_t acquired;  // by those who published: they pass it on
  std::unordered_map<uint32_t, std::vector<Clock>> of_cluster;
};

constexpr size_t MOST_PUBLICATIONS = 64;  // bits of `acquired`
constexpr int MOST_AGENTS = 511;

struct Knowledge {  // of a thread
  Clock clock;
  uint32_t row_of_barrier;  // since which barrier its row is its own
  bool fenced;
  uint64_t seen, acquired;  // publications: by an atomic, and by a fence after it
  uint64_t fenced_acquired;
  std::vector<Clock> fenced_row;  // what it knew at its last fence
  std::vector<Clock> proxy_fences, proxied_row;  // when its proxy fences were, and what it knew at the last
};

struct Agent {
  const char *title, *way_out;
};

static Knowledge knowledge[MOST_THREADS];
static std::vector<Clock> known_to_all, rows;
static std::vector<Publication> publications;
static std::vector<Agent> agents;
static int columns;  // of a row: threads, then room for agents
static uint32_t barrier_count = 1;

static Clock* row(int thread) { return &rows[static_cast<size_t>(thread) * columns]; }

static Clock known(int to, int of) {
  if (to == of) return knowledge[of].clock;
  return knowledge[to].row_of_barrier == barrier_count ? row(to)[of] : known_to_all[of];
}

static Clock* own_row(int thread) {
  if (knowledge[thread].row_of_barrier != barrier_count) {
    std::copy(known_to_all.begin(), known_to_all.end(), row(thread));
    knowledge[thread].row_of_barrier = barrier_count;
  }
  row(thread)[thread] = knowledge[thread].clock;
  return row(thread);
}

static void join(Clock* into, const Clock* from, size_t count) {
  for (size_t i = 0; i < count; i++) into[i] = std::max(into[i], from[i]);
}

static void join(std::vector<Clock>& into, const Clock* from) {
  into.resize(columns);
  join(into.data(), from, columns);
}

void order_everybody() {
  uint64_t acquired = 0;
  for (int thread = 0; thread < thread_count; thread++) {
    known_to_all[thread] = knowledge[thread].clock++;
    acquired |= knowledge[thread].acquired;
    if (knowledge[thread].row_of_barrier == barrier_count)
      join(known_to_all.data() + thread_count, row(thread) + thread_count, agents.size());
  }
  for (int thread = 0; thread < thread_count; thread++) knowledge[thread].acquired = acquired;
  barrier_count++;
}

void order_threads(const std::vector<int>& threads) {
  static std::vector<Clock> joined;
  joined.assign(columns, 0);
  uint64_t acquired = 0;
  for (int thread : threads) {
    join(joined, own_row(thread));
    acquired |= knowledge[thread].acquired;
  }
  for (int thread : threads) {
    std::copy(joined.begin(), joined.end(), row(thread));
    knowledge[thread].acquired = acquired;
    knowledge[thread].clock++;
  }
}

// What the atomics before it have seen can be relied on; what the thread did before can be published by those after it.
void order_fence() {
  Knowledge& mine = knowledge[current->thread];
  Clock* own = own_row(current->thread);
  for (size_t i = 0; i < publications.size(); i++) {
    if (!(mine.seen >> i & 1u)) continue;
    mine.acquired |= uint64_t(1) << i | publications[i].acquired;
    const auto of_this_cluster = publications[i].of_cluster.find(cluster_number);
    if (of_this_cluster != publications[i].of_cluster.end()) {
      of_this_cluster->second.resize(columns);
      join(own, of_this_cluster->second.data(), columns);
    }
  }
  mine.fenced = true;
  mine.fenced_acquired = mine.acquired;
  mine.fenced_row.assign(own, own + columns);
  mine.clock++;
}

void order_atomic(uintptr_t address) {
  Knowledge& mine = knowledge[current->thread];
  size_t i = 0;
  while (i < publications.size() && publications[i].address != address) i++;
  if (i == publications.size()) {
    if (i == MOST_PUBLICATIONS) return;
    publications.push_back({address, 0, {}});
  }
  mine.seen |= uint64_t(1) << i;
  if (!mine.fenced) return;
  publications[i].acquired |= mine.fenced_acquired;
  mine.fenced_row.resize(columns);
  join(publications[i].of_cluster[cluster_number], mine.fenced_row.data());
}

void release(Release& into) {
  join(into.row, own_row(current->thread));
  into.acquired |= knowledge[current->thread].acquired;
  knowledge[current->thread].clock++;
}

void acquire(const Release& from) {
  join(own_row(current->thread), from.row.data(), from.row.size());
  knowledge[current->thread].acquired |= from.acquired;
}

bool is_known(int thread, Clock clock) { return clock <= known(current->thread, thread); }
Clock clock_of(int thread) { return knowledge[thread].clock; }
void tick() { knowledge[current->thread].clock++; }

// ---- agents ----------------------------------------------------------------------------------------------------------

static void make_room_for_agents() {
  const int wider = columns + 32;
  std::vector<Clock> old(static_cast<size_t>(thread_count) * wider);
  old.swap(rows);
  for (int thread = 0; thread < thread_count; thread++)
    std::copy_n(&old[static_cast<size_t>(thread) * columns], columns, &rows[static_cast<size_t>(thread) * wider]);
  columns = wider;
  known_to_all.resize(columns);
}

int new_agent(const char* title, const char* way_out) {
  if (agents.size() == MOST_AGENTS)
    fail("too many", "the emulator watches %d mbarriers and groups of asynchronous operations of a cluster at most", MOST_AGENTS);
  const int agent = thread_count + static_cast<int>(agents.size());
  agents.push_back({title, way_out});
  if (agent >= columns) make_room_for_agents();
  return agent;
}

void agent_is_done(int agent, Clock clock, Release& into) {
  into.row.resize(columns);
  into.row[agent] = std::max(into.row[agent], clock);
}

void agent_is_done(int agent, Clock clock) {
  Clock& mine = own_row(current->thread)[agent];
  mine = std::max(mine, clock);
}

Issuers issuers(const std::vector<int>& threads) {
  Issuers by;
  for (int thread : threads) {
    const Clock* own = own_row(thread);
    auto& proxied = knowledge[thread].proxied_row;
    proxied.resize(columns);
    if (by.known.empty()) by = {std::vector<Clock>(own, own + columns), proxied};
    for (int i = 0; i < columns; i++) {
      by.known[i] = std::min(by.known[i], own[i]);
      by.fenced[i] = std::min(by.fenced[i], proxied[i]);
    }
  }
  return by;
}

// Agents see what threads wrote before a proxy fence.
void order_proxy_fence() {
  Knowledge& mine = knowledge[current->thread];
  const Clock* own = own_row(current->thread);
  mine.proxy_fences.push_back(mine.clock);
  mine.proxied_row.assign(own, own + columns);
  mine.clock++;
}

static bool seen_by_agents(int thread, Clock written, const Issuers& by) {
  if (written <= by.fenced[thread]) return true;
  const auto& fences = knowledge[thread].proxy_fences;
  const auto after = std::lower_bound(fences.begin(), fences.end(), written);
  return after != fences.end() && *after <= by.known[thread];
}

// ---- the history of each piece of memory -----------------------------------------------------------------------------

// Threads are named cluster << name_bits | thread + 1; 0 is nobody.  A site is an address in the kernel's library.
struct Cell {
  uint32_t writer, reader, other_reader;
  Clock written, read, other_read;
  uint32_t write_site : 30, write_kind : 2;
  uint32_t read_site;
};

struct Region {
  uintptr_t begin, end;
  const Array* array;
  int rank;   // of the block whose dynamic shared memory it is; -1 for other memory
  int shift;  // a cell is 1 << shift bytes: as fine as the accesses that were seen
  std::vector<Cell> cells;
  bool foreign;  // whether other blocks or agents were in it
};

struct Actor {  // a thread, or an agent and those who sent it
  uint32_t name;
  Clock clock;
  const Issuers* by;  // null for a thread
};

static std::vector<Region> regions;
static Region* last_region;

static int name_bits;

static uint32_t thread_name(int thread) { return cluster_number << name_bits | static_cast<uint32_t>(thread + 1); }
static uint32_t cluster_of(uint32_t name) { return name >> name_bits; }
static int thread_of(uint32_t name) { return static_cast<int>(name & ((1u << name_bits) - 1)) - 1; }
static bool same_warp(uint32_t a, uint32_t b) { return cluster_of(a) == cluster_of(b) && thread_of(a) / 32 == thread_of(b) / 32; }

static Region* find(uintptr_t address, size_t bytes) {
  if (last_region && address >= last_region->begin && address + bytes <= last_region->end) return last_region;
  for (Region& region : regions)
    if (address >= region.begin && address + bytes <= region.end) return last_region = &region;
  return nullptr;
}

static void refine(Region& region) {
  std::vector<Cell> finer(region.cells.size() * 2);
  for (size_t i = 0; i < finer.size(); i++) finer[i] = region.cells[i / 2];
  region.cells.swap(finer);
  region.shift--;
}

// Whether an access of `other` when its clock stood at `clock` is over for the actor.
static bool ordered(uint32_t other, Clock clock, const Actor& actor) {
  if (!other) return true;
  const int me = current->thread, them = thread_of(other);
  if (cluster_of(other) == cluster_number) return clock <= (actor.by ? actor.by->known[them] : known(me, them));
  for (size_t i = 0; i < publications.size(); i++) {
    if (!(knowledge[me].acquired >> i & 1u)) continue;
    const auto found = publications[i].of_cluster.find(cluster_of(other));
    if (found == publications[i].of_cluster.end()) continue;
    if (them < static_cast<int>(found->second.size()) && clock <= found->second[them]) return true;
  }
  return false;
}

// ---- findings --------------------------------------------------------------------------------------------------------

// @ and an address is replaced by file and line in library.py.
static const char* place(const Region& region, uintptr_t address) {
  static char text[128];
  const size_t offset = address - region.begin;
  const size_t element = static_cast<size_t>(region.array->element_bytes);
  if (element)
    snprintf(text, sizeof text, "%s[%zu]", region.array->name, offset / element);
  else
    snprintf(text, sizeof text, "byte %zu of %s", offset, region.array->name);
  return text;
}

static bool is_agent(uint32_t name) { return thread_of(name) >= thread_count; }

static const char* who(uint32_t name) {
  if (is_agent(name)) return cluster_of(name) == cluster_number ? agents[thread_of(name) - thread_count].title : "an agent of another cluster";
  if (cluster_of(name) == cluster_number) return thread_title(thread_of(name));
  static char text[64];
  const int thread = thread_of(name);
  snprintf(text, sizeof text, "thread %d of block %u", in_block(thread), block_in_grid(cluster_of(name), fibers[thread].rank));
  return text;
}

static const char* did(Access kind) { return kind == Access::read ? "reads" : kind == Access::write ? "writes" : "changes"; }

[[noreturn]] static void race(const Region& region, uintptr_t address, Access kind, uintptr_t site, const Actor& actor,
                              uint32_t other, bool wrote, uint32_t other_site) {
  const bool wait = is_agent(other) && cluster_of(other) == cluster_number;
  fail("race", "%s %s %s at @%#zx; %s %s it at @%#x, and nothing orders the two%s%s", who(actor.name), did(kind),
       place(region, address), site, who(other), wrote ? "wrote" : "read", other_site, wait ? ": wait with " : "",
       wait ? agents[thread_of(other) - thread_count].way_out : "");
}

[[noreturn]] static void out_of_bounds(uintptr_t address, size_t bytes, Access kind, uintptr_t site) {
  const Region* nearest = nullptr;
  size_t least = ~size_t(0);
  for (const Region& region : regions) {
    const size_t distance = address < region.begin ? region.begin - address : address + bytes - region.end;
    if (distance < least) least = distance, nearest = &region;
  }
  if (!nearest || least > size_t(1) << 40)
    fail("out of bounds", "%s %zu bytes at @%#zx in no array of the launch", did(kind), bytes, site);
  fail("out of bounds", "%s %zu bytes at @%#zx, up to %zu bytes %s %s of %zu bytes", did(kind), bytes, site, least,
       address < nearest->begin ? "before" : "past the end of", nearest->array->name, nearest->end - nearest->begin);
}

// ---- the check of an access ------------------------------------------------------------------------------------------

static bool in_order(uint32_t other, Clock clock, const Actor& me) {
  return (other == me.name && !me.by) || ordered(other, clock, me);
}

static void check_read(Cell& cell, Region& region, uintptr_t address, uintptr_t site, const Actor& me) {
  if (!in_order(cell.writer, cell.written, me))
    race(region, address, Access::read, site, me, cell.writer, true, cell.write_site);
  if (me.by && cell.writer && !is_agent(cell.writer) && cluster_of(cell.writer) == cluster_number &&
      !seen_by_agents(thread_of(cell.writer), cell.written, *me.by))
    fail("proxy", "%s reads %s at @%#zx, which %s wrote at @%#x: agents may not see it without fence_proxy_async, called by the "
         "writer before the two meet", who(me.name), place(region, address), site, who(cell.writer), cell.write_site);
  if (cell.reader != me.name) {
    // a second reader is remembered, best one of another warp than the last
    if (cell.reader && !ordered(cell.reader, cell.read, me) &&
        (!cell.other_reader || !same_warp(cell.reader, me.name) || ordered(cell.other_reader, cell.other_read, me))) {
      cell.other_reader = cell.reader;
      cell.other_read = cell.read;
    }
    cell.reader = me.name;
  }
  cell.read = me.clock;
  cell.read_site = static_cast<uint32_t>(site);
}

static void check_write(Cell& cell, Region& region, uintptr_t address, Access kind, uintptr_t site, const Actor& me) {
  const bool atomic = kind >= Access::atomic;
  const auto before = static_cast<Access>(cell.write_kind);
  if (!in_order(cell.writer, cell.written, me)) {
    if (!atomic || before < Access::atomic) race(region, address, kind, site, me, cell.writer, true, cell.write_site);
    if (kind == Access::float_atomic || before == Access::float_atomic)
      fail("order of atomics", "%s adds to %s at @%#zx, %s added at @%#x: floating-point sums depend on the order, "
           "and nothing orders the two", who(me.name), place(region, address), site, who(cell.writer), cell.write_site);
  }
  if (!in_order(cell.reader, cell.read, me)) race(region, address, kind, site, me, cell.reader, false, cell.read_site);
  if (!in_order(cell.other_reader, cell.other_read, me))
    race(region, address, kind, site, me, cell.other_reader, false, cell.read_site);
  cell.writer = me.name;
  cell.written = me.clock;
  cell.write_site = static_cast<uint32_t>(site);
  cell.write_kind = static_cast<uint32_t>(kind);
  cell.reader = cell.other_reader = 0;
}

// Another block's shared memory is there from the block's beginning to its end.
static void check_life(Region& region, uintptr_t address, Access kind, uintptr_t site, const Actor& me) {
  const int first = block_first(region.rank);
  bool begun = false;
  for (int thread = first; thread < first + block_threads && !begun; thread++) begun = ordered(thread_name(thread), 1, me);
  if (running[region.rank] && begun) return;
  fail("life of a block", "%s %s %s at @%#zx, but that block may have %s: end with barrier_cluster where others still are in its "
       "shared memory", who(me.name), did(kind), place(region, address), site, running[region.rank] ? "not begun yet" : "returned");
}

static void check(uintptr_t address, size_t bytes, Access kind, uintptr_t site, const Actor& me) {
  launch->accesses++;
  Region* region = find(address, bytes);
  if (!region) out_of_bounds(address, bytes, kind, site);
  if (kind != Access::read && !region->array->written)
    fail("write to an input", "%s %s at @%#zx, which the kernel declares const or does not list among its outputs", did(kind),
         place(*region, address), site);
  if (region->rank >= 0 && (me.by || region->rank != current->rank)) {
    region->foreign = true;
    if (region->rank != current->rank) check_life(*region, address, kind, site, me);
  }
  const size_t offset = address - region->begin;
  while ((offset | bytes) & ((size_t(1) << region->shift) - 1)) refine(*region);
  for (size_t i = offset >> region->shift, end = (offset + bytes) >> region->shift; i < end; i++) {
    Cell& cell = region->cells[i];
    if (region->array->shared && cluster_of(cell.writer) != cluster_number) cell = {};  // a new block, a new history
    if (region->array->shared && !cell.writer && kind != Access::write)
      fail("uninitialised", "%s %s %s at @%#zx before anything was written there", who(me.name), did(kind),
           place(*region, address), site);
    if (kind == Access::read)
      check_read(cell, *region, address, site, me);
    else
      check_write(cell, *region, address, kind, site, me);
  }
}

void access(const volatile void* pointer, size_t bytes, Access kind, void* return_address) {
  if (!current || !launch->check) return;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (on_a_stack(address)) return;
  check(address, bytes, kind, reinterpret_cast<uintptr_t>(return_address) - launch->library,
        {thread_name(current->thread), knowledge[current->thread].clock, nullptr});
}

void agent_access(int agent, Clock clock, const Issuers& by, const volatile void* pointer, size_t bytes, Access kind,
                  uintptr_t site) {
  check(reinterpret_cast<uintptr_t>(pointer), bytes, kind, site, {thread_name(agent), clock, &by});
}

// A block's shared memory ends with it.
void check_exit(int rank) {
  for (Region& region : regions) {
    if (region.rank != rank || !region.foreign) continue;
    std::vector<Clock> known_to_block(columns);
    for (int thread = block_first(rank); thread < block_first(rank) + block_threads; thread++)
      join(known_to_block, own_row(thread));
    const auto over = [&](uint32_t name, Clock clock) {
      return !name || cluster_of(name) != cluster_number || clock <= known_to_block[thread_of(name)];
    };
    for (size_t i = 0; i < region.cells.size(); i++) {
      const Cell& cell = region.cells[i];
      const bool written = over(cell.writer, cell.written);
      if (written && over(cell.reader, cell.read)) continue;
      const uint32_t other = written ? cell.reader : cell.writer;
      fail("life of a block", "block %u returns, but %s may still %s %s at @%#x: wait with %s", block_in_grid(cluster_number, rank),
           who(other), written ? "read" : "write", place(region, region.begin + (i << region.shift)),
           written ? cell.read_site : cell.write_site,
           is_agent(other) ? agents[thread_of(other) - thread_count].way_out : "barrier_cluster");
    }
    region.foreign = false;
  }
}

// ---- a launch and its blocks -----------------------------------------------------------------------------------------

void begin_checks() {
  regions.clear();
  last_region = nullptr;
  publications.clear();
  for (int i = 0; i < launch->array_count; i++) {
    const Array& array = launch->arrays[i];
    if (!array.bytes) continue;
    const auto begin = reinterpret_cast<uintptr_t>(array.address);
    const int rank = array.shared ? rank_of_shared(begin) : -1;
    regions.push_back({begin, begin + array.bytes, &array, rank, 3, std::vector<Cell>((array.bytes >> 3) + 1), false});
  }
  name_bits = 1;
  while ((thread_count + MOST_AGENTS) >> name_bits) name_bits++;
  columns = thread_count;
  rows.resize(std::max(rows.size(), static_cast<size_t>(thread_count) * columns));
  known_to_all.resize(columns);
}

void begin_cluster_checks() {
  barrier_count++;
  std::fill(known_to_all.begin(), known_to_all.end(), 0);
  for (int thread = 0; thread < thread_count; thread++) {
    Knowledge& of = knowledge[thread];
    of.clock = 1;
    of.row_of_barrier = 0;
    of.fenced = false;
    of.seen = of.acquired = of.fenced_acquired = 0;
    of.proxy_fences.clear();
    of.proxied_row.clear();
  }
  agents.clear();
}

void end_checks() { regions.clear(); }

}  // namespace emulator
