/* The row kernels for avx2 (8 floats a vector). */
#define VL       8
#define ROWS     rows_avx2
#define ISA_NAME "avx2"
#include "core/kernel/rows.inc"
