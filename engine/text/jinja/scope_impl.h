/* Between scope.c and scope_scan.c: the symbols of a block. */
#ifndef GALLEY_JINJA_SCOPE_IMPL_H
#define GALLEY_JINJA_SCOPE_IMPL_H

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

struct scope jscope_inner(struct scope *up, struct func *func); /* func NULL: the same function */
struct symbol *jscope_find_here(struct scope *sc, const struct jstr *name);
/* The nearest known symbol of that name, from sc outwards, and the scope it is in. */
struct symbol *jscope_find(struct scope *sc, const struct jstr *name, struct scope **in);
void jscope_declare_param(struct scope *sc, struct jstr *name);
void jscope_load(struct scope *sc, struct jstr *name);

/* Which names a block mentions, in order. Inner blocks are not entered. NULL is legal. */
void jscope_scan(struct scope *sc, const struct jnode *n);
void jscope_scan_block(struct scope *sc, const struct jblock *b);
void jscope_scan_target(struct scope *sc, const struct jnode *n, bool as_param);

#endif
