/* The back end's operations: each over one device, or handed on to several. */
#include <stdio.h>

#include "cuda.h"
#include "mem.h"
#include "upload.h"

enum { BLOCKS_PER_SM = 2 }; /* what shared memory leaves room for */

static struct cuda_libraries libraries;

/* ---- One device ---- */

int cuda_enter(const struct backend *b, struct err *e)
{
    return cuda_check(b, b->api->use_device(b->index), "choosing the device", e);
}

int cuda_device_open(const struct backend_options *opt, const struct cuda_libraries *libs, int32_t index,
                     int32_t n_rank, struct backend **out, struct err *e)
{
    *out = NULL;
    struct backend *b = mem_calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_NOMEM, "out of memory");
    b->api = libs->runtime;
    b->blas_api = libs->blas;
    b->comm_api = n_rank > 1 ? libs->comm : NULL;
    b->opt = *opt;
    b->index = index;
    b->n_rank = n_rank;
    int rc = cuda_device(b->api, index, &b->device, e);
    if (rc) {
        mem_free(b);
        return rc;
    }
    b->n_block = BLOCKS_PER_SM * b->device.n_sm;
    b->upload_bytes = UPLOAD_BYTES;
    *out = b;
    return 0;
}

int cuda_stream_open(struct backend *b, struct err *e)
{
    int rc = cuda_enter(b, e);
    return rc ? rc : cuda_check(b, b->api->stream_create(&b->stream), "creating a stream", e);
}

void cuda_device_close(struct backend *b)
{
    if (!b)
        return;
    cuda_enter(b, NULL);
    if (b->comm_api)
        b->comm_api->leave(b->comm);
    b->api->stream_destroy(b->stream);
    mem_free(b);
}

void cuda_prepare(struct bmodel *m)
{
    cuda_blas_watch(m);
    cuda_graphs_create(m);
    cuda_blas_choose(m);
}

size_t cuda_kv_available(const struct bmodel *m)
{
    size_t bytes = 0;
    if (cuda_enter(m->b, NULL) || m->b->api->free_bytes(&bytes))
        return 0;
    return bytes;
}

void cuda_stats(const struct bmodel *m, struct backend_stats *s)
{
    const struct cuda_device *d = &m->b->device;
    *s = (struct backend_stats){.weight_bytes = m->weight_bytes,
                                .kv_bytes = m->pool.kv_bytes,
                                .scratch_bytes = m->pool.scratch_bytes,
                                .n_thread = 1,
                                .kv_type = m->pool.layer0.type == KV_FP8 ? "fp8" : "bf16"};
    snprintf(s->device, sizeof s->device, "cuda %s, %d multiprocessors, %zu MiB", d->name, d->n_sm,
             d->total_bytes >> 20);
}

/* ---- The operations ---- */

static int usable(struct err *e)
{
    struct cuda_device first;
    int32_t n;
    int rc = cuda_devices(libraries.runtime, &n, e);
    return rc ? rc : cuda_device(libraries.runtime, 0, &first, e);
}

static int open_device(const struct backend_options *opt, struct backend **out, struct err *e)
{
    int32_t n_device = 0;
    *out = NULL;
    int rc = cuda_devices(libraries.runtime, &n_device, e);
    if (!rc && opt->tensor_parallel > n_device)
        rc = err_set(e, ERR_INVALID, "--tensor-parallel %d: the NVIDIA driver shows %d device%s", opt->tensor_parallel,
                     n_device, n_device == 1 ? "" : "s");
    if (rc)
        return rc;
    if (opt->tensor_parallel > 1)
        return parallel_open(opt, &libraries, out, e);
    struct backend *b;
    rc = cuda_device_open(opt, &libraries, 0, 1, &b, e);
    if (!rc)
        rc = cuda_stream_open(b, e);
    if (rc) {
        mem_free(b);
        return rc;
    }
    *out = b;
    return 0;
}

static int load(struct backend *b, const struct model_desc *d, const struct model_weights *w, load_progress progress,
                void *arg, struct bmodel **out, struct err *e)
{
    return b->ranks ? parallel_load(b, d, w, progress, arg, out, e) : cuda_load(b, d, w, progress, arg, out, e);
}

static size_t kv_bytes(const struct bmodel *m, const struct kv_config *kv)
{
    return m->rank ? parallel_kv_bytes(m, kv) : cuda_kv_bytes(m, kv);
}

static size_t kv_available(const struct bmodel *m)
{
    return m->rank ? parallel_kv_available(m) : cuda_kv_available(m);
}

static int kv_create(struct bmodel *m, const struct kv_config *kv, struct err *e)
{
    if (m->rank)
        return parallel_kv_create(m, kv, e);
    int rc = cuda_kv_create(m, kv, e);
    if (!rc)
        cuda_prepare(m);
    return rc;
}

static int submit(struct bmodel *m, const struct step_plan *p, struct err *e)
{
    return m->rank ? parallel_submit(m, p, e) : cuda_submit(m, p, e);
}

static int wait_step(struct bmodel *m, struct step_result *r, struct err *e)
{
    if (m->rank)
        return parallel_wait(m, r, e);
    const struct step_plan *p = m->plan;
    int rc = cuda_finish(m, e);
    if (!rc)
        cuda_collect(m, p, r);
    return rc;
}

static void stats(const struct bmodel *m, struct backend_stats *s)
{
    if (m->rank)
        parallel_stats(m, s);
    else
        cuda_stats(m, s);
}

static void unload(struct bmodel *m)
{
    if (m && m->rank)
        parallel_unload(m);
    else
        cuda_unload(m);
}

static void close_device(struct backend *b)
{
    if (b && b->ranks)
        parallel_close(b);
    else
        cuda_device_close(b);
}

static const struct backend_ops ops = {
    .name = "cuda",
    .usable = usable,
    .open = open_device,
    .load = load,
    .kv_bytes = kv_bytes,
    .kv_available = kv_available,
    .kv_create = kv_create,
    .submit = submit,
    .wait = wait_step,
    .stats = stats,
    .unload = unload,
    .close = close_device,
};

const struct backend_ops *cuda_backend(const struct cuda_api *api, const struct comm_api *comm,
                                       const struct blas_api *blas)
{
    libraries = (struct cuda_libraries){api, comm, blas};
    return &ops;
}
