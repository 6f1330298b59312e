/* From a request's body to requests in the engine. */
#include <string.h>

#include "decoding.h"
#include "mem.h"
#include "wake.h"

enum { POOL_BYTES = 1 << 15 }; /* longer texts are tokenised on libuv's pool, so that the loop goes on */

static bool encode(const struct tokenizer *tok, const char *text, size_t n_text, int flags, const char *field,
                   int32_t **out, int32_t *n_out, struct tok_scratch *scratch, struct api_error *e)
{
    size_t cap = n_text / 3 + 16, n = 0;
    struct err err = {0};
    int rc = -ERR_TOOLONG;
    while (rc == -ERR_TOOLONG) {
        mem_free(*out);
        *out = mem_alloc(cap * sizeof **out);
        rc = *out ? tok_encode(tok, text, n_text, flags, *out, cap, &n, scratch, &err) : -ERR_NOMEM;
        cap = n;
    }
    if (rc)
        api_fail(e, rc == -ERR_NOMEM ? 500 : 400, field, "%s",
                 rc == -ERR_NOMEM ? "The server is out of memory." : err.msg);
    *n_out = (int32_t)n;
    return !rc;
}

static bool tokenize(struct job *j, struct tok_scratch *scratch, struct api_error *e)
{
    const struct tokenizer *tok = engine_tokenizer(j->loop->srv->eng);
    for (int32_t i = 0; i < j->n_prompt; i++) {
        struct prompt *p = &j->prompt[i];
        int flags = j->encode_special ? TOK_PARSE_SPECIAL : TOK_ADD_SPECIAL;
        if (!p->tok && !encode(tok, p->text, p->n_text, flags, "prompt", &p->tok, &p->n_tok, scratch, e))
            return false;
    }
    const struct text_buf *expected = &j->prediction.text;
    if (expected->n == 0)
        return true;
    if (!encode(tok, expected->p, expected->n, 0, "prediction", &j->prediction.tok, &j->prediction.n_tok, scratch, e))
        return false;
    j->par.p.prediction = j->prediction.tok;
    j->par.p.n_prediction = j->prediction.n_tok;
    return true;
}

/* A request for each prompt, as it is. */
static bool add_children(struct job *j, struct api_error *e)
{
    struct gen_params p = j->par.p;
    p.n = j->best_of;
    for (int32_t i = 0; i < j->n_prompt; i++) {
        if (!job_add_child(j, i, j->prompt[i].tok, j->prompt[i].n_tok, &p, e))
            return false;
        j->prompt[i].r = j->child[i].r;
    }
    return true;
}

static void create_and_submit(struct job *j)
{
    struct api_error e = {0};
    const struct compose_ops *ops = j->how.ops;
    const char *field = ops ? ops->breadth_field : j->format->prompt_field;
    j->keeps_tokens = j->has_logprobs || j->par.return_token_ids;
    if (!(ops ? ops->begin(j, &e) : add_children(j, &e)) || !job_submit_children(j, field, &e)) {
        j->ended = true;
        call_error(j->call, &e); /* those already submitted are canceled when the call ends */
        return;
    }
    j->last_sent_ns = clock_ns();
    if (!j->par.stream) {
        if (!j->call->suspended)
            call_suspend(j->call);
        return;
    }
    job_begin_stream(j);
}

static void work_run(uv_work_t *w) /* libuv's pool */
{
    struct job *j = w->data;
    struct tok_scratch *scratch = tok_scratch_new(engine_tokenizer(j->loop->srv->eng));
    if (!scratch)
        api_fail(&j->work_error, 500, NULL, "The server is out of memory.");
    else
        tokenize(j, scratch, &j->work_error);
    tok_scratch_free(scratch);
}

static void work_done(uv_work_t *w, int status)
{
    struct job *j = w->data;
    j->working = false;
    if (!j->call || j->call->answered || j->call->gone) {
        job_free_if_over(j);
        return;
    }
    if (j->work_error.status)
        call_error(j->call, &j->work_error);
    else
        create_and_submit(j);
}

/* Tokenises (long texts on libuv's pool), creates and submits the requests, answers or begins the stream. */
static void submit(struct job *j)
{
    struct api_error e = {0};
    size_t n_text = j->prediction.text.n;
    j->call->job = j;
    for (int32_t i = 0; i < j->n_prompt; i++)
        n_text += j->prompt[i].n_text;
    if (n_text > POOL_BYTES) {
        j->work.data = j;
        j->working = true;
        call_suspend(j->call);
        uv_queue_work(&j->loop->uv, &j->work, work_run, work_done);
        return;
    }
    if (!j->loop->scratch)
        call_error(j->call, api_fail(&e, 500, NULL, "The server is out of memory."));
    else if (!tokenize(j, j->loop->scratch, &e))
        call_error(j->call, &e);
    else
        create_and_submit(j);
}

void job_run(struct call *c, const struct job_format *f, bool (*read)(struct job *, struct api_error *))
{
    struct api_error e = {0};
    json_t *body = body_parse(c, &e);
    struct job *j = body ? job_new(c, f, body) : NULL;
    if (body && !j)
        api_fail(&e, 500, NULL, "The server is out of memory.");
    if (!j || !read(j, &e) || !decoding_read(j, &e)) {
        call_error(c, &e);
        job_free(j);
        return;
    }
    submit(j);
}
