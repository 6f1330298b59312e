/* A plan, a cache and queries for the tests of attention; run through the kernels, and by plain loops over visible.h.
 */
#ifndef GALLEY_SIMT_ATTENTION_CASE_H
#define GALLEY_SIMT_ATTENTION_CASE_H

#include "attention.h"
#include "plan.h"

struct attn_case { /* owner: the test */
    struct attn_shape shape;
    int32_t block_len, n_block, kv_type;
    struct step_plan plan;
    struct kv_layer kv;
    int32_t next_block; /* spans get blocks of their own, scattered over the pool */
    uint64_t seed;
    uint16_t *q; /* [n_row][n_head][head_dim] bf16, made by attn_case_queries */
};

void attn_case_open(struct attn_case *c, struct attn_shape shape, int32_t block_len, int32_t kv_type, uint64_t seed);
void attn_case_close(struct attn_case *c);
/* Adds to a plan a span with random parents in its tree, with blocks scattered over a pool of n_block from *next_block
 * on. */
int attn_plan_span(struct step_plan *p, int32_t block_len, int32_t n_block, int32_t *next_block, uint64_t seed,
                   const struct span *s, int32_t n_held, int32_t n_tree);
/* The same, and fills its slots of the cache. */
void attn_case_span(struct attn_case *c, int32_t ctx_len, int32_t n_held, int32_t n_chain, int32_t n_tree, int attn);
/* plan_check, and random queries for all rows. */
void attn_case_queries(struct attn_case *c);
/* out: [n_row][n_head][head_dim]; `n_part` beyond the least that scratch has; n_fold (may be NULL): rows that
 * k_attn_fold finished. */
void attn_case_run(struct attn_case *c, int32_t n_block, int deterministic, int32_t n_part, uint16_t *out,
                   int32_t *n_fold);
/* Every row against double precision. */
void attn_case_check(struct attn_case *c, const uint16_t *out);
size_t attn_case_out(const struct attn_case *c); /* elements of out */
/* K and V of the sequence slot of a span become those of another, in all heads. */
void attn_case_copy_slot(struct attn_case *c, int to_span, int32_t to, int from_span, int32_t from);

#endif
