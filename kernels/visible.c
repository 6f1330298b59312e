#include "visible.h"

void visible_of(const struct step_plan *p, const struct span *s, int32_t r, int32_t window, struct visible *v)
{
    int32_t i = r - s->row0, n_prefix;
    if (s->attn == ATTN_FULL)
        n_prefix = s->ctx_len + s->n_chain;
    else
        n_prefix = s->ctx_len + (i < s->n_chain ? i + 1 : s->n_chain);

    /* Parents precede children, so ascending bits are ascending positions. */
    v->n_tail = 0;
    for (uint64_t bits = p->vis[r]; bits; bits &= bits - 1) {
        int32_t b = __builtin_ctzll(bits);
        v->tail[v->n_tail++] = s->ctx_len + s->n_chain + b;
    }
    int32_t n_pos = n_prefix + v->n_tail;
    v->first_pos = window > 0 && p->pos[r] - window + 1 > 0 ? p->pos[r] - window + 1 : 0;
    if (v->first_pos > n_pos)
        v->first_pos = n_pos;
    v->n_prefix = n_prefix - v->first_pos;
    if (v->n_prefix < 0) { /* the window begins among the ancestors */
        int32_t drop = -v->n_prefix;
        v->n_prefix = 0;
        v->n_tail -= drop;
        for (int32_t j = 0; j < v->n_tail; j++)
            v->tail[j] = v->tail[j + drop];
    }
}
