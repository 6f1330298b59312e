/* Between drafting.c, which shares out rows, and waves.c, which asks the draft model. Private to these two. */
#ifndef GALLEY_DRAFTING_H
#define GALLEY_DRAFTING_H

#include "engine_impl.h"

/* The sequence gets a new token this step, and its request wants drafts. */
bool drafts_now(const struct seq *s);
/* Drafted rows that the request leaves room for. */
int32_t drafts_most(const struct seq *s);
/* How many the request named, `by_default` if it named drafting but no number; 0: it did not, and worth decides. */
int32_t drafts_named(const struct seq *s, int32_t by_default);
/* Tokens that at most `most` rows of the draft are expected to yield. */
double drafts_worth(const struct draft *d, int32_t most);

int waves_create(struct engine *eng, struct err *e);
/* Asks the draft model for trees, a layer of all of them a wave, as long as a further wave is expected to pay, in a
 * step of the target that has n_row rows already and room for `spare` more. */
int waves_run(struct engine *eng, int32_t n_row, int32_t spare, double n_token, struct err *e);

#endif
