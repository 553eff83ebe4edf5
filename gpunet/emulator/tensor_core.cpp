// Matrix instructions of a warp: ldmatrix, stmatrix, mma.  primitives.cuh describes the register layouts.

#include "runtime.h"

#include <math.h>
#include <string.h>

namespace emulator {

static void require_full_warp(const char* what, Site site) {
  if (lanes_of_warp() != 0xffffffffu)
    fail("divergence", "the %s of %s:%d needs 32 lanes, but the block's last warp has fewer", what, site.file, site.line);
}

// ---- 8 x 8 matrices --------------------------------------------------------------------------------------------------

struct Matrices {  // the operands of a lane
  char* row;
  unsigned int* registers;
  int count;
  bool transposed, store;
};

static void move_matrices(void** of_lane, unsigned int) {
  for (int matrix = 0; matrix < static_cast<Matrices*>(of_lane[0])->count; matrix++)
    for (int lane = 0; lane < 32; lane++) {
      const Matrices& mine = *static_cast<Matrices*>(of_lane[lane]);
      for (int half = 0; half < 2; half++) {
        const int across = lane % 4 * 2 + half, row = mine.transposed ? across : lane / 4, column = mine.transposed ? lane / 4 : across;
        char* element = static_cast<Matrices*>(of_lane[matrix * 8 + row])->row + 2 * column;
        char* half_register = reinterpret_cast<char*>(&mine.registers[matrix]) + 2 * half;
        if (mine.store) memcpy(element, half_register, 2);
        else memcpy(half_register, element, 2);
      }
    }
}

static void matrices(Matrices mine, Site site, void* return_address) {
  const Collective kind = mine.store ? Collective::stmatrix : Collective::ldmatrix;
  const char* what = mine.store ? "stmatrix" : "ldmatrix";
  require_full_warp(what, site);
  if (lane() < 8 * mine.count) {
    const auto address = reinterpret_cast<uintptr_t>(mine.row);
    if (address % 16)
      fail("misaligned", "%s at @%#zx is given a row at %#zx, which is not a multiple of 16", what,
           reinterpret_cast<uintptr_t>(return_address) - launch->library, address);
    require_shared(mine.row, what, return_address);
    access(mine.row, 16, mine.store ? Access::write : Access::read, return_address);
  }
  warp_collective(0xffffffffu, kind, site, &mine, move_matrices);
}

void load_matrices(unsigned int* registers, int count, bool transposed, const void* row, Site site, void* return_address) {
  matrices({static_cast<char*>(const_cast<void*>(row)), registers, count, transposed, false}, site, return_address);
}

void store_matrices(void* row, const unsigned int* registers, int count, bool transposed, Site site, void* return_address) {
  matrices({static_cast<char*>(row), const_cast<unsigned int*>(registers), count, transposed, true}, site, return_address);
}

// ---- multiply and accumulate -------------------------------------------------------------------------------------------

struct Product {  // the operands of a lane
  Format format;
  int depth;
  bool half_sums;
  void* d;
  const unsigned int *a, *b;
};

// Converts element `half` of a register to float32.
static float value(Format format, unsigned int bits, int half) {
  if (format == Format::tf32) return same_bits<float>(bits & ~0x1fffu);  // the hardware ignores the other bits
  const unsigned int element = bits >> 16 * half & 0xffffu;
  return format == Format::bf16 ? same_bits<float>(element << 16) : float_of_half(static_cast<unsigned short>(element));
}

// Calls body(i, half, row, column) for each element of d in a lane's registers.
template <class Body>
static void for_each_sum(int lane, Body body) {
  for (int i = 0; i < 2; i++)
    for (int half = 0; half < 2; half++) body(i, half, lane / 4 + 8 * i, lane % 4 * 2 + half);
}

// The products are exact in float32.  The sum starts with d and adds them in the order of depth, rounding each to nearest.
static void multiply_matrices(void** of_lane, unsigned int) {
  float a[16][16], b[16][8], d[16][8];
  const Product& first = *static_cast<Product*>(of_lane[0]);
  const Format format = first.format;
  const int depth = first.depth, halves = format == Format::tf32 ? 1 : 2, across = 4 * halves;
  for (int lane = 0; lane < 32; lane++) {
    const Product& mine = *static_cast<Product*>(of_lane[lane]);
    const int group = lane / 4, member = lane % 4 * halves;
    for (int half = 0; half < halves; half++) {
      for (int i = 0; i < 2 * depth / across; i++)
        a[group + 8 * (i % 2)][member + half + i / 2 * across] = value(format, mine.a[i], half);
      for (int i = 0; i < depth / across; i++) b[member + half + i * across][group] = value(format, mine.b[i], half);
    }
    for_each_sum(lane, [&](int i, int half, int row, int column) {
      d[row][column] = mine.half_sums ? value(Format::f16, static_cast<unsigned int*>(mine.d)[i], half)
                                      : static_cast<float*>(mine.d)[2 * i + half];
    });
  }
  for (int row = 0; row < 16; row++)
    for (int k = 0; k < depth; k++)
      for (int column = 0; column < 8; column++) d[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < 32; lane++) {
    const Product& mine = *static_cast<Product*>(of_lane[lane]);
    for_each_sum(lane, [&](int i, int half, int row, int column) {
      if (mine.half_sums) static_cast<unsigned short*>(mine.d)[2 * i + half] = half_of(d[row][column]);
      else static_cast<float*>(mine.d)[2 * i + half] = d[row][column];
    });
  }
}

static void multiply(Product mine, Site site) {
  require_full_warp("mma", site);
  warp_collective(0xffffffffu, Collective::mma, site, &mine, multiply_matrices);
}

void multiply(Format format, int depth, float* d, const unsigned int* a, const unsigned int* b, Site site) {
  multiply({format, depth, false, d, a, b}, site);
}
void multiply(Format format, int depth, unsigned int* d, const unsigned int* a, const unsigned int* b, Site site) {
  multiply({format, depth, true, d, a, b}, site);
}

struct ProductOfDoubles {  // the operands of a lane
  double* d;
  double a, b;
};

static void multiply_doubles(void** of_lane, unsigned int) {
  for (int lane = 0; lane < 32; lane++)
    for (int half = 0; half < 2; half++) {
      double& sum = static_cast<ProductOfDoubles*>(of_lane[lane])->d[half];
      for (int k = 0; k < 4; k++)
        sum = fma(static_cast<ProductOfDoubles*>(of_lane[lane / 4 * 4 + k])->a,
                  static_cast<ProductOfDoubles*>(of_lane[(lane % 4 * 2 + half) * 4 + k])->b, sum);
    }
}

void multiply(double* d, double a, double b, Site site) {
  require_full_warp("mma", site);
  ProductOfDoubles mine{d, a, b};
  warp_collective(0xffffffffu, Collective::mma, site, &mine, multiply_doubles);
}

}  // namespace emulator
