/* `galley run`: chat in the terminal. It is a client: of a server that --url or --unix-socket names, or of one that it
 * starts itself. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chat.h"
#include "command.h"
#include "line_edit.h"
#include "mem.h"
#include "options.h"
#include "own_server.h"

enum { MAX_PIPED = 64 << 20, READY_POLL_MS = 20, STOPPED_STATUS = 130 };

static const struct flag run_flags[] = {
    {"--url", "URL", NULL, "a server that is running, e.g. http://127.0.0.1:8080 [$GALLEY_URL]"},
    {"--unix-socket", "PATH", NULL, "the same, on a Unix socket"},
    {"--api-key", "KEY", NULL, "its key [$GALLEY_API_KEY]"},
    {"--ca-file", "FILE", NULL, "whom to believe on https"},
    {"--model", "PATH", NULL, "what to serve; with --url the model's name there"},
    {"--system", "TEXT", NULL, "the system message"},
    {"--temperature", "X", NULL, "as in a request"},
    {"--top-p", "X", NULL, "as in a request"},
    {"--seed", "N", NULL, "as in a request"},
    {"--max-tokens", "N", NULL, "as in a request"},
    {"--decoding", "WAY", NULL, "as in a request: a name, or JSON"},
    {"--field", "NAME=VALUE", NULL, "any other field of a request; VALUE is JSON or a word"},
    {NULL},
};

struct run { /* owner: run_main */
    struct client_options to;
    struct interrupt in;
    struct own_server server;
    struct chat chat;
    const char *system, *prompt, *model;
    char **serve; /* [n_serve] what galley serve gets; borrowed strings, owned array */
    int n_serve;
};

/* ---- Options ---- */

static const char **slot_of(struct run *r, const char *flag)
{
    return !strcmp(flag, "--url")           ? &r->to.url
           : !strcmp(flag, "--unix-socket") ? &r->to.unix_socket
           : !strcmp(flag, "--api-key")     ? &r->to.api_key
           : !strcmp(flag, "--ca-file")     ? &r->to.ca_file
           : !strcmp(flag, "--model")       ? &r->model
           : !strcmp(flag, "--system")      ? &r->system
                                            : NULL;
}

/* An option of galley serve, with the value that follows if it takes one. Returns how many arguments it is, 0: none. */
static int serve_option(const char *flag)
{
    const char *name = flag + 2, *eq = strchr(name, '=');
    int at = option_find(name, eq ? (size_t)(eq - name) : strlen(name));
    return at < 0 ? 0 : eq || option_table[at].type == OPT_BOOL ? 1 : 2;
}

static int read_flags(struct run *r, int argc, char **argv, struct err *e)
{
    bool only_prompt = false;
    for (int i = 0; i < argc; i++) {
        char *arg = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (only_prompt || arg[0] != '-' || !arg[1]) {
            if (r->prompt)
                return err_set(e, ERR_INVALID, "'%s': there is a PROMPT already; quote it if it is one", arg);
            r->prompt = arg;
            continue;
        }
        if (!strcmp(arg, "--")) {
            only_prompt = true;
            continue;
        }
        bool own = command_flag(&run_command, arg) >= 0;
        int n = own ? 2 : serve_option(arg);
        if (!n)
            return err_set(e, ERR_INVALID, "%s: no such option, neither here nor of galley serve", arg);
        if (n == 2 && !value)
            return err_set(e, ERR_INVALID, "%s needs a value", arg);
        if (own && slot_of(r, arg)) {
            *slot_of(r, arg) = value;
        } else if (own) {
            bool any = !strcmp(arg, "--field");
            char *eq = any ? strchr(value, '=') : NULL;
            if (any && (!eq || eq == value))
                return err_set(e, ERR_INVALID, "--field %s: NAME=VALUE is needed", value);
            if (any)
                *eq = 0;
            int rc = chat_add_field(&r->chat, any ? value : arg, any ? eq + 1 : value, e);
            if (rc)
                return rc;
        } else {
            for (int k = 0; k < n; k++)
                r->serve[r->n_serve++] = argv[i + k];
        }
        i += n - 1;
    }
    return 0;
}

/* ---- A server to talk to ---- */

static bool is_own(const struct run *r)
{
    return r->server.folder[0];
}

static int find_server(struct run *r, struct err *e)
{
    if (r->to.url || r->to.unix_socket) {
        if (r->n_serve)
            return err_set(e, ERR_INVALID, "%s is for a server that is started here, not for one that runs",
                           r->serve[0]);
        r->chat.model = r->model;
    } else {
        if (r->model) {
            r->serve[r->n_serve++] = "--model";
            r->serve[r->n_serve++] = (char *)r->model;
        }
        int rc = own_server_start(&r->server, r->serve, r->n_serve, e);
        if (rc)
            return rc;
        r->to.unix_socket = r->server.socket;
        r->to.api_key = NULL;
    }
    if (!r->to.url)
        r->to.url = "http://localhost";
    return client_open(&r->to, &r->chat.client, e);
}

/* A server that is loading is waited for; other kinds of servers have no /ready, and are. */
static int wait_ready(struct run *r, struct err *e)
{
    for (;;) {
        struct err why = {0};
        int status = client_get(r->chat.client, "/ready", 5, NULL, &why);
        if (status >= 0 && status != 503)
            return 0;
        if (is_own(r) && own_server_ended(&r->server))
            return err_set(e, ERR_IO, "the model could not be served");
        if (!is_own(r) && status < 0)
            return err_set(e, ERR_IO, "%s", why.msg);
        if (interrupt_wait(&r->in, READY_POLL_MS))
            return err_set(e, ERR_CANCELED, "stopped");
    }
}

/* Elsewhere a request may have to name a model: the first one there, if we were not told. Owned by the answer's JSON.
 */
static void name_model(struct run *r, json_t **models)
{
    struct text_buf body = {0};
    struct err e;
    if (is_own(r) || r->chat.model)
        return;
    if (client_get(r->chat.client, "/v1/models", 10, &body, &e) == 200)
        *models = json_loadb(body.p, body.n, 0, NULL);
    r->chat.model = json_string_value(json_object_get(json_array_get(json_object_get(*models, "data"), 0), "id"));
    tb_free(&body);
}

/* ---- Turn by turn ---- */

/* Returns false to end. */
static bool command(struct run *r, const char *line)
{
    if (!strcmp(line, "/exit") || !strcmp(line, "/quit") || !strcmp(line, "/bye"))
        return false;
    if (!strcmp(line, "/clear"))
        chat_begin(&r->chat, r->system);
    else if (!strncmp(line, "/system ", 8))
        chat_begin(&r->chat, line + 8);
    else
        printf("%s/clear forgets the chat, /system TEXT begins anew with a system message, /exit or Ctrl-D ends.\n"
               "Ctrl-C stops an answer. \"\"\" begins a text of several lines and ends it.\n",
               strcmp(line, "/help") ? "There is no such command.\n" : "");
    return true;
}

static void ask(struct run *r, const char *text)
{
    struct err e = {0};
    int rc = chat_ask(&r->chat, text, strlen(text), &e);
    if (rc == -ERR_CANCELED)
        puts("(stopped)");
    else if (rc)
        fprintf(stderr, "galley run: %s\n", e.msg);
    else if (!strcmp(r->chat.finish_reason, "length"))
        puts("(cut off: the longest answer, or all the model can keep in mind)");
}

static const char quotes[] = "\"\"\"";

/* The lines after """ until one that ends in it. */
static enum line_end read_block(struct line_edit *l, const char *first, struct text_buf *block)
{
    const char *line = first + strlen(quotes);
    for (;;) {
        size_t n = strlen(line);
        bool last = n >= strlen(quotes) && !strcmp(line + n - strlen(quotes), quotes);
        tb_add(block, line, last ? n - strlen(quotes) : n);
        tb_str(block, last ? "" : "\n");
        if (last)
            return LINE_TEXT;
        enum line_end end = line_edit_read(l, ". ", &line);
        if (end != LINE_TEXT)
            return end;
        line_edit_remember(l, line);
    }
}

static void converse(struct run *r, struct line_edit *l)
{
    const char *line;
    bool go_on = true;
    while (go_on && !r->in.end) {
        struct text_buf block = {0};
        enum line_end end = line_edit_read(l, "> ", &line);
        if (end == LINE_EOF)
            return;
        if (end == LINE_INTERRUPTED || !*line)
            continue;
        line_edit_remember(l, line);
        if (!strncmp(line, quotes, strlen(quotes))) {
            end = read_block(l, line, &block);
            tb_add(&block, "", 1);
            if (end == LINE_TEXT && !block.failed && block.n > 1)
                ask(r, block.p);
        } else if (*line == '/') {
            go_on = command(r, line);
        } else {
            ask(r, line);
        }
        tb_free(&block);
    }
}

/* ---- One question ---- */

static int read_piped(struct run *r, struct text_buf *text, struct err *e)
{
    char piece[65536];
    for (;;) {
        struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = r->in.fd, .events = POLLIN}};
        poll(p, 2, -1);
        if (p[1].revents && interrupt_take(&r->in))
            return err_set(e, ERR_CANCELED, "stopped");
        ssize_t n = p[0].revents ? read(STDIN_FILENO, piece, sizeof piece) : 0;
        if (p[0].revents && n <= 0)
            return n ? err_set(e, ERR_IO, "standard input: %s", strerror(errno)) : 0;
        tb_add(text, piece, (size_t)n);
        if (text->n > MAX_PIPED)
            return err_set(e, ERR_INVALID, "more than %d MiB is piped in", MAX_PIPED >> 20);
    }
}

/* PROMPT, or what is piped in, or both: the one, then the other. */
static int one_shot(struct run *r, bool piped, struct err *e)
{
    struct text_buf text = {0};
    if (r->prompt)
        tb_str(&text, r->prompt);
    if (r->prompt && piped)
        tb_str(&text, "\n\n");
    int rc = piped ? read_piped(r, &text, e) : 0;
    while (text.n && text.p[text.n - 1] == '\n')
        text.n--;
    if (!rc && text.failed)
        rc = err_set(e, ERR_NOMEM, "out of memory");
    if (!rc)
        rc = text.n ? chat_ask(&r->chat, text.p, text.n, e) : err_set(e, ERR_INVALID, "there is nothing to answer");
    tb_free(&text);
    return rc;
}

/* ---- All of it ---- */

static int talk(struct run *r, struct err *e)
{
    struct line_edit *line = NULL;
    bool piped = !isatty(STDIN_FILENO);
    r->chat.on_terminal = isatty(STDOUT_FILENO);
    chat_begin(&r->chat, r->system);
    if (r->prompt || piped)
        return one_shot(r, piped, e);
    int rc = line_edit_open(&r->in, &line, e);
    if (!rc)
        converse(r, line);
    line_edit_close(line);
    return rc;
}

static int run(struct run *r, struct err *e)
{
    json_t *models = NULL;
    int rc = interrupt_open(&r->in, e);
    if (!rc)
        rc = chat_open(&r->chat, e);
    if (!rc)
        rc = find_server(r, e);
    if (!rc)
        rc = wait_ready(r, e);
    if (!rc) {
        name_model(r, &models);
        rc = talk(r, e);
    }
    json_decref(models);
    chat_close(&r->chat);
    client_close(r->chat.client);
    own_server_stop(&r->server);
    interrupt_close(&r->in);
    return rc;
}

static int run_main(int argc, char **argv)
{
    struct run r = {.to = {.url = getenv("GALLEY_URL"), .api_key = getenv("GALLEY_API_KEY")}, .in.fd = -1};
    struct err e = {0};
    r.chat.in = &r.in;
    r.serve = mem_calloc((size_t)argc + 3, sizeof *r.serve);
    int status = 0;
    if (!r.serve || read_flags(&r, argc, argv, &e)) {
        status = command_misused(&run_command, "%s", r.serve ? e.msg : "out of memory");
    } else {
        signal(SIGPIPE, SIG_IGN);
        int rc = run(&r, &e);
        if (rc && rc != -ERR_CANCELED)
            fprintf(stderr, "galley run: %s\n", e.msg);
        status = rc == -ERR_CANCELED ? STOPPED_STATUS : rc ? 1 : 0;
    }
    mem_free(r.serve);
    return status;
}

const struct command run_command = {
    .name = "run",
    .args = "[options] [PROMPT]",
    .about = "chat in the terminal, with a model file or a running server",
    .text =
        "With PROMPT, or with text piped in, one answer; else turn by turn: Ctrl-C stops an answer, Ctrl-D or /exit "
        "ends,\n"
        "/help tells the rest. Without --url a server is started for the time being; it takes the options of galley\n"
        "serve (--draft-model PATH, --threads N, ...) that are not listed here.\n",
    .flag = run_flags,
    .takes_options = true,
    .main = run_main,
};
