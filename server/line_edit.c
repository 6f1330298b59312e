#include "line_edit.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include "mem.h"

enum { MAX_HISTORY = 1000 };

struct line_edit { /* owner: line_edit_open's caller */
    EditLine *el;
    History *history;
    struct interrupt *in;
    sigset_t signals; /* what changes the terminal under the editor; blocked while a line is typed */
    int signal_fd;
    const char *prompt;
    char *line;
    bool interrupted;
    char file[PATH_MAX]; /* "": none */
};

/* ---- Where the history lies ---- */

/* Makes each folder of the path that is missing. */
static bool make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        bool ok = !mkdir(path, 0700) || errno == EEXIST;
        *slash = '/';
        if (!ok)
            return false;
    }
    return true;
}

static void find_file(struct line_edit *l)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = state && *state == '/' ? snprintf(l->file, sizeof l->file, "%s/galley/history", state)
            : home && *home == '/' ? snprintf(l->file, sizeof l->file, "%s/.local/state/galley/history", home)
                                   : 0;
    if (n <= 0 || n >= (int)sizeof l->file || !make_folders(l->file))
        l->file[0] = 0;
}

static void save(struct line_edit *l)
{
    HistEvent ev;
    if (!l->file[0])
        return;
    mode_t mask = umask(077); /* what was asked is nobody else's business */
    history(l->history, &ev, H_SAVE, l->file);
    umask(mask);
}

/* ---- The terminal ---- */

static struct line_edit *self_of(EditLine *el)
{
    void *self = NULL;
    el_get(el, EL_CLIENTDATA, &self);
    return self;
}

static char *show_prompt(EditLine *el)
{
    return (char *)self_of(el)->prompt;
}

static void draw_again(struct line_edit *l)
{
    el_set(l->el, EL_PREP_TERM, 1);
    el_set(l->el, EL_REFRESH);
}

/* Ctrl-Z with the terminal as it was. Where no shell could continue us (a container's first process) nothing happens.
 */
static void stop(struct line_edit *l)
{
    const struct timespec now = {0};
    sigset_t stops, goes_on;
    sigemptyset(&stops);
    sigaddset(&stops, SIGTSTP);
    sigemptyset(&goes_on);
    sigaddset(&goes_on, SIGCONT);
    el_set(l->el, EL_PREP_TERM, 0);
    raise(SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &stops, NULL);
    sigprocmask(SIG_BLOCK, &stops, NULL);
    sigtimedwait(&goes_on, NULL, &now); /* or the line would be drawn once more for it */
    draw_again(l);
}

/* The window's size, Ctrl-Z, and going on after it. libedit's own handlers (EL_SIGNAL) free memory inside a signal. */
static void take_signals(struct line_edit *l)
{
    struct signalfd_siginfo s;
    while (read(l->signal_fd, &s, sizeof s) == (ssize_t)sizeof s) {
        if (s.ssi_signo == SIGWINCH)
            el_resize(l->el);
        if (s.ssi_signo == SIGTSTP)
            stop(l);
        if (s.ssi_signo == SIGCONT)
            draw_again(l);
    }
}

/* Waits for the keyboard and for signals: 1 a byte, 0 the end, -1 a signal. */
static int next_byte(struct line_edit *l, char *c)
{
    for (;;) {
        struct pollfd p[3] = {{.fd = STDIN_FILENO, .events = POLLIN},
                              {.fd = l->in->fd, .events = POLLIN},
                              {.fd = l->signal_fd, .events = POLLIN}};
        if (poll(p, 3, -1) < 0)
            continue;
        if (p[1].revents && interrupt_take(l->in)) {
            l->interrupted = true;
            return -1;
        }
        if (p[2].revents)
            take_signals(l);
        if (!p[0].revents)
            continue;
        ssize_t n = read(STDIN_FILENO, c, 1);
        if (n >= 0 || errno != EINTR)
            return n > 0;
    }
}

static int next_char(EditLine *el, wchar_t *out)
{
    struct line_edit *l = self_of(el);
    mbstate_t state = {0};
    for (;;) {
        char c;
        int rc = next_byte(l, &c);
        if (rc <= 0)
            return rc;
        size_t n = mbrtowc(out, &c, 1, &state);
        if (n == (size_t)-1) {
            state = (mbstate_t){0}; /* no character: dropped */
        } else if (n != (size_t)-2) {
            if (!n)
                *out = 0;
            return 1;
        }
    }
}

/* What is typed is UTF-8, also where the locale does not say so. */
static void set_locale(void)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8"))
        setlocale(LC_CTYPE, "C.UTF-8");
}

int line_edit_open(struct interrupt *in, struct line_edit **out, struct err *e)
{
    HistEvent ev;
    set_locale();
    struct line_edit *l = *out = mem_calloc(1, sizeof *l);
    if (!l)
        return err_set(e, ERR_NOMEM, "out of memory");
    l->in = in;
    sigemptyset(&l->signals);
    sigaddset(&l->signals, SIGWINCH);
    sigaddset(&l->signals, SIGTSTP);
    sigaddset(&l->signals, SIGCONT);
    l->signal_fd = signalfd(-1, &l->signals, SFD_NONBLOCK | SFD_CLOEXEC);
    l->el = el_init("galley", stdin, stdout, stderr);
    l->history = history_init();
    if (!l->el || !l->history || l->signal_fd < 0) {
        line_edit_close(l);
        *out = NULL;
        return err_set(e, ERR_IO, "the terminal cannot be used for typing");
    }
    find_file(l);
    history(l->history, &ev, H_SETSIZE, MAX_HISTORY);
    history(l->history, &ev, H_SETUNIQUE, 1);
    if (l->file[0])
        history(l->history, &ev, H_LOAD, l->file);
    el_set(l->el, EL_CLIENTDATA, l);
    el_set(l->el, EL_PROMPT, show_prompt);
    el_set(l->el, EL_EDITOR, "emacs");
    el_set(l->el, EL_HIST, history, l->history);
    /* Keys typed during an answer wait as they are: in canonical mode Ctrl-D would become a NUL. */
    el_set(l->el, EL_SETTY, "-x", "-icanon", "-echo", NULL);
    el_set(l->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(l->el, EL_GETCFN, next_char);
    el_source(l->el, NULL); /* ~/.editrc */
    return 0;
}

void line_edit_close(struct line_edit *l)
{
    if (!l)
        return;
    if (l->el)
        el_end(l->el);
    if (l->history)
        history_end(l->history);
    if (l->signal_fd >= 0)
        close(l->signal_fd);
    mem_free(l->line);
    mem_free(l);
}

enum line_end line_edit_read(struct line_edit *l, const char *prompt, const char **text)
{
    int n = 0;
    sigset_t before;
    l->prompt = prompt;
    l->interrupted = false;
    sigprocmask(SIG_BLOCK, &l->signals, &before);
    el_resize(l->el);               /* what happened to the window during an answer */
    el_set(l->el, EL_PREP_TERM, 1); /* before the prompt: keys typed at it are ours, not the line discipline's */
    const char *got = el_gets(l->el, &n);
    sigprocmask(SIG_SETMASK, &before, NULL);
    mem_free(l->line);
    l->line = NULL;
    if (l->interrupted || !got || n <= 0) {
        el_reset(l->el);
        putchar('\n');
        return l->interrupted ? LINE_INTERRUPTED : LINE_EOF;
    }
    while (n && (got[n - 1] == '\n' || got[n - 1] == '\r'))
        n--;
    l->line = mem_strndup(got, (size_t)n);
    *text = l->line;
    return l->line ? LINE_TEXT : LINE_EOF;
}

void line_edit_remember(struct line_edit *l, const char *text)
{
    HistEvent ev;
    history(l->history, &ev, H_ENTER, text);
    save(l);
}
