/* Contrastive search (Su et al., arXiv:2202.06417; autoregressive.md, section 10): of the k likeliest tokens the one
 * with the largest (1 - alpha) p(v) - alpha max_j cos(h_v, h_j), h_j the last hidden states of all tokens before it.
 * Ties go to the likelier. The candidates are k sibling rows of one step; the chosen row's K and V stay, and its logits
 * give the next candidates. Private to engine/. */
#ifndef GALLEY_CONTRASTIVE_H
#define GALLEY_CONTRASTIVE_H

#include "engine_impl.h"

struct candidate {
    int32_t tok, rank; /* rank among the raw logits */
    float p, logprob;  /* of the law; raw */
};

struct contrastive { /* owner: its sequence's request */
    int32_t n;       /* candidates for the next token; 0: not known yet */
    struct candidate cand[CONTRASTIVE_MAX_K];
    int32_t n_top; /* the raw logits' likeliest at that place, with logprobs */
    struct top_logprob top[PLAN_MAX_TOPK];
};

/* Index of the best candidate; similarity[i]: the largest cosine of candidate i. */
int32_t contrastive_choose(const struct candidate *cand, const float *similarity, int32_t n, float alpha);

#endif
