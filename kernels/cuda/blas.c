/* Products of many rows by a library, where it is faster (blas.h): what it cannot read is unpacked for it first, a
 * piece of the outputs at a time, which then comes from the cache. Rounding a quantised weight to bf16 and the
 * library's own order of sums make results depend on how many rows there are, so the batch-invariant mode has none of
 * it, and nor has the choice of experts, which is to be the same on all ranks.
 *
 * Which products of the layers there are is seen while graphs are recorded; each is then timed both ways, for every
 * power of two of rows, before anything is served. Graphs hold own kernels alone: they end where this begins. */
#include "blas.h"
#include "forward.h"
#include "log.h"
#include "mem.h"
#include "wake.h"

enum { FIRST_ROWS = 512, LEAST_ROWS = FIRST_ROWS / 2 + 1 }; /* of buckets, of which each has twice the last one's */
enum { TRIALS = 4 };

#define CLEARLY 0.97 /* of the own kernel's time */

struct blas_site {         /* a product of the layers; one for all that differ in where they read and write alone */
    struct gemm_args args; /* as it was recorded */
    struct blas_plan *plan[CUDA_BLAS_BUCKETS]; /* owned; of up to 512, 1024 .. rows; NULL: the own kernel is to run */
};

static int32_t bucket_of(int32_t n_row)
{
    int bucket = 0;
    while (bucket + 1 < CUDA_BLAS_BUCKETS && n_row > FIRST_ROWS << bucket)
        bucket++;
    return bucket;
}

static int32_t bucket_rows(const struct bmodel *m, int bucket)
{
    int32_t n = FIRST_ROWS << bucket;
    return n < m->limits.n_row ? n : m->limits.n_row;
}

/* ---- Opening ---- */

static bool serves(const struct gemm_weight *w)
{
    return w->data && gemm_can_unpack(w->format);
}

/* Dense weights of a layer; with experts, gate, up and down are groups' and stay with the own kernels. */
static int layer_weights(const struct cuda_layer *l, const struct gemm_weight *out[7])
{
    const struct cuda_ffn *f = l->ffn;
    const struct gemm_weight *all[] = {&l->wq, &l->wk, &l->wv, &l->wo, &f->gate_up, &f->gate, &f->up, &f->down};
    int n = 0;
    for (int i = 0; i < (l->router.data ? 4 : 8); i++)
        if (serves(all[i]))
            out[n++] = all[i];
    return n;
}

static bool serves_any(const struct bmodel *m)
{
    const struct gemm_weight *w[7];
    for (int32_t l = 0; l < m->d.n_layer; l++)
        if (layer_weights(&m->layer[l], w))
            return true;
    return false;
}

void cuda_blas_open(struct bmodel *m)
{
    const struct blas_api *api = m->b->blas_api;
    struct err e = {0};
    if (!api || m->b->opt.deterministic || m->limits.n_row < LEAST_ROWS || !serves_any(m))
        return;
    if (api->find(&e)) {
        log_line(LOG_INFO, "cuda blas", "library=none error=\"%s\" consequence=\"all products are by own kernels\"",
                 e.msg);
        return;
    }
    int code = api->open(&m->blas.library);
    if (code) {
        m->blas.library = NULL;
        log_line(LOG_WARN, "cuda blas", "library=%s error=\"%s\" consequence=\"all products are by own kernels\"",
                 api->name, api->error_text(code));
    }
}

void cuda_blas_close(struct bmodel *m)
{
    if (m->blas.library)
        m->b->blas_api->close(m->blas.library);
    m->blas.library = NULL;
}

/* ---- Memory ---- */

static int32_t whole_panels(size_t n)
{
    return n < GEMM_PANEL ? GEMM_PANEL : (int32_t)(n / GEMM_PANEL * GEMM_PANEL);
}

/* Outputs of each matrix that are unpacked at a time. */
static int32_t piece_of(const struct bmodel *m, const struct gemm_weight *w)
{
    size_t bytes = m->b->blas_api->piece_bytes, most = (size_t)w->n_out + GEMM_PANEL - 1;
    size_t n = bytes / sizeof(struct bf16) / (size_t)w->n_in;
    size_t n_glu = bytes / (2 * sizeof(float)) / (size_t)m->limits.n_row; /* and what comes of them in between */
    n = n < most ? n : most;
    return whole_panels(w->n_matrix > 1 && n_glu < n ? n_glu : n);
}

static size_t greater(size_t a, size_t b)
{
    return a > b ? a : b;
}

void cuda_blas_layout(const struct bmodel *m, struct cuda_arena *a, struct cuda_pool *p)
{
    size_t unpacked = 0, glu = 0;
    if (!m->blas.library)
        return;
    for (int32_t l = 0; l < m->d.n_layer; l++) {
        const struct gemm_weight *w[7];
        int n = layer_weights(&m->layer[l], w);
        for (int i = 0; i < n; i++) {
            size_t piece = (size_t)piece_of(m, w[i]);
            unpacked = greater(unpacked, piece * (size_t)w[i]->n_in);
            glu = greater(glu, w[i]->n_matrix > 1 ? 2 * piece : 0);
        }
    }
    p->unpacked = cuda_arena_take(a, unpacked, sizeof *p->unpacked);
    p->gated = cuda_arena_take(a, glu * (size_t)m->limits.n_row, sizeof *p->gated);
    p->blas_workspace = cuda_arena_take(a, 1, m->b->blas_api->workspace_bytes);
}

/* ---- Which products there are ---- */

static bool same_site(const struct gemm_args *a, const struct gemm_args *b)
{
    return a->weight.format == b->weight.format && a->weight.n_matrix == b->weight.n_matrix &&
           a->weight.n_out == b->weight.n_out && a->weight.n_in == b->weight.n_in && a->epilogue == b->epilogue &&
           a->out_stride == b->out_stride;
}

static struct blas_site *site_of(const struct bmodel *m, const struct gemm_args *a)
{
    for (struct blas_site *s = m->blas.site; s < m->blas.site + m->blas.n_site; s++)
        if (same_site(&s->args, a))
            return s;
    return NULL;
}

/* A product that the library's table can say. */
static bool is_plain(const struct gemm_args *a)
{
    return !a->group && !a->bias && a->x_stride == a->weight.n_in && serves(&a->weight);
}

static void note(struct bmodel *m, const struct gemm_args *a)
{
    struct cuda_blas *b = &m->blas;
    if (!is_plain(a) || site_of(m, a))
        return;
    if (b->n_site < CUDA_BLAS_SITES)
        b->site[b->n_site++].args = *a;
}

void cuda_blas_watch(struct bmodel *m)
{
    struct cuda_blas *b = &m->blas;
    b->site = b->library ? mem_calloc(CUDA_BLAS_SITES, sizeof *b->site) : NULL;
    b->watches = b->site != NULL;
}

/* ---- Running ---- */

static int run_piece(struct bmodel *m, struct blas_plan *plan, const struct gemm_args *a, int32_t matrix, int32_t out0,
                     int32_t n, float *out)
{
    const struct backend *b = m->b;
    struct unpack_args unpack = {
        .weight = a->weight, .matrix = matrix, .out0 = out0, .n_out = n, .out = m->pool.unpacked};
    struct blas_operands o = {.w = m->pool.unpacked,
                              .x = a->x,
                              .out = out,
                              .workspace = m->pool.blas_workspace,
                              .n_out = n,
                              .n_row = a->n_row};
    gemm_unpack(&unpack, b->stream);
    return b->blas_api->run(m->blas.library, plan, &o, b->stream);
}

static int run_glu_piece(struct bmodel *m, struct blas_plan *plan, const struct gemm_args *a, int32_t out0, int32_t n,
                         int32_t piece)
{
    struct glu_args glu = {.gate = m->pool.gated,
                           .up = m->pool.gated + piece,
                           .out = a->out_bf16 + out0,
                           .n_row = a->n_row,
                           .n = n,
                           .stride = 2 * piece,
                           .out_stride = a->out_stride,
                           .gelu = a->gelu};
    int code = run_piece(m, plan, a, 0, out0, n, m->pool.gated);
    if (!code)
        code = run_piece(m, plan, a, 1, out0, n, m->pool.gated + piece);
    if (!code)
        rows_glu(&glu, m->b->stream);
    return code;
}

static int run_all(struct bmodel *m, struct blas_plan *plan, const struct gemm_args *a)
{
    int32_t piece = piece_of(m, &a->weight), n_out = a->weight.n_out;
    int code = 0;
    for (int32_t at = 0; !code && at < n_out; at += piece) {
        int32_t n = n_out - at < piece ? n_out - at : piece;
        code = a->epilogue == GEMM_GLU ? run_glu_piece(m, plan, a, at, n, piece)
                                       : run_piece(m, plan, a, 0, at, n, a->out + at);
    }
    return code;
}

static bool is_aligned(const struct gemm_args *a)
{
    return (uintptr_t)a->x % BLAS_ALIGN == 0 && (uintptr_t)a->out % BLAS_ALIGN == 0;
}

bool cuda_blas_product(struct bmodel *m, const struct gemm_args *a)
{
    if (m->blas.watches)
        note(m, a);
    if (a->n_row < LEAST_ROWS || !is_plain(a) || !is_aligned(a))
        return false;
    const struct blas_site *s = site_of(m, a);
    struct blas_plan *plan = s ? s->plan[bucket_of(a->n_row)] : NULL;
    if (!plan)
        return false;
    int code = run_all(m, plan, a);
    if (!m->blas.code)
        m->blas.code = code;
    return true;
}

int cuda_blas_check(struct bmodel *m, struct err *e)
{
    const struct backend *b = m->b;
    int code = m->blas.code;
    return code ? err_set(e, ERR_DEVICE, "%s: %s refused a product: %s", b->device.name, b->blas_api->name,
                          b->blas_api->error_text(code))
                : 0;
}

/* ---- Timing ---- */

static double now_s(void)
{
    return (double)clock_ns() * 1e-9;
}

/* Seconds that the product takes; plan NULL: by the own kernel. Negative: it failed. */
static double time_product(struct bmodel *m, struct blas_plan *plan, const struct gemm_args *a)
{
    const struct backend *b = m->b;
    double (*clock)(void) = b->blas_api->clock ? b->blas_api->clock : now_s, t0 = clock();
    int code = 0;
    if (plan)
        code = run_all(m, plan, a);
    else
        gemm_launch(a, b->stream);
    return b->api->stream_wait(b->stream) || code ? -1 : clock() - t0;
}

/* The best of a few, of which the first may have to warm up. */
static double best_time(struct bmodel *m, struct blas_plan *plan, const struct gemm_args *a)
{
    double best = time_product(m, plan, a);
    for (int i = 1; best >= 0 && i < TRIALS; i++) {
        double s = time_product(m, plan, a);
        best = s < best ? s : best;
    }
    return best;
}

static struct blas_plan *make_plan(const struct bmodel *m, const struct gemm_args *a)
{
    const struct gemm_weight *w = &a->weight;
    bool glu = a->epilogue == GEMM_GLU;
    int32_t piece = piece_of(m, w);
    struct blas_shape shape = {.n_out = piece < w->n_out ? piece : w->n_out,
                               .n_in = w->n_in,
                               .n_row = a->n_row,
                               .out_stride = glu ? 2 * piece : a->out_stride,
                               .add = a->epilogue == GEMM_ADD};
    struct blas_plan *plan = NULL;
    return m->b->blas_api->plan(m->blas.library, &shape, &plan) ? NULL : plan;
}

/* It must do all that a bucket has: tried with the most rows and with the fewest, which are an odd number. */
static bool works(struct bmodel *m, struct blas_plan *plan, const struct gemm_args *a)
{
    struct gemm_args fewest = *a;
    fewest.n_row = a->n_row / 2 + 1;
    return time_product(m, plan, a) >= 0 && time_product(m, plan, &fewest) >= 0;
}

static bool is_faster(struct bmodel *m, struct blas_plan *plan, const struct gemm_args *a)
{
    double by_library = best_time(m, plan, a), own = best_time(m, NULL, a);
    return by_library >= 0 && by_library < CLEARLY * own;
}

/* Keeps a plan where it wins. */
static bool choose(struct bmodel *m, struct blas_site *s, int bucket)
{
    const struct blas_api *api = m->b->blas_api;
    struct gemm_args a = s->args;
    a.n_row = bucket_rows(m, bucket);
    struct blas_plan *plan = make_plan(m, &a);
    if (plan && works(m, plan, &a) && (api->always || is_faster(m, plan, &a))) {
        s->plan[bucket] = plan;
        return true;
    }
    api->forget(plan);
    return false;
}

void cuda_blas_choose(struct bmodel *m)
{
    struct cuda_blas *b = &m->blas;
    double t0 = now_s();
    int n_chosen = 0, n_bucket = b->library ? bucket_of(m->limits.n_row) + 1 : 0;
    b->watches = false;
    for (int32_t i = 0; i < b->n_site; i++)
        for (int bucket = 0; bucket < n_bucket; bucket++)
            n_chosen += choose(m, &b->site[i], bucket);
    if (b->library)
        log_line(LOG_INFO, "cuda blas", "library=%s products=%d row_counts=%d faster=%d ms=%.0f", m->b->blas_api->name,
                 b->n_site, n_bucket, n_chosen, (now_s() - t0) * 1e3);
}

void cuda_blas_forget(struct bmodel *m)
{
    struct cuda_blas *b = &m->blas;
    for (int32_t i = 0; i < b->n_site; i++)
        for (int bucket = 0; bucket < CUDA_BLAS_BUCKETS; bucket++)
            m->b->blas_api->forget(b->site[i].plan[bucket]);
    mem_free(b->site);
    *b = (struct cuda_blas){.library = b->library};
}
