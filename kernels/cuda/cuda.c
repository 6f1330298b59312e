/* The back end's operations: opening a device, figures. */
#include <stdio.h>

#include "cuda.h"
#include "mem.h"

enum { BLOCKS_PER_SM = 2 }; /* what shared memory leaves room for */

static const struct cuda_api *runtime;

int cuda_enter(const struct backend *b, struct err *e)
{
    return cuda_check(b, b->api->use_device(b->index), "choosing the device", e);
}

static void close_device(struct backend *b)
{
    if (!b)
        return;
    cuda_enter(b, NULL);
    b->api->stream_destroy(b->stream);
    mem_free(b);
}

static int open_device(const struct backend_options *opt, struct backend **out, struct err *e)
{
    int32_t n_device = 0;
    *out = NULL;
    struct backend *b = mem_calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_NOMEM, "out of memory");
    *b = (struct backend){.api = runtime, .opt = *opt, .device.name = "cuda"};
    int rc = cuda_devices(runtime, &n_device, e);
    if (!rc)
        rc = cuda_device(runtime, b->index, &b->device, e);
    if (!rc)
        rc = cuda_enter(b, e);
    if (!rc)
        rc = cuda_check(b, runtime->stream_create(&b->stream), "creating a stream", e);
    if (rc) {
        mem_free(b);
        return rc;
    }
    b->n_block = BLOCKS_PER_SM * b->device.n_sm;
    *out = b;
    return 0;
}

static int usable(struct err *e)
{
    struct cuda_device first;
    int32_t n;
    int rc = cuda_devices(runtime, &n, e);
    return rc ? rc : cuda_device(runtime, 0, &first, e);
}

/* Of one device; an error counts as nothing free. */
static size_t kv_available(const struct bmodel *m)
{
    size_t bytes = 0;
    if (cuda_enter(m->b, NULL) || m->b->api->free_bytes(&bytes))
        return 0;
    return bytes;
}

static void stats(const struct bmodel *m, struct backend_stats *s)
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

static const struct backend_ops ops = {
    .name = "cuda",
    .usable = usable,
    .open = open_device,
    .load = cuda_load,
    .kv_bytes = cuda_kv_bytes,
    .kv_available = kv_available,
    .kv_create = cuda_kv_create,
    .submit = cuda_submit,
    .wait = cuda_wait,
    .stats = stats,
    .unload = cuda_unload,
    .close = close_device,
};

const struct backend_ops *cuda_backend(const struct cuda_api *api)
{
    runtime = api;
    return &ops;
}
