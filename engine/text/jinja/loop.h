/* The `loop` variable of a for statement. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_LOOP_H
#define GALLEY_JINJA_LOOP_H

#include "iter.h"

struct jloop {
    struct jval iterable; /* for its length, if it has one */
    struct jiter *it;
    int64_t index0;                     /* -1 before the first turn */
    int64_t n;                          /* -1: not known yet */
    int64_t depth0;                     /* of a recursive loop */
    struct jval before, current, after; /* `after` is read ahead, or J_MISSING */
    struct jlist *last_changed;         /* arguments of the latest loop.changed() */
    const struct jnode *node;           /* of a recursive loop, else NULL */
    struct jact *up;                    /* what a recursive loop's body sees around it */
};

bool jloop_next(struct jrt *rt, struct jloop *l, struct jval *out);
int64_t jloop_length(struct jrt *rt, struct jloop *l);
/* loop.index and so on; J_MISSING for an unknown name. */
struct jval jloop_attr(struct jrt *rt, struct jval self, const struct jstr *name);

#endif
