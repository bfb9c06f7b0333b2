/* The row kernels for portable (4 floats a vector). */
#define VL       4
#define ROWS     rows_portable
#define ISA_NAME "portable"
#include "core/kernel/rows.inc"
