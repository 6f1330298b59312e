#include "engine_rig.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"
#include "model/gguf_write.h"
#include "tiny_gguf.h"

static char *path;
static char *draft_path;
struct engine *eng;
struct sink rig_sink;
const struct backend_ops *rig_ops = &backend_fake;
const char *const rig_backend[3] = {"fake", "ref", "cpu"};

static void on_wake(struct sink *s)
{
}

/* How many workers there are decides nothing (tests/unit/cpu), and two wait for each other on a busy machine. */
enum { N_THREAD = 1 };

void open_engine(int32_t n_ctx, int32_t n_block, int32_t batch, int32_t max_seqs)
{
    struct err e = {0};
    struct engine_options opt = {.model_path = path,
                                 .draft_path = draft_path,
                                 .ops = rig_ops,
                                 .n_thread = N_THREAD,
                                 .n_ctx = n_ctx,
                                 .max_batch_tokens = batch,
                                 .max_seqs = max_seqs};
    ck_assert_msg(!engine_open(&opt, &eng, &e), "%s", e.msg);
    /* The option is in bytes: what n_block blocks take on this back end. */
    struct kv_config kv = {
        .block_len = eng->limits.block_len, .n_block = n_block, .k_type = DT_F16, .v_type = DT_F16, .hidden_plane = 1};
    opt.kv_mem_bytes = rig_ops->kv_bytes(eng->target.model, &kv);
    kv.hidden_plane = 0;
    if (eng->draft.model)
        opt.kv_mem_bytes += rig_ops->kv_bytes(eng->draft.model, &kv);
    engine_close(eng);
    ck_assert_msg(!engine_open(&opt, &eng, &e), "%s", e.msg);
    ck_assert_int_le(eng->limits.n_block, n_block);
    rig_sink = (struct sink){.wake = on_wake};
}

void rig_open_model(const char *model, const char *kv_type, int32_t n_ctx, int32_t max_seqs)
{
    struct err e = {0};
    struct engine_options opt = {.model_path = model,
                                 .ops = rig_ops,
                                 .n_thread = N_THREAD,
                                 .kv_type = kv_type,
                                 .n_ctx = n_ctx,
                                 .max_seqs = max_seqs};
    ck_assert_msg(!engine_open(&opt, &eng, &e), "%s", e.msg);
    rig_sink = (struct sink){.wake = on_wake};
}

int rig_open_error(struct err *e)
{
    struct engine_options opt = {.model_path = path, .ops = rig_ops, .n_thread = N_THREAD};
    struct engine *none = NULL;
    int rc = engine_open(&opt, &none, e);
    engine_close(none);
    return rc;
}

void close_engine(void)
{
    const struct lane *lane[] = {&eng->target, &eng->draft};
    for (int i = 0; i < 2 && lane[i]->model; i++) {
        ck_assert_int_eq(kv_available(&lane[i]->pool), eng->limits.n_block);
        ck_assert(kv_consistent(&lane[i]->pool));
    }
    engine_close(eng);
}

void rig_setup(void)
{
    path = tiny_gguf_write("llama", 2048, 1, 0);
}

void rig_add_exit(void)
{
    unlink(path);
    free(path);
    tiny_exit_layer = 1;
    path = tiny_gguf_write("llama", 2048, 1, 0);
}

static struct {
    const int32_t *layer;
    int32_t n;
} exits;

static void put_exits(struct gguf_writer *w)
{
    gguf_put_i32s(w, "galley.early_exit_layers", exits.layer, (uint64_t)exits.n);
}

void rig_add_exits(int32_t n_layer, const int32_t *layer, int32_t n)
{
    unlink(path);
    free(path);
    exits.layer = layer;
    exits.n = n;
    tiny_n_layer = n_layer;
    tiny_more_keys = n ? put_exits : NULL;
    path = tiny_gguf_write("llama", 2048, 1, 0);
    tiny_more_keys = NULL;
}

void rig_add_draft(uint64_t seed, float flaw)
{
    draft_path = tiny_gguf_write("llama", 2048, seed, flaw);
}

void rig_teardown(void)
{
    unlink(path);
    free(path);
    if (draft_path)
        unlink(draft_path);
    free(draft_path);
    draft_path = NULL;
}

void hear(struct heard *h)
{
    struct gen_event ev;
    while (request_next_event(h->r, &ev)) {
        int c = ev.choice;
        if (ev.tok >= 0) {
            h->gap[c][h->n_tok[c]] = ev.n_top < 2 ? 0 : ev.top[0].logprob - ev.top[1].logprob;
            h->logprob[c][h->n_tok[c]] = ev.logprob;
            h->tok[c][h->n_tok[c]++] = ev.tok;
        }
        memcpy(h->text[c] + h->n_text[c], ev.text, (size_t)ev.n_text);
        h->n_text[c] += ev.n_text;
        if (ev.finish) {
            ck_assert_int_eq(h->finish[c], FINISH_NONE);
            h->finish[c] = ev.finish;
            h->stop_text = ev.stop_text;
        }
    }
}

void listen_all(void)
{
    struct request *r;
    bool done;
    while (sink_next(&rig_sink, &r, &done)) {
        struct heard *h = request_user(r);
        hear(h);
        h->done |= done;
    }
}

struct heard *ask(const int32_t *prompt, int32_t n, const struct gen_params *p)
{
    struct err e = {0};
    struct heard *h = calloc(1, sizeof *h);
    ck_assert_msg(!request_create(eng, prompt, n, p, &rig_sink, h, &h->r, &e), "%s", e.msg);
    ck_assert_msg(!engine_submit(eng, h->r, &e), "%s", e.msg);
    return h;
}

void step(void)
{
    engine_step(eng);
    ck_assert(kv_consistent(&eng->target.pool));
    listen_all();
}

void finish(struct heard *h)
{
    for (int i = 0; !h->done; i++) {
        step();
        ck_assert_int_lt(i, 100000);
    }
}

struct heard *ask_and_finish(const int32_t *prompt, int32_t n, const struct gen_params *p)
{
    struct heard *h = ask(prompt, n, p);
    finish(h);
    return h;
}

void forget(struct heard *h)
{
    request_free(h->r);
    free(h);
}

void expect_same(const struct heard *a, const struct heard *b)
{
    for (int c = 0; c < MAX_CHOICE; c++) {
        ck_assert_int_eq(a->n_tok[c], b->n_tok[c]);
        ck_assert_mem_eq(a->tok[c], b->tok[c], sizeof(int32_t) * (size_t)a->n_tok[c]);
        ck_assert_mem_eq(a->logprob[c], b->logprob[c], sizeof(float) * (size_t)a->n_tok[c]); /* bit for bit */
        ck_assert_int_eq(a->n_text[c], b->n_text[c]);
        ck_assert_mem_eq(a->text[c], b->text[c], (size_t)a->n_text[c]);
        ck_assert_int_eq(a->finish[c], b->finish[c]);
    }
}

void random_prompt(struct rnd *r, int32_t *tok, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        tok[i] = rnd_int(r, 0, 255);
}

struct gen_params params(int32_t max_tokens)
{
    struct gen_params p;
    gen_params_init(&p);
    p.max_tokens = max_tokens;
    p.temperature = 0;
    p.emit_tokens = true;
    p.ignore_eos = true;
    return p;
}

struct gen_params params_of_way(enum decode_strategy strategy, int32_t max_tokens)
{
    struct gen_params p = params(max_tokens);
    p.decoding.strategy = strategy;
    return p;
}
