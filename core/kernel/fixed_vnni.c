/* Whole-number dot products for AVX-512 VNNI. */
#define FIXED fixed_vnni
#include "core/kernel/fixed.inc"
