/* Methods of lists, tuples, dicts, ranges and cyclers. */
#include "builtin.h"
#include "iter.h"
#include "ops.h"

#define METHOD(name)                                                                                                   \
    static struct jval m_##name(struct jrt *rt, struct jval self, const struct jval *arg, const struct jargs *all)

METHOD(seq_count)
{
    int64_t n = 0;
    for (size_t i = 0; i < self.l->n; i++)
        n += jops_eq(rt, self.l->v[i], arg[0]);
    return jval_int(n);
}

METHOD(seq_index)
{
    int64_t n = (int64_t)self.l->n, from = jarg_int(rt, arg[1], 0), to = jarg_int(rt, arg[2], n);
    from = from < 0 ? from + n < 0 ? 0 : from + n : from;
    to = to < 0 ? to + n < 0 ? 0 : to + n : to > n ? n : to;
    for (int64_t i = from; i < to; i++)
        if (jops_eq(rt, self.l->v[i], arg[0]))
            return jval_int(i);
    jrt_fail(rt, "%s.index(x): x not in %s", jval_type(self), jval_type(self));
}

METHOD(list_copy)
{
    return jval_list(jiter_collect(rt, self));
}

METHOD(dict_get)
{
    if (!jval_hashable(arg[0]))
        jrt_fail(rt, "unhashable type: '%s'", jval_type(arg[0]));
    const struct jval *v = jdict_get(rt, self.d, arg[0]);
    return v ? *v : arg[1].kind == J_MISSING ? jval_none() : arg[1];
}

static struct jval view(struct jrt *rt, struct jval self, enum jview_kind kind)
{
    struct jview *w = jrt_alloc(rt, sizeof *w);
    *w = (struct jview){kind, self.d};
    return (struct jval){.kind = J_VIEW, .w = w};
}

METHOD(dict_keys)
{
    return view(rt, self, JVIEW_KEYS);
}

METHOD(dict_values)
{
    return view(rt, self, JVIEW_VALUES);
}

METHOD(dict_items)
{
    return view(rt, self, JVIEW_ITEMS);
}

METHOD(dict_copy)
{
    struct jdict *d = jdict_new(rt, self.d->n);
    for (size_t i = 0; i < self.d->n; i++)
        jdict_set(rt, d, self.d->e[i].k, self.d->e[i].v);
    return jval_dict(d);
}

METHOD(dict_fromkeys)
{
    struct jdict *d = jdict_new(rt, 0);
    struct jiter *it = jiter_open(rt, arg[0]);
    struct jval k;
    while (jiter_next(rt, it, &k))
        jdict_set(rt, d, k, arg[1].kind == J_MISSING ? jval_none() : arg[1]);
    return jval_dict(d);
}

METHOD(range_count)
{
    return jval_int(jops_contains(rt, self, arg[0]));
}

METHOD(range_index)
{
    if (!jval_is_int(arg[0]) || !jops_contains(rt, self, arg[0]))
        jrt_fail(rt, "sequence.index(x): x not in sequence");
    return jval_int((jval_as_int(arg[0]) - self.r->start) / self.r->step);
}

METHOD(cycler_next)
{
    struct jcycler *c = self.cycler;
    struct jval v = c->item->v[c->pos];
    c->pos = (c->pos + 1) % c->item->n;
    return v;
}

METHOD(cycler_reset)
{
    self.cycler->pos = 0;
    return jval_none();
}

static const struct jbuiltin list_rows[] = {
    {"copy", m_list_copy, 0, 0, NULL},
    {"count", m_seq_count, 1, 1, NULL},
    {"index", m_seq_index, 1, 3, NULL},
};
static const struct jbuiltin tuple_rows[] = {
    {"count", m_seq_count, 1, 1, NULL},
    {"index", m_seq_index, 1, 3, NULL},
};
static const struct jbuiltin dict_rows[] = {
    {"copy", m_dict_copy, 0, 0, NULL}, {"fromkeys", m_dict_fromkeys, 1, 2, NULL},
    {"get", m_dict_get, 1, 2, NULL},   {"items", m_dict_items, 0, 0, NULL},
    {"keys", m_dict_keys, 0, 0, NULL}, {"values", m_dict_values, 0, 0, NULL},
};
static const struct jbuiltin range_rows[] = {
    {"count", m_range_count, 1, 1, NULL},
    {"index", m_range_index, 1, 1, NULL},
};
static const struct jbuiltin cycler_rows[] = {
    {"next", m_cycler_next, 0, 0, NULL},
    {"reset", m_cycler_reset, 0, 0, NULL},
};
static const struct jbuiltin dict_type_rows[] = {
    {"fromkeys", m_dict_fromkeys, 1, 2, NULL},
};

const struct jbuiltin_table jbuiltin_list_methods = JBUILTIN_TABLE(list_rows);
const struct jbuiltin_table jbuiltin_tuple_methods = JBUILTIN_TABLE(tuple_rows);
const struct jbuiltin_table jbuiltin_dict_methods = JBUILTIN_TABLE(dict_rows);
const struct jbuiltin_table jbuiltin_range_methods = JBUILTIN_TABLE(range_rows);
const struct jbuiltin_table jbuiltin_cycler_methods = JBUILTIN_TABLE(cycler_rows);
const struct jbuiltin_table jbuiltin_dict_type_methods = JBUILTIN_TABLE(dict_type_rows);
