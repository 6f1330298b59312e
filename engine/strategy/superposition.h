/* Superposed Decoding as a way of decoding (autoregressive.md, section 2; scoring in ngram/superposed.h): one row a
 * step whose input is the drafts' last tokens mixed, so that k drafts cost what one costs. Its K and V belong to no
 * text: they are never published, and are dropped when the drafts are whole. Then, unless the request says otherwise,
 * the drafts are scored exactly, in trees of at most PLAN_MAX_TREE rows, and ranked by that; the best become the
 * request's choices.
 *
 * With resets a text is drafted in stretches: after each, one of the drafts is drawn, by the softmax of their scores,
 * and what it says is decided and computed like any text; drafting begins again behind it. What ended in a stretch
 * stays a candidate, and is scored while the text before it is all that is computed. Private to engine/. */
#ifndef GALLEY_SUPERPOSITION_H
#define GALLEY_SUPERPOSITION_H

#include "gang.h"
#include "ngram/superposed.h"

enum { SUPERPOSED_CONTEXT = NGRAM_MAX - 1, SUPERPOSED_MAX_TEXT = SUPERPOSED_CONTEXT + SUPERPOSED_MAX_TOKENS };

struct superposed_token {
    int32_t tok, rank;
    float logprob; /* raw */
};

struct superposed_text {              /* what a draft says in its stretch, behind the first n_before decided tokens */
    int32_t tok[SUPERPOSED_MAX_TEXT]; /* the last tokens before the stretch, then its own */
    int32_t n_before, n_context, n;   /* n: its own */
    double score;                     /* of the method, from the prompt on */
    float logprob[SUPERPOSED_MAX_TOKENS]; /* raw: of the first from the row before it, of the others once scored */
    int32_t rank[SUPERPOSED_MAX_TOKENS];
    double sum_logprob;
};

struct score_row {              /* a token whose row tells the log-probabilities of those behind it */
    int32_t tok, parent, depth; /* parent: an earlier row, -1: what the stretch begins behind */
};

struct superposition { /* owner: its request's arena */
    struct gang gang;  /* without members */
    struct superposed_params how;
    int32_t n_top;
    struct superposed_token *before; /* [max_tokens] decided by resets: the leader's tokens; NULL without */
    int32_t n_known;                 /* of them, that have their log-probabilities */
    double before_score;
    int32_t n_step, n_alive, n_ended;    /* n_step, n_alive: of this stretch */
    double weight[SUPERPOSED_MAX_DRAFT]; /* of the alive drafts' last tokens */
    struct superposed_text alive[SUPERPOSED_MAX_DRAFT], ended[SUPERPOSED_MAX_DRAFT];
    bool drafted;     /* the stretch is whole; scored next, */
    int32_t n_scored; /* so many are, the next ones by: */
    struct score_row row[PLAN_MAX_TREE];
    int32_t n_row, n_in_tree;                               /* texts that the rows stand for */
    struct superposed_text *text[2 * SUPERPOSED_MAX_DRAFT]; /* to be scored; at the end all drafts, ranked */
    int32_t n_text;
    bool ranked;
};

enum gang_news superposed_gather(struct engine *eng, struct gang *g);
bool superposed_token(const struct gang *g, int32_t text, int32_t i, struct sampled *out);

#endif
