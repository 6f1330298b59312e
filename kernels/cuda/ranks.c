#include "ranks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "log.h"
#include "mem.h"
#include "wake.h"

/* GRACE: for what was aborted to come back. Later it is taken for stuck in the driver. */
enum { POLL_MS = 1000, GRACE_MS = 5000, NAMES = 128 };

enum { IDLE, BUSY, DONE };

struct rank { /* owner: the caller of ranks_*, and its thread while it is BUSY */
    struct ranks *all;
    struct backend *b;
    pthread_t thread;
    struct wake go;
    bool has_wake, has_thread;
    atomic_int state;
    int rc;
    struct err e;
};

struct ranks { /* owner: its back end */
    int32_t n;
    struct wake done;
    bool has_wake, together, lost, stuck;
    ranks_fn fn; /* NULL: the threads end */
    void *arg;
    struct ranks *next; /* of those given up */
    struct rank rank[];
};

/* Nothing can free what a thread still uses; here it can be found. */
static struct ranks *given_up;

static void *rank_main(void *arg)
{
    struct rank *r = arg;
    for (;;) {
        while (atomic_load_explicit(&r->state, memory_order_acquire) != BUSY)
            wake_wait(&r->go, POLL_MS);
        ranks_fn fn = r->all->fn;
        if (!fn)
            return NULL;
        r->e = (struct err){0};
        r->rc = fn(r->b, r->all->arg, &r->e);
        atomic_store_explicit(&r->state, DONE, memory_order_release);
        wake_post(&r->all->done);
    }
}

int ranks_create(struct ranks **out, struct backend *const *b, int32_t n, struct err *e)
{
    struct ranks *all = mem_calloc(1, sizeof *all + (size_t)n * sizeof all->rank[0]);
    *out = NULL;
    if (!all)
        return err_set(e, ERR_NOMEM, "out of memory");
    all->n = n;
    int rc = wake_create(&all->done, e);
    all->has_wake = !rc;
    for (int32_t i = 0; !rc && i < n; i++) {
        struct rank *r = &all->rank[i];
        r->all = all;
        r->b = b[i];
        rc = wake_create(&r->go, e);
        r->has_wake = !rc;
        if (!rc && pthread_create(&r->thread, NULL, rank_main, r))
            rc = err_set(e, ERR_NOMEM, "no thread for rank %d", i);
        r->has_thread = !rc;
    }
    if (rc)
        ranks_free(all);
    else
        *out = all;
    return rc;
}

void ranks_free(struct ranks *all)
{
    if (!all)
        return;
    if (all->stuck) {
        all->next = given_up;
        given_up = all;
        return;
    }
    ranks_start(all, false, NULL, NULL);
    for (int32_t i = 0; i < all->n; i++) {
        struct rank *r = &all->rank[i];
        if (r->has_thread)
            pthread_join(r->thread, NULL);
        if (r->has_wake)
            wake_free(&r->go);
    }
    if (all->has_wake)
        wake_free(&all->done);
    mem_free(all);
}

void ranks_start(struct ranks *all, bool together, ranks_fn fn, void *arg)
{
    BUG_ON(all->stuck);
    all->together = together;
    all->fn = fn;
    all->arg = arg;
    for (int32_t i = 0; i < all->n; i++) {
        struct rank *r = &all->rank[i];
        if (!r->has_thread)
            continue;
        atomic_store_explicit(&r->state, BUSY, memory_order_release);
        wake_post(&r->go);
    }
}

/* ---- Waiting ---- */

struct waiting {    /* owner: ranks_finish */
    int64_t end_ns; /* INT64_MAX: there is no limit */
    int rc;         /* of the failure that came first */
    bool aborted;
};

static void fail_all(struct ranks *all, struct waiting *w)
{
    for (int32_t i = 0; all->together && !w->aborted && i < all->n; i++) {
        struct backend *b = all->rank[i].b;
        b->comm_api->abort(atomic_load(&b->comm));
    }
    if (all->together)
        w->end_ns = clock_ns() + (int64_t)GRACE_MS * 1000000;
    w->aborted = true;
}

/* Counts those that are at work, and takes note of who failed. A rank that was told to stop did so for another's sake.
 */
static int32_t look(struct ranks *all, struct waiting *w, struct err *e)
{
    int32_t n_busy = 0;
    int rc = w->aborted ? w->rc : 0;
    for (int32_t i = 0; i < all->n; i++) {
        struct rank *r = &all->rank[i];
        if (atomic_load_explicit(&r->state, memory_order_acquire) == BUSY) {
            n_busy++;
        } else if (!w->aborted && r->rc && (!rc || rc == -ERR_CANCELED)) {
            rc = r->rc;
            if (e)
                *e = r->e;
        }
    }
    w->rc = rc;
    if (rc && n_busy && all->together && !w->aborted)
        fail_all(all, w);
    return n_busy;
}

static void time_out(struct ranks *all, int32_t timeout_ms, struct waiting *w, struct err *e)
{
    char names[NAMES] = "";
    int at = 0;
    for (int32_t i = 0; i < all->n; i++)
        if (atomic_load_explicit(&all->rank[i].state, memory_order_acquire) == BUSY && at < NAMES - 8)
            at += snprintf(names + at, sizeof names - (size_t)at, "%s%d", at ? ", " : "", i);
    w->rc = err_set(e, ERR_DEVICE, "rank %s of %d has not answered for %g s: taken for lost", names, all->n,
                    timeout_ms / 1e3);
    fail_all(all, w);
}

int ranks_finish(struct ranks *all, int32_t timeout_ms, struct err *e)
{
    struct waiting w = {.end_ns = timeout_ms ? clock_ns() + (int64_t)timeout_ms * 1000000 : INT64_MAX};
    while (look(all, &w, e)) {
        int64_t left_ms = w.end_ns == INT64_MAX ? POLL_MS : (w.end_ns - clock_ns()) / 1000000;
        if (left_ms <= 0 && w.aborted) {
            log_line(LOG_ERROR, "cuda rank stuck", "consequence=\"its memory is left as it is\"");
            all->stuck = true;
            break;
        }
        if (left_ms <= 0)
            time_out(all, timeout_ms, &w, e);
        else
            wake_wait(&all->done, (int)(left_ms < POLL_MS ? left_ms : POLL_MS));
    }
    all->lost = all->lost || (w.rc && all->together);
    return w.rc;
}

int ranks_run(struct ranks *all, bool together, int32_t timeout_ms, ranks_fn fn, void *arg, struct err *e)
{
    ranks_start(all, together, fn, arg);
    return ranks_finish(all, timeout_ms, e);
}

bool ranks_lost(const struct ranks *all)
{
    return all->lost || all->stuck;
}

bool ranks_stuck(const struct ranks *all)
{
    return all->stuck;
}
