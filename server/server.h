/* The server's own structs: one server, N loops, a socket each connection, a call each request. Private to server/. */
#ifndef GALLEY_SERVER_H
#define GALLEY_SERVER_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "chat_template.h"
#include "engine.h"
#include "keys.h"
#include "listener.h"
#include "options.h"
#include "text_buf.h"
#include "tokenizer.h"

enum server_state { SERVER_LOADING, SERVER_READY, SERVER_DRAINING };

enum { MAX_LOOPS = 16 };

struct loop;

struct server { /* owner: main. Loops read it; what changes is atomic */
    const struct options *opt;
    atomic_int state;                  /* enum server_state */
    struct engine *eng;                /* set before READY, then constant */
    struct chat_template *tmpl;        /* NULL: the model has none */
    struct sampling_defaults sampling; /* the model's, of requests that do not say */
    char model_name[256];              /* what clients call it; set before the loops start if an option gives it */
    int64_t created_s;                 /* for /v1/models */
    struct listener listener;
    struct keys keys;
    struct loop *loop[MAX_LOOPS];
    int n_loop;
    atomic_ullong n_http[6]; /* responses by status class: [2] is 2xx */
    atomic_int n_conn;
};

struct loop { /* owner: its own thread, once started */
    struct server *srv;
    uv_loop_t uv;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer, sweep;
    uv_prepare_t prepare;
    uv_async_t wake, stop;
    pthread_t thread;
    struct sink sink; /* the engine's news for this loop; the first thing wake() sees */
    struct tok_scratch *scratch;
    struct sock *socks; /* open connections */
    struct call *calls; /* requests being answered */
    bool stopping;
};

struct sock { /* a connection; owner: its loop */
    struct sock *prev, *next;
    int fd;
    int64_t waiting_since_ns; /* for a whole request; 0 while one is answered */
    bool timed_here;          /* not by MHD: a TLS connection that has asked nothing yet */
};

struct job;

struct call { /* one HTTP request and its answer; owner: its loop; freed when MHD is done with it */
    struct call *prev, *next;
    struct loop *loop;
    struct sock *sock;
    struct MHD_Connection *mhd;
    const struct route *route;
    const char *method, *path; /* path without query and trailing slash; borrowed from MHD */
    char path_buf[512];
    struct text_buf body;          /* as received */
    unsigned long long n_received; /* of the body, also what was dropped */
    char request_id[80];
    int64_t start_ns;
    bool seen, answered, suspended, gone; /* gone: the client left while we were suspended */
    bool refused;                         /* whatever the body says: it is dropped */
    int status;
    struct job *job;   /* generation calls only */
    struct work *work; /* tokenising on libuv's pool; NULL: none */
};

struct api_error { /* what a client is told; zeroed: no error */
    int status;
    const char *type, *code, *param; /* static or longer-lived strings; NULL gives null */
    char message[768];
    int retry_after_s; /* 429 and 503 */
    bool no_retry;     /* x-should-retry: false */
};

/* What clients call the model; "" while it loads and no option says it. Any thread. */
const char *server_model_name(const struct server *srv);

/* ---- http.c: requests in, answers out ---- */

enum MHD_Result http_handle(void *cls, struct MHD_Connection *mc, const char *url, const char *method,
                            const char *version, const char *data, size_t *n_data, void **ctx);
void http_completed(void *cls, struct MHD_Connection *mc, void **ctx, enum MHD_RequestTerminationCode code);
void http_connection(void *cls, struct MHD_Connection *mc, void **socket_ctx, enum MHD_ConnectionNotificationCode code);

/* Each queues the answer; the body is taken over. A suspended call is resumed. */
void call_reply(struct call *c, int status, const char *content_type, struct text_buf *body);
void call_json(struct call *c, int status, struct text_buf *body);
void call_error(struct call *c, const struct api_error *e);
/* Answers 200 text/event-stream; bytes come from `read` as MHD_ContentReaderCallback. */
void call_stream(struct call *c, MHD_ContentReaderCallback read, void *arg);
void call_suspend(struct call *c);
void call_resume(struct call *c);

/* Fills e and returns it, for `call_error(c, api_fail(&e, 400, "n", "..."))`. */
struct api_error *api_fail(struct api_error *e, int status, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* From an engine error: INVALID 400, TOOLONG 400 context_length_exceeded, BUSY 429 or 503, the rest 500. */
struct api_error *api_from_err(struct api_error *e, const struct err *err, const struct server *srv);

/* ---- route.c ---- */

struct route {
    const char *method, *path; /* a path that ends in / takes any rest */
    void (*handle)(struct call *c);
    bool needs_key, needs_engine;
};
/* Finds the route; fills e (404, 405) when there is none. */
const struct route *route_find(const char *method, const char *path, struct api_error *e);
/* For a 405: "GET, POST". */
void route_allowed(const char *path, char *buf, size_t size);

/* ---- loop.c ---- */

int loop_start(struct server *srv, struct loop **out, struct err *e);
void loop_stop(struct loop *l); /* ends calls, closes connections, joins, frees */

/* ---- endpoints ---- */

void api_completions(struct call *c);
void api_chat(struct call *c);
void api_models(struct call *c);
void api_model(struct call *c);
void api_tokenize(struct call *c);
void api_detokenize(struct call *c);
void api_health(struct call *c);
void api_ready(struct call *c);
void api_version(struct call *c);
void api_metrics(struct call *c);

/* ---- job.c: a generation call's life, see job.h ---- */

void job_news(struct loop *l);                 /* the engine has something to say */
void job_client_gone(struct call *c);          /* of a suspended call: its requests are canceled, MHD ends it soon */
void job_detach(struct call *c);               /* the call is about to be freed; NULL job is legal */
void job_tick(struct call *c, int64_t now_ns); /* pings */

#endif
