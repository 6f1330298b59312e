#include "iter.h"

#include "ustr.h"

bool jiter_can(struct jval v)
{
    return v.kind == J_UNDEF || (v.kind >= J_STR && v.kind <= J_ITER);
}

static bool next_none(struct jrt *rt, struct jiter *it, struct jval *out)
{
    return false;
}

static bool next_list(struct jrt *rt, struct jiter *it, struct jval *out)
{
    if (it->i >= it->src.l->n)
        return false;
    *out = it->src.l->v[it->i++];
    return true;
}

static bool next_string(struct jrt *rt, struct jiter *it, struct jval *out)
{
    const struct jstr *s = it->src.s;
    size_t len;
    if (it->i >= s->n)
        return false;
    ustr_at(s->p + it->i, &len);
    *out = jval_strn(rt, s->p + it->i, len);
    it->i += len;
    return true;
}

static bool next_key(struct jrt *rt, struct jiter *it, struct jval *out)
{
    if (it->i >= it->src.d->n)
        return false;
    *out = it->src.d->e[it->i++].k;
    return true;
}

struct jval jiter_range_at(const struct jrange *r, size_t i)
{
    return jval_int(r->start + (int64_t)i * r->step);
}

static bool next_range(struct jrt *rt, struct jiter *it, struct jval *out)
{
    if ((int64_t)it->i >= it->src.r->n)
        return false;
    *out = jiter_range_at(it->src.r, it->i++);
    return true;
}

static bool next_view(struct jrt *rt, struct jiter *it, struct jval *out)
{
    const struct jview *w = it->src.w;
    if (it->i >= w->d->n)
        return false;
    const struct jentry *e = &w->d->e[it->i++];
    *out = w->kind == JVIEW_KEYS ? e->k : w->kind == JVIEW_VALUES ? e->v : jval_pair(rt, e->k, e->v);
    return true;
}

struct jiter *jiter_open(struct jrt *rt, struct jval v)
{
    if (v.kind == J_ITER)
        return v.it;
    struct jiter *it = jrt_alloc(rt, sizeof *it);
    it->src = v;
    switch (v.kind) {
    case J_UNDEF:
        it->next = next_none;
        break;
    case J_STR:
        it->next = next_string;
        break;
    case J_LIST:
    case J_TUPLE:
        it->next = next_list;
        break;
    case J_DICT:
        it->next = next_key;
        break;
    case J_RANGE:
        it->next = next_range;
        break;
    case J_VIEW:
        it->next = next_view;
        break;
    default:
        jrt_fail(rt, "'%s' object is not iterable", jval_type(v));
    }
    return it;
}

bool jiter_next(struct jrt *rt, struct jiter *it, struct jval *out)
{
    jrt_step(rt, 1);
    return it->next(rt, it, out);
}

struct jlist *jiter_collect(struct jrt *rt, struct jval v)
{
    if (v.kind == J_LIST || v.kind == J_TUPLE) {
        struct jlist *copy = jlist_new(rt, v.l->n);
        jrt_step(rt, v.l->n / 4);
        if (v.l->n)
            memcpy(copy->v, v.l->v, v.l->n * sizeof *copy->v);
        copy->n = v.l->n;
        return copy;
    }
    struct jiter *it = jiter_open(rt, v);
    struct jlist *l = jlist_new(rt, 0);
    struct jval x;
    while (jiter_next(rt, it, &x))
        jlist_add(rt, l, x);
    return l;
}

struct jlist *jiter_items(struct jrt *rt, struct jval v)
{
    return v.kind == J_LIST || v.kind == J_TUPLE ? v.l : jiter_collect(rt, v);
}

int64_t jiter_len(struct jrt *rt, struct jval v)
{
    switch (v.kind) {
    case J_UNDEF:
        return 0;
    case J_STR:
        return (int64_t)ustr_len(rt, v.s);
    case J_LIST:
    case J_TUPLE:
        return (int64_t)v.l->n;
    case J_DICT:
        return (int64_t)v.d->n;
    case J_RANGE:
        return v.r->n;
    case J_VIEW:
        return (int64_t)v.w->d->n;
    default:
        return -1;
    }
}

static bool next_reversed(struct jrt *rt, struct jiter *it, struct jval *out)
{
    if (it->i >= it->src.l->n)
        return false;
    *out = it->src.l->v[it->src.l->n - 1 - it->i++];
    return true;
}

struct jval jiter_reversed(struct jrt *rt, struct jval v)
{
    if (v.kind < J_STR || v.kind > J_VIEW)
        return jval_missing();
    struct jiter *it = jrt_alloc(rt, sizeof *it);
    it->next = next_reversed;
    it->src = jval_list(jiter_items(rt, v));
    return (struct jval){.kind = J_ITER, .it = it};
}
