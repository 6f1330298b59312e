#include "cpu.h"

#include <string.h>

#include "mem.h"

static int cpu_open(const struct backend_options *opt, struct backend **out, struct err *e)
{
    *out = NULL;
    const struct cpu_isa *isa;
    int rc = cpu_isa_choose(&isa, e);
    if (rc)
        return rc;
    struct backend *b = mem_calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ERR_NOMEM, "out of memory");
    b->opt = *opt;
    b->isa = isa;
    rc = pool_create(&b->pool, opt->n_thread > 0 ? opt->n_thread : pool_n_core(), e);
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
