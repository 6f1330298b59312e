#include "upload.h"

#include <stdatomic.h>

#include "cuda.h"
#include "pool.h"
#include "topology.h"

/* RANK_THREADS: more of them make weights faster than a link takes them. TURNS: a thread takes so many pieces of a
 * buffer, so that nobody waits long for one that is held up. */
enum { RANK_THREADS = 16, TURNS = 8, ALIGN = 256 };

int32_t upload_threads(const struct backend *b)
{
    const char *root = b->opt.root ? b->opt.root : "";
    int32_t n = b->opt.n_thread;
    if (n <= 0) {
        struct cpu_mask allowed;
        struct topology t;
        topology_allowed(&allowed);
        topology_read(&t, root, &allowed);
        n = topology_threads(&t, root);
        n = n < RANK_THREADS * b->n_rank ? n : RANK_THREADS * b->n_rank;
    }
    int32_t own = n * (b->index + 1) / b->n_rank - n * b->index / b->n_rank;
    return own > 0 ? own : 1;
}

void upload_plan(struct upload *u, const struct upload_work *w)
{
    size_t bytes = w->unit_bytes * (size_t)w->n_unit;
    u->least_bytes = w->unit_bytes > u->least_bytes ? w->unit_bytes : u->least_bytes;
    u->most_bytes = bytes > u->most_bytes ? bytes : u->most_bytes;
    u->total += w->file_bytes;
}

int upload_open(struct upload *u, struct err *e)
{
    const struct cuda_api *api = u->b->api;
    void *buffer = NULL;
    size_t bytes = u->most_bytes < u->b->upload_bytes ? u->most_bytes : u->b->upload_bytes;
    bytes = bytes > u->least_bytes ? bytes : u->least_bytes;
    u->buffer_bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    int rc = pool_create(&u->pool, upload_threads(u->b), e);
    if (!rc)
        rc = cuda_check(u->b, api->host_alloc(&buffer, 2 * u->buffer_bytes), "allocating pinned memory", e);
    u->buffer = buffer;
    return rc;
}

void upload_close(struct upload *u)
{
    if (u->buffer)
        u->b->api->stream_wait(u->b->stream); /* an error has been reported, or changes nothing */
    u->b->api->host_free(u->buffer);
    pool_free(u->pool);
    u->buffer = NULL;
    u->pool = NULL;
}

struct making { /* a buffer's units: pieces of them are handed out */
    const struct upload_work *w;
    int64_t first, n, piece;
    char *to;
    atomic_llong next;
    atomic_int rc; /* of a piece that failed */
};

static void make_pieces(void *arg, int worker)
{
    struct making *m = arg;
    int64_t at;
    (void)worker;
    while ((at = atomic_fetch_add_explicit(&m->next, m->piece, memory_order_relaxed)) < m->n) {
        int64_t n = m->n - at < m->piece ? m->n - at : m->piece;
        int rc = m->w->make(m->w->arg, m->first + at, n, m->to + m->w->unit_bytes * (size_t)at);
        if (rc)
            atomic_store_explicit(&m->rc, rc, memory_order_relaxed);
    }
}

static int make(struct upload *u, const struct upload_work *w, int64_t first, int64_t n, char *to, struct err *e)
{
    struct making m = {.w = w, .first = first, .n = n, .piece = n / (pool_size(u->pool) * TURNS), .to = to};
    m.piece = m.piece > 0 ? m.piece : 1;
    if (n == 1)
        make_pieces(&m, 0);
    else
        pool_run(u->pool, make_pieces, &m);
    int rc = atomic_load(&m.rc);
    return rc ? err_set(e, -rc, "a weight does not fit its packed form") : 0;
}

/* The other buffer is free from here on: its copy had all the time that this one was made in. */
static int send(struct upload *u, char *to, const char *from, size_t bytes, struct err *e)
{
    const struct backend *b = u->b;
    int code = b->api->stream_wait(b->stream);
    if (!code)
        code = b->api->copy(to, from, bytes, b->stream);
    return cuda_check(b, code, "copying weights", e);
}

int upload_run(struct upload *u, const struct upload_work *w, void *to, struct err *e)
{
    int64_t step = (int64_t)(u->buffer_bytes / w->unit_bytes);
    size_t before = u->done;
    for (int64_t at = 0; at < w->n_unit; at += step) {
        int64_t n = w->n_unit - at < step ? w->n_unit - at : step;
        char *buffer = u->buffer + u->buffer_bytes * (size_t)u->at;
        int rc = make(u, w, at, n, buffer, e);
        if (!rc)
            rc = send(u, (char *)to + w->unit_bytes * (size_t)at, buffer, w->unit_bytes * (size_t)n, e);
        if (rc)
            return rc;
        u->at = !u->at;
        u->done = before + w->file_bytes * (size_t)(at + n) / (size_t)w->n_unit;
        if (u->progress && u->progress(u->arg, u->done, u->total))
            return err_set(e, ERR_CANCELED, "loading was stopped");
    }
    return 0;
}

int upload_finish(struct upload *u, struct err *e)
{
    return cuda_check(u->b, u->b->api->stream_wait(u->b->stream), "copying weights", e);
}
