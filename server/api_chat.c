/* POST /v1/chat/completions */
#include <stdio.h>
#include <string.h>

#include "job.h"
#include "logprobs.h"
#include "mem.h"

/* ---- What the answer looks like ---- */

static void write_choice(struct job *j, struct text_buf *b, int32_t index, struct choice *ch, const struct prompt *p)
{
    tb_str(b, "\"message\":{\"role\":\"assistant\",\"content\":");
    tb_json(b, ch->text.p ? ch->text.p : "", ch->text.n);
    tb_str(b, ",\"refusal\":null},\"logprobs\":");
    if (j->has_logprobs)
        write_chat_logprobs(j, b, ch, 0, ch->n_token);
    else
        tb_str(b, "null");
    if (j->par.return_token_ids) {
        tb_str(b, ",\"token_ids\":");
        write_record_ids(b, ch, 0, ch->n_token);
    }
}

static void write_delta(struct job *j, struct text_buf *b, struct choice *ch, const char *text, size_t n_text)
{
    tb_str(b, "\"delta\":{");
    if (n_text) {
        tb_str(b, "\"content\":");
        tb_json(b, text, n_text);
    }
    tb_str(b, "},\"logprobs\":");
    if (j->has_logprobs && ch->n_sent_token < ch->n_token)
        write_chat_logprobs(j, b, ch, ch->n_sent_token, ch->n_token);
    else
        tb_str(b, "null");
    if (j->par.return_token_ids) {
        tb_str(b, ",\"token_ids\":");
        write_record_ids(b, ch, ch->n_sent_token, ch->n_token);
    }
}

static void write_opening(struct job *j, struct text_buf *b, int32_t index)
{
    tb_printf(b,
              ",\"choices\":[{\"index\":%d,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
              "\"finish_reason\":null}]",
              index);
}

static void write_extra(struct job *j, struct text_buf *b)
{
    if (j->par.p.n_prompt_logprobs >= 0) {
        tb_str(b, ",\"prompt_logprobs\":");
        write_prompt_logprobs(j, b, &j->prompt[0]);
    }
    if (j->par.return_token_ids) {
        tb_str(b, ",\"prompt_token_ids\":");
        write_ids(b, j->prompt[0].tok, j->prompt[0].n_tok);
    }
}

static const struct job_format format = {.id_prefix = "chatcmpl",
                                         .object = "chat.completion",
                                         .chunk_object = "chat.completion.chunk",
                                         .prompt_field = "messages",
                                         .choice = write_choice,
                                         .delta = write_delta,
                                         .opening = write_opening,
                                         .extra = write_extra};

/* ---- The conversation ---- */

static bool bad_message(struct api_error *e, size_t i, const char *what)
{
    api_fail(e, 400, "messages", "messages[%zu]%s", i, what);
    return false;
}

/* Content parts become one string: templates expect that. Only text can be read. */
static bool flatten_content(json_t *message, size_t i, struct api_error *e)
{
    json_t *content = json_object_get(message, "content");
    struct text_buf text = {0};
    if (!json_is_array(content)) {
        bool calls = json_object_get(message, "tool_calls") != NULL, none = !content || json_is_null(content);
        const char *role = json_string_value(json_object_get(message, "role"));
        if (!json_is_string(content) && !(none && (calls || !strcmp(role, "assistant"))))
            return bad_message(e, i, ".content must be a string or an array of parts");
        if (none) /* an answer that was only a tool call, or only reasoning */
            json_object_set_new(message, "content", calls ? json_null() : json_string(""));
        return true;
    }
    for (size_t k = 0; k < json_array_size(content); k++) {
        const json_t *part = json_array_get(content, k);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *piece = json_object_get(part, "text");
        if (!type || strcmp(type, "text") || !json_is_string(piece)) {
            tb_free(&text);
            return bad_message(e, i, ".content: this model reads parts of type \"text\" only");
        }
        if (k)
            tb_str(&text, "\n");
        tb_add(&text, json_string_value(piece), json_string_length(piece));
    }
    json_t *joined = text.failed ? NULL : json_stringn(text.p ? text.p : "", text.n);
    tb_free(&text);
    if (!joined || json_object_set_new(message, "content", joined)) {
        api_fail(e, 500, NULL, "The server is out of memory.");
        return false;
    }
    return true;
}

static bool check_messages(struct job *j, json_t **messages, struct api_error *e)
{
    *messages = json_object_get(j->body, "messages");
    if (!json_is_array(*messages) || !json_array_size(*messages)) {
        api_fail(e, 400, "messages", "messages must be a non-empty array");
        return false;
    }
    for (size_t i = 0; i < json_array_size(*messages); i++) {
        json_t *m = json_array_get(*messages, i);
        const char *role = json_string_value(json_object_get(m, "role"));
        if (!json_is_object(m) || !role || !*role)
            return bad_message(e, i, " must be an object with a role");
        if (!strcmp(role, "developer"))
            json_object_set_new(m, "role", json_string("system"));
        if (!flatten_content(m, i, e))
            return false;
    }
    return true;
}

static json_t *special_text(const struct tokenizer *tok, int32_t id)
{
    struct slice s = tok_piece(tok, id);
    return json_stringn(s.p ? s.p : "", id < 0 ? 0 : s.len);
}

/* The variables a template may use, as transformers gives them. */
static json_t *template_vars(struct job *j, json_t *messages, bool generation_prompt)
{
    const struct tokenizer *tok = engine_tokenizer(j->loop->srv->eng);
    json_t *vars = json_object(), *extra = json_object_get(j->body, "chat_template_kwargs"),
           *tools = json_object_get(j->body, "tools");
    const char *choice = json_string_value(json_object_get(j->body, "tool_choice"));
    if (json_is_object(extra))
        json_object_update(vars, extra);
    json_object_set(vars, "messages", messages);
    if (json_is_array(tools) && json_array_size(tools) && !(choice && !strcmp(choice, "none")))
        json_object_set(vars, "tools", tools);
    else
        json_object_set_new(vars, "tools", json_null());
    json_object_set_new(vars, "add_generation_prompt", json_boolean(generation_prompt));
    json_object_set_new(vars, "bos_token", special_text(tok, tok_ids(tok)->bos));
    json_object_set_new(vars, "eos_token", special_text(tok, tok_ids(tok)->eos));
    return vars;
}

static bool render(struct job *j, struct api_error *e)
{
    struct err err = {0};
    json_t *messages;
    bool generation_prompt = true;
    if (!j->loop->srv->tmpl) {
        api_fail(e, 400, NULL,
                 "This model has no chat template; start the server with --chat-template, or use /v1/completions.");
        return false;
    }
    if (!check_messages(j, &messages, e) || !field_bool(j->body, "add_generation_prompt", &generation_prompt, e))
        return false;
    json_t *vars = template_vars(j, messages, generation_prompt);
    size_t n = 0;
    int rc = chat_template_render(j->loop->srv->tmpl, vars, NULL, &j->rendered, &n, &err);
    json_decref(vars);
    if (rc) {
        api_fail(e, rc == -ERR_NOMEM ? 500 : 400, "messages", "The chat template refused the conversation: %s",
                 err.msg);
        return false;
    }
    if (!job_set_prompts(j, 1)) {
        api_fail(e, 500, NULL, "The server is out of memory.");
        return false;
    }
    j->prompt[0].text = j->rendered;
    j->prompt[0].n_text = n;
    j->encode_special = true;
    return true;
}

/* ---- What the request asks ---- */

/* What would silently change the answer if it were ignored is refused instead. */
static bool refuse_unsupported(struct job *j, struct api_error *e)
{
    const json_t *format_field = field_get(j->body, "response_format");
    const char *type = json_string_value(json_object_get(format_field, "type"));
    if (format_field && (!type || strcmp(type, "text"))) {
        api_fail(e, 400, "response_format", "response_format: only {\"type\": \"text\"} is supported");
        return false;
    }
    const json_t *choice = field_get(j->body, "tool_choice");
    const char *word = json_string_value(choice);
    if (choice && (!word || (strcmp(word, "none") && strcmp(word, "auto")))) {
        api_fail(e, 400, "tool_choice", "tool_choice: only \"none\" and \"auto\" are supported");
        return false;
    }
    if (field_get(j->body, "tools") && !json_is_array(field_get(j->body, "tools"))) {
        api_fail(e, 400, "tools", "tools must be an array");
        return false;
    }
    return true;
}

static bool read_logprobs(struct job *j, struct api_error *e)
{
    int64_t top = -1;
    if (!field_bool(j->body, "logprobs", &j->has_logprobs, e) || !field_int(j->body, "top_logprobs", 0, 20, &top, e))
        return false;
    if (top > 0 && !j->has_logprobs) {
        api_fail(e, 400, "top_logprobs", "top_logprobs needs logprobs to be true");
        return false;
    }
    if (j->has_logprobs)
        j->par.p.n_logprobs = top > 0 ? (int32_t)top : 0;
    return true;
}

static bool read_request(struct job *j, struct api_error *e)
{
    static const char *const own[] = {"messages",
                                      "top_logprobs",
                                      "tools",
                                      "tool_choice",
                                      "parallel_tool_calls",
                                      "response_format",
                                      "chat_template_kwargs",
                                      "add_generation_prompt",
                                      NULL};
    const struct server *srv = j->loop->srv;
    if (!params_check_model(j->body, srv, e) || !params_check_unknown(j->body, srv, own, e) ||
        !params_read(j->body, srv, &j->par, e) || !refuse_unsupported(j, e) || !read_logprobs(j, e) || !render(j, e))
        return false;
    if (!j->par.max_tokens_given)
        j->par.p.max_tokens = -1; /* what is left of the context */
    else if (j->par.p.max_tokens < 1) {
        api_fail(e, 400, "max_tokens", "max_tokens must be at least 1");
        return false;
    }
    j->best_of = j->par.p.n;
    return true;
}

void api_chat(struct call *c)
{
    job_run(c, &format, read_request);
}
