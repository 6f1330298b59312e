/* The SIMT shim: runs CUDA kernels, compiled as C++ against dev_host.cuh, on a CPU, and refuses those that are wrong.
 *
 *   fiber.c   a thread of a kernel is a fiber: a stack and a switch
 *   block.c   a block runs on one OS thread: which warp goes on next, barriers, deadlocks
 *   warp.c    warp collectives: lanes meet at one line and then see each other's values as they were
 *   mma.c     the matrix units, by the PTX ISA's fragment tables
 *   copy.c    cp.async: the destination is poison until it is waited for
 *   race.c    two threads touch a byte of shared memory with no barrier between them
 *   launch.c  a grid: blocks in random order over OS threads
 *
 * The schedule is greedy and seeded: one random warp runs until it has to wait for others, so that warps are as far
 * apart as the barriers allow; a lock-step schedule hides a missing barrier, this one shows it. A fault prints one line
 * that begins "simt:" and aborts. It does not show: the memory model's reordering, races in global memory, bank
 * conflicts, occupancy. */
#ifndef GALLEY_SIMT_H
#define GALLEY_SIMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SIMT_WARP = 32, SIMT_MAX_THREAD = 1024, SIMT_MAX_COPY = 256, SIMT_SLOT_BYTES = 48 };

struct simt_dim {
    unsigned x, y, z;
};

struct simt_site { /* where in a kernel */
    const char *file;
    int line;
};

/* ---- For tests ---- */

/* Of every launch from now on: same seed, same schedule. */
void simt_seed(uint64_t seed);
/* Blocks that run at a time; 0: one for each processor, at most 8. */
void simt_set_threads(int n);

/* `take` sees every launch first: true means that it needs no running now. NULL: none does. For the fake runtime. */
struct simt_call;
void simt_on_launch(bool (*take)(const struct simt_call *c, void *stream));
void simt_run(const struct simt_call *c); /* without asking; from any thread */

/* ---- For dev_host.cuh ---- */

struct simt_call { /* a launch */
    const char *kernel;
    struct simt_dim grid, block; /* block.x * y * z is a multiple of 32 */
    size_t smem_bytes;
    void (*body)(void *arg); /* runs in every thread of the grid */
    void *arg;               /* the kernel's arguments, by value: arg_bytes that may be copied */
    size_t arg_bytes;
};
/* Runs a call and returns when all its threads have, unless the hook below takes it. `stream` is whatever LAUNCH got.
 */
void simt_launch(const struct simt_call *c, void *stream);

struct __attribute__((aligned(16))) simt_slot { /* what a lane brings to a collective */
    unsigned char b[SIMT_SLOT_BYTES];
};

/* All 32 lanes meet; `combine` (may be NULL) then runs once over what they brought. Returns the 32 slots, which are the
 * caller's to read until its next but one collective. `op` names the collective in a report. */
struct simt_slot *simt_meet(const char *op, struct simt_site at, const void *in, size_t size_bytes,
                            void (*combine)(struct simt_slot *slot));
/* As the PTX ISA has it: mma.c. Slots hold a[4], b[2], d[4]; ldmatrix: the row's address, then d[4]. */
void simt_mma_bf16(struct simt_slot *slot);
void simt_mma_f16(struct simt_slot *slot);
void simt_mma_fp8(struct simt_slot *slot);
void simt_mma_s8(struct simt_slot *slot);
void simt_ldmatrix(struct simt_slot *slot);
void simt_ldmatrix_trans(struct simt_slot *slot);

void simt_block_sync(struct simt_site at);
void simt_warp_sync(struct simt_site at);
void *simt_smem(void);

void simt_copy16(void *dst_shared, const void *src, bool there, struct simt_site at);
void simt_copy_commit(void);
void simt_copy_wait(int n_left);

uint32_t simt_atomic_add32(uint32_t *p, uint32_t v);
void simt_atomic_add64(uint64_t *p, uint64_t v);

/* ---- Within the shim ---- */

enum simt_state { SIMT_READY, SIMT_AT_BARRIER, SIMT_AT_MEETING, SIMT_EXITED };

struct simt_fiber {
    void *sp;    /* saved stack pointer, or the ucontext_t where there is no switch of our own */
    char *stack; /* lowest address; owned by the worker */
    size_t stack_bytes;
    void *shadow; /* AddressSanitizer's, while the fiber does not run */
};

struct simt_copy {
    void *dst;
    const void *src; /* NULL: zeros */
    int group;
};

struct simt_thread { /* of a kernel; owner: the worker that runs its block */
    struct simt_dim tid;
    unsigned index, lane;
    struct simt_block *block;
    struct simt_warp *warp;
    enum simt_state state;
    const char *op;      /* what it waits in */
    struct simt_site at; /* its last synchronisation */
    void (*combine)(struct simt_slot *slot);
    unsigned n_meet;
    struct simt_copy copy[SIMT_MAX_COPY];
    int n_copy, n_group;
    struct simt_fiber fiber;
};

struct simt_warp {
    struct simt_thread *lane;            /* [32] */
    struct simt_slot slot[2][SIMT_WARP]; /* of even and odd meetings: a lane may be one ahead of another that reads */
    uint64_t epoch;                      /* counts its warp syncs, for race.c */
};

struct simt_shadow;

struct simt_block { /* owner: a worker */
    const char *kernel;
    struct simt_dim id, dim, grid;
    unsigned n_thread, n_warp;
    struct simt_thread *thread; /* [SIMT_MAX_THREAD] */
    struct simt_warp *warp;
    void (*body)(void *arg);
    void *arg;
    unsigned char *smem;
    size_t smem_bytes;
    uint64_t epoch;             /* counts barriers, and never repeats on this worker */
    struct simt_shadow *shadow; /* [smem_bytes] race.c's, NULL when nobody watches */
    uint64_t rng;
    struct simt_fiber host; /* the worker itself, while one of its threads runs */
};

/* The kernel thread that runs on this OS thread; NULL outside kernels. */
extern __thread struct simt_thread *simt_self;

/* fiber.c */
void simt_fiber_create(struct simt_fiber *f); /* a stack, once */
void simt_fiber_free(struct simt_fiber *f);
void simt_fiber_start(struct simt_fiber *f, void (*entry)(void)); /* the next switch to f calls entry */
void simt_fiber_switch(struct simt_fiber *from, struct simt_fiber *to, bool from_ends);

/* block.c */
void simt_block_run(struct simt_block *b);
void simt_yield(enum simt_state state, const char *op, struct simt_site at);
uint64_t simt_random(uint64_t *state, uint64_t n); /* in 0 .. n-1 */
__attribute__((noreturn)) void simt_fault(const struct simt_thread *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* warp.c: releases a warp whose 32 lanes have met, or reports why they never will. */
void simt_warp_release(struct simt_warp *w);

/* copy.c: a thread ends. */
void simt_copy_check_end(const struct simt_thread *t);

/* race.c */
enum simt_access { SIMT_LOADS, SIMT_STORES, SIMT_ADDS };
bool simt_race_enabled(void); /* the kernels were compiled to report their loads and stores */
struct simt_shadow *simt_race_shadow(size_t smem_bytes);
void simt_race_touch(const void *p, size_t size_bytes, enum simt_access access);

#ifdef __cplusplus
}
#endif
#endif
