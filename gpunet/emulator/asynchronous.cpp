// Asynchronous transfers: started by one instruction, waited for by a later one.

#include "runtime.h"

#include <string.h>

#include <algorithm>
#include <utility>

namespace emulator {

struct EngineTransfer {
  Transfer transfer;
  int engine;
  std::function<void()> on_complete;
};

static Groups groups[KINDS][MAX_THREADS];
static std::vector<EngineTransfer> engine_transfers;
static bool has_transfers;  // whether there was a transfer since the cluster began
static int max_owners;      // groups from this owner on are empty

static bool lazy() { return launch->completion == static_cast<int>(Completion::lazy); }

Transfer start(std::vector<Range> ranges, std::function<void()> perform, void* return_address) {
  launch->transfers++;
  Transfer transfer{std::move(ranges), std::move(perform), current->thread,
                    reinterpret_cast<uintptr_t>(return_address) - launch->library, 0, false};
  if (launch->check) check_start(transfer);
  if (!lazy()) transfer.perform();
  return transfer;
}

static void finish(const Transfer& transfer, int agent) {
  if (lazy() && !transfer.performed) transfer.perform();
  if (launch->check) check_complete(transfer, agent);
}

// ---- in groups -------------------------------------------------------------------------------------------------------

Groups& groups_of(Kind kind, int owner) { return groups[static_cast<int>(kind)][owner]; }

void add_to_group(Groups& groups, Transfer transfer) {
  has_transfers = true;
  transfer.group = groups.open;
  groups.pending.push_back(std::move(transfer));
}

void commit(Groups& groups) { groups.open++; }

void complete(Groups& groups, uint32_t left, int agent) {
  size_t done = 0;
  while (done < groups.pending.size() && groups.pending[done].group + left < groups.open)
    finish(groups.pending[done++], agent);
  groups.pending.erase(groups.pending.begin(), groups.pending.begin() + static_cast<long>(done));
}

void complete_reads(Groups& groups, uint32_t left) {
  for (Transfer& transfer : groups.pending) {
    if (transfer.group + left >= groups.open) break;
    auto& ranges = transfer.ranges;
    const auto writes = std::stable_partition(ranges.begin(), ranges.end(), [](const Range& r) { return !r.written; });
    Transfer reads = transfer;
    reads.ranges.assign(ranges.begin(), writes);
    finish(reads, current->thread);
    ranges.erase(ranges.begin(), writes);
    transfer.performed = true;
  }
}

// ---- by an engine ----------------------------------------------------------------------------------------------------

static void complete_on_engine(const EngineTransfer& engine_transfer) {
  finish(engine_transfer.transfer, MAX_THREADS + engine_transfer.engine);
  engine_transfer.on_complete();
}

void start_on_engine(Transfer transfer, int engine, std::function<void()> on_complete) {
  EngineTransfer engine_transfer{std::move(transfer), engine, std::move(on_complete)};
  if (!lazy()) return complete_on_engine(engine_transfer);
  has_transfers = true;
  engine_transfers.push_back(std::move(engine_transfer));
}

// The hardware completes transfers in any order: the schedule decides.
bool complete_one_on_engine() {
  if (engine_transfers.empty()) return false;
  size_t index = 0;
  if (static_cast<Schedule>(launch->schedule) == Schedule::reversed) index = engine_transfers.size() - 1;
  if (static_cast<Schedule>(launch->schedule) == Schedule::random) index = random_number() % engine_transfers.size();
  const EngineTransfer engine_transfer = std::move(engine_transfers[index]);
  engine_transfers.erase(engine_transfers.begin() + static_cast<long>(index));
  complete_on_engine(engine_transfer);
  return true;
}

// ---- all of them -----------------------------------------------------------------------------------------------------

static bool touches(const Transfer& transfer, uintptr_t address, size_t bytes, bool written) {
  for (const Range& range : transfer.ranges)
    if ((range.written || !written) && range.address < address + bytes && address < range.address + range.bytes) return true;
  return false;
}

const Transfer* transfer_at(uintptr_t address, size_t bytes, bool written) {
  for (const auto& of_kind : groups)
    for (int owner = 0; owner < thread_count; owner++)
      for (const Transfer& transfer : of_kind[owner].pending)
        if (touches(transfer, address, bytes, written)) return &transfer;
  for (const EngineTransfer& engine_transfer : engine_transfers)
    if (touches(engine_transfer.transfer, address, bytes, written)) return &engine_transfer.transfer;
  return nullptr;
}

// Transfers that are pending when a block ends still write to global memory.
void finish_transfers() {
  if (!has_transfers) return;
  for (auto& of_kind : groups)
    for (int owner = 0; owner < thread_count; owner++)
      if (lazy())
        for (const Transfer& transfer : of_kind[owner].pending)
          if (!transfer.performed) transfer.perform();
  for (const EngineTransfer& engine_transfer : engine_transfers) engine_transfer.transfer.perform();
}

void reset_transfers() {
  max_owners = std::max(max_owners, thread_count);
  if (!has_transfers) return;
  has_transfers = false;
  engine_transfers.clear();
  for (auto& of_kind : groups) std::fill(of_kind, of_kind + max_owners, Groups{});
  max_owners = thread_count;
}

// ---- cp.async --------------------------------------------------------------------------------------------------------

void copy_async(void* to, const void* from, int bytes, int valid, void* return_address) {
  const auto destination = reinterpret_cast<uintptr_t>(to), source = reinterpret_cast<uintptr_t>(from);
  if ((destination | (valid ? source : 0)) % static_cast<unsigned int>(bytes))
    fail("misaligned", "an asynchronous copy of %d bytes from %#zx to %#zx at @%#zx; both addresses must be multiples of %d",
         bytes, source, destination, reinterpret_cast<uintptr_t>(return_address) - launch->library, bytes);
  const auto perform = [to, from, bytes, valid] {
    memcpy(to, from, static_cast<size_t>(valid));
    memset(static_cast<char*>(to) + valid, 0, static_cast<size_t>(bytes - valid));
  };
  if (!launch->check && !lazy()) {
    launch->transfers++;
    return perform();
  }
  require_shared(to, "cp.async", return_address);
  if (linting()) {
    const uintptr_t site = reinterpret_cast<uintptr_t>(return_address) - launch->library;
    lint_access(destination, static_cast<size_t>(bytes), Access::write, site, true);
    if (valid) lint_access(source, static_cast<size_t>(valid), Access::read, site, false);
  }
  std::vector<Range> ranges{{destination, static_cast<size_t>(bytes), true}};
  if (valid) ranges.push_back({source, static_cast<size_t>(valid), false});
  add_to_group(groups_of(Kind::copy, current->thread), start(std::move(ranges), perform, return_address));
}
void commit_copies() { commit(groups_of(Kind::copy, current->thread)); }
void wait_copies(int left) { complete(groups_of(Kind::copy, current->thread), static_cast<uint32_t>(left)); }

}  // namespace emulator
