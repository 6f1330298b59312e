#include "eval.h"
#include "filters.h"
#include "iter.h"
#include "ops.h"
#include "str_ops.h"
#include "text.h"

JFILTER(length)
{
    int64_t n = self.kind == J_LOOP ? jloop_length(rt, self.loop) : jiter_len(rt, self);
    if (n < 0)
        jrt_fail(rt, "object of type '%s' has no len()", jval_type(self));
    return jval_int(n);
}

JFILTER(list)
{
    return jval_list(jiter_collect(rt, self));
}

JFILTER(first)
{
    struct jval v;
    return jiter_next(rt, jiter_open(rt, self), &v) ? v : jundef_hint(rt, "No first item, sequence was empty.");
}

JFILTER(last)
{
    if (self.kind == J_STR && self.s->n) {
        size_t len;
        ustr_before(self.s->p, self.s->n, &len);
        return jval_strn(rt, self.s->p + self.s->n - len, len);
    }
    if (self.kind == J_LIST || self.kind == J_TUPLE)
        return self.l->n ? self.l->v[self.l->n - 1] : jundef_hint(rt, "No last item, sequence was empty.");
    struct jval back = self.kind == J_UNDEF ? self : jiter_reversed(rt, self), v;
    if (back.kind == J_MISSING)
        jrt_fail(rt, "'%s' object is not reversible", jval_type(self));
    return jiter_next(rt, jiter_open(rt, back), &v) ? v : jundef_hint(rt, "No last item, sequence was empty.");
}

JFILTER(reverse)
{
    if (self.kind == J_STR)
        return jaccess_slice(rt, self, jval_none(), jval_none(), jval_int(-1));
    struct jval back = jiter_reversed(rt, self);
    if (back.kind != J_MISSING)
        return back;
    if (!jiter_can(self))
        jrt_fail(rt, "argument must be iterable");
    return jaccess_slice(rt, jval_list(jiter_collect(rt, self)), jval_none(), jval_none(), jval_int(-1));
}

JFILTER(default)
{
    bool also_false = jarg_bool(arg[1], false);
    if (self.kind != J_UNDEF && !(also_false && !jval_truth(self)))
        return self;
    return arg[0].kind == J_MISSING ? jval_cstr(rt, "") : arg[0];
}

JFILTER(attr)
{
    const struct jstr *name = jarg_str(rt, arg[0], "attr()");
    if (self.kind == J_DICT && jdict_get_str(rt, self.d, name)) {
        /* attributes only: the dict's own keys do not count */
        struct jdict *empty = jdict_new(rt, 0);
        struct jval v = jaccess_attr(rt, jval_dict(empty), (struct jstr *)name);
        if (v.kind != J_METHOD)
            return jundef_attr(rt, self, arg[0]);
    }
    return jaccess_attr(rt, self, (struct jstr *)name);
}

JFILTER(join)
{
    struct jval sep = arg[0].kind == J_MISSING ? jval_cstr(rt, "") : arg[0];
    if (jval_absent(arg[1]))
        return strop_join(rt, jtext_of(rt, sep), self);
    struct jpath path = jpath_of(rt, arg[1], false);
    struct jlist *l = jlist_new(rt, 0);
    struct jiter *it = jiter_open(rt, self);
    struct jval v;
    while (jiter_next(rt, it, &v))
        jlist_add(rt, l, jpath_get(rt, &path, v));
    return strop_join(rt, jtext_of(rt, sep), jval_list(l));
}

/* sort(attribute='a,b.c') sorts by several paths in turn. */
static struct jval multi_key(struct jrt *rt, const struct jpath *path, size_t n, struct jval item)
{
    if (n == 1)
        return jpath_get(rt, path, item);
    struct jlist *l = jlist_new(rt, n);
    for (size_t i = 0; i < n; i++)
        jlist_add(rt, l, jpath_get(rt, &path[i], item));
    return jval_list(l);
}

static struct jpath *paths_of(struct jrt *rt, struct jval attribute, bool fold, size_t *n)
{
    struct jpath *path;
    if (attribute.kind != J_STR) {
        path = jrt_alloc(rt, sizeof *path);
        *path = jpath_of(rt, attribute, fold);
        *n = 1;
        return path;
    }
    struct jlist *part = strop_split(rt, attribute, jval_cstr(rt, ","), -1);
    path = jrt_array(rt, part->n, sizeof *path);
    for (*n = 0; *n < part->n; ++*n)
        path[*n] = jpath_of(rt, part->v[*n], fold);
    return path;
}

JFILTER(sort)
{
    size_t n;
    struct jpath *path = paths_of(rt, arg[2], !jarg_bool(arg[1], false), &n);
    struct jlist *l = jiter_collect(rt, self);
    struct jval *key = jrt_array(rt, l->n + 1, sizeof *key);
    for (size_t i = 0; i < l->n; i++)
        key[i] = multi_key(rt, path, n, l->v[i]);
    /* jinja2 compares lists of one key, whose elements are first tested for equality: equal undefined values pass. */
    if (n == 1)
        for (size_t i = 0; i < l->n; i++) {
            struct jlist *one = jlist_new(rt, 1);
            jlist_add(rt, one, key[i]);
            key[i] = jval_list(one);
        }
    jops_sort(rt, l->v, key, l->n, jarg_bool(arg[0], false));
    return jval_list(l);
}

JFILTER(dictsort)
{
    bool fold = !jarg_bool(arg[0], false);
    size_t by = arg[1].kind == J_STR && jstr_is(arg[1].s, "value");
    if (arg[1].kind != J_MISSING && !by && !(arg[1].kind == J_STR && jstr_is(arg[1].s, "key")))
        jrt_fail(rt, "You can only sort by either \"key\" or \"value\"");
    if (self.kind == J_UNDEF)
        jundef_fail(rt, self.u);
    if (self.kind != J_DICT)
        jrt_fail(rt, "'%s' object has no attribute 'items'", jval_type(self));
    struct jlist *l = jlist_new(rt, self.d->n);
    struct jval *key = jrt_array(rt, self.d->n + 1, sizeof *key);
    for (size_t i = 0; i < self.d->n; i++) {
        struct jval pair = jval_pair(rt, self.d->e[i].k, self.d->e[i].v), k = pair.l->v[by];
        key[i] = fold && k.kind == J_STR ? jfilter_lower(rt, k, NULL, NULL) : k;
        jlist_add(rt, l, pair);
    }
    jops_sort(rt, l->v, key, l->n, jarg_bool(arg[2], false));
    return jval_list(l);
}

static struct jval extreme(struct jrt *rt, struct jval self, const struct jval *arg, enum jop better)
{
    struct jpath path = jpath_of(rt, arg[1], !jarg_bool(arg[0], false));
    struct jiter *it = jiter_open(rt, self);
    struct jval best, v;
    if (!jiter_next(rt, it, &best))
        return jundef_hint(rt, "No aggregated item, sequence was empty.");
    struct jval best_key = jpath_get(rt, &path, best);
    while (jiter_next(rt, it, &v)) {
        struct jval key = jpath_get(rt, &path, v);
        if (!jops_compare(rt, better, key, best_key))
            continue;
        best = v;
        best_key = key;
    }
    return best;
}

JFILTER(min)
{
    return extreme(rt, self, arg, JOP_LT);
}

JFILTER(max)
{
    return extreme(rt, self, arg, JOP_GT);
}

JFILTER(groupby)
{
    struct jpath folded = jpath_of(rt, arg[0], !jarg_bool(arg[2], false)), exact = folded;
    folded.missing = exact.missing = arg[1].kind == J_NONE ? jval_missing() : arg[1];
    exact.fold = false;
    struct jlist *l = jiter_collect(rt, self), *out = jlist_new(rt, 0), *members = NULL;
    struct jval *key = jrt_array(rt, l->n + 1, sizeof *key), last = jval_missing();
    for (size_t i = 0; i < l->n; i++)
        key[i] = jpath_get(rt, &folded, l->v[i]);
    jops_sort(rt, l->v, key, l->n, false);
    for (size_t i = 0; i < l->n; i++) {
        struct jval k = jpath_get(rt, &folded, l->v[i]);
        if (!members || !jops_eq(rt, k, last)) {
            members = jlist_new(rt, 0);
            struct jval group = jval_pair(rt, jpath_get(rt, &exact, l->v[i]), jval_list(members));
            group.group = true;
            jlist_add(rt, out, group);
            last = k;
        }
        jlist_add(rt, members, l->v[i]);
    }
    return jval_list(out);
}
