/* The engine's thread and its door: what any thread may call. */
#include "lane.h"

#include <stdio.h>

#include "log.h"
#include "mem.h"

enum { IDLE_MS = 500, PAUSED_MS = 2 };

int engine_open(const struct engine_options *opt, struct engine **out, struct err *e)
{
    *out = NULL;
    struct engine *eng = mem_calloc(1, sizeof *eng);
    if (!eng)
        return err_set(e, ERR_NOMEM, "out of memory");
    eng->opt = *opt;
    queue_init(&eng->inbox);
    int rc = wake_create(&eng->wake, e);
    if (!rc)
        rc = engine_setup(eng, e);
    if (rc) {
        engine_close(eng);
        return rc;
    }
    *out = eng;
    return 0;
}

void engine_close(struct engine *eng)
{
    if (!eng)
        return;
    BUG_ON(eng->started);
    engine_teardown(eng);
    wake_free(&eng->wake);
    mem_free(eng);
}

/* ---- The thread ---- */

static void *engine_main(void *arg)
{
    struct engine *eng = arg;
    pthread_setname_np(pthread_self(), "galley-engine");
    for (;;) {
        bool busy = engine_step(eng);
        if (busy)
            continue;
        if (atomic_load(&eng->stop) && !eng->requests)
            return NULL;
        /* Nothing to compute. Requests that exist all the same wait for their clients to read. */
        wake_wait(&eng->wake, eng->requests ? PAUSED_MS : IDLE_MS);
    }
}

int engine_start(struct engine *eng, struct err *e)
{
    lane_dump_on_bug();
    atomic_store(&eng->heartbeat_ns, clock_ns());
    if (pthread_create(&eng->thread, NULL, engine_main, eng))
        return err_set(e, ERR_IO, "cannot start the engine thread");
    eng->started = true;
    return 0;
}

void engine_drain(struct engine *eng)
{
    atomic_store(&eng->draining, true);
}

void engine_stop(struct engine *eng)
{
    if (!eng->started)
        return;
    engine_drain(eng);
    atomic_store(&eng->stop, true);
    wake_post(&eng->wake);
    pthread_join(eng->thread, NULL);
    engine_step(eng); /* what was submitted while the thread ended comes back canceled */
    eng->started = false;
}

/* ---- Requests ---- */

int request_create(struct engine *eng, const int32_t *prompt, int32_t n_prompt, const struct gen_params *p,
                   struct sink *sink, void *user, struct request **out, struct err *e)
{
    int rc = request_build(&eng->limits, eng->model.tok, prompt, n_prompt, p, sink, user, out, e);
    if (rc)
        return rc;
    (*out)->eng = eng;
    (*out)->trigrams.store = eng->ngram;
    for (int32_t i = 0; i < (*out)->p.n; i++)
        (*out)->seq[i].drafter = drafter_of(eng, &(*out)->p.decoding);
    return 0;
}

int engine_submit(struct engine *eng, struct request *r, struct err *e)
{
    const char *why = NULL;
    if (atomic_load(&eng->failed))
        why = "the model has failed";
    else if (atomic_load(&eng->draining))
        why = "the server is shutting down";
    else if (atomic_fetch_add(&eng->n_queued, 1) >= eng->opt.max_queue) {
        atomic_fetch_sub(&eng->n_queued, 1);
        why = "the queue is full";
    }
    if (why) {
        atomic_fetch_add_explicit(&eng->metrics.n_rejected, 1, memory_order_relaxed);
        return err_set(e, ERR_BUSY, "%s", why);
    }
    atomic_fetch_add(&eng->n_pending, 1);
    r->submit_ns = clock_ns();
    r->deadline_ns = r->p.timeout_ns ? r->submit_ns + r->p.timeout_ns : 0;
    if (queue_push(&eng->inbox, &r->inbox))
        wake_post(&eng->wake);
    return 0;
}

void engine_cancel(struct engine *eng, struct request *r)
{
    atomic_store(&r->cancel, true);
    wake_post(&eng->wake);
}

/* ---- What can be asked ---- */

void engine_backends(char *out, size_t size_bytes)
{
    const struct backend_ops *ops, *best = backend_find("auto", NULL);
    size_t at = 0;
    for (int32_t i = 0; (ops = backend_at(i)) && at < size_bytes; i++) {
        struct err why = {0};
        bool usable = !ops->usable || !ops->usable(&why);
        at += (size_t)snprintf(out + at, size_bytes - at, "%-4s  %s%.300s\n", ops->name,
                               !usable       ? "not here: "
                               : ops == best ? "what auto chooses on this machine"
                                             : "usable",
                               usable ? "" : why.msg);
    }
}

const char *engine_memory_plan(const struct engine *eng)
{
    return eng->memory_plan;
}

const struct model_info *engine_model(const struct engine *eng)
{
    return &eng->model.info;
}

const struct tokenizer *engine_tokenizer(const struct engine *eng)
{
    return eng->model.tok;
}

int32_t engine_n_ctx(const struct engine *eng)
{
    return eng->limits.n_ctx;
}

int32_t engine_max_n(const struct engine *eng)
{
    return eng->limits.max_choices;
}

int64_t engine_heartbeat_age_ns(const struct engine *eng)
{
    return clock_ns() - atomic_load_explicit(&eng->heartbeat_ns, memory_order_relaxed);
}

bool engine_failed(const struct engine *eng)
{
    return atomic_load_explicit(&eng->failed, memory_order_relaxed);
}

int32_t engine_n_pending(const struct engine *eng)
{
    return atomic_load_explicit(&eng->n_pending, memory_order_relaxed);
}

void engine_metrics(const struct engine *eng, struct engine_metrics *m)
{
    metrics_read(&eng->metrics, m);
}
