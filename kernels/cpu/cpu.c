#include "cpu.h"

#include <string.h>

#include "log.h"
#include "mem.h"

/* The processors that worker i may use. */
static void worker_mask(const struct backend *b, const struct topology *t, int32_t i, struct cpu_mask *out)
{
    *out = (struct cpu_mask){0};
    if (b->opt.pin == PIN_CORE) {
        cpu_mask_set(out, b->place.cpu[i]);
        return;
    }
    int32_t node = b->place.node_id[placement_node(&b->place, i)];
    for (int32_t c = 0; c < t->n_cpu; c++)
        if (t->cpu[c].node == node)
            cpu_mask_set(out, t->cpu[c].cpu);
}

/* A machine that does not let itself be pinned to works all the same. */
static void bind_workers(struct backend *b, const struct topology *t)
{
    struct err e = {0};
    int rc = 0;
    for (int32_t i = 0; !rc && i < b->place.n_worker; i++) {
        struct cpu_mask mask;
        worker_mask(b, t, i, &mask);
        rc = pool_bind(b->pool, i, &mask, sizeof mask, &e);
    }
    if (rc)
        log_line(LOG_WARN, "workers are not pinned", "reason=\"%s\"", e.msg);
}

static int open_pool(struct backend *b, struct err *e)
{
    const char *root = b->opt.root ? b->opt.root : "";
    struct cpu_mask allowed;
    struct topology t;
    topology_allowed(&allowed);
    topology_read(&t, root, &allowed);
    int32_t n = b->opt.n_thread > 0 ? b->opt.n_thread : topology_threads(&t, root);
    if (n > MAX_WORKER)
        return err_set(e, ERR_INVALID, "--threads %d: at most %d", n, MAX_WORKER);
    placement_make(&b->place, &t, n);
    int rc = pool_create(&b->pool, n, e);
    if (!rc && (b->opt.pin == PIN_CORE || (b->opt.pin == PIN_NODE && t.n_node > 1)))
        bind_workers(b, &t);
    if (b->opt.pin == PIN_OFF)
        placement_ignore_nodes(&b->place);
    return rc;
}

static int cpu_open(const struct backend_options *opt, struct backend **out, struct err *e)
{
    *out = NULL;
    if (opt->tensor_parallel > 1)
        return err_set(e, ERR_INVALID, "--tensor-parallel %d: the cpu back end is one device", opt->tensor_parallel);
    const struct cpu_isa *isa;
    int rc = cpu_isa_choose(&isa, e);
    if (rc)
        return rc;
    struct backend *b = mem_calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_NOMEM, "out of memory");
    b->opt = *opt;
    b->isa = isa;
    rc = open_pool(b, e);
    if (rc) {
        mem_free(b);
        return rc;
    }
    *out = b;
    return 0;
}

static void cpu_close(struct backend *b)
{
    if (!b)
        return;
    pool_free(b->pool);
    mem_free(b);
}

static int cpu_submit(struct bmodel *m, const struct step_plan *p, struct err *e)
{
    BUG_ON(m->plan || p->n.n_row > m->limits.n_row || p->n.n_readout > m->limits.n_readout);
    m->plan = p;
    cpu_plan_attention(m);
    cpu_plan_heads(m);
    for (size_t i = 0; i < cpu_n_ticket(m); i++)
        atomic_store_explicit(&m->ticket[i], 0, memory_order_relaxed);
    return 0;
}

static void step_main(void *arg, int id)
{
    struct bmodel *m = arg;
    cpu_forward(&m->worker[id]);
    cpu_read_out(&m->worker[id]);
}

/* The caller is worker 0: the step runs here, not between submit and wait. */
static int cpu_wait(struct bmodel *m, struct step_result *out, struct err *e)
{
    BUG_ON(!m->plan);
    m->result = out;
    pool_run(m->b->pool, step_main, m);
    m->plan = NULL;
    return 0;
}

const struct backend_ops backend_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .load = cpu_load,
    .kv_bytes = cpu_kv_bytes,
    .kv_create = cpu_kv_create,
    .submit = cpu_submit,
    .wait = cpu_wait,
    .stats = cpu_stats,
    .unload = cpu_unload,
    .close = cpu_close,
};
