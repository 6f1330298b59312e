/* The back end's operations: opening a device, errors, figures. */
#include <stdio.h>

#include "cuda.h"
#include "mem.h"

enum { BLOCKS_PER_SM = 2 }; /* what shared memory leaves room for */

static const struct cuda_api *runtime;

int cuda_check(const struct backend *b, int code, const char *what, struct err *e)
{
    if (!code)
        return 0;
    return err_set(e, code == CUDA_NO_MEMORY ? ERR_NOMEM : ERR_DEVICE, "%s: %s: %s", b->device.name, what,
                   b->api->error_text(code));
}

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
    int rc = cuda_check(b, runtime->device_count(&n_device), "looking for devices", e);
    if (!rc && n_device < 1)
        rc = err_set(e, ERR_NOTFOUND, "cuda: this machine has no device");
    if (!rc)
        rc = cuda_check(b, runtime->device_info(b->index, &b->device), "asking what the device is", e);
    if (!rc && b->device.major < 8)
        rc = err_set(e, ERR_NOTFOUND, "%s has compute capability %d.%d; 8.0 is the least that cuda runs on",
                     b->device.name, b->device.major, b->device.minor);
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

static void stats(const struct bmodel *m, struct backend_stats *s)
{
    const struct cuda_device *d = &m->b->device;
    *s = (struct backend_stats){.weight_bytes = m->weight_bytes,
                                .kv_bytes = m->pool.kv_bytes,
                                .scratch_bytes = m->pool.scratch_bytes,
                                .n_thread = 1};
    snprintf(s->device, sizeof s->device, "cuda %s, %d multiprocessors, %zu MiB", d->name, d->n_sm,
             d->total_bytes >> 20);
}

static const struct backend_ops ops = {
    .name = "cuda",
    .open = open_device,
    .load = cuda_load,
    .kv_bytes = cuda_kv_bytes,
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
