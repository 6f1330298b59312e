/* The syntax tree of a compiled template. Built by parse_*.c, completed by scope.c (variable slots, filters), then
 * immutable. Lives in the template's arena. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_AST_H
#define GALLEY_JINJA_AST_H

#include "builtin.h"
#include "ops.h"

enum jnode_kind {
    /* expressions */
    J_NODE_CONST,
    J_NODE_NAME,
    J_NODE_NSREF, /* ns.attr as a target of set */
    J_NODE_TUPLE,
    J_NODE_LIST,
    J_NODE_DICT, /* item: key, value, key, value, ... */
    J_NODE_CONCAT,
    J_NODE_BINARY,
    J_NODE_UNARY, /* right is unused */
    J_NODE_AND,
    J_NODE_OR,
    J_NODE_COMPARE, /* item[0] op[0] item[1] op[1] item[2] ... */
    J_NODE_COND,
    J_NODE_GETATTR,
    J_NODE_GETITEM,
    J_NODE_SLICE,
    J_NODE_CALL,
    J_NODE_FILTER,
    J_NODE_TEST,
    /* statements */
    J_NODE_OUTPUT, /* seq */
    J_NODE_IF,
    J_NODE_FOR,
    J_NODE_SET,
    J_NODE_SETBLOCK,
    J_NODE_MACRO,
    J_NODE_CALLBLOCK,
    J_NODE_FILTERBLOCK,
    J_NODE_WITH,
    J_NODE_SCOPE, /* a body with variables of its own: {% generation %} */
    J_NODE_BREAK,
    J_NODE_CONTINUE,
};

/* Where a variable lives: `hops` activations out, then slot i. */
struct jslot {
    uint16_t hops, i;
};

/* How a variable of a block starts out each time the block is entered. */
struct jload {
    enum { JLOAD_PARAM, JLOAD_LOOKUP, JLOAD_ALIAS, JLOAD_UNSET } how;
    uint16_t slot;     /* in the activation that runs the block */
    struct jslot from; /* JLOAD_ALIAS: the outer variable it copies */
    struct jstr *name; /* JLOAD_LOOKUP: among the caller's variables and the globals */
};

struct jframe {
    struct jload *load;
    size_t n;
};

struct jblock {
    struct jnode **stmt;
    size_t n;
};

struct jcall_args {
    struct jnode **pos;
    size_t n_pos;
    struct jstr **kw_name;
    struct jnode **kw;
    size_t n_kw;
    struct jnode *star, *star_star; /* f(*star, **star_star), or NULL */
};

struct jnode_name {
    struct jstr *id;
    struct jslot slot;
    struct jundef undef; /* what an unset variable reads as */
};

struct jnode_seq {
    struct jnode **item;
    uint8_t *op; /* J_NODE_COMPARE: enum jop */
    size_t n;
};

struct jnode_apply {  /* call, filter, test */
    struct jnode *on; /* the callee, or the filter's input (NULL: the text of the filter block) */
    struct jstr *name;
    const struct jbuiltin *builtin; /* NULL: unknown, which matters only if it is reached */
    struct jcall_args args;
};

struct jnode_for {
    struct jnode *target, *iter;
    struct jnode *test,
        *test_target; /* {% for x in y if test %}, or NULL; the target once more, with slots of its own */
    struct jblock body, orelse;
    struct jframe frame, test_frame, else_frame;
    bool recursive, uses_loop;
    uint16_t loop_slot;
    uint16_t n_slot; /* of the activation of a recursive loop */
};

struct jnode_macro {
    struct jstr *name;    /* NULL for the body of a call block */
    struct jslot slot;    /* of the name */
    struct jnode **param; /* J_NODE_NAME */
    size_t n_param;
    struct jnode **fallback; /* defaults of the last n_fallback parameters */
    size_t n_fallback;
    struct jblock body;
    struct jframe frame;
    bool takes_caller, takes_kwargs, takes_varargs; /* the body mentions them, and no parameter has that name */
    uint16_t caller_slot, kwargs_slot, varargs_slot;
    uint16_t n_slot;
};

struct jnode {
    uint8_t kind;    /* enum jnode_kind */
    uint8_t op;      /* enum jop of J_NODE_BINARY, J_NODE_UNARY */
    uint16_t height; /* of the tree below: bounds every recursion over it */
    int line;
    union {
        struct jval value; /* J_NODE_CONST */
        struct jnode_name name;
        struct {
            struct jnode_name obj;
            struct jstr *attr;
        } nsref;
        struct jnode_seq seq; /* tuple, list, dict, concat, compare, output */
        struct {
            struct jnode *left, *right;
        } bin;
        struct {
            struct jnode *test, *yes, *no; /* no may be NULL */
        } cond;
        struct {
            struct jnode *obj;
            struct jstr *attr;
        } getattr;
        struct {
            struct jnode *obj, *sub;
        } getitem;
        struct {
            struct jnode *start, *stop, *step; /* NULL: not given */
        } slice;
        struct jnode_apply apply;
        struct {
            struct jnode *test;
            struct jblock body, orelse;
            struct jblock elif; /* J_NODE_IF each, with empty elif and orelse */
        } cond_stmt;
        struct jnode_for loop;
        struct {
            struct jnode *target, *value; /* value: of set; the filter of a block set, or NULL */
            struct jblock body;
            struct jframe frame;
        } set;
        struct jnode_macro macro;
        struct {
            struct jnode *call, *macro;
        } callblock;
        struct {
            struct jnode *filter;           /* filter block; NULL for a plain scope */
            struct jnode **target, **value; /* with */
            size_t n_target;
            struct jblock body;
            struct jframe frame;
        } scope; /* filter block, with, generation */
    };
};

/* Visits what an expression is made of, in the order of evaluation; a statement's children are not alike, and for one
 * nothing is done (but J_NODE_OUTPUT is a list of expressions). NULL children are left out. */
void jnode_children(const struct jnode *n, void (*visit)(void *arg, struct jnode *child), void *arg);

struct jtree {
    struct jblock body;
    struct jframe frame;
    uint16_t n_slot;
};

#endif
