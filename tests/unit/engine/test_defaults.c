/* What a GGUF file says of sampling (general.sampling.*) becomes what requests that do not say get; what no request could
 * say is as if it were not there. */
#include <check.h>
#include <stdlib.h>
#include <unistd.h>

#include "model/gguf_write.h"
#include "model/model.h"
#include "tiny_gguf.h"
#include "../suite.h"

static struct sampling_defaults defaults_with(void (*keys)(struct gguf_writer *w))
{
    tiny_more_keys = keys;
    char *path = tiny_gguf_write("llama", 64, 1, 0);
    tiny_more_keys = NULL;
    struct model m;
    struct err e = {0};
    ck_assert_msg(!model_open(path, &m, &e), "%s", e.msg);
    struct sampling_defaults d = m.info.sampling;
    model_close(&m);
    unlink(path);
    free(path);
    return d;
}

static void good_keys(struct gguf_writer *w)
{
    gguf_put_f32(w, "general.sampling.temp", 0.6f);
    gguf_put_f32(w, "general.sampling.top_p", 0.95f);
    gguf_put_f32(w, "general.sampling.min_p", 0);
    gguf_put_u32(w, "general.sampling.top_k", 20);
    gguf_put_f32(w, "general.sampling.penalty_repeat", 1.05f);
}

static void bad_keys(struct gguf_writer *w)
{
    gguf_put_f32(w, "general.sampling.temp", -1);
    gguf_put_str(w, "general.sampling.top_p", "high");
    gguf_put_f32(w, "general.sampling.min_p", 1.5f);
    gguf_put_u32(w, "general.sampling.top_k", UINT32_MAX);
    gguf_put_f32(w, "general.sampling.penalty_repeat", 0);
}

START_TEST(a_file_says_how_to_sample)
{
    struct sampling_defaults d = defaults_with(good_keys);
    ck_assert(d.has_temperature && d.has_top_p && d.has_min_p && d.has_top_k && d.has_repetition_penalty);
    ck_assert(d.temperature == 0.6f && d.top_p == 0.95f && d.min_p == 0 && d.top_k == 20 && d.repetition_penalty == 1.05f);
}
END_TEST

START_TEST(what_no_request_could_say_does_not_count)
{
    void (*const keys[])(struct gguf_writer *) = {NULL, bad_keys};
    for (int i = 0; i < 2; i++) {
        struct sampling_defaults d = defaults_with(keys[i]);
        ck_assert(!d.has_temperature && !d.has_top_p && !d.has_min_p && !d.has_top_k && !d.has_repetition_penalty);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("defaults");
    tcase_add_test(tc, a_file_says_how_to_sample);
    tcase_add_test(tc, what_no_request_could_say_does_not_count);
    return suite_run(tc);
}
