// Conversions between integers and floating-point numbers with a rounding mode in their names: __float2int_rz and others.
#pragma once
#include <math.h>

#include <limits>
#include <type_traits>

#include "intrinsics.h"

namespace emulator {

enum class Rounding { nearest, zero, up, down };  // _rn, _rz, _ru, _rd

// Saturates.  NaN: 0 from float to 32 bits, else the value with the highest bit alone, as the PTX ISA says of cvt.
template <class To, class From>
inline To to_integer(From a, Rounding rounding) {
  using Limits = std::numeric_limits<To>;
  using Bits = std::make_unsigned_t<To>;
  if (a != a) return sizeof(To) == 4 && sizeof(From) == 4 ? 0 : static_cast<To>(Bits(1) << (8 * sizeof(To) - 1));
  const From whole = rounding == Rounding::nearest ? rint(a)
                     : rounding == Rounding::zero  ? trunc(a)
                     : rounding == Rounding::up    ? ceil(a)
                                                   : floor(a);
  if (whole < static_cast<From>(Limits::min())) return Limits::min();
  // the largest integer rounds up to a power of two, which is out of range
  return whole >= static_cast<From>(Limits::max()) ? Limits::max() : static_cast<To>(whole);
}

template <class To, class From>
inline To to_floating(From a, Rounding rounding) {
  const To nearest = static_cast<To>(a);
  const long double exact = a, found = nearest;  // 64 bits of significand hold both
  const bool is_down = rounding == Rounding::down || (rounding == Rounding::zero && exact > 0);
  const bool is_up = rounding == Rounding::up || (rounding == Rounding::zero && exact < 0);
  if (is_down && found > exact) return nextafter(nearest, -std::numeric_limits<To>::infinity());
  if (is_up && found < exact) return nextafter(nearest, std::numeric_limits<To>::infinity());
  return nearest;
}
}  // namespace emulator

#define EMULATOR_CONVERSION(name, convert, To, From)                                                \
  inline To __##name##_rn(From a) { return emulator::convert<To>(a, emulator::Rounding::nearest); } \
  inline To __##name##_rz(From a) { return emulator::convert<To>(a, emulator::Rounding::zero); }    \
  inline To __##name##_ru(From a) { return emulator::convert<To>(a, emulator::Rounding::up); }      \
  inline To __##name##_rd(From a) { return emulator::convert<To>(a, emulator::Rounding::down); }
EMULATOR_CONVERSION(float2int, to_integer, int, float)
EMULATOR_CONVERSION(float2uint, to_integer, unsigned int, float)
EMULATOR_CONVERSION(float2ll, to_integer, long long, float)
EMULATOR_CONVERSION(float2ull, to_integer, unsigned long long, float)
EMULATOR_CONVERSION(double2int, to_integer, int, double)
EMULATOR_CONVERSION(double2uint, to_integer, unsigned int, double)
EMULATOR_CONVERSION(double2ll, to_integer, long long, double)
EMULATOR_CONVERSION(double2ull, to_integer, unsigned long long, double)
EMULATOR_CONVERSION(int2float, to_floating, float, int)
EMULATOR_CONVERSION(uint2float, to_floating, float, unsigned int)
EMULATOR_CONVERSION(ll2float, to_floating, float, long long)
EMULATOR_CONVERSION(ull2float, to_floating, float, unsigned long long)
EMULATOR_CONVERSION(ll2double, to_floating, double, long long)
EMULATOR_CONVERSION(ull2double, to_floating, double, unsigned long long)
EMULATOR_CONVERSION(double2float, to_floating, float, double)
#undef EMULATOR_CONVERSION

inline double __int2double_rn(int a) { return a; }
inline double __uint2double_rn(unsigned int a) { return a; }
inline int __double2hiint(double a) { return static_cast<int>(emulator::same_bits<long long>(a) >> 32); }
inline int __double2loint(double a) { return static_cast<int>(emulator::same_bits<long long>(a)); }
inline double __hiloint2double(int high, int low) {
  return emulator::same_bits<double>(static_cast<long long>(high) << 32 | static_cast<unsigned int>(low));
}
