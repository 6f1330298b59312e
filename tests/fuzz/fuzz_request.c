/* A request body: parsed and read into sampling parameters, as both generation endpoints do. */
#include <stdint.h>
#include <stdlib.h>

#include "decoding.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct options opt = {.request_timeout = 600, .strict = true, .decoding = "auto"};
    static struct server srv = {.opt = &opt, .model_name = "m"};
    static const char *const own[] = {"prompt", "messages", NULL};
    struct call c = {.body = {.p = (char *)data, .n = n}};
    struct api_error e = {0};
    struct params par = {0};
    json_t *body = body_parse(&c, &e);
    if (!body)
        return 0;
    params_check_model(body, &srv, &e);
    params_check_unknown(body, &srv, own, &e);
    params_read(body, &srv, &par, &e);
    const json_t *ids = field_get(body, "prompt");
    int32_t *id = NULL, n_id;
    if (json_is_array(ids) && token_ids_read(ids, "prompt", &id, &n_id, &e))
        par.p.n = n_id;
    free(id);
    static struct loop loop = {.srv = &srv};
    struct job j = {.loop = &loop, .body = body, .par = par};
    decoding_read(&j, &e);
    tb_free(&j.prediction.text);
    params_free(&par);
    json_decref(body);
    return 0;
}
