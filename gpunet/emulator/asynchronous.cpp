// What an instruction starts and a later one waits for.

#include "runtime.h"

#include <string.h>

#include <algorithm>
#include <utility>

namespace emulator {

struct Flight {
  Transfer transfer;
  int engine;
  std::function<void()> landed;
};

static Groups groups[KINDS][MOST_THREADS];
static std::vector<Flight> flights;
static bool any;    // since the cluster began
static int owners;  // there may have been then

static bool lazy() { return launch->completion == static_cast<int>(Completion::lazy); }

Transfer start(std::vector<Range> ranges, std::function<void()> perform, void* return_address) {
  launch->transfers++;
  Transfer transfer{std::move(ranges), std::move(perform), current->thread,
                    reinterpret_cast<uintptr_t>(return_address) - launch->library, 0, false};
  if (launch->check) check_start(transfer);
  if (!lazy()) transfer.perform();
  return transfer;
}

static void end(const Transfer& transfer, int agent) {
  if (lazy() && !transfer.performed) transfer.perform();
  if (launch->check) check_complete(transfer, agent);
}

// ---- in groups -------------------------------------------------------------------------------------------------------

Groups& groups_of(Kind kind, int owner) { return groups[static_cast<int>(kind)][owner]; }

void join(Groups& groups, Transfer transfer) {
  any = true;
  transfer.group = groups.open;
  groups.pending.push_back(std::move(transfer));
}

void commit(Groups& groups) { groups.open++; }

void complete(Groups& groups, uint32_t left, int agent) {
  size_t done = 0;
  while (done < groups.pending.size() && groups.pending[done].group + left < groups.open)
    end(groups.pending[done++], agent);
  groups.pending.erase(groups.pending.begin(), groups.pending.begin() + static_cast<long>(done));
}

void complete_reads(Groups& groups, uint32_t left) {
  for (Transfer& transfer : groups.pending) {
    if (transfer.group + left >= groups.open) break;
    auto& ranges = transfer.ranges;
    const auto writes = std::stable_partition(ranges.begin(), ranges.end(), [](const Range& r) { return !r.written; });
    Transfer reads = transfer;
    reads.ranges.assign(ranges.begin(), writes);
    end(reads, current->thread);
    ranges.erase(ranges.begin(), writes);
    transfer.performed = true;
  }
}

// ---- by an engine ----------------------------------------------------------------------------------------------------

static void land(const Flight& flight) {
  end(flight.transfer, MOST_THREADS + flight.engine);
  flight.landed();
}

void fly(Transfer transfer, int engine, std::function<void()> landed) {
  Flight flight{std::move(transfer), engine, std::move(landed)};
  if (!lazy()) return land(flight);
  any = true;
  flights.push_back(std::move(flight));
}

// Which one lands first is the engines' to choose.
bool land_one() {
  if (flights.empty()) return false;
  size_t which = 0;
  if (static_cast<Schedule>(launch->schedule) == Schedule::reversed) which = flights.size() - 1;
  if (static_cast<Schedule>(launch->schedule) == Schedule::random) which = random_number() % flights.size();
  const Flight flight = std::move(flights[which]);
  flights.erase(flights.begin() + static_cast<long>(which));
  land(flight);
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
  for (const Flight& flight : flights)
    if (touches(flight.transfer, address, bytes, written)) return &flight.transfer;
  return nullptr;
}

// What is under way when a block ends still reaches global memory.
void finish_transfers() {
  if (!any) return;
  for (auto& of_kind : groups)
    for (int owner = 0; owner < thread_count; owner++)
      if (lazy())
        for (const Transfer& transfer : of_kind[owner].pending)
          if (!transfer.performed) transfer.perform();
  for (const Flight& flight : flights) flight.transfer.perform();
}

void reset_transfers() {
  owners = std::max(owners, thread_count);
  if (!any) return;
  any = false;
  flights.clear();
  for (auto& of_kind : groups) std::fill(of_kind, of_kind + owners, Groups{});
  owners = thread_count;
}

// ---- cp.async --------------------------------------------------------------------------------------------------------

void copy_async(void* to, const void* from, int bytes, int valid, void* return_address) {
  const auto destination = reinterpret_cast<uintptr_t>(to), source = reinterpret_cast<uintptr_t>(from);
  if ((destination | (valid ? source : 0)) % static_cast<unsigned int>(bytes))
    fail("misaligned", "an asynchronous copy of %d bytes, from %#zx to %#zx, needs addresses at multiples of %d at @%#zx", bytes,
         source, destination, bytes, reinterpret_cast<uintptr_t>(return_address) - launch->library);
  const auto perform = [to, from, bytes, valid] {
    memcpy(to, from, static_cast<size_t>(valid));
    memset(static_cast<char*>(to) + valid, 0, static_cast<size_t>(bytes - valid));
  };
  if (!launch->check && !lazy()) {
    launch->transfers++;
    return perform();
  }
  need_shared(to, "cp.async", return_address);
  std::vector<Range> ranges{{destination, static_cast<size_t>(bytes), true}};
  if (valid) ranges.push_back({source, static_cast<size_t>(valid), false});
  join(groups_of(Kind::copy, current->thread), start(std::move(ranges), perform, return_address));
}
void commit_copies() { commit(groups_of(Kind::copy, current->thread)); }
void wait_copies(int left) { complete(groups_of(Kind::copy, current->thread), static_cast<uint32_t>(left)); }

}  // namespace emulator
