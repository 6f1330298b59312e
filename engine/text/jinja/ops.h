/* Operators: comparison, arithmetic, membership, sorting. For engine/text/jinja only. */
#ifndef GALLEY_JINJA_OPS_H
#define GALLEY_JINJA_OPS_H

#include "value.h"

enum jop {
    JOP_ADD,
    JOP_SUB,
    JOP_MUL,
    JOP_DIV,
    JOP_FLOORDIV,
    JOP_MOD,
    JOP_POW,
    JOP_AND,
    JOP_OR,
    JOP_NOT,
    JOP_NEG,
    JOP_POS,
    JOP_EQ,
    JOP_NE,
    JOP_LT,
    JOP_LE,
    JOP_GT,
    JOP_GE,
    JOP_IN,
    JOP_NOTIN,
};

bool jops_eq(struct jrt *rt, struct jval a, struct jval b);
bool jops_compare(struct jrt *rt, enum jop op, struct jval a, struct jval b);       /* JOP_EQ .. JOP_NOTIN */
bool jops_contains(struct jrt *rt, struct jval box, struct jval item);              /* item in box */
struct jval jops_binary(struct jrt *rt, enum jop op, struct jval a, struct jval b); /* JOP_ADD .. JOP_POW */
struct jval jops_negate(struct jrt *rt, struct jval v);
struct jval jops_plus(struct jrt *rt, struct jval v);
struct jval jops_concat_str(struct jrt *rt, struct jval a, struct jval b); /* a + b of two strings, Markup included */

/* Sorts v[0..n) by key[0..n), stably, with Python's `<`; `key` is sorted along, and may be v itself. */
void jops_sort(struct jrt *rt, struct jval *v, struct jval *key, size_t n, bool reverse);

#endif
