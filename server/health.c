/* `galley health`: is a server alive, for images without curl. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "command.h"

static const struct flag health_flags[] = {
    {"--url", "URL", NULL, "where the server is [$GALLEY_URL, else http://127.0.0.1:8080]"},
    {"--unix-socket", "PATH", NULL, "the same, on a Unix socket [$GALLEY_UNIX_SOCKET]"},
    {"--ca-file", "FILE", NULL, "whom to believe on https"},
    {"--insecure", NULL, NULL, "on https believe anybody: a server in the same container"},
    {"--ready", NULL, NULL, "ask /ready: has the model been loaded, and is the server not ending"},
    {"--timeout", "SECONDS", NULL, "how long to wait [5]"},
    {NULL},
};

struct health {
    struct client_options to;
    const char *path;
    long timeout_s;
};

static bool take_flag(struct health *h, const char *flag, const char *value)
{
    char *end;
    if (!strcmp(flag, "--url"))
        h->to.url = value;
    else if (!strcmp(flag, "--unix-socket"))
        h->to.unix_socket = value;
    else if (!strcmp(flag, "--ca-file"))
        h->to.ca_file = value;
    else if (!strcmp(flag, "--insecure"))
        h->to.insecure = true;
    else if (!strcmp(flag, "--ready"))
        h->path = "/ready";
    else {
        h->timeout_s = strtol(value, &end, 10);
        return end != value && !*end && h->timeout_s > 0 && h->timeout_s <= 86400;
    }
    return true;
}

static int ask(const struct health *h)
{
    struct client *c = NULL;
    struct text_buf body = {0};
    struct err e = {0};
    int status = client_open(&h->to, &c, &e);
    if (!status)
        status = client_get(c, h->path, (int)h->timeout_s, &body, &e);
    if (status == 200)
        puts("ok");
    else if (status < 0)
        fprintf(stderr, "galley health: %s\n", e.msg);
    else
        fprintf(stderr, "galley health: status %d: %.*s\n", status, body.n > 400 ? 400 : (int)body.n,
                body.p ? body.p : "");
    tb_free(&body);
    client_close(c);
    return status == 200 ? 0 : 1;
}

static int health_main(int argc, char **argv)
{
    const char *url = getenv("GALLEY_URL");
    struct health h = {.to = {.url = url ? url : "http://127.0.0.1:8080", .unix_socket = getenv("GALLEY_UNIX_SOCKET")},
                       .path = "/health",
                       .timeout_s = 5};
    for (int i = 0; i < argc; i++) {
        int at = command_flag(&health_command, argv[i]);
        bool takes_value = at >= 0 && health_flags[at].unit;
        if (at < 0)
            return command_misused(&health_command, "%s: no such option", argv[i]);
        if (takes_value && i + 1 == argc)
            return command_misused(&health_command, "%s needs a value", argv[i]);
        if (!take_flag(&h, argv[i], takes_value ? argv[i + 1] : NULL))
            return command_misused(&health_command, "%s: %s is no such number", argv[i], argv[i + 1]);
        i += takes_value;
    }
    return ask(&h);
}

const struct command health_command = {
    .name = "health",
    .args = "[options]",
    .about = "is a server alive, for images without curl",
    .text = "Exits with 0 when the server answers well, else with 1 and a line that says why.\n",
    .flag = health_flags,
    .main = health_main,
};
