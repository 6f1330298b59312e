/* Allocation: open to all floors. Thin wrappers over malloc, so that tests can make the n-th one fail. */
#ifndef GALLEY_MEM_H
#define GALLEY_MEM_H

#include <stddef.h>

void *mem_alloc(size_t size_bytes);            /* uninitialised; NULL when out of memory */
void *mem_calloc(size_t n, size_t size_bytes); /* zeroed; NULL on overflow or out of memory */
void *mem_realloc(void *p, size_t size_bytes); /* NULL leaves p as it was */
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
void mem_free(void *p); /* NULL is legal */

/* Fault injection: the n-th allocation from now (1 = the next) fails, once. 0 switches it off. Process-wide. */
void mem_fail_nth(long n);
/* How many allocations the calling thread has made: proves that a hot path makes none. */
unsigned long mem_thread_count(void);

#endif
