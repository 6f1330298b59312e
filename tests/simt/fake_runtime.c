#include "fake_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256, MAX_LIVE = 64, LOST = 719, N_SM = 4 };

struct fake_faults fake_faults;

static struct {
    void *p;
    size_t bytes;
} live[MAX_LIVE]; /* device memory */
static long n_host, n_stream, n_alloc;
static size_t used_bytes;
static int lost;

void fake_runtime_reset(void)
{
    fake_faults = (struct fake_faults){.n_device = 1, .major = 8, .total_bytes = (size_t)1 << 30};
    if (fake_runtime_live())
        abort();
    n_alloc = 0;
    lost = 0;
}

long fake_runtime_live(void)
{
    long n = n_host + n_stream;
    for (int i = 0; i < MAX_LIVE; i++)
        n += live[i].p != NULL;
    return n;
}

long fake_runtime_allocs(void)
{
    return n_alloc;
}

static int state(void)
{
    return lost ? LOST : 0;
}

static int allocation_fails(void)
{
    n_alloc++;
    return fake_faults.fail_alloc > 0 && --fake_faults.fail_alloc == 0;
}

static int device_count(int32_t *n)
{
    *n = fake_faults.n_device;
    return 0;
}

static int device_info(int32_t device, struct cuda_device *out)
{
    *out = (struct cuda_device){
        .n_sm = N_SM, .major = fake_faults.major, .total_bytes = fake_faults.total_bytes};
    snprintf(out->name, sizeof out->name, "fake device %d", device);
    return 0;
}

static int use_device(int32_t device)
{
    return device < fake_faults.n_device ? 0 : 101;
}

static int free_bytes(size_t *out)
{
    *out = fake_faults.total_bytes - used_bytes;
    return state();
}

static int device_alloc(void **out, size_t bytes)
{
    int at = 0;
    *out = NULL;
    if (allocation_fails() || used_bytes + bytes > fake_faults.total_bytes)
        return CUDA_NO_MEMORY;
    while (at < MAX_LIVE && live[at].p)
        at++;
    if (at == MAX_LIVE || posix_memalign(out, ALIGN, bytes ? bytes : 1))
        abort();
    memset(*out, 0xff, bytes); /* NaN: what is used before it is written shows */
    live[at].p = *out;
    live[at].bytes = bytes;
    used_bytes += bytes;
    return state();
}

static void device_free(void *p)
{
    for (int i = 0; p && i < MAX_LIVE; i++)
        if (live[i].p == p) {
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
    *out = NULL;
    if (allocation_fails())
        return CUDA_NO_MEMORY;
    if (posix_memalign(out, ALIGN, bytes ? bytes : 1))
        abort();
    memset(*out, 0xff, bytes);
    n_host++;
    return state();
}

static void host_free(void *p)
{
    n_host -= p != NULL;
    free(p);
}

static int stream_create(struct CUstream_st **out)
{
    *out = malloc(1);
    n_stream++;
    return state();
}

static void stream_destroy(struct CUstream_st *s)
{
    n_stream -= s != NULL;
    free(s);
}

static int stream_wait(struct CUstream_st *s)
{
    (void)s;
    if (fake_faults.lose_after > 0 && --fake_faults.lose_after == 0)
        lost = 1;
    return state();
}

static int copy(void *dst, const void *src, size_t bytes, struct CUstream_st *s)
{
    (void)s;
    if (!lost)
        memcpy(dst, src, bytes);
    return state();
}

static int zero(void *dst, size_t bytes, struct CUstream_st *s)
{
    (void)s;
    if (!lost)
        memset(dst, 0, bytes);
    return state();
}

static const char *error_text(int code)
{
    return code == CUDA_NO_MEMORY ? "out of memory" : code == LOST ? "unspecified launch failure" : "invalid device";
}

const struct cuda_api fake_runtime = {
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
    .last_error = state,
    .error_text = error_text,
};
