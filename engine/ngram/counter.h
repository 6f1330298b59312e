/* Counts the n-grams of more text than memory holds. Private to engine/ngram: `galley ngram build` feeds it documents,
 * ngram_write reads the counts.
 *
 * Every token begins a window of up to max_n tokens; the windows in sorted order, equal ones counted together, give the
 * counts of all lengths at once, since n-grams that begin alike stand side by side. Windows are sorted a run at a time
 * in memory, runs are merged on disk. What comes out does not depend on where the runs were cut. */
#ifndef GALLEY_NGRAM_COUNTER_H
#define GALLEY_NGRAM_COUNTER_H

#include "ngram/ngram.h"

enum { NGRAM_NO_TOKEN = -1, NGRAM_MIN_MEMORY = 1 << 16 };

struct ngram_window {
    int32_t tok[NGRAM_MAX]; /* NGRAM_NO_TOKEN after max_n tokens, or where the document ended */
    uint32_t count;
};

struct ngram_counter;

/* Uses memory_bytes (at least NGRAM_MIN_MEMORY) and files without a name in the folder of near_path, of at most
 * 2 * sizeof(struct ngram_window) bytes for each token of the text. near_path must outlive the counter.
 * max_n: 2 .. NGRAM_MAX. -ERR_NOMEM, -ERR_INVALID. */
int ngram_counter_open(struct ngram_counter **out, const char *near_path, int32_t max_n, size_t memory_bytes,
                       struct err *e);
void ngram_counter_close(struct ngram_counter *c); /* NULL is legal */

/* More of the current document: ids >= 0. -ERR_IO; -ERR_INVALID: more than 2^32 - 1 tokens in all. */
int ngram_counter_add(struct ngram_counter *c, const int32_t *tok, size_t n_tok, struct err *e);
/* No n-gram spans what comes before and after. Documents without tokens do not count as any. -ERR_IO. */
int ngram_counter_end_document(struct ngram_counter *c, struct err *e);
uint32_t ngram_counter_n_token(const struct ngram_counter *c);
uint32_t ngram_counter_n_doc(const struct ngram_counter *c);

/* After the last document; then the windows can be read, as often as wanted. -ERR_IO. */
int ngram_counter_finish(struct ngram_counter *c, struct err *e);
int ngram_counter_rewind(struct ngram_counter *c, struct err *e);
/* The next window in ascending order. 1, or 0 at the end, or -ERR_IO. */
int ngram_counter_next(struct ngram_counter *c, struct ngram_window *w, struct err *e);

#endif
