#include "eval.h"
#include "text.h"

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

static enum flow exec_block(struct jrt *rt, const struct jblock *b);

static struct jval lookup(struct jrt *rt, const struct jstr *name)
{
    const struct jval *v = jdict_get_str(rt, rt->vars, name);
    if (v)
        return *v;
    const struct jbuiltin *fn = jbuiltin_find(&jbuiltin_globals, name);
    return fn ? (struct jval){.kind = J_FUNC, .fn = fn} : jval_missing();
}

void jeval_enter(struct jrt *rt, const struct jframe *f)
{
    for (size_t i = 0; i < f->n; i++) {
        const struct jload *l = &f->load[i];
        struct jval *slot = &rt->act->slot[l->slot];
        switch (l->how) {
        case JLOAD_PARAM:
            break;
        case JLOAD_LOOKUP:
            *slot = lookup(rt, l->name);
            break;
        case JLOAD_ALIAS:
            *slot = *jeval_slot(rt, l->from);
            break;
        case JLOAD_UNSET:
            *slot = jval_missing();
            break;
        }
    }
}

void jeval_exit(struct jrt *rt, const struct jframe *f)
{
    for (size_t i = 0; i < f->n; i++)
        rt->act->slot[f->load[i].slot] = jval_missing();
}

/* A new activation, which becomes the current one; returns the previous. */
static struct jact *push(struct jrt *rt, struct jact *up, size_t n_slot)
{
    struct jact *caller = rt->act, *a = jrt_alloc(rt, sizeof *a + n_slot * sizeof *a->slot);
    a->up = up;
    rt->act = a;
    return caller;
}

static void write_out(struct jrt *rt, struct jval v)
{
    size_t before = rt->out->n;
    jtext_str(rt, rt->out, v);
    rt->n_out_total += rt->out->n - before;
    if (rt->n_out_total > rt->limit.output_bytes)
        jrt_limit(rt, "the template writes too much (limit: %zu bytes)", rt->limit.output_bytes);
}

/* What filter and call blocks produce is joined to the text without str(). */
static void write_text(struct jrt *rt, struct jval v)
{
    if (v.kind != J_STR)
        jrt_fail(rt, "expected str instance, %s found", jval_type(v));
    write_out(rt, v);
}

static void exec_output(struct jrt *rt, const struct jnode *n)
{
    for (size_t i = 0; i < n->seq.n; i++)
        write_out(rt, jeval_expr(rt, n->seq.item[i]));
}

static void assign_tuple(struct jrt *rt, const struct jnode *target, struct jval v)
{
    size_t n = target->seq.n;
    if (!jiter_can(v))
        jrt_fail(rt, "cannot unpack non-iterable %s object", jval_type(v));
    const struct jlist *l = jiter_items(rt, v);
    if (l->n < n)
        jrt_fail(rt, "not enough values to unpack (expected %zu, got %zu)", n, l->n);
    if (l->n > n)
        jrt_fail(rt, "too many values to unpack (expected %zu)", n);
    for (size_t i = 0; i < n; i++)
        jeval_assign(rt, target->seq.item[i], l->v[i]);
}

static struct jdict *namespace_of(struct jrt *rt, const struct jnode *nsref)
{
    struct jval ns = *jeval_slot(rt, nsref->nsref.obj.slot);
    if (ns.kind != J_NAMESPACE)
        jrt_fail(rt, "cannot assign attribute on non-namespace object");
    return ns.d;
}

void jeval_assign(struct jrt *rt, const struct jnode *target, struct jval v)
{
    if (target->kind == J_NODE_TUPLE) {
        assign_tuple(rt, target, v);
    } else if (target->kind == J_NODE_NSREF) {
        struct jdict *d = namespace_of(rt, target);
        if (target->nsref.attr->p[0] == '_')
            jrt_fail(rt,
                     "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '%.*s'. "
                     "Please rename the attribute.",
                     (int)target->nsref.attr->n, target->nsref.attr->p);
        jdict_set(rt, d, jval_str(target->nsref.attr), v);
    } else {
        *jeval_slot(rt, target->name.slot) = v;
    }
}

/* jinja2 checks all namespaces before it evaluates what is assigned. */
static void check_namespaces(struct jrt *rt, const struct jnode *target)
{
    if (target->kind == J_NODE_NSREF)
        namespace_of(rt, target);
    else if (target->kind == J_NODE_TUPLE)
        for (size_t i = 0; i < target->seq.n; i++)
            check_namespaces(rt, target->seq.item[i]);
}

static enum flow exec_if(struct jrt *rt, const struct jnode *n)
{
    if (jval_truth(jeval_expr(rt, n->cond_stmt.test)))
        return exec_block(rt, &n->cond_stmt.body);
    for (size_t i = 0; i < n->cond_stmt.elif.n; i++) {
        const struct jnode *branch = n->cond_stmt.elif.stmt[i];
        if (jval_truth(jeval_expr(rt, branch->cond_stmt.test)))
            return exec_block(rt, &branch->cond_stmt.body);
    }
    return exec_block(rt, &n->cond_stmt.orelse);
}

/* {% for x in y if test %}: the elements that pass, as they are asked for. */
struct test_iter {
    struct jiter it;
    struct jiter *from;
    const struct jnode *node;
    struct jact *act;
    bool entered;
};

static bool next_passing(struct jrt *rt, struct jiter *it, struct jval *out)
{
    struct test_iter *t = (struct test_iter *)it;
    const struct jnode_for *f = &t->node->loop;
    struct jact *caller = rt->act;
    bool found = false;
    rt->act = t->act;
    if (!t->entered)
        jeval_enter(rt, &f->test_frame);
    t->entered = true;
    while (!found && jiter_next(rt, t->from, out)) {
        jeval_assign(rt, f->test_target, *out);
        found = jval_truth(jeval_expr(rt, f->test));
    }
    rt->act = caller;
    return found;
}

static struct jval with_test(struct jrt *rt, const struct jnode *n, struct jval iterable)
{
    if (!n->loop.test)
        return iterable;
    struct test_iter *t = jrt_alloc(rt, sizeof *t);
    *t = (struct test_iter){.it.next = next_passing, .from = jiter_open(rt, iterable), .node = n, .act = rt->act};
    return (struct jval){.kind = J_ITER, .it = &t->it};
}

/* The turns of a loop in the current activation. */
static enum flow run_loop(struct jrt *rt, const struct jnode *n, struct jval iterable, struct jact *up, int64_t depth0)
{
    const struct jnode_for *f = &n->loop;
    struct jloop *loop = NULL;
    struct jval item;
    bool no_turn_ended = true;
    iterable = with_test(rt, n, iterable);
    struct jiter *it = jiter_open(rt, iterable);
    if (f->uses_loop) {
        loop = jrt_alloc(rt, sizeof *loop);
        *loop = (struct jloop){.iterable = iterable, .it = it, .index0 = -1, .n = -1, .depth0 = depth0, .up = up};
        loop->node = f->recursive ? n : NULL;
    }
    while (loop ? jloop_next(rt, loop, &item) : jiter_next(rt, it, &item)) {
        rt->line = n->line;
        jeval_assign(rt, f->target, item);
        if (loop)
            rt->act->slot[f->loop_slot] = (struct jval){.kind = J_LOOP, .loop = loop};
        jeval_enter(rt, &f->frame);
        enum flow flow = exec_block(rt, &f->body);
        if (flow == FLOW_BREAK)
            break;
        if (flow == FLOW_ON) /* a turn cut short by `continue` does not keep `else` from running: so in jinja2 */
            no_turn_ended = false;
    }
    jeval_exit(rt, &f->frame);
    if (!no_turn_ended)
        return FLOW_ON;
    jeval_enter(rt, &f->else_frame);
    enum flow flow = exec_block(rt, &f->orelse);
    jeval_exit(rt, &f->else_frame);
    return flow;
}

/* A recursive loop is a function of the iterable, with the text as its value. */
static struct jval run_recursive(struct jrt *rt, const struct jnode *n, struct jval iterable, struct jact *up,
                                 int64_t depth0)
{
    struct jbuf text = {0}, *out = rt->out;
    struct jact *caller = push(rt, up, n->loop.n_slot);
    jrt_enter(rt);
    rt->out = &text;
    run_loop(rt, n, iterable, up, depth0);
    rt->out = out;
    jrt_leave(rt);
    rt->act = caller;
    return jval_of_buf(rt, &text);
}

struct jval jeval_recurse(struct jrt *rt, struct jloop *l, struct jval iterable)
{
    if (!l->node)
        jrt_fail(rt, "The loop must have the 'recursive' marker to be called recursively.");
    return run_recursive(rt, l->node, iterable, l->up, l->depth0 + 1);
}

static enum flow exec_for(struct jrt *rt, const struct jnode *n)
{
    struct jval iterable = jeval_expr(rt, n->loop.iter);
    rt->line = n->line;
    if (!n->loop.recursive)
        return run_loop(rt, n, iterable, NULL, 0);
    write_out(rt, run_recursive(rt, n, iterable, rt->act, 0));
    return FLOW_ON;
}

/* Runs a body with variables of its own, its text captured if `text` is given. */
static enum flow exec_scoped(struct jrt *rt, const struct jblock *body, const struct jframe *f, struct jbuf *text)
{
    struct jbuf *out = rt->out;
    jeval_enter(rt, f);
    if (text)
        rt->out = text;
    enum flow flow = exec_block(rt, body);
    rt->out = out;
    return flow;
}

static enum flow exec_setblock(struct jrt *rt, const struct jnode *n)
{
    struct jbuf text = {0};
    enum flow flow = exec_scoped(rt, &n->set.body, &n->set.frame, &text);
    if (flow != FLOW_ON)
        return flow;
    struct jval v = jval_of_buf(rt, &text);
    if (n->set.value)
        v = jeval_filter(rt, n->set.value, v);
    jeval_exit(rt, &n->set.frame);
    jeval_assign(rt, n->set.target, v);
    return FLOW_ON;
}

static enum flow exec_filterblock(struct jrt *rt, const struct jnode *n)
{
    struct jbuf text = {0};
    enum flow flow = exec_scoped(rt, &n->scope.body, &n->scope.frame, &text);
    if (flow != FLOW_ON)
        return flow;
    write_text(rt, jeval_filter(rt, n->scope.filter, jval_of_buf(rt, &text)));
    jeval_exit(rt, &n->scope.frame);
    return FLOW_ON;
}

static enum flow exec_with(struct jrt *rt, const struct jnode *n)
{
    jeval_enter(rt, &n->scope.frame);
    for (size_t i = 0; i < n->scope.n_target; i++)
        jeval_assign(rt, n->scope.target[i], jeval_expr(rt, n->scope.value[i]));
    enum flow flow = exec_block(rt, &n->scope.body);
    jeval_exit(rt, &n->scope.frame);
    return flow;
}

static struct jval macro_value(struct jrt *rt, const struct jnode *n)
{
    struct jmacro *m = jrt_alloc(rt, sizeof *m);
    *m = (struct jmacro){.name = n->macro.name, .node = n, .up = rt->act};
    return (struct jval){.kind = J_MACRO, .m = m};
}

static void exec_callblock(struct jrt *rt, const struct jnode *n)
{
    const struct jnode *call = n->callblock.call;
    struct jargs args;
    struct jval caller = macro_value(rt, n->callblock.macro), callee = jeval_expr(rt, call->apply.on);
    jeval_args(rt, &call->apply.args, &args);
    /* `caller` stands after the keyword arguments that are written out, before those of **. */
    size_t at = call->apply.args.n_kw;
    struct jkw *kw = jrt_array(rt, args.n_kw + 1, sizeof *kw);
    if (args.n_kw) {
        memcpy(kw, args.kw, at * sizeof *kw);
        memcpy(kw + at + 1, args.kw + at, (args.n_kw - at) * sizeof *kw);
    }
    kw[at] = (struct jkw){jstr_ref(rt, "caller", 6), caller};
    args.kw = kw;
    args.n_kw++;
    rt->line = n->line;
    write_text(rt, jcall(rt, callee, &args));
}

/* Takes the keyword argument out of `args`; J_MISSING if it was not given. */
static struct jval take_kw(struct jargs *args, const struct jstr *name)
{
    for (size_t i = 0; i < args->n_kw; i++) {
        if (!jstr_eq(args->kw[i].name, name))
            continue;
        struct jval v = args->kw[i].v;
        args->n_kw--;
        memmove(args->kw + i, args->kw + i + 1, (args->n_kw - i) * sizeof *args->kw);
        return v;
    }
    return jval_missing();
}

static _Noreturn void unknown_kw(struct jrt *rt, const struct jmacro *m, const struct jargs *args)
{
    const struct jstr *kw = args->kw[0].name;
    struct jbuf name = {0};
    jtext_repr(rt, &name, m->name ? jval_strn(rt, m->name->p, m->name->n) : jval_none());
    for (size_t i = 0; i < args->n_kw; i++)
        if (jstr_is(args->kw[i].name, "caller"))
            jrt_fail(rt,
                     "macro %.*s was invoked with two values for the special caller argument. This is most likely "
                     "a bug.",
                     (int)name.n, name.p);
    jrt_fail(rt, "macro %.*s takes no keyword argument '%.*s'", (int)name.n, name.p, (int)kw->n, kw->p);
}

/* The special variables caller, kwargs and varargs, from what the parameters left over. */
static void bind_special(struct jrt *rt, const struct jmacro *m, const struct jnode_macro *n, struct jargs *rest)
{
    struct jval *slot = rt->act->slot;
    struct jstr caller_name = {.p = "caller", .n = 6};
    if (n->takes_caller) {
        struct jval caller = take_kw(rest, &caller_name);
        slot[n->caller_slot] = jval_absent(caller) ? jundef_hint(rt, "No caller defined") : caller;
    }
    if (n->takes_kwargs) {
        struct jdict *d = jdict_new(rt, rest->n_kw);
        for (size_t i = 0; i < rest->n_kw; i++)
            jdict_set(rt, d, jval_strn(rt, rest->kw[i].name->p, rest->kw[i].name->n), rest->kw[i].v);
        slot[n->kwargs_slot] = jval_dict(d);
    } else if (rest->n_kw) {
        unknown_kw(rt, m, rest);
    }
    size_t n_extra = rest->n_pos > n->n_param ? rest->n_pos - n->n_param : 0;
    if (n->takes_varargs) {
        struct jlist extra = {.v = n_extra ? rest->pos + n->n_param : NULL, .n = n_extra};
        slot[n->varargs_slot] = jval_tuple(jiter_collect(rt, jval_tuple(&extra)));
    } else if (n_extra) {
        struct jbuf name = {0};
        jtext_repr(rt, &name, m->name ? jval_strn(rt, m->name->p, m->name->n) : jval_none());
        jrt_fail(rt, "macro %.*s takes not more than %zu argument(s)", (int)name.n, name.p, n->n_param);
    }
}

static void default_param(struct jrt *rt, const struct jnode_macro *n, size_t i, struct jval *slot)
{
    size_t n_required = n->n_param - n->n_fallback;
    if (i >= n_required) {
        *slot = jeval_expr(rt, n->fallback[i - n_required]);
        return;
    }
    const struct jstr *name = n->param[i]->name.id;
    struct jbuf b = {0};
    jbuf_printf(rt, &b, "parameter '%.*s' was not provided", (int)name->n, name->p);
    jbuf_putc(rt, &b, 0);
    *slot = jundef_hint(rt, b.p);
}

static void bind_params(struct jrt *rt, const struct jmacro *m, const struct jargs *args)
{
    const struct jnode_macro *n = &m->node->macro;
    struct jargs rest = *args;
    if (rest.n_kw) { /* take_kw() changes the array */
        rest.kw = jrt_array(rt, args->n_kw, sizeof *rest.kw);
        memcpy(rest.kw, args->kw, args->n_kw * sizeof *rest.kw);
    }
    for (size_t i = 0; i < n->n_param; i++) {
        struct jval *slot = jeval_slot(rt, n->param[i]->name.slot);
        *slot = i < args->n_pos ? args->pos[i] : take_kw(&rest, n->param[i]->name.id);
    }
    bind_special(rt, m, n, &rest);
    jeval_enter(rt, &n->frame);
    for (size_t i = 0; i < n->n_param; i++) {
        struct jval *slot = jeval_slot(rt, n->param[i]->name.slot);
        if (slot->kind == J_MISSING)
            default_param(rt, n, i, slot);
    }
}

struct jval jeval_call_macro(struct jrt *rt, struct jmacro *m, const struct jargs *args)
{
    const struct jnode_macro *n = &m->node->macro;
    struct jbuf text = {0}, *out = rt->out;
    struct jact *caller = push(rt, m->up, n->n_slot);
    jrt_enter(rt);
    bind_params(rt, m, args);
    rt->out = &text;
    exec_block(rt, &n->body);
    rt->out = out;
    jrt_leave(rt);
    rt->act = caller;
    return jval_of_buf(rt, &text);
}

static enum flow exec(struct jrt *rt, const struct jnode *n)
{
    switch ((enum jnode_kind)n->kind) {
    case J_NODE_OUTPUT:
        exec_output(rt, n);
        return FLOW_ON;
    case J_NODE_IF:
        return exec_if(rt, n);
    case J_NODE_FOR:
        return exec_for(rt, n);
    case J_NODE_SET:
        check_namespaces(rt, n->set.target);
        jeval_assign(rt, n->set.target, jeval_expr(rt, n->set.value));
        return FLOW_ON;
    case J_NODE_SETBLOCK:
        return exec_setblock(rt, n);
    case J_NODE_MACRO:
        *jeval_slot(rt, n->macro.slot) = macro_value(rt, n);
        return FLOW_ON;
    case J_NODE_CALLBLOCK:
        exec_callblock(rt, n);
        return FLOW_ON;
    case J_NODE_FILTERBLOCK:
        return exec_filterblock(rt, n);
    case J_NODE_WITH:
        return exec_with(rt, n);
    case J_NODE_SCOPE:
        return exec_scoped(rt, &n->scope.body, &n->scope.frame, NULL);
    case J_NODE_BREAK:
        return FLOW_BREAK;
    case J_NODE_CONTINUE:
        return FLOW_CONTINUE;
    default:
        BUG_ON(1);
        return FLOW_ON;
    }
}

static enum flow exec_block(struct jrt *rt, const struct jblock *b)
{
    enum flow flow = FLOW_ON;
    jrt_enter(rt);
    for (size_t i = 0; i < b->n && flow == FLOW_ON; i++) {
        jrt_step(rt, 1);
        rt->line = b->stmt[i]->line;
        flow = exec(rt, b->stmt[i]);
    }
    jrt_leave(rt);
    return flow;
}

void jeval_template(struct jrt *rt, const struct jtree *t)
{
    push(rt, NULL, t->n_slot);
    jeval_enter(rt, &t->frame);
    exec_block(rt, &t->body);
}
