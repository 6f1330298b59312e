/* Between drafting.c, which shares out rows, those who fill drafts: trigrams.c and waves.c, which asks the draft model,
 * and books.c, which says what they cost. Private to these. */
#ifndef GALLEY_DRAFTING_H
#define GALLEY_DRAFTING_H

#include "engine_impl.h"

/* All that a sequence's drafts can be copied from: prediction, prompt, output. */
struct history_text drafts_text(const struct seq *s);
/* The sequence gets a new token this step, and its request wants drafts. */
bool drafts_now(const struct seq *s);
/* Drafted rows that the request leaves room for. */
int32_t drafts_most(const struct seq *s);
/* How many the request named, `by_default` if it named drafting but no number; 0: it did not, and worth decides. */
int32_t drafts_named(const struct seq *s, int32_t by_default);
/* Tokens that at most `most` rows of the draft are expected to yield. */
double drafts_worth(const struct draft *d, int32_t most);

/* ---- books.c ---- */

/* Drafts of the sequence's are `auto`'s choice, and no request's. */
bool drafts_by_worth(const struct seq *s);
/* The source may be asked for the sequence: it is named, or `auto` can afford it. */
bool drafts_may_ask(const struct seq *s, enum draft_source source);
/* The source was asked for n sequences since from_ns, of which n_auto were `auto`'s. */
void drafts_asked(struct engine *eng, enum draft_source source, int64_t from_ns, int32_t n_auto, int32_t n);
/* Nothing is known yet of what drafts are worth. */
void books_start(struct engine *eng);
/* Before a step's drafts are made, and when all of it was settled. */
void books_open(struct engine *eng);
void books_close(struct engine *eng);

int trigrams_create(struct engine *eng, struct err *e);
void trigrams_free(struct engine *eng);
/* Drafts from trigrams, for those that name them or where they promise more than a copy, in a step of the target that
 * has n_row rows already and yields n_token tokens for certain, a row for each; other rows are prompts'. */
void trigrams_run(struct engine *eng, int32_t n_row, double n_token);

int waves_create(struct engine *eng, struct err *e);
/* Asks the draft model for trees, a layer of all of them a wave, as long as a further wave is expected to pay, in a
 * step of the target that has n_row rows already and room for `spare` more. */
int waves_run(struct engine *eng, int32_t n_row, int32_t spare, double n_token, struct err *e);

#endif
