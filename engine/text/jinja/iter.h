/* Iteration, and the lazy sequences that filters such as map and select return. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_ITER_H
#define GALLEY_JINJA_ITER_H

#include "value.h"

struct jiter {
    /* False at the end, and from then on. Lazy filters embed a jiter as their first member. */
    bool (*next)(struct jrt *rt, struct jiter *it, struct jval *out);
    struct jval src;
    size_t i; /* element, or byte of a string */
};

bool jiter_can(struct jval v);
/* Python's iter(v): fails when v cannot be iterated. An iterator gives itself. */
struct jiter *jiter_open(struct jrt *rt, struct jval v);
bool jiter_next(struct jrt *rt, struct jiter *it, struct jval *out);

struct jlist *jiter_collect(struct jrt *rt, struct jval v); /* list(v), always a new list */
struct jlist *jiter_items(struct jrt *rt, struct jval v);   /* to read only: a list or tuple gives its own */

/* len(v), or -1 if it has none. */
int64_t jiter_len(struct jrt *rt, struct jval v);
struct jval jiter_reversed(struct jrt *rt, struct jval v); /* Python's reversed(); J_MISSING if v cannot */
struct jval jiter_range_at(const struct jrange *r, size_t i);

#endif
