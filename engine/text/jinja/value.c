#include "value.h"

#include <xxhash.h>

#include "ops.h"
#include "text.h"

struct jstr *jstr_ref(struct jrt *rt, const char *p, size_t n)
{
    struct jstr *s = jrt_alloc(rt, sizeof *s);
    *s = (struct jstr){.p = p, .n = n, .n_cp = SIZE_MAX};
    return s;
}

struct jstr *jstr_copy(struct jrt *rt, const char *p, size_t n)
{
    jrt_charge(rt, n);
    char *copy = jrt_alloc(rt, n);
    if (n)
        memcpy(copy, p, n);
    return jstr_ref(rt, copy, n);
}

struct jstr *jstr_of_buf(struct jrt *rt, const struct jbuf *b)
{
    return jstr_ref(rt, b->p ? b->p : "", b->n);
}

struct jval jval_cstr(struct jrt *rt, const char *s)
{
    return jval_str(jstr_ref(rt, s, strlen(s)));
}

struct jval jval_strn(struct jrt *rt, const char *p, size_t n)
{
    return jval_str(jstr_ref(rt, p, n));
}

struct jval jval_of_buf(struct jrt *rt, const struct jbuf *b)
{
    return jval_str(jstr_of_buf(rt, b));
}

bool jstr_eq(const struct jstr *a, const struct jstr *b)
{
    return a->n == b->n && memcmp(a->p, b->p, a->n) == 0;
}

bool jstr_is(const struct jstr *s, const char *z)
{
    size_t n = strlen(z);
    return s->n == n && memcmp(s->p, z, n) == 0;
}

int jstr_cmp(const struct jstr *a, const struct jstr *b)
{
    int c = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

struct jlist *jlist_new(struct jrt *rt, size_t cap)
{
    struct jlist *l = jrt_alloc(rt, sizeof *l);
    l->v = cap ? jrt_array(rt, cap, sizeof *l->v) : NULL;
    l->cap = cap;
    return l;
}

void jlist_add(struct jrt *rt, struct jlist *l, struct jval v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4;
        struct jval *more = jrt_array(rt, cap, sizeof *more);
        if (l->n)
            memcpy(more, l->v, l->n * sizeof *more);
        l->v = more;
        l->cap = cap;
    }
    l->v[l->n++] = v;
}

struct jval jval_pair(struct jrt *rt, struct jval a, struct jval b)
{
    struct jlist *l = jlist_new(rt, 2);
    l->v[0] = a;
    l->v[1] = b;
    l->n = 2;
    return jval_tuple(l);
}

/* Dicts: a scan while small, an index over the string keys from then on. */
enum { DICT_SCAN_MAX = 8 };

struct jdict *jdict_new(struct jrt *rt, size_t cap)
{
    struct jdict *d = jrt_alloc(rt, sizeof *d);
    d->e = cap ? jrt_array(rt, cap, sizeof *d->e) : NULL;
    d->cap = cap;
    return d;
}

static void index_add(struct jdict *d, size_t entry)
{
    const struct jval *k = &d->e[entry].k;
    if (k->kind != J_STR)
        return;
    size_t at = XXH3_64bits(k->s->p, k->s->n) & (d->n_index - 1);
    while (d->index[at])
        at = (at + 1) & (d->n_index - 1);
    d->index[at] = (uint32_t)entry + 1;
}

static void index_build(struct jrt *rt, struct jdict *d)
{
    if (d->n >= UINT32_MAX / 4)
        jrt_limit(rt, "a mapping has too many keys");
    d->n_index = 32;
    while (d->n_index < d->cap * 2)
        d->n_index *= 2;
    d->index = jrt_array(rt, d->n_index, sizeof *d->index);
    for (size_t i = 0; i < d->n; i++)
        index_add(d, i);
}

struct jval *jdict_get_str(struct jrt *rt, const struct jdict *d, const struct jstr *k)
{
    if (d->index) {
        size_t at = XXH3_64bits(k->p, k->n) & (d->n_index - 1);
        for (; d->index[at]; at = (at + 1) & (d->n_index - 1)) {
            struct jentry *e = &d->e[d->index[at] - 1];
            if (jstr_eq(e->k.s, k))
                return &e->v;
        }
        return NULL;
    }
    for (size_t i = 0; i < d->n; i++)
        if (d->e[i].k.kind == J_STR && jstr_eq(d->e[i].k.s, k))
            return &d->e[i].v;
    return NULL;
}

struct jval *jdict_get(struct jrt *rt, const struct jdict *d, struct jval k)
{
    if (k.kind == J_STR)
        return jdict_get_str(rt, d, k.s);
    jrt_step(rt, d->n / 8);
    for (size_t i = 0; i < d->n; i++)
        if (d->e[i].k.kind != J_STR && jops_eq(rt, d->e[i].k, k))
            return &d->e[i].v;
    return NULL;
}

void jdict_set(struct jrt *rt, struct jdict *d, struct jval k, struct jval v)
{
    if (!jval_hashable(k))
        jrt_fail(rt, "unhashable type: '%s'", jval_type(k));
    struct jval *old = jdict_get(rt, d, k);
    if (old) {
        *old = v;
        return;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        struct jentry *more = jrt_array(rt, cap, sizeof *more);
        if (d->n)
            memcpy(more, d->e, d->n * sizeof *more);
        d->e = more;
        d->cap = cap;
        d->index = NULL;
    }
    d->e[d->n++] = (struct jentry){k, v};
    if (d->index)
        index_add(d, d->n - 1);
    else if (d->n > DICT_SCAN_MAX)
        index_build(rt, d);
}

static struct jval undef_new(struct jrt *rt, const char *hint, struct jval obj, struct jval name)
{
    struct jundef *u = jrt_alloc(rt, sizeof *u);
    *u = (struct jundef){hint, obj, name};
    return (struct jval){.kind = J_UNDEF, .u = u};
}

struct jval jundef_hint(struct jrt *rt, const char *hint)
{
    return undef_new(rt, hint, jval_missing(), jval_missing());
}

struct jval jundef_name(struct jrt *rt, struct jstr *name)
{
    return undef_new(rt, NULL, jval_missing(), jval_str(name));
}

struct jval jundef_attr(struct jrt *rt, struct jval obj, struct jval name)
{
    return undef_new(rt, NULL, obj, name);
}

/* How jinja2's error messages name an object: builtins by their type, others with their module. */
static const char *object_repr(struct jval v)
{
    switch (v.kind) {
    case J_NONE:
        return "None";
    case J_STR:
        return v.markup ? "markupsafe.Markup object" : NULL;
    case J_LOOP:
        return "jinja2.runtime.LoopContext object";
    case J_MACRO:
        return "jinja2.runtime.Macro object";
    case J_CYCLER:
        return "jinja2.utils.Cycler object";
    case J_JOINER:
        return "jinja2.utils.Joiner object";
    case J_NAMESPACE:
        return "namespace object";
    default:
        return NULL;
    }
}

void jundef_fail(struct jrt *rt, const struct jundef *u)
{
    if (u->hint)
        jrt_fail(rt, "%s", u->hint);
    struct jbuf name = {0};
    jtext_repr(rt, &name, u->name);
    if (u->obj.kind == J_MISSING)
        jrt_fail(rt, "%.*s is undefined", (int)name.n, name.p);
    const char *obj = object_repr(u->obj), *type = obj ? "" : jval_type(u->obj), *suffix = obj ? "" : " object";
    if (u->name.kind != J_STR)
        jrt_fail(rt, "%s%s%s has no element %.*s", obj ? obj : "", type, suffix, (int)name.n, name.p);
    jrt_fail(rt, "'%s%s%s' has no attribute %.*s", obj ? obj : "", type, suffix, (int)name.n, name.p);
}

bool jval_truth(struct jval v)
{
    switch (v.kind) {
    case J_MISSING:
    case J_UNDEF:
    case J_NONE:
        return false;
    case J_BOOL:
        return v.b;
    case J_INT:
        return v.i != 0;
    case J_FLOAT:
        return v.f != 0;
    case J_STR:
        return v.s->n != 0;
    case J_LIST:
    case J_TUPLE:
        return v.l->n != 0;
    case J_DICT:
        return v.d->n != 0;
    case J_RANGE:
        return v.r->n != 0;
    case J_VIEW:
        return v.w->d->n != 0;
    default:
        return true;
    }
}

bool jval_hashable(struct jval v)
{
    if (v.kind == J_TUPLE) {
        for (size_t i = 0; i < v.l->n; i++)
            if (!jval_hashable(v.l->v[i]))
                return false;
        return true;
    }
    return v.kind != J_LIST && v.kind != J_DICT && (v.kind != J_VIEW || v.w->kind == JVIEW_VALUES);
}

const char *jval_type(struct jval v)
{
    static const char *const name[] = {
        [J_MISSING] = "missing",
        [J_UNDEF] = "Undefined",
        [J_NONE] = "NoneType",
        [J_BOOL] = "bool",
        [J_INT] = "int",
        [J_FLOAT] = "float",
        [J_STR] = "str",
        [J_LIST] = "list",
        [J_TUPLE] = "tuple",
        [J_DICT] = "dict",
        [J_RANGE] = "range",
        [J_VIEW] = "dict_view",
        [J_ITER] = "generator",
        [J_NAMESPACE] = "Namespace",
        [J_MACRO] = "Macro",
        [J_FUNC] = "function",
        [J_METHOD] = "builtin_function_or_method",
        [J_LOOP] = "LoopContext",
        [J_CYCLER] = "Cycler",
        [J_JOINER] = "Joiner",
    };
    static const char *const view[] = {"dict_keys", "dict_values", "dict_items"};
    if (v.kind == J_VIEW)
        return view[v.w->kind];
    return v.kind == J_STR && v.markup ? "Markup" : name[v.kind];
}

bool jval_same(struct jval a, struct jval b)
{
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case J_NONE:
        return true;
    case J_BOOL:
        return a.b == b.b;
    case J_INT:
        return a.i == b.i;
    case J_STR:
        return a.s == b.s || jstr_eq(a.s, b.s);
    case J_FLOAT:
        return a.f == b.f;
    case J_TUPLE:
        return a.l == b.l || (a.l->n == 0 && b.l->n == 0);
    default:
        return a.s == b.s; /* the same pointer, whatever it points to */
    }
}
