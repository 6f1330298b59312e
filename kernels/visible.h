/* Which slots a row attends to, in position order: the one place where a span's shape is turned into keys. Shared by
 * the back ends that run on a CPU; private to kernels/. */
#ifndef GALLEY_VISIBLE_H
#define GALLEY_VISIBLE_H

#include "plan.h"

/* The pool slot of the sequence's slot i. */
static inline int32_t span_slot(const struct step_plan *p, const struct span *s, int32_t block_len, int32_t i)
{
    return p->bt[s->bt_off + i / block_len] * block_len + i % block_len;
}

/* The sequence slot that row r (of the plan) writes. */
static inline int32_t row_slot(const struct span *s, int32_t r)
{
    return s->ctx_len + s->n_held + r - s->row0;
}

/* A row's keys: positions first_pos, first_pos + 1, ... The first n_prefix of them stand at the sequence slot equal to
 * their position (context and chain); the rest, tree ancestors and the row itself, at the sequence slots listed. */
struct visible {
    int32_t first_pos, n_prefix, n_tail;
    int32_t tail[PLAN_MAX_TREE];
};

/* `window` as model_desc.sliding_window. */
void visible_of(const struct step_plan *p, const struct span *s, int32_t r, int32_t window, struct visible *v);

/* The sequence slot of the j-th key. */
static inline int32_t visible_slot(const struct visible *v, int32_t j)
{
    return j < v->n_prefix ? v->first_pos + j : v->tail[j - v->n_prefix];
}

#endif
