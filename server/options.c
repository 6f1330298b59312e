#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "mem.h"

#define AT(field) offsetof(struct options, field)
#define MIB (INT64_C(1) << 20)

const struct option option_table[] = {
    {"model", OPT_STRING, AT(model), 0, 0, NULL, "PATH", NULL, "Model",
     "GGUF file to serve; without it the bundled demo pair"},
    {"draft-model", OPT_STRING, AT(draft_model), 0, 0, NULL, "PATH", NULL, "Model",
     "GGUF file of a small model with the same vocabulary, to draft for it"},
    {"ngram", OPT_STRING, AT(ngram), 0, 0, NULL, "PATH", NULL, "Model",
     "n-gram store (galley ngram build) that superposed decoding weighs words by, and trigram drafts start from"},
    {"served-model-name", OPT_STRING, AT(served_model_name), 0, 0, NULL, "NAME", NULL, "Model",
     "name clients use; the file's own by default"},
    {"chat-template", OPT_STRING, AT(chat_template), 0, 0, NULL, "PATH", NULL, "Model",
     "Jinja file used instead of the model's chat template"},
    {"quantization", OPT_CHOICE, AT(quantization), 0, 0, "none|fp8", "TO", "none", "Model",
     "what becomes of matrices of F32, F16 or BF16 in layers, as they are loaded; fp8: e4m3, a scale for 128 columns"},
    {"backend", OPT_CHOICE, AT(backend), 0, 0, "auto|ref|cpu|cuda", "NAME", "auto", "Compute", "where the model runs"},
    {"threads", OPT_INT, AT(threads), 0, 1024, NULL, "N", "0", "Compute",
     "worker threads; 0: one for each physical core that this process may use"},
    {"pin", OPT_CHOICE, AT(pin), 0, 0, "node|core|off", "TO", "node", "Compute",
     "what a worker thread is kept to: its NUMA node, if there are several; a core of its own; nothing"},
    {"repack-cache", OPT_STRING, AT(repack_cache), 0, 0, NULL, "DIR", NULL, "Compute",
     "folder where weights are kept as the cpu packed them, so that the next start need not pack them again"},
    {"tensor-parallel", OPT_INT, AT(tensor_parallel), 0, 64, NULL, "N", "0", "Compute",
     "GPUs that share each model; 0: one"},
    {"deterministic", OPT_BOOL, AT(deterministic), 0, 0, NULL, NULL, "false", "Compute",
     "bitwise the same text in any batch on a GPU too, at some cost; the cpu always gives it"},
    {"ctx", OPT_INT, AT(ctx), 0, 1 << 24, NULL, "TOKENS", "0", "Memory",
     "longest sequence; 0: the model's, as far as memory allows"},
    {"kv-mem", OPT_SIZE, AT(kv_mem), 0, INT64_C(1) << 46, NULL, "BYTES", "0", "Memory",
     "KV cache and scratch, e.g. 512MiB; 0: at most half of the machine's free memory, or 90% of a GPU's"},
    {"kv-type", OPT_CHOICE, AT(kv_type), 0, 0, "f32|f16|bf16|q8_0|fp8", "TYPE", "f16", "Memory",
     "element type of the KV cache; on a GPU 8 bits are fp8, all others bf16, on a cpu fp8 is q8_0"},
    {"no-prefix-cache", OPT_BOOL, AT(no_prefix_cache), 0, 0, NULL, NULL, "false", "Memory",
     "do not reuse the KV blocks of equal prompts"},
    {"no-contrastive", OPT_BOOL, AT(no_contrastive), 0, 0, NULL, NULL, "false", "Memory",
     "keep no hidden states in the KV cache: it is smaller, and contrastive search is refused"},
    {"max-batch-tokens", OPT_INT, AT(max_batch_tokens), 1, 32767, NULL, "N", "512", "Scheduling",
     "tokens computed in one step"},
    {"max-seqs", OPT_INT, AT(max_seqs), 1, 4096, NULL, "N", "64", "Scheduling", "sequences that run at once"},
    {"decoding", OPT_CHOICE, AT(decoding), 0, 0, "auto|off|copy|model|trigram|speculative", "WAY", "auto", "Scheduling",
     "how requests that do not say are decoded"},
    {"ways", OPT_CHOICES, AT(ways), 0, 0,
     "auto|off|speculative|cautious|contrastive|beam|diverse_beam|superposed|vote|navigate", "WAYS", NULL, "Scheduling",
     "ways of decoding that requests may ask for, with commas between; without it all"},
    {"max-choices", OPT_INT, AT(max_choices), 0, 128, NULL, "N", "0", "Scheduling",
     "sequences that one request may have at once: choices, beams, trials; 0: as many as --max-seqs"},
    {"max-draft", OPT_INT, AT(max_draft), 0, 64, NULL, "N", "64", "Scheduling",
     "drafted tokens of a sequence verified in one step; 0: nothing is ever drafted"},
    {"max-queue", OPT_INT, AT(max_queue), 1, 1 << 20, NULL, "N", "1024", "Scheduling",
     "requests that may wait; more get a 429"},
    {"host", OPT_STRING, AT(host), 0, 0, NULL, "ADDRESS", "127.0.0.1", "Server", "IPv4 or IPv6 address to listen on"},
    {"port", OPT_INT, AT(port), 0, 65535, NULL, "N", "8080", "Server", "port; 0 lets the system choose one"},
    {"unix-socket", OPT_STRING, AT(unix_socket), 0, 0, NULL, "PATH", NULL, "Server",
     "Unix socket to listen on, in place of host and port; its owner and group may use it"},
    {"tls-cert", OPT_STRING, AT(tls_cert), 0, 0, NULL, "FILE", NULL, "Server",
     "PEM certificate, its chain behind it: https in place of http; SIGHUP rereads it"},
    {"tls-key", OPT_STRING, AT(tls_key), 0, 0, NULL, "FILE", NULL, "Server", "its PEM private key"},
    {"loops", OPT_INT, AT(loops), 1, 16, NULL, "N", "2", "Server", "event-loop threads"},
    {"api-key", OPT_STRING, AT(api_key), 0, 0, NULL, "KEYS", NULL, "Server",
     "comma-separated keys; without keys any is accepted, and none"},
    {"api-key-file", OPT_STRING, AT(api_key_file), 0, 0, NULL, "FILE", NULL, "Server",
     "more keys, one a line, # begins a comment; SIGHUP rereads it"},
    {"cors-origin", OPT_STRING, AT(cors_origin), 0, 0, NULL, "ORIGIN", "*", "Server",
     "Access-Control-Allow-Origin; empty: no CORS headers"},
    {"max-body", OPT_SIZE, AT(max_body), 1024, INT64_C(1) << 32, NULL, "BYTES", "32MiB", "Server",
     "largest request body"},
    {"max-connections", OPT_INT, AT(max_connections), 1, 1 << 20, NULL, "N", "10000", "Server",
     "open connections in all"},
    {"idle-timeout", OPT_INT, AT(idle_timeout), 1, 86400, NULL, "SECONDS", "60", "Server",
     "a connection that says nothing is closed"},
    {"request-timeout", OPT_INT, AT(request_timeout), 0, 86400, NULL, "SECONDS", "600", "Server",
     "a request that takes longer is ended; 0: never"},
    {"drain-timeout", OPT_INT, AT(drain_timeout), 0, 86400, NULL, "SECONDS", "30", "Server",
     "time running requests get after SIGTERM"},
    {"ping-interval", OPT_INT, AT(ping_interval), 0, 3600, NULL, "SECONDS", "15", "Server",
     "comment sent on a silent stream; 0: never"},
    {"strict", OPT_BOOL, AT(strict), 0, 0, NULL, NULL, "false", "Server", "refuse unknown fields in requests"},
    {"log-level", OPT_CHOICE, AT(log_level), 0, 0, "debug|info|warn|error", "LEVEL", "info", "Other",
     "least severe line that is logged"},
    {"config", OPT_STRING, AT(config), 0, 0, NULL, "FILE", NULL, "Other",
     "YAML file with these options, one a line: max_seqs: 32"},
    {"check-config", OPT_BOOL, AT(check_config), 0, 0, NULL, NULL, "false", "Other",
     "check options and model, print the memory plan, exit"},
};
const int n_option = sizeof option_table / sizeof *option_table;

/* ---- Names ---- */

static char fold(char c)
{
    return c == '_' ? '-' : (char)tolower((unsigned char)c);
}

int option_find(const char *name, size_t len)
{
    for (int i = 0; i < n_option; i++) {
        const char *own = option_table[i].name;
        size_t at = 0;
        while (at < len && own[at] && own[at] == fold(name[at]))
            at++;
        if (at == len && !own[at])
            return i;
    }
    return -1;
}

/* Levenshtein's distance, for names of at most 31 characters. */
static int distance(const char *a, const char *b)
{
    int row[32], n = (int)strlen(b);
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int change = diagonal + (fold(a[i - 1]) != b[j - 1]), add = row[j] + 1, drop = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = change < add ? change : add;
            row[j] = row[j] < drop ? row[j] : drop;
        }
    }
    return row[n];
}

const char *option_nearest(const char *name)
{
    const char *best = NULL;
    int best_distance = 4; /* further away is another word */
    for (int i = 0; i < n_option; i++) {
        int d = distance(name, option_table[i].name);
        if (d < best_distance) {
            best_distance = d;
            best = option_table[i].name;
        }
    }
    return best;
}

/* ---- Values ---- */

static int64_t unit_factor(const char *unit)
{
    static const struct {
        const char *name;
        int64_t factor;
    } unit_table[] = {{"", 1},           {"b", 1},           {"k", 1 << 10},     {"kib", 1 << 10},
                      {"kb", 1000},      {"m", MIB},         {"mib", MIB},       {"mb", 1000000},
                      {"g", MIB << 10},  {"gib", MIB << 10}, {"gb", 1000000000}, {"t", MIB << 20},
                      {"tib", MIB << 20}};
    for (size_t i = 0; i < sizeof unit_table / sizeof *unit_table; i++)
        if (!strcasecmp(unit, unit_table[i].name))
            return unit_table[i].factor;
    return 0;
}

static int parse_number(const struct option *opt, const char *text, const char *where, int64_t *out, struct err *e)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || isspace((unsigned char)*text) || errno)
        return err_set(e, ERR_INVALID, "%s: '%s' is not a whole number", where, text);
    int64_t factor = opt->type == OPT_SIZE ? unit_factor(end) : *end ? 0 : 1;
    if (!factor)
        return err_set(e, ERR_INVALID, "%s: '%s' ends in '%s'%s", where, text, end,
                       opt->type == OPT_SIZE ? ", which is no unit (KiB, MiB, GiB)" : "");
    if (v < opt->lo / factor || v > opt->hi / factor || v * factor < opt->lo)
        return err_set(e, ERR_INVALID, "%s: %s is outside of %lld to %lld", where, text, (long long)opt->lo,
                       (long long)opt->hi);
    *out = v * factor;
    return 0;
}

static int parse_bool(const char *text, const char *where, bool *out, struct err *e)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
    for (int i = 0; i < 4; i++)
        if (!strcasecmp(text, yes[i]) || !strcasecmp(text, no[i])) {
            *out = !strcasecmp(text, yes[i]);
            return 0;
        }
    return err_set(e, ERR_INVALID, "%s: '%s' is neither true nor false", where, text);
}

static bool is_word_of(const char *words, char separator, const char *text, size_t n)
{
    for (const char *c = words; c; c = strchr(c, separator) ? strchr(c, separator) + 1 : NULL)
        if (!strncmp(c, text, n) && (c[n] == separator || !c[n]) && n)
            return true;
    return false;
}

bool option_has(const char *list, const char *word)
{
    return !list || is_word_of(list, ',', word, strlen(word));
}

/* Every word, or the one, is a choice. */
static bool are_choices(const struct option *opt, const char *text)
{
    const char *end = opt->type == OPT_CHOICES ? "," : "";
    for (size_t n;; text += n + 1) {
        n = strcspn(text, end);
        if (!is_word_of(opt->choices, '|', text, n))
            return false;
        if (!text[n])
            return true;
    }
}

static int set_value(struct options *o, const struct option *opt, const char *text, const char *where, struct err *e)
{
    char *at = (char *)o + opt->offset;
    if (opt->type == OPT_INT || opt->type == OPT_SIZE)
        return parse_number(opt, text, where, (int64_t *)at, e);
    if (opt->type == OPT_BOOL)
        return parse_bool(text, where, (bool *)at, e);
    if (opt->choices && !are_choices(opt, text))
        return err_set(e, ERR_INVALID, "%s: '%s' is not %s of %s", where, text,
                       opt->type == OPT_CHOICES ? "made up" : "one", opt->choices);
    char *copy = mem_strdup(text);
    if (!copy)
        return err_set(e, ERR_NOMEM, "out of memory");
    mem_free(*(char **)at);
    *(char **)at = copy;
    return 0;
}

int option_set(struct options *o, struct option_source *src, int index, const char *text, const char *where,
               struct err *e)
{
    if (src->set[index])
        return err_set(e, ERR_INVALID, "%s: given twice", where);
    src->set[index] = true;
    return set_value(o, &option_table[index], text, where, e);
}

/* ---- Sources ---- */

static int unknown_flag(const char *name, struct err *e)
{
    const char *near = option_nearest(name);
    return err_set(e, ERR_INVALID, "--%s: no such option%s%s%s", name, near ? "; did you mean --" : "",
                   near ? near : "", near ? "?" : "");
}

static int parse_flags(struct options *o, struct option_source *src, int argc, char **argv, struct err *e)
{
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) || !argv[i][2])
            return err_set(e, ERR_INVALID, "'%s': options begin with --; galley serve --help lists them", argv[i]);
        const char *name = argv[i] + 2, *eq = strchr(name, '='), *value;
        size_t len = eq ? (size_t)(eq - name) : strlen(name);
        int at = option_find(name, len);
        char where[64];
        snprintf(where, sizeof where, "--%.*s", len > 40 ? 40 : (int)len, name);
        if (at < 0)
            return unknown_flag(where + 2, e);
        if (eq)
            value = eq + 1;
        else if (option_table[at].type == OPT_BOOL)
            value = "true";
        else if (i + 1 < argc)
            value = argv[++i];
        else
            return err_set(e, ERR_INVALID, "%s: needs a value (%s)", where, option_table[at].unit);
        int rc = option_set(o, src, at, value, where, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int read_environment(struct options *o, struct option_source *src, struct err *e)
{
    for (int i = 0; i < n_option; i++) {
        char name[64] = "GALLEY_";
        size_t at = strlen(name);
        for (const char *c = option_table[i].name; *c; c++)
            name[at++] = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
        name[at] = 0;
        const char *value = getenv(name);
        int rc = value ? option_set(o, src, i, value, name, e) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

/* Later sources are read first into their own struct, so that a weaker source cannot overwrite a stronger one. */
static void overlay(struct options *to, struct options *from, const struct option_source *src)
{
    for (int i = 0; i < n_option; i++) {
        const struct option *opt = &option_table[i];
        char *a = (char *)to + opt->offset, *b = (char *)from + opt->offset;
        if (!src->set[i])
            continue;
        if (opt->type == OPT_BOOL)
            *(bool *)a = *(bool *)b;
        else if (opt->type == OPT_INT || opt->type == OPT_SIZE)
            *(int64_t *)a = *(int64_t *)b;
        else {
            mem_free(*(char **)a);
            *(char **)a = *(char **)b;
            *(char **)b = NULL;
        }
    }
}

static int set_defaults(struct options *o, struct err *e)
{
    int rc = 0;
    *o = (struct options){0};
    for (int i = 0; !rc && i < n_option; i++)
        if (option_table[i].fallback)
            rc = set_value(o, &option_table[i], option_table[i].fallback, option_table[i].name, e);
    return rc;
}

int options_parse(struct options *o, int argc, char **argv, struct err *e)
{
    struct options flags = {0}, env = {0}, yaml = {0};
    struct option_source from_flags = {0}, from_env = {0}, from_yaml = {0};
    int rc = set_defaults(o, e);
    if (!rc)
        rc = parse_flags(&flags, &from_flags, argc, argv, e);
    if (!rc)
        rc = read_environment(&env, &from_env, e);
    const char *config = flags.config ? flags.config : env.config;
    if (!rc && config)
        rc = options_read_yaml(&yaml, &from_yaml, config, e);
    if (!rc) {
        overlay(o, &yaml, &from_yaml);
        overlay(o, &env, &from_env);
        overlay(o, &flags, &from_flags);
    }
    options_free(&flags);
    options_free(&env);
    options_free(&yaml);
    if (rc)
        options_free(o);
    return rc;
}

void options_free(struct options *o)
{
    for (int i = 0; i < n_option; i++)
        if (option_table[i].type == OPT_STRING || option_table[i].choices)
            mem_free(*(char **)((char *)o + option_table[i].offset));
    *o = (struct options){0};
}

void options_help(FILE *out)
{
    const char *group = NULL;
    for (int i = 0; i < n_option; i++) {
        const struct option *opt = &option_table[i];
        if (!group || strcmp(group, opt->group))
            fprintf(out, "\n%s\n", opt->group);
        group = opt->group;
        char flag[64];
        snprintf(flag, sizeof flag, "--%s%s%s", opt->name, opt->unit ? " " : "", opt->unit ? opt->unit : "");
        fprintf(out, "  %-28s %s", flag, opt->help);
        if (opt->choices)
            fprintf(out, " (%s)", opt->choices);
        if (opt->fallback && *opt->fallback && opt->type != OPT_BOOL && strcmp(opt->fallback, "0"))
            fprintf(out, " [%s]", opt->fallback);
        fputc('\n', out);
    }
    fputs("\nEach option can also be set as GALLEY_NAME in the environment or as name: value in the --config file;\n"
          "a flag wins over the environment, the environment over the file.\n",
          out);
}
