/* Building a step plan: fixed capacities inside one allocation; builders append or refuse. */
#include "plan.h"

#include <string.h>

#include "mem.h"

/* Every array of the plan with its capacity: the one place that knows the layout. */
#define PLAN_ARRAYS(X)                                                                                                 \
    X(span, cap.n_span)                                                                                                \
    X(tok, cap.n_row)                                                                                                  \
    X(pos, cap.n_row)                                                                                                  \
    X(parent, cap.n_row)                                                                                               \
    X(vis, cap.n_row)                                                                                                  \
    X(row_mask, cap.n_row)                                                                                             \
    X(held, cap.n_held)                                                                                                \
    X(mix, cap.n_mix)                                                                                                  \
    X(part, cap.n_part)                                                                                                \
    X(kvop, cap.n_kvop)                                                                                                \
    X(law, cap.n_law)                                                                                                  \
    X(law_tok, cap.n_law_tok)                                                                                          \
    X(ban, cap.n_ban)                                                                                                  \
    X(mask, cap.n_mask *mask_words(cap.n_vocab))                                                                       \
    X(readout, cap.n_readout)                                                                                          \
    X(list, cap.n_list)                                                                                                \
    X(bt, cap.n_bt)

static size_t align64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

int plan_create(struct step_plan *p, const struct plan_limits *limits, struct err *e)
{
    *p = (struct step_plan){.cap = *limits, .n.n_vocab = limits->n_vocab};
    const struct plan_limits cap = *limits;
    size_t bytes = 0;
#define ADD_BYTES(field, count) bytes += align64(sizeof *p->field * (size_t)(count));
    PLAN_ARRAYS(ADD_BYTES)
#undef ADD_BYTES
    char *mem = mem_calloc(1, bytes + 63);
    if (!mem)
        return err_set(e, ERR_NOMEM, "out of memory: %zu bytes for a step plan", bytes);
    p->mem = mem;
    p->mem_bytes = bytes;
    char *at = (char *)align64((size_t)mem);
#define PLACE(field, count)                                                                                            \
    p->field = (void *)at;                                                                                             \
    at += align64(sizeof *p->field * (size_t)(count));
    PLAN_ARRAYS(PLACE)
#undef PLACE
    return 0;
}

void plan_free(struct step_plan *p)
{
    mem_free(p->mem);
    *p = (struct step_plan){0};
}

void plan_reset(struct step_plan *p)
{
    p->n = (struct plan_limits){.n_vocab = p->cap.n_vocab};
}

int plan_span(struct step_plan *p, const struct span *s)
{
    if (p->n.n_span == p->cap.n_span)
        return -ERR_NOMEM;
    struct span *out = &p->span[p->n.n_span];
    *out = *s;
    out->row0 = p->n.n_row;
    out->n_row = 0;
    out->held0 = p->n.n_held;
    out->n_held = 0;
    out->bt_off = p->n.n_bt;
    out->bt_len = 0;
    return p->n.n_span++;
}

int plan_row(struct step_plan *p, int32_t tok, int32_t pos, int16_t parent, uint64_t vis)
{
    BUG_ON(p->n.n_span == 0);
    if (p->n.n_row == p->cap.n_row)
        return -ERR_NOMEM;
    int r = p->n.n_row++;
    p->tok[r] = tok;
    p->pos[r] = pos;
    p->parent[r] = parent;
    p->vis[r] = vis;
    p->row_mask[r] = -1;
    p->span[p->n.n_span - 1].n_row++;
    return r;
}

int plan_blocks(struct step_plan *p, const int32_t *block, int32_t n)
{
    BUG_ON(p->n.n_span == 0);
    if (n > p->cap.n_bt - p->n.n_bt)
        return -ERR_NOMEM;
    int at = p->n.n_bt;
    memcpy(p->bt + at, block, sizeof *block * (size_t)n);
    p->n.n_bt += n;
    p->span[p->n.n_span - 1].bt_len += n;
    return at;
}

int plan_held(struct step_plan *p, int32_t tok, int16_t parent)
{
    BUG_ON(p->n.n_span == 0);
    if (p->n.n_held == p->cap.n_held)
        return -ERR_NOMEM;
    p->held[p->n.n_held] = (struct held_row){.tok = tok, .parent = parent};
    p->span[p->n.n_span - 1].n_held++;
    return p->n.n_held++;
}

int plan_mix(struct step_plan *p, const struct mix_part *part, int32_t n, int from_bank)
{
    if (p->n.n_mix == p->cap.n_mix || n > p->cap.n_part - p->n.n_part)
        return -ERR_NOMEM;
    p->mix[p->n.n_mix] = (struct mix){.part0 = p->n.n_part, .n_part = n, .from_bank = from_bank != 0};
    memcpy(p->part + p->n.n_part, part, sizeof *part * (size_t)n);
    p->n.n_part += n;
    return p->n.n_mix++;
}

int plan_kvop(struct step_plan *p, int32_t src, int32_t dst, int32_t n)
{
    if (p->n.n_kvop == p->cap.n_kvop)
        return -ERR_NOMEM;
    p->kvop[p->n.n_kvop] = (struct kvop){.src = src, .dst = dst, .n = n};
    return p->n.n_kvop++;
}

int plan_law(struct step_plan *p, const struct law *l, const struct law_tok *tok, int32_t n_tok, const int32_t *ban,
             int32_t n_ban)
{
    if (p->n.n_law == p->cap.n_law || n_tok > p->cap.n_law_tok - p->n.n_law_tok || n_ban > p->cap.n_ban - p->n.n_ban)
        return -ERR_NOMEM;
    struct law *out = &p->law[p->n.n_law];
    *out = *l;
    out->tok0 = p->n.n_law_tok;
    out->n_tok = n_tok;
    out->ban0 = p->n.n_ban;
    out->n_ban = n_ban;
    if (n_tok)
        memcpy(p->law_tok + out->tok0, tok, sizeof *tok * (size_t)n_tok);
    if (n_ban)
        memcpy(p->ban + out->ban0, ban, sizeof *ban * (size_t)n_ban);
    p->n.n_law_tok += n_tok;
    p->n.n_ban += n_ban;
    return p->n.n_law++;
}

int plan_mask(struct step_plan *p, const uint32_t *mask)
{
    size_t words = (size_t)mask_words(p->cap.n_vocab);
    for (int i = 0; i < p->n.n_mask; i++)
        if (!memcmp(p->mask + words * (size_t)i, mask, words * sizeof *mask))
            return i;
    if (p->n.n_mask == p->cap.n_mask)
        return -ERR_NOMEM;
    memcpy(p->mask + words * (size_t)p->n.n_mask, mask, words * sizeof *mask);
    return p->n.n_mask++;
}

void readout_size(const struct readout *r, int32_t *n_f, int32_t *n_i)
{
    switch ((enum readout_kind)r->kind) {
    case READ_SAMPLE:
        *n_f = 2, *n_i = 2;
        return;
    case READ_TOPK:
        *n_f = r->n + 2, *n_i = r->n;
        return;
    case READ_LOGPROB:
        *n_f = r->n, *n_i = r->n;
        return;
    case READ_PROBE:
        *n_f = r->raw ? 2 * r->n + 3 : r->n + 1, *n_i = r->raw ? r->n + 4 : 2;
        return;
    case READ_CONTRAST:
        *n_f = 1, *n_i = 0;
        return;
    case READ_HIDDEN:
        *n_f = r->bank < 0 ? r->n : 0, *n_i = 0;
        return;
    }
    *n_f = *n_i = 0;
}

int plan_readout(struct step_plan *p, const struct readout *r, const int32_t *list)
{
    int32_t n_f, n_i, n_list = list ? r->n : 0;
    readout_size(r, &n_f, &n_i);
    if (p->n.n_readout == p->cap.n_readout || n_f > p->cap.n_out_f - p->n.n_out_f ||
        n_i > p->cap.n_out_i - p->n.n_out_i || n_list > p->cap.n_list - p->n.n_list)
        return -ERR_NOMEM;
    struct readout *out = &p->readout[p->n.n_readout];
    *out = *r;
    out->f0 = p->n.n_out_f;
    out->i0 = p->n.n_out_i;
    out->list0 = p->n.n_list;
    if (n_list)
        memcpy(p->list + p->n.n_list, list, sizeof *list * (size_t)n_list);
    p->n.n_out_f += n_f;
    p->n.n_out_i += n_i;
    p->n.n_list += n_list;
    return p->n.n_readout++;
}
