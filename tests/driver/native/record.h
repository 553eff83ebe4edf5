// The record that our libnvrtc appends to a cubin or PTX: what was compiled, so that the emulator can compile it, too.
//
// A cubin is followed by "GPUNETSRC", the record's length in 8 bytes, and the record.  PTX is followed by a comment line with
// the record in hexadecimal digits.  A record is a list of "key length\nvalue\n": name, option, lowered (expression, a
// newline, the lowered name), header (its name, a newline, its text), source.
#pragma once
#include <stdint.h>
#include <string.h>

#include <string>

namespace record {

constexpr char kMagic[] = "GPUNETSRC";
constexpr size_t kMagicBytes = sizeof kMagic - 1;
constexpr char kComment[] = "\n//GPUNETSRC ";

inline void add(std::string& record, const char* key, const std::string& value) {
  record += std::string(key) + " " + std::to_string(value.size()) + "\n" + value + "\n";
}

inline std::string after_cubin(const std::string& record) {
  const uint64_t bytes = record.size();
  return std::string(kMagic) + std::string(reinterpret_cast<const char*>(&bytes), 8) + record +
         "\n";  // CuPy drops the last byte
}

inline std::string after_ptx(const std::string& record) {
  std::string text = kComment;
  for (unsigned char byte : record) text += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
  return text + "\n";
}

inline std::string of_ptx(const std::string& ptx) {
  const size_t begin = ptx.rfind(kComment);
  if (begin == std::string::npos) return "";
  std::string record;
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  for (size_t i = begin + sizeof kComment - 1; i + 1 < ptx.size() && isxdigit(ptx[i]); i += 2)
    record += static_cast<char>(digit(ptx[i]) << 4 | digit(ptx[i + 1]));
  return record;
}

}  // namespace record
