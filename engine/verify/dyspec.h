/* DySpec (section 7 of papers/autoregressive.md): which node of which tree gets the next draft token? The one with the
 * largest value: the draft's estimate of the probability that the next draw there is reached and needed. One heap may
 * hold the nodes of many requests' trees and spend one budget of rows on them all. Private to engine/.
 *
 * Exact because an item is popped, that is, a draw is decided on, before its token is seen. Whoever grows trees must
 * keep to that: budget and depth limits may look at what was drawn, never take a draw back. */
#ifndef GALLEY_DYSPEC_H
#define GALLEY_DYSPEC_H

#include "draft_law.h"

struct dyspec_item {
    double value;
    int32_t tree, node; /* as the caller numbers them: one more draw at this node */
};

struct dyspec { /* owner: the caller. Largest value first; among equals the lowest tree, then the lowest node */
    struct dyspec_item *item; /* [cap] a binary heap */
    int32_t n, cap;           /* a draw takes one item and puts back two: roots + draws are enough */
};

struct dyspec_row { /* what one node drafts from. Owner: the caller */
    const double *q;
    int32_t n_list;
    int16_t *drawn; /* room for one more */
    int32_t n_drawn;
};

/* A tree begins with its root, value 1, or a request's worth. */
void dyspec_push(struct dyspec *d, struct dyspec_item it);
/* NULL: empty. A node whose q is not known yet can stand at the top: then a draft wave has to come first. */
const struct dyspec_item *dyspec_top(const struct dyspec *d);
/* Takes the top item out; no more is drawn there. */
void dyspec_drop(struct dyspec *d);

/* Takes the top item, which stands at `row`, and draws there. Pushes the node's next draw, unless q has no more, and
 * `child`, the node that the drawn token becomes; -1: it takes no draws (too deep). Returns the drawn list index; -1:
 * there was nothing to draw. `c` belongs to the item's tree, so that its draws are the same whatever other trees share
 * the heap. */
int32_t dyspec_draw(struct dyspec *d, struct dyspec_row *row, int32_t child, const struct chance *c);

/* The threshold variant, layer by layer: draws at one node of value `value` while what is left of it is at least
 * `least`. child_value[] gets each new draw's value, for the next layer; returns their number, at most `room`. */
int32_t dyspec_fill(double value, double least, struct dyspec_row *row, int32_t room, double *child_value,
                    const struct chance *c);

#endif
