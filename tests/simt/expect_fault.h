/* A test that a kernel is refused: runs it in a child and looks for the report. */
#ifndef GALLEY_TEST_EXPECT_FAULT_H
#define GALLEY_TEST_EXPECT_FAULT_H

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static inline void expect_fault(void (*run)(void *arg), void *arg, const char *report)
{
    int fd[2];
    ck_assert(!pipe(fd));
    fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (!child) {
        dup2(fd[1], 2);
        run(arg);
        _exit(0);
    }
    close(fd[1]);
    char text[2048];
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && (got = read(fd[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = 0;
    close(fd[0]);
    int status;
    waitpid(child, &status, 0);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "not refused: %s", text);
    ck_assert_msg(strstr(text, report) != NULL, "'%s' is not in: %s", report, text);
}

#endif
