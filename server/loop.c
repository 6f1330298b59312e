/* libmicrohttpd driven by libuv: one daemon, one uv loop, one thread; N of them share the port. The glue and its
 * reasons are in the design notes: MHD's sockets are edge-triggered, so a time-out of 0 means "run me again now"; a
 * suspended connection notices no disconnect, so a timer looks for those. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "server.h"
#include "tls.h"
#include "wake.h"

enum { SWEEP_MS = 250, CONNECTION_MEMORY = 24 * 1024, BACKLOG = 1024, RUNS_AT_ONCE = 8, FLUSH_MS = 2000 };

/* ---- MHD inside libuv ---- */

static void pump(struct loop *l)
{
    MHD_UNSIGNED_LONG_LONG wait_ms;
    int n = 0;
    do
        MHD_run(l->daemon);
    while (MHD_get_timeout(l->daemon, &wait_ms) == MHD_YES && wait_ms == 0 && ++n < RUNS_AT_ONCE);
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    pump(h->data);
}

static void on_timer(uv_timer_t *h)
{
    pump(h->data);
}

/* Runs before libuv computes how long to sleep, so a timer set here counts for this turn. */
static void on_prepare(uv_prepare_t *h)
{
    struct loop *l = h->data;
    MHD_UNSIGNED_LONG_LONG wait_ms;
    if (MHD_get_timeout(l->daemon, &wait_ms) == MHD_YES)
        uv_timer_start(&l->timer, on_timer, wait_ms, 0);
    else
        uv_timer_stop(&l->timer);
}

/* ---- The engine's news ---- */

static void sink_wake(struct sink *s) /* engine thread */
{
    struct loop *l = container_of(s, struct loop, sink);
    uv_async_send(&l->wake);
}

static void on_wake(uv_async_t *h)
{
    struct loop *l = h->data;
    job_news(l);
    pump(l); /* once for all that was resumed */
}

/* ---- Clients that left, requests that never end, streams that fall silent ---- */

enum { POLL_BATCH = 256, ABANDONED_NS = 500000000 };

static void find_gone(struct loop *l)
{
    struct pollfd fd[POLL_BATCH];
    struct call *call[POLL_BATCH], *c = l->calls;
    while (c) {
        nfds_t n = 0;
        for (; c && n < POLL_BATCH; c = c->next)
            if (c->suspended && !c->gone && c->sock) {
                fd[n] = (struct pollfd){.fd = c->sock->fd, .events = POLLRDHUP};
                call[n++] = c;
            }
        if (!n || poll(fd, n, 0) <= 0)
            continue;
        for (nfds_t i = 0; i < n; i++)
            if (fd[i].revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) {
                call[i]->gone = true;
                job_client_gone(call[i]);
            }
    }
}

/* MHD closes connections that say nothing; one that says a byte now and then is closed here, and one that never gets to
 * its first request over TLS. */
static void close_slow(struct loop *l, int64_t now_ns)
{
    int64_t limit_ns = l->srv->opt->idle_timeout * INT64_C(1000000000);
    for (struct sock *s = l->socks; s; s = s->next)
        if (s->waiting_since_ns && now_ns - s->waiting_since_ns > (s->timed_here ? limit_ns : 2 * limit_ns))
            shutdown(s->fd, SHUT_RDWR);
}

/* MHD reads edge-triggered and takes a short read for the end of what there is, so it misses a client that left with
 * its last bytes. Half a request is then all there will ever be. */
static void close_abandoned(struct loop *l, int64_t now_ns)
{
    struct pollfd fd[POLL_BATCH];
    struct sock *s = l->socks;
    while (s) {
        nfds_t n = 0;
        for (; s && n < POLL_BATCH; s = s->next)
            if (s->waiting_since_ns && now_ns - s->waiting_since_ns > ABANDONED_NS)
                fd[n++] = (struct pollfd){.fd = s->fd, .events = POLLRDHUP};
        if (!n || poll(fd, n, 0) <= 0)
            continue;
        for (nfds_t i = 0; i < n; i++) {
            int unread = 0;
            if (fd[i].revents && !ioctl(fd[i].fd, FIONREAD, &unread) && !unread)
                shutdown(fd[i].fd, SHUT_RDWR); /* this it notices */
        }
    }
}

static void on_sweep(uv_timer_t *h)
{
    struct loop *l = h->data;
    int64_t now_ns = clock_ns();
    find_gone(l);
    close_slow(l, now_ns);
    close_abandoned(l, now_ns);
    for (struct call *c = l->calls, *next; c; c = next) {
        next = c->next;
        if (c->job)
            job_tick(c, now_ns);
    }
    pump(l);
}

/* ---- Life ---- */

static void on_stop(uv_async_t *h)
{
    struct loop *l = h->data;
    l->stopping = true;
    uv_stop(&l->uv);
}

static void quiet(void *cls, const char *fmt, va_list ap)
{
    char line[256];
    int n = vsnprintf(line, sizeof line, fmt, ap);
    while (n > 0 && n <= (int)sizeof line && (line[n - 1] == '\n' || line[n - 1] == ' '))
        line[--n] = 0;
    log_line(LOG_DEBUG, "http", "detail=\"%s\"", line);
}

/* Loops accept from one Unix socket through descriptors of their own, since MHD closes its one. */
static int start_daemon(struct loop *l, struct err *e)
{
    struct listener *at = &l->srv->listener;
    const struct options *o = l->srv->opt;
    struct MHD_OptionItem where[4] = {{MHD_OPTION_END, 0, NULL}};
    int n = 0, fd = -1;
    if (at->unix_fd >= 0) {
        fd = fcntl(at->unix_fd, F_DUPFD_CLOEXEC, 0);
        where[n++] = (struct MHD_OptionItem){MHD_OPTION_LISTEN_SOCKET, fd, NULL};
    } else {
        where[n++] = (struct MHD_OptionItem){MHD_OPTION_SOCK_ADDR, 0, &at->addr};
    }
    if (at->tls) {
        where[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)tls_retrieve};
        where[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)TLS_PRIORITIES};
    }
    where[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    unsigned flags = MHD_USE_EPOLL | MHD_USE_TURBO | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
                     (at->unix_fd < 0 && at->addr.ss_family == AF_INET6 ? MHD_USE_IPv6 : 0) |
                     (at->tls ? MHD_USE_TLS : 0);
    errno = 0;
    l->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, http_handle, l, MHD_OPTION_EXTERNAL_LOGGER, quiet, NULL, MHD_OPTION_ARRAY, where,
        MHD_OPTION_NOTIFY_COMPLETED, http_completed, l, MHD_OPTION_NOTIFY_CONNECTION, http_connection, l,
        MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)(o->max_connections / o->loops + 1), MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)o->idle_timeout, MHD_OPTION_LISTEN_BACKLOG_SIZE, (unsigned)BACKLOG,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (!l->daemon) {
        char url[512];
        int why = errno;
        listener_url(at, url, sizeof url);
        if (fd >= 0)
            close(fd);
        return err_set(e, ERR_IO, "cannot listen on %s: %s", url, why ? strerror(why) : "libmicrohttpd refused");
    }
    if (at->unix_fd < 0)
        listener_set_port(at, MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    return 0;
}

static void start_handles(struct loop *l)
{
    int fd = MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    uv_poll_init(&l->uv, &l->poll, fd);
    uv_timer_init(&l->uv, &l->timer);
    uv_timer_init(&l->uv, &l->sweep);
    uv_prepare_init(&l->uv, &l->prepare);
    uv_async_init(&l->uv, &l->wake, on_wake);
    uv_async_init(&l->uv, &l->stop, on_stop);
    l->poll.data = l->timer.data = l->sweep.data = l->prepare.data = l->wake.data = l->stop.data = l;
    uv_poll_start(&l->poll, UV_READABLE, on_poll);
    uv_prepare_start(&l->prepare, on_prepare);
    uv_timer_start(&l->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
}

static bool is_answering(const struct loop *l)
{
    for (const struct call *c = l->calls; c; c = c->next)
        if (c->answered)
            return true;
    return false;
}

/* Everybody is told, and slow readers get a moment to hear it; then connections are closed. MHD must not be stopped
 * while a connection is suspended: from `stopping` on, none is. */
static void wind_up(struct loop *l)
{
    int64_t end_ns = clock_ns() + FLUSH_MS * INT64_C(1000000);
    l->stopping = true;
    job_news(l); /* the last of it: the engine has stopped */
    MHD_socket listener = MHD_quiesce_daemon(l->daemon);
    if (listener != MHD_INVALID_SOCKET)
        close(listener);
    for (struct call *c = l->calls, *next; c; c = next) {
        next = c->next;
        if (c->suspended && !c->answered) {
            struct api_error e = {.retry_after_s = 5};
            call_error(c, api_fail(&e, 503, NULL, "The server is shutting down."));
        } else if (c->suspended) {
            call_resume(c);
        }
    }
    for (int i = 0; i < 8 || (is_answering(l) && clock_ns() < end_ns); i++)
        MHD_run_wait(l->daemon, i < 8 ? 0 : 5);
    MHD_stop_daemon(l->daemon);
    job_news(l); /* requests whose calls have just gone */
}

static void close_handle(uv_handle_t *h, void *arg)
{
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

static void *loop_main(void *arg)
{
    struct loop *l = arg;
    pthread_setname_np(pthread_self(), "galley-loop");
    uv_run(&l->uv, UV_RUN_DEFAULT);
    uv_poll_stop(&l->poll);
    wind_up(l);
    uv_walk(&l->uv, close_handle, NULL);
    while (uv_run(&l->uv, UV_RUN_DEFAULT)) /* also ends work on libuv's pool */
        ;
    return NULL;
}

int loop_start(struct server *srv, struct loop **out, struct err *e)
{
    *out = NULL;
    struct loop *l = mem_calloc(1, sizeof *l);
    if (!l)
        return err_set(e, ERR_NOMEM, "out of memory");
    l->srv = srv;
    l->sink.wake = sink_wake;
    queue_init(&l->sink.q);
    int rc = start_daemon(l, e);
    if (rc) {
        mem_free(l);
        return rc;
    }
    uv_loop_init(&l->uv);
    start_handles(l);
    if (pthread_create(&l->thread, NULL, loop_main, l)) {
        rc = err_set(e, ERR_IO, "cannot start a loop thread");
        MHD_stop_daemon(l->daemon);
        mem_free(l);
        return rc;
    }
    *out = l;
    return 0;
}

void loop_stop(struct loop *l)
{
    if (!l)
        return;
    uv_async_send(&l->stop);
    pthread_join(l->thread, NULL);
    uv_loop_close(&l->uv);
    tok_scratch_free(l->scratch);
    mem_free(l);
}
