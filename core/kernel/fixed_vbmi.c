/* Whole-number dot products for AVX-512 VNNI with VBMI and GFNI. */
#define FIXED fixed_vbmi
#include "core/kernel/fixed.inc"
