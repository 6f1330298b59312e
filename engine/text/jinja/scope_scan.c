/* The first pass over a block: its symbols, and how each starts out. */
#include "scope_impl.h"

struct scope jscope_inner(struct scope *up, struct func *func)
{
    return (struct scope){.rt = up->rt, .up = up, .func = func ? func : up->func, .in_for = up->in_for};
}

struct symbol *jscope_find_here(struct scope *sc, const struct jstr *name)
{
    for (size_t i = 0; i < sc->n; i++)
        if (jstr_eq(sc->sym[i].name, name))
            return &sc->sym[i];
    return NULL;
}

struct symbol *jscope_find(struct scope *sc, const struct jstr *name, struct scope **in)
{
    for (; sc; sc = sc->up) {
        struct symbol *s = jscope_find_here(sc, name);
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
    struct symbol *s = jscope_find_here(sc, name);
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

void jscope_declare_param(struct scope *sc, struct jstr *name)
{
    define(sc, name, JLOAD_PARAM)->stored = true;
}

void jscope_load(struct scope *sc, struct jstr *name)
{
    struct scope *in;
    if (!jscope_find(sc, name, &in))
        define(sc, name, JLOAD_LOOKUP);
}

/* A variable of sc that starts as a copy of the outer one, or as `otherwise` if there is none outside. */
static void define_from_outside(struct scope *sc, struct jstr *name, int otherwise)
{
    struct scope *in;
    const struct symbol *outer = sc->up ? jscope_find(sc->up, name, &in) : NULL;
    struct symbol *s = define(sc, name, outer ? JLOAD_ALIAS : otherwise);
    if (!outer)
        return;
    s->from.i = outer->slot;
    s->from_depth = in->func->depth;
}

static void store(struct scope *sc, struct jstr *name)
{
    struct symbol *s = jscope_find_here(sc, name);
    if (!s || !s->known)
        define_from_outside(sc, name, JLOAD_UNSET);
    jscope_find_here(sc, name)->stored = true;
}

void jscope_scan_block(struct scope *sc, const struct jblock *b)
{
    for (size_t i = 0; i < b->n; i++)
        jscope_scan(sc, b->stmt[i]);
}

void jscope_scan_target(struct scope *sc, const struct jnode *n, bool as_param)
{
    if (n->kind == J_NODE_TUPLE)
        for (size_t i = 0; i < n->seq.n; i++)
            jscope_scan_target(sc, n->seq.item[i], as_param);
    else if (n->kind == J_NODE_NSREF)
        jscope_load(sc, n->nsref.obj.id);
    else if (as_param)
        jscope_declare_param(sc, n->name.id);
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
    jscope_scan(sc, n->cond_stmt.test);
    branches_begin(&br, sc);
    const struct jblock *branch[] = {&n->cond_stmt.body, &n->cond_stmt.elif, &n->cond_stmt.orelse};
    for (int i = 0; i < 3; i++) {
        jscope_scan_block(sc, branch[i]);
        note_mentioned(sc, &mentioned, &n_mentioned);
        branches_next(&br);
    }
    branches_end(&br, mentioned);
}

static void scan_child(void *arg, struct jnode *child)
{
    jscope_scan(arg, child);
}

void jscope_scan(struct scope *sc, const struct jnode *n)
{
    if (!n)
        return;
    switch ((enum jnode_kind)n->kind) {
    case J_NODE_NAME:
        jscope_load(sc, n->name.id);
        break;
    case J_NODE_NSREF:
        jscope_load(sc, n->nsref.obj.id);
        break;
    case J_NODE_IF:
        scan_if(sc, n);
        break;
    case J_NODE_FOR:
        jscope_scan(sc, n->loop.iter);
        break;
    case J_NODE_SET:
        jscope_scan(sc, n->set.value);
        jscope_scan_target(sc, n->set.target, false);
        break;
    case J_NODE_SETBLOCK:
        jscope_scan_target(sc, n->set.target, false);
        break;
    case J_NODE_MACRO:
        store(sc, n->macro.name);
        break;
    case J_NODE_CALLBLOCK:
        jscope_scan(sc, n->callblock.call);
        break;
    case J_NODE_FILTERBLOCK:
        jscope_scan(sc, n->scope.filter);
        break;
    case J_NODE_WITH:
        for (size_t i = 0; i < n->scope.n_target; i++)
            jscope_scan(sc, n->scope.value[i]);
        break;
    default:
        jnode_children(n, scan_child, sc);
    }
}
