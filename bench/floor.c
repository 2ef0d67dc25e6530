/* The least that a supervisor can be: `floor COUNT PROGRAM ARG...` keeps COUNT of them running, until SIGTERM.
 *
 * vfork, exec, waitpid and nothing else. Signals are blocked from before the vfork until the child's number is noted, so a
 * SIGTERM misses nobody and no handler runs in the child, which has the parent's memory; the child gets the mask back.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 1000 };

static pid_t children[MOST];

static void leave(int number)
{
    (void)number;
    for (int each = 0; each < MOST; each++)
        if (children[each] > 0)
            kill(children[each], SIGKILL);
    _exit(0);
}

static void spawn(volatile pid_t *child, char **command)
{
    sigset_t all, before;
    pid_t pid;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid = vfork();
    if (pid == 0) {
        signal(SIGTERM, SIG_DFL);
        sigprocmask(SIG_SETMASK, &before, NULL);
        execv(command[0], command);
        _exit(127);
    }
    *child = pid;
    sigprocmask(SIG_SETMASK, &before, NULL);
}

int main(int words, char **word)
{
    int count = words > 2 ? atoi(word[1]) : 0, status;

    if (count < 1 || count > MOST)
        return 2;
    signal(SIGTERM, leave);
    for (int each = 0; each < count; each++)
        spawn(&children[each], word + 2);
    for (;;) {
        pid_t ended = waitpid(-1, &status, 0);

        if (ended < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 127))
            leave(SIGTERM);
        for (int each = 0; each < count; each++)
            if (children[each] == ended)
                spawn(&children[each], word + 2);
    }
}
