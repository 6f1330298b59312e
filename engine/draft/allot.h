/* Which drafted rows a step takes: those with the most expected tokens for what they cost, over all sequences together.
 * As the batch fills, a row costs more of everyone's time and fewer are worth it. Private to engine/. */
#ifndef GALLEY_ALLOT_H
#define GALLEY_ALLOT_H

#include "cost.h"
#include "draft/draft.h"

#define ALLOT_LEAST 1e-3                            /* chance below which a row is not looked at */
enum { ALLOT_MAX_BID = 256, ALLOT_MAX_ROW = 1024 }; /* beyond, nothing is drafted */

struct bid { /* one sequence's draft */
    const struct draft *draft;
    int32_t max;  /* rows it may take at most, <= draft->n */
    int32_t must; /* rows it takes in any case: the request named its drafts, and their number */
    int32_t n;    /* result */
};

/* Shares out at most `budget` rows among n bids, in a step that has n_row rows already and yields n_token tokens for
 * certain, one row for each: the rows up to that number for which expected tokens per second are highest. What the
 * other rows (prompts') take is not counted: it is taken once, and makes no token cheaper to come by later.
 * n <= ALLOT_MAX_BID. */
void draft_allot(struct bid *bid, int32_t n, int32_t budget, int32_t n_row, double n_token,
                 const struct step_cost *cost);

#endif
