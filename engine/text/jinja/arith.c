/* The arithmetic half of ops.h. */
#include <math.h>

#include "format.h"
#include "ops.h"
#include "text.h"

static _Noreturn void overflow(struct jrt *rt)
{
    jrt_fail(rt, "integer result does not fit 64 bits");
}

static _Noreturn void unsupported(struct jrt *rt, enum jop op, struct jval a, struct jval b)
{
    static const char *const text[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    jrt_fail(rt, "unsupported operand type(s) for %s: '%s' and '%s'", text[op], jval_type(a), jval_type(b));
}

static struct jval int_pow(struct jrt *rt, int64_t base, int64_t exponent)
{
    if (exponent < 0) {
        if (base == 0)
            jrt_fail(rt, "0.0 cannot be raised to a negative power");
        return jval_float(pow((double)base, (double)exponent));
    }
    int64_t out = 1;
    while (exponent) {
        if ((exponent & 1) && __builtin_mul_overflow(out, base, &out))
            overflow(rt);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base))
            overflow(rt);
    }
    return jval_int(out);
}

/* Division towards minus infinity. */
static struct jval int_floordiv(struct jrt *rt, int64_t a, int64_t b, bool want_mod)
{
    if (b == 0)
        jrt_fail(rt, "integer %s by zero", want_mod ? "modulo" : "division or modulo");
    if (b == -1) { /* INT64_MIN / -1 traps */
        if (want_mod)
            return jval_int(0);
        if (__builtin_sub_overflow((int64_t)0, a, &a))
            overflow(rt);
        return jval_int(a);
    }
    int64_t q = a / b, r = a % b;
    if (r != 0 && (r < 0) != (b < 0)) {
        q--;
        r += b;
    }
    return jval_int(want_mod ? r : q);
}

static struct jval int_binary(struct jrt *rt, enum jop op, int64_t a, int64_t b)
{
    int64_t out = 0;
    bool bad = false;
    switch (op) {
    case JOP_ADD:
        bad = __builtin_add_overflow(a, b, &out);
        break;
    case JOP_SUB:
        bad = __builtin_sub_overflow(a, b, &out);
        break;
    case JOP_MUL:
        bad = __builtin_mul_overflow(a, b, &out);
        break;
    case JOP_DIV:
        if (b == 0)
            jrt_fail(rt, "division by zero");
        return jval_float((double)((long double)a / (long double)b));
    case JOP_POW:
        return int_pow(rt, a, b);
    default:
        return int_floordiv(rt, a, b, op == JOP_MOD);
    }
    if (bad)
        overflow(rt);
    return jval_int(out);
}

/* Python's float // and %: the remainder takes the sign of the divisor. */
static double float_divmod(double a, double b, double *mod)
{
    double m = fmod(a, b), div = (a - m) / b;
    if (m != 0) {
        if ((b < 0) != (m < 0)) {
            m += b;
            div -= 1;
        }
    } else {
        m = copysign(0, b);
    }
    *mod = m;
    if (div == 0)
        return copysign(0, a / b);
    double floored = floor(div);
    return div - floored > 0.5 ? floored + 1 : floored;
}

static struct jval float_pow(struct jrt *rt, double a, double b)
{
    if (a == 0 && b < 0)
        jrt_fail(rt, "0.0 cannot be raised to a negative power");
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
        jrt_fail(rt, "a negative number to a fractional power is a complex number");
    double out = pow(a, b);
    if (isinf(out) && isfinite(a) && isfinite(b))
        jrt_fail(rt, "(34, 'Numerical result out of range')");
    return jval_float(out);
}

static struct jval float_binary(struct jrt *rt, enum jop op, double a, double b)
{
    double mod, div;
    switch (op) {
    case JOP_ADD:
        return jval_float(a + b);
    case JOP_SUB:
        return jval_float(a - b);
    case JOP_MUL:
        return jval_float(a * b);
    case JOP_POW:
        return float_pow(rt, a, b);
    default:
        break;
    }
    if (b == 0)
        jrt_fail(rt, op == JOP_DIV   ? "float division by zero"
                     : op == JOP_MOD ? "float modulo"
                                     : "float floor division by zero");
    if (op == JOP_DIV)
        return jval_float(a / b);
    div = float_divmod(a, b, &mod);
    return jval_float(op == JOP_MOD ? mod : div);
}

struct jval jops_concat_str(struct jrt *rt, struct jval a, struct jval b)
{
    struct jval out;
    bool markup = a.markup || b.markup;
    if (markup) {
        a = jtext_escaped(rt, a);
        b = jtext_escaped(rt, b);
    }
    if (b.s->n > SIZE_MAX / 2 || a.s->n > SIZE_MAX / 2)
        overflow(rt);
    jrt_charge(rt, a.s->n + b.s->n);
    char *p = jrt_alloc(rt, a.s->n + b.s->n);
    memcpy(p, a.s->p, a.s->n);
    memcpy(p + a.s->n, b.s->p, b.s->n);
    out = jval_strn(rt, p, a.s->n + b.s->n);
    if (a.s->n_cp != SIZE_MAX && b.s->n_cp != SIZE_MAX)
        out.s->n_cp = a.s->n_cp + b.s->n_cp;
    out.markup = markup;
    return out;
}

static struct jval concat_list(struct jrt *rt, struct jval a, struct jval b)
{
    struct jlist *l = jlist_new(rt, a.l->n + b.l->n);
    if (a.l->n)
        memcpy(l->v, a.l->v, a.l->n * sizeof *l->v);
    if (b.l->n)
        memcpy(l->v + a.l->n, b.l->v, b.l->n * sizeof *l->v);
    l->n = a.l->n + b.l->n;
    jrt_step(rt, l->n / 4);
    a.l = l;
    return a;
}

static size_t repeat_size(struct jrt *rt, size_t n, int64_t times, size_t unit)
{
    size_t total = times > 0 ? (size_t)times : 0;
    if (__builtin_mul_overflow(total, n, &total) || total > rt->limit.memory_bytes / unit)
        jrt_limit(rt, "the template needs too much memory (limit: %zu bytes)", rt->limit.memory_bytes);
    return total;
}

/* A string or a list, `times` times. */
static struct jval repeat(struct jrt *rt, struct jval v, int64_t times)
{
    if (v.kind == J_STR) {
        size_t n = repeat_size(rt, v.s->n, times, 1);
        struct jbuf b = {0};
        jbuf_grow(rt, &b, n);
        while (b.n < n)
            jbuf_add(rt, &b, v.s->p, v.s->n);
        struct jval out = jval_of_buf(rt, &b);
        out.markup = v.markup;
        return out;
    }
    size_t n = repeat_size(rt, v.l->n, times, sizeof *v.l->v);
    struct jlist *l = jlist_new(rt, n);
    jrt_step(rt, n / 4);
    for (; l->n < n; l->n += v.l->n)
        memcpy(l->v + l->n, v.l->v, v.l->n * sizeof *l->v);
    v.l = l;
    return v;
}

static bool is_sequence(struct jval v)
{
    return v.kind == J_STR || v.kind == J_LIST || v.kind == J_TUPLE;
}

static struct jval add_sequences(struct jrt *rt, struct jval a, struct jval b)
{
    if (a.kind == J_STR && b.kind == J_STR)
        return jops_concat_str(rt, a, b);
    if (a.kind == b.kind)
        return concat_list(rt, a, b);
    if (is_sequence(a))
        jrt_fail(rt, "can only concatenate %s (not \"%s\") to %s", jval_type(a), jval_type(b), jval_type(a));
    unsupported(rt, JOP_ADD, a, b);
}

static struct jval multiply_sequence(struct jrt *rt, struct jval a, struct jval b)
{
    if (is_sequence(a) && jval_is_int(b))
        return repeat(rt, a, jval_as_int(b));
    if (is_sequence(b) && jval_is_int(a))
        return repeat(rt, b, jval_as_int(a));
    jrt_fail(rt, "can't multiply sequence by non-int of type '%s'", jval_type(is_sequence(a) ? b : a));
}

struct jval jops_binary(struct jrt *rt, enum jop op, struct jval a, struct jval b)
{
    if (jval_is_int(a) && jval_is_int(b))
        return int_binary(rt, op, jval_as_int(a), jval_as_int(b));
    if (jval_is_num(a) && jval_is_num(b))
        return float_binary(rt, op, jval_as_float(a), jval_as_float(b));
    if (op == JOP_MOD && a.kind == J_STR)
        return jformat_percent(rt, a, b);
    if (a.kind == J_UNDEF || b.kind == J_UNDEF)
        jundef_fail(rt, a.kind == J_UNDEF ? a.u : b.u);
    if (op == JOP_ADD && (is_sequence(a) || (is_sequence(b) && a.kind == b.kind)))
        return add_sequences(rt, a, b);
    if (op == JOP_MUL && (is_sequence(a) || is_sequence(b)))
        return multiply_sequence(rt, a, b);
    unsupported(rt, op, a, b);
}

struct jval jops_negate(struct jrt *rt, struct jval v)
{
    if (v.kind == J_FLOAT)
        return jval_float(-v.f);
    if (v.kind == J_UNDEF)
        jundef_fail(rt, v.u);
    if (!jval_is_int(v))
        jrt_fail(rt, "bad operand type for unary -: '%s'", jval_type(v));
    int64_t out;
    if (__builtin_sub_overflow((int64_t)0, jval_as_int(v), &out))
        overflow(rt);
    return jval_int(out);
}

struct jval jops_plus(struct jrt *rt, struct jval v)
{
    if (v.kind == J_UNDEF)
        jundef_fail(rt, v.u);
    if (!jval_is_num(v))
        jrt_fail(rt, "bad operand type for unary +: '%s'", jval_type(v));
    return v.kind == J_BOOL ? jval_int(v.b) : v;
}
