/* Products of bf16 by the tile instructions of AMX. */
#include <sys/syscall.h>
#include <unistd.h>

#define VL    16
#define TABLE bf16_amx
#include "core/kernel/bf16_amx.inc"

bool amx_permitted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 }; /* Linux, arch/x86/include/uapi/asm/prctl.h */
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
