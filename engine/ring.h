/* A bounded queue of variable-sized records between two threads, one writer and one reader: a request's events. Records
 * lie contiguous, so the reader borrows them in place. Private to engine/. */
#ifndef GALLEY_RING_H
#define GALLEY_RING_H

#include <stdatomic.h>
#include <stdint.h>

struct ring {
    char *buf;             /* [cap] borrowed */
    uint32_t cap;          /* a power of two */
    _Atomic uint32_t head; /* written by the writer: bytes ever written, modulo 2^32 */
    _Atomic uint32_t tail; /* written by the reader: bytes ever read */
};

/* Bytes a record of n takes: its length in 8 bytes, so that the payload is 8-byte aligned, then the payload. */
static inline uint32_t ring_record_bytes(uint32_t n)
{
    return 8 + ((n + 7) & ~7u);
}

void ring_init(struct ring *r, char *buf, uint32_t cap);
/* Bytes free; a record of n needs at most 2 * ring_record_bytes(n), because it may not wrap. Writer's side. */
uint32_t ring_room(const struct ring *r);
/* A place for n bytes, 8-byte aligned, or NULL when there is no room. Visible to the reader after ring_commit. */
void *ring_reserve(struct ring *r, uint32_t n);
void ring_commit(struct ring *r, uint32_t n);
/* The oldest record and its length, or NULL; it stays until ring_pop. Reader's side. */
const void *ring_peek(struct ring *r, uint32_t *n);
void ring_pop(struct ring *r);

#endif
