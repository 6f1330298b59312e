/* The operations over several devices: the model is cut (shard.c), and every rank runs what one device runs, on a
 * thread of its own, with sums and exchanges between. A plan is the same for all; results are collected from where they
 * are. */
#include <stdio.h>
#include <string.h>

#include "cuda.h"
#include "log.h"
#include "mem.h"
#include "ranks.h"

/* ---- Opening ---- */

static int32_t timeout_of(const struct backend *b)
{
    return b->comm_api->timeout_ms;
}

/* Kernels for another capability add up in another order, and the slowest rank sets the pace: such a mixture is nothing
 * that anyone wants. Memory may differ: what the ranks need is alike, so the smallest has the say. */
static int check_alike(struct backend *const *rank, int32_t n, struct err *e)
{
    const struct cuda_device *first = &rank[0]->device;
    for (int32_t i = 1; i < n; i++) {
        const struct cuda_device *d = &rank[i]->device;
        if (d->major != first->major || d->minor != first->minor)
            return err_set(e, ERR_INVALID,
                           "--tensor-parallel %d needs devices of one kind: %s has compute capability %d.%d, %s has "
                           "%d.%d (CUDA_VISIBLE_DEVICES chooses)",
                           n, first->name, first->major, first->minor, d->name, d->major, d->minor);
        if (d->total_bytes != first->total_bytes)
            log_line(LOG_WARN, "cuda devices differ",
                     "device0_mib=%zu device%d_mib=%zu consequence=\"the smaller decides what fits\"",
                     first->total_bytes >> 20, i, d->total_bytes >> 20);
    }
    return 0;
}

static int open_stream(struct backend *b, void *arg, struct err *e)
{
    (void)arg;
    return cuda_stream_open(b, e);
}

static int join_others(struct backend *b, void *arg, struct err *e)
{
    struct comm *c = NULL;
    int code = b->comm_api->join(&c, arg, b->n_rank, b->index);
    atomic_store(&b->comm, c);
    return cuda_comm_check(b, code, "joining the other ranks", e);
}

static int close_rank(struct backend *b, void *arg, struct err *e)
{
    (void)arg, (void)e;
    cuda_device_close(b);
    return 0;
}

/* A rank that is stuck keeps its back end: its thread may yet come back to it. */
static void close_all(struct backend **rank, int32_t n, struct ranks *ranks)
{
    bool stuck = ranks && ranks_stuck(ranks);
    if (ranks && !stuck)
        ranks_run(ranks, false, 0, close_rank, NULL, NULL);
    for (int32_t i = 0; !ranks && i < n; i++)
        mem_free(rank[i]);
    ranks_free(ranks);
    mem_free(rank);
}

static int open_ranks(struct backend **rank, int32_t n, struct ranks **ranks, struct err *e)
{
    const struct comm_api *comm = rank[0]->comm_api;
    struct comm_id id;
    int rc = check_alike(rank, n, e);
    if (!rc)
        rc = comm->find(e);
    if (!rc)
        rc = ranks_create(ranks, rank, n, e);
    if (!rc)
        rc = ranks_run(*ranks, false, 0, open_stream, NULL, e);
    if (!rc)
        rc = cuda_comm_check(rank[0], comm->make_id(&id), "beginning a communicator", e);
    return rc ? rc : ranks_run(*ranks, true, timeout_of(rank[0]), join_others, &id, e);
}

int parallel_open(const struct backend_options *opt, const struct cuda_libraries *libs, struct backend **out,
                  struct err *e)
{
    int32_t n = opt->tensor_parallel;
    struct ranks *ranks = NULL;
    struct backend **rank = mem_calloc((size_t)n, sizeof *rank);
    *out = NULL;
    if (!rank)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = 0;
    for (int32_t i = 0; !rc && i < n; i++) {
        rc = cuda_device_open(opt, libs, i, n, &rank[i], e);
        if (!rc) { /* devices of one name are told apart by their number */
            char *name = rank[i]->device.name;
            size_t at = strnlen(name, sizeof rank[i]->device.name - 8);
            snprintf(name + at, sizeof rank[i]->device.name - at, " #%d", i);
        }
    }
    if (!rc)
        rc = open_ranks(rank, n, &ranks, e);
    if (rc) {
        close_all(rank, n, ranks);
        return rc;
    }
    rank[0]->rank = rank;
    rank[0]->ranks = ranks;
    *out = rank[0];
    return 0;
}

void parallel_close(struct backend *b)
{
    close_all(b->rank, b->n_rank, b->ranks);
}

/* ---- Loading ---- */

struct loading { /* owner: parallel_load */
    const struct model_desc *d;
    const struct model_weights *w;
    load_progress progress;
    void *arg;
    struct bmodel **rank; /* [n_rank] each written by its rank */
    atomic_bool stop;     /* one has failed: the others need not go on */
};

struct loading_rank {
    struct loading *l;
    bool reports;
};

static int report(void *arg, size_t done, size_t total)
{
    struct loading_rank *r = arg;
    struct loading *l = r->l;
    if (r->reports && l->progress && l->progress(l->arg, done, total))
        atomic_store(&l->stop, true);
    return atomic_load(&l->stop);
}

static int load_rank(struct backend *b, void *arg, struct err *e)
{
    struct loading *l = arg;
    struct loading_rank own = {.l = l, .reports = b->index == 0};
    int rc = cuda_load(b, l->d, l->w, report, &own, &l->rank[b->index], e);
    if (rc)
        atomic_store(&l->stop, true);
    return rc;
}

static int unload_rank(struct backend *b, void *arg, struct err *e)
{
    struct bmodel **rank = arg;
    (void)e;
    cuda_unload(rank[b->index]);
    return 0;
}

/* The ranks' memory; nothing of them where one is stuck. */
static void unload_all(struct backend *b, struct bmodel **rank)
{
    if (ranks_stuck(b->ranks) || ranks_run(b->ranks, false, timeout_of(b), unload_rank, rank, NULL))
        return;
    mem_free(rank);
}

int parallel_load(struct backend *b, const struct model_desc *d, const struct model_weights *w, load_progress progress,
                  void *arg, struct bmodel **out, struct err *e)
{
    struct loading l = {.d = d, .w = w, .progress = progress, .arg = arg};
    *out = NULL;
    l.rank = mem_calloc((size_t)b->n_rank, sizeof(struct bmodel *));
    if (!l.rank)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = ranks_run(b->ranks, false, 0, load_rank, &l, e);
    if (rc) {
        unload_all(b, l.rank);
        return rc;
    }
    l.rank[0]->rank = l.rank;
    *out = l.rank[0];
    return 0;
}

void parallel_unload(struct bmodel *m)
{
    unload_all(m->b, m->rank);
}

/* ---- Memory ---- */

size_t parallel_kv_bytes(const struct bmodel *m, const struct kv_config *kv)
{
    size_t most = 0;
    for (int32_t i = 0; i < m->b->n_rank; i++) {
        size_t bytes = cuda_kv_bytes(m->rank[i], kv);
        most = bytes > most ? bytes : most;
    }
    return most;
}

struct asking {
    struct bmodel *const *rank;
    size_t *bytes; /* [n_rank] */
};

static int ask_available(struct backend *b, void *arg, struct err *e)
{
    struct asking *a = arg;
    (void)e;
    a->bytes[b->index] = cuda_kv_available(a->rank[b->index]);
    return 0;
}

size_t parallel_kv_available(const struct bmodel *m)
{
    size_t bytes[RANKS_MAX], least = SIZE_MAX;
    struct asking a = {.rank = m->rank, .bytes = bytes};
    if (ranks_lost(m->b->ranks))
        return 0;
    ranks_run(m->b->ranks, false, 0, ask_available, &a, NULL);
    for (int32_t i = 0; i < m->b->n_rank; i++)
        least = bytes[i] < least ? bytes[i] : least;
    return least;
}

struct creating {
    struct bmodel *const *rank;
    const struct kv_config *kv;
    bool drop[CUDA_GRAPH_BUCKETS][CUDA_GRAPH_KINDS]; /* graphs that some rank has not */
};

static int create_kv(struct backend *b, void *arg, struct err *e)
{
    struct creating *c = arg;
    return cuda_kv_create(c->rank[b->index], c->kv, e);
}

static int free_kv(struct backend *b, void *arg, struct err *e)
{
    struct creating *c = arg;
    (void)e;
    cuda_pool_free(c->rank[b->index]);
    return 0;
}

static int meet(struct backend *b, void *arg, struct err *e)
{
    struct creating *c = arg;
    return cuda_meet(c->rank[b->index], e);
}

static int prepare(struct backend *b, void *arg, struct err *e)
{
    struct creating *c = arg;
    (void)e;
    cuda_prepare(c->rank[b->index]);
    return 0;
}

/* A graph that not all ranks could make is nobody's: they keep to the same calls. */
static int keep_common_graphs(struct backend *b, void *arg, struct err *e)
{
    struct creating *c = arg;
    (void)e;
    for (int bucket = 0; bucket < CUDA_GRAPH_BUCKETS; bucket++)
        for (int kind = 0; kind < CUDA_GRAPH_KINDS; kind++)
            if (c->drop[bucket][kind])
                cuda_graph_free(c->rank[b->index], bucket, kind);
    return 0;
}

static void find_common_graphs(struct creating *c, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        for (int bucket = 0; bucket < CUDA_GRAPH_BUCKETS; bucket++)
            for (int kind = 0; kind < CUDA_GRAPH_KINDS; kind++)
                c->drop[bucket][kind] = c->drop[bucket][kind] || !c->rank[i]->graphs.exec[bucket][kind];
}

int parallel_kv_create(struct bmodel *m, const struct kv_config *kv, struct err *e)
{
    struct ranks *ranks = m->b->ranks;
    struct creating c = {.rank = m->rank, .kv = kv};
    if (ranks_lost(ranks))
        return err_set(e, ERR_DEVICE, "a device was lost");
    int rc = ranks_run(ranks, false, 0, create_kv, &c, e);
    if (!rc)
        rc = ranks_run(ranks, true, timeout_of(m->b), meet, &c, e);
    if (!rc)
        rc = ranks_run(ranks, true, timeout_of(m->b), prepare, &c, e);
    if (!rc) {
        find_common_graphs(&c, m->b->n_rank);
        rc = ranks_run(ranks, false, 0, keep_common_graphs, &c, e);
    }
    if (rc && !ranks_stuck(ranks))
        ranks_run(ranks, false, 0, free_kv, &c, NULL);
    return rc;
}

/* ---- Steps ---- */

static int step_rank(struct backend *b, void *arg, struct err *e)
{
    struct bmodel *const *rank = arg;
    struct bmodel *m = rank[b->index];
    int rc = cuda_submit(m, rank[0]->shared_plan, e);
    return rc ? rc : cuda_finish(m, e);
}

int parallel_submit(struct bmodel *m, const struct step_plan *p, struct err *e)
{
    BUG_ON(m->shared_plan);
    if (ranks_lost(m->b->ranks))
        return err_set(e, ERR_DEVICE, "a device was lost");
    m->shared_plan = p;
    ranks_start(m->b->ranks, true, step_rank, m->rank);
    return 0;
}

int parallel_wait(struct bmodel *m, struct step_result *r, struct err *e)
{
    const struct step_plan *p = m->shared_plan;
    BUG_ON(!p);
    int rc = ranks_finish(m->b->ranks, timeout_of(m->b), e);
    m->shared_plan = NULL;
    for (int32_t i = 0; !rc && i < m->b->n_rank; i++)
        cuda_collect(m->rank[i], p, r);
    return rc;
}

/* ---- Figures ---- */

void parallel_stats(const struct bmodel *m, struct backend_stats *s)
{
    const struct cuda_device *d = &m->b->device;
    cuda_stats(m, s);
    for (int32_t i = 1; i < m->b->n_rank; i++) {
        struct backend_stats one;
        cuda_stats(m->rank[i], &one);
        s->weight_bytes += one.weight_bytes;
        s->kv_bytes += one.kv_bytes;
        s->scratch_bytes += one.scratch_bytes;
    }
    s->n_thread = m->b->n_rank;
    snprintf(s->device, sizeof s->device, "cuda %d devices as %.60s, %d multiprocessors, %zu MiB", m->b->n_rank,
             d->name, d->n_sm, d->total_bytes >> 20);
}
