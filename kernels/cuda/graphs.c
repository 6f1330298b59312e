/* CUDA graphs: embedding and layers, some 300 launches for a model of 32 layers, recorded when the pool is made and
 * then queued by one call. A graph serves all steps of its kind:
 *
 *   rows    the next power of two, up to 256. Rows that a step does not have are padding: token 0, slot -1, in no item
 *   wide    whether all items of attention run on one warp, or all on four
 *   folds   whether k_attn_fold runs, which goes with many items
 *
 * Kernels get their arguments by value, so these must follow from the kind alone. Lists are laid out for the padded
 * rows (cuda_lists_layout), how far they are filled stands on the device (struct attn_count), and blocks of attention
 * take items in turns, so that any grid serves any number. Moves of slots and readouts are launched beside the graph,
 * with what the step has: they are few. So is everything of steps without a graph: long prompts, layer ranges. */
#include "cuda.h"
#include "log.h"
#include "wake.h"

enum { MAX_ROW = 1 << (CUDA_GRAPH_BUCKETS - 1), KIND_WIDE = 1, KIND_FOLDS = 2 };

/* Blocks of attention for each that keeps the device busy: items differ in length, short queues even that out. */
enum { ATTN_QUEUE = 4 };

static int bucket_of(int32_t n_row)
{
    return n_row > 1 ? 32 - __builtin_clz((unsigned)n_row - 1) : 0;
}

static int32_t bucket_rows(int bucket)
{
    return 1 << bucket;
}

static bool runs_all_layers(const struct step_plan *p, int32_t n_layer)
{
    for (const struct span *s = p->span; s < p->span + p->n.n_span; s++)
        if (s->n_row && (s->layer0 != 0 || s->layer1 != n_layer))
            return false;
    return true;
}

int32_t cuda_graph_rows(const struct bmodel *m, const struct step_plan *p)
{
    const struct plan_limits *n = &p->n;
    if (m->graphs.off || !n->n_row || n->n_row > MAX_ROW || n->n_row > m->limits.n_row)
        return 0;
    int bucket = bucket_of(n->n_row);
    bool there = false;
    for (int kind = 0; kind < CUDA_GRAPH_KINDS; kind++)
        there = there || m->graphs.exec[bucket][kind];
    if (!there || n->n_mix > bucket_rows(bucket) || !runs_all_layers(p, m->d.n_layer))
        return 0;
    return bucket_rows(bucket);
}

struct CUgraphExec_st *cuda_graph_of(struct bmodel *m, int32_t n_row)
{
    int kind = 0;
    for (int i = 0; i < m->n_kind; i++) {
        const struct attn_work *w = &m->lists.attn[i];
        kind |= (w->n_item > w->n_narrow ? KIND_WIDE : 0) | (w->n_fold ? KIND_FOLDS : 0);
    }
    struct CUgraphExec_st *g = m->graphs.exec[bucket_of(n_row)][kind];
    for (int i = 0; g && kind & KIND_WIDE && i < m->n_kind; i++)
        m->lists.count[i].n_narrow = 0; /* four warps take them as well, with the same results */
    return g;
}

/* ---- Recording ---- */

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static struct attn_grid grid_of(const struct bmodel *m, int32_t n_row, int kind)
{
    int32_t most = (ATTN_QUEUE * m->b->n_block + m->d.n_head_kv - 1) / m->d.n_head_kv;
    int32_t n = kind & KIND_FOLDS ? most : least(n_row, most); /* what is not cut has at least a row an item */
    return (struct attn_grid){
        .narrow = kind & KIND_WIDE ? 0 : n, .wide = kind & KIND_WIDE ? n : 0, .fold = kind & KIND_FOLDS ? n_row : 0};
}

static int record(struct bmodel *m, int bucket, int kind, struct err *e)
{
    const struct backend *b = m->b;
    int32_t n_row = bucket_rows(bucket);
    struct span all = {.n_row = n_row, .layer1 = (int16_t)m->d.n_layer};
    struct step_plan p = {.n = {.n_span = 1, .n_row = n_row, .n_mix = n_row}, .span = &all};
    struct attn_grid grid = grid_of(m, n_row, kind);
    cuda_lists_layout(&p.n, m->pool.kv.block_len, m->pool.cap_item, m->pool.host_upload, &m->lists);
    int rc = cuda_check(b, b->api->graph_begin(b->stream), "recording a graph", e);
    if (rc)
        return rc;
    struct CUgraphExec_st *graph = NULL;
    rc = cuda_forward_rows(m, &p, &grid, e);
    int code = b->api->graph_end(b->stream, &graph), launches = b->api->last_error();
    if (!rc)
        rc = cuda_check(b, code ? code : launches, "making a graph", e);
    m->comm_code = 0; /* what cannot be recorded may run all the same */
    if (rc)
        b->api->graph_destroy(graph);
    else
        m->graphs.exec[bucket][kind] = graph;
    return rc;
}

/* An item has one warp where all queries of a row fit one, and then some steps have nothing but such items. */
static bool can_occur(const struct bmodel *m, int32_t n_row, int kind)
{
    int32_t group = m->d.n_head / m->d.n_head_kv;
    return kind & KIND_WIDE ? n_row * group > ATTN_WARP_QUERIES : group <= ATTN_WARP_QUERIES;
}

static size_t free_bytes(const struct backend *b)
{
    size_t bytes = 0;
    b->api->free_bytes(&bytes);
    return bytes;
}

void cuda_graphs_create(struct bmodel *m)
{
    struct err e = {0};
    size_t left = free_bytes(m->b);
    int64_t start_ns = clock_ns();
    int32_t n = 0;
    int rc = 0;
    for (int bucket = 0; bucket < CUDA_GRAPH_BUCKETS && bucket_rows(bucket) <= m->limits.n_row; bucket++)
        for (int kind = 0; !rc && kind < CUDA_GRAPH_KINDS; kind++)
            if (can_occur(m, bucket_rows(bucket), kind)) {
                rc = record(m, bucket, kind, &e);
                n += !rc;
            }
    double ms = (double)(clock_ns() - start_ns) * 1e-6;
    if (rc) {
        log_line(LOG_WARN, "cuda graphs",
                 "graphs=%d error=\"%s\" consequence=\"other steps are launched kernel by kernel\"", n, e.msg);
        return;
    }
    size_t now = free_bytes(m->b);
    log_line(LOG_INFO, "cuda graphs", "graphs=%d ms=%.0f mib=%.1f", n, ms,
             left > now ? (double)(left - now) / (1 << 20) : 0);
}

void cuda_graph_free(struct bmodel *m, int bucket, int kind)
{
    m->b->api->graph_destroy(m->graphs.exec[bucket][kind]);
    m->graphs.exec[bucket][kind] = NULL;
}

void cuda_graphs_free(struct bmodel *m)
{
    for (int bucket = 0; bucket < CUDA_GRAPH_BUCKETS; bucket++)
        for (int kind = 0; kind < CUDA_GRAPH_KINDS; kind++)
            cuda_graph_free(m, bucket, kind);
    m->graphs.off = false;
}
