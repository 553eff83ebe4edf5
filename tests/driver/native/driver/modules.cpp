// Modules, functions, variables, and the linker of PTX.
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "../record.h"
#include "driver.h"

namespace driver {

EmulatorFunctions emulator = {};

namespace {
std::set<CUmodule> modules;  // unloaded ones, too: graphs still have their functions

CUresult check_module(CUmodule module) {
  const Lock lock(state_lock);
  return modules.count(module) && !module->unloaded
             ? CUDA_SUCCESS
             : fail(CUDA_ERROR_INVALID_HANDLE, "%p is no loaded module", static_cast<void*>(module));
}

template <class Map>
std::string joined_names(const Map& map) {
  std::string names;
  for (const auto& entry : map) names += entry.first + "\n";
  return names;
}

// Compiles the module for the emulator at its first use.
CUresult compile(CUmodule module) {
  if (!module->code) {
    if (!emulator.compile) return fail(CUDA_ERROR_NOT_SUPPORTED, "the stand-in was not installed by tests.driver.install()");
    module->code = emulator.compile(module->image.record.data(), module->image.record.size(),
                                    joined_names(module->image.kernels).c_str(), joined_names(module->image.variables).c_str());
    for (int i = 0; i < module->code->variable_count; i++) {
      const VariableCode& variable = module->code->variables[i];
      add_variable(reinterpret_cast<uintptr_t>(variable.address), variable.bytes, module->context, variable.name);
    }
  }
  if (module->code->error) return fail(CUDA_ERROR_INVALID_IMAGE, "the emulator cannot run it: %s", module->code->error);
  return CUDA_SUCCESS;
}

CUresult check_parameters(const CUfunc_st& function) {
  const std::vector<ParameterInfo>& declared = function.info.parameters;
  if (!function.module->image.is_cubin) return CUDA_SUCCESS;
  bool same = static_cast<int>(declared.size()) == function.code->parameter_count;
  for (size_t i = 0; same && i < declared.size(); i++) same = declared[i].bytes == function.code->parameters[i].bytes;
  return same
             ? CUDA_SUCCESS
             : fail(CUDA_ERROR_INVALID_IMAGE, "%s: a parameter has another size for g++ than for NVRTC", function.name.c_str());
}

CUresult load(CUmodule* module, const void* data, size_t limit) {
  if (!current_context()) return fail(CUDA_ERROR_INVALID_CONTEXT, "no context is current");
  auto made = std::make_unique<CUmod_st>();
  made->context = current_context();
  if (const CUresult status = read_image(data, limit, made->image)) return status;
  const Lock lock(state_lock);
  *module = made.release();
  modules.insert(*module);
  return CUDA_SUCCESS;
}

CUresult load_file(const char* path, std::string& content) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(CUDA_ERROR_FILE_NOT_FOUND, "%s", path);
  content.assign(std::istreambuf_iterator<char>(file), {});
  return CUDA_SUCCESS;
}
}  // namespace
}  // namespace driver

using namespace driver;

extern "C" __attribute__((visibility("default"))) void standin_set_emulator(const EmulatorFunctions* functions) {
  emulator = *functions;
}
extern "C" __attribute__((visibility("default"))) int standin_launch_bytes() { return sizeof(EmulatorLaunch); }

API cuModuleLoadData(CUmodule* module, const void* image) {
  BEGIN_CALL;
  if (const CUresult status = check_unsafe_call()) return status;
  return load(module, image, SIZE_MAX);
}
API cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, CUjit_option*, void**) {
  return cuModuleLoadData(module, image);
}
API cuModuleLoad(CUmodule* module, const char* path) {
  BEGIN_CALL;
  if (const CUresult status = check_unsafe_call()) return status;
  std::string content;
  if (const CUresult status = load_file(path, content)) return status;
  return load(module, content.data(), content.size());
}
API cuModuleUnload(CUmodule module) {
  const Call call(__func__);
  if (const CUresult status = check_module(module)) return status;
  module->unloaded = true;
  for (int i = 0; module->code && i < module->code->variable_count; i++)
    remove_variable(reinterpret_cast<uintptr_t>(module->code->variables[i].address));
  return CUDA_SUCCESS;
}
API cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  BEGIN_CALL;
  if (const CUresult status = check_module(module)) return status;
  const auto kernel = module->image.kernels.find(name);
  if (kernel == module->image.kernels.end()) return fail(CUDA_ERROR_NOT_FOUND, "the module has no kernel %s", name);
  const std::lock_guard compilation(module->compilation);
  if (const CUresult status = compile(module)) return status;
  std::unique_ptr<CUfunc_st>& found = module->functions[name];
  if (!found) {
    const KernelCode *codes = module->code->kernels, *end = codes + module->code->kernel_count;
    const KernelCode* code =
        std::find_if(codes, end, [&](const KernelCode& candidate) { return !strcmp(candidate.name, name); });
    if (code == end) return fail(CUDA_ERROR_INVALID_IMAGE, "the emulator has no kernel %s", name);
    auto made = std::make_unique<CUfunc_st>(
        CUfunc_st{module, name, kernel->second, code, kStaticSharedLimit - kernel->second.static_shared});
    if (const CUresult status = check_parameters(*made)) return status;
    found = std::move(made);
  }
  *function = found.get();
  return CUDA_SUCCESS;
}
API cuModuleGetGlobal(CUdeviceptr* address, size_t* bytes, CUmodule module, const char* name) {
  BEGIN_CALL;
  if (const CUresult status = check_module(module)) return status;
  if (!module->image.variables.count(name)) return fail(CUDA_ERROR_NOT_FOUND, "the module has no variable %s", name);
  const std::lock_guard compilation(module->compilation);
  if (const CUresult status = compile(module)) return status;
  for (int i = 0; i < module->code->variable_count; i++) {
    const VariableCode& variable = module->code->variables[i];
    if (strcmp(variable.name, name)) continue;
    if (address) *address = reinterpret_cast<CUdeviceptr>(variable.address);
    if (bytes) *bytes = variable.bytes;
    return CUDA_SUCCESS;
  }
  return fail(CUDA_ERROR_NOT_SUPPORTED, "the emulator cannot name the variable %s", name);
}

// ---- the linker: PTX of NVRTC becomes an image with the same record ------------------------------------------------------

struct CUlinkState_st {
  std::string image;
};

API cuLinkCreate(unsigned, CUjit_option*, void**, CUlinkState* state) {
  BEGIN_CALL;
  *state = new CUlinkState_st;
  return CUDA_SUCCESS;
}
API cuLinkAddData(CUlinkState state, CUjitInputType, void* data, size_t bytes, const char* name, unsigned, CUjit_option*,
                  void**) {
  BEGIN_CALL;
  if (!state->image.empty()) return fail(CUDA_ERROR_NOT_SUPPORTED, "%s: only one source can be linked", name);
  state->image.assign(static_cast<const char*>(data), bytes);
  return CUDA_SUCCESS;
}
API cuLinkAddFile(CUlinkState, CUjitInputType type, const char* path, unsigned, CUjit_option*, void**) {
  BEGIN_CALL;
  return type == CU_JIT_INPUT_LIBRARY ? CUDA_SUCCESS
                                      : fail(CUDA_ERROR_NOT_SUPPORTED, "%s: only libraries can be added as files", path);
}
API cuLinkComplete(CUlinkState state, void** image, size_t* bytes) {
  BEGIN_CALL;
  *image = state->image.data();
  *bytes = state->image.size();
  return CUDA_SUCCESS;
}
API cuLinkDestroy(CUlinkState state) {
  const Call call(__func__);
  delete state;
  return CUDA_SUCCESS;
}
