#include <stdio.h>
#include <string.h>

#include "server.h"

static const struct route routes[] = {
    {"POST", "/v1/completions", api_completions, true, true},
    {"POST", "/completions", api_completions, true, true},
    {"POST", "/v1/chat/completions", api_chat, true, true},
    {"POST", "/chat/completions", api_chat, true, true},
    {"GET", "/v1/models", api_models, true, false},
    {"GET", "/models", api_models, true, false},
    {"GET", "/v1/models/", api_model, true, false},
    {"GET", "/models/", api_model, true, false},
    {"POST", "/tokenize", api_tokenize, true, true},
    {"POST", "/v1/tokenize", api_tokenize, true, true},
    {"POST", "/detokenize", api_detokenize, true, true},
    {"POST", "/v1/detokenize", api_detokenize, true, true},
    {"GET", "/health", api_health, false, false},
    {"GET", "/ready", api_ready, false, false},
    {"GET", "/version", api_version, false, false},
    {"GET", "/metrics", api_metrics, false, false},
};

static bool path_matches(const struct route *r, const char *path)
{
    size_t n = strlen(r->path);
    return r->path[n - 1] == '/' ? !strncmp(r->path, path, n) && path[n] : !strcmp(r->path, path);
}

/* HEAD is GET without the body, which MHD leaves out by itself. */
static bool method_matches(const struct route *r, const char *method)
{
    return !strcmp(r->method, method) || (!strcmp(r->method, "GET") && !strcmp(method, "HEAD"));
}

const struct route *route_find(const char *method, const char *path, struct api_error *e)
{
    bool known = false;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!path_matches(&routes[i], path))
            continue;
        if (method_matches(&routes[i], method))
            return &routes[i];
        known = true;
    }
    if (known)
        api_fail(e, 405, NULL, "%.16s is not allowed for %.200s.", method, path);
    else
        api_fail(e, 404, NULL, "Unknown route: %.16s %.200s", method, path);
    return NULL;
}

void route_allowed(const char *path, char *buf, size_t size)
{
    *buf = 0;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (path_matches(&routes[i], path))
            snprintf(buf, size, "%s, OPTIONS", strcmp(routes[i].method, "GET") ? routes[i].method : "GET, HEAD");
}
