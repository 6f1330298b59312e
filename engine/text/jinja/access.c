#include "eval.h"
#include "ustr.h"

static bool is_one_of(const struct jstr *name, const char *const *z)
{
    for (; *z; z++)
        if (jstr_is(name, *z))
            return true;
    return false;
}

/* Methods that change their object: the sandbox shows them as undefined, which fails when they are called. */
static bool is_mutator(struct jval obj, const struct jstr *name)
{
    static const char *const list[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove", NULL};
    static const char *const dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    return (obj.kind == J_LIST && is_one_of(name, list)) || (obj.kind == J_DICT && is_one_of(name, dict));
}

/* Python's own attributes: those that every object has, and the common ones of sequences and mappings. */
static bool is_dunder(struct jval obj, const struct jstr *name)
{
    static const char *const any[] = {
        "__class__", "__delattr__",      "__dir__",    "__doc__",  "__eq__",           "__format__",
        "__ge__",    "__getattribute__", "__gt__",     "__hash__", "__init__",         "__init_subclass__",
        "__le__",    "__lt__",           "__ne__",     "__new__",  "__reduce__",       "__reduce_ex__",
        "__repr__",  "__setattr__",      "__sizeof__", "__str__",  "__subclasshook__", NULL};
    static const char *const box[] = {"__len__", "__iter__", "__contains__", "__getitem__", NULL};
    static const char *const undefined[] = {"__len__", "__iter__",  "__getitem__", "__bool__",  "__call__", "__add__",
                                            "__int__", "__float__", "__module__",  "__slots__", NULL};
    if (name->n < 4 || name->p[0] != '_' || name->p[1] != '_' || obj.kind == J_NAMESPACE)
        return false;
    if (obj.kind == J_UNDEF)
        return is_one_of(name, any) || is_one_of(name, undefined);
    return is_one_of(name, any) || (obj.kind >= J_STR && obj.kind <= J_VIEW && is_one_of(name, box));
}

static struct jval unsafe(struct jrt *rt, struct jval obj, const struct jstr *name)
{
    struct jbuf b = {0};
    jbuf_printf(rt, &b, "access to attribute '%.*s' of '%s' object is unsafe.", (int)name->n, name->p, jval_type(obj));
    jbuf_putc(rt, &b, 0);
    return jundef_hint(rt, b.p);
}

static const struct jbuiltin *method_of(struct jval obj, const struct jstr *name)
{
    static const struct jbuiltin_table *const table[] = {
        [J_STR] = &jbuiltin_str_methods,       [J_LIST] = &jbuiltin_list_methods,
        [J_TUPLE] = &jbuiltin_tuple_methods,   [J_DICT] = &jbuiltin_dict_methods,
        [J_RANGE] = &jbuiltin_range_methods,   [J_LOOP] = &jbuiltin_loop_methods,
        [J_CYCLER] = &jbuiltin_cycler_methods, [J_JOINER] = NULL,
    };
    return table[obj.kind] ? jbuiltin_find(table[obj.kind], name) : NULL;
}

/* Attributes that are values. */
static struct jval data_attr(struct jrt *rt, struct jval obj, const struct jstr *name)
{
    if (obj.kind == J_LOOP)
        return jloop_attr(rt, obj, name);
    if (obj.kind == J_CYCLER && jstr_is(name, "current"))
        return obj.cycler->item->v[obj.cycler->pos];
    if (obj.kind == J_CYCLER && jstr_is(name, "items"))
        return jval_tuple(obj.cycler->item);
    if (obj.kind == J_CYCLER && jstr_is(name, "pos"))
        return jval_int((int64_t)obj.cycler->pos);
    if (obj.kind == J_NAMESPACE) {
        const struct jval *v = jdict_get_str(rt, obj.d, name);
        return v ? *v : jval_missing();
    }
    if (obj.kind == J_TUPLE && obj.group && jstr_is(name, "grouper"))
        return obj.l->v[0];
    if (obj.kind == J_TUPLE && obj.group && jstr_is(name, "list"))
        return obj.l->v[1];
    if (obj.kind == J_MACRO && jstr_is(name, "name"))
        return obj.m->name ? jval_strn(rt, obj.m->name->p, obj.m->name->n) : jval_none();
    if (obj.kind == J_RANGE && jstr_is(name, "start"))
        return jval_int(obj.r->start);
    if (obj.kind == J_RANGE && jstr_is(name, "stop"))
        return jval_int(obj.r->stop);
    if (obj.kind == J_RANGE && jstr_is(name, "step"))
        return jval_int(obj.r->step);
    return jval_missing();
}

/* Python's getattr: a bound method, a value, or J_MISSING. */
static struct jval get_attr(struct jrt *rt, struct jval obj, const struct jstr *name)
{
    const struct jbuiltin *m = NULL;
    if (obj.kind == J_FUNC && strcmp(obj.fn->name, "dict") == 0)
        m = jbuiltin_find(&jbuiltin_dict_type_methods, name);
    else
        m = method_of(obj, name);
    if (m) {
        struct jbound *bound = jrt_alloc(rt, sizeof *bound);
        *bound = (struct jbound){obj, m};
        return (struct jval){.kind = J_METHOD, .bound = bound};
    }
    if (is_mutator(obj, name) || is_dunder(obj, name))
        return unsafe(rt, obj, name);
    return data_attr(rt, obj, name);
}

/* Python's obj[sub]: J_MISSING for a TypeError or a LookupError. */
static struct jval get_item(struct jrt *rt, struct jval obj, struct jval sub)
{
    if (obj.kind == J_DICT) {
        struct jval *v = jval_hashable(sub) ? jdict_get(rt, obj.d, sub) : NULL;
        return v ? *v : jval_missing();
    }
    if (!jval_is_int(sub) || (obj.kind != J_LIST && obj.kind != J_TUPLE && obj.kind != J_STR && obj.kind != J_RANGE))
        return jval_missing();
    int64_t i = jval_as_int(sub), n = jiter_len(rt, obj);
    if (i < 0)
        i += n;
    if (i < 0 || i >= n)
        return jval_missing();
    if (obj.kind == J_RANGE)
        return jiter_range_at(obj.r, (size_t)i);
    if (obj.kind != J_STR)
        return obj.l->v[i];
    struct jval c = ustr_char(rt, obj.s, (size_t)i);
    c.markup = obj.markup;
    return c;
}

struct jval jaccess_attr(struct jrt *rt, struct jval obj, struct jstr *name)
{
    if (obj.kind == J_UNDEF && !is_dunder(obj, name))
        jundef_fail(rt, obj.u);
    struct jval v = get_attr(rt, obj, name);
    if (v.kind == J_MISSING)
        v = get_item(rt, obj, jval_str(name));
    return v.kind == J_MISSING ? jundef_attr(rt, obj, jval_str(name)) : v;
}

struct jval jaccess_item(struct jrt *rt, struct jval obj, struct jval sub)
{
    if (obj.kind == J_UNDEF)
        jundef_fail(rt, obj.u);
    struct jval v = get_item(rt, obj, sub);
    if (v.kind == J_MISSING && sub.kind == J_STR)
        v = get_attr(rt, obj, sub.s);
    return v.kind == J_MISSING ? jundef_attr(rt, obj, sub) : v;
}

static int64_t slice_bound(struct jrt *rt, struct jval v, int64_t n, int64_t if_absent, int64_t lo, int64_t hi)
{
    if (jval_absent(v))
        return if_absent;
    if (!jval_is_int(v))
        jrt_fail(rt, "slice indices must be integers or None or have an __index__ method");
    int64_t i = jval_as_int(v);
    if (i < 0)
        i += n;
    return i < lo ? lo : i > hi ? hi : i;
}

struct span {
    int64_t start, end, step, n; /* elements start, start + step, ..., before end */
};

/* Python's slice.indices(n). */
static struct span slice_of(struct jrt *rt, int64_t n, struct jval start, struct jval stop, struct jval step)
{
    struct span s = {.step = 1};
    if (!jval_absent(step)) /* a longer step selects the same elements */
        s.step = slice_bound(rt, step, 0, 1, -n - 1, n + 1);
    if (s.step == 0)
        jrt_fail(rt, "slice step cannot be zero");
    bool back = s.step < 0;
    int64_t lo = back ? -1 : 0, hi = back ? n - 1 : n;
    s.start = slice_bound(rt, start, n, back ? hi : lo, lo, hi);
    s.end = slice_bound(rt, stop, n, back ? lo : hi, lo, hi);
    if (!back && s.end > s.start)
        s.n = (s.end - s.start - 1) / s.step + 1;
    else if (back && s.start > s.end)
        s.n = (s.start - s.end - 1) / -s.step + 1;
    return s;
}

static struct jval slice_string(struct jrt *rt, struct jval v, struct span sp)
{
    struct jstr *s = v.s;
    struct jval out;
    if (sp.step == 1 || sp.n <= 1) {
        size_t from = ustr_offset(rt, s, (size_t)sp.start);
        size_t to = sp.n ? ustr_offset(rt, s, (size_t)(sp.start + sp.n)) : from;
        out = jval_strn(rt, s->p + from, to - from);
    } else {
        /* Where each code point begins: simple, and fast enough for what templates do with steps. */
        size_t n = ustr_len(rt, s), at = 0, len;
        size_t *begin = jrt_array(rt, n + 1, sizeof *begin);
        struct jbuf b = {0};
        for (size_t i = 0; i < n; i++, at += len) {
            begin[i] = at;
            ustr_at(s->p + at, &len);
        }
        begin[n] = at;
        for (int64_t i = 0, k = sp.start; i < sp.n; i++, k += sp.step)
            jbuf_add(rt, &b, s->p + begin[k], begin[k + 1] - begin[k]);
        jrt_charge(rt, s->n);
        out = jval_of_buf(rt, &b);
    }
    out.markup = v.markup;
    return out;
}

static struct jval slice_list(struct jrt *rt, struct jval v, struct span sp)
{
    struct jlist *l = jlist_new(rt, (size_t)sp.n);
    jrt_step(rt, (uint64_t)sp.n / 4);
    for (int64_t i = 0, k = sp.start; i < sp.n; i++, k += sp.step)
        l->v[l->n++] = v.l->v[k];
    v.l = l;
    return v;
}

static struct jval slice_range(struct jrt *rt, struct jval v, struct span sp)
{
    struct jrange *r = jrt_alloc(rt, sizeof *r);
    *r = (struct jrange){.start = v.r->start + sp.start * v.r->step, .step = v.r->step * sp.step, .n = sp.n};
    r->stop = v.r->start + sp.end * v.r->step;
    v.r = r;
    return v;
}

struct jval jaccess_slice(struct jrt *rt, struct jval obj, struct jval start, struct jval stop, struct jval step)
{
    if (obj.kind == J_UNDEF)
        jundef_fail(rt, obj.u);
    if (obj.kind == J_DICT)
        jrt_fail(rt, "unhashable type: 'slice'");
    if (obj.kind != J_STR && obj.kind != J_LIST && obj.kind != J_TUPLE && obj.kind != J_RANGE)
        jrt_fail(rt, "'%s' object is not subscriptable", jval_type(obj));
    struct span sp = slice_of(rt, jiter_len(rt, obj), start, stop, step);
    return obj.kind == J_STR     ? slice_string(rt, obj, sp)
           : obj.kind == J_RANGE ? slice_range(rt, obj, sp)
                                 : slice_list(rt, obj, sp);
}
