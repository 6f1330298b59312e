/* POST /v1/completions */
#include <stdio.h>
#include <string.h>

#include "job.h"
#include "logprobs.h"
#include "mem.h"

enum { MAX_PROMPTS = 256 };

/* ---- What the answer looks like ---- */

static void write_choice(struct job *j, struct text_buf *b, int32_t index, struct choice *ch, const struct prompt *p)
{
    tb_str(b, "\"text\":\"");
    if (j->echo && p->text)
        tb_escape(b, p->text, p->n_text);
    else
        for (int32_t i = 0; j->echo && i < p->n_tok; i++) {
            struct slice s = tok_piece(engine_tokenizer(j->loop->srv->eng), p->tok[i]);
            tb_escape(b, s.p, s.len);
        }
    tb_escape(b, ch->text.p, ch->text.n);
    tb_str(b, "\",\"logprobs\":");
    if (j->has_logprobs)
        write_completion_logprobs(j, b, ch, 0, ch->n_token, j->echo ? p : NULL);
    else
        tb_str(b, "null");
    if (j->par.p.n_prompt_logprobs >= 0 && !j->echo) {
        tb_str(b, ",\"prompt_logprobs\":");
        write_prompt_logprobs(j, b, p);
    }
    if (j->par.return_token_ids) {
        tb_str(b, ",\"prompt_token_ids\":");
        write_ids(b, p->tok, p->n_tok);
        tb_str(b, ",\"token_ids\":");
        write_record_ids(b, ch, 0, ch->n_token);
    }
}

static void write_delta(struct job *j, struct text_buf *b, struct choice *ch, const char *text, size_t n_text)
{
    tb_str(b, "\"text\":");
    tb_json(b, text, n_text);
    tb_str(b, ",\"logprobs\":");
    if (j->has_logprobs)
        write_completion_logprobs(j, b, ch, ch->n_sent_token, ch->n_token, NULL);
    else
        tb_str(b, "null");
    if (j->par.return_token_ids) {
        tb_str(b, ",\"token_ids\":");
        write_record_ids(b, ch, ch->n_sent_token, ch->n_token);
    }
}

/* With echo the prompt itself is the first thing a stream says. */
static void write_opening(struct job *j, struct text_buf *b, int32_t index)
{
    const struct prompt *p = &j->prompt[index / j->best_of];
    tb_printf(b, ",\"choices\":[{\"index\":%d,\"text\":", index);
    tb_json(b, p->text ? p->text : "", p->text ? p->n_text : 0);
    tb_str(b, ",\"logprobs\":null,\"finish_reason\":null}]");
}

static const struct job_format format = {.id_prefix = "cmpl",
                                         .object = "text_completion",
                                         .chunk_object = "text_completion",
                                         .prompt_field = "prompt",
                                         .choice = write_choice,
                                         .delta = write_delta};
static const struct job_format format_echo = {.id_prefix = "cmpl",
                                              .object = "text_completion",
                                              .chunk_object = "text_completion",
                                              .prompt_field = "prompt",
                                              .choice = write_choice,
                                              .delta = write_delta,
                                              .opening = write_opening};

/* ---- What the request asks ---- */

static bool read_one_prompt(struct prompt *p, const json_t *v, struct api_error *e)
{
    if (json_is_array(v))
        return token_ids_read(v, "prompt", &p->tok, &p->n_tok, e);
    if (!json_is_string(v)) {
        api_fail(e, 400, "prompt",
                 "prompt must be a string, an array of strings, an array of token ids, or an array of such arrays");
        return false;
    }
    p->text = json_string_value(v);
    p->n_text = json_string_length(v);
    return true;
}

/* A string; token ids; several of either. */
static bool read_prompt(struct job *j, struct api_error *e)
{
    const json_t *v = field_get(j->body, "prompt");
    if (!v) {
        api_fail(e, 400, "prompt", "prompt is missing");
        return false;
    }
    bool many = json_is_array(v) && !json_is_integer(json_array_get(v, 0));
    size_t n = many ? json_array_size(v) : 1;
    if (n < 1 || n > MAX_PROMPTS || (json_is_array(v) && !json_array_size(v))) {
        api_fail(e, 400, "prompt", n ? "prompt has %zu entries, at most %d are taken" : "prompt is empty", n,
                 MAX_PROMPTS);
        return false;
    }
    if (!job_set_prompts(j, (int32_t)n)) {
        api_fail(e, 500, NULL, "The server is out of memory.");
        return false;
    }
    for (size_t i = 0; i < n; i++)
        if (!read_one_prompt(&j->prompt[i], many ? json_array_get(v, i) : v, e))
            return false;
    return true;
}

/* Fill in the middle: the text before and after, in the order the model was trained on (prefix, suffix, middle). */
static bool read_suffix(struct job *j, struct api_error *e)
{
    const char *suffix = NULL;
    if (!field_string(j->body, "suffix", &suffix, e) || !suffix || !*suffix)
        return !e->status;
    const struct tokenizer *tok = engine_tokenizer(j->loop->srv->eng);
    const struct tok_ids *id = tok_ids(tok);
    if (id->fim_prefix < 0 || id->fim_suffix < 0 || id->fim_middle < 0) {
        api_fail(e, 400, "suffix", "suffix: this model has no fill-in-the-middle tokens");
        return false;
    }
    if (j->n_prompt != 1 || !j->prompt[0].text) {
        api_fail(e, 400, "suffix", "suffix takes a single prompt, as a string");
        return false;
    }
    struct prompt *p = &j->prompt[0];
    size_t cap = p->n_text + strlen(suffix) + 16, n = 0, m = 0;
    struct err err = {0};
    p->tok = mem_alloc(cap * sizeof *p->tok);
    if (!p->tok || !j->loop->scratch) {
        api_fail(e, 500, NULL, "The server is out of memory.");
        return false;
    }
    p->tok[0] = id->fim_prefix;
    int rc = tok_encode(tok, p->text, p->n_text, 0, p->tok + 1, cap - 3, &n, j->loop->scratch, &err);
    p->tok[1 + n] = id->fim_suffix;
    if (!rc)
        rc = tok_encode(tok, suffix, strlen(suffix), 0, p->tok + 2 + n, cap - 3 - n, &m, j->loop->scratch, &err);
    if (rc) {
        api_fail(e, 400, "suffix", "%s", err.msg);
        return false;
    }
    p->tok[2 + n + m] = id->fim_middle;
    p->n_tok = (int32_t)(3 + n + m);
    return true;
}

static bool read_logprobs(struct job *j, struct api_error *e)
{
    int64_t n = -1;
    if (!field_int(j->body, "logprobs", 0, 20, &n, e))
        return false;
    j->par.p.n_logprobs = (int32_t)n;
    j->has_logprobs = n >= 0;
    if (!j->echo || n < 0)
        return true;
    if (j->par.stream) {
        api_fail(e, 400, "logprobs", "echo with logprobs cannot be streamed");
        return false;
    }
    j->par.p.n_prompt_logprobs = (int32_t)n;
    return true;
}

static bool read_best_of(struct job *j, struct api_error *e)
{
    int64_t best_of = j->par.p.n;
    if (!field_int(j->body, "best_of", j->par.p.n, 128, &best_of, e))
        return false;
    j->best_of = (int32_t)best_of;
    if (j->best_of > j->par.p.n && j->par.stream) {
        api_fail(e, 400, "best_of", "best_of above n cannot be streamed");
        return false;
    }
    if (j->best_of > j->par.p.n && j->par.p.n_logprobs < 0)
        j->par.p.n_logprobs = 0; /* needed to rank them */
    return true;
}

static bool read_request(struct job *j, struct api_error *e)
{
    static const char *const own[] = {"prompt", "suffix", "echo", "best_of", NULL};
    const struct server *srv = j->loop->srv;
    if (!params_check_model(j->body, srv, e) || !params_check_unknown(j->body, srv, own, e) ||
        !params_read(j->body, srv, &j->par, e) || !field_bool(j->body, "echo", &j->echo, e) || !read_prompt(j, e) ||
        !read_suffix(j, e) || !read_logprobs(j, e) || !read_best_of(j, e))
        return false;
    if (j->par.max_tokens_given && j->par.p.max_tokens == 0 && !j->echo && j->par.p.n_prompt_logprobs < 0) {
        api_fail(e, 400, "max_tokens", "max_tokens 0 needs echo or prompt_logprobs");
        return false;
    }
    if (j->echo)
        j->format = &format_echo;
    return true;
}

void api_completions(struct call *c)
{
    job_run(c, &format, read_request);
}
