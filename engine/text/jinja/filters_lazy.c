/* Filters that jinja2 writes as generators: nothing happens until their elements are asked for, one by one. */
#include "eval.h"
#include "filters.h"
#include "iter.h"
#include "ops.h"

static struct jval lazy(struct jiter *it, bool (*next)(struct jrt *, struct jiter *, struct jval *), struct jval src)
{
    it->next = next;
    it->src = src;
    return (struct jval){.kind = J_ITER, .it = it};
}

/* map(...), select(...) and the like share a source and arguments that are looked at when the first element is. */
struct applied {
    struct jiter it;
    struct jiter *from; /* NULL: not begun */
    struct jargs args;
    struct jpath path;
    const struct jstr *name; /* of the filter or test, or NULL */
    bool attr, negate;       /* selectattr, rejectattr; reject, rejectattr */
};

static struct jval applied_new(struct jrt *rt, struct jval self, const struct jargs *all,
                               bool (*next)(struct jrt *, struct jiter *, struct jval *), bool attr, bool negate)
{
    struct applied *a = jrt_alloc(rt, sizeof *a);
    a->args = *all;
    a->attr = attr;
    a->negate = negate;
    return lazy(&a->it, next, self);
}

/* The first positional argument, removed. */
static struct jval take_pos(struct jargs *args)
{
    args->n_pos--;
    return *args->pos++;
}

static const struct jstr *name_of(struct jrt *rt, struct jval v, const char *what)
{
    if (v.kind != J_STR)
        jrt_fail(rt, "No %s named %s.", what, jval_type(v));
    return v.s;
}

static void begin_map(struct jrt *rt, struct applied *a)
{
    const struct jval *attribute = jargs_kw(&a->args, "attribute"), *fallback = jargs_kw(&a->args, "default");
    if (!a->args.n_pos && attribute) {
        if (a->args.n_kw > 1u + (fallback != NULL))
            jrt_fail(rt, "Unexpected keyword argument");
        a->path = jpath_of(rt, *attribute, false);
        a->path.missing = fallback && fallback->kind != J_NONE ? *fallback : jval_missing();
    } else if (!a->args.n_pos) {
        jrt_fail(rt, "map requires a filter argument");
    } else {
        a->name = name_of(rt, take_pos(&a->args), "filter");
    }
    a->from = jiter_open(rt, a->it.src);
}

static bool next_mapped(struct jrt *rt, struct jiter *it, struct jval *out)
{
    struct applied *a = (struct applied *)it;
    struct jval v;
    if (!a->from && !jval_truth(it->src))
        return false;
    if (!a->from)
        begin_map(rt, a);
    if (!jiter_next(rt, a->from, &v))
        return false;
    *out = a->name ? jcall_filter(rt, a->name, v, &a->args) : jpath_get(rt, &a->path, v);
    return true;
}

JFILTER(map)
{
    return applied_new(rt, self, all, next_mapped, false, false);
}

static void begin_select(struct jrt *rt, struct applied *a)
{
    if (a->attr && !a->args.n_pos)
        jrt_fail(rt, "Missing parameter for attribute name");
    if (a->attr)
        a->path = jpath_of(rt, take_pos(&a->args), false);
    if (a->args.n_pos)
        a->name = name_of(rt, take_pos(&a->args), "test");
    a->from = jiter_open(rt, a->it.src);
}

static bool next_selected(struct jrt *rt, struct jiter *it, struct jval *out)
{
    struct applied *a = (struct applied *)it;
    if (!a->from && !jval_truth(it->src))
        return false;
    if (!a->from)
        begin_select(rt, a);
    while (jiter_next(rt, a->from, out)) {
        struct jval v = jpath_get(rt, &a->path, *out);
        bool yes = a->name ? jcall_test(rt, a->name, v, &a->args) : jval_truth(v);
        if (yes != a->negate)
            return true;
    }
    return false;
}

JFILTER(select)
{
    return applied_new(rt, self, all, next_selected, false, false);
}

JFILTER(reject)
{
    return applied_new(rt, self, all, next_selected, false, true);
}

JFILTER(selectattr)
{
    return applied_new(rt, self, all, next_selected, true, false);
}

JFILTER(rejectattr)
{
    return applied_new(rt, self, all, next_selected, true, true);
}

static bool next_item(struct jrt *rt, struct jiter *it, struct jval *out)
{
    if (it->src.kind == J_UNDEF)
        return false;
    if (it->src.kind != J_DICT)
        jrt_fail(rt, "Can only get item pairs from a mapping.");
    if (it->i >= it->src.d->n)
        return false;
    const struct jentry *e = &it->src.d->e[it->i++];
    *out = jval_pair(rt, e->k, e->v);
    return true;
}

JFILTER(items)
{
    struct jiter *it = jrt_alloc(rt, sizeof *it);
    return lazy(it, next_item, self);
}

struct unique {
    struct jiter it;
    struct jiter *from;
    struct jpath path;
    struct jdict *seen;
};

static bool next_unique(struct jrt *rt, struct jiter *it, struct jval *out)
{
    struct unique *u = (struct unique *)it;
    if (!u->from)
        u->from = jiter_open(rt, it->src);
    while (jiter_next(rt, u->from, out)) {
        size_t before = u->seen->n;
        jdict_set(rt, u->seen, jpath_get(rt, &u->path, *out), jval_none());
        if (u->seen->n > before)
            return true;
    }
    return false;
}

JFILTER(unique)
{
    struct unique *u = jrt_alloc(rt, sizeof *u);
    u->path = jpath_of(rt, arg[1], !jarg_bool(arg[0], false));
    u->seen = jdict_new(rt, 0);
    return lazy(&u->it, next_unique, self);
}

struct batches {
    struct jiter it;
    struct jiter *from;
    struct jval size, fill, carried; /* `carried` opens the next batch */
    bool done;
};

/* Elements are gathered until the batch has the size asked for; what does not fit any more opens the next one. */
static bool next_batch(struct jrt *rt, struct jiter *it, struct jval *out)
{
    struct batches *b = (struct batches *)it;
    struct jlist *l = jlist_new(rt, 0);
    struct jval v;
    if (b->done)
        return false;
    if (!b->from)
        b->from = jiter_open(rt, it->src);
    if (b->carried.kind != J_MISSING)
        jlist_add(rt, l, b->carried);
    while (jiter_next(rt, b->from, &v)) {
        if (jops_eq(rt, jval_int((int64_t)l->n), b->size)) {
            b->carried = v;
            *out = jval_list(l);
            return true;
        }
        jlist_add(rt, l, v);
    }
    b->done = true;
    if (!l->n)
        return false;
    if (!jval_absent(b->fill) && jops_compare(rt, JOP_LT, jval_int((int64_t)l->n), b->size))
        for (int64_t n = jarg_int(rt, b->size, 0); (int64_t)l->n < n; jrt_step(rt, 1))
            jlist_add(rt, l, b->fill);
    *out = jval_list(l);
    return true;
}

JFILTER(batch)
{
    struct batches *b = jrt_alloc(rt, sizeof *b);
    b->size = arg[0];
    b->fill = arg[1];
    return lazy(&b->it, next_batch, self);
}

struct slices {
    struct jiter it;
    struct jlist *all;
    struct jval n_slice, fill;
    int64_t offset;
};

static bool next_slice(struct jrt *rt, struct jiter *it, struct jval *out)
{
    struct slices *s = (struct slices *)it;
    if (!s->all)
        s->all = jiter_collect(rt, it->src);
    int64_t n = jarg_int(rt, s->n_slice, 0), i = (int64_t)it->i;
    if (n == 0)
        jrt_fail(rt, "integer division or modulo by zero");
    if (i >= n)
        return false;
    int64_t each = (int64_t)s->all->n / n, n_longer = (int64_t)s->all->n % n;
    int64_t start = s->offset + i * each;
    s->offset += i < n_longer;
    int64_t end = s->offset + (i + 1) * each;
    struct jlist *l = jlist_new(rt, (size_t)(end - start) + 1);
    for (int64_t k = start; k < end; k++)
        jlist_add(rt, l, s->all->v[k]);
    if (!jval_absent(s->fill) && i >= n_longer)
        jlist_add(rt, l, s->fill);
    it->i++;
    *out = jval_list(l);
    return true;
}

JFILTER(slice)
{
    struct slices *s = jrt_alloc(rt, sizeof *s);
    s->n_slice = arg[0];
    s->fill = arg[1];
    return lazy(&s->it, next_slice, self);
}
