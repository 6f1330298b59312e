#include "chat.h"

#include <stdio.h>
#include <string.h>

int chat_open(struct chat *c, struct err *e)
{
    c->messages = json_array();
    return c->messages ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

void chat_close(struct chat *c)
{
    json_decref(c->messages);
    tb_free(&c->answer);
}

int chat_add_field(struct chat *c, const char *name, const char *value, struct err *e)
{
    if (c->n_field + 2 > CHAT_FIELDS)
        return err_set(e, ERR_INVALID, "%s: more than %d fields of requests", name, CHAT_FIELDS / 2);
    c->field[c->n_field++] = name + strspn(name, "-");
    c->field[c->n_field++] = value;
    return 0;
}

static int add_message(struct chat *c, const char *role, const char *text, size_t n, struct err *e)
{
    json_t *m = json_pack("{s:s, s:s%}", "role", role, "content", text, n);
    if (!m)
        return err_set(e, ERR_INVALID, "the text is not valid UTF-8");
    return json_array_append_new(c->messages, m) ? err_set(e, ERR_NOMEM, "out of memory") : 0;
}

void chat_begin(struct chat *c, const char *system)
{
    json_array_clear(c->messages);
    if (system)
        add_message(c, "system", system, strlen(system), NULL);
}

static json_t *request_of(const struct chat *c)
{
    json_t *q = json_pack("{s:O, s:b}", "messages", c->messages, "stream", 1);
    if (c->model)
        json_object_set_new(q, "model", json_string(c->model));
    for (int i = 0; i < c->n_field; i += 2) {
        char name[64];
        snprintf(name, sizeof name, "%s", c->field[i]);
        for (char *at = name; *at; at++)
            *at = *at == '-' ? '_' : *at;
        json_t *value = json_loads(c->field[i + 1], JSON_DECODE_ANY, NULL);
        json_object_set_new(q, name, value ? value : json_string(c->field[i + 1]));
    }
    return q;
}

/* Control characters (C0, DEL, C1) would let a model move the cursor, name the window, or worse. */
static void print_plain(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i], next = i + 1 < n ? (unsigned char)text[i + 1] : 0;
        if (c == 0xc2 && next >= 0x80 && next < 0xa0)
            i++;
        else if (c == '\n' || c == '\t' || (c >= ' ' && c != 0x7f))
            putchar(c);
    }
}

static void on_event(void *arg, const json_t *event)
{
    struct chat *c = arg;
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const json_t *text = json_object_get(json_object_get(choice, "delta"), "content");
    const char *reason = json_string_value(json_object_get(choice, "finish_reason"));
    if (reason)
        snprintf(c->finish_reason, sizeof c->finish_reason, "%s", reason);
    if (!json_is_string(text))
        return;
    if (c->on_terminal)
        print_plain(json_string_value(text), json_string_length(text));
    else
        fwrite(json_string_value(text), 1, json_string_length(text), stdout);
    fflush(stdout);
    tb_add(&c->answer, json_string_value(text), json_string_length(text));
}

int chat_ask(struct chat *c, const char *text, size_t n, struct err *e)
{
    int rc = add_message(c, "user", text, n, e);
    json_t *q = rc ? NULL : request_of(c);
    if (rc)
        return rc;
    c->answer.n = 0;
    c->finish_reason[0] = 0;
    rc = client_stream(c->client, "/v1/chat/completions", q, c->in->fd, on_event, c, e);
    json_decref(q);
    if (c->answer.n && c->answer.p[c->answer.n - 1] != '\n')
        putchar('\n');
    fflush(stdout);
    if (rc == -ERR_CANCELED)
        interrupt_take(c->in);
    if (c->answer.n)
        add_message(c, "assistant", c->answer.p, c->answer.n, NULL);
    else if (rc)
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    return rc;
}
