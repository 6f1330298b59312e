/* Weights near the workers that read them. Linux puts a page on the node of the thread that touches it first, so before
 * anything is packed each node's workers touch the pages of the panels that cpu_take hands to them first. That needs no
 * privilege, unlike mbind, which containers are commonly denied. */
#include <stddef.h>

#include "slots.h"

enum { PAGE = 4096, TOUCH_BYTES = 2 << 20 }; /* the second: a huge page, if the system has one to give */

struct touch_job {
    struct bmodel *m;
    const struct slots *s;
};

static void touch_share(void *arg, int worker)
{
    const struct touch_job *j = arg;
    const struct placement *place = &j->m->b->place;
    int32_t node = placement_node(place, worker), n = place->first[node + 1] - place->first[node];
    size_t turn = 0, bytes = j->s->bytes;
    for (size_t at = 0; at < bytes; at += TOUCH_BYTES) {
        size_t end = at + TOUCH_BYTES < bytes ? at + TOUCH_BYTES : bytes;
        if (slots_node(j->s, place, at + (end - at) / 2) != node ||
            (int32_t)(turn++ % (size_t)n) != worker - place->first[node])
            continue;
        for (volatile char *p = j->m->weights.base + at; p < j->m->weights.base + end; p += PAGE)
            *p = 0;
    }
}

void cpu_touch_near(struct bmodel *m, const struct slots *s)
{
    struct touch_job j = {m, s};
    if (m->b->place.n_node > 1)
        pool_run(m->b->pool, touch_share, &j);
}
