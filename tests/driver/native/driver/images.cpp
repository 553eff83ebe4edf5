// Reads cubins (ELF files for a GPU) and PTX: kernels, the sizes of their parameters, the resources they take, variables.
#include <elf.h>
#include <string.h>

#include <algorithm>

#include "../record.h"
#include "driver.h"

namespace driver {
namespace {

class Cubin {
 public:
  // The caller need not know how long an image in memory is: `limit` is then SIZE_MAX.
  Cubin(const char* data, size_t limit) : data_(data), limit_(limit) {
    header_ = at<Elf64_Ehdr>(0);
    if (!header_ || memcmp(header_->e_ident, ELFMAG, SELFMAG) || header_->e_ident[EI_CLASS] != ELFCLASS64) return;
    sections_ = at<Elf64_Shdr>(header_->e_shoff, header_->e_shnum);
    valid_ = sections_ && header_->e_shstrndx < header_->e_shnum;
  }
  bool valid() const { return valid_; }

  size_t bytes() const {
    size_t end = header_->e_shoff + size_t{header_->e_shnum} * header_->e_shentsize;
    end = std::max<size_t>(end, header_->e_phoff + size_t{header_->e_phnum} * header_->e_phentsize);
    for (const Elf64_Shdr* s = sections_; s < sections_ + header_->e_shnum; s++)
      if (s->sh_type != SHT_NOBITS) end = std::max<size_t>(end, s->sh_offset + s->sh_size);
    return end;
  }

  void read(Image& image) const {
    read_symbols(image);
    for (auto& [name, kernel] : image.kernels) {
      if (const Elf64_Shdr* shared = find(".nv.shared." + name))
        kernel.static_shared = static_cast<int>(shared->sh_size) - (find(".nv.shared.reserved.0") ? 1024 : 0);
      if (const Elf64_Shdr* info = find(".nv.info." + name)) read_kernel_info(*info, kernel);
    }
    if (const Elf64_Shdr* info = find(".nv.info")) read_resources(*info, image);
  }

 private:
  static constexpr unsigned char kEntry = 0x10;  // st_other of a kernel
  // Attributes of .nv.info sections, as cuobjdump -elf names them.
  enum Attribute : uint8_t {
    kMaxThreads = 0x05, kFrameSize = 0x11, kParameter = 0x17, kRegisters = 0x2f, kLargeParameter = 0x45
  };

  template <class T>
  const T* at(size_t offset, size_t count = 1) const {
    return offset <= limit_ && count * sizeof(T) <= limit_ - offset ? reinterpret_cast<const T*>(data_ + offset) : nullptr;
  }
  const char* name_of(const Elf64_Shdr& section) const {
    return data_ + sections_[header_->e_shstrndx].sh_offset + section.sh_name;
  }
  const Elf64_Shdr* find(const std::string& name) const {
    for (const Elf64_Shdr* s = sections_; s < sections_ + header_->e_shnum; s++)
      if (name == name_of(*s)) return s;
    return nullptr;
  }
  const Elf64_Sym* symbols() const { return reinterpret_cast<const Elf64_Sym*>(data_ + find(".symtab")->sh_offset); }
  std::string symbol_name(const Elf64_Sym& symbol) const { return data_ + find(".strtab")->sh_offset + symbol.st_name; }

  void read_symbols(Image& image) const {
    const Elf64_Shdr* table = find(".symtab");
    if (!table) return;
    for (const Elf64_Sym* s = symbols(); s < symbols() + table->sh_size / sizeof(Elf64_Sym); s++) {
      if (ELF64_ST_TYPE(s->st_info) == STT_FUNC && s->st_other & kEntry) image.kernels[symbol_name(*s)];
      if (ELF64_ST_TYPE(s->st_info) == STT_OBJECT && s->st_shndx && s->st_shndx < header_->e_shnum) {
        const std::string section = name_of(sections_[s->st_shndx]);
        if (section == ".nv.constant3" || section.rfind(".nv.global", 0) == 0) image.variables[symbol_name(*s)] = s->st_size;
      }
    }
  }

  // Calls visit(attribute, value, bytes) for each attribute whose value has a length of its own.
  template <class Visit>
  void for_each_attribute(const Elf64_Shdr& section, Visit visit) const {
    const char *at = data_ + section.sh_offset, *end = at + section.sh_size;
    while (at + 4 <= end) {
      const uint8_t format = static_cast<uint8_t>(at[0]), attribute = static_cast<uint8_t>(at[1]);
      uint16_t bytes;
      memcpy(&bytes, at + 2, 2);
      at += 4;
      if (format != 4) continue;  // the value is in the header
      visit(attribute, reinterpret_cast<const uint32_t*>(at), bytes);
      at += bytes;
    }
  }

  void read_kernel_info(const Elf64_Shdr& section, KernelInfo& kernel) const {
    std::map<int, ParameterInfo> parameters;  // by number
    for_each_attribute(section, [&](uint8_t attribute, const uint32_t* value, uint16_t) {
      if (attribute == kParameter || attribute == kLargeParameter) {  // small sizes share their word with flags
        const uint32_t bytes = attribute == kParameter ? value[2] >> 18 : value[2];
        parameters[static_cast<int>(value[1] & 0xffff)] = {static_cast<int>(value[1] >> 16), static_cast<int>(bytes)};
      }
      if (attribute == kMaxThreads) kernel.max_threads = static_cast<int>(value[0] * value[1] * value[2]);
    });
    for (const auto& entry : parameters) kernel.parameters.push_back(entry.second);
  }

  void read_resources(const Elf64_Shdr& section, Image& image) const {
    for_each_attribute(section, [&](uint8_t attribute, const uint32_t* value, uint16_t) {
      if (attribute != kRegisters && attribute != kFrameSize) return;
      auto kernel = image.kernels.find(symbol_name(symbols()[value[0]]));
      if (kernel == image.kernels.end()) return;
      (attribute == kRegisters ? kernel->second.registers : kernel->second.local_bytes) = static_cast<int>(value[1]);
    });
    const Elf64_Shdr* constants = find(".nv.constant3");
    for (auto& entry : image.kernels) entry.second.constant_bytes = constants ? static_cast<int>(constants->sh_size) : 0;
  }

  const char* data_;
  size_t limit_;
  const Elf64_Ehdr* header_ = nullptr;
  const Elf64_Shdr* sections_ = nullptr;
  bool valid_ = false;
};

void read_ptx(const std::string& ptx, Image& image) {
  const std::string entry = ".entry ";
  for (size_t at = ptx.find(entry); at != std::string::npos; at = ptx.find(entry, at + 1)) {
    const size_t begin = at + entry.size(), end = ptx.find_first_of("( \n", begin);
    image.kernels[ptx.substr(begin, end - begin)];
  }
}

CUresult without_record() {
  return fail(CUDA_ERROR_INVALID_IMAGE,
              "the image was not compiled by the stand-in's NVRTC: without its CUDA source it cannot run on a CPU");
}
}  // namespace

CUresult read_image(const void* data, size_t limit, Image& image) {
  const char* begin = static_cast<const char*>(data);
  if (!data || !limit) return fail(CUDA_ERROR_INVALID_VALUE, "the image is empty");
  if (limit < SELFMAG || memcmp(begin, ELFMAG, SELFMAG)) {
    const std::string ptx(begin, strnlen(begin, limit));
    image.record = record::of_ptx(ptx);
    if (image.record.empty()) return without_record();
    read_ptx(ptx, image);
    return CUDA_SUCCESS;
  }
  const Cubin cubin(begin, limit);
  if (!cubin.valid()) return fail(CUDA_ERROR_INVALID_IMAGE, "a damaged cubin");
  const size_t end = cubin.bytes();
  const size_t header = record::kMagicBytes + 8;
  if (end > limit || limit - end < header || memcmp(begin + end, record::kMagic, record::kMagicBytes)) return without_record();
  uint64_t bytes;
  memcpy(&bytes, begin + end + record::kMagicBytes, 8);
  if (limit - end - header < bytes) return fail(CUDA_ERROR_INVALID_IMAGE, "a truncated cubin");
  image.record.assign(begin + end + header, bytes);
  image.is_cubin = true;
  cubin.read(image);
  return CUDA_SUCCESS;
}

}  // namespace driver
