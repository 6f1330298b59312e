/* The second pass: names get their slots, inner blocks their scopes. */
#include "scope_impl.h"

static void resolve(struct scope *sc, struct jnode *n);

static void resolve_block(struct scope *sc, const struct jblock *b)
{
    for (size_t i = 0; i < b->n; i++)
        resolve(sc, b->stmt[i]);
}

static void resolve_name(struct scope *sc, struct jnode_name *name)
{
    struct scope *in = NULL;
    const struct symbol *s = jscope_find(sc, name->id, &in);
    if (!s) { /* only the arguments of a block set's filter, which the first pass leaves out */
        jscope_load(sc, name->id);
        s = jscope_find(sc, name->id, &in);
    }
    name->slot = (struct jslot){(uint16_t)(sc->func->depth - in->func->depth), s->slot};
}

/* What to do on entering the block of sc. */
static struct jframe frame_of(struct scope *sc)
{
    struct jframe f = {.load = jrt_array(sc->rt, sc->n + 1, sizeof *f.load)};
    for (size_t i = 0; i < sc->n; i++) {
        const struct symbol *s = &sc->sym[i];
        struct jslot from = {(uint16_t)(sc->func->depth - s->from_depth), s->from.i};
        if (s->known)
            f.load[f.n++] = (struct jload){.how = s->how, .slot = s->slot, .from = from, .name = s->name};
    }
    return f;
}

static uint16_t slot_of(struct scope *sc, const char *name)
{
    struct jstr s = {.p = name, .n = strlen(name)};
    return jscope_find_here(sc, &s)->slot;
}

static void resolve_builtin(struct scope *sc, struct jnode *n)
{
    bool is_filter = n->kind == J_NODE_FILTER;
    n->apply.builtin = jbuiltin_find(is_filter ? &jbuiltin_filters : &jbuiltin_tests, n->apply.name);
    if (n->apply.builtin || sc->soft)
        return;
    sc->rt->line = n->line;
    jrt_fail(sc->rt, "No %s named '%.*s'.", is_filter ? "filter" : "test", (int)n->apply.name->n, n->apply.name->p);
}

static void resolve_target(struct scope *sc, struct jnode *n)
{
    if (n->kind == J_NODE_TUPLE)
        for (size_t i = 0; i < n->seq.n; i++)
            resolve_target(sc, n->seq.item[i]);
    else
        resolve_name(sc, n->kind == J_NODE_NSREF ? &n->nsref.obj : &n->name);
}

static struct jnode *copy_target(struct jrt *rt, const struct jnode *n)
{
    struct jnode *copy = jrt_alloc(rt, sizeof *copy);
    *copy = *n;
    if (n->kind != J_NODE_TUPLE)
        return copy;
    copy->seq.item = jrt_array(rt, n->seq.n + 1, sizeof(struct jnode *));
    for (size_t i = 0; i < n->seq.n; i++)
        copy->seq.item[i] = copy_target(rt, n->seq.item[i]);
    return copy;
}

static void refuse_loop_as_target(struct scope *sc, const struct jnode *n)
{
    if (n->kind == J_NODE_TUPLE)
        for (size_t i = 0; i < n->seq.n; i++)
            refuse_loop_as_target(sc, n->seq.item[i]);
    else if (n->kind == J_NODE_NAME && jstr_is(n->name.id, "loop")) {
        sc->rt->line = n->line;
        jrt_fail(sc->rt, "Can't assign to special loop variable in for-loop target");
    }
}

static void resolve_for(struct scope *sc, struct jnode *n)
{
    struct jnode_for *f = &n->loop;
    struct func own = {.depth = sc->func->depth + 1}, *func = f->recursive ? &own : NULL;
    refuse_loop_as_target(sc, f->target);
    resolve(sc, f->iter);

    struct scope body = jscope_inner(sc, func);
    body.in_for = true;
    f->uses_loop = f->recursive || jscope_mentions(&f->body, "loop");
    if (f->uses_loop)
        jscope_declare_param(&body, jstr_ref(sc->rt, "loop", 4));
    jscope_scan_target(&body, f->target, true);
    jscope_scan_block(&body, &f->body);
    f->loop_slot = f->uses_loop ? slot_of(&body, "loop") : 0;
    resolve_target(&body, f->target);
    resolve_block(&body, &f->body);

    if (f->test) {
        struct scope test = jscope_inner(sc, func);
        f->test_target = copy_target(sc->rt, f->target);
        jscope_scan_target(&test, f->test_target, true);
        jscope_scan(&test, f->test);
        resolve_target(&test, f->test_target);
        resolve(&test, f->test);
        f->test_frame = frame_of(&test);
    }
    struct scope orelse = jscope_inner(sc, func);
    orelse.in_for = true;
    jscope_scan_block(&orelse, &f->orelse);
    resolve_block(&orelse, &f->orelse);
    f->frame = frame_of(&body);
    f->else_frame = frame_of(&orelse);
    f->n_slot = own.n_slot;
}

/* A special variable of a macro, if the body mentions it and no parameter has its name. */
static bool declare_special(struct scope *body, const struct jnode_macro *m, const char *name, uint16_t *slot)
{
    for (size_t i = 0; i < m->n_param; i++)
        if (jstr_is(m->param[i]->name.id, name))
            return false;
    if (!jscope_mentions(&m->body, name))
        return false;
    jscope_declare_param(body, jstr_ref(body->rt, name, strlen(name)));
    *slot = slot_of(body, name);
    return true;
}

static void resolve_macro_body(struct scope *sc, struct jnode *n)
{
    struct jnode_macro *m = &n->macro;
    struct func own = {.depth = sc->func->depth + 1};
    struct scope body = jscope_inner(sc, &own);
    for (size_t i = 0; i < m->n_param; i++)
        jscope_declare_param(&body, m->param[i]->name.id);
    for (size_t i = 0; i < m->n_fallback; i++)
        jscope_scan(&body, m->fallback[i]);
    m->takes_caller = declare_special(&body, m, "caller", &m->caller_slot);
    m->takes_kwargs = declare_special(&body, m, "kwargs", &m->kwargs_slot);
    m->takes_varargs = declare_special(&body, m, "varargs", &m->varargs_slot);
    jscope_scan_block(&body, &m->body);
    for (size_t i = 0; i < m->n_param; i++)
        resolve(&body, m->param[i]);
    for (size_t i = 0; i < m->n_fallback; i++)
        resolve(&body, m->fallback[i]);
    resolve_block(&body, &m->body);
    m->frame = frame_of(&body);
    m->n_slot = own.n_slot;
}

static void resolve_macro(struct scope *sc, struct jnode *n)
{
    struct jnode_name name = {.id = n->macro.name};
    resolve_name(sc, &name);
    n->macro.slot = name.slot;
    resolve_macro_body(sc, n);
}

static void resolve_setblock(struct scope *sc, struct jnode *n)
{
    if (sc->in_for)
        refuse_loop_as_target(sc, n->set.target);
    struct scope body = jscope_inner(sc, NULL);
    jscope_scan_block(&body, &n->set.body);
    resolve_block(&body, &n->set.body);
    resolve(&body, n->set.value);
    n->set.frame = frame_of(&body);
    resolve_target(sc, n->set.target);
}

static void resolve_inner_block(struct scope *sc, struct jnode *n)
{
    struct scope body = jscope_inner(sc, NULL);
    for (size_t i = 0; i < n->scope.n_target; i++) {
        resolve(sc, n->scope.value[i]);
        jscope_scan_target(&body, n->scope.target[i], true);
    }
    jscope_scan_block(&body, &n->scope.body);
    jscope_scan(&body, n->scope.filter);
    for (size_t i = 0; i < n->scope.n_target; i++)
        resolve_target(&body, n->scope.target[i]);
    resolve_block(&body, &n->scope.body);
    resolve(&body, n->scope.filter);
    n->scope.frame = frame_of(&body);
}

static void resolve_if(struct scope *sc, struct jnode *n)
{
    bool soft = sc->soft;
    sc->soft = true;
    resolve(sc, n->cond_stmt.test);
    resolve_block(sc, &n->cond_stmt.body);
    resolve_block(sc, &n->cond_stmt.elif);
    resolve_block(sc, &n->cond_stmt.orelse);
    sc->soft = soft;
}

static void resolve_cond(struct scope *sc, struct jnode *n)
{
    bool soft = sc->soft;
    sc->soft = true;
    resolve(sc, n->cond.test);
    resolve(sc, n->cond.yes);
    resolve(sc, n->cond.no);
    sc->soft = soft;
}

static void resolve_child(void *arg, struct jnode *child)
{
    resolve(arg, child);
}

static void resolve(struct scope *sc, struct jnode *n)
{
    if (!n)
        return;
    switch ((enum jnode_kind)n->kind) {
    case J_NODE_NAME:
        resolve_name(sc, &n->name);
        break;
    case J_NODE_NSREF:
        resolve_name(sc, &n->nsref.obj);
        break;
    case J_NODE_COND:
        resolve_cond(sc, n);
        break;
    case J_NODE_FILTER:
    case J_NODE_TEST:
        resolve_builtin(sc, n);
        jnode_children(n, resolve_child, sc);
        break;
    case J_NODE_IF:
        resolve_if(sc, n);
        break;
    case J_NODE_FOR:
        resolve_for(sc, n);
        break;
    case J_NODE_SET:
        if (sc->in_for)
            refuse_loop_as_target(sc, n->set.target);
        resolve(sc, n->set.value);
        resolve_target(sc, n->set.target);
        break;
    case J_NODE_SETBLOCK:
        resolve_setblock(sc, n);
        break;
    case J_NODE_MACRO:
        resolve_macro(sc, n);
        break;
    case J_NODE_CALLBLOCK:
        resolve_macro_body(sc, n->callblock.macro);
        resolve(sc, n->callblock.call);
        break;
    case J_NODE_FILTERBLOCK:
    case J_NODE_WITH:
    case J_NODE_SCOPE:
        resolve_inner_block(sc, n);
        break;
    default:
        jnode_children(n, resolve_child, sc);
    }
}

void jscope_resolve(struct jrt *rt, struct jtree *t)
{
    struct func root_func = {0};
    struct scope root = {.rt = rt, .func = &root_func};
    jscope_scan_block(&root, &t->body);
    resolve_block(&root, &t->body);
    t->frame = frame_of(&root);
    t->n_slot = root_func.n_slot;
}
