/* How long one rendering takes: jinja_bench TEMPLATE [N_MESSAGE]. Best and median of 2000. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "chat_template.h"
#include "mem.h"

enum { N_RUN = 2000 };

static double now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec * 1e-3;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static json_t *conversation(int n_message)
{
    json_t *messages = json_array();
    for (int i = 0; i < n_message; i++) {
        const char *role = i == 0 ? "system" : i % 2 ? "user" : "assistant";
        json_array_append_new(
            messages, json_pack("{s:s, s:s}", "role", role, "content",
                                "  What is the meaning of life, the universe and everything? Please be brief.\n"));
    }
    return json_pack("{s:o, s:b, s:s, s:s}", "messages", messages, "add_generation_prompt", 1, "bos_token", "<s>",
                     "eos_token", "</s>");
}

int main(int argc, char **argv)
{
    static char src[1 << 16];
    static double us[N_RUN];
    FILE *f = argc > 1 ? fopen(argv[1], "rb") : NULL;
    struct chat_template *t;
    struct err e = {0};
    if (!f) {
        fprintf(stderr, "usage: jinja_bench TEMPLATE [N_MESSAGE]\n");
        return 2;
    }
    size_t n_src = fread(src, 1, sizeof src, f), n = 0;
    fclose(f);
    double start = now_us();
    if (chat_template_compile(src, n_src, &t, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    double compile_us = now_us() - start;
    json_t *vars = conversation(argc > 2 ? atoi(argv[2]) : 20);
    for (int i = 0; i < N_RUN; i++) {
        char *out;
        start = now_us();
        if (chat_template_render(t, vars, NULL, &out, &n, &e)) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
        us[i] = now_us() - start;
        mem_free(out);
    }
    qsort(us, N_RUN, sizeof *us, by_size);
    printf("compile %.1f us, render best %.1f us, median %.1f us, %zu bytes\n", compile_us, us[0], us[N_RUN / 2], n);
    chat_template_free(t);
    json_decref(vars);
    return 0;
}
