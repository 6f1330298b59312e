/* What contrastive search and (diverse) beam search say on the tiny Llama, against a plain implementation over
 * transformers (golden/ways/make.py). */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "engine_rig.h"
#include "../unit/suite.h"

enum { N_PROMPT = 20, N_OUT = 24, MAX_LINE = 64 };

struct line {
    char way[16];
    int32_t width, n_group, n_tok, tok[N_OUT];
    float weight, length_penalty;
};

static int read_lines(struct line *line)
{
    char path[4096], text[512];
    int n = 0;
    snprintf(path, sizeof path, "%s/ways/llama.txt", GOLDEN_DIR);
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "%s is missing", path);
    while (fgets(text, sizeof text, f)) {
        struct line *l = &line[n++];
        int at = 0, used;
        ck_assert_int_lt(n, MAX_LINE);
        ck_assert_int_eq(
            sscanf(text, "%15s %d %f %d %f%n", l->way, &l->width, &l->weight, &l->n_group, &l->length_penalty, &at), 5);
        for (l->n_tok = 0; l->n_tok < N_OUT && sscanf(text + at, "%d%n", &l->tok[l->n_tok], &used) == 1; at += used)
            l->n_tok++;
    }
    fclose(f);
    return n;
}

static struct gen_params params_of(const struct line *l)
{
    static const int32_t ends[] = {45, 146, 167, 236};
    struct gen_params p = params(N_OUT);
    p.decoding.strategy = strcmp(l->way, "contrastive") ? DECODE_BEAM : DECODE_CONTRASTIVE;
    p.decoding.contrastive.k = l->width;
    p.decoding.contrastive.alpha = l->weight;
    p.decoding.beam.width = l->width;
    p.decoding.beam.n_group = l->n_group;
    p.decoding.beam.diversity = l->weight;
    p.decoding.beam.length_penalty = l->length_penalty;
    p.n = p.decoding.strategy == DECODE_BEAM ? l->width : 1;
    if (!strcmp(l->way, "ends")) {
        p.stop_ids = ends;
        p.n_stop_ids = 4;
    }
    return p;
}

START_TEST(ways_say_what_a_plain_implementation_says)
{
    static struct line line[MAX_LINE];
    int32_t prompt[N_PROMPT];
    int n = read_lines(line);
    ck_assert_int_ge(n, 30);
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = (3 + 7 * i) % 250;
    rig_ops = backend_find(_i ? "cpu" : "ref", NULL);
    rig_open_model(GOLDEN_DIR "/logits/llama.gguf", "f32", 256, 64);
    for (int i = 0; i < n;) {
        struct gen_params p = params_of(&line[i]);
        struct heard *h = ask(prompt, N_PROMPT, &p);
        finish(h);
        for (int32_t c = 0; c < p.n; c++, i++) {
            ck_assert_int_eq(h->n_tok[c], line[i].n_tok);
            ck_assert_mem_eq(h->tok[c], line[i].tok, sizeof(int32_t) * (size_t)line[i].n_tok);
        }
        forget(h);
    }
    close_engine();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ways");
    tcase_add_loop_test(tc, ways_say_what_a_plain_implementation_says, 0, 2);
    return suite_run(tc);
}
