/* Arena: a bump allocator over chunks; one owner, freed whole. Open to all floors. */
#ifndef GALLEY_ARENA_H
#define GALLEY_ARENA_H

#include <stddef.h>

struct arena {
    struct arena_chunk *head; /* newest first; owned */
    size_t chunk_bytes;       /* size of the next chunk */
    size_t used_bytes;        /* handed out since the last reset, all chunks */
};

void arena_init(struct arena *a, size_t chunk_bytes);
/* 16-byte aligned, zeroed. NULL when out of memory: the arena stays usable. */
void *arena_alloc(struct arena *a, size_t size_bytes);
/* Forgets everything but keeps the largest chunk, so a warmed-up arena allocates no more. */
void arena_reset(struct arena *a);
void arena_free(struct arena *a);

#endif
