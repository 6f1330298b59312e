#include "arena.h"

#include <stdint.h>
#include <string.h>

#include "mem.h"

struct arena_chunk {
    struct arena_chunk *next;
    size_t size, used; /* of data */
    max_align_t data[];
};

void arena_init(struct arena *a, size_t chunk_bytes)
{
    *a = (struct arena){.chunk_bytes = chunk_bytes};
}

static struct arena_chunk *chunk_add(struct arena *a, size_t need)
{
    size_t size = need > a->chunk_bytes ? need : a->chunk_bytes;
    if (size > SIZE_MAX - sizeof(struct arena_chunk))
        return NULL;
    struct arena_chunk *c = mem_alloc(sizeof *c + size);
    if (!c)
        return NULL;
    *c = (struct arena_chunk){.next = a->head, .size = size};
    return a->head = c;
}

void *arena_alloc(struct arena *a, size_t size_bytes)
{
    if (size_bytes > SIZE_MAX - 15)
        return NULL;
    size_t need = (size_bytes + 15) & ~(size_t)15;
    struct arena_chunk *c = a->head;
    if (!c || c->size - c->used < need)
        c = chunk_add(a, need);
    if (!c)
        return NULL;
    void *p = (char *)c->data + c->used;
    c->used += need;
    a->used_bytes += need;
    return memset(p, 0, size_bytes);
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *keep = NULL;
    for (struct arena_chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        if (!keep || c->size > keep->size) {
            mem_free(keep);
            keep = c;
        } else {
            mem_free(c);
        }
    }
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
    a->head = keep;
    a->used_bytes = 0;
}

void arena_free(struct arena *a)
{
    for (struct arena_chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        mem_free(c);
    }
    a->head = NULL;
    a->used_bytes = 0;
}
