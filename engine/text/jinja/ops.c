#include "ops.h"

#include "iter.h"
#include "text.h"
#include "ustr.h"

static bool list_eq(struct jrt *rt, const struct jlist *a, const struct jlist *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!jops_eq(rt, a->v[i], b->v[i]))
            return false;
    return true;
}

static bool dict_eq(struct jrt *rt, const struct jdict *a, const struct jdict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct jval *v = jdict_get(rt, b, a->e[i].k);
        if (!v || !jops_eq(rt, a->e[i].v, *v))
            return false;
    }
    return true;
}

static bool range_eq(const struct jrange *a, const struct jrange *b)
{
    if (a->n != b->n || a->n == 0)
        return a->n == b->n;
    return a->start == b->start && (a->n == 1 || a->step == b->step);
}

/* Views of keys and of items compare as sets. */
static bool view_eq(struct jrt *rt, const struct jview *a, const struct jview *b)
{
    if (a->kind != b->kind || a->kind == JVIEW_VALUES)
        return a == b;
    if (a->d->n != b->d->n)
        return false;
    for (size_t i = 0; i < a->d->n; i++) {
        const struct jval *v = jdict_get(rt, b->d, a->d->e[i].k);
        if (!v || (a->kind == JVIEW_ITEMS && !jops_eq(rt, a->d->e[i].v, *v)))
            return false;
    }
    return true;
}

static bool num_eq(struct jval a, struct jval b)
{
    if (a.kind != J_FLOAT && b.kind != J_FLOAT)
        return jval_as_int(a) == jval_as_int(b);
    if (a.kind == J_FLOAT && b.kind == J_FLOAT)
        return a.f == b.f;
    double f = a.kind == J_FLOAT ? a.f : b.f;
    int64_t i = a.kind == J_FLOAT ? jval_as_int(b) : jval_as_int(a);
    return f >= -0x1p63 && f < 0x1p63 && (double)(int64_t)f == f && (int64_t)f == i;
}

bool jops_eq(struct jrt *rt, struct jval a, struct jval b)
{
    bool eq;
    jrt_step(rt, 1);
    if (jval_is_num(a) && jval_is_num(b))
        return num_eq(a, b);
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case J_UNDEF:
        return true;
    case J_STR:
        if (a.s->n == b.s->n)
            jrt_charge(rt, a.s->n);
        return jstr_eq(a.s, b.s);
    case J_LIST:
    case J_TUPLE:
        jrt_enter(rt);
        eq = list_eq(rt, a.l, b.l);
        jrt_leave(rt);
        return eq;
    case J_DICT:
        jrt_enter(rt);
        eq = dict_eq(rt, a.d, b.d);
        jrt_leave(rt);
        return eq;
    case J_RANGE:
        return range_eq(a.r, b.r);
    case J_VIEW:
        return view_eq(rt, a.w, b.w);
    default:
        return jval_same(a, b);
    }
}

static const char *op_text(enum jop op)
{
    static const char *const text[] = {
        [JOP_ADD] = "+", [JOP_SUB] = "-",           [JOP_MUL] = "*", [JOP_DIV] = "/", [JOP_FLOORDIV] = "//",
        [JOP_MOD] = "%", [JOP_POW] = "** or pow()", [JOP_LT] = "<",  [JOP_LE] = "<=", [JOP_GT] = ">",
        [JOP_GE] = ">="};
    return text[op];
}

/* Three-way comparison, where there is an order; NaN never gets here. */
static int order_int(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int order_num(struct jval a, struct jval b)
{
    if (a.kind != J_FLOAT && b.kind != J_FLOAT)
        return order_int(jval_as_int(a), jval_as_int(b));
    long double x = a.kind == J_FLOAT ? (long double)a.f : (long double)jval_as_int(a);
    long double y = b.kind == J_FLOAT ? (long double)b.f : (long double)jval_as_int(b);
    return (x > y) - (x < y);
}

static bool holds(enum jop op, int order)
{
    return op == JOP_LT ? order < 0 : op == JOP_LE ? order <= 0 : op == JOP_GT ? order > 0 : order >= 0;
}

static bool ordered(struct jrt *rt, enum jop op, struct jval a, struct jval b);

/* The first difference decides; without one the shorter is less. */
static bool list_ordered(struct jrt *rt, enum jop op, const struct jlist *a, const struct jlist *b)
{
    for (size_t i = 0; i < a->n && i < b->n; i++)
        if (!jops_eq(rt, a->v[i], b->v[i]))
            return ordered(rt, op, a->v[i], b->v[i]);
    return holds(op, order_int((int64_t)a->n, (int64_t)b->n));
}

static bool ordered(struct jrt *rt, enum jop op, struct jval a, struct jval b)
{
    jrt_step(rt, 1);
    if (jval_is_num(a) && jval_is_num(b)) {
        bool nan = (a.kind == J_FLOAT && a.f != a.f) || (b.kind == J_FLOAT && b.f != b.f);
        return !nan && holds(op, order_num(a, b));
    }
    if (a.kind == J_STR && b.kind == J_STR) {
        jrt_charge(rt, a.s->n);
        return holds(op, jstr_cmp(a.s, b.s));
    }
    if (a.kind == b.kind && (a.kind == J_LIST || a.kind == J_TUPLE)) {
        jrt_enter(rt);
        bool yes = list_ordered(rt, op, a.l, b.l);
        jrt_leave(rt);
        return yes;
    }
    if (a.kind == J_UNDEF || b.kind == J_UNDEF)
        jundef_fail(rt, a.kind == J_UNDEF ? a.u : b.u);
    jrt_fail(rt, "'%s' not supported between instances of '%s' and '%s'", op_text(op), jval_type(a), jval_type(b));
}

static bool range_contains(const struct jrange *r, int64_t i)
{
    bool inside = r->step > 0 ? i >= r->start && i < r->stop : i <= r->start && i > r->stop;
    return inside && (i - r->start) % r->step == 0;
}

static bool view_contains(struct jrt *rt, const struct jview *w, struct jval item)
{
    if (w->kind == JVIEW_ITEMS) {
        if (item.kind != J_TUPLE || item.l->n != 2)
            return false;
        const struct jval *v = jdict_get(rt, w->d, item.l->v[0]);
        return v && jops_eq(rt, *v, item.l->v[1]);
    }
    for (size_t i = 0; i < w->d->n; i++)
        if (jops_eq(rt, w->d->e[i].v, item))
            return true;
    return false;
}

bool jops_contains(struct jrt *rt, struct jval box, struct jval item)
{
    struct jval x;
    switch (box.kind) {
    case J_STR:
        if (item.kind != J_STR)
            jrt_fail(rt, "'in <string>' requires string as left operand, not %s", jval_type(item));
        jrt_charge(rt, box.s->n);
        return ustr_find(box.s->p, box.s->n, item.s->p, item.s->n) != SIZE_MAX;
    case J_DICT:
        if (!jval_hashable(item))
            jrt_fail(rt, "unhashable type: '%s'", jval_type(item));
        return jdict_get(rt, box.d, item) != NULL;
    case J_RANGE:
        if (jval_is_int(item))
            return range_contains(box.r, jval_as_int(item));
        break;
    case J_VIEW:
        if (box.w->kind == JVIEW_KEYS)
            return jops_contains(rt, jval_dict(box.w->d), item);
        return view_contains(rt, box.w, item);
    default:
        break;
    }
    if (!jiter_can(box))
        jrt_fail(rt, "argument of type '%s' is not iterable", jval_type(box));
    struct jiter *it = jiter_open(rt, box);
    while (jiter_next(rt, it, &x))
        if (jops_eq(rt, x, item))
            return true;
    return false;
}

bool jops_compare(struct jrt *rt, enum jop op, struct jval a, struct jval b)
{
    switch (op) {
    case JOP_EQ:
        return jops_eq(rt, a, b);
    case JOP_NE:
        return !jops_eq(rt, a, b);
    case JOP_IN:
        return jops_contains(rt, b, a);
    case JOP_NOTIN:
        return !jops_contains(rt, b, a);
    default:
        return ordered(rt, op, a, b);
    }
}

static void merge(struct jrt *rt, struct jval *v[2], struct jval *key[2], size_t from, size_t mid, size_t to,
                  bool reverse)
{
    size_t a = from, b = mid;
    for (size_t at = from; at < to; at++) {
        bool take_b;
        if (a == mid || b == to)
            take_b = a == mid;
        else /* equal keys keep their order, in reverse as well */
            take_b = reverse ? ordered(rt, JOP_LT, key[0][a], key[0][b]) : ordered(rt, JOP_LT, key[0][b], key[0][a]);
        size_t from_at = take_b ? b++ : a++;
        v[1][at] = v[0][from_at];
        key[1][at] = key[0][from_at];
    }
}

void jops_sort(struct jrt *rt, struct jval *v, struct jval *key, size_t n, bool reverse)
{
    if (n < 2)
        return;
    struct jval *vs[2] = {v, jrt_array(rt, n, sizeof *v)};
    struct jval *keys[2] = {jrt_array(rt, n, sizeof *v), jrt_array(rt, n, sizeof *v)};
    memcpy(keys[0], key, n * sizeof *key);
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t from = 0; from < n; from += 2 * width) {
            size_t mid = from + width < n ? from + width : n, to = mid + width < n ? mid + width : n;
            merge(rt, vs, keys, from, mid, to, reverse);
        }
        struct jval *swap = vs[0];
        vs[0] = vs[1], vs[1] = swap;
        swap = keys[0];
        keys[0] = keys[1], keys[1] = swap;
    }
    if (vs[0] != v)
        memcpy(v, vs[0], n * sizeof *v);
}
