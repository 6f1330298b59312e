/* Warp collectives. A lane brings its value and waits; when all 32 stand at one line, each goes on and reads what the
 * others brought. Kernels use whole warps only (see dev.cuh), so a lane that is elsewhere is a fault. */
#include <string.h>

#include "simt.h"

struct simt_slot *simt_meet(const char *op, struct simt_site at, const void *in, size_t size_bytes,
                            void (*combine)(struct simt_slot *slot))
{
    struct simt_thread *t = simt_self;
    struct simt_slot *slot = t->warp->slot[t->n_meet++ & 1];
    memcpy(slot[t->lane].b, in, size_bytes);
    t->combine = combine;
    simt_yield(SIMT_AT_MEETING, op, at);
    return slot;
}

static void count_epoch(struct simt_slot *slot)
{
    (void)slot;
}

/* Orders the lanes' memory: race.c takes what lanes did before and after as ordered. No other collective does. */
void simt_warp_sync(struct simt_site at)
{
    simt_meet("warp sync", at, "", 0, count_epoch);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || !strcmp(a, b);
}

static const struct simt_thread *lane_elsewhere(const struct simt_warp *w, const struct simt_thread *here)
{
    for (int i = 0; i < SIMT_WARP; i++) {
        const struct simt_thread *t = &w->lane[i];
        if (t->state != SIMT_AT_MEETING || t->at.line != here->at.line || !same_text(t->op, here->op) ||
            !same_text(t->at.file, here->at.file))
            return t;
    }
    return NULL;
}

void simt_warp_release(struct simt_warp *w)
{
    const struct simt_thread *here = NULL;
    for (int i = 0; i < SIMT_WARP && !here; i++)
        if (w->lane[i].state == SIMT_AT_MEETING)
            here = &w->lane[i];
    if (!here)
        return; /* every lane stands at a barrier or has ended */
    const struct simt_thread *other = lane_elsewhere(w, here);
    if (other && other->state == SIMT_EXITED)
        simt_fault(here, "divergent warp: %s at %s:%d, lane %u has ended", here->op, here->at.file, here->at.line,
                   other->lane);
    if (other)
        simt_fault(here, "divergent warp: %s at %s:%d, lane %u in %s at %s:%d", here->op, here->at.file, here->at.line,
                   other->lane, other->op, other->at.file, other->at.line);
    if (here->combine == count_epoch)
        w->epoch++;
    else if (here->combine)
        here->combine(w->slot[(here->n_meet - 1) & 1]);
    for (int i = 0; i < SIMT_WARP; i++)
        w->lane[i].state = SIMT_READY;
}
