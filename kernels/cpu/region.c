#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu.h"
#include "mem.h"

enum { ALIGN = 64, HUGE_PAGE = 2 << 20 };

static char *align_up(void *p, uintptr_t to)
{
    return (char *)(((uintptr_t)p + to - 1) & ~(to - 1));
}

int region_create(struct region *r, size_t bytes, struct err *e)
{
    *r = (struct region){.bytes = bytes, .mapped = bytes >= HUGE_PAGE};
    if (!r->mapped) {
        r->mem = mem_calloc(1, bytes + ALIGN);
        r->base = r->mem ? align_up(r->mem, ALIGN) : NULL;
    } else {
        r->bytes = bytes + HUGE_PAGE;
        r->mem = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (r->mem == MAP_FAILED)
            r->mem = NULL;
        r->base = r->mem ? align_up(r->mem, HUGE_PAGE) : NULL;
        if (r->base)
            madvise(r->base, bytes, MADV_HUGEPAGE); /* only a wish */
    }
    return r->mem ? 0 : err_set(e, ERR_NOMEM, "out of memory: %zu bytes", bytes);
}

void region_free(struct region *r)
{
    if (r->mem && r->mapped)
        munmap(r->mem, r->bytes);
    else
        mem_free(r->mem);
    *r = (struct region){0};
}
