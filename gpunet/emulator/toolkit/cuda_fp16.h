// Wraps the toolkit's cuda_fp16.h: its host code, plus the functions that it defines for the GPU only.
#pragma once
#include "toolkit.h"
#include_next <cuda_fp16.h>
EMULATOR_HALF(__half, __half2, __half2float, __float2half, __double2half, __halves2half2, __low2half, __high2half)
EMULATOR_HALF_TO_INTEGERS(__half, __half2, __half2float)
#pragma pop_macro("__CUDA_ARCH__")
