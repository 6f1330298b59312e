#include "isa.h"

#include <stdlib.h>
#include <string.h>

#if defined(GALLEY_X86)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static int can_always(void)
{
    return 1;
}

#if defined(GALLEY_X86)
/* F16C came before AVX2 and is in every processor that has it; clang 14 cannot ask for it by name. */
static int can_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static int can_avx512(void)
{
    return can_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static int can_avx512vnni(void)
{
    return can_avx512() && __builtin_cpu_supports("avx512vnni");
}

/* The system grants tiles to a process that asks, once; it may be too old, or a sandbox may refuse. */
static int can_amx(void)
{
    enum { TILE_AND_BF16 = 1 << 24 | 1 << 22, ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    unsigned a, b, c, d;
    return can_avx512vnni() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & TILE_AND_BF16) == TILE_AND_BF16 &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}
#endif

static const struct choice { /* best first */
    const char *name;
    const struct cpu_isa *isa;
    int (*can)(void);
} choices[] = {
#if defined(GALLEY_X86)
    {"amx", &cpu_isa_amx, can_amx},
    {"avx512vnni", &cpu_isa_avx512vnni, can_avx512vnni},
    {"avx512", &cpu_isa_avx512, can_avx512},
    {"avx2", &cpu_isa_avx2, can_avx2},
#endif
    {"portable", &cpu_isa_portable, can_always},
};

int cpu_isa_choose(const struct cpu_isa **out, struct err *e)
{
    const char *want = getenv("GALLEY_CPU_ISA");
    if (want && !*want)
        want = NULL;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        if (want && strcmp(want, choices[i].name))
            continue;
        if (choices[i].can()) {
            *out = choices[i].isa;
            return 0;
        }
        if (want)
            return err_set(e, ERR_INVALID, "GALLEY_CPU_ISA=%s: this processor does not have it", want);
    }
    return err_set(e, ERR_INVALID, "GALLEY_CPU_ISA=%s: not one of amx, avx512vnni, avx512, avx2, portable", want);
}
