// Check mode: checks every memory access against the bounds of the launch's arrays, and for races: accesses that are not
// ordered by barriers, fences or atomics.

#include "clocks.h"

#include <stdio.h>

#include <algorithm>

namespace emulator {

// ---- the access history of memory ------------------------------------------------------------------------------------

// The last accesses of a few bytes.  Agents are named cluster << name_bits | column + 1; 0 means none.  A site is an address
// in the kernel's library.
struct Cell {
  uint32_t writer, reader, other_reader;
  Clock written, read, other_read;
  uint32_t write_site : 30, write_kind : 2;
  uint32_t read_site : 30;
  uint32_t pending : 1, source : 1;  // whether a pending transfer may write to it, read from it
};

struct Region {
  uintptr_t begin, end;
  const Array* array;
  int rank;   // rank of the block whose dynamic shared memory it is; -1 for other memory
  int shift;  // a cell covers 1 << shift bytes, the granularity of the finest access so far
  std::vector<Cell> cells;
  bool foreign;  // whether other blocks or transfers have accessed it
};

static std::vector<Region> regions;
static Region* last_region;

static int name_bits;  // bits for the agents of one cluster: 11 for a block of 1024 threads, which allows 2^21 blocks

static uint32_t name_of(int agent) { return cluster_number << name_bits | static_cast<uint32_t>(column(agent) + 1); }
static uint32_t cluster_of(uint32_t name) { return name >> name_bits; }
static int column_of(uint32_t name) { return static_cast<int>(name & ((1u << name_bits) - 1)) - 1; }
static bool same_warp(uint32_t a, uint32_t b) {
  return cluster_of(a) == cluster_of(b) && column_of(a) / 32 == column_of(b) / 32;
}

static bool same_block(uint32_t a, uint32_t b) {
  return cluster_of(a) == cluster_of(b) && column_of(a) / block_slots == column_of(b) / block_slots;
}

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

// Whether an access of agent `other` at its clock `clock` is ordered before the current thread's accesses.
static bool ordered(uint32_t other, Clock clock) {
  if (!other) return true;
  if (cluster_of(other) == cluster_number) return clock <= known_clock(current->thread, column_of(other));
  return is_published(cluster_of(other), column_of(other), clock);
}

// ---- findings --------------------------------------------------------------------------------------------------------

// library.py replaces an @ followed by an address by file and line.
static const char* element_title(const Region& region, uintptr_t address) {
  static char text[128];
  const size_t offset = address - region.begin;
  const size_t element = static_cast<size_t>(region.array->element_bytes);
  if (element)
    snprintf(text, sizeof text, "%s[%zu]", region.array->name, offset / element);
  else
    snprintf(text, sizeof text, "byte %zu of %s", offset, region.array->name);
  return text;
}

static const char* agent_title(uint32_t name) {
  static char text[64];
  const int thread = column_of(name);
  if (thread >= thread_count) return "an asynchronous copy";
  if (cluster_of(name) == cluster_number) return thread_title(thread);
  snprintf(text, sizeof text, "thread %d of block %u", index_in_block(thread), block_in_grid(cluster_of(name), fibers[thread].rank));
  return text;
}
static const char* current_title() { return thread_title(current->thread); }

static const char* verb(Access kind) { return kind == Access::read ? "reads" : kind == Access::write ? "writes" : "changes"; }

[[noreturn]] static void fail_race(const Region& region, uintptr_t address, Access kind, uintptr_t site, uint32_t other,
                                   bool wrote, uint32_t other_site) {
  fail("race", "%s %s %s at @%#zx; %s %s it at @%#x, and nothing orders the two", current_title(), verb(kind),
       element_title(region, address), site, agent_title(other), wrote ? "wrote" : "read", other_site);
}

[[noreturn]] static void fail_out_of_bounds(uintptr_t address, size_t bytes, Access kind, uintptr_t site) {
  const Region* nearest = nullptr;
  size_t least = ~size_t(0);
  for (const Region& region : regions) {
    const size_t distance = address < region.begin ? region.begin - address : address + bytes - region.end;
    if (distance < least) least = distance, nearest = &region;
  }
  if (!nearest || least > size_t(1) << 40)
    fail("out of bounds", "%s %zu bytes at @%#zx outside all arrays of the launch", verb(kind), bytes, site);
  fail("out of bounds", "%s %zu bytes at @%#zx, up to %zu bytes %s %s of %zu bytes", verb(kind), bytes, site, least,
       address < nearest->begin ? "before" : "past the end of", nearest->array->name, nearest->end - nearest->begin);
}

// ---- the check of an access ------------------------------------------------------------------------------------------

static void record_read(Cell& cell, uintptr_t site, int agent) {
  const uint32_t me = name_of(agent);
  if (cell.reader != me) {
    // also keep a second reader, preferably of another block or warp than the last one
    if (cell.reader && !ordered(cell.reader, cell.read) &&
        (!cell.other_reader || ordered(cell.other_reader, cell.other_read) ||
         (!same_warp(cell.reader, me) && same_block(cell.other_reader, me)))) {
      cell.other_reader = cell.reader;
      cell.other_read = cell.read;
    }
    cell.reader = me;
  }
  cell.read = clock_of(agent);
  cell.read_site = static_cast<uint32_t>(site);
}

static void record_write(Cell& cell, Access kind, uintptr_t site, int agent) {
  cell.writer = name_of(agent);
  cell.written = clock_of(agent);
  cell.write_site = static_cast<uint32_t>(site);
  cell.write_kind = static_cast<uint32_t>(kind);
  cell.reader = cell.other_reader = 0;
}

static void check_read(const Cell& cell, const Region& region, uintptr_t address, uintptr_t site, uint32_t me) {
  if (cell.writer != me && !ordered(cell.writer, cell.written))
    fail_race(region, address, Access::read, site, cell.writer, true, cell.write_site);
}

static void check_write(const Cell& cell, const Region& region, uintptr_t address, Access kind, uintptr_t site, uint32_t me) {
  const bool atomic = kind >= Access::atomic;
  const auto before = static_cast<Access>(cell.write_kind);
  if (cell.writer != me && !ordered(cell.writer, cell.written)) {
    if (!atomic || before < Access::atomic) fail_race(region, address, kind, site, cell.writer, true, cell.write_site);
    if (kind == Access::float_atomic || before == Access::float_atomic)
      fail("order of atomics", "%s adds to %s at @%#zx, %s added at @%#x: floating-point sums depend on the order, "
           "and nothing orders the two", current_title(), element_title(region, address), site, agent_title(cell.writer),
           cell.write_site);
  }
  if (cell.reader != me && !ordered(cell.reader, cell.read))
    fail_race(region, address, kind, site, cell.reader, false, cell.read_site);
  if (cell.other_reader != me && !ordered(cell.other_reader, cell.other_read))
    fail_race(region, address, kind, site, cell.other_reader, false, cell.read_site);
}

// The cell's flags say that a transfer may be pending; look for it among the transfers.
static void check_transfers(Cell& cell, const Region& region, uintptr_t address, Access kind, uintptr_t site) {
  const uintptr_t begin = region.begin + (static_cast<uintptr_t>(&cell - region.cells.data()) << region.shift);
  const size_t bytes = size_t(1) << region.shift;
  if (const Transfer* to = transfer_at(begin, bytes, true))
    fail("not waited for", "%s %s %s at @%#zx; the asynchronous copy to it that %s started at @%#zx is not complete: "
         "it was not waited for", current_title(), verb(kind), element_title(region, address), site, thread_title(to->thread),
         to->site);
  cell.pending = 0;
  if (kind == Access::read) return;
  if (const Transfer* from = transfer_at(begin, bytes, false))
    fail("not waited for", "%s %s %s at @%#zx; the asynchronous copy from it that %s started at @%#zx is not "
         "complete: it was not waited for", current_title(), verb(kind), element_title(region, address), site,
         thread_title(from->thread), from->site);
  cell.source = 0;
}

// Checks that the block whose shared memory is accessed has started and cannot have returned.
static void check_block_alive(Region& region, uintptr_t address, Access kind, uintptr_t site) {
  region.foreign = true;
  bool begun = false;
  for (int first = first_thread(region.rank), thread = first; thread < first + block_threads && !begun; thread++)
    begun = known_clock(current->thread, thread) > 0;
  if (begun && running[region.rank]) return;
  fail("block lifetime", "%s %s %s at @%#zx, but that block may %s: synchronise the cluster (cluster_arrive, cluster_wait) %s its "
       "blocks access each other's shared memory", current_title(), verb(kind), element_title(region, address), site,
       begun ? "have returned" : "not have started", begun ? "after" : "before");
}

// READ_NOW is false for the reads of a transfer, which are recorded when it completes.
template <bool READ_NOW>
static void check(uintptr_t address, size_t bytes, Access kind, uintptr_t site) {
  launch->accesses++;
  Region* region = find(address, bytes);
  if (!region) fail_out_of_bounds(address, bytes, kind, site);
  if (kind != Access::read && !region->array->written)
    fail("write to an input", "%s %s at @%#zx, which the kernel declares const or does not list among its outputs", verb(kind),
         element_title(*region, address), site);
  if (region->rank >= 0 && region->rank != current->rank) check_block_alive(*region, address, kind, site);
  const size_t offset = address - region->begin;
  if (READ_NOW && linting()) lint_access(address, bytes, kind, site, region->array->shared);
  while ((offset | bytes) & ((size_t(1) << region->shift) - 1)) refine(*region);
  const uint32_t my_name = name_of(current->thread);
  for (size_t i = offset >> region->shift, end = (offset + bytes) >> region->shift; i < end; i++) {
    Cell& cell = region->cells[i];
    if (region->array->shared && cluster_of(cell.writer) != cluster_number) cell = {};  // history of an earlier block
    if (region->array->shared && !cell.writer && kind != Access::write && !launch->unset_allowed)
      fail("uninitialised", "%s %s %s at @%#zx before anything was written there", current_title(), verb(kind),
           element_title(*region, address), site);
    if (cell.pending || (cell.source && kind != Access::read)) check_transfers(cell, *region, address, kind, site);
    if (kind == Access::read) {
      check_read(cell, *region, address, site, my_name);
      if (READ_NOW) record_read(cell, site, current->thread);
    } else {
      check_write(cell, *region, address, kind, site, my_name);
      record_write(cell, kind, site, current->thread);
    }
  }
}

void access(const volatile void* pointer, size_t bytes, Access kind, void* return_address) {
  if (!current || !launch->check) return;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (!on_a_stack(address)) check<true>(address, bytes, kind, reinterpret_cast<uintptr_t>(return_address) - launch->library);
}

void require_shared(const void* pointer, const char* what, void* return_address) {
  if (!launch->check) return;
  const auto address = reinterpret_cast<uintptr_t>(pointer), site = reinterpret_cast<uintptr_t>(return_address) - launch->library;
  if (on_a_stack(address)) fail("not shared memory", "%s at @%#zx is given the address of a local variable", what, site);
  const Region* region = find(address, 1);
  if (region && !region->array->shared)
    fail("not shared memory", "%s at @%#zx is given the address of %s", what, site, element_title(*region, address));
}

// ---- transfers -------------------------------------------------------------------------------------------------------

template <class Change>
static void change_cells(const Range& range, Change change) {
  Region* region = find(range.address, range.bytes);
  const size_t offset = range.address - region->begin;
  for (size_t i = offset >> region->shift, end = (offset + range.bytes) >> region->shift; i < end; i++)
    change(region->cells[i]);
}

void check_reads(const std::vector<Range>& ranges, void* return_address) {
  for (const Range& range : ranges)
    check<false>(range.address, range.bytes, Access::read, reinterpret_cast<uintptr_t>(return_address) - launch->library);
}

void check_start(const Transfer& transfer) {
  for (const Range& range : transfer.ranges) {
    check<false>(range.address, range.bytes, range.written ? Access::write : Access::read, transfer.site);
    find(range.address, range.bytes)->foreign = true;
    change_cells(range, [&](Cell& cell) { if (range.written) cell.pending = 1; else cell.source = 1; });
  }
}

void check_complete(const Transfer& transfer, int agent) {
  if (agent >= MAX_THREADS) mark_engine_active();
  for (const Range& range : transfer.ranges)
    change_cells(range, [&](Cell& cell) {
      if (!range.written) return record_read(cell, transfer.site, agent);
      cell.pending = 0;
      record_write(cell, Access::write, transfer.site, agent);
    });
}

// ---- proxies ---------------------------------------------------------------------------------------------------------

void check_proxy(const Transfer& transfer) {
  for (const Range& range : transfer.ranges) {
    if (range.written) continue;
    const Region& region = *find(range.address, range.bytes);
    change_cells(range, [&](const Cell& cell) {
      const int writer = column_of(cell.writer);
      if (!cell.writer || cluster_of(cell.writer) != cluster_number || writer >= thread_count) return;
      if (is_after_proxy_fence(writer, cell.written, !region.array->shared)) return;
      const size_t at = static_cast<size_t>(&cell - region.cells.data()) << region.shift;
      fail("proxy fence", "the transfer that %s starts at @%#zx reads %s, which %s wrote at @%#x: the write may not be visible "
           "without a fence_proxy_async by the writer, before the two are synchronised", current_title(), transfer.site,
           element_title(region, region.begin + at), agent_title(cell.writer), cell.write_site);
    });
  }
}

// ---- the end of a block ----------------------------------------------------------------------------------------------

void check_exit(int rank) {
  for (const Region& region : regions) {
    if (region.rank != rank || !region.foreign) continue;
    if (const Transfer* transfer = transfer_at(region.begin, region.end - region.begin, false))
      fail("block lifetime", "the block returns before the transfer that %s started at @%#zx is done with its shared memory: it "
           "was not waited for", thread_title(transfer->thread), transfer->site);
    std::vector<Clock> known_to_block(columns());
    for (int first = first_thread(rank), thread = first; thread < first + block_threads; thread++)
      merge(known_to_block.data(), own_row(thread));
    const auto is_over = [&](uint32_t name, Clock clock) {
      return !name || cluster_of(name) != cluster_number || clock <= known_to_block[column_of(name)];
    };
    for (size_t i = 0; i < region.cells.size(); i++) {
      const Cell& cell = region.cells[i];
      const bool wrote = !is_over(cell.writer, cell.written), read = !is_over(cell.reader, cell.read);
      if (!wrote && !read && is_over(cell.other_reader, cell.other_read)) continue;
      fail("block lifetime", "the block returns, but nothing orders this after %s, which %s %s at @%#x",
           agent_title(wrote ? cell.writer : read ? cell.reader : cell.other_reader), wrote ? "wrote" : "read",
           element_title(region, region.begin + (i << region.shift)), wrote ? cell.write_site : cell.read_site);
    }
  }
}

// ---- a launch and its blocks -----------------------------------------------------------------------------------------

void begin_checks() {
  regions.clear();
  last_region = nullptr;
  begin_clocks();
  for (int i = 0; i < launch->array_count; i++) {
    const Array& array = launch->arrays[i];
    if (!array.bytes) continue;
    const auto begin = reinterpret_cast<uintptr_t>(array.address);
    const int rank = array.shared ? rank_of_shared(begin) : -1;
    regions.push_back({begin, begin + array.bytes, &array, rank, 3, std::vector<Cell>((array.bytes >> 3) + 1), false});
  }
  name_bits = 1;
  while ((columns() + 1) >> name_bits) name_bits++;
}

void begin_cluster_checks() {
  begin_cluster_clocks();
  for (Region& region : regions) region.foreign = false;
}

void end_checks() { regions.clear(); }

}  // namespace emulator
