#include "attention_case.h"
#include "values.h"

int attn_plan_span(struct step_plan *p, int32_t block_len, int32_t n_block, int32_t *next_block, uint64_t seed,
                   const struct span *s, int32_t n_held, int32_t n_tree)
{
    int32_t n_chain = s->n_chain, n_slot = s->ctx_len + n_held + n_chain + n_tree, pos[PLAN_MAX_TREE];
    uint64_t vis[PLAN_MAX_TREE];
    int si = plan_span(p, s);
    ck_assert_int_ge(si, 0);
    for (int32_t j = 0; j < n_chain; j++)
        ck_assert_int_ge(plan_row(p, 0, s->ctx_len + j, (int16_t)(j - 1), 0), 0);
    for (int32_t i = 0; i < n_held + n_tree; i++) {
        int32_t up = value_int(seed + 7, (uint64_t)(i + 100 * si), -1, i - 1);
        int16_t parent = up < 0        ? (int16_t)(n_chain - 1)
                         : up < n_held ? HELD_PARENT(up)
                                       : (int16_t)(n_chain + up - n_held);
        vis[i] = (up < 0 ? 0 : vis[up]) | (uint64_t)1 << i;
        pos[i] = up < 0 ? s->ctx_len + n_chain : pos[up] + 1;
        ck_assert_int_ge(i < n_held ? plan_held(p, 0, parent) : plan_row(p, 0, pos[i], parent, vis[i]), 0);
    }
    for (int32_t i = 0; i < (n_slot + block_len - 1) / block_len; i++) {
        int32_t block = (*next_block)++ * 3 % n_block;
        ck_assert_int_ge(plan_blocks(p, &block, 1), 0);
    }
    return si;
}
