/* The region of packed weights as a file, so that a restart reads instead of repacking. Private to kernels/cpu.
 *
 * One file a model, DIR/NAME.pack: a head, the plan of every tensor, a checksum of every piece of data, the data. It is
 * used only if it is what this build would pack from this model file; anything else is ignored with a warning that says
 * why, and replaced.
 *
 * It is read into the huge pages that weights always lie in, not mapped: pages of a file are small ones, and decoding
 * reads all weights once a token, so translating their addresses would cost for good what reading costs once (figures:
 * tests/bench/results). Nor can a file that somebody truncates kill a process that has read it. */
#ifndef GALLEY_CPU_PACK_CACHE_H
#define GALLEY_CPU_PACK_CACHE_H

#include "slots.h"

struct pack_cache { /* what a file is about; all borrowed */
    const char *dir;
    const struct weight_source *source;
    const struct slots *slots;
    struct pool *pool;
};

/* Called as pieces arrive; nonzero stops. */
typedef int (*pack_progress)(void *arg, size_t bytes);

/* 1: `base`, slots->bytes long, holds the weights. 0: there is no usable file; what base holds now means nothing.
 * Negative: what `progress` returned. */
int pack_cache_read(const struct pack_cache *c, char *base, pack_progress progress, void *arg);
/* Failing to write is a warning and nothing more. Files that writers left behind when they were killed are removed. */
void pack_cache_write(const struct pack_cache *c, const char *base);

#endif
