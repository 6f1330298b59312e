/* The small endpoints: models, tokenize, detokenize, health, ready, version. */
#include <stdlib.h>
#include <string.h>

#include "logprobs.h"
#include "mem.h"
#include "params.h"
#include "version.h"

/* ---- Models: always fast, also while loading ---- */

const char *server_model_name(const struct server *srv)
{
    bool set = srv->opt->served_model_name || atomic_load(&srv->state) != SERVER_LOADING; /* else it is being written */
    return set ? srv->model_name : "";
}

static void write_model(const struct server *srv, struct text_buf *b)
{
    bool ready = atomic_load(&srv->state) != SERVER_LOADING;
    tb_str(b, "{\"id\":");
    tb_json_str(b, srv->model_name);
    tb_printf(b, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"galley\",\"root\":", (long long)srv->created_s);
    tb_json_str(b, srv->model_name);
    tb_str(b, ",\"parent\":null,\"max_model_len\":");
    if (ready)
        tb_int(b, engine_n_ctx(srv->eng));
    else
        tb_str(b, "null");
    tb_str(b, "}");
}

void api_models(struct call *c)
{
    struct text_buf b = {0};
    tb_str(&b, "{\"object\":\"list\",\"data\":[");
    if (*server_model_name(c->loop->srv))
        write_model(c->loop->srv, &b);
    tb_str(&b, "]}");
    call_json(c, 200, &b);
}

/* MHD has undone the URL encoding already: an id may contain slashes. */
void api_model(struct call *c)
{
    const char *id = strstr(c->path, "models/") + strlen("models/");
    struct text_buf b = {0};
    struct api_error e = {0};
    if (strcmp(id, server_model_name(c->loop->srv))) {
        api_fail(&e, 404, "model", "The model `%.200s` does not exist.", id);
        e.code = "model_not_found";
        call_error(c, &e);
        return;
    }
    write_model(c->loop->srv, &b);
    call_json(c, 200, &b);
}

/* ---- Tokens ---- */

static bool encode(struct call *c, const char *text, size_t n_text, int flags, int32_t **out, size_t *n,
                   struct api_error *e)
{
    const struct tokenizer *tok = engine_tokenizer(c->loop->srv->eng);
    size_t cap = n_text + 8; /* a token has at least a byte */
    struct err err = {0};
    *out = mem_alloc(cap * sizeof **out);
    if (!*out || !c->loop->scratch) {
        api_fail(e, 500, NULL, "The server is out of memory.");
        return false;
    }
    if (tok_encode(tok, text, n_text, flags, *out, cap, n, c->loop->scratch, &err)) {
        api_fail(e, 400, "prompt", "%s", err.msg);
        return false;
    }
    return true;
}

static bool tokenize_body(struct call *c, const json_t *body, struct text_buf *b, struct api_error *e)
{
    const struct server *srv = c->loop->srv;
    const struct tokenizer *tok = engine_tokenizer(srv->eng);
    const char *field = field_get(body, "content") ? "content" : "prompt"; /* llama.cpp's name, vLLM's name */
    const json_t *text = field_get(body, field);
    bool add_special = true, parse_special = true, pieces = false;
    if (!params_check_model(body, srv, e) || !field_bool(body, "add_special_tokens", &add_special, e) ||
        !field_bool(body, "parse_special", &parse_special, e) || !field_bool(body, "return_token_strs", &pieces, e))
        return false;
    if (!json_is_string(text)) {
        api_fail(e, 400, field, "%s must be a string", field);
        return false;
    }
    int32_t *id = NULL;
    size_t n = 0;
    bool ok = encode(c, json_string_value(text), json_string_length(text),
                     (add_special ? TOK_ADD_SPECIAL : 0) | (parse_special ? TOK_PARSE_SPECIAL : 0), &id, &n, e);
    if (ok) {
        tb_printf(b, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":", n, engine_n_ctx(srv->eng));
        write_ids(b, id, (int32_t)n);
        tb_str(b, ",\"token_strs\":");
        tb_str(b, pieces ? "[" : "null");
        for (size_t i = 0; pieces && i < n; i++) {
            struct slice s = tok_piece(tok, id[i]);
            tb_str(b, i ? "," : "");
            tb_json(b, s.p, s.len);
        }
        tb_str(b, pieces ? "]}" : "}");
    }
    mem_free(id);
    return ok;
}

static bool detokenize_body(struct call *c, const json_t *body, struct text_buf *b, struct api_error *e)
{
    const struct tokenizer *tok = engine_tokenizer(c->loop->srv->eng);
    const json_t *list = field_get(body, "tokens");
    int32_t *id = NULL, n = 0;
    if (!params_check_model(body, c->loop->srv, e))
        return false;
    if (!json_is_array(list)) {
        api_fail(e, 400, "tokens", "tokens must be an array of token ids");
        return false;
    }
    if (!token_ids_read(list, "tokens", &id, &n, e))
        return false;
    struct detok d;
    detok_init(&d, tok, false);
    char *piece = mem_alloc(detok_bound(tok));
    bool ok = piece != NULL;
    tb_str(b, "{\"prompt\":\"");
    for (int32_t i = 0; ok && i < n; i++) {
        ok = id[i] < tok_n_vocab(tok);
        if (ok)
            tb_escape(b, piece, detok_push(&d, id[i], piece));
        else
            api_fail(e, 400, "tokens", "tokens[%d]: %d is not a token id of this model", i, id[i]);
    }
    if (ok)
        tb_escape(b, piece, detok_flush(&d, piece));
    else if (!piece)
        api_fail(e, 500, NULL, "The server is out of memory.");
    tb_str(b, "\"}");
    mem_free(piece);
    mem_free(id);
    return ok;
}

static void answer_body(struct call *c,
                        bool (*make)(struct call *, const json_t *, struct text_buf *, struct api_error *))
{
    struct api_error e = {0};
    struct text_buf b = {0};
    json_t *body = body_parse(c, &e);
    if (body && make(c, body, &b, &e)) {
        call_json(c, 200, &b);
    } else {
        tb_free(&b);
        call_error(c, &e);
    }
    json_decref(body);
}

void api_tokenize(struct call *c)
{
    answer_body(c, tokenize_body);
}

void api_detokenize(struct call *c)
{
    answer_body(c, detokenize_body);
}

/* ---- State ---- */

enum { HEARTBEAT_LIMIT_S = 60 }; /* a step that takes longer than this is no longer believed to be alive */

static void state_answer(struct call *c, int status, const char *word)
{
    struct text_buf b = {0};
    tb_printf(&b, "{\"status\":\"%s\"}", word);
    call_json(c, status, &b);
}

/* Liveness: the engine's heart beats, or the model is still loading. */
void api_health(struct call *c)
{
    const struct server *srv = c->loop->srv;
    if (atomic_load(&srv->state) == SERVER_LOADING)
        state_answer(c, 503, "loading");
    else if (engine_failed(srv->eng))
        state_answer(c, 500, "failed");
    else if (engine_heartbeat_age_ns(srv->eng) > HEARTBEAT_LIMIT_S * INT64_C(1000000000))
        state_answer(c, 500, "stuck");
    else
        state_answer(c, 200, "ok");
}

/* Readiness: new requests are welcome. */
void api_ready(struct call *c)
{
    const struct server *srv = c->loop->srv;
    int state = atomic_load(&srv->state);
    if (state == SERVER_READY && !engine_failed(srv->eng))
        state_answer(c, 200, "ready");
    else
        state_answer(c, 503, state == SERVER_LOADING ? "loading" : state == SERVER_DRAINING ? "draining" : "failed");
}

void api_version(struct call *c)
{
    struct text_buf b = {0};
    tb_str(&b, "{\"version\":\"" GALLEY_VERSION "\"}");
    call_json(c, 200, &b);
}
