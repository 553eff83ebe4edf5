// The stand-in for libnvrtc.so.13: NVIDIA's own NVRTC compiles (it needs no GPU), and its cubin or PTX gets a record of the
// source, from which the emulator compiles the same kernels for the CPU.
#include <dlfcn.h>
#include <nvrtc.h>
#include <stdio.h>
#include <stdlib.h>

#include <string>
#include <vector>

#include "../record.h"

#define API extern "C" __attribute__((visibility("default"))) nvrtcResult

namespace {

void* real_library = nullptr;

// A function of NVIDIA's library, with the type of the one declared in nvrtc.h.
template <class Function>
Function* real(Function*, const char* name) {
  void* found = real_library ? dlsym(real_library, name) : nullptr;
  if (!found) {
    fprintf(stderr, "stand-in for NVRTC: NVIDIA's library has no %s\n", name);
    abort();
  }
  return reinterpret_cast<Function*>(found);
}
#define REAL(name) real(&name, #name)

struct Program {
  nvrtcProgram compiled = nullptr;
  std::string name, source;
  std::vector<std::string> expressions, options;
  std::vector<std::pair<std::string, std::string>> headers;
};
Program* program_of(nvrtcProgram handle) { return reinterpret_cast<Program*>(handle); }

std::string record_of(const Program& program) {
  std::string record;
  record::add(record, "name", program.name);
  for (const std::string& option : program.options) record::add(record, "option", option);
  for (const std::string& expression : program.expressions) {
    const char* lowered = nullptr;
    if (REAL(nvrtcGetLoweredName)(program.compiled, expression.c_str(), &lowered) == NVRTC_SUCCESS)
      record::add(record, "lowered", expression + "\n" + lowered);
  }
  for (const auto& header : program.headers) record::add(record, "header", header.first + "\n" + header.second);
  record::add(record, "source", program.source);
  return record;
}

using GetSize = nvrtcResult(nvrtcProgram, size_t*);
using GetText = nvrtcResult(nvrtcProgram, char*);
std::string text_of(const Program& program, GetSize* get_size, GetText* get, nvrtcResult& status) {
  size_t bytes = 0;
  std::string text;
  if ((status = get_size(program.compiled, &bytes))) return text;
  text.resize(bytes);
  status = get(program.compiled, text.data());
  return text;
}

std::string cubin_of(const Program& program, nvrtcResult& status) {
  const std::string cubin = text_of(program, REAL(nvrtcGetCUBINSize), REAL(nvrtcGetCUBIN), status);
  return status || cubin.empty() ? cubin : cubin + record::after_cubin(record_of(program));
}
std::string ptx_of(const Program& program, nvrtcResult& status) {
  const std::string ptx = text_of(program, REAL(nvrtcGetPTXSize), REAL(nvrtcGetPTX), status);
  return status || ptx.empty() ? ptx : ptx.c_str() + record::after_ptx(record_of(program)) + '\0';
}

using Make = std::string(const Program&, nvrtcResult&);
nvrtcResult size_of(Make* make, nvrtcProgram handle, size_t* bytes) {
  nvrtcResult status;
  *bytes = make(*program_of(handle), status).size();
  return status;
}
nvrtcResult copy_of(Make* make, nvrtcProgram handle, char* to) {
  nvrtcResult status;
  const std::string made = make(*program_of(handle), status);
  memcpy(to, made.data(), made.size());
  return status;
}
}  // namespace

// Called by tests/driver/__init__.py with the path of NVIDIA's library; false if it does not load.
extern "C" __attribute__((visibility("default"))) bool standin_load_nvrtc(const char* path) {
  real_library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  return real_library != nullptr;
}

API nvrtcCreateProgram(nvrtcProgram* handle, const char* source, const char* name, int count, const char* const* headers,
                       const char* const* names) {
  auto* program = new Program;
  const nvrtcResult status = REAL(nvrtcCreateProgram)(&program->compiled, source, name, count, headers, names);
  if (status) {
    delete program;
    return status;
  }
  program->name = name ? name : "";
  program->source = source;
  for (int i = 0; i < count; i++) program->headers.emplace_back(names[i], headers[i]);
  *handle = reinterpret_cast<nvrtcProgram>(program);
  return status;
}
API nvrtcDestroyProgram(nvrtcProgram* handle) {
  Program* program = program_of(*handle);
  const nvrtcResult status = REAL(nvrtcDestroyProgram)(&program->compiled);
  delete program;
  *handle = nullptr;
  return status;
}
API nvrtcCompileProgram(nvrtcProgram handle, int count, const char* const* options) {
  Program* program = program_of(handle);
  program->options.assign(options, options + count);
  return REAL(nvrtcCompileProgram)(program->compiled, count, options);
}
API nvrtcAddNameExpression(nvrtcProgram handle, const char* expression) {
  Program* program = program_of(handle);
  const nvrtcResult status = REAL(nvrtcAddNameExpression)(program->compiled, expression);
  if (!status) program->expressions.emplace_back(expression);
  return status;
}
API nvrtcGetLoweredName(nvrtcProgram handle, const char* expression, const char** name) {
  return REAL(nvrtcGetLoweredName)(program_of(handle)->compiled, expression, name);
}

API nvrtcGetCUBINSize(nvrtcProgram handle, size_t* bytes) { return size_of(cubin_of, handle, bytes); }
API nvrtcGetCUBIN(nvrtcProgram handle, char* cubin) { return copy_of(cubin_of, handle, cubin); }
API nvrtcGetPTXSize(nvrtcProgram handle, size_t* bytes) { return size_of(ptx_of, handle, bytes); }
API nvrtcGetPTX(nvrtcProgram handle, char* ptx) { return copy_of(ptx_of, handle, ptx); }

API nvrtcVersion(int* major, int* minor) { return REAL(nvrtcVersion)(major, minor); }
API nvrtcGetNumSupportedArchs(int* count) { return REAL(nvrtcGetNumSupportedArchs)(count); }
API nvrtcGetSupportedArchs(int* archs) { return REAL(nvrtcGetSupportedArchs)(archs); }
API nvrtcGetProgramLogSize(nvrtcProgram handle, size_t* bytes) {
  return REAL(nvrtcGetProgramLogSize)(program_of(handle)->compiled, bytes);
}
API nvrtcGetProgramLog(nvrtcProgram handle, char* log) { return REAL(nvrtcGetProgramLog)(program_of(handle)->compiled, log); }
API nvrtcGetLTOIRSize(nvrtcProgram handle, size_t* bytes) {
  return REAL(nvrtcGetLTOIRSize)(program_of(handle)->compiled, bytes);
}
API nvrtcGetLTOIR(nvrtcProgram handle, char* code) { return REAL(nvrtcGetLTOIR)(program_of(handle)->compiled, code); }
extern "C" __attribute__((visibility("default"))) const char* nvrtcGetErrorString(nvrtcResult status) {
  return REAL(nvrtcGetErrorString)(status);
}
