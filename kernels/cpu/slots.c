#include "slots.h"

#include <stdlib.h>
#include <string.h>

#include "mem.h"

enum { N_LAYER_SLOT = 17, N_EXPERT_SLOT = 3, N_MODEL_SLOT = 3 };

static void layer_slots(const struct layer_weights *w, struct layer *l, struct slot out[N_LAYER_SLOT])
{
    const struct slot all[N_LAYER_SLOT] = {
        {.from = &w->attn_norm, .vector = &l->attn_norm},
        {.from = &w->post_attn_norm, .vector = &l->post_attn_norm},
        {.from = &w->ffn_norm, .vector = &l->ffn_norm},
        {.from = &w->post_ffn_norm, .vector = &l->post_ffn_norm},
        {.from = &w->bq, .vector = &l->bq},
        {.from = &w->bk, .vector = &l->bk},
        {.from = &w->bv, .vector = &l->bv},
        {.from = &w->q_norm, .vector = &l->q_norm},
        {.from = &w->k_norm, .vector = &l->k_norm},
        {.from = &w->wq, .matrix = &l->wq},
        {.from = &w->wk, .matrix = &l->wk},
        {.from = &w->wv, .matrix = &l->wv},
        {.from = &w->wo, .matrix = &l->wo},
        {.from = &w->gate, .matrix = &l->gate},
        {.from = &w->up, .matrix = &l->up},
        {.from = &w->down, .matrix = &l->down},
        {.from = &w->router, .matrix = &l->router},
    };
    memcpy(out, all, sizeof all);
}

static void expert_slots(const struct expert_weights *w, struct expert *e, struct slot out[N_EXPERT_SLOT])
{
    out[0] = (struct slot){.from = &w->gate, .matrix = &e->gate};
    out[1] = (struct slot){.from = &w->up, .matrix = &e->up};
    out[2] = (struct slot){.from = &w->down, .matrix = &e->down};
}

static void model_slots(const struct model_weights *w, struct bmodel *m, struct slot out[N_MODEL_SLOT])
{
    out[0] = (struct slot){.from = &w->tok_embd, .matrix = &m->tok_embd};
    out[1] = (struct slot){.from = &w->out_norm, .vector = &m->out_norm};
    out[2] = (struct slot){.from = &w->out, .matrix = &m->out};
}

static size_t align64(size_t n)
{
    return (n + 63) / 64 * 64;
}

static int plan_slot(struct slots *s, struct slot slot, struct err *e)
{
    const struct tensor *t = slot.from;
    int rc = 0;
    if (!t->data)
        return 0;
    slot.from_bytes = dtype_row_bytes(t->type, t->n_col) * (size_t)t->n_row;
    if (slot.matrix) {
        rc = weight_plan(t, slot.matrix, e);
        slot.bytes = weight_bytes(slot.matrix);
        slot.all = slot.matrix->n_panel;
    } else {
        if (t->n_row != 1 || !slot.from_bytes)
            rc = err_set(e, ERR_INVALID, "a vector of type %d cannot be used", t->type);
        slot.bytes = (size_t)t->n_col * sizeof(float);
    }
    slot.at = s->bytes;
    s->bytes += align64(slot.bytes);
    s->from_bytes += slot.from_bytes;
    s->slot[s->n++] = slot;
    return rc;
}

/* Query, key and value are one product to those who take panels of it, see query_key_value. */
static void join_products(const struct slots *s, int32_t from, const struct layer *l)
{
    for (int32_t i = from; i < s->n; i++) {
        struct slot *slot = &s->slot[i];
        if (slot->matrix != &l->wq && slot->matrix != &l->wk && slot->matrix != &l->wv)
            continue;
        slot->before = slot->matrix == &l->wq ? 0 : l->wq.n_panel + (slot->matrix == &l->wv ? l->wk.n_panel : 0);
        slot->all = l->wq.n_panel + l->wk.n_panel + l->wv.n_panel;
    }
}

static int by_address(const void *a, const void *b)
{
    const char *x = (*(const struct slot *const *)a)->from->data, *y = (*(const struct slot *const *)b)->from->data;
    return (x > y) - (x < y);
}

int slots_plan(struct slots *s, struct bmodel *m, const struct model_weights *w, struct err *e)
{
    struct slot slot[N_LAYER_SLOT];
    size_t most = N_MODEL_SLOT + (size_t)m->d.n_layer * (N_LAYER_SLOT + N_EXPERT_SLOT * (size_t)m->d.n_expert);
    *s = (struct slots){.slot = mem_calloc(most, sizeof *s->slot), .by_address = mem_calloc(most, sizeof(void *))};
    int rc = s->slot && s->by_address ? 0 : err_set(e, ERR_NOMEM, "out of memory");
    model_slots(w, m, slot);
    for (int i = 0; !rc && i < N_MODEL_SLOT; i++)
        rc = plan_slot(s, slot[i], e);
    for (int32_t l = 0; l < m->d.n_layer; l++) {
        int32_t from = s->n;
        layer_slots(&w->layer[l], &m->layer[l], slot);
        for (int i = 0; !rc && i < N_LAYER_SLOT; i++)
            rc = plan_slot(s, slot[i], e);
        join_products(s, from, &m->layer[l]);
        for (int32_t x = 0; !rc && m->layer[l].expert && x < m->d.n_expert; x++) {
            expert_slots(&w->layer[l].expert[x], &m->layer[l].expert[x], slot);
            for (int i = 0; !rc && i < N_EXPERT_SLOT; i++)
                rc = plan_slot(s, slot[i], e);
        }
    }
    if (rc) {
        slots_free(s);
        return rc;
    }
    for (int32_t i = 0; i < s->n; i++)
        s->by_address[i] = &s->slot[i];
    qsort(s->by_address, (size_t)s->n, sizeof *s->by_address, by_address);
    return 0;
}

void slots_free(struct slots *s)
{
    mem_free(s->slot);
    mem_free(s->by_address);
    *s = (struct slots){0};
}

void slots_place(const struct slots *s, char *base)
{
    for (int32_t i = 0; i < s->n; i++) {
        const struct slot *slot = &s->slot[i];
        if (slot->matrix)
            slot->matrix->data = (uint8_t *)base + slot->at;
        else
            *slot->vector = (float *)(void *)(base + slot->at);
    }
}

int32_t slots_node(const struct slots *s, const struct placement *place, size_t at)
{
    int32_t lo = 0, hi = s->n - 1;
    while (lo < hi) { /* the last slot that does not begin after it */
        int32_t mid = (lo + hi + 1) / 2;
        if (s->slot[mid].at <= at)
            lo = mid;
        else
            hi = mid - 1;
    }
    const struct slot *slot = &s->slot[lo];
    if (!slot->matrix)
        return 0; /* a vector: all read it */
    int32_t panel = slot->before + (int32_t)((at - slot->at) / slot->matrix->panel_bytes), k = 0, first, end;
    for (; k < place->n_node - 1; k++) {
        placement_share(place, slot->all, PRODUCT_PANELS, k, &first, &end);
        if (panel < end)
            break;
    }
    return k;
}
