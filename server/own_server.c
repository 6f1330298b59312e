#include "own_server.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interrupt.h"
#include "mem.h"

static void run_child(char **argv, pid_t parent)
{
    setpgid(0, 0); /* Ctrl-C is for the answer */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(0);
    interrupt_unblock();
    setenv("GALLEY_LOG_LEVEL", "warn", 0);
    dup2(STDERR_FILENO, STDOUT_FILENO); /* stdout is for answers */
    execv(argv[0], argv);
    fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* Under TMPDIR, or /tmp where there is none or a socket's name would not fit. */
static int make_folder(struct own_server *s, struct err *e)
{
    static const char name[] = "/galley-run-XXXXXX";
    const char *tmp = getenv("TMPDIR");
    if (!tmp || *tmp != '/' || strlen(tmp) + sizeof name > sizeof s->folder)
        tmp = "/tmp";
    snprintf(s->folder, sizeof s->folder, "%s%s", tmp, name);
    if (!mkdtemp(s->folder)) {
        int why = errno;
        s->folder[0] = 0;
        return err_set(e, ERR_IO, "%s: %s", tmp, strerror(why));
    }
    snprintf(s->socket, sizeof s->socket, "%s/socket", s->folder);
    return 0;
}

int own_server_start(struct own_server *s, char **flag, int n, struct err *e)
{
    char exe[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (len <= 0)
        return err_set(e, ERR_IO, "this program cannot find itself: /proc/self/exe: %s", strerror(errno));
    exe[len] = 0;
    int rc = make_folder(s, e);
    if (rc)
        return rc;
    /* Neither environment nor configuration file may put a key or a certificate between the two. */
    char *fixed[] = {exe,          "serve",           "--unix-socket", s->socket,
                     "--api-key=", "--api-key-file=", "--tls-cert=",   "--tls-key="};
    size_t n_fixed = sizeof fixed / sizeof *fixed;
    char **argv = mem_calloc(n_fixed + (size_t)n + 1, sizeof *argv);
    if (!argv)
        return err_set(e, ERR_NOMEM, "out of memory");
    memcpy(argv, fixed, sizeof fixed);
    memcpy(argv + n_fixed, flag, (size_t)n * sizeof *argv);
    pid_t parent = getpid();
    s->pid = fork();
    if (!s->pid)
        run_child(argv, parent);
    mem_free(argv);
    if (s->pid < 0) {
        s->pid = 0;
        return err_set(e, ERR_IO, "fork: %s", strerror(errno));
    }
    return 0;
}

bool own_server_ended(struct own_server *s)
{
    if (!s->pid || waitpid(s->pid, NULL, WNOHANG) != s->pid)
        return false;
    s->pid = 0;
    return true;
}

void own_server_stop(struct own_server *s)
{
    if (s->pid) {
        kill(s->pid, SIGTERM);
        kill(s->pid, SIGINT); /* a second signal: nobody waits for what still runs */
        waitpid(s->pid, NULL, 0);
    }
    if (s->folder[0]) {
        unlink(s->socket);
        rmdir(s->folder);
    }
}
