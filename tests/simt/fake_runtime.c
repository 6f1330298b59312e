#include "fake_runtime.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fake_graph.h"
#include "simt.h"

enum {
    ALIGN = 256,
    MAX_LIVE = 64,
    MAX_DEVICE = 8,
    LOST = 719,
    NO_SUCH_DEVICE = 101,
    N_SM = 4,
    RUNTIME_VERSION = 13000,
    MAX_PENDING = 64
};

struct fake_faults fake_faults;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct {
    char *p;
    size_t bytes;
    int32_t device;
} live[MAX_LIVE]; /* device memory */
static long n_host, n_stream, n_alloc;
static size_t used_bytes[MAX_DEVICE];
static bool lost[MAX_DEVICE];
static bool skips, defers;
static _Thread_local int32_t current; /* device of the calling thread */
static struct {                       /* as struct fake_calls */
    atomic_long n_kernel, n_copy, n_graph;
} calls;

struct copying { /* n rows of `width` bytes */
    char *dst;
    const char *src; /* NULL: zeros */
    size_t dst_stride, src_stride, width, n;
};
static struct { /* queued and not done */
    const struct CUstream_st *stream;
    struct copying copy;
} pending[MAX_PENDING];
static int n_pending;

static bool take_launch(const struct simt_call *c, void *stream);
static void run_pending_locked(const struct CUstream_st *s);

void fake_runtime_reset(void)
{
    fake_faults = (struct fake_faults){
        .driver_version = RUNTIME_VERSION, .n_device = 1, .major = 8, .total_bytes = (size_t)1 << 30};
    if (fake_runtime_live())
        abort();
    n_alloc = 0;
    memset(lost, 0, sizeof lost);
    skips = defers = false;
    n_pending = 0;
    fake_runtime_calls();
    simt_on_launch(take_launch);
}

long fake_runtime_live(void)
{
    pthread_mutex_lock(&lock);
    long n = n_host + n_stream + fake_graph_live();
    for (int i = 0; i < MAX_LIVE; i++)
        n += live[i].p != NULL;
    pthread_mutex_unlock(&lock);
    return n;
}

long fake_runtime_allocs(void)
{
    pthread_mutex_lock(&lock);
    long n = n_alloc;
    pthread_mutex_unlock(&lock);
    return n;
}

void fake_runtime_skip(void)
{
    skips = true;
}

void fake_runtime_defer(void)
{
    defers = true;
}

struct fake_calls fake_runtime_calls(void)
{
    return (struct fake_calls){atomic_exchange(&calls.n_kernel, 0), atomic_exchange(&calls.n_copy, 0),
                               atomic_exchange(&calls.n_graph, 0)};
}

static int state_locked(void)
{
    if (current == fake_faults.device && fake_faults.lose_at > 0 && --fake_faults.lose_at == 0)
        lost[current] = true;
    return lost[current] ? LOST : 0;
}

static int state(void)
{
    pthread_mutex_lock(&lock);
    int code = state_locked();
    pthread_mutex_unlock(&lock);
    return code;
}

static bool is_lost(void)
{
    pthread_mutex_lock(&lock);
    bool is = lost[current];
    pthread_mutex_unlock(&lock);
    return is;
}

static int allocation_fails_locked(void)
{
    n_alloc++;
    return current == fake_faults.device && fake_faults.fail_alloc > 0 && --fake_faults.fail_alloc == 0;
}

static size_t total_bytes(int32_t device)
{
    bool odd = fake_faults.odd && fake_faults.odd == device && fake_faults.odd_bytes;
    return odd ? fake_faults.odd_bytes : fake_faults.total_bytes;
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
    if (device < 0 || device >= fake_faults.n_device)
        return NO_SUCH_DEVICE;
    *out = (struct cuda_device){.n_sm = N_SM,
                                .major = fake_faults.major,
                                .minor = fake_faults.odd && fake_faults.odd == device ? fake_faults.odd_minor : 0,
                                .total_bytes = total_bytes(device),
                                .prohibited = fake_faults.prohibited};
    snprintf(out->name, sizeof out->name, "fake device %d", device);
    return 0;
}

static int use_device(int32_t device)
{
    if (fake_faults.busy)
        return CUDA_BUSY;
    if (device >= fake_faults.n_device || device >= MAX_DEVICE)
        return NO_SUCH_DEVICE;
    current = device;
    return 0;
}

static int free_bytes(size_t *out)
{
    pthread_mutex_lock(&lock);
    *out = total_bytes(current) - used_bytes[current];
    int code = state_locked();
    pthread_mutex_unlock(&lock);
    return code;
}

/* Memory that `skips` is not there until it is touched; else it is NaN, so that what is used before it is written
 * shows. */
static void *memory_create(size_t bytes)
{
    void *p = NULL;
    if (skips) {
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            abort();
    } else {
        if (posix_memalign(&p, ALIGN, bytes ? bytes : 1))
            abort();
        memset(p, 0xff, bytes);
    }
    return p;
}

static int alloc_locked(void **out, size_t bytes)
{
    int at = 0, code = state_locked();
    if (code)
        return code;
    if (allocation_fails_locked() || used_bytes[current] + bytes > total_bytes(current))
        return CUDA_NO_MEMORY;
    while (at < MAX_LIVE && live[at].p)
        at++;
    if (at == MAX_LIVE)
        abort();
    *out = live[at].p = memory_create(bytes);
    live[at].bytes = bytes;
    live[at].device = current;
    used_bytes[current] += bytes;
    return 0;
}

static int device_alloc(void **out, size_t bytes)
{
    *out = NULL;
    if (fake_graph_spoil())
        return FAKE_RECORDING;
    pthread_mutex_lock(&lock);
    int code = alloc_locked(out, bytes);
    pthread_mutex_unlock(&lock);
    return code;
}

static void device_free(void *p)
{
    int at = 0;
    pthread_mutex_lock(&lock);
    while (p && at < MAX_LIVE && live[at].p != p)
        at++;
    if (at == MAX_LIVE)
        abort(); /* not a device's, or freed before */
    if (p) {
        if (skips)
            munmap(p, live[at].bytes);
        else
            free(p);
        used_bytes[live[at].device] -= live[at].bytes;
        live[at].p = NULL;
    }
    pthread_mutex_unlock(&lock);
}

static int host_alloc(void **out, size_t bytes)
{
    *out = NULL;
    if (fake_graph_spoil())
        return FAKE_RECORDING;
    pthread_mutex_lock(&lock);
    int code = state_locked();
    if (!code && allocation_fails_locked())
        code = CUDA_NO_MEMORY;
    n_host += !code;
    pthread_mutex_unlock(&lock);
    if (code)
        return code;
    if (posix_memalign(out, ALIGN, bytes ? bytes : 1))
        abort();
    memset(*out, 0xff, bytes);
    return 0;
}

static void host_free(void *p)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; p && i < n_pending; i++)
        if ((size_t)((uintptr_t)pending[i].copy.src - (uintptr_t)p) < malloc_usable_size(p)) {
            fprintf(stderr, "fake runtime: pinned memory is freed that is still to be copied\n");
            abort();
        }
    n_host -= p != NULL;
    pthread_mutex_unlock(&lock);
    free(p);
}

static int stream_create(struct CUstream_st **out)
{
    pthread_mutex_lock(&lock);
    int code = state_locked();
    n_stream += !code;
    pthread_mutex_unlock(&lock);
    *out = code ? NULL : malloc(sizeof **out);
    if (*out)
        (*out)->device = current;
    return code;
}

static void stream_destroy(struct CUstream_st *s)
{
    pthread_mutex_lock(&lock);
    n_stream -= s != NULL;
    pthread_mutex_unlock(&lock);
    free(s);
}

static int stream_wait(struct CUstream_st *s)
{
    if (fake_graph_spoil())
        return FAKE_RECORDING;
    pthread_mutex_lock(&lock);
    if (current == fake_faults.device && fake_faults.lose_after > 0 && --fake_faults.lose_after == 0)
        lost[current] = true;
    int code = state_locked();
    run_pending_locked(s);
    pthread_mutex_unlock(&lock);
    return code;
}

/* ---- What is queued ---- */

static void run_copy(void *arg)
{
    struct copying *c = arg;
    for (size_t i = 0; !skips && i < c->n; i++) {
        if (c->src)
            memcpy(c->dst + i * c->dst_stride, c->src + i * c->src_stride, c->width);
        else
            memset(c->dst + i * c->dst_stride, 0, c->width);
    }
}

/* A lost device does none of it. */
static void run_pending_locked(const struct CUstream_st *s)
{
    int left = 0;
    for (int i = 0; i < n_pending; i++)
        if (pending[i].stream != s)
            pending[left++] = pending[i];
        else if (!lost[s->device])
            run_copy(&pending[i].copy);
    n_pending = left;
}

static void run_pending(const struct CUstream_st *s)
{
    pthread_mutex_lock(&lock);
    run_pending_locked(s);
    pthread_mutex_unlock(&lock);
}

static void add_pending(const struct CUstream_st *s, const struct copying *c)
{
    pthread_mutex_lock(&lock);
    if (n_pending == MAX_PENDING)
        run_pending_locked(s);
    if (n_pending == MAX_PENDING)
        abort();
    pending[n_pending].stream = s;
    pending[n_pending++].copy = *c;
    pthread_mutex_unlock(&lock);
}

/* Memory of another device, or what does not lie within one piece of it, is nobody's to copy. */
static void check_memory(const char *p, size_t bytes, int32_t device)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; p && i < MAX_LIVE; i++)
        if (live[i].p && p >= live[i].p && p < live[i].p + live[i].bytes &&
            (live[i].device != device || p + bytes > live[i].p + live[i].bytes)) {
            fprintf(stderr, "fake runtime: device %d copies %zu bytes of device %d\n", device, bytes, live[i].device);
            abort();
        }
    pthread_mutex_unlock(&lock);
}

static void check_stream(const struct CUstream_st *s)
{
    if (s && s->device == current)
        return;
    fprintf(stderr, "fake runtime: a stream of device %d is used on device %d\n", s ? s->device : -1, current);
    abort();
}

static int queue_copy(struct copying c, struct CUstream_st *s)
{
    check_stream(s);
    if (c.n && c.width) {
        check_memory(c.dst, (c.n - 1) * c.dst_stride + c.width, s->device);
        check_memory(c.src, (c.n - 1) * c.src_stride + c.width, s->device);
    }
    if (fake_graph_record(s, run_copy, &c, sizeof c))
        return 0;
    calls.n_copy++;
    if (defers)
        add_pending(s, &c);
    else if (!is_lost())
        run_copy(&c);
    return state();
}

static int copy(void *dst, const void *src, size_t bytes, struct CUstream_st *s)
{
    return queue_copy((struct copying){.dst = dst, .src = src, .width = bytes, .n = 1}, s);
}

static int copy_rows(void *dst, size_t dst_stride, const void *src, size_t src_stride, size_t width, size_t n,
                     struct CUstream_st *s)
{
    return queue_copy((struct copying){dst, src, dst_stride, src_stride, width, n}, s);
}

static int zero(void *dst, size_t bytes, struct CUstream_st *s)
{
    return queue_copy((struct copying){.dst = dst, .width = bytes, .n = 1}, s);
}

static bool take_launch(const struct simt_call *c, void *stream)
{
    check_stream(stream);
    if (fake_graph_record_launch(stream, c))
        return true;
    run_pending(stream);
    calls.n_kernel++;
    return skips;
}

static int graph_begin(struct CUstream_st *s)
{
    return is_lost() ? LOST : fake_graph_begin(s);
}

static int graph_end(struct CUstream_st *s, struct CUgraphExec_st **out)
{
    int code = fake_graph_end(s, out);
    pthread_mutex_lock(&lock);
    if (!code)
        code = allocation_fails_locked() ? CUDA_NO_MEMORY : state_locked();
    pthread_mutex_unlock(&lock);
    if (code) {
        fake_graph_destroy(*out);
        *out = NULL;
    }
    return code;
}

static int graph_launch(struct CUgraphExec_st *g, struct CUstream_st *s)
{
    check_stream(s);
    run_pending(s);
    calls.n_graph++;
    if (!is_lost())
        fake_graph_run(g, skips);
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
    .copy_rows = copy_rows,
    .zero = zero,
    .graph_begin = graph_begin,
    .graph_end = graph_end,
    .graph_launch = graph_launch,
    .graph_destroy = fake_graph_destroy,
    .last_error = state,
    .error_text = error_text,
};
