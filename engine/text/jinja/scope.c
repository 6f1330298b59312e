#include "scope.h"

/* A function of the generated program: the template, a macro, a recursive loop. Its activation has n_slot slots. */
struct func {
    int depth;
    uint16_t n_slot;
};

struct symbol {
    struct jstr *name;
    uint16_t slot;
    uint8_t how; /* of struct jload */
    bool known;  /* has been mentioned; else only its slot is reserved */
    bool stored;
    struct jslot from; /* JLOAD_ALIAS; hops are filled in at the end */
    int from_depth;
};

/* The variables of one block. */
struct scope {
    struct jrt *rt;
    struct scope *up;
    struct func *func;
    struct symbol *sym;
    size_t n, cap;
    bool in_for;
    bool soft; /* directly in an if: unknown filters fail only when they run */
};

static struct scope scope_inner(struct scope *up, struct func *func)
{
    return (struct scope){.rt = up->rt, .up = up, .func = func ? func : up->func, .in_for = up->in_for};
}

static struct symbol *find_here(struct scope *sc, const struct jstr *name)
{
    for (size_t i = 0; i < sc->n; i++)
        if (jstr_eq(sc->sym[i].name, name))
            return &sc->sym[i];
    return NULL;
}

/* The nearest known symbol of that name, from sc outwards, and the scope it is in. */
static struct symbol *find(struct scope *sc, const struct jstr *name, struct scope **in)
{
    for (; sc; sc = sc->up) {
        struct symbol *s = find_here(sc, name);
        if (s && s->known)
            return *in = sc, s;
    }
    return NULL;
}

static uint16_t new_slot(struct jrt *rt, struct func *f)
{
    if (f->n_slot == UINT16_MAX)
        jrt_fail(rt, "the template has too many variables");
    return f->n_slot++;
}

static struct symbol *define(struct scope *sc, struct jstr *name, int how)
{
    struct symbol *s = find_here(sc, name);
    if (!s) {
        if (sc->n == sc->cap) {
            size_t cap = sc->cap ? sc->cap * 2 : 8;
            struct symbol *more = jrt_array(sc->rt, cap, sizeof *more);
            if (sc->n)
                memcpy(more, sc->sym, sc->n * sizeof *more);
            sc->sym = more;
            sc->cap = cap;
        }
        s = &sc->sym[sc->n++];
        *s = (struct symbol){.name = name, .slot = new_slot(sc->rt, sc->func)};
    }
    s->known = true;
    s->how = (uint8_t)how;
    return s;
}

static void declare_param(struct scope *sc, struct jstr *name)
{
    define(sc, name, JLOAD_PARAM)->stored = true;
}

static void load(struct scope *sc, struct jstr *name)
{
    struct scope *in;
    if (!find(sc, name, &in))
        define(sc, name, JLOAD_LOOKUP);
}

/* A variable of sc that starts as a copy of the outer one, or as `otherwise` if there is none outside. */
static void define_from_outside(struct scope *sc, struct jstr *name, int otherwise)
{
    struct scope *in;
    const struct symbol *outer = sc->up ? find(sc->up, name, &in) : NULL;
    struct symbol *s = define(sc, name, outer ? JLOAD_ALIAS : otherwise);
    if (!outer)
        return;
    s->from.i = outer->slot;
    s->from_depth = in->func->depth;
}

static void store(struct scope *sc, struct jstr *name)
{
    struct symbol *s = find_here(sc, name);
    if (!s || !s->known)
        define_from_outside(sc, name, JLOAD_UNSET);
    find_here(sc, name)->stored = true;
}

/* First pass over a block: which names it mentions, in order. Inner blocks are not entered. */

static void scan(struct scope *sc, const struct jnode *n);

static void scan_block(struct scope *sc, const struct jblock *b)
{
    for (size_t i = 0; i < b->n; i++)
        scan(sc, b->stmt[i]);
}

static void scan_args(struct scope *sc, const struct jcall_args *a)
{
    for (size_t i = 0; i < a->n_pos; i++)
        scan(sc, a->pos[i]);
    for (size_t i = 0; i < a->n_kw; i++)
        scan(sc, a->kw[i]);
    scan(sc, a->star);
    scan(sc, a->star_star);
}

static void scan_target(struct scope *sc, const struct jnode *n, bool as_param)
{
    if (n->kind == J_NODE_TUPLE)
        for (size_t i = 0; i < n->seq.n; i++)
            scan_target(sc, n->seq.item[i], as_param);
    else if (n->kind == J_NODE_NSREF)
        load(sc, n->nsref.obj.id);
    else if (as_param)
        declare_param(sc, n->name.id);
    else
        store(sc, n->name.id);
}

/* What the branches of an `if` know: each starts from what was known before it. */
struct branches {
    struct scope *sc;
    struct symbol *before;
    size_t n_before;
    bool *stored; /* by any branch, for each symbol */
    size_t n_stored;
};

static void branches_begin(struct branches *br, struct scope *sc)
{
    *br = (struct branches){.sc = sc, .n_before = sc->n};
    br->before = jrt_array(sc->rt, sc->n + 1, sizeof *br->before);
    if (sc->n)
        memcpy(br->before, sc->sym, sc->n * sizeof *sc->sym);
}

/* Forgets what the branch that ends here made known, but remembers what it stored. */
static void branches_next(struct branches *br)
{
    struct scope *sc = br->sc;
    bool *stored = jrt_array(sc->rt, sc->n + 1, sizeof *stored);
    if (br->n_stored)
        memcpy(stored, br->stored, br->n_stored * sizeof *stored);
    for (size_t i = 0; i < sc->n; i++) {
        stored[i] = stored[i] || (sc->sym[i].known && sc->sym[i].stored);
        if (i < br->n_before)
            sc->sym[i] = br->before[i];
        else
            sc->sym[i].known = sc->sym[i].stored = false;
    }
    br->stored = stored;
    br->n_stored = sc->n;
}

/* After the `if`: what only some branch set starts as the variable outside; what was only read is looked up. */
static void branches_end(struct branches *br, const bool *mentioned)
{
    struct scope *sc = br->sc;
    for (size_t i = 0; i < sc->n; i++) {
        struct symbol *s = &sc->sym[i];
        if (!mentioned[i])
            continue;
        bool was_stored = i < br->n_before && br->before[i].stored;
        if (br->stored[i] && !was_stored)
            define_from_outside(sc, s->name, JLOAD_LOOKUP);
        else if (!s->known)
            define(sc, s->name, JLOAD_LOOKUP);
        sc->sym[i].stored = br->stored[i];
    }
}

static void note_mentioned(struct scope *sc, bool **mentioned, size_t *n)
{
    bool *more = jrt_array(sc->rt, sc->n + 1, sizeof *more);
    if (*n)
        memcpy(more, *mentioned, *n * sizeof *more);
    for (size_t i = 0; i < sc->n; i++)
        more[i] = more[i] || sc->sym[i].known;
    *mentioned = more;
    *n = sc->n;
}

static void scan_if(struct scope *sc, const struct jnode *n)
{
    struct branches br;
    bool *mentioned = NULL;
    size_t n_mentioned = 0;
    scan(sc, n->cond_stmt.test);
    branches_begin(&br, sc);
    const struct jblock *branch[] = {&n->cond_stmt.body, &n->cond_stmt.elif, &n->cond_stmt.orelse};
    for (int i = 0; i < 3; i++) {
        scan_block(sc, branch[i]);
        note_mentioned(sc, &mentioned, &n_mentioned);
        branches_next(&br);
    }
    branches_end(&br, mentioned);
}

static void scan(struct scope *sc, const struct jnode *n)
{
    if (!n)
        return;
    switch ((enum jnode_kind)n->kind) {
    case J_NODE_CONST:
    case J_NODE_BREAK:
    case J_NODE_CONTINUE:
    case J_NODE_SCOPE:
        break;
    case J_NODE_NAME:
        load(sc, n->name.id);
        break;
    case J_NODE_NSREF:
        load(sc, n->nsref.obj.id);
        break;
    case J_NODE_TUPLE:
    case J_NODE_LIST:
    case J_NODE_DICT:
    case J_NODE_CONCAT:
    case J_NODE_COMPARE:
    case J_NODE_OUTPUT:
        for (size_t i = 0; i < n->seq.n; i++)
            scan(sc, n->seq.item[i]);
        break;
    case J_NODE_BINARY:
    case J_NODE_UNARY:
    case J_NODE_AND:
    case J_NODE_OR:
        scan(sc, n->bin.left);
        scan(sc, n->bin.right);
        break;
    case J_NODE_COND:
        scan(sc, n->cond.test);
        scan(sc, n->cond.yes);
        scan(sc, n->cond.no);
        break;
    case J_NODE_GETATTR:
        scan(sc, n->getattr.obj);
        break;
    case J_NODE_GETITEM:
        scan(sc, n->getitem.obj);
        scan(sc, n->getitem.sub);
        break;
    case J_NODE_SLICE:
        scan(sc, n->slice.start);
        scan(sc, n->slice.stop);
        scan(sc, n->slice.step);
        break;
    case J_NODE_CALL:
    case J_NODE_FILTER:
    case J_NODE_TEST:
        scan(sc, n->apply.on);
        scan_args(sc, &n->apply.args);
        break;
    case J_NODE_IF:
        scan_if(sc, n);
        break;
    case J_NODE_FOR:
        scan(sc, n->loop.iter);
        break;
    case J_NODE_SET:
        scan(sc, n->set.value);
        scan_target(sc, n->set.target, false);
        break;
    case J_NODE_SETBLOCK:
        scan_target(sc, n->set.target, false);
        break;
    case J_NODE_MACRO:
        store(sc, n->macro.name);
        break;
    case J_NODE_CALLBLOCK:
        scan(sc, n->callblock.call);
        break;
    case J_NODE_FILTERBLOCK:
        scan(sc, n->scope.filter);
        break;
    case J_NODE_WITH:
        for (size_t i = 0; i < n->scope.n_target; i++)
            scan(sc, n->scope.value[i]);
        break;
    }
}

/* Second pass: names get their slots, inner blocks their scopes. */

static void resolve(struct scope *sc, struct jnode *n);

static void resolve_block(struct scope *sc, const struct jblock *b)
{
    for (size_t i = 0; i < b->n; i++)
        resolve(sc, b->stmt[i]);
}

static void resolve_name(struct scope *sc, struct jnode_name *name)
{
    struct scope *in = NULL;
    const struct symbol *s = find(sc, name->id, &in);
    if (!s) { /* only the arguments of a block set's filter, which the first pass leaves out */
        load(sc, name->id);
        s = find(sc, name->id, &in);
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
    return find_here(sc, &s)->slot;
}

static void resolve_args(struct scope *sc, struct jcall_args *a)
{
    for (size_t i = 0; i < a->n_pos; i++)
        resolve(sc, a->pos[i]);
    for (size_t i = 0; i < a->n_kw; i++)
        resolve(sc, a->kw[i]);
    resolve(sc, a->star);
    resolve(sc, a->star_star);
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

    struct scope body = scope_inner(sc, func);
    body.in_for = true;
    f->uses_loop = f->recursive || jscope_mentions(&f->body, "loop");
    if (f->uses_loop)
        declare_param(&body, jstr_ref(sc->rt, "loop", 4));
    scan_target(&body, f->target, true);
    scan_block(&body, &f->body);
    f->loop_slot = f->uses_loop ? slot_of(&body, "loop") : 0;
    resolve_target(&body, f->target);
    resolve_block(&body, &f->body);

    if (f->test) {
        struct scope test = scope_inner(sc, func);
        f->test_target = copy_target(sc->rt, f->target);
        scan_target(&test, f->test_target, true);
        scan(&test, f->test);
        resolve_target(&test, f->test_target);
        resolve(&test, f->test);
        f->test_frame = frame_of(&test);
    }
    struct scope orelse = scope_inner(sc, func);
    orelse.in_for = true;
    scan_block(&orelse, &f->orelse);
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
    declare_param(body, jstr_ref(body->rt, name, strlen(name)));
    *slot = slot_of(body, name);
    return true;
}

static void resolve_macro_body(struct scope *sc, struct jnode *n)
{
    struct jnode_macro *m = &n->macro;
    struct func own = {.depth = sc->func->depth + 1};
    struct scope body = scope_inner(sc, &own);
    for (size_t i = 0; i < m->n_param; i++) {
        m->has_caller_param = m->has_caller_param || jstr_is(m->param[i]->name.id, "caller");
        declare_param(&body, m->param[i]->name.id);
    }
    for (size_t i = 0; i < m->n_fallback; i++)
        scan(&body, m->fallback[i]);
    m->takes_caller = declare_special(&body, m, "caller", &m->caller_slot);
    m->takes_kwargs = declare_special(&body, m, "kwargs", &m->kwargs_slot);
    m->takes_varargs = declare_special(&body, m, "varargs", &m->varargs_slot);
    scan_block(&body, &m->body);
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
    struct scope body = scope_inner(sc, NULL);
    scan_block(&body, &n->set.body);
    resolve_block(&body, &n->set.body);
    resolve(&body, n->set.value);
    n->set.frame = frame_of(&body);
    resolve_target(sc, n->set.target);
}

static void resolve_inner_block(struct scope *sc, struct jnode *n)
{
    struct scope body = scope_inner(sc, NULL);
    for (size_t i = 0; i < n->scope.n_target; i++) {
        resolve(sc, n->scope.value[i]);
        scan_target(&body, n->scope.target[i], true);
    }
    scan_block(&body, &n->scope.body);
    scan(&body, n->scope.filter);
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

static void resolve(struct scope *sc, struct jnode *n)
{
    if (!n)
        return;
    switch ((enum jnode_kind)n->kind) {
    case J_NODE_CONST:
    case J_NODE_BREAK:
    case J_NODE_CONTINUE:
        break;
    case J_NODE_NAME:
        resolve_name(sc, &n->name);
        break;
    case J_NODE_NSREF:
        resolve_name(sc, &n->nsref.obj);
        break;
    case J_NODE_TUPLE:
    case J_NODE_LIST:
    case J_NODE_DICT:
    case J_NODE_CONCAT:
    case J_NODE_COMPARE:
    case J_NODE_OUTPUT:
        for (size_t i = 0; i < n->seq.n; i++)
            resolve(sc, n->seq.item[i]);
        break;
    case J_NODE_BINARY:
    case J_NODE_UNARY:
    case J_NODE_AND:
    case J_NODE_OR:
        resolve(sc, n->bin.left);
        resolve(sc, n->bin.right);
        break;
    case J_NODE_COND:
        resolve_cond(sc, n);
        break;
    case J_NODE_GETATTR:
        resolve(sc, n->getattr.obj);
        break;
    case J_NODE_GETITEM:
        resolve(sc, n->getitem.obj);
        resolve(sc, n->getitem.sub);
        break;
    case J_NODE_SLICE:
        resolve(sc, n->slice.start);
        resolve(sc, n->slice.stop);
        resolve(sc, n->slice.step);
        break;
    case J_NODE_FILTER:
    case J_NODE_TEST:
        resolve_builtin(sc, n);
        /* fall through */
    case J_NODE_CALL:
        resolve(sc, n->apply.on);
        resolve_args(sc, &n->apply.args);
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
    }
}

void jscope_resolve(struct jrt *rt, struct jtree *t)
{
    struct func root_func = {0};
    struct scope root = {.rt = rt, .func = &root_func};
    scan_block(&root, &t->body);
    resolve_block(&root, &t->body);
    t->frame = frame_of(&root);
    t->n_slot = root_func.n_slot;
}
