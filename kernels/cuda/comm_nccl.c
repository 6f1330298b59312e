/* The table of comm.h over NCCL. The library is looked up when several GPUs are asked for, so that neither the build
 * nor a machine with one GPU needs it; its few functions are declared here, as its ABI has had them since release 2.7.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "comm.h"
#include "mem.h"

#define LIBRARY "libnccl.so.2"

enum { NCCL_FLOAT32 = 7, NCCL_SUM = 0, NCCL_UNUSABLE = 5 /* ncclInvalidUsage */, LEAST_VERSION = 20700 };
enum { TIMEOUT_MS = 60000, BUSY_MS = 1000 };

struct ncclComm;

static struct nccl { /* owner: find(), which fills it before any other call */
    int (*version)(int *out);
    int (*unique_id)(struct comm_id *out);
    int (*init_rank)(struct ncclComm **out, int n_rank, struct comm_id id, int rank);
    int (*destroy)(struct ncclComm *c);
    int (*abort)(struct ncclComm *c);
    int (*async_error)(struct ncclComm *c, int *out);
    int (*all_reduce)(const void *from, void *to, size_t n, int type, int op, struct ncclComm *c,
                      struct CUstream_st *s);
    int (*send)(const void *from, size_t n, int type, int peer, struct ncclComm *c, struct CUstream_st *s);
    int (*recv)(void *to, size_t n, int type, int peer, struct ncclComm *c, struct CUstream_st *s);
    int (*group_start)(void);
    int (*group_end)(void);
    const char *(*error_string)(int code);
} nccl;

struct comm { /* owner: its rank; abort comes from another thread */
    struct ncclComm *c;
    int32_t n_rank;
    atomic_int n_busy; /* calls into the library */
    atomic_bool aborted;
};

static int find(struct err *e)
{
    int version = 0;
    if (nccl.version)
        return 0;
    void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return err_set(e, ERR_NOTFOUND, "several GPUs need NCCL: %.300s", dlerror());
    struct nccl found;
    const struct {
        const char *name;
        void *to;
    } symbol[] = {
        {"ncclGetVersion", &found.version},
        {"ncclGetUniqueId", &found.unique_id},
        {"ncclCommInitRank", &found.init_rank},
        {"ncclCommDestroy", &found.destroy},
        {"ncclCommAbort", &found.abort},
        {"ncclCommGetAsyncError", &found.async_error},
        {"ncclAllReduce", &found.all_reduce},
        {"ncclSend", &found.send},
        {"ncclRecv", &found.recv},
        {"ncclGroupStart", &found.group_start},
        {"ncclGroupEnd", &found.group_end},
        {"ncclGetErrorString", &found.error_string},
    };
    for (size_t i = 0; i < sizeof symbol / sizeof *symbol; i++) {
        void **to = symbol[i].to;
        *to = dlsym(lib, symbol[i].name);
        if (!*to) {
            dlclose(lib);
            return err_set(e, ERR_NOTFOUND, "several GPUs need NCCL: " LIBRARY " has no %s", symbol[i].name);
        }
    }
    if (found.version(&version) || version < LEAST_VERSION) {
        dlclose(lib);
        return err_set(e, ERR_NOTFOUND, "several GPUs need NCCL 2.7 or later: " LIBRARY " is release code %d", version);
    }
    nccl = found;
    return 0;
}

static int make_id(struct comm_id *out)
{
    return nccl.unique_id(out);
}

static int join(struct comm **out, const struct comm_id *id, int32_t n_rank, int32_t rank)
{
    *out = NULL;
    struct comm *c = mem_calloc(1, sizeof *c);
    if (!c)
        return NCCL_UNUSABLE;
    c->n_rank = n_rank;
    int code = nccl.init_rank(&c->c, n_rank, *id, rank);
    if (code) {
        mem_free(c);
        return code;
    }
    *out = c;
    return 0;
}

static void leave(struct comm *c)
{
    if (c && !atomic_load(&c->aborted))
        nccl.destroy(c->c);
    mem_free(c);
}

/* ncclCommAbort frees the communicator: no call may be under way on another thread, as far as it can be helped. */
static void abort_rank(struct comm *c)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    if (!c || atomic_exchange(&c->aborted, true))
        return;
    for (int i = 0; i < BUSY_MS && atomic_load(&c->n_busy); i++)
        nanosleep(&nap, NULL);
    nccl.abort(c->c);
}

static bool enter(struct comm *c)
{
    atomic_fetch_add(&c->n_busy, 1);
    if (!atomic_load(&c->aborted))
        return true;
    atomic_fetch_sub(&c->n_busy, 1);
    return false;
}

static int finish(struct comm *c, int code)
{
    atomic_fetch_sub(&c->n_busy, 1);
    return code;
}

static int state(struct comm *c)
{
    int error = 0;
    if (!enter(c))
        return NCCL_UNUSABLE;
    int code = nccl.async_error(c->c, &error);
    return finish(c, code ? code : error);
}

static int sum(struct comm *c, float *x, size_t n, struct CUstream_st *s)
{
    if (!enter(c))
        return NCCL_UNUSABLE;
    return finish(c, nccl.all_reduce(x, x, n, NCCL_FLOAT32, NCCL_SUM, c->c, s));
}

static int exchange(struct comm *c, const struct comm_piece *send, const struct comm_piece *recv, struct CUstream_st *s)
{
    if (!enter(c))
        return NCCL_UNUSABLE;
    int code = nccl.group_start();
    for (int32_t q = 0; !code && q < c->n_rank; q++) {
        if (send[q].n)
            code = nccl.send(send[q].data, send[q].n, NCCL_FLOAT32, q, c->c, s);
        if (!code && recv[q].n)
            code = nccl.recv(recv[q].data, recv[q].n, NCCL_FLOAT32, q, c->c, s);
    }
    int ended = nccl.group_end();
    return finish(c, code ? code : ended);
}

static const char *error_text(int code)
{
    return nccl.error_string ? nccl.error_string(code) : "unknown";
}

static const struct comm_api api = {
    .timeout_ms = TIMEOUT_MS,
    .find = find,
    .make_id = make_id,
    .join = join,
    .leave = leave,
    .abort = abort_rank,
    .state = state,
    .sum = sum,
    .exchange = exchange,
    .error_text = error_text,
};

const struct comm_api *comm_nccl(void)
{
    return &api;
}
