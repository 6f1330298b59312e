#include "loop.h"

#include "builtin.h"
#include "ops.h"

bool jloop_next(struct jrt *rt, struct jloop *l, struct jval *out)
{
    if (l->after.kind != J_MISSING) {
        *out = l->after;
        l->after = jval_missing();
    } else if (!jiter_next(rt, l->it, out)) {
        return false;
    }
    l->index0++;
    l->before = l->current;
    l->current = *out;
    return true;
}

static bool peek(struct jrt *rt, struct jloop *l)
{
    if (l->after.kind == J_MISSING && !jiter_next(rt, l->it, &l->after))
        l->after = jval_missing();
    return l->after.kind != J_MISSING;
}

int64_t jloop_length(struct jrt *rt, struct jloop *l)
{
    if (l->n >= 0)
        return l->n;
    l->n = jiter_len(rt, l->iterable);
    if (l->n < 0) { /* a generator: read the rest, and go on from that */
        struct jval rest = {.kind = J_ITER, .it = l->it};
        rest = jval_list(jiter_collect(rt, rest));
        l->it = jiter_open(rt, rest);
        l->n = (int64_t)rest.l->n + l->index0 + 1 + (l->after.kind != J_MISSING);
    }
    return l->n;
}

static struct jval cycle(struct jrt *rt, struct jval self, const struct jval *arg, const struct jargs *all)
{
    if (!all->n_pos)
        jrt_fail(rt, "no items for cycling given");
    return all->pos[(size_t)self.loop->index0 % all->n_pos];
}

static struct jval changed(struct jrt *rt, struct jval self, const struct jval *arg, const struct jargs *all)
{
    struct jlist now = {.v = all->pos, .n = all->n_pos};
    struct jloop *l = self.loop;
    if (l->last_changed && jops_eq(rt, jval_tuple(l->last_changed), jval_tuple(&now)))
        return jval_bool(false);
    l->last_changed = jiter_collect(rt, jval_tuple(&now));
    return jval_bool(true);
}

static const struct jbuiltin loop_rows[] = {
    {"changed", changed, 0, JBUILTIN_ANY, NULL},
    {"cycle", cycle, 0, JBUILTIN_ANY, NULL},
};
const struct jbuiltin_table jbuiltin_loop_methods = JBUILTIN_TABLE(loop_rows);

struct jval jloop_attr(struct jrt *rt, struct jval self, const struct jstr *name)
{
    struct jloop *l = self.loop;
    if (jstr_is(name, "index"))
        return jval_int(l->index0 + 1);
    if (jstr_is(name, "index0"))
        return jval_int(l->index0);
    if (jstr_is(name, "first"))
        return jval_bool(l->index0 == 0);
    if (jstr_is(name, "last"))
        return jval_bool(!peek(rt, l));
    if (jstr_is(name, "length"))
        return jval_int(jloop_length(rt, l));
    if (jstr_is(name, "revindex"))
        return jval_int(jloop_length(rt, l) - l->index0);
    if (jstr_is(name, "revindex0"))
        return jval_int(jloop_length(rt, l) - l->index0 - 1);
    if (jstr_is(name, "depth"))
        return jval_int(l->depth0 + 1);
    if (jstr_is(name, "depth0"))
        return jval_int(l->depth0);
    if (jstr_is(name, "previtem"))
        return l->index0 == 0 ? jundef_hint(rt, "there is no previous item") : l->before;
    if (jstr_is(name, "nextitem"))
        return peek(rt, l) ? l->after : jundef_hint(rt, "there is no next item");
    return jval_missing();
}
