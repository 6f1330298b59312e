#include <math.h>

#include "filters.h"
#include "iter.h"
#include "num.h"
#include "ops.h"

JFILTER(abs)
{
    if (self.kind == J_FLOAT)
        return jval_float(fabs(self.f));
    if (!jval_is_int(self))
        jrt_fail(rt, "bad operand type for abs(): '%s'", jval_type(self));
    return jval_as_int(self) < 0 ? jops_negate(rt, self) : jval_int(jval_as_int(self));
}

/* Python's float(v); false where it raises TypeError or ValueError. */
static bool to_float(struct jrt *rt, struct jval v, double *out)
{
    if (v.kind == J_UNDEF)
        jundef_fail(rt, v.u);
    if (v.kind == J_STR)
        return jnum_parse_float(rt, v.s->p, v.s->n, out);
    *out = jval_is_num(v) ? jval_as_float(v) : 0;
    return jval_is_num(v);
}

JFILTER(float)
{
    double f;
    if (to_float(rt, self, &f))
        return jval_float(f);
    return arg[0].kind == J_MISSING ? jval_float(0) : arg[0];
}

static struct jval truncated(struct jrt *rt, double f)
{
    if (!(fabs(f) < 0x1p63))
        jrt_fail(rt, "cannot convert float to a 64-bit integer");
    return jval_int((int64_t)f);
}

/* "42.23"|int is 42: what is no integer is tried as a float. */
JFILTER(int)
{
    struct jval otherwise = arg[0].kind == J_MISSING ? jval_int(0) : arg[0];
    int64_t i = 0, base = jarg_int(rt, arg[1], 10);
    bool overflow = false;
    double f;
    if (jval_is_int(self))
        return jval_int(jval_as_int(self));
    if (self.kind == J_FLOAT && isfinite(self.f))
        return truncated(rt, self.f);
    if (self.kind == J_FLOAT && isinf(self.f))
        jrt_fail(rt, "cannot convert float infinity to integer");
    bool base_ok = base == 0 || (base >= 2 && base <= 36);
    if (self.kind == J_STR && base_ok && jnum_parse_int(self.s->p, self.s->n, (int)base, &i, &overflow)) {
        if (overflow)
            jrt_fail(rt, "integer does not fit 64 bits");
        return jval_int(i);
    }
    if (!to_float(rt, self, &f) || !isfinite(f))
        return otherwise;
    return truncated(rt, f);
}

/* round(i, n) for n < 0: to tens, hundreds, ..., half to even. */
static struct jval round_int(struct jrt *rt, int64_t i, int64_t n)
{
    int64_t unit = 1;
    if (n >= 0)
        return jval_int(i);
    if (n < -18)
        return jval_int(0);
    for (; n < 0; n++)
        unit *= 10;
    int64_t low = i % unit, down = i - low, half = unit / 2, size = low < 0 ? -low : low;
    bool away = size > half || (size == half && (down / unit) % 2 != 0);
    int64_t out = down;
    if (away && __builtin_add_overflow(down, i < 0 ? -unit : unit, &out))
        jrt_fail(rt, "integer result does not fit 64 bits");
    return jval_int(out);
}

JFILTER(round)
{
    int64_t n = jarg_int(rt, arg[0], 0);
    const struct jval *method = &arg[1];
    bool common = method->kind == J_MISSING || (method->kind == J_STR && jstr_is(method->s, "common"));
    bool ceiling = method->kind == J_STR && jstr_is(method->s, "ceil");
    if (!common && !ceiling && !(method->kind == J_STR && jstr_is(method->s, "floor")))
        jrt_fail(rt, "method must be common, ceil or floor");
    if (self.kind == J_UNDEF)
        jundef_fail(rt, self.u);
    if (!jval_is_num(self))
        jrt_fail(rt, "type %s doesn't define __round__ method", jval_type(self));
    if (common)
        return self.kind == J_FLOAT ? jval_float(jnum_round(self.f, n)) : round_int(rt, jval_as_int(self), n);
    /* The same int and float steps as func(value * 10 ** precision) / 10 ** precision. */
    struct jval unit = jops_binary(rt, JOP_POW, jval_int(10), jval_int(n));
    struct jval scaled = jops_binary(rt, JOP_MUL, self, unit);
    if (scaled.kind == J_FLOAT)
        scaled = truncated(rt, ceiling ? ceil(scaled.f) : floor(scaled.f));
    return jops_binary(rt, JOP_DIV, scaled, unit);
}

JFILTER(sum)
{
    struct jpath path = jpath_of(rt, arg[0], false);
    struct jval total = arg[1].kind == J_MISSING ? jval_int(0) : arg[1], v;
    struct jiter *it = jiter_open(rt, self);
    if (total.kind == J_STR)
        jrt_fail(rt, "sum() can't sum strings [use ''.join(seq) instead]");
    while (jiter_next(rt, it, &v))
        total = jops_binary(rt, JOP_ADD, total, jpath_get(rt, &path, v));
    return total;
}
