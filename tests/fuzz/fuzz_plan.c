/* A plan as text: parsed, checked, and if it passes, run on the fake back end. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { V = 40, N_BLOCK = 16, BLOCK_LEN = 4 };

static const struct plan_limits limits = {.n_span = 8,
                                          .n_row = 64,
                                          .n_held = 64,
                                          .n_mix = 8,
                                          .n_part = 64,
                                          .n_kvop = 8,
                                          .n_law = 4,
                                          .n_law_tok = 64,
                                          .n_ban = 64,
                                          .n_mask = 4,
                                          .n_readout = 32,
                                          .n_list = 512,
                                          .n_bt = 64,
                                          .n_out_f = 4096,
                                          .n_out_i = 4096,
                                          .n_vocab = V};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct backend *b;
    static struct bmodel *m;
    static struct step_plan plan;
    static float f[4096];
    static int32_t it[4096];
    static const struct plan_env env = {.n_vocab = V,
                                        .n_layer = 4,
                                        .n_embd = 8,
                                        .n_block = N_BLOCK,
                                        .block_len = BLOCK_LEN,
                                        .n_bank = 2,
                                        .hidden_plane = 1};
    struct step_result out = {f, it};
    if (!b) {
        struct model_desc d = fake_model_desc(V, 64);
        struct kv_config kv = {.block_len = BLOCK_LEN, .n_block = N_BLOCK, .hidden_plane = 1, .n_bank = 2};
        struct backend_options opt = {.limits = limits};
        if (plan_create(&plan, &limits, NULL) || backend_fake.open(&opt, &b, NULL) ||
            backend_fake.load(b, &d, NULL, NULL, NULL, &m, NULL) || backend_fake.kv_create(m, &kv, NULL))
            abort();
    }
    if (n == 0)
        return 0;
    FILE *in = fmemopen((void *)data, n, "r");
    struct err e;
    if (in && !plan_parse(&plan, in, &e) && !plan_check(&plan, &env, &e) && !backend_fake.submit(m, &plan, &e))
        backend_fake.wait(m, &out, &e);
    if (in)
        fclose(in);
    return 0;
}
