/* Superposed Decoding as a way of decoding (autoregressive.md, section 2; scoring in ngram/superposed.h): one row a
 * step whose input is the drafts' last tokens mixed, so that k drafts cost what one costs. Its K and V belong to no
 * text: they are never published, and are dropped when the drafts are whole. Then, unless the request says otherwise,
 * the drafts are scored exactly, in trees of at most PLAN_MAX_TREE rows, and ranked by that; the best become the
 * request's choices. Private to engine/. */
#ifndef GALLEY_SUPERPOSITION_H
#define GALLEY_SUPERPOSITION_H

#include "gang.h"
#include "ngram/superposed.h"

enum { SUPERPOSED_CONTEXT = NGRAM_MAX - 1, SUPERPOSED_MAX_TEXT = SUPERPOSED_CONTEXT + SUPERPOSED_MAX_TOKENS };

struct superposed_text {
    int32_t tok[SUPERPOSED_MAX_TEXT];     /* the prompt's last tokens, then its own */
    int32_t n_context, n;                 /* n: its own */
    double score;                         /* of the method */
    float logprob[SUPERPOSED_MAX_TOKENS]; /* raw: of the first from the prompt's row, of the others once scored */
    int32_t rank[SUPERPOSED_MAX_TOKENS];
    double sum_logprob;
};

struct score_row {              /* a token whose row tells the log-probabilities of those behind it */
    int32_t tok, parent, depth; /* parent: an earlier row, -1: the prompt */
};

struct superposition { /* owner: its request's arena */
    struct gang gang;  /* without members */
    struct superposed_params how;
    int32_t n_top;
    int32_t n_step, n_alive, n_ended;
    double weight[SUPERPOSED_MAX_DRAFT]; /* of the alive drafts' last tokens */
    struct superposed_text alive[SUPERPOSED_MAX_DRAFT], ended[SUPERPOSED_MAX_DRAFT];
    bool drafted;     /* whole; scored next, */
    int32_t n_scored; /* so many are, the next ones by: */
    struct score_row row[PLAN_MAX_TREE];
    int32_t n_row, n_in_tree;                               /* texts that the rows stand for */
    struct superposed_text *text[2 * SUPERPOSED_MAX_DRAFT]; /* all drafts; ranked at the end */
    int32_t n_text;
    bool ranked;
};

enum gang_news superposed_gather(struct engine *eng, struct gang *g);
bool superposed_token(const struct gang *g, int32_t text, int32_t i, struct sampled *out);

#endif
