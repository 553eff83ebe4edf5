// Kernel launches: what CUDA refuses, the copy of the parameters, and the call of the emulator.
#include <string.h>

#include <algorithm>
#include <optional>

#include "driver.h"

namespace driver {
namespace {

constexpr size_t kParameterAlignment = 128;
constexpr size_t kMostScanned = 64 << 10;  // bytes of an allocation that are searched for addresses of others
constexpr int kCheckedBlocks = 1 << 21;

struct Geometry {
  unsigned grid[3], block[3], shared;
};

CUresult check_geometry(const CUfunc_st& f, const Geometry& g) {
  const char* name = f.name.c_str();
  static const unsigned most_grid[] = {0x7fffffff, 65535, 65535}, most_block[] = {1024, 1024, 64};
  for (int i = 0; i < 3; i++) {
    if (!g.grid[i] || g.grid[i] > most_grid[i])
      return fail(CUDA_ERROR_INVALID_VALUE, "%s: grid (%u, %u, %u)", name, g.grid[0], g.grid[1], g.grid[2]);
    if (!g.block[i] || g.block[i] > most_block[i])
      return fail(CUDA_ERROR_INVALID_VALUE, "%s: block (%u, %u, %u)", name, g.block[0], g.block[1], g.block[2]);
  }
  const uint64_t threads = uint64_t{g.block[0]} * g.block[1] * g.block[2];
  if (threads > 1024)
    return fail(CUDA_ERROR_INVALID_VALUE, "%s: a block of %zu threads, of at most 1024", name, static_cast<size_t>(threads));
  if (threads > static_cast<unsigned>(f.info.max_threads))
    return fail(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "%s: a block of %zu threads, where its __launch_bounds__ allow %d", name,
                static_cast<size_t>(threads), f.info.max_threads);
  if (f.info.registers * threads > 65536)
    return fail(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "%s: %zu threads of %d registers, of 65536 in all", name,
                static_cast<size_t>(threads), f.info.registers);
  if (g.shared > static_cast<unsigned>(f.max_dynamic_shared))
    return fail(CUDA_ERROR_INVALID_VALUE,
                "%s: %u bytes of dynamic and %d of static shared memory; %d of dynamic shared memory are allowed "
                "(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)",
                name, g.shared, f.info.static_shared, f.max_dynamic_shared);
  const unsigned* cluster = f.code->cluster;
  for (int i = 0; i < 3; i++)
    if (g.grid[i] % cluster[i])
      return fail(CUDA_ERROR_INVALID_VALUE, "%s: grid (%u, %u, %u) is no multiple of the cluster (%u, %u, %u)", name, g.grid[0],
                  g.grid[1], g.grid[2], cluster[0], cluster[1], cluster[2]);
  return CUDA_SUCCESS;
}

// A launch takes its parameters by value when it is enqueued.
class Parameters {
 public:
  explicit Parameters(const KernelCode& code) : code_(&code) {
    size_t bytes = 0;
    for (int i = 0; i < code.parameter_count; i++) {
      offsets_.push_back(bytes);
      bytes += (code.parameters[i].bytes + kParameterAlignment - 1) / kParameterAlignment * kParameterAlignment;
    }
    bytes_ = bytes;
    room_.reset(static_cast<char*>(aligned_alloc(kParameterAlignment, bytes + kParameterAlignment)), free);
    memset(room_.get(), 0, bytes);
  }
  // CUDA knows neither how many parameters are given nor how large they are: it reads as many bytes as the kernel declares.
  // (gpunet/backend/parameter_sizes.py checks what gpunet gives.)
  CUresult take(const std::string& kernel, void** given) {
    return guarded((kernel + ": the launch").c_str(), [&]() -> CUresult {
      for (int i = 0; i < code_->parameter_count; i++) {
        if (!given || !given[i])
          return fail(CUDA_ERROR_INVALID_VALUE, "%s: parameter %d of %d is missing", kernel.c_str(), i, code_->parameter_count);
        memcpy(room_.get() + offsets_[i], given[i], static_cast<size_t>(code_->parameters[i].bytes));
      }
      return CUDA_SUCCESS;
    });
  }
  // The parameters in one buffer, at the offsets that the kernel declares.
  CUresult take_buffer(const CUfunc_st& f, void** extra) {
    const char* buffer = nullptr;
    size_t bytes = 0;
    for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
      if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER)
        buffer = static_cast<const char*>(extra[1]);
      else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE)
        bytes = *static_cast<const size_t*>(extra[1]);
      else
        return fail(CUDA_ERROR_INVALID_VALUE, "%s: extra names no CU_LAUNCH_PARAM", f.name.c_str());
    }
    if (!f.module->image.is_cubin) return fail(CUDA_ERROR_NOT_SUPPORTED, "%s: a parameter buffer for PTX", f.name.c_str());
    const std::vector<ParameterInfo>& declared = f.info.parameters;
    const size_t wanted = declared.empty() ? 0 : static_cast<size_t>(declared.back().offset + declared.back().bytes);
    if (!buffer || bytes != wanted)
      return fail(CUDA_ERROR_INVALID_VALUE, "%s: a parameter buffer of %zu bytes; the kernel's parameters have %zu",
                  f.name.c_str(), buffer ? bytes : 0, wanted);
    for (size_t i = 0; i < declared.size(); i++)
      memcpy(room_.get() + offsets_[i], buffer + declared[i].offset, static_cast<size_t>(declared[i].bytes));
    return CUDA_SUCCESS;
  }
  std::vector<void*> pointers() const {
    std::vector<void*> all;
    for (size_t offset : offsets_) all.push_back(room_.get() + offset);
    all.push_back(nullptr);
    return all;
  }
  const void* data() const { return room_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  const KernelCode* code_;
  std::shared_ptr<char> room_;
  std::vector<size_t> offsets_;
  size_t bytes_ = 0;
};

// Calls visit(allocation) for each word of memory that is an address in an allocation.
template <class Visit>
void for_each_address(const void* data, size_t bytes, Visit visit) {
  const auto* words = static_cast<const uintptr_t*>(data);
  for (size_t i = 0; i < bytes / sizeof *words; i++)
    if (const Allocation* found = words[i] ? find_allocation(words[i]) : nullptr) visit(*found);
}

CUresult check_devices(const CUfunc_st& f, const Parameters& parameters) {
  const Lock lock(state_lock);
  const CUcontext context = f.module->context;
  CUresult status = CUDA_SUCCESS;
  for_each_address(parameters.data(), parameters.bytes(), [&](const Allocation& found) {
    if (!is_accessible(found, context))
      status =
          fail(CUDA_ERROR_ILLEGAL_ADDRESS, "kernel %s runs on device %d and is given memory of device %d without peer access",
               f.name.c_str(), context->device, found.context->device);
  });
  return status;
}

// In check mode a pointer is null, or points into memory that lives or to its end; to numbers, at a multiple of their size.
CUresult check_pointers(const CUfunc_st& f, const Parameters& parameters) {
  const Lock lock(state_lock);
  const std::vector<void*> values = parameters.pointers();
  for (int i = 0; i < f.code->parameter_count; i++) {
    const EmulatorParameter& parameter = f.code->parameters[i];
    const uintptr_t address = parameter.pointer ? *static_cast<uintptr_t*>(values[i]) : 0;
    if (!address) continue;
    if (!find_allocation(address) && !find_allocation(address - 1))
      return fail(CUDA_ERROR_ILLEGAL_ADDRESS, "kernel %s: argument %d is the pointer %#zx, which is %s", f.name.c_str(), i,
                  address, describe_address(address).c_str());
    if (parameter.kind != 'V' && address % parameter.element_bytes)
      return fail(CUDA_ERROR_MISALIGNED_ADDRESS, "kernel %s: argument %d is the pointer %#zx to elements of %d bytes",
                  f.name.c_str(), i, address, parameter.element_bytes);
  }
  return CUDA_SUCCESS;
}

// What check mode holds accesses to: the allocations that the parameters reach, directly or through tables of addresses.
class ReachableArrays {
 public:
  ReachableArrays(const CUfunc_st& f, const Parameters& parameters) : context_(f.module->context) {
    const Lock lock(state_lock);
    const std::vector<void*> pointers = parameters.pointers();
    for (int i = 0; i < f.code->parameter_count; i++) {
      const EmulatorParameter& parameter = f.code->parameters[i];
      for_each_address(pointers[i], static_cast<size_t>(parameter.bytes), [&](const Allocation& allocation) {
        if (parameter.pointer)
          add(allocation, i, parameter.element_bytes, !parameter.constant);
        else
          add(allocation, i, 0, true);
      });
    }
    for (size_t i = 0; i < order_.size(); i++) {  // it grows
      const Allocation table = order_[i];
      if (table.bytes <= kMostScanned)
        for_each_address(reinterpret_cast<const void*>((table.begin + 7) / 8 * 8), table.bytes / 8 * 8,
                         [&](const Allocation& allocation) { add(allocation, -1, 0, true); });
    }
  }
  void append_to(std::vector<EmulatorArray>& arrays) const {
    for (const auto& entry : found_) arrays.push_back(entry.second);
  }

 private:
  void add(const Allocation& allocation, int parameter, int element_bytes, bool written) {
    if (!is_accessible(allocation, context_)) return;
    const auto known = found_.find(allocation.begin);
    if (known != found_.end()) {
      known->second.written |= written;
      return;
    }
    names_.push_back((parameter < 0 ? "an allocation" : "the allocation of argument " + std::to_string(parameter)));
    found_[allocation.begin] = {
        reinterpret_cast<void*>(allocation.begin), allocation.bytes, element_bytes, 0, written, names_.back().c_str()};
    order_.push_back(allocation);
  }

  CUcontext context_;
  std::map<uintptr_t, EmulatorArray> found_;
  std::deque<std::string> names_;  // which found_ points to
  std::vector<Allocation> order_;
};

struct Finding {  // the emulator's kinds of errors, and CUDA's
  const char* kind;
  CUresult status;
};
constexpr Finding findings[] = {
    {"illegal address", CUDA_ERROR_ILLEGAL_ADDRESS},
    {"out of bounds", CUDA_ERROR_ILLEGAL_ADDRESS},
    {"null pointer", CUDA_ERROR_ILLEGAL_ADDRESS},
    {"misaligned", CUDA_ERROR_MISALIGNED_ADDRESS},
    {"assertion", CUDA_ERROR_ASSERT},
    {"launch bounds", CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES},
};

CUresult report(const CUfunc_st& f, const char* message) {
  const std::string text = message;
  const size_t kind_end = text.find('\n'), what_end = text.rfind('\n');
  const std::string kind = text.substr(0, kind_end), what = text.substr(kind_end + 1, what_end - kind_end - 1);
  CUresult status = CUDA_ERROR_LAUNCH_FAILED;
  for (const Finding& finding : findings)
    if (kind == finding.kind) status = finding.status;
  const std::string explained = emulator.explain(f.module->code->library, what.c_str());
  return fail(status, "kernel %s: %s: %s [%s]", f.name.c_str(), kind.c_str(), explained.c_str(),
              text.substr(what_end + 1).c_str());
}

CUresult execute(const CUfunc_st& f, const Geometry& g, const Parameters& parameters) {
  if (const CUresult status = check_devices(f, parameters)) return status;
  std::vector<void*> pointers = parameters.pointers();
  const ModuleCode& module = *f.module->code;
  std::vector<EmulatorArray> arrays(module.arrays, module.arrays + module.array_count);
  // Threads of more blocks have no names in check mode: such a launch runs unchecked.
  const bool check = settings.check && uint64_t{g.grid[0]} * g.grid[1] * g.grid[2] < kCheckedBlocks;
  std::optional<ReachableArrays> reached;
  if (settings.check)
    if (const CUresult status = check_pointers(f, parameters)) return status;
  if (check) reached.emplace(f, parameters).append_to(arrays);
  const unsigned* cluster = f.code->cluster;
  for (unsigned rank = 0; g.shared && rank < cluster[0] * cluster[1] * cluster[2]; rank++)
    arrays.push_back({emulator.dynamic_shared(static_cast<int>(rank)), g.shared, 0, 1, 1, "dynamic shared memory"});
  char message[4096] = "";
  EmulatorLaunch launch = {};
  launch.entry = f.code->entry;
  launch.arguments = pointers.data();
  std::copy_n(g.grid, 3, launch.grid);
  std::copy_n(g.block, 3, launch.block);
  std::copy_n(cluster, 3, launch.cluster);
  launch.shared_bytes = g.shared;
  launch.completion = settings.lazy;
  launch.check = check;
  launch.returned_pass = 1;
  // cumsum's kernel (cupy_inclusive_batch_scan_kernel) scans the room of rows that its block does not have, too, and drops them.
  launch.unset_allowed = f.name.starts_with("cupy_");
  launch.array_count = static_cast<int>(arrays.size());
  launch.arrays = arrays.data();
  launch.message = message;
  launch.message_bytes = sizeof message;
  launch.library = module.library;
  kernel_is_running = true;
  const int failed = emulator.launch(&launch);
  kernel_is_running = false;
  return failed ? report(f, message) : CUDA_SUCCESS;
}

CUresult launch(CUfunction function, const Geometry& geometry, CUstream handle, void** given, void** extra) {
  if (!function) return fail(CUDA_ERROR_INVALID_HANDLE, "the function is null");
  if (!current_context()) return fail(CUDA_ERROR_INVALID_CONTEXT, "no context is current");
  const char* name = function->name.c_str();
  const CUstream stream = resolve(handle);
  if (!stream)
    return fail(CUDA_ERROR_INVALID_HANDLE, "%s: %p is no stream, or was destroyed", name, static_cast<void*>(handle));
  if (stream->context != function->module->context)
    return fail(CUDA_ERROR_INVALID_HANDLE, "%s was loaded on device %d, the stream belongs to device %d", name,
                function->module->context->device, stream->context->device);
  if (const CUresult status = check_geometry(*function, geometry)) return status;
  if (given && extra) return fail(CUDA_ERROR_INVALID_VALUE, "%s: both kernelParams and extra", name);
  Parameters parameters(*function->code);
  if (const CUresult status = extra ? parameters.take_buffer(*function, extra) : parameters.take(function->name, given))
    return status;
  return enqueue(handle, {CU_GRAPH_NODE_TYPE_KERNEL, "kernel " + function->name,
                          [f = *function, geometry, parameters] { return execute(f, geometry, parameters); }});
}

int resident_blocks(const CUfunc_st& f, int threads, size_t shared) {  // of a multiprocessor
  const int by_threads = 2048 / ((threads + 31) / 32 * 32);
  const int by_registers = f.info.registers ? 65536 / ((f.info.registers + 7) / 8 * 8 * ((threads + 31) / 32 * 32)) : 32;
  const int by_shared = static_cast<int>(233472 / (shared + static_cast<size_t>(f.info.static_shared) + 1024));
  return std::min({by_threads, by_registers, by_shared, 32});
}
}  // namespace
}  // namespace driver

using namespace driver;

API cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, CUstream stream, void** parameters, void** extra) {
  BEGIN_CALL;
  return launch(function, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared}, stream, parameters, extra);
}
API cuLaunchKernelEx(const CUlaunchConfig* c, CUfunction function, void** parameters, void** extra) {
  BEGIN_CALL;
  for (unsigned i = 0; i < c->numAttrs; i++)
    if (c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION || c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
      return fail(CUDA_ERROR_NOT_SUPPORTED, "launch attribute %d; __cluster_dims__ of the kernel is supported", c->attrs[i].id);
  const Geometry geometry = {
      {c->gridDimX, c->gridDimY, c->gridDimZ}, {c->blockDimX, c->blockDimY, c->blockDimZ}, c->sharedMemBytes};
  return launch(function, geometry, c->hStream, parameters, extra);
}
// Blocks still run one after another: a kernel whose blocks wait for each other ends with "no progress".
API cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                              unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void** parameters) {
  BEGIN_CALL;
  if (!function) return fail(CUDA_ERROR_INVALID_HANDLE, "the function is null");
  const uint64_t blocks = uint64_t{grid_x} * grid_y * grid_z, threads = uint64_t{block_x} * block_y * block_z;
  const uint64_t most = threads && threads <= 1024
                            ? 132u * static_cast<unsigned>(resident_blocks(*function, static_cast<int>(threads), shared))
                            : 0;
  if (threads && threads <= 1024 && blocks > most)
    return fail(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "%s: %zu blocks, and %zu fit the device", function->name.c_str(),
                static_cast<size_t>(blocks), static_cast<size_t>(most));
  return launch(function, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared}, stream, parameters, nullptr);
}

// ---- functions -----------------------------------------------------------------------------------------------------------

API cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
  BEGIN_CALL;
  if (!function) return fail(CUDA_ERROR_INVALID_HANDLE, "the function is null");
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value =
          std::min(function->info.max_threads, function->info.registers ? 65536 / function->info.registers / 32 * 32 : 1024);
      break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = function->info.static_shared; break;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES: *value = function->info.constant_bytes; break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *value = function->info.local_bytes; break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = function->info.registers; break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = 90; break;
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA: *value = 0; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = function->max_dynamic_shared; break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: *value = -1; break;
    default: return fail(CUDA_ERROR_INVALID_VALUE, "attribute %d", attribute);
  }
  return CUDA_SUCCESS;
}
API cuFuncGetParamInfo(CUfunction function, size_t index, size_t* offset, size_t* bytes) {
  BEGIN_CALL;
  if (!function) return fail(CUDA_ERROR_INVALID_HANDLE, "the function is null");
  if (!function->module->image.is_cubin) return fail(CUDA_ERROR_NOT_SUPPORTED, "%s comes from PTX", function->name.c_str());
  const std::vector<ParameterInfo>& declared = function->info.parameters;
  if (index >= declared.size())
    return fail(CUDA_ERROR_INVALID_VALUE, "%s: parameter %zu of %zu", function->name.c_str(), index, declared.size());
  *offset = static_cast<size_t>(declared[index].offset);
  if (bytes) *bytes = static_cast<size_t>(declared[index].bytes);
  return CUDA_SUCCESS;
}
API cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  BEGIN_CALL;
  if (!function) return fail(CUDA_ERROR_INVALID_HANDLE, "the function is null");
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      if (value < 0 || value + function->info.static_shared > kOptInSharedLimit)
        return fail(CUDA_ERROR_INVALID_VALUE, "%s: %d bytes of dynamic and %d of static shared memory, of %d",
                    function->name.c_str(), value, function->info.static_shared, kOptInSharedLimit);
      function->max_dynamic_shared = value;
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: return CUDA_SUCCESS;
    default: return fail(CUDA_ERROR_INVALID_VALUE, "attribute %d cannot be set", attribute);
  }
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads, size_t shared) {
  BEGIN_CALL;
  if (!function) return fail(CUDA_ERROR_INVALID_HANDLE, "the function is null");
  if (threads < 1) return fail(CUDA_ERROR_INVALID_VALUE, "a block of %d threads", threads);
  *blocks = resident_blocks(*function, threads, shared);
  return CUDA_SUCCESS;
}
API cuOccupancyMaxPotentialBlockSize(int* grid, int* block, CUfunction function, CUoccupancyB2DSize shared_of, size_t shared,
                                     int limit) {
  BEGIN_CALL;
  if (!function) return fail(CUDA_ERROR_INVALID_HANDLE, "the function is null");
  const int most = limit ? std::min(limit, function->info.max_threads) : function->info.max_threads;
  int best = 0;
  for (int threads = most; threads > 0; threads -= 32) {
    const int blocks = resident_blocks(*function, threads, shared_of ? shared_of(threads) : shared);
    if (blocks * threads > best) best = blocks * threads, *block = threads, *grid = 132 * blocks;
  }
  return best ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_VALUE, "%s fits no multiprocessor", function->name.c_str());
}
