/* `galley serve`: options, loops, model, then signals until the end. */
#include "serve.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "notify.h"
#include "server.h"
#include "tls.h"
#include "wake.h"

#ifndef GALLEY_DATADIR
#define GALLEY_DATADIR "/usr/local/share/galley"
#endif

enum { MAX_TEMPLATE = 1 << 20 };

/* ---- The bundled model ---- */

static bool readable(const char *path)
{
    return access(path, R_OK) == 0;
}

/* Beside the source tree the binary was built in, or in the installed share folder. */
static bool find_demo(const char *file, char *out, size_t size)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    static const char *const relative[] = {"../../../config/demo", "../../config/demo", "../config/demo",
                                           "../share/galley/demo"};
    exe[n > 0 ? n : 0] = 0;
    char *slash = strrchr(exe, '/');
    for (size_t i = 0; slash && i < sizeof relative / sizeof *relative; i++) {
        snprintf(out, size, "%.*s/%s/%s", (int)(slash - exe), exe, relative[i], file);
        if (readable(out))
            return true;
    }
    snprintf(out, size, "%s/demo/%s", GALLEY_DATADIR, file);
    return readable(out);
}

/* Without --model the demo pair is served, with its n-gram store. */
static int choose_model(struct options *o, struct err *e)
{
    char target[4400], draft[4400], ngram[4400];
    if (o->model)
        return 0;
    if (!find_demo("target.gguf", target, sizeof target))
        return err_set(
            e, ERR_NOTFOUND,
            "--model is not given, and the bundled demo model (target.gguf) was not found beside this binary");
    o->model = mem_strdup(target);
    if (!o->draft_model && find_demo("draft.gguf", draft, sizeof draft))
        o->draft_model = mem_strdup(draft);
    if (!o->ngram && find_demo("ngram.bin", ngram, sizeof ngram))
        o->ngram = mem_strdup(ngram);
    return o->model ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

/* ---- What signals reread ---- */

static int load_keys(struct server *srv, int *n_key, struct err *e)
{
    return keys_load(&srv->keys, srv->opt->api_key, srv->opt->api_key_file, n_key, e);
}

static int load_certificate(struct server *srv, struct err *e)
{
    const char *cert = srv->opt->tls_cert, *key = srv->opt->tls_key;
    bool has_cert = cert && *cert, has_key = key && *key;
    if (has_cert != has_key)
        return err_set(e, ERR_INVALID, "--tls-%s needs --tls-%s", has_cert ? "cert" : "key", has_cert ? "key" : "cert");
    /* MHD closes a connection that is silent for the idle time-out, the sweep any that asks nothing for twice as long.
     */
    return has_cert ? tls_load(cert, key, 3 * srv->opt->idle_timeout * INT64_C(1000000000), e) : 0;
}

/* Whatever cannot be read again stays as it is: a server that runs is not stopped by a bad file. */
static void reload(struct server *srv)
{
    struct err e;
    int n_key = 0;
    if (load_keys(srv, &n_key, &e))
        log_line(LOG_ERROR, "reload: the API keys stay as they were", "reason=\"%s\"", e.msg);
    else
        log_line(LOG_INFO, "reload: API keys", "keys=%d", n_key);
    if (load_certificate(srv, &e))
        log_line(LOG_ERROR, "reload: the certificate stays as it was", "reason=\"%s\"", e.msg);
    else if (srv->listener.tls)
        log_line(LOG_INFO, "reload: certificate", "file=\"%s\"", srv->opt->tls_cert);
}

/* ---- Starting ---- */

static void raise_file_limit(void)
{
    struct rlimit r;
    if (!getrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

struct progress {
    int last_percent;
    int64_t start_ns;
};

static int show_progress(void *arg, size_t done, size_t total)
{
    struct progress *p = arg;
    int percent = total ? (int)(100 * done / total) : 100;
    if (percent == p->last_percent || (percent < 100 && clock_ns() - p->start_ns < 200000000))
        return 0; /* small models load before anybody can look */
    p->last_percent = percent;
    fprintf(stderr, "\rloading  [%-40.*s] %3d%%%s", percent * 40 / 100, "########################################",
            percent, percent == 100 ? "\n" : "");
    return 0;
}

static int compile_template(struct server *srv, struct err *e)
{
    const char *own = engine_model(srv->eng)->chat_template;
    struct err inner;
    char *text = NULL;
    size_t n = own ? strlen(own) : 0;
    if (srv->opt->chat_template) {
        text = file_read(srv->opt->chat_template, MAX_TEMPLATE, &n, e);
        if (!text)
            return -ERR_IO;
        own = text;
    }
    int rc = own ? chat_template_compile(own, n, &srv->tmpl, &inner) : 0;
    mem_free(text);
    if (rc && srv->opt->chat_template)
        return err_set(e, -rc, "%s: %s", srv->opt->chat_template, inner.msg);
    if (rc) /* the model's own: completions work all the same */
        log_line(LOG_WARN, "the model's chat template cannot be used; chat is off", "reason=\"%s\"", inner.msg);
    return 0;
}

static int open_engine(struct server *srv, const struct backend_ops *ops, struct err *e)
{
    const struct options *o = srv->opt;
    if (!strcmp(o->decoding, "model") && !o->draft_model)
        return err_set(e, ERR_INVALID, "--decoding model needs --draft-model");
    struct progress progress = {.last_percent = -1, .start_ns = clock_ns()};
    struct engine_options eo = {.model_path = o->model,
                                .draft_path = o->draft_model,
                                .quantization = o->quantization,
                                .backend = o->backend,
                                .ops = ops,
                                .n_thread = (int32_t)o->threads,
                                .pin = o->pin,
                                .repack_cache = o->repack_cache,
                                .tensor_parallel = (int32_t)o->tensor_parallel,
                                .deterministic = o->deterministic,
                                .n_ctx = (int32_t)o->ctx,
                                .kv_mem_bytes = (size_t)o->kv_mem,
                                .kv_type = o->kv_type,
                                .max_batch_tokens = (int32_t)o->max_batch_tokens,
                                .max_seqs = (int32_t)o->max_seqs,
                                .max_choices = (int32_t)o->max_choices,
                                .max_queue = (int32_t)o->max_queue,
                                .no_drafts = o->max_draft == 0,
                                .max_draft = (int32_t)o->max_draft,
                                .no_prefix_cache = o->no_prefix_cache,
                                .ngram_path = o->ngram,
                                .no_contrastive = o->no_contrastive};
    if (isatty(STDERR_FILENO)) {
        eo.progress = show_progress;
        eo.progress_arg = &progress;
    }
    int rc = engine_open(&eo, &srv->eng, e);
    if (rc)
        return rc;
    srv->sampling = engine_model(srv->eng)->sampling;
    rc = compile_template(srv, e);
    if (!rc && !srv->model_name[0])
        snprintf(srv->model_name, sizeof srv->model_name, "%s", engine_model(srv->eng)->name);
    return rc;
}

static int start_loops(struct server *srv, struct err *e)
{
    for (srv->n_loop = 0; srv->n_loop < srv->opt->loops; srv->n_loop++) {
        int rc = loop_start(srv, &srv->loop[srv->n_loop], e);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- Ending ---- */

static void wait_for_drain(struct server *srv, const sigset_t *signals)
{
    int64_t end_ns = clock_ns() + srv->opt->drain_timeout * INT64_C(1000000000);
    while (engine_n_pending(srv->eng) > 0 && clock_ns() < end_ns) {
        struct timespec tick = {.tv_nsec = 50000000};
        int sig = sigtimedwait(signals, NULL, &tick);
        if (sig > 0 && sig != SIGHUP) /* a second signal: now */
            return;
    }
}

/* SIGHUP is also what a terminal says when it goes. */
static bool terminal_is_gone(bool had_terminal)
{
    return had_terminal && !isatty(STDIN_FILENO);
}

/* Waits for a signal that ends; notices a broken engine. Returns 0 or -ERR_DEVICE. */
static int run_until_signal(struct server *srv, const sigset_t *signals, struct err *e)
{
    bool had_terminal = isatty(STDIN_FILENO);
    for (;;) {
        struct timespec second = {.tv_sec = 1};
        int sig = sigtimedwait(signals, NULL, &second);
        if (sig == SIGHUP && !terminal_is_gone(had_terminal)) {
            reload(srv);
        } else if (sig > 0) {
            log_line(LOG_INFO, "draining", "signal=%d pending=%d limit_s=%lld", sig, engine_n_pending(srv->eng),
                     (long long)srv->opt->drain_timeout);
            return 0;
        }
        if (engine_failed(srv->eng)) {
            log_line(LOG_ERROR, "the back end failed; ending so that a supervisor can restart", "pending=%d",
                     engine_n_pending(srv->eng));
            sleep(1); /* answers go out */
            return err_set(e, ERR_DEVICE, "the back end failed");
        }
    }
}

static void shut_down(struct server *srv, const sigset_t *signals)
{
    notify_supervisor("STOPPING=1");
    if (srv->eng) { /* without one the loops must go on believing that it is still to come */
        engine_drain(srv->eng);
        atomic_store(&srv->state, SERVER_DRAINING);
        wait_for_drain(srv, signals);
        engine_stop(srv->eng);
        usleep(100000); /* the loops write what the engine has just handed back */
    }
    for (int i = 0; i < srv->n_loop; i++)
        loop_stop(srv->loop[i]);
    listener_close(&srv->listener);
    keys_free(&srv->keys);
    tls_free();
}

static int serve(struct server *srv, const struct backend_ops *ops, const sigset_t *signals, struct err *e)
{
    char url[512];
    int64_t start_ns = clock_ns();
    int rc = load_keys(srv, NULL, e);
    if (!rc)
        rc = load_certificate(srv, e);
    if (!rc)
        rc = listener_open(&srv->listener, srv->opt, e);
    if (!rc)
        rc = start_loops(srv, e); /* before the model: /health and /v1/models answer while it loads */
    if (!rc)
        rc = open_engine(srv, ops, e);
    if (!rc)
        rc = engine_start(srv->eng, e);
    if (rc)
        return rc;
    if (!strcmp(srv->opt->log_level, "info") || !strcmp(srv->opt->log_level, "debug"))
        fputs(engine_memory_plan(srv->eng), stderr);
    atomic_store(&srv->state, SERVER_READY);
    listener_url(&srv->listener, url, sizeof url);
    log_line(LOG_INFO, "ready", "url=%s model=\"%s\" start_ms=%lld", url, srv->model_name,
             (long long)((clock_ns() - start_ns) / 1000000));
    notify_supervisor("READY=1");
    return run_until_signal(srv, signals, e);
}

static int check_only(struct server *srv, const struct backend_ops *ops, struct err *e)
{
    int rc = load_keys(srv, NULL, e);
    if (!rc)
        rc = load_certificate(srv, e);
    if (!rc)
        rc = open_engine(srv, ops, e);
    if (!rc)
        printf("%sconfiguration is good\n", engine_memory_plan(srv->eng));
    return rc;
}

static void set_log_level(const char *name)
{
    static const char *const level[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, level[i]))
            log_set_level((enum log_level)i);
}

/* A device that broke is there again after a restart, more often than not; whatever else is wrong is not. */
static int exit_status(int rc)
{
    return rc == -ERR_DEVICE ? EX_TEMPFAIL : rc ? EXIT_FAILURE : EXIT_SUCCESS;
}

int serve_main(int argc, char **argv, const struct backend_ops *ops)
{
    struct options opt;
    struct err e = {0};
    static struct server srv;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread: only the main one takes them */
    signal(SIGPIPE, SIG_IGN);

    int rc = options_parse(&opt, argc, argv, &e);
    if (!rc)
        rc = choose_model(&opt, &e);
    if (!rc) {
        set_log_level(opt.log_level);
        raise_file_limit();
        srv.opt = &opt;
        srv.created_s = (int64_t)time(NULL);
        if (opt.served_model_name)
            snprintf(srv.model_name, sizeof srv.model_name, "%s", opt.served_model_name);
        rc = opt.check_config ? check_only(&srv, ops, &e) : serve(&srv, ops, &signals, &e);
        shut_down(&srv, &signals);
        engine_close(srv.eng);
        chat_template_free(srv.tmpl);
        options_free(&opt);
    }
    if (rc)
        fprintf(stderr, "galley: %s\n", e.msg);
    return exit_status(rc);
}

static int serve_command_main(int argc, char **argv)
{
    return serve_main(argc, argv, NULL);
}

const struct command serve_command = {
    .name = "serve",
    .args = "[options]",
    .about = "serve a model over the OpenAI API (without --model: the bundled demo)",
    .text =
        "SIGTERM lets running requests end first, a second one ends at once; SIGHUP rereads certificate and keys.\n",
    .takes_options = true,
    .main = serve_command_main,
};
