/* DySpec over a step (autoregressive.md, section 7, note e): the trees of all sequences that asked for it grow from one
 * heap and share one budget of rows, so that a draft goes where it is likeliest to be reached, in whichever tree. A
 * sequence brings as many draws as its `nodes`; any tree may spend them. Private to the waves.
 *
 * Exact, because a draw is decided on before its token is seen: budgets, depths and full trees only look at what was
 * drawn. */
#ifndef GALLEY_DRAFT_HEAP_H
#define GALLEY_DRAFT_HEAP_H

#include "draft/allot.h"
#include "verify/dyspec.h"

struct seq;

struct draft_heap { /* owner: the wave; of one step */
    struct dyspec_item item[ALLOT_MAX_BID + ALLOT_MAX_ROW], ahead[ALLOT_MAX_BID + ALLOT_MAX_ROW];
    struct dyspec heap;
    struct seq *seq[ALLOT_MAX_BID]; /* tree i is that of seq[i] */
    int32_t n_seq, left;            /* draws that may still be made */
};

void draft_heap_reset(struct draft_heap *h);
/* The sequence's tree, empty, joins; its last token counts as asked. */
void draft_heap_join(struct draft_heap *h, struct seq *s);
/* Draws, at most `room` tokens, until the next one is to be made where the draft model has not been asked. Returns how
 * many; *chance grows by what is expected of them. */
int32_t draft_heap_spend(struct draft_heap *h, int32_t room, double *chance);
/* Nodes of tree i where the draft model should be asked next, because as many draws are left as could reach them; they
 * count as asked from now on. At most `cap`; returns how many. */
int32_t draft_heap_wants(struct draft_heap *h, int32_t i, int32_t *node, int32_t cap);

#endif
