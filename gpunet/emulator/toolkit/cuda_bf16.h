// Wraps the toolkit's cuda_bf16.h: its host code, plus the functions that it defines for the GPU only.
#pragma once
#include "toolkit.h"
#include_next <cuda_bf16.h>
EMULATOR_HALF(__nv_bfloat16, __nv_bfloat162, __bfloat162float, __float2bfloat16, __double2bfloat16,
              __halves2bfloat162, __low2bfloat16, __high2bfloat16)
EMULATOR_HALF_TO_INTEGERS(__nv_bfloat16, __bfloat162, __bfloat162float)
#pragma pop_macro("__CUDA_ARCH__")
