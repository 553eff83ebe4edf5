// The lint of check mode: how a warp's accesses meet the banks of shared memory and the sectors of global memory.
//
// An instruction of a card moves the data of a whole warp at once.  Here the lanes run one after another, so what belongs
// together is put together again: the n-th execution of one place in the code by each lane, counted since the lanes last
// met at a barrier or a collective.  Where lanes take different ways between two such meetings, a loop that one of them
// left early can pair executions that a card would not; nothing but the counts depends on it.
//
// Shared memory has 32 banks of 4 bytes.  A warp's access is served in parts of up to 128 bytes: 32 lanes of 4 bytes, 16
// of 8, 8 of 16.  Each part takes as many wavefronts as the fullest bank has different words; one is ideal.
// Global memory moves in sectors of 32 bytes; ideal are as many as the different bytes that were asked for would fill.

#include "runtime.h"

#include <algorithm>
#include <unordered_map>

namespace emulator {

struct Tally {  // of one place, as report.py reads it
  uint64_t site, requests, transactions, ideal;
  int shared, write, bytes, degree;  // degree: the most transactions of a request, or for shared memory of a part
};

struct Request {  // one execution of one place by a warp
  uint32_t lanes;
  uintptr_t addresses[32];
};

struct Place {  // in one warp, since its lanes last met
  std::vector<Request> requests;
  uint32_t executed[32];
};

static std::vector<Tally> tallies;
static std::unordered_map<uint64_t, size_t> index_of;
static std::vector<Place> places[MOST_THREADS / 32];  // beside `tallies`
static std::vector<size_t> touched[MOST_THREADS / 32];

// ---- what a card would do --------------------------------------------------------------------------------------------

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

// ---- putting requests together ---------------------------------------------------------------------------------------

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
  // an instruction moves up to 16 bytes; what is copied in one piece here takes several of them there
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
