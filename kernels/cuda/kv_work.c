#include "kv.h"
#include "visible.h"

void kv_row_slots(const struct step_plan *p, int32_t block_len, int32_t *slot)
{
    for (const struct span *s = p->span; s < p->span + p->n.n_span; s++)
        for (int32_t r = s->row0; r < s->row0 + s->n_row; r++)
            slot[r] = span_slot(p, s, block_len, row_slot(s, r));
}

int32_t kv_moves(const struct step_plan *p, int32_t *src, int32_t *dst)
{
    int32_t n = 0;
    for (const struct kvop *op = p->kvop; op < p->kvop + p->n.n_kvop; op++)
        for (int32_t i = 0; i < op->n; i++) {
            src[n] = op->src + i;
            dst[n++] = op->dst + i;
        }
    return n;
}
