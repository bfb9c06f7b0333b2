/* The row kernels for avx512 (16 floats a vector). */
#define VL       16
#define ROWS     rows_avx512
#define ISA_NAME "avx512"
#include "core/kernel/rows.inc"
