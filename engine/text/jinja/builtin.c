#include "builtin.h"

#include <string.h>

const struct jbuiltin *jbuiltin_find(const struct jbuiltin_table *t, const struct jstr *name)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const char *row = t->row[mid].name;
        int c = strncmp(row, name->p, name->n);
        if (c == 0 && row[name->n] == 0)
            return &t->row[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* The place of `name` in "old new count", or -1. */
static int param_index(const char *params, const struct jstr *name)
{
    int i = 0;
    for (const char *p = params; p && *p; i++) {
        size_t n = strcspn(p, " ");
        if (n == name->n && memcmp(p, name->p, n) == 0)
            return i;
        p += n + (p[n] == ' ');
    }
    return -1;
}

static void bind(struct jrt *rt, const struct jbuiltin *b, const struct jargs *in, struct jval out[JBUILTIN_ARG_MAX])
{
    if (in->n_pos > (size_t)b->n_max)
        jrt_fail(rt, "%s() takes at most %d argument%s (%zu given)", b->name, b->n_max, b->n_max == 1 ? "" : "s",
                 in->n_pos);
    for (int i = 0; i < b->n_max; i++)
        out[i] = (size_t)i < in->n_pos ? in->pos[i] : jval_missing();
    for (size_t i = 0; i < in->n_kw; i++) {
        const struct jkw *kw = &in->kw[i];
        int at = param_index(b->params, kw->name);
        if (at < 0)
            jrt_fail(rt, "%s() got an unexpected keyword argument '%.*s'", b->name, (int)kw->name->n, kw->name->p);
        if (out[at].kind != J_MISSING)
            jrt_fail(rt, "%s() got multiple values for argument '%.*s'", b->name, (int)kw->name->n, kw->name->p);
        out[at] = kw->v;
    }
    for (int i = 0; i < b->n_min; i++)
        if (out[i].kind == J_MISSING)
            jrt_fail(rt, "%s() needs at least %d argument%s", b->name, b->n_min, b->n_min == 1 ? "" : "s");
}

struct jval jbuiltin_call(struct jrt *rt, const struct jbuiltin *b, struct jval self, const struct jargs *args)
{
    struct jval arg[JBUILTIN_ARG_MAX];
    if (self.kind == J_STR) /* most walk over the string, character by character */
        jrt_step(rt, self.s->n / 16);
    if (b->n_max == JBUILTIN_ANY)
        return b->call(rt, self, NULL, args);
    bind(rt, b, args, arg);
    return b->call(rt, self, arg, args);
}

const struct jval *jargs_kw(const struct jargs *a, const char *name)
{
    for (size_t i = 0; i < a->n_kw; i++)
        if (jstr_is(a->kw[i].name, name))
            return &a->kw[i].v;
    return NULL;
}

int64_t jarg_int(struct jrt *rt, struct jval v, int64_t if_missing)
{
    if (v.kind == J_MISSING)
        return if_missing;
    if (v.kind == J_UNDEF)
        jundef_fail(rt, v.u);
    if (!jval_is_int(v))
        jrt_fail(rt, "'%s' object cannot be interpreted as an integer", jval_type(v));
    return jval_as_int(v);
}

const struct jstr *jarg_str(struct jrt *rt, struct jval v, const char *who)
{
    if (v.kind != J_STR)
        jrt_fail(rt, "%s argument must be str, not %s", who, jval_type(v));
    return v.s;
}

bool jarg_bool(struct jval v, bool if_missing)
{
    return v.kind == J_MISSING ? if_missing : jval_truth(v);
}
