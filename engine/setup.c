/* Start-up: the model is opened, loaded, and all memory reserved; what does not fit is refused with the option to
 * change. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "drafting.h"
#include "lane.h"
#include "mem.h"
#include "strategy/verified.h"

enum { BLOCK_LEN = 16, MIB = 1 << 20, MAX_DEVICES = 64 };

static size_t memory_available(void)
{
    size_t kib = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %zu kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib ? kib * 1024 : (size_t)4 << 30; /* a system without /proc: a cautious guess */
}

static void fill_defaults(struct engine_options *o)
{
    o->quantization = o->quantization ? o->quantization : "none";
    o->backend = o->backend ? o->backend : "auto";
    o->kv_type = o->kv_type ? o->kv_type : "f16";
    o->pin = o->pin ? o->pin : "node";
    o->max_batch_tokens = o->max_batch_tokens ? o->max_batch_tokens : 512;
    o->max_seqs = o->max_seqs ? o->max_seqs : 64;
    o->max_choices = o->max_choices && o->max_choices < o->max_seqs ? o->max_choices : o->max_seqs;
    o->max_queue = o->max_queue ? o->max_queue : 1024;
    o->max_draft = o->no_drafts ? 0 : o->max_draft ? o->max_draft : DRAFT_MAX;
}

/* The largest plan the engine will ever make for sequences of n_ctx. */
static struct plan_limits plan_limits(const struct engine_options *o, int32_t n_vocab, int32_t n_ctx)
{
    int32_t seqs = o->max_seqs, rows = o->max_batch_tokens, probe = 2 * VERIFIED_LIST + 4, top = 20 + 2;
    return (struct plan_limits){
        .n_span = seqs,
        .n_row = rows,
        .n_held = seqs * PLAN_MAX_TREE,
        .n_mix = 4 * seqs,
        .n_part = 64 * seqs,
        .n_kvop = 4 * seqs + rows,
        .n_law = seqs,
        .n_law_tok = n_ctx + 2048 > 1 << 16 ? n_ctx + 2048 : 1 << 16,
        .n_ban = 2048 + 64 * seqs,
        .n_mask = 4,
        .n_readout = 2 * rows + 4 * seqs,
        .n_list = VERIFIED_LIST * rows + PLAN_MAX_LIST * seqs,
        .n_bt = seqs * ((n_ctx + DRAFT_MAX) / BLOCK_LEN + 2),
        .n_out_f = rows * (probe + top) + seqs * (2 + PLAN_MAX_TOPK),
        .n_out_i = rows * (probe + top) + seqs * (2 + PLAN_MAX_TOPK),
        .n_vocab = n_vocab,
    };
}

/* Bytes of a block and of what does not grow with blocks, both models together. Hidden states are the target's. */
static void kv_costs(const struct engine *eng, struct kv_config kv, size_t *block, size_t *fixed)
{
    const struct lane *lane[] = {&eng->target, &eng->draft};
    *block = *fixed = 0;
    for (int i = 0; i < 2 && lane[i]->model; i++, kv.hidden_plane = 0) {
        kv.n_block = 1;
        size_t one = lane[i]->ops->kv_bytes(lane[i]->model, &kv);
        kv.n_block = 2;
        size_t two = lane[i]->ops->kv_bytes(lane[i]->model, &kv);
        *block += two - one;
        *fixed += one - (two - one);
    }
}

/* Memory for both KV caches and all scratch. The machine's is shared with others, a device's own is nobody else's. */
static int kv_memory(const struct engine *eng, size_t *out, struct err *e)
{
    const struct lane *lane = &eng->target;
    bool own = lane->ops->kv_available != NULL;
    size_t wanted = eng->opt.kv_mem_bytes, available = own ? lane->ops->kv_available(lane->model) : memory_available();
    if (wanted > available)
        return err_set(e, ERR_NOMEM, "--kv-mem %zuMiB: only %zu MiB of %smemory are free; --kv-mem %zuMiB would fit",
                       wanted / MIB, available / MIB, own ? "the device's " : "", available * 9 / 10 / MIB);
    *out = wanted ? wanted : own ? available / 10 * 9 : available / 2;
    return 0;
}

/* How many blocks fit that memory, and how long a sequence may be. Both pools get as many: a sequence that runs can
 * always be drafted for. */
static int size_pool(struct engine *eng, struct kv_config *kv, int32_t *n_ctx, struct err *e)
{
    struct engine_options *o = &eng->opt;
    size_t one, fixed, mem = 0;
    int rc = kv_memory(eng, &mem, e);
    if (rc)
        return rc;
    kv_costs(eng, *kv, &one, &fixed);
    int32_t model_ctx = eng->model.desc.n_ctx_train, ctx = o->n_ctx ? o->n_ctx : model_ctx;
    int64_t most = (int64_t)o->max_seqs * ((ctx + BLOCK_LEN - 1) / BLOCK_LEN + 1); /* more than this is never used */
    int64_t n = mem > fixed ? (int64_t)((mem - fixed) / one) : 0;
    n = n > most ? most : n;
    n = n > INT32_MAX / BLOCK_LEN ? INT32_MAX / BLOCK_LEN : n;
    int64_t fits = n * BLOCK_LEN;
    if (o->n_ctx && fits < o->n_ctx)
        return err_set(e, ERR_NOMEM, "--ctx %d needs %zu MiB of KV cache, %zu MiB may be used: --ctx %lld would fit%s",
                       o->n_ctx, (fixed + one * (size_t)((o->n_ctx + BLOCK_LEN - 1) / BLOCK_LEN)) / MIB + 1, mem / MIB,
                       (long long)fits, o->kv_mem_bytes ? ", or a larger --kv-mem" : "");
    if (fits < BLOCK_LEN && o->kv_mem_bytes)
        return err_set(e, ERR_NOMEM, "--kv-mem %zuMiB is too small: %zuMiB is the least that works", mem / MIB,
                       (fixed + one) / MIB + 1);
    if (fits < BLOCK_LEN)
        return err_set(e, ERR_NOMEM,
                       "a KV cache and scratch need %zu MiB at least, %zu MiB may be used: a smaller "
                       "--max-batch-tokens than %d or --max-seqs than %d would fit",
                       (fixed + one) / MIB + 1, mem / MIB, o->max_batch_tokens, o->max_seqs);
    kv->n_block = (int32_t)n;
    *n_ctx = fits < ctx ? (int32_t)fits : ctx;
    return 0;
}

static int load_model(struct engine *eng, struct lane *lane, struct model *m, struct err *e)
{
    struct engine_options *o = &eng->opt;
    int rc = !strcmp(o->quantization, "fp8") ? model_to_fp8(m, e) : 0;
    if (!rc)
        rc = model_make_weights(m, o->n_thread, e);
    if (rc)
        return rc;
    rc = lane->ops->load(lane->backend, &m->desc, &m->w, o->progress, o->progress_arg, &lane->model, e);
    if (!rc)
        source_loaded(&m->source);
    if (rc == -ERR_NOMEM && lane->ops->kv_available) { /* the device's memory, of which the machine has more */
        struct err why = *e;
        err_set(e, ERR_NOMEM, "%.400s; galley quantize makes a model smaller, --backend cpu needs no device", why.msg);
    }
    return rc;
}

static int kv_type_by_name(const char *name)
{
    int type = !strcmp(name, "fp8") ? DT_Q8_0 : dtype_by_name(name); /* 8 bits: the back end has one form of it */
    return type == DT_F32 || type == DT_F16 || type == DT_BF16 || type == DT_Q8_0 ? type : -1;
}

/* The pool, the plan and the results of a lane whose model is loaded. */
static int equip_lane(struct engine *eng, struct lane *lane, const struct model_desc *d, const struct kv_config *kv,
                      const struct plan_limits *limits, struct err *e)
{
    int rc = lane->ops->kv_create(lane->model, kv, e);
    if (!rc)
        rc = plan_create(&lane->plan, limits, e);
    if (rc)
        return rc;
    lane->caches = !eng->opt.no_prefix_cache;
    lane->env = (struct plan_env){.n_vocab = d->n_vocab,
                                  .n_layer = d->n_layer,
                                  .n_embd = d->n_embd,
                                  .n_block = kv->n_block,
                                  .block_len = BLOCK_LEN,
                                  .hidden_plane = kv->hidden_plane};
    lane->move = mem_alloc(sizeof *lane->move * (size_t)limits->n_kvop);
    lane->result.f = mem_alloc(sizeof *lane->result.f * (size_t)limits->n_out_f);
    lane->result.i = mem_alloc(sizeof *lane->result.i * (size_t)limits->n_out_i);
    if (!lane->move || !lane->result.f || !lane->result.i)
        return err_set(e, ERR_NOMEM, "out of memory");
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = (uint64_t)clock_ns();
    return kv_pool_create(&lane->pool, kv->n_block, BLOCK_LEN, seed, e);
}

static int pin_by_name(const char *name)
{
    return !strcmp(name, "node") ? PIN_NODE : !strcmp(name, "core") ? PIN_CORE : !strcmp(name, "off") ? PIN_OFF : -1;
}

static int load_lanes(struct engine *eng, struct err *e)
{
    struct lane *lane = &eng->target, *draft = &eng->draft;
    struct engine_options *o = &eng->opt;
    lane->ops = o->ops ? o->ops : backend_find(o->backend, e);
    if (!lane->ops)
        return -ERR_NOTFOUND;
    int32_t ctx = o->n_ctx ? o->n_ctx : eng->model.desc.n_ctx_train;
    model_fit_context(&eng->model, ctx);
    if (o->draft_path)
        model_fit_context(&eng->draft_model, ctx);
    struct backend_options bo = {.n_thread = o->n_thread,
                                 .pin = (enum backend_pin)pin_by_name(o->pin),
                                 .limits = plan_limits(o, eng->model.desc.n_vocab, ctx),
                                 .repack_cache = o->repack_cache,
                                 .tensor_parallel = o->tensor_parallel,
                                 .deterministic = o->deterministic};
    int rc = lane->ops->open(&bo, &lane->backend, e);
    if (!rc)
        rc = load_model(eng, lane, &eng->model, e);
    draft->ops = lane->ops;
    draft->backend = lane->backend;
    if (!rc && o->draft_path)
        rc = load_model(eng, draft, &eng->draft_model, e);
    int kv_type = kv_type_by_name(o->kv_type);
    struct kv_config kv = {
        .block_len = BLOCK_LEN, .k_type = kv_type, .v_type = kv_type, .hidden_plane = !o->no_contrastive};
    if (!rc)
        rc = size_pool(eng, &kv, &ctx, e);
    if (!rc)
        rc = equip_lane(eng, lane, &eng->model.desc, &kv, &bo.limits, e);
    kv.hidden_plane = 0;
    if (!rc && draft->model)
        rc = equip_lane(eng, draft, &eng->draft_model.desc, &kv, &bo.limits, e);
    eng->limits = (struct request_limits){.n_ctx = ctx,
                                          .block_len = BLOCK_LEN,
                                          .n_block = kv.n_block,
                                          .max_seqs = o->max_seqs,
                                          .max_choices = o->max_choices < MAX_CHOICES ? o->max_choices : MAX_CHOICES,
                                          .max_row = o->max_batch_tokens,
                                          .has_draft = draft->model != NULL,
                                          .n_exit = eng->model.n_exit,
                                          .exit_layer = eng->model.exit_layer,
                                          .has_contrast = !o->no_contrastive,
                                          .has_ngram = o->ngram_path != NULL};
    return rc;
}

/* A draft proposes tokens by id: it is of use only if equal ids mean equal text. */
static int open_draft(struct engine *eng, struct err *e)
{
    if (!eng->opt.draft_path)
        return 0;
    int rc = model_open(eng->opt.draft_path, &eng->draft_model, e);
    if (rc)
        return rc;
    const struct tokenizer *tok = eng->model.tok, *draft = eng->draft_model.tok;
    int32_t n = tok_n_vocab(tok), n_draft = tok_n_vocab(draft);
    if (n != n_draft)
        return err_set(e, ERR_INVALID, "--draft-model: it has %d tokens, the target %d", n_draft, n);
    for (int32_t t = 0; t < n; t++) {
        struct slice a = tok_piece(tok, t), b = tok_piece(draft, t);
        if (a.len != b.len || memcmp(a.p, b.p, a.len))
            return err_set(e, ERR_INVALID, "--draft-model: token %d means '%.*s' there and '%.*s' in the target", t,
                           (int)b.len, b.p, (int)a.len, a.p);
    }
    return 0;
}

static void describe_memory(struct engine *eng)
{
    struct backend_stats st, draft = {0};
    const struct model_info *info = &eng->model.info;
    const char *kv_type = kv_type_by_name(eng->opt.kv_type) == DT_Q8_0 ? "q8_0" : eng->opt.kv_type;
    char draft_line[256] = "";
    eng->target.ops->stats(eng->target.model, &st);
    kv_type = st.kv_type ? st.kv_type : kv_type;
    if (eng->draft.model) {
        const struct model_info *d = &eng->draft_model.info;
        eng->draft.ops->stats(eng->draft.model, &draft);
        snprintf(draft_line, sizeof draft_line, "draft      %s (%s, %.1fM parameters)\n", d->name, d->quant,
                 (double)d->n_param / 1e6);
    }
    snprintf(eng->memory_plan, sizeof eng->memory_plan,
             "model      %s (%s, %s, %.1fM parameters)\n"
             "%s"
             "device     %s\n"
             "weights    %8.1f MiB%s\n"
             "KV cache   %8.1f MiB   %d tokens in blocks of %d, %s; the longest sequence has %d\n"
             "scratch    %8.1f MiB   steps of at most %d tokens, %d sequences at once\n",
             info->name, info->architecture, info->quant, (double)info->n_param / 1e6, draft_line, st.device,
             (double)(st.weight_bytes + draft.weight_bytes) / MIB, st.weights_cached ? "   from the repack cache" : "",
             (double)(st.kv_bytes + draft.kv_bytes) / MIB, eng->limits.n_block * BLOCK_LEN, BLOCK_LEN, kv_type,
             eng->limits.n_ctx, (double)(st.scratch_bytes + draft.scratch_bytes) / MIB, eng->opt.max_batch_tokens,
             eng->opt.max_seqs);
}

static int check_options(const struct engine_options *o, struct err *e)
{
    if (o->max_batch_tokens < 1 || o->max_batch_tokens > INT16_MAX)
        return err_set(e, ERR_INVALID, "--max-batch-tokens %d: 1 to %d", o->max_batch_tokens, INT16_MAX);
    if (o->max_seqs < 1 || o->max_seqs > 4096)
        return err_set(e, ERR_INVALID, "--max-seqs %d: 1 to 4096", o->max_seqs);
    if (o->n_ctx < 0 || o->n_ctx > 1 << 24)
        return err_set(e, ERR_INVALID, "--ctx %d: 1 to %d", o->n_ctx, 1 << 24);
    if (o->max_draft < 0 || o->max_draft > DRAFT_MAX)
        return err_set(e, ERR_INVALID, "--max-draft %d: 0 to %d", o->max_draft, DRAFT_MAX);
    if (pin_by_name(o->pin) < 0)
        return err_set(e, ERR_INVALID, "--pin %s: node, core or off", o->pin);
    if (strcmp(o->quantization, "none") && strcmp(o->quantization, "fp8"))
        return err_set(e, ERR_INVALID, "--quantization %s: none or fp8", o->quantization);
    if (kv_type_by_name(o->kv_type) < 0)
        return err_set(e, ERR_INVALID, "--kv-type %s: f32, f16, bf16, q8_0 or fp8", o->kv_type);
    if (o->tensor_parallel < 0 || o->tensor_parallel > MAX_DEVICES)
        return err_set(e, ERR_INVALID, "--tensor-parallel %d: 0 to %d", o->tensor_parallel, MAX_DEVICES);
    return 0;
}

static int calibrate(struct engine *eng, struct lane *lane, int32_t n_layer, struct step_cost *cost, struct err *e)
{
    return eng->opt.max_draft ? lane_calibrate(lane, n_layer, cost, eng->opt.max_batch_tokens, e) : 0;
}

/* What can draft, and what steps cost. */
static int set_up_drafting(struct engine *eng, struct err *e)
{
    struct lane *target = &eng->target, *draft = &eng->draft;
    const struct model *m = &eng->model;
    int rc = calibrate(eng, target, target->env.n_layer, &target->cost, e);
    books_start(eng);
    if (draft->model)
        eng->drafter[DRAFTER_MODEL] =
            (struct drafter){.lane = draft, .cost = &draft->cost, .n_layer = draft->env.n_layer};
    if (m->n_exit)
        eng->drafter[DRAFTER_EXIT] =
            (struct drafter){.lane = target, .cost = eng->exit_cost, .n_layer = m->exit_layer[0], .is_exit = true};
    if (!rc && draft->model)
        rc = calibrate(eng, draft, draft->env.n_layer, &draft->cost, e);
    for (int i = 0; !rc && i < m->n_exit; i++)
        rc = calibrate(eng, target, m->exit_layer[i], &eng->exit_cost[i], e);
    if (!rc && eng->opt.max_draft)
        rc = trigrams_create(eng, e);
    return rc ? rc : waves_create(eng, e);
}

int engine_setup(struct engine *eng, struct err *e)
{
    fill_defaults(&eng->opt);
    int rc = check_options(&eng->opt, e);
    if (!rc)
        rc = model_open(eng->opt.model_path, &eng->model, e);
    if (!rc)
        rc = open_draft(eng, e);
    if (!rc && eng->opt.ngram_path)
        rc = ngram_open(&eng->ngram, eng->opt.ngram_path, eng->model.tok, e);
    if (!rc)
        rc = load_lanes(eng, e);
    if (!rc)
        rc = set_up_drafting(eng, e);
    if (rc)
        return rc;
    eng->text = mem_alloc(MAX_STOP_BYTES + 4 * detok_bound(eng->model.tok));
    if (!eng->text)
        return err_set(e, ERR_NOMEM, "out of memory");
    metrics_init(&eng->metrics);
    eng->metrics.now.n_block = eng->limits.n_block;
    eng->metrics.now.block_len = BLOCK_LEN;
    metrics_publish(&eng->metrics);
    describe_memory(eng);
    return 0;
}

static void free_lane(struct lane *lane)
{
    if (lane->ops)
        lane->ops->unload(lane->model);
    kv_pool_free(&lane->pool);
    plan_free(&lane->plan);
    mem_free(lane->move);
    mem_free(lane->result.f);
    mem_free(lane->result.i);
}

void engine_teardown(struct engine *eng)
{
    free_lane(&eng->draft);
    free_lane(&eng->target);
    if (eng->target.ops)
        eng->target.ops->close(eng->target.backend);
    mem_free(eng->wave);
    trigrams_free(eng);
    mem_free(eng->text);
    ngram_close(eng->ngram);
    model_close(&eng->draft_model);
    model_close(&eng->model);
}
