#include "ring.h"

#include <stddef.h>
#include <string.h>

#define SKIP UINT32_MAX /* a length that says: nothing more until the buffer's end */

void ring_init(struct ring *r, char *buf, uint32_t cap)
{
    r->buf = buf;
    r->cap = cap;
    atomic_init(&r->head, 0);
    atomic_init(&r->tail, 0);
}

uint32_t ring_room(const struct ring *r)
{
    return r->cap - (atomic_load_explicit(&r->head, memory_order_relaxed) -
                     atomic_load_explicit(&r->tail, memory_order_acquire));
}

static void put_len(struct ring *r, uint32_t at, uint32_t len)
{
    memcpy(r->buf + (at & (r->cap - 1)), &len, sizeof len);
}

void *ring_reserve(struct ring *r, uint32_t n)
{
    uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed), to_end = r->cap - (head & (r->cap - 1));
    uint32_t need = ring_record_bytes(n), room = ring_room(r);
    if (need > to_end) { /* does not fit before the end: skip to the start */
        if (room < to_end + need)
            return NULL;
        put_len(r, head, SKIP);
        head += to_end;
        atomic_store_explicit(&r->head, head, memory_order_release);
    } else if (room < need) {
        return NULL;
    }
    return r->buf + (head & (r->cap - 1)) + 8;
}

void ring_commit(struct ring *r, uint32_t n)
{
    uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    put_len(r, head, n);
    atomic_store_explicit(&r->head, head + ring_record_bytes(n), memory_order_release);
}

const void *ring_peek(struct ring *r, uint32_t *n)
{
    for (;;) {
        uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
        if (tail == atomic_load_explicit(&r->head, memory_order_acquire))
            return NULL;
        uint32_t at = tail & (r->cap - 1);
        memcpy(n, r->buf + at, sizeof *n);
        if (*n != SKIP)
            return r->buf + at + 8;
        atomic_store_explicit(&r->tail, tail + (r->cap - at), memory_order_release);
    }
}

void ring_pop(struct ring *r)
{
    uint32_t n;
    if (ring_peek(r, &n))
        atomic_store_explicit(&r->tail, atomic_load_explicit(&r->tail, memory_order_relaxed) + ring_record_bytes(n),
                              memory_order_release);
}
