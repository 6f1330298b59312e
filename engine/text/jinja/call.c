#include "eval.h"
#include "text.h"

static struct jval call_joiner(struct jrt *rt, struct jjoiner *j)
{
    bool first = !j->used;
    j->used = true;
    return first ? jval_cstr(rt, "") : jval_str(j->sep);
}

struct jval jcall(struct jrt *rt, struct jval callee, const struct jargs *args)
{
    switch (callee.kind) {
    case J_UNDEF:
        jundef_fail(rt, callee.u);
    case J_FUNC:
        return jbuiltin_call(rt, callee.fn, jval_missing(), args);
    case J_METHOD:
        return jbuiltin_call(rt, callee.bound->method, callee.bound->self, args);
    case J_MACRO:
        return jeval_call_macro(rt, callee.m, args);
    case J_LOOP:
        if (args->n_pos != 1 || args->n_kw)
            jrt_fail(rt, "loop() takes exactly one argument");
        return jeval_recurse(rt, callee.loop, args->pos[0]);
    case J_JOINER:
        return call_joiner(rt, callee.joiner);
    default:
        jrt_fail(rt, "'%s' object is not callable", jval_type(callee));
    }
}

static const struct jbuiltin *named(struct jrt *rt, const struct jbuiltin_table *t, const char *what,
                                    const struct jstr *name)
{
    const struct jbuiltin *b = jbuiltin_find(t, name);
    if (!b)
        jrt_fail(rt, "No %s named '%.*s'.", what, (int)name->n, name->p);
    return b;
}

/* Filters call filters (map, select): the depth counts here, so that they cannot nest without end. */
struct jval jcall_filter(struct jrt *rt, const struct jstr *name, struct jval on, const struct jargs *args)
{
    jrt_enter(rt);
    struct jval v = jbuiltin_call(rt, named(rt, &jbuiltin_filters, "filter", name), on, args);
    jrt_leave(rt);
    return v;
}

bool jcall_test(struct jrt *rt, const struct jstr *name, struct jval on, const struct jargs *args)
{
    return jval_truth(jbuiltin_call(rt, named(rt, &jbuiltin_tests, "test", name), on, args));
}
