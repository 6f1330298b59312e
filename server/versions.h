/* What a signal rereads (keys, certificate) while the loops go on reading it: whole versions, never changed, replaced
 * by one atomic store. A version that was replaced lives on for as long as anybody can still be reading it. Private to
 * server/. */
#ifndef GALLEY_VERSIONS_H
#define GALLEY_VERSIONS_H

#include <stdatomic.h>
#include <stdint.h>

struct version { /* the first member of what there are versions of */
    struct version *older;
    int64_t replaced_ns;
};

struct versions {                  /* owner: the thread that puts; the others read `now` */
    _Atomic(struct version *) now; /* NULL before the first */
    void (*free)(struct version *v);
};

/* Takes `v` over. Versions that were replaced more than `grace_ns` ago are freed. */
void versions_put(struct versions *all, struct version *v, int64_t grace_ns);
void versions_free(struct versions *all); /* nobody reads any more */

#endif
