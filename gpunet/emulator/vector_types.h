// CUDA's vector types and dim3.
#pragma once

#define EMULATOR_VECTOR_TYPES(Name, Element, PAIR, QUAD)                                               \
  struct Name##1 { Element x; };                                                                       \
  struct __attribute__((aligned(PAIR))) Name##2 { Element x, y; };                                     \
  struct Name##3 { Element x, y, z; };                                                                 \
  struct __attribute__((aligned(QUAD))) Name##4 { Element x, y, z, w; };                               \
  inline Name##1 make_##Name##1(Element x) { return {x}; }                                             \
  inline Name##2 make_##Name##2(Element x, Element y) { return {x, y}; }                               \
  inline Name##3 make_##Name##3(Element x, Element y, Element z) { return {x, y, z}; }                 \
  inline Name##4 make_##Name##4(Element x, Element y, Element z, Element w) { return {x, y, z, w}; }

EMULATOR_VECTOR_TYPES(char, signed char, 2, 4)
EMULATOR_VECTOR_TYPES(uchar, unsigned char, 2, 4)
EMULATOR_VECTOR_TYPES(short, short, 4, 8)
EMULATOR_VECTOR_TYPES(ushort, unsigned short, 4, 8)
EMULATOR_VECTOR_TYPES(int, int, 8, 16)
EMULATOR_VECTOR_TYPES(uint, unsigned int, 8, 16)
EMULATOR_VECTOR_TYPES(float, float, 8, 16)
EMULATOR_VECTOR_TYPES(long, long, 16, 16)
EMULATOR_VECTOR_TYPES(ulong, unsigned long, 16, 16)
EMULATOR_VECTOR_TYPES(longlong, long long, 16, 16)
EMULATOR_VECTOR_TYPES(ulonglong, unsigned long long, 16, 16)
EMULATOR_VECTOR_TYPES(double, double, 16, 16)
#undef EMULATOR_VECTOR_TYPES

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 all) : x(all.x), y(all.y), z(all.z) {}
};
