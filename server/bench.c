/* `galley bench`: a table for people, JSON for programs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "command.h"
#include "text_buf.h"

enum { MAX_LIST = 16 };

struct bench_args {
    const char *model, *quantization, *backend, *pin, *repack_cache;
    int32_t threads, steps, repeat;
    int32_t prefill[MAX_LIST + 1], depth[MAX_LIST + 1], batch[MAX_LIST + 1], verify[MAX_LIST + 1]; /* -1 ends them */
    bool json;
};

static const struct flag bench_flags[] = {
    {"--model", "PATH", NULL, "GGUF file or Hugging Face directory"},
    {"--backend", "NAME", "auto|ref|cpu", "where it runs [auto]"},
    {"--quantization", "TO", "none|fp8", "what F32, F16 and BF16 matrices become at load [none]"},
    {"--threads", "N", NULL, "worker threads; 0: one for each physical core [0]"},
    {"--pin", "TO", "node|core|off", "what a thread is kept to [node]"},
    {"--repack-cache", "DIR", NULL, "folder where weights are kept as the cpu packed them"},
    {"--prefill", "LIST", NULL, "prompt tokens, separated by commas, or none [512]"},
    {"--depth", "LIST", NULL, "tokens before the measured ones [128,1024]"},
    {"--batch", "LIST", NULL, "sequences decoded together, or none [1,4,16]"},
    {"--verify", "LIST", NULL, "tokens of one sequence in a step, each with a draw, or none [none]"},
    {"--steps", "N", NULL, "steps in a repetition [16]"},
    {"--repeat", "N", NULL, "repetitions; the median is shown [5]"},
    {"--json", NULL, NULL, "print JSON instead of the table"},
    {NULL},
};

static bool parse_int(const char *text, int32_t lo, int32_t *out)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (end == text || *end || v < lo || v > 1 << 20)
        return false;
    *out = (int32_t)v;
    return true;
}

static bool parse_list(const char *text, int32_t lo, int32_t *out)
{
    int n = 0;
    bool none = !strcmp(text, "none");
    while (!none && *text) {
        char *end;
        long v = strtol(text, &end, 10);
        if (end == text || (*end && *end != ',') || v < lo || v > 1 << 20 || n == MAX_LIST)
            return false;
        out[n++] = (int32_t)v;
        text = end + (*end == ',');
    }
    out[n] = -1;
    return none || n > 0;
}

/* Returns the argument that is wrong, or NULL. */
static const char *parse_args(int argc, char **argv, struct bench_args *a)
{
    for (int i = 0; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--json")) {
            a->json = true;
            continue;
        }
        const char *value = i + 1 < argc ? argv[++i] : NULL;
        bool ok = value != NULL;
        if (!ok)
            return name;
        if (!strcmp(name, "--model"))
            a->model = value;
        else if (!strcmp(name, "--backend"))
            a->backend = value;
        else if (!strcmp(name, "--threads"))
            ok = parse_int(value, 0, &a->threads);
        else if (!strcmp(name, "--quantization"))
            a->quantization = value;
        else if (!strcmp(name, "--pin"))
            a->pin = value;
        else if (!strcmp(name, "--repack-cache"))
            a->repack_cache = value;
        else if (!strcmp(name, "--prefill"))
            ok = parse_list(value, 0, a->prefill); /* 0: none */
        else if (!strcmp(name, "--repeat"))
            ok = parse_int(value, 1, &a->repeat);
        else if (!strcmp(name, "--depth"))
            ok = parse_list(value, 0, a->depth);
        else if (!strcmp(name, "--batch"))
            ok = parse_list(value, 1, a->batch);
        else if (!strcmp(name, "--verify"))
            ok = parse_list(value, 1, a->verify);
        else if (!strcmp(name, "--steps"))
            ok = parse_int(value, 1, &a->steps);
        else
            ok = false;
        if (!ok)
            return name;
    }
    return a->model ? NULL : "--model";
}

static const char *const work_name[] = {"prefill", "decode", "verify"};

static void print_row(const struct bench_row *r)
{
    if (r->work == BENCH_PREFILL)
        printf("prefill %6d tokens              %10.1f tok/s  +-%4.1f%%\n", r->n_row, r->tokens_per_s, 50 * r->spread);
    else
        printf("%s  depth %6d  %s %4d   %10.1f tok/s  +-%4.1f%%  %8.2f ms  %7.2f GB/s of weights, %3.0f%% of the read "
               "bandwidth\n",
               work_name[r->work], r->depth, r->work == BENCH_VERIFY ? "rows " : "batch",
               r->work == BENCH_VERIFY ? r->n_row : r->n_seq, r->tokens_per_s, 50 * r->spread, r->step_ms,
               r->weight_gb_per_s, 100 * r->bandwidth_share);
    fflush(stdout);
}

static void print_json(const struct bench_report *rep)
{
    struct text_buf b = {0};
    tb_str(&b, "{\"model\":");
    tb_json_str(&b, rep->model);
    tb_str(&b, ",\"device\":");
    tb_json_str(&b, rep->device);
    tb_printf(&b, ",\"read_gb_per_s\":%.3f,\"rows\":[", rep->read_gb_per_s);
    for (int32_t i = 0; i < rep->n_row; i++) {
        const struct bench_row *r = &rep->row[i];
        tb_printf(&b, "%s{\"work\":\"%s\",\"sequences\":%d,\"rows\":%d,\"steps\":%d,\"depth\":%d,", i ? "," : "",
                  work_name[r->work], r->n_seq, r->n_row, r->n_step, r->depth);
        tb_printf(&b, "\"tokens_per_s\":%.3f,\"step_ms\":%.4f,\"spread\":%.4f,", r->tokens_per_s, r->step_ms,
                  r->spread);
        tb_printf(&b, "\"weight_gb_per_s\":%.3f,\"read_gb_per_s\":%.3f,\"bandwidth_share\":%.4f}", r->weight_gb_per_s,
                  r->read_gb_per_s, r->bandwidth_share);
    }
    tb_str(&b, "]}\n");
    fwrite(b.p, 1, b.n, stdout);
    tb_free(&b);
}

static int bench_main(int argc, char **argv)
{
    struct bench_args a = {.backend = "auto",
                           .steps = 16,
                           .repeat = 5,
                           .prefill = {512, -1},
                           .depth = {128, 1024, -1},
                           .batch = {1, 4, 16, -1},
                           .verify = {-1}};
    const char *wrong = parse_args(argc, argv, &a);
    if (wrong)
        return command_misused(&bench_command, "%s is missing, unknown or has a bad value", wrong);
    struct bench_report rep;
    struct err e = {0};
    struct engine_options opt = {.model_path = a.model,
                                 .quantization = a.quantization,
                                 .backend = a.backend,
                                 .n_thread = a.threads,
                                 .pin = a.pin,
                                 .repack_cache = a.repack_cache};
    struct bench_want want = {.prefill = a.prefill,
                              .depth = a.depth,
                              .batch = a.batch,
                              .verify = a.verify,
                              .n_step = a.steps,
                              .n_repeat = a.repeat};
    int rc = engine_bench(&opt, &want, a.json ? NULL : print_row, &rep, &e);
    if (rc) {
        fprintf(stderr, "galley bench: %s\n", e.msg);
        return 1;
    }
    if (a.json)
        print_json(&rep);
    else
        printf("\n%s on %s; reading memory: %.1f GB/s\n", rep.model, rep.device, rep.read_gb_per_s);
    return 0;
}

const struct command bench_command = {
    .name = "bench",
    .args = "--model PATH [options]",
    .about = "measure prefill and decode on this machine",
    .flag = bench_flags,
    .main = bench_main,
};
