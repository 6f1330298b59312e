#include "mem.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static atomic_long fail_countdown;
static _Thread_local unsigned long n_thread_alloc;

static int injected_fault(void)
{
    n_thread_alloc++;
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) == 0)
        return 0;
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

void *mem_alloc(size_t size_bytes)
{
    return injected_fault() ? NULL : malloc(size_bytes ? size_bytes : 1);
}

void *mem_calloc(size_t n, size_t size_bytes)
{
    return injected_fault() ? NULL : calloc(n ? n : 1, size_bytes ? size_bytes : 1);
}

void *mem_realloc(void *p, size_t size_bytes)
{
    return injected_fault() ? NULL : realloc(p, size_bytes ? size_bytes : 1);
}

char *mem_strndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *copy = mem_alloc(len + 1);
    if (copy) {
        memcpy(copy, s, len);
        copy[len] = 0;
    }
    return copy;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, SIZE_MAX);
}

void mem_free(void *p)
{
    free(p);
}

void mem_fail_nth(long n)
{
    atomic_store(&fail_countdown, n);
}

unsigned long mem_thread_count(void)
{
    return n_thread_alloc;
}
