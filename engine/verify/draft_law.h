/* The laws by which drafts are drawn from q, a sparse law over a list: weights, 0 for what must not be drawn, that need
 * not sum to 1. Private to engine/: drafters draw with these, verify.h knows what to make of it. Sections quoted are
 * those of papers/autoregressive.md. `drawn` receives list indices in the order of drawing; all return how many there
 * are, fewer than asked where q has no more. */
#ifndef GALLEY_DRAFT_LAW_H
#define GALLEY_DRAFT_LAW_H

#include <stdint.h>

#include "chance.h"

/* DRAFT_IID: k independent draws. For k sequences, call it at a node with the number of them that reach it. */
int32_t draft_iid(const double *q, int32_t n_list, int32_t k, const struct chance *c, int16_t *drawn);

/* DRAFT_WOR: k without replacement, the largest of ln q + Gumbel noise in decreasing order (section 6). */
int32_t draft_wor(const double *q, int32_t n_list, int32_t k, const struct chance *c, int16_t *drawn);

/* The same law one draw at a time, where it is decided in between whether to draw again. Appends to drawn[n_drawn], and
 * says what share of q, less the earlier draws, the drawn token had and what share is left. False: nothing was left. */
struct draft_share {
    double taken, left; /* sum to 1 */
};
bool draft_next(const double *q, int32_t n_list, const struct chance *c, int16_t *drawn, int32_t n_drawn,
                struct draft_share *share);

/* DRAFT_GREEDY: the k - 1 likeliest (the first in the list among equals), then one draw from the rest (section 5). */
int32_t draft_greedy(const double *q, int32_t n_list, int32_t k, const struct chance *c, int16_t *drawn);

#endif
