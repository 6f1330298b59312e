/* Races in shared memory. Kernels built with -fsanitize=thread call a hook at every load and store; we link hooks of
 * our own in place of that sanitizer's runtime. Two accesses to a byte by different threads, at least one a store, are
 * a race unless a barrier stands between them, or a warp sync when both threads are of one warp. Times are counters: of
 * the block's barriers (epoch) and of each warp's syncs (warp_epoch), so a byte's shadow never needs clearing. */
#include <stdlib.h>

#include "simt.h"

struct access { /* the last of its kind */
    uint64_t epoch, warp_epoch;
    uint16_t thread;
};

struct simt_shadow {
    struct access store, load;
    bool adds;       /* the store was an atomic add: further adds do not race with it */
    bool many_lanes; /* several lanes of the loading warp since its last sync */
    bool many_warps; /* several warps since the barrier */
};

static bool enabled;

bool simt_race_enabled(void)
{
    return enabled;
}

struct simt_shadow *simt_race_shadow(size_t smem_bytes)
{
    struct simt_shadow *s = calloc(smem_bytes ? smem_bytes : 1, sizeof *s);
    if (!s)
        abort();
    return s;
}

static void report(const struct simt_thread *t, const char *what, size_t offset, const char *other_what, unsigned other)
{
    simt_fault(t, "race: it %s shared byte %zu (after %s:%d), which thread %u %s (after %s:%d) with no barrier between",
               what, offset, t->at.file, t->at.line, other, other_what, t->block->thread[other].at.file,
               t->block->thread[other].at.line);
}

/* Whether nothing orders the access before what `t` does now. */
static bool unordered(const struct access *a, const struct simt_thread *t)
{
    if (a->epoch != t->block->epoch || a->thread == t->index)
        return false;
    return a->thread / SIMT_WARP != t->index / SIMT_WARP || a->warp_epoch == t->warp->epoch;
}

static void note_load(struct simt_shadow *s, const struct simt_thread *t)
{
    struct access *l = &s->load;
    if (l->epoch != t->block->epoch) {
        s->many_lanes = s->many_warps = false;
    } else if (l->thread / SIMT_WARP != t->index / SIMT_WARP) {
        s->many_warps = true;
    } else if (l->warp_epoch != t->warp->epoch) {
        s->many_lanes = false;
    } else if (l->thread != t->index) {
        s->many_lanes = true;
    }
    *l = (struct access){t->block->epoch, t->warp->epoch, (uint16_t)t->index};
}

static bool load_unordered(const struct simt_shadow *s, const struct simt_thread *t)
{
    const struct access *l = &s->load;
    if (l->epoch != t->block->epoch)
        return false;
    if (s->many_warps || l->thread / SIMT_WARP != t->index / SIMT_WARP)
        return true;
    return l->warp_epoch == t->warp->epoch && (s->many_lanes || l->thread != t->index);
}

void simt_race_touch(const void *p, size_t size_bytes, enum simt_access access)
{
    struct simt_thread *t = simt_self;
    if (!t || !t->block->shadow)
        return;
    size_t at = (uintptr_t)p - (uintptr_t)t->block->smem;
    if (at >= t->block->smem_bytes)
        return;
    for (size_t end = at + size_bytes; at < end && at < t->block->smem_bytes; at++) {
        struct simt_shadow *s = &t->block->shadow[at];
        bool adds_again = access == SIMT_ADDS && s->adds;
        if (!adds_again && unordered(&s->store, t))
            report(t, access == SIMT_LOADS ? "reads" : "writes", at, "wrote", s->store.thread);
        if (access == SIMT_LOADS) {
            note_load(s, t);
            continue;
        }
        if (load_unordered(s, t))
            report(t, "writes", at, "read", s->load.thread);
        s->store = (struct access){t->block->epoch, t->warp->epoch, (uint16_t)t->index};
        s->adds = access == SIMT_ADDS;
    }
}

uint32_t simt_atomic_add32(uint32_t *p, uint32_t v)
{
    simt_race_touch(p, sizeof *p, SIMT_ADDS);
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}

void simt_atomic_add64(uint64_t *p, uint64_t v)
{
    simt_race_touch(p, sizeof *p, SIMT_ADDS);
    __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}

/* ---- What the compiler calls. None of it exists in a build with sanitizers, which bring their own. ---- */

#ifdef SIMT_RACE_HOOKS

#define HOOK(name, bytes, access)                                                                                      \
    void name(void *p);                                                                                                \
    void name(void *p)                                                                                                 \
    {                                                                                                                  \
        simt_race_touch(p, bytes, access);                                                                             \
    }

HOOK(__tsan_read1, 1, SIMT_LOADS)
HOOK(__tsan_read2, 2, SIMT_LOADS)
HOOK(__tsan_read4, 4, SIMT_LOADS)
HOOK(__tsan_read8, 8, SIMT_LOADS)
HOOK(__tsan_read16, 16, SIMT_LOADS)
HOOK(__tsan_unaligned_read2, 2, SIMT_LOADS)
HOOK(__tsan_unaligned_read4, 4, SIMT_LOADS)
HOOK(__tsan_unaligned_read8, 8, SIMT_LOADS)
HOOK(__tsan_unaligned_read16, 16, SIMT_LOADS)
HOOK(__tsan_write1, 1, SIMT_STORES)
HOOK(__tsan_write2, 2, SIMT_STORES)
HOOK(__tsan_write4, 4, SIMT_STORES)
HOOK(__tsan_write8, 8, SIMT_STORES)
HOOK(__tsan_write16, 16, SIMT_STORES)
HOOK(__tsan_unaligned_write2, 2, SIMT_STORES)
HOOK(__tsan_unaligned_write4, 4, SIMT_STORES)
HOOK(__tsan_unaligned_write8, 8, SIMT_STORES)
HOOK(__tsan_unaligned_write16, 16, SIMT_STORES)

#define RANGE_HOOK(name, access)                                                                                       \
    void name(void *p, size_t size_bytes);                                                                             \
    void name(void *p, size_t size_bytes)                                                                              \
    {                                                                                                                  \
        simt_race_touch(p, size_bytes, access);                                                                        \
    }

RANGE_HOOK(__tsan_read_range, SIMT_LOADS)
RANGE_HOOK(__tsan_write_range, SIMT_STORES)

void __tsan_init(void);
void __tsan_init(void)
{
    enabled = true;
}

void __tsan_func_entry(void *caller);
void __tsan_func_entry(void *caller)
{
    (void)caller;
}

void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}

#endif
