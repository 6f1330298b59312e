#include "isa.h"

#include <stdlib.h>
#include <string.h>

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
#endif

static const struct choice { /* best first */
    const char *name;
    const struct cpu_isa *isa;
    int (*can)(void);
} choices[] = {
#if defined(GALLEY_X86)
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
    return err_set(e, ERR_INVALID, "GALLEY_CPU_ISA=%s: not one of avx512vnni, avx512, avx2, portable", want);
}
