#include "fake_runtime.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fake_graph.h"
#include "simt.h"

enum { ALIGN = 256, MAX_LIVE = 64, LOST = 719, N_SM = 4, RUNTIME_VERSION = 13000 };

struct fake_faults fake_faults;

static struct {
    void *p;
    size_t bytes;
} live[MAX_LIVE]; /* device memory */
static long n_host, n_stream, n_alloc;
static size_t used_bytes;
static int lost;
static bool skips;
static struct { /* as struct fake_calls */
    atomic_long n_kernel, n_copy, n_graph;
} calls;

static bool take_launch(const struct simt_call *c, void *stream);

void fake_runtime_reset(void)
{
    fake_faults = (struct fake_faults){
        .driver_version = RUNTIME_VERSION, .n_device = 1, .major = 8, .total_bytes = (size_t)1 << 30};
    if (fake_runtime_live())
        abort();
    n_alloc = 0;
    lost = 0;
    skips = false;
    fake_runtime_calls();
    simt_on_launch(take_launch);
}

long fake_runtime_live(void)
{
    long n = n_host + n_stream + fake_graph_live();
    for (int i = 0; i < MAX_LIVE; i++)
        n += live[i].p != NULL;
    return n;
}

long fake_runtime_allocs(void)
{
    return n_alloc;
}

void fake_runtime_skip(void)
{
    skips = true;
}

struct fake_calls fake_runtime_calls(void)
{
    return (struct fake_calls){atomic_exchange(&calls.n_kernel, 0), atomic_exchange(&calls.n_copy, 0),
                               atomic_exchange(&calls.n_graph, 0)};
}

static int state(void)
{
    if (fake_faults.lose_at > 0 && --fake_faults.lose_at == 0)
        lost = 1;
    return lost ? LOST : 0;
}

static int allocation_fails(void)
{
    n_alloc++;
    return fake_faults.fail_alloc > 0 && --fake_faults.fail_alloc == 0;
}

static int versions(int32_t *driver, int32_t *runtime)
{
    *driver = fake_faults.driver_version;
    *runtime = RUNTIME_VERSION;
    return 0;
}

static int device_count(int32_t *n)
{
    *n = fake_faults.n_device;
    return fake_faults.driver_version < RUNTIME_VERSION ? CUDA_OLD_DRIVER : *n ? 0 : CUDA_NO_DEVICE;
}

static int device_info(int32_t device, struct cuda_device *out)
{
    *out = (struct cuda_device){.n_sm = N_SM,
                                .major = fake_faults.major,
                                .total_bytes = fake_faults.total_bytes,
                                .prohibited = fake_faults.prohibited};
    snprintf(out->name, sizeof out->name, "fake device %d", device);
    return 0;
}

static int use_device(int32_t device)
{
    return fake_faults.busy ? CUDA_BUSY : device < fake_faults.n_device ? 0 : 101;
}

static int free_bytes(size_t *out)
{
    *out = fake_faults.total_bytes - used_bytes;
    return state();
}

static int device_alloc(void **out, size_t bytes)
{
    int at = 0, code = state();
    *out = NULL;
    if (fake_graph_spoil())
        return FAKE_RECORDING;
    if (code)
        return code;
    if (allocation_fails() || used_bytes + bytes > fake_faults.total_bytes)
        return CUDA_NO_MEMORY;
    while (at < MAX_LIVE && live[at].p)
        at++;
    if (at == MAX_LIVE || (!skips && posix_memalign(out, ALIGN, bytes ? bytes : 1)))
        abort();
    if (!skips)
        memset(*out, 0xff, bytes); /* NaN: what is used before it is written shows */
    else if ((*out = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) ==
             MAP_FAILED)
        abort();
    live[at].p = *out;
    live[at].bytes = bytes;
    used_bytes += bytes;
    return 0;
}

static void device_free(void *p)
{
    for (int i = 0; p && i < MAX_LIVE; i++)
        if (live[i].p == p) {
            if (skips)
                munmap(p, live[i].bytes);
            else
                free(p);
            used_bytes -= live[i].bytes;
            live[i].p = NULL;
            return;
        }
    if (p)
        abort(); /* not the device's, or freed before */
}

static int host_alloc(void **out, size_t bytes)
{
    int code = state();
    *out = NULL;
    if (fake_graph_spoil())
        return FAKE_RECORDING;
    if (code)
        return code;
    if (allocation_fails())
        return CUDA_NO_MEMORY;
    if (posix_memalign(out, ALIGN, bytes ? bytes : 1))
        abort();
    memset(*out, 0xff, bytes);
    n_host++;
    return 0;
}

static void host_free(void *p)
{
    n_host -= p != NULL;
    free(p);
}

static int stream_create(struct CUstream_st **out)
{
    int code = state();
    *out = code ? NULL : malloc(1);
    n_stream += !code;
    return code;
}

static void stream_destroy(struct CUstream_st *s)
{
    n_stream -= s != NULL;
    free(s);
}

static int stream_wait(struct CUstream_st *s)
{
    (void)s;
    if (fake_graph_spoil())
        return FAKE_RECORDING;
    if (fake_faults.lose_after > 0 && --fake_faults.lose_after == 0)
        lost = 1;
    return state();
}

/* ---- What is queued ---- */

struct copying {
    void *dst;
    const void *src; /* NULL: zeros */
    size_t bytes;
};

static void run_copy(void *arg)
{
    struct copying *c = arg;
    if (c->src)
        memcpy(c->dst, c->src, c->bytes);
    else
        memset(c->dst, 0, c->bytes);
}

static int queue_copy(struct copying c, struct CUstream_st *s)
{
    if (fake_graph_record(s, run_copy, &c, sizeof c))
        return 0;
    calls.n_copy++;
    if (!lost && !skips)
        run_copy(&c);
    return state();
}

static int copy(void *dst, const void *src, size_t bytes, struct CUstream_st *s)
{
    return queue_copy((struct copying){dst, src, bytes}, s);
}

static int zero(void *dst, size_t bytes, struct CUstream_st *s)
{
    return queue_copy((struct copying){dst, NULL, bytes}, s);
}

static bool take_launch(const struct simt_call *c, void *stream)
{
    if (fake_graph_record_launch(stream, c))
        return true;
    calls.n_kernel++;
    return skips;
}

static int graph_begin(struct CUstream_st *s)
{
    return lost ? LOST : fake_graph_begin(s);
}

static int graph_end(struct CUstream_st *s, struct CUgraphExec_st **out)
{
    int code = fake_graph_end(s, out);
    if (!code)
        code = allocation_fails() ? CUDA_NO_MEMORY : state();
    if (code) {
        fake_graph_destroy(*out);
        *out = NULL;
    }
    return code;
}

static int graph_launch(struct CUgraphExec_st *g, struct CUstream_st *s)
{
    (void)s;
    calls.n_graph++;
    if (!lost && !skips)
        fake_graph_run(g);
    return state();
}

static const char *error_text(int code)
{
    switch (code) {
    case CUDA_NO_MEMORY:
        return "out of memory";
    case LOST:
        return "unspecified launch failure";
    case FAKE_RECORDING:
        return "operation not permitted when stream is capturing";
    case FAKE_SPOILED:
        return "operation failed due to a previous error during capture";
    }
    return "invalid device";
}

const struct cuda_api fake_runtime = {
    .versions = versions,
    .device_count = device_count,
    .device_info = device_info,
    .use_device = use_device,
    .free_bytes = free_bytes,
    .alloc = device_alloc,
    .free = device_free,
    .host_alloc = host_alloc,
    .host_free = host_free,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_wait = stream_wait,
    .copy = copy,
    .zero = zero,
    .graph_begin = graph_begin,
    .graph_end = graph_end,
    .graph_launch = graph_launch,
    .graph_destroy = fake_graph_destroy,
    .last_error = state,
    .error_text = error_text,
};
