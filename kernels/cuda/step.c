/* A step's way to the device and back: the plan's arrays and the lists that the host makes from it lie in one block of
 * pinned memory, laid out alike on both sides, and go over in one copy. */
#include <string.h>

#include "cuda.h"

static void lay_readouts(const struct plan_limits *n, struct cuda_arena *a, struct readout_work *w)
{
    size_t n_read = (size_t)n->n_readout;
    w->logit_row = cuda_arena_take(a, n_read, sizeof *w->logit_row);
    w->raw_logit = cuda_arena_take(a, n_read, sizeof *w->raw_logit);
    w->law_row = cuda_arena_take(a, n_read, sizeof *w->law_row);
    w->job = cuda_arena_take(a, n_read, sizeof *w->job);
    w->contrast = cuda_arena_take(a, n_read, sizeof *w->contrast);
    w->hidden_row = cuda_arena_take(a, n_read, sizeof *w->hidden_row);
    w->hidden_at = cuda_arena_take(a, n_read, sizeof *w->hidden_at);
    w->save_row = cuda_arena_take(a, n_read, sizeof *w->save_row);
    w->save_to = cuda_arena_take(a, n_read, sizeof *w->save_to);
}

size_t cuda_lists_layout(const struct plan_limits *n, int32_t block_len, int32_t cap_item, char *base,
                         struct cuda_lists *l)
{
    struct cuda_arena a = {.base = base};
    size_t n_row = (size_t)n->n_row, n_move = (size_t)n->n_kvop * (size_t)block_len;
    *l = (struct cuda_lists){0};
    l->count = cuda_arena_take(&a, CUDA_KINDS, sizeof *l->count);
    l->tok = cuda_arena_take(&a, n_row, sizeof *l->tok);
    l->pos = cuda_arena_take(&a, n_row, sizeof *l->pos);
    l->slot = cuda_arena_take(&a, n_row, sizeof *l->slot);
    for (int kind = 0; kind < CUDA_KINDS; kind++) {
        l->attn[kind].row = cuda_arena_take(&a, n_row, sizeof *l->attn->row);
        l->attn[kind].fold = cuda_arena_take(&a, n_row, sizeof *l->attn->fold);
    }
    l->mix = cuda_arena_take(&a, (size_t)n->n_mix, sizeof *l->mix);
    l->bt = cuda_arena_take(&a, (size_t)n->n_bt, sizeof *l->bt);
    l->part = cuda_arena_take(&a, (size_t)n->n_part, sizeof *l->part);
    l->held = cuda_arena_take(&a, (size_t)n->n_held, sizeof *l->held);
    l->law = cuda_arena_take(&a, (size_t)n->n_law, sizeof *l->law);
    l->law_tok = cuda_arena_take(&a, (size_t)n->n_law_tok, sizeof *l->law_tok);
    l->ban = cuda_arena_take(&a, (size_t)n->n_ban, sizeof *l->ban);
    l->list = cuda_arena_take(&a, (size_t)n->n_list, sizeof *l->list);
    l->mask = cuda_arena_take(&a, (size_t)n->n_mask * (size_t)mask_words(n->n_vocab), sizeof *l->mask);
    l->move_src = cuda_arena_take(&a, n_move, sizeof *l->move_src);
    l->move_dst = cuda_arena_take(&a, n_move, sizeof *l->move_dst);
    lay_readouts(n, &a, &l->read);
    l->attn->item = cuda_arena_take(&a, (size_t)cap_item, sizeof *l->attn->item);
    l->attn->cap_item = cap_item;
    return a.at;
}

const void *cuda_on_device(const struct bmodel *m, const void *staged)
{
    return m->pool.upload + ((const char *)staged - m->pool.host_upload);
}

static void copy(void *to, const void *from, int32_t n, size_t size_bytes)
{
    if (n)
        memcpy(to, from, (size_t)n * size_bytes);
}

static void copy_mixes(const struct step_plan *p, struct cuda_lists *l)
{
    int32_t part0 = (int32_t)(l->part - (const struct mix_part *)(const void *)l->count); /* staging begins there */
    copy(l->mix, p->mix, p->n.n_mix, sizeof *l->mix);
    for (int32_t i = 0; i < p->n.n_mix; i++)
        l->mix[i].part0 += part0;
    copy(l->part, p->part, p->n.n_part, sizeof *l->part);
}

static void copy_plan(const struct step_plan *p, struct cuda_lists *l)
{
    const struct plan_limits *n = &p->n;
    copy(l->tok, p->tok, n->n_row, sizeof *l->tok);
    copy(l->pos, p->pos, n->n_row, sizeof *l->pos);
    copy(l->bt, p->bt, n->n_bt, sizeof *l->bt);
    copy_mixes(p, l);
    copy(l->held, p->held, n->n_held, sizeof *l->held);
    copy(l->law, p->law, n->n_law, sizeof *l->law);
    copy(l->law_tok, p->law_tok, n->n_law_tok, sizeof *l->law_tok);
    copy(l->ban, p->ban, n->n_ban, sizeof *l->ban);
    copy(l->list, p->list, n->n_list, sizeof *l->list);
    copy(l->mask, p->mask, n->n_mask * mask_words(n->n_vocab), sizeof *l->mask);
}

/* Rows that the plan does not have, up to n_row, do no harm and nothing else. */
static void pad_rows(const struct step_plan *p, int32_t n_row, struct cuda_lists *l)
{
    for (int32_t r = p->n.n_row; r < n_row; r++) {
        l->tok[r] = l->pos[r] = 0;
        l->slot[r] = -1;
    }
}

/* A list for each kind of layer, one behind the other. */
static void make_attention(struct bmodel *m, const struct step_plan *p, int32_t layer)
{
    struct cuda_lists *l = &m->lists;
    for (int kind = 0; kind < m->n_kind; kind++) {
        struct attn_shape shape = cuda_attn_shape(m, kind);
        struct attn_work *w = &l->attn[kind];
        if (kind) {
            w->item = w[-1].item + w[-1].n_item;
            w->cap_item = w[-1].cap_item - w[-1].n_item;
        }
        w->cap_part = m->pool.cap_part;
        attn_work_make(p, layer, &shape, m->b->n_block, m->b->opt.deterministic, w);
        l->count[kind] = (struct attn_count){
            .n_narrow = w->n_narrow,
            .n_item = w->n_item,
            .n_fold = w->n_fold,
            .item0 = (int32_t)(w->item - (const struct attn_item *)(const void *)m->pool.host_upload)};
    }
}

/* Staging up to the end of the items. */
static int upload(struct bmodel *m, struct err *e)
{
    const struct backend *b = m->b;
    const struct attn_work *last = &m->lists.attn[m->n_kind - 1];
    const char *from = m->pool.host_upload, *end = (const char *)(last->item + last->n_item);
    return cuda_check(b, b->api->copy(m->pool.upload, from, (size_t)(end - from), b->stream), "uploading a plan", e);
}

/* All that a step uploads. Returns the graph that it can run by, or NULL. */
static struct CUgraphExec_st *make_lists(struct bmodel *m, const struct step_plan *p)
{
    struct cuda_lists *l = &m->lists;
    struct plan_limits n = p->n;
    int32_t graph_rows = cuda_graph_rows(m, p);
    if (graph_rows)
        n.n_row = n.n_mix = graph_rows;
    cuda_lists_layout(&n, m->pool.kv.block_len, m->pool.cap_item, m->pool.host_upload, l);
    copy_plan(p, l);
    kv_row_slots(p, m->pool.kv.block_len, l->slot);
    pad_rows(p, graph_rows, l);
    l->n_move = kv_moves(p, l->move_src, l->move_dst);
    readout_work_make(p, m->pool.map, &l->read);
    readout_work_share(m->pool.map, m->shard.rank, m->shard.n_rank, &l->read);
    for (int kind = 0; kind < m->n_kind; kind++)
        memset(l->attn[kind].row, 0, (size_t)p->n.n_row * sizeof *l->attn->row);
    make_attention(m, p, 0);
    return graph_rows ? cuda_graph_of(m, graph_rows) : NULL;
}

int cuda_step_attention(struct bmodel *m, const struct step_plan *p, int32_t layer, struct err *e)
{
    const struct backend *b = m->b;
    int rc = cuda_check(b, b->api->stream_wait(b->stream), "running a step", e); /* staging is still being read */
    if (rc)
        return rc;
    make_attention(m, p, layer);
    return upload(m, e);
}

/* Floats in use, then ints in use, so that one copy brings both. */
static int download(struct bmodel *m, const struct step_plan *p, struct err *e)
{
    const struct backend *b = m->b;
    size_t bytes = ((size_t)p->n.n_out_f + (size_t)p->n.n_out_i) * sizeof(float);
    return bytes ? cuda_check(b, b->api->copy(m->pool.host_result, m->pool.result, bytes, b->stream),
                              "downloading results", e)
                 : 0;
}

int cuda_submit(struct bmodel *m, const struct step_plan *p, struct err *e)
{
    BUG_ON(m->plan);
    if (m->lost)
        return err_set(e, ERR_DEVICE, "the device was lost");
    struct CUgraphExec_st *graph = make_lists(m, p);
    int rc = cuda_enter(m->b, e);
    if (!rc)
        rc = upload(m, e);
    if (!rc)
        rc = cuda_forward(m, p, graph, e);
    if (!rc)
        rc = download(m, p, e);
    if (rc)
        m->lost = true;
    else
        m->plan = p;
    return rc;
}

int cuda_finish(struct bmodel *m, struct err *e)
{
    const struct backend *b = m->b;
    BUG_ON(!m->plan);
    m->plan = NULL;
    int rc = cuda_enter(b, e);
    if (!rc)
        rc = cuda_check(b, b->api->stream_wait(b->stream), "running a step", e);
    if (!rc && b->comm)
        rc = cuda_comm_check(b, b->comm_api->state(b->comm), "running a step", e);
    m->lost = rc != 0;
    return rc;
}

static void collect_piece(const float *from, const struct step_plan *p, int32_t f0, int32_t n_f, int32_t i0,
                          int32_t n_i, struct step_result *r)
{
    copy(r->f + f0, from + f0, n_f, sizeof *r->f);
    copy(r->i + i0, from + p->n.n_out_f + i0, n_i, sizeof *r->i);
}

void cuda_collect(const struct bmodel *m, const struct step_plan *p, struct step_result *r)
{
    const float *result = m->pool.host_result;
    const struct readout_work *w = &m->lists.read;
    if (m->shard.n_rank == 1) {
        collect_piece(result, p, 0, p->n.n_out_f, 0, p->n.n_out_i, r);
        return;
    }
    for (int32_t j = 0; j < w->n_job; j++) {
        struct readout of = {.kind = (uint8_t)w->job[j].kind, .raw = (uint8_t)w->job[j].raw, .n = w->job[j].n};
        int32_t n_f, n_i;
        readout_size(&of, &n_f, &n_i);
        collect_piece(result, p, w->job[j].f0, n_f, w->job[j].i0, n_i, r);
    }
    for (int32_t j = 0; j < w->n_hidden; j++)
        collect_piece(result, p, w->hidden_at[j], m->d.n_embd, 0, 0, r);
    for (int32_t j = 0; j < w->n_contrast; j++)
        collect_piece(result, p, w->contrast[j].f0, 1, 0, 0, r);
}
