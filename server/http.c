/* Requests in, answers out: bodies gathered, keys checked, errors in OpenAI's form, CORS on everything. */
#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "log.h"
#include "mem.h"
#include "server.h"
#include "wake.h"

/* ---- Errors ---- */

static const char *error_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static const char *error_code(int status)
{
    switch (status) {
    case 401:
        return "invalid_api_key";
    case 404:
        return "not_found";
    case 405:
        return "method_not_allowed";
    case 413:
        return "request_too_large";
    case 429:
        return "rate_limit_exceeded";
    case 503:
        return "service_unavailable";
    default:
        return status >= 500 ? "server_error" : NULL;
    }
}

struct api_error *api_fail(struct api_error *e, int status, const char *param, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
    e->status = status;
    e->param = param;
    e->type = error_type(status);
    e->code = error_code(status);
    return e;
}

struct api_error *api_from_err(struct api_error *e, const struct err *err, const struct server *srv)
{
    switch (err->code) {
    case ERR_INVALID:
        api_fail(e, 400, err->field, "%s", err->msg);
        return e;
    case ERR_TOOLONG:
        api_fail(e, 400, err->field, "%s", err->msg);
        e->code = "context_length_exceeded";
        e->no_retry = true;
        return e;
    case ERR_BUSY: {
        bool failed = engine_failed(srv->eng), ending = failed || atomic_load(&srv->state) == SERVER_DRAINING;
        api_fail(e, ending ? 503 : 429, NULL, "%s",
                 failed   ? "The model has failed; the server is restarting."
                 : ending ? "The server is shutting down."
                          : "The request queue is full; try again shortly.");
        e->retry_after_s = ending ? 10 : 1;
        return e;
    }
    default:
        api_fail(e, 500, NULL, "%s", err->msg);
        return e;
    }
}

static void write_error(struct text_buf *b, const struct api_error *e)
{
    tb_str(b, "{\"error\":{\"message\":");
    tb_json_str(b, e->message);
    tb_str(b, ",\"type\":");
    tb_json_str(b, e->type);
    tb_str(b, ",\"param\":");
    tb_json_str(b, e->param);
    tb_str(b, ",\"code\":");
    tb_json_str(b, e->code);
    tb_str(b, "}}");
}

/* ---- Answers ---- */

static void add_cors(struct call *c, struct MHD_Response *r, bool preflight)
{
    const char *origin = c->loop->srv->opt->cors_origin;
    if (!origin || !*origin)
        return;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(r, "Access-Control-Expose-Headers", "x-request-id, retry-after, retry-after-ms");
    if (!preflight)
        return;
    const char *asked = MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "Access-Control-Request-Headers");
    MHD_add_response_header(r, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    MHD_add_response_header(r, "Access-Control-Allow-Headers", asked ? asked : "authorization, content-type");
    MHD_add_response_header(r, "Access-Control-Max-Age", "86400");
}

static void queue(struct call *c, int status, struct MHD_Response *r)
{
    char ms[24];
    add_cors(c, r, false);
    MHD_add_response_header(r, "x-request-id", c->request_id);
    snprintf(ms, sizeof ms, "%lld", (long long)((clock_ns() - c->start_ns) / 1000000));
    MHD_add_response_header(r, "openai-processing-ms", ms);
    c->status = status;
    c->answered = true;
    atomic_fetch_add_explicit(&c->loop->srv->n_http[status / 100 < 6 ? status / 100 : 5], 1, memory_order_relaxed);
    MHD_queue_response(c->mhd, (unsigned)status, r);
    MHD_destroy_response(r);
    if (c->suspended)
        call_resume(c);
}

/* MHD frees the body with free(), which is what mem_free is. */
static struct MHD_Response *response_of(struct text_buf *body)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(body->n, body->p, body->p ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (r)
        *body = (struct text_buf){0};
    return r;
}

void call_reply(struct call *c, int status, const char *content_type, struct text_buf *body)
{
    if (body->failed) {
        tb_free(body);
        body->failed = false;
        status = 500;
        tb_str(body, "{\"error\":{\"message\":\"The server is out of "
                     "memory.\",\"type\":\"server_error\",\"param\":null,\"code\":null}}");
    }
    struct MHD_Response *r = response_of(body);
    if (!r) {
        tb_free(body);
        return; /* no memory for an answer: MHD closes the connection */
    }
    MHD_add_response_header(r, "Content-Type", content_type);
    queue(c, status, r);
}

void call_json(struct call *c, int status, struct text_buf *body)
{
    call_reply(c, status, "application/json", body);
}

void call_error(struct call *c, const struct api_error *e)
{
    struct text_buf body = {0};
    write_error(&body, e);
    struct MHD_Response *r = response_of(&body);
    if (!r) {
        tb_free(&body);
        return;
    }
    char text[32];
    MHD_add_response_header(r, "Content-Type", "application/json");
    if (e->retry_after_s) {
        snprintf(text, sizeof text, "%d", e->retry_after_s);
        MHD_add_response_header(r, "Retry-After", text);
        snprintf(text, sizeof text, "%d", e->retry_after_s * 1000);
        MHD_add_response_header(r, "retry-after-ms", text);
    }
    if (e->no_retry)
        MHD_add_response_header(r, "x-should-retry", "false");
    if (e->status == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (e->status == 405) {
        char allowed[64];
        route_allowed(c->path, allowed, sizeof allowed);
        MHD_add_response_header(r, "Allow", allowed);
    }
    queue(c, e->status, r);
}

void call_stream(struct call *c, MHD_ContentReaderCallback read, void *arg)
{
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 1024, read, arg, NULL);
    if (!r)
        return;
    MHD_add_response_header(r, "Content-Type", "text/event-stream; charset=utf-8");
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "X-Accel-Buffering", "no");
    queue(c, 200, r);
}

void call_suspend(struct call *c)
{
    BUG_ON(c->suspended);
    c->suspended = true;
    MHD_suspend_connection(c->mhd);
}

void call_resume(struct call *c)
{
    BUG_ON(!c->suspended);
    c->suspended = false;
    MHD_resume_connection(c->mhd);
}

static void preflight(struct call *c)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    if (!r)
        return;
    add_cors(c, r, true);
    c->answered = true;
    c->status = 204;
    MHD_queue_response(c->mhd, 204, r);
    MHD_destroy_response(r);
}

/* ---- Who asks ---- */

static bool key_accepted(const struct call *c)
{
    const char *given = MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "Authorization");
    if (given && !strncasecmp(given, "Bearer ", 7))
        given += 7;
    else
        given = MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "x-api-key");
    return keys_accept(&c->loop->srv->keys, given);
}

/* The client's own id when it is short and plain, else a new one. */
static void set_request_id(struct call *c)
{
    const char *given = MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "x-request-id");
    size_t n = given ? strlen(given) : 0;
    bool plain = n > 0 && n < sizeof c->request_id;
    for (size_t i = 0; plain && i < n; i++)
        plain = isalnum((unsigned char)given[i]) || strchr("-_.:", given[i]);
    if (plain) {
        memcpy(c->request_id, given, n + 1);
        return;
    }
    unsigned char raw[16];
    if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw)
        memcpy(raw, &c->start_ns, sizeof c->start_ns);
    for (int i = 0; i < 16; i++)
        snprintf(c->request_id + 2 * i, 3, "%02x", raw[i]);
}

/* ---- A request's life ---- */

static void copy_path(struct call *c, const char *url)
{
    size_t n = strlen(url);
    while (n > 1 && url[n - 1] == '/')
        n--;
    if (n >= sizeof c->path_buf)
        n = sizeof c->path_buf - 1;
    memcpy(c->path_buf, url, n);
    c->path_buf[n] = 0;
    c->path = c->path_buf;
}

static struct call *call_new(struct loop *l, struct MHD_Connection *mc, const char *url, const char *method)
{
    struct call *c = mem_calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->loop = l;
    c->mhd = mc;
    c->method = method;
    c->start_ns = clock_ns();
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    c->sock = info ? info->socket_context : NULL;
    if (c->sock && c->sock->timed_here) {
        c->sock->timed_here = false;
        MHD_set_connection_option(mc, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)l->srv->opt->idle_timeout);
    }
    copy_path(c, url);
    set_request_id(c);
    c->next = l->calls;
    if (c->next)
        c->next->prev = c;
    l->calls = c;
    return c;
}

/* 0 when the client does not say (chunked), or has no body. */
static unsigned long long declared_length(const struct call *c)
{
    const char *length = MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "Content-Length");
    unsigned long long n = 0;
    return length && sscanf(length, "%llu", &n) != 1 ? ULLONG_MAX : n;
}

/* Bytes that are read, and dropped, of a body that is refused. */
static unsigned long long body_read_limit(const struct loop *l)
{
    return 4 * (unsigned long long)l->srv->opt->max_body;
}

static struct api_error *body_too_large(const struct call *c, struct api_error *e)
{
    api_fail(e, 413, NULL, "The request body is larger than %lld bytes.", (long long)c->loop->srv->opt->max_body);
    e->no_retry = true;
    return e;
}

/* What can be refused from the headers alone, before any body is read. */
static bool refuse_early(struct call *c, struct api_error *e)
{
    const char *encoding = MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "Content-Encoding");
    c->route = route_find(c->method, c->path, e);
    if (!c->route)
        return true;
    if (c->route->needs_key && !key_accepted(c)) {
        api_fail(e, 401, NULL, "Incorrect API key provided.");
        return true;
    }
    if (encoding && strcasecmp(encoding, "identity")) {
        api_fail(e, 415, NULL, "Content-Encoding %.40s is not supported: send the body as it is.", encoding);
        return true;
    }
    if (declared_length(c) > (unsigned long long)c->loop->srv->opt->max_body) {
        body_too_large(c, e);
        return true;
    }
    return false;
}

/* Closing a socket with unread bytes resets the connection, and the client may never see what it was told. So a refusal
 * waits until the body has been read and dropped, unless the client waits for a word before it sends the body, or the
 * body is far too large to be worth reading. */
static bool refuse_at_once(const struct call *c)
{
    return MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "Expect") ||
           declared_length(c) > body_read_limit(c->loop);
}

static void dispatch(struct call *c)
{
    struct api_error e = {0};
    struct server *srv = c->loop->srv;
    if (c->refused && refuse_early(c, &e)) {
        call_error(c, &e);
    } else if (c->refused) { /* longer than it said, or than allowed when it did not say */
        call_error(c, body_too_large(c, &e));
    } else if (c->body.failed) {
        call_error(c, api_fail(&e, 500, NULL, "The server is out of memory."));
    } else if (c->route->needs_engine && c->loop->stopping) {
        e.retry_after_s = 10; /* nothing may be suspended any more */
        call_error(c, api_fail(&e, 503, NULL, "The server is shutting down."));
    } else if (c->route->needs_engine && atomic_load(&srv->state) == SERVER_LOADING) {
        e.retry_after_s = 1;
        call_error(c, api_fail(&e, 503, NULL, "The model is still loading."));
    } else {
        if (c->route->needs_engine && !c->loop->scratch)
            c->loop->scratch = tok_scratch_new(engine_tokenizer(srv->eng));
        c->route->handle(c);
    }
}

/* A piece of the body; dropped when the answer is decided already. */
static enum MHD_Result take_body(struct call *c, const char *data, size_t *n_data)
{
    c->n_received += *n_data;
    if (c->n_received > body_read_limit(c->loop))
        return MHD_NO; /* chunked, and goes on and on: only closing stops it */
    if (!c->refused && c->n_received > (unsigned long long)c->loop->srv->opt->max_body) {
        c->refused = true;
        tb_free(&c->body);
    }
    if (!c->refused && !c->answered)
        tb_add(&c->body, data, *n_data);
    *n_data = 0;
    return MHD_YES;
}

enum MHD_Result http_handle(void *cls, struct MHD_Connection *mc, const char *url, const char *method,
                            const char *version, const char *data, size_t *n_data, void **ctx)
{
    struct loop *l = cls;
    struct call *c = *ctx;
    if (!c) { /* headers are here */
        c = *ctx = call_new(l, mc, url, method);
        if (!c)
            return MHD_NO;
        struct api_error e = {0};
        c->refused = strcmp(method, "OPTIONS") && refuse_early(c, &e);
        if (c->refused && refuse_at_once(c))
            call_error(c, &e);
        return MHD_YES;
    }
    if (*n_data)
        return take_body(c, data, n_data);
    if (c->gone)
        return MHD_NO;
    if (c->seen || c->answered) /* resumed, or refused early; without an answer there was no memory for one: MHD would
                                   ask for ever */
        return c->answered ? MHD_YES : MHD_NO;
    c->seen = true;
    if (c->sock)
        c->sock->waiting_since_ns = 0;
    if (!strcmp(method, "OPTIONS"))
        preflight(c);
    else
        dispatch(c);
    return MHD_YES;
}

void http_completed(void *cls, struct MHD_Connection *mc, void **ctx, enum MHD_RequestTerminationCode code)
{
    struct loop *l = cls;
    struct call *c = *ctx;
    *ctx = NULL;
    if (!c)
        return;
    job_detach(c);
    if (c->sock)
        c->sock->waiting_since_ns = clock_ns();
    *(c->prev ? &c->prev->next : &l->calls) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    tb_free(&c->body);
    mem_free(c);
}

void http_connection(void *cls, struct MHD_Connection *mc, void **socket_ctx, enum MHD_ConnectionNotificationCode code)
{
    struct loop *l = cls;
    struct sock *s = *socket_ctx;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        s = *socket_ctx = mem_calloc(1, sizeof *s);
        if (!s)
            return;
        s->fd = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        s->waiting_since_ns = clock_ns();
        s->timed_here = l->srv->listener.tls;
        if (s->timed_here) /* MHD 0.9.75 never frees what times out in a handshake, and spins on it */
            MHD_set_connection_option(mc, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
        s->next = l->socks;
        if (s->next)
            s->next->prev = s;
        l->socks = s;
        atomic_fetch_add_explicit(&l->srv->n_conn, 1, memory_order_relaxed);
    } else if (s) {
        *(s->prev ? &s->prev->next : &l->socks) = s->next;
        if (s->next)
            s->next->prev = s->prev;
        mem_free(s);
        *socket_ctx = NULL;
        atomic_fetch_sub_explicit(&l->srv->n_conn, 1, memory_order_relaxed);
    }
}
