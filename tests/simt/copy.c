/* cp.async. The copy itself is put off until the thread waits for it, the latest moment that hardware could choose, and
 * the destination is poison from the moment it was asked for: who reads too early reads NaN. */
#include <string.h>

#include "simt.h"

enum { COPY_BYTES = 16 };

void simt_copy16(void *dst_shared, const void *src, bool there, struct simt_site at)
{
    struct simt_thread *t = simt_self;
    struct simt_block *b = t->block;
    uintptr_t offset = (uintptr_t)dst_shared - (uintptr_t)b->smem;
    if (offset > b->smem_bytes || b->smem_bytes - offset < COPY_BYTES)
        simt_fault(t, "%s:%d: a copy ends outside shared memory", at.file, at.line);
    if (((uintptr_t)dst_shared | (there ? (uintptr_t)src : 0)) % COPY_BYTES)
        simt_fault(t, "%s:%d: a copy is not aligned to 16 bytes", at.file, at.line);
    if (t->n_copy == SIMT_MAX_COPY)
        simt_fault(t, "%s:%d: more than %d copies on their way", at.file, at.line, SIMT_MAX_COPY);
    simt_race_touch(dst_shared, COPY_BYTES, SIMT_STORES);
    memset(dst_shared, 0xff, COPY_BYTES);
    t->copy[t->n_copy++] = (struct simt_copy){.dst = dst_shared, .src = there ? src : NULL, .group = t->n_group};
}

void simt_copy_commit(void)
{
    simt_self->n_group++;
}

void simt_copy_wait(int n_left)
{
    struct simt_thread *t = simt_self;
    int kept = 0;
    for (int i = 0; i < t->n_copy; i++) {
        struct simt_copy *c = &t->copy[i];
        if (c->group >= t->n_group - n_left) {
            t->copy[kept++] = *c;
            continue;
        }
        simt_race_touch(c->dst, COPY_BYTES, SIMT_STORES);
        if (c->src)
            memcpy(c->dst, c->src, COPY_BYTES);
        else
            memset(c->dst, 0, COPY_BYTES);
    }
    t->n_copy = kept;
}

void simt_copy_check_end(const struct simt_thread *t)
{
    if (t->n_copy)
        simt_fault(t, "it ends with %d copies that nobody waited for", t->n_copy);
}
