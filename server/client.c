#include "client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

enum { MAX_EVENT = 16 << 20, MAX_BODY = 16 << 20, CONNECT_S = 10 };

struct client { /* owner: client_open's caller */
    CURL *curl;
    CURLM *multi;
    struct curl_slist *headers;
    char *base; /* the URL without final slashes */
    char why[CURL_ERROR_SIZE];
};

/* ---- Opening ---- */

static bool add_header(struct client *c, const char *line)
{
    struct curl_slist *longer = curl_slist_append(c->headers, line);
    if (longer)
        c->headers = longer;
    return longer;
}

static bool add_key(struct client *c, const char *key)
{
    struct text_buf line = {0};
    tb_str(&line, "Authorization: Bearer ");
    tb_str(&line, key);
    tb_add(&line, "", 1);
    bool ok = !line.failed && add_header(c, line.p);
    tb_free(&line);
    return ok;
}

static void set_options(struct client *c, const struct client_options *o)
{
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->why);
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->curl, CURLOPT_NOPROXY, "127.0.0.1,localhost,::1");
    if (o->unix_socket)
        curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, o->unix_socket);
    if (o->ca_file)
        curl_easy_setopt(c->curl, CURLOPT_CAINFO, o->ca_file);
    if (o->insecure) {
        curl_easy_setopt(c->curl, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(c->curl, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

/* Paths begin with /v1: a URL in the form that OpenAI's own clients want ends in it. */
static char *base_of(const char *url)
{
    size_t n = strlen(url);
    while (n && url[n - 1] == '/')
        n--;
    if (n > 3 && !memcmp(url + n - 3, "/v1", 3))
        n -= 3;
    return mem_strndup(url, n);
}

int client_open(const struct client_options *o, struct client **out, struct err *e)
{
    *out = NULL;
    struct client *c = mem_calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory");
    curl_global_init(CURL_GLOBAL_DEFAULT);
    c->curl = curl_easy_init();
    c->multi = curl_multi_init();
    c->base = base_of(o->url);
    bool ok = c->curl && c->multi && c->base && add_header(c, "Content-Type: application/json");
    if (!ok || (o->api_key && *o->api_key && !add_key(c, o->api_key))) {
        client_close(c);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    set_options(c, o);
    *out = c;
    return 0;
}

void client_close(struct client *c)
{
    if (!c)
        return;
    curl_easy_cleanup(c->curl);
    curl_multi_cleanup(c->multi);
    curl_slist_free_all(c->headers);
    mem_free(c->base);
    mem_free(c);
    curl_global_cleanup();
}

static int set_url(struct client *c, const char *path, struct err *e)
{
    struct text_buf url = {0};
    tb_str(&url, c->base);
    tb_str(&url, path);
    tb_add(&url, "", 1);
    c->why[0] = 0;
    int rc = url.failed || curl_easy_setopt(c->curl, CURLOPT_URL, url.p) ? err_set(e, ERR_NOMEM, "out of memory") : 0;
    tb_free(&url);
    return rc;
}

static int fail(const struct client *c, CURLcode code, struct err *e)
{
    return err_set(e, ERR_IO, "%s: %s", c->base, c->why[0] ? c->why : curl_easy_strerror(code));
}

/* ---- GET ---- */

static size_t keep(char *data, size_t size, size_t n, void *arg)
{
    struct text_buf *body = arg;
    if (!body)
        return size * n;
    tb_add(body, data, size * n);
    return body->failed || body->n > MAX_BODY ? 0 : size * n;
}

int client_get(struct client *c, const char *path, int timeout_s, struct text_buf *body, struct err *e)
{
    long status = 0;
    int rc = set_url(c, path, e);
    if (rc)
        return rc;
    curl_easy_setopt(c->curl, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, (long)timeout_s);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, body);
    CURLcode code = curl_easy_perform(c->curl);
    if (code)
        return fail(c, code, e);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

/* ---- A stream ---- */

struct stream { /* owner: client_stream */
    struct client *c;
    struct text_buf text; /* what came and is no whole line yet; all of it, when the status is no 200 */
    void (*on_event)(void *arg, const json_t *event);
    void *arg;
    bool done;         /* [DONE] was there */
    char failure[512]; /* an error that came as an event */
};

static const char *error_message(const json_t *answer)
{
    const json_t *error = json_object_get(answer, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    return message ? message : json_string_value(error);
}

static void take_line(struct stream *s, const char *line, size_t n)
{
    if (n && line[n - 1] == '\r')
        n--;
    if (n < 5 || memcmp(line, "data:", 5))
        return;
    line += 5;
    n -= 5;
    while (n && *line == ' ') {
        line++;
        n--;
    }
    if (n == 6 && !memcmp(line, "[DONE]", 6)) {
        s->done = true;
        return;
    }
    json_t *event = json_loadb(line, n, 0, NULL);
    const char *message = error_message(event);
    if (message)
        snprintf(s->failure, sizeof s->failure, "%s", message);
    else if (event)
        s->on_event(s->arg, event);
    json_decref(event);
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
    struct stream *s = arg;
    long status = 0;
    curl_easy_getinfo(s->c->curl, CURLINFO_RESPONSE_CODE, &status);
    tb_add(&s->text, data, size * n);
    if (s->text.failed || s->text.n > MAX_EVENT)
        return 0;
    if (status != 200)
        return size * n;
    size_t at = 0;
    for (char *end; (end = memchr(s->text.p + at, '\n', s->text.n - at)); at = (size_t)(end - s->text.p) + 1)
        take_line(s, s->text.p + at, (size_t)(end - s->text.p) - at);
    tb_drop(&s->text, at);
    return size * n;
}

/* Until the answer is over or `stop_fd` readable. */
static CURLcode perform(struct client *c, int stop_fd, bool *stopped)
{
    int n_running = 1, n_left;
    curl_multi_add_handle(c->multi, c->curl);
    while (!*stopped && !curl_multi_perform(c->multi, &n_running) && n_running) {
        struct curl_waitfd stop = {.fd = stop_fd, .events = CURL_WAIT_POLLIN};
        curl_multi_poll(c->multi, &stop, stop_fd >= 0, 1000, NULL);
        *stopped = stop.revents;
    }
    const CURLMsg *m = curl_multi_info_read(c->multi, &n_left);
    CURLcode code = m ? m->data.result : CURLE_ABORTED_BY_CALLBACK;
    curl_multi_remove_handle(c->multi, c->curl);
    return code;
}

/* The message of an OpenAI error body. */
static int server_error(const struct stream *s, long status, struct err *e)
{
    json_t *body = json_loadb(s->text.p ? s->text.p : "", s->text.n, 0, NULL);
    const char *message = error_message(body);
    int rc = err_set(e, ERR_INVALID, "%s (status %ld)", message ? message : "the server refused", status);
    json_decref(body);
    return rc;
}

int client_stream(struct client *c, const char *path, const json_t *request, int stop_fd,
                  void (*on_event)(void *arg, const json_t *event), void *arg, struct err *e)
{
    struct stream s = {.c = c, .on_event = on_event, .arg = arg};
    bool stopped = false;
    long status = 0;
    int rc = set_url(c, path, e);
    char *body = json_dumps(request, JSON_COMPACT);
    if (rc || !body) {
        free(body);
        return rc ? rc : err_set(e, ERR_NOMEM, "out of memory");
    }
    curl_easy_setopt(c->curl, CURLOPT_POST, 1L);
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE, (long)strlen(body));
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, 0L);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &s);
    CURLcode code = perform(c, stop_fd, &stopped);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    rc = stopped         ? err_set(e, ERR_CANCELED, "stopped")
         : code          ? fail(c, code, e)
         : status != 200 ? server_error(&s, status, e)
         : s.failure[0]  ? err_set(e, ERR_INVALID, "%s", s.failure)
         : !s.done       ? err_set(e, ERR_IO, "%s: the answer broke off", c->base)
                         : 0;
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, NULL);
    tb_free(&s.text);
    free(body); /* jansson's */
    return rc;
}
