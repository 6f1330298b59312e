/* Stochastic beam search (RSD-S, section 6 of papers/autoregressive.md): draws whole paths without replacement, depth
 * by depth, so that a fixed number of nodes goes where the draft's mass is. Private to engine/: for drafters whose
 * trees are then of DRAFT_WOR.
 *
 * Exact because how many siblings of a node are kept depends on their values, and these are independent of which token
 * the next sibling would be. */
#ifndef GALLEY_BEAM_H
#define GALLEY_BEAM_H

#include <stdint.h>

#include "chance.h"

struct beam_item { /* owner: the caller. The beam's root has phi = psi = 0 */
    double phi;    /* ln q of the path to here */
    double psi;    /* the same, perturbed: the largest of a depth are a draw without replacement of whole paths */
    int32_t parent, edge; /* the node that was expanded, as the caller numbers it, and the list index below it */
};

/* Expands one node: appends an item for each token that q can draw to item[n_item ..] (room for n_list more) and
 * returns the new count. q: [n_list], sums to 1, nearly. */
int32_t beam_expand(struct beam_item from, int32_t parent, const double *q, int32_t n_list, const struct chance *c,
                    struct beam_item *item, int32_t n_item);

/* Moves the at most `width` items of largest psi to the front, in decreasing order, and returns how many; the others
 * are lost. Siblings then stand in the order in which they count as drawn; those not kept were not drawn. */
int32_t beam_keep(struct beam_item *item, int32_t n_item, int32_t width);

#endif
