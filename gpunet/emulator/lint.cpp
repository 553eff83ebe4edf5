// The lint of check mode: counts shared memory wavefronts (bank conflicts) and global memory sectors.
//
// On a GPU an instruction accesses memory for a whole warp.  Here the lanes run one after another, so their accesses are
// grouped afterwards: the n-th execution of an instruction by each lane, counted since the last barrier or collective, forms
// one request.  If lanes diverge in between, for example leave a loop early, executions may be paired that would be separate
// on a GPU; this affects only the counts.
//
// Shared memory has 32 banks of 4 bytes.  A request is served in parts of up to 128 bytes: 32 lanes of 4 bytes, 16 of 8, 8 of
// 16.  The wavefronts of a part are the maximum, over the banks, of different words accessed; the ideal is one.
// Global memory is accessed in sectors of 32 bytes; the ideal number is that of the different bytes, divided by 32.

#include "runtime.h"

#include <algorithm>
#include <unordered_map>

namespace emulator {

struct Tally {  // of one code address; same layout as in report.py
  uint64_t site, requests, transactions, ideal;
  int shared, write, bytes, degree;  // degree: maximum of transactions in a request (for shared memory: in a part)
};

struct Request {  // one execution by a warp
  uint32_t lanes;
  uintptr_t addresses[32];
};

struct Place {  // the requests of one warp at one code address since it last synchronised
  std::vector<Request> requests;
  uint32_t executed[32];
};

static std::vector<Tally> tallies;
static std::unordered_map<uint64_t, size_t> index_of;
static std::vector<Place> places[MAX_THREADS / 32];  // indexed like `tallies`
static std::vector<size_t> touched[MAX_THREADS / 32];

// ---- transactions of a request ---------------------------------------------------------------------------------------

static void count_shared(Tally& tally, const Request& request) {
  const int lanes = tally.bytes <= 4 ? 32 : 128 / tally.bytes;
  for (int first = 0; first < 32; first += lanes) {
    uintptr_t words[64];
    int count = 0, in_bank[32] = {}, wavefronts = 0;
    for (int lane = first; lane < first + lanes; lane++) {
      if (!(request.lanes >> lane & 1u)) continue;
      const uintptr_t address = request.addresses[lane];
      for (uintptr_t word = address / 4; word <= (address + tally.bytes - 1) / 4; word++) words[count++] = word;
    }
    if (!count) continue;
    std::sort(words, words + count);
    count = static_cast<int>(std::unique(words, words + count) - words);
    for (int i = 0; i < count; i++) wavefronts = std::max(wavefronts, ++in_bank[words[i] % 32]);
    tally.transactions += wavefronts;
    tally.ideal++;
    tally.degree = std::max(tally.degree, wavefronts);
  }
}

static void count_global(Tally& tally, const Request& request) {
  uintptr_t begins[32], end = 0, next_sector = 0;
  int count = 0;
  for (int lane = 0; lane < 32; lane++)
    if (request.lanes >> lane & 1u) begins[count++] = request.addresses[lane];
  std::sort(begins, begins + count);
  uint64_t bytes = 0, sectors = 0;
  for (int i = 0; i < count; i++) {
    const uintptr_t begin = std::max(begins[i], end);
    end = std::max(end, begins[i] + tally.bytes);
    if (begin >= end) continue;
    bytes += end - begin;
    const uintptr_t first = std::max(begin / 32, next_sector);
    next_sector = (end - 1) / 32 + 1;
    sectors += next_sector - std::min(first, next_sector);
  }
  tally.transactions += sectors;
  tally.ideal += (bytes + 31) / 32;
  tally.degree = std::max(tally.degree, static_cast<int>(sectors));
}

// ---- grouping accesses into requests ---------------------------------------------------------------------------------

static void note(uintptr_t address, int bytes, bool write, uintptr_t site, int part, bool shared) {
  const uint64_t key = static_cast<uint64_t>(site) << 16 | static_cast<uint64_t>(part) << 1 | shared;
  const auto [found, is_new] = index_of.emplace(key, tallies.size());
  if (is_new) tallies.push_back({site, 0, 0, 0, shared, write, bytes, 0});
  const size_t index = found->second;
  const int warp = current->thread / 32;
  if (places[warp].size() <= index) places[warp].resize(tallies.size());
  Place& place = places[warp][index];
  if (place.requests.empty()) touched[warp].push_back(index);
  const uint32_t number = place.executed[lane()]++;
  if (number >= place.requests.size()) place.requests.push_back({});
  place.requests[number].lanes |= 1u << lane();
  place.requests[number].addresses[lane()] = address;
}

void lint_access(uintptr_t address, size_t bytes, Access kind, uintptr_t site, bool shared) {
  // a GPU instruction accesses up to 16 bytes per lane: split larger accesses
  const size_t piece = bytes % 16 == 0 ? 16 : bytes & -bytes;
  for (size_t at = 0; at < bytes; at += piece)
    note(address + at, static_cast<int>(piece), kind != Access::read, site, static_cast<int>(at / piece), shared);
}

void lint_warp(int warp) {
  for (size_t index : touched[warp]) {
    Place& place = places[warp][index];
    Tally& tally = tallies[index];
    for (const Request& request : place.requests) tally.shared ? count_shared(tally, request) : count_global(tally, request);
    tally.requests += place.requests.size();
    place.requests.clear();
    std::fill(place.executed, place.executed + 32, 0);
  }
  touched[warp].clear();
}

void lint_block() {
  for (int warp = 0; warp * 32 < thread_count; warp++) lint_warp(warp);
}

void begin_lint() {
  tallies.clear();
  index_of.clear();
  for (auto& of_warp : places) of_warp.clear();
  for (auto& of_warp : touched) of_warp.clear();
}

}  // namespace emulator

extern "C" __attribute__((visibility("default"))) int emulator_tallies(const emulator::Tally** tallies) {
  *tallies = emulator::tallies.data();
  return static_cast<int>(emulator::tallies.size());
}
