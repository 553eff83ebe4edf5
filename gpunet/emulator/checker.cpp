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

using Clock = uint32_t;

struct Publication {  // made through the atomics on one address
  uintptr_t address;
  uint64_t acquired;  // by those who published: they pass it on
  std::unordered_map<uint32_t, std::vector<Clock>> of_block;
};

constexpr size_t MOST_PUBLICATIONS = 64;  // bits of `acquired`

struct Knowledge {  // of a thread
  Clock clock;
  uint32_t row_of_barrier;  // since which barrier its row is its own
  bool fenced;
  uint64_t seen, acquired;  // publications: by an atomic, and by a fence after it
  uint64_t fenced_acquired;
  std::vector<Clock> fenced_row;  // what it knew at its last fence
};

static Knowledge knowledge[MOST_THREADS];
static std::vector<Clock> known_to_all, rows;
static std::vector<Publication> publications;
static uint32_t barrier_count = 1;
static Clock engine_clocks[MOST_ENGINES];
static bool engines_work;  // or did, in this block

// An agent is a thread or, from MOST_THREADS on, an engine: rows have a column for each.
static int columns() { return thread_count + MOST_ENGINES; }
static int column(int agent) { return agent < MOST_THREADS ? agent : thread_count + agent - MOST_THREADS; }
static Clock clock_of(int agent) {
  return agent < MOST_THREADS ? knowledge[agent].clock : engine_clocks[agent - MOST_THREADS];
}

static Clock* row(int thread) { return &rows[static_cast<size_t>(thread) * columns()]; }

static Clock known(int to, int of) {
  if (to == of) return knowledge[of].clock;
  return (knowledge[to].row_of_barrier == barrier_count ? row(to) : known_to_all.data())[column(of)];
}

static Clock* own_row(int thread) {
  if (knowledge[thread].row_of_barrier != barrier_count) {
    std::copy(known_to_all.begin(), known_to_all.end(), row(thread));
    knowledge[thread].row_of_barrier = barrier_count;
  }
  row(thread)[thread] = knowledge[thread].clock;
  return row(thread);
}

static void join(Clock* into, const Clock* from) {
  for (int i = 0; i < columns(); i++) into[i] = std::max(into[i], from[i]);
}

void order_block() {
  uint64_t acquired = 0;
  for (int thread = 0; thread < thread_count; thread++) {
    acquired |= knowledge[thread].acquired;
    if (engines_work && knowledge[thread].row_of_barrier == barrier_count) join(known_to_all.data(), row(thread));
  }
  for (int thread = 0; thread < thread_count; thread++) known_to_all[thread] = knowledge[thread].clock++;
  for (int thread = 0; thread < thread_count; thread++) knowledge[thread].acquired = acquired;
  barrier_count++;
}

void order_threads(const std::vector<int>& threads) {
  static Order all;
  std::fill(all.clocks.begin(), all.clocks.end(), 0);
  all.acquired = 0;
  for (int thread : threads) publish(all, thread);
  for (int thread : threads) acquire(all, thread);
}

void publish(Order& order, int thread) {
  order.clocks.resize(columns());
  join(order.clocks.data(), own_row(thread));
  order.acquired |= knowledge[thread].acquired;
  knowledge[thread].clock++;
}

void publish_engine(Order& order, int engine) {
  order.clocks.resize(columns());
  order.clocks[thread_count + engine] = engine_clocks[engine]++;
}

void acquire(const Order& order, int thread) {
  if (order.clocks.empty()) return;
  join(own_row(thread), order.clocks.data());
  knowledge[thread].acquired |= order.acquired;
}

// What the atomics before it have seen can be relied on; what the thread did before can be published by those after it.
void order_fence() {
  Knowledge& mine = knowledge[current->thread];
  Clock* own = own_row(current->thread);
  for (size_t i = 0; i < publications.size(); i++) {
    if (!(mine.seen >> i & 1u)) continue;
    mine.acquired |= uint64_t(1) << i | publications[i].acquired;
    const auto of_this_block = publications[i].of_block.find(block_number);
    if (of_this_block != publications[i].of_block.end()) join(own, of_this_block->second.data());
  }
  mine.fenced = true;
  mine.fenced_acquired = mine.acquired;
  mine.fenced_row.assign(own, own + columns());
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
  auto& published = publications[i].of_block[block_number];
  published.resize(columns());
  join(published.data(), mine.fenced_row.data());
}

// ---- the history of each piece of memory -----------------------------------------------------------------------------

// Agents are named block << 11 | agent + 1; 0 is nobody.  A site is an address in the kernel's library.
struct Cell {
  uint32_t writer, reader, other_reader;
  Clock written, read, other_read;
  uint32_t write_site : 30, write_kind : 2;
  uint32_t read_site : 30;
  uint32_t pending : 1, source : 1;  // whether a transfer may be writing it, reading it
};

struct Region {
  uintptr_t begin, end;
  const Array* array;
  int shift;  // a cell is 1 << shift bytes: as fine as the accesses that were seen
  std::vector<Cell> cells;
};

constexpr uint32_t MOST_BLOCKS = 1u << 21;

static std::vector<Region> regions;
static Region* last_region;

static uint32_t name_of(int agent) { return block_number << 11 | static_cast<uint32_t>(agent + 1); }
static uint32_t block_of(uint32_t name) { return name >> 11; }
static int agent_of(uint32_t name) { return static_cast<int>(name & 2047) - 1; }
static bool same_warp(uint32_t a, uint32_t b) { return block_of(a) == block_of(b) && agent_of(a) / 32 == agent_of(b) / 32; }

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

// Whether an access of thread `other` when its clock stood at `clock` is over for the current thread.
static bool ordered(uint32_t other, Clock clock) {
  if (!other) return true;
  const int me = current->thread;
  if (block_of(other) == block_number) return clock <= known(me, agent_of(other));
  for (size_t i = 0; i < publications.size(); i++) {
    if (!(knowledge[me].acquired >> i & 1u)) continue;
    const auto found = publications[i].of_block.find(block_of(other));
    if (found != publications[i].of_block.end() && clock <= found->second[column(agent_of(other))]) return true;
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

static const char* who(uint32_t name) {
  static char text[64];
  const int length = agent_of(name) < MOST_THREADS ? snprintf(text, sizeof text, "thread %d", agent_of(name))
                                                   : snprintf(text, sizeof text, "an asynchronous copy");
  if (block_of(name) != block_number) snprintf(text + length, sizeof text - length, " of block %u", block_of(name));
  return text;
}

static const char* did(Access kind) { return kind == Access::read ? "reads" : kind == Access::write ? "writes" : "changes"; }

[[noreturn]] static void race(const Region& region, uintptr_t address, Access kind, uintptr_t site, uint32_t other, bool wrote,
                              uint32_t other_site) {
  fail("race", "thread %d %s %s at @%#zx; %s %s it at @%#x, and nothing orders the two", current->thread, did(kind),
       place(region, address), site, who(other), wrote ? "wrote" : "read", other_site);
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

static void note_read(Cell& cell, uintptr_t site, int agent) {
  const uint32_t me = name_of(agent);
  if (cell.reader != me) {
    // a second reader is remembered, best one of another warp than the last
    if (cell.reader && !ordered(cell.reader, cell.read) &&
        (!cell.other_reader || !same_warp(cell.reader, me) || ordered(cell.other_reader, cell.other_read))) {
      cell.other_reader = cell.reader;
      cell.other_read = cell.read;
    }
    cell.reader = me;
  }
  cell.read = clock_of(agent);
  cell.read_site = static_cast<uint32_t>(site);
}

static void note_write(Cell& cell, Access kind, uintptr_t site, int agent) {
  cell.writer = name_of(agent);
  cell.written = clock_of(agent);
  cell.write_site = static_cast<uint32_t>(site);
  cell.write_kind = static_cast<uint32_t>(kind);
  cell.reader = cell.other_reader = 0;
}

static void check_read(const Cell& cell, const Region& region, uintptr_t address, uintptr_t site, uint32_t me) {
  if (cell.writer != me && !ordered(cell.writer, cell.written))
    race(region, address, Access::read, site, cell.writer, true, cell.write_site);
}

static void check_write(const Cell& cell, const Region& region, uintptr_t address, Access kind, uintptr_t site, uint32_t me) {
  const bool atomic = kind >= Access::atomic;
  const auto before = static_cast<Access>(cell.write_kind);
  if (cell.writer != me && !ordered(cell.writer, cell.written)) {
    if (!atomic || before < Access::atomic) race(region, address, kind, site, cell.writer, true, cell.write_site);
    if (kind == Access::float_atomic || before == Access::float_atomic)
      fail("order of atomics", "thread %d adds to %s at @%#zx, %s added at @%#x: floating-point sums depend on the order, "
           "and nothing orders the two", current->thread, place(region, address), site, who(cell.writer), cell.write_site);
  }
  if (cell.reader != me && !ordered(cell.reader, cell.read))
    race(region, address, kind, site, cell.reader, false, cell.read_site);
  if (cell.other_reader != me && !ordered(cell.other_reader, cell.other_read))
    race(region, address, kind, site, cell.other_reader, false, cell.read_site);
}

// The marks say that a transfer may be there: whether one is, the transfers themselves know.
static void check_transfers(Cell& cell, const Region& region, uintptr_t address, Access kind, uintptr_t site) {
  const uintptr_t begin = region.begin + (static_cast<uintptr_t>(&cell - region.cells.data()) << region.shift);
  const size_t bytes = size_t(1) << region.shift;
  if (const Transfer* to = transfer_at(begin, bytes, true))
    fail("not waited for", "thread %d %s %s at @%#zx; the asynchronous copy to it that thread %d started at @%#zx is not complete: "
         "it was not waited for", current->thread, did(kind), place(region, address), site, to->thread, to->site);
  cell.pending = 0;
  if (kind == Access::read) return;
  if (const Transfer* from = transfer_at(begin, bytes, false))
    fail("not waited for", "thread %d %s %s at @%#zx; the asynchronous copy from it that thread %d started at @%#zx is not "
         "complete: it was not waited for", current->thread, did(kind), place(region, address), site, from->thread, from->site);
  cell.source = 0;
}

static void check(uintptr_t address, size_t bytes, Access kind, uintptr_t site) {
  launch->accesses++;
  Region* region = find(address, bytes);
  if (!region) out_of_bounds(address, bytes, kind, site);
  if (kind != Access::read && !region->array->written)
    fail("write to an input", "%s %s at @%#zx, which the kernel declares const or does not list among its outputs", did(kind),
         place(*region, address), site);
  const size_t offset = address - region->begin;
  while ((offset | bytes) & ((size_t(1) << region->shift) - 1)) refine(*region);
  const uint32_t me = name_of(current->thread);
  for (size_t i = offset >> region->shift, end = (offset + bytes) >> region->shift; i < end; i++) {
    Cell& cell = region->cells[i];
    if (region->array->shared && block_of(cell.writer) != block_number) cell = {};  // a new block, a new history
    if (region->array->shared && !cell.writer && kind != Access::write)
      fail("uninitialised", "thread %d %s %s at @%#zx before anything was written there", current->thread, did(kind),
           place(*region, address), site);
    if (cell.pending || (cell.source && kind != Access::read)) check_transfers(cell, *region, address, kind, site);
    if (kind == Access::read) {
      check_read(cell, *region, address, site, me);
      note_read(cell, site, current->thread);
    } else {
      check_write(cell, *region, address, kind, site, me);
      note_write(cell, kind, site, current->thread);
    }
  }
}

void access(const volatile void* pointer, size_t bytes, Access kind, void* return_address) {
  if (!current || !launch->check) return;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (!on_a_stack(address)) check(address, bytes, kind, reinterpret_cast<uintptr_t>(return_address) - launch->library);
}

void need_shared(const void* pointer, const char* what, void* return_address) {
  if (!launch->check) return;
  const auto address = reinterpret_cast<uintptr_t>(pointer), site = reinterpret_cast<uintptr_t>(return_address) - launch->library;
  if (on_a_stack(address)) fail("not shared memory", "%s at @%#zx is given the address of a local variable", what, site);
  const Region* region = find(address, 1);
  if (region && !region->array->shared)
    fail("not shared memory", "%s at @%#zx is given the address of %s", what, site, place(*region, address));
}

// ---- transfers -------------------------------------------------------------------------------------------------------

template <class Change>
static void change_cells(const Range& range, Change change) {
  Region* region = find(range.address, range.bytes);
  const size_t offset = range.address - region->begin;
  for (size_t i = offset >> region->shift, end = (offset + range.bytes) >> region->shift; i < end; i++)
    change(region->cells[i]);
}

void check_start(const Transfer& transfer) {
  for (const Range& range : transfer.ranges) {
    check(range.address, range.bytes, range.written ? Access::write : Access::read, transfer.site);
    change_cells(range, [&](Cell& cell) { if (range.written) cell.pending = 1; else cell.source = 1; });
  }
}

void check_complete(const Transfer& transfer, int agent) {
  if (agent >= MOST_THREADS) engines_work = true;
  for (const Range& range : transfer.ranges)
    change_cells(range, [&](Cell& cell) {
      if (!range.written) return note_read(cell, transfer.site, agent);
      cell.pending = 0;
      note_write(cell, Access::write, transfer.site, agent);
    });
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
    regions.push_back({begin, begin + array.bytes, &array, 3, std::vector<Cell>((array.bytes >> 3) + 1)});
  }
  rows.resize(std::max(rows.size(), static_cast<size_t>(thread_count) * columns()));
  known_to_all.resize(columns());
}

void begin_block_checks() {
  barrier_count++;
  std::fill(known_to_all.begin(), known_to_all.end(), 0);
  std::fill(engine_clocks, engine_clocks + MOST_ENGINES, 1);
  engines_work = false;
  for (int thread = 0; thread < thread_count; thread++) {
    Knowledge& of = knowledge[thread];
    of.clock = 1;
    of.row_of_barrier = 0;
    of.fenced = false;
    of.seen = of.acquired = of.fenced_acquired = 0;
  }
}

void end_checks() { regions.clear(); }

}  // namespace emulator
