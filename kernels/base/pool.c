#include "pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mem.h"

enum { LINE = 64, N_SPIN = 1000, N_YIELD = 8, MAX_MASK_BYTES = 1024 };

/* A counter that threads wait on to change. `n_asleep` spares the waker a system call while all spin. */
struct gate {
    _Alignas(LINE) _Atomic uint32_t generation;
    _Atomic uint32_t n_asleep;
};

struct pool {
    struct gate start, barrier;
    _Alignas(LINE) _Atomic uint32_t n_arrived; /* at the barrier */
    _Alignas(LINE) pool_fn fn;
    void *arg;
    int n_worker, n_thread; /* n_thread: those created, n_worker - 1 when creation succeeded */
    int stop;
    struct member *member;
    void *caller_mask; /* worker 0's, NULL: not bound */
    size_t mask_bytes;
    void *mem; /* the unaligned allocation behind the pool */
};

struct member {
    struct pool *pool;
    pthread_t thread;
    int worker;
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void gate_wait(struct gate *g, uint32_t seen)
{
    for (int i = 0; i < N_SPIN; i++) {
        if (atomic_load_explicit(&g->generation, memory_order_acquire) != seen)
            return;
        relax();
    }
    for (int i = 0; i < N_YIELD; i++) { /* the one we wait for may want this core */
        sched_yield();
        if (atomic_load_explicit(&g->generation, memory_order_acquire) != seen)
            return;
    }
    atomic_fetch_add(&g->n_asleep, 1);
    while (atomic_load(&g->generation) == seen)
        syscall(SYS_futex, &g->generation, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&g->n_asleep, 1);
}

static void gate_open(struct gate *g)
{
    atomic_fetch_add(&g->generation, 1);
    if (atomic_load(&g->n_asleep))
        syscall(SYS_futex, &g->generation, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

void pool_barrier(struct pool *p)
{
    uint32_t seen = atomic_load_explicit(&p->barrier.generation, memory_order_acquire);
    if (atomic_fetch_add(&p->n_arrived, 1) + 1 < (uint32_t)p->n_worker) {
        gate_wait(&p->barrier, seen);
        return;
    }
    atomic_store(&p->n_arrived, 0); /* before the gate opens: nobody arrives anew until then */
    gate_open(&p->barrier);
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    struct pool *p = m->pool;
    for (uint32_t seen = 0;; seen++) {
        gate_wait(&p->start, seen);
        if (p->stop)
            return NULL;
        p->fn(p->arg, m->worker);
        pool_barrier(p);
    }
}

static void run(struct pool *p, pool_fn fn, void *arg)
{
    p->fn = fn;
    p->arg = arg;
    if (p->n_worker > 1)
        gate_open(&p->start);
    fn(arg, 0);
    if (p->n_worker > 1)
        pool_barrier(p);
}

/* The caller is somebody else's thread: whatever it does and starts between regions may go anywhere. Costs 2 us. */
static void run_bound(struct pool *p, pool_fn fn, void *arg)
{
    unsigned long own[MAX_MASK_BYTES / sizeof(unsigned long)];
    int known = !sched_getaffinity(0, sizeof own, (cpu_set_t *)(void *)own);
    if (known)
        sched_setaffinity(0, p->mask_bytes, p->caller_mask);
    run(p, fn, arg);
    if (known)
        sched_setaffinity(0, sizeof own, (cpu_set_t *)(void *)own);
}

void pool_run(struct pool *p, pool_fn fn, void *arg)
{
    if (p->caller_mask)
        run_bound(p, fn, arg);
    else
        run(p, fn, arg);
}

static int bind_caller(struct pool *p, const void *mask, size_t bytes, struct err *e)
{
    void *copy = mem_alloc(bytes);
    if (!copy)
        return err_set(e, ERR_NOMEM, "out of memory");
    memcpy(copy, mask, bytes);
    mem_free(p->caller_mask);
    p->caller_mask = copy;
    p->mask_bytes = bytes;
    return 0;
}

int pool_bind(struct pool *p, int worker, const void *mask, size_t mask_bytes, struct err *e)
{
    if (!worker)
        return bind_caller(p, mask, mask_bytes, e);
    int rc = pthread_setaffinity_np(p->member[worker].thread, mask_bytes, mask);
    return rc ? err_set(e, ERR_IO, "worker %d cannot be bound: %s", worker, strerror(rc)) : 0;
}

int pool_create(struct pool **out, int n_worker, struct err *e)
{
    *out = NULL;
    if (n_worker < 1)
        return err_set(e, ERR_INVALID, "a worker pool needs at least one worker, not %d", n_worker);
    void *mem = mem_calloc(1, sizeof(struct pool) + LINE);
    struct member *member = mem_calloc((size_t)n_worker, sizeof *member);
    if (!mem || !member) {
        mem_free(mem);
        mem_free(member);
        return err_set(e, ERR_NOMEM, "out of memory: worker pool");
    }
    struct pool *p = (struct pool *)(((uintptr_t)mem + LINE - 1) & ~(uintptr_t)(LINE - 1));
    p->n_worker = n_worker;
    p->member = member;
    p->mem = mem;
    for (int i = 1; i < n_worker; i++) {
        member[i] = (struct member){.pool = p, .worker = i};
        if (pthread_create(&member[i].thread, NULL, member_main, &member[i])) {
            pool_free(p);
            return err_set(e, ERR_IO, "cannot create worker thread %d of %d", i, n_worker);
        }
        p->n_thread++;
    }
    *out = p;
    return 0;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    p->stop = 1;
    gate_open(&p->start);
    for (int i = 1; i <= p->n_thread; i++)
        pthread_join(p->member[i].thread, NULL);
    mem_free(p->member);
    mem_free(p->caller_mask);
    mem_free(p->mem);
}

int pool_size(const struct pool *p)
{
    return p->n_worker;
}
