/* A worker that costs nothing: tells a Unix datagram socket when it came to main(), and sleeps until SIGTERM.
 *
 *     sleeper SOCKET NAME [stubborn | tree FILE | flood]
 *
 * A datagram is "NAME PID NANOSECONDS FIGURE" (CLOCK_MONOTONIC, the same in every process).
 *   stubborn: does not hear SIGTERM.
 *   tree:     first counts those in FILE that still live (its FIGURE), then double-forks 51 others, each in a session of its
 *             own, and leaves their pids in FILE. They hold standard output open, as a careless daemon does.
 *   flood:    at each SIGUSR1 prints 100 MB in lines through stdio, then tells the nanoseconds that it took (its FIGURE).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TREE = 51, LINE = 100, LINES = 1000000 };

static long long now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void leave(int number)
{
    (void)number;
    _exit(0);
}

static void tell(const char *path, const char *name, long long at, long long figure)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    char text[256];
    int size = snprintf(text, sizeof text, "%s %d %lld %lld", name, (int)getpid(), at, figure);
    int channel = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    /* Waits where the queue is full; the moment has been taken before. */
    sendto(channel, text, (size_t)size, 0, (struct sockaddr *)&to, sizeof to);
    close(channel);
}

/* Neither gone nor a zombie. */
static int lives(int pid)
{
    char path[64], text[512], *end;
    int file;
    ssize_t size;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    size = read(file, text, sizeof text - 1);
    close(file);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    end = strrchr(text, ')');
    return end != NULL && end[2] != 'Z' && end[2] != 'X';
}

static int living(const char *path)
{
    FILE *file = fopen(path, "re");
    int pid, found = 0;

    if (file == NULL)
        return 0;
    while (fscanf(file, "%d", &pid) == 1)
        found += lives(pid);
    fclose(file);
    return found;
}

static void grow(const char *path)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);

    for (int number = 0; number < TREE; number++) {
        pid_t between = fork(), daemon;

        if (between == 0) {
            setsid();
            daemon = fork();
            if (daemon == 0) {
                setsid();
                for (;;)
                    pause();
            }
            dprintf(file, "%d\n", (int)daemon);
            _exit(0);
        }
        waitpid(between, NULL, 0);
    }
    close(file);
}

static void flood(void)
{
    char line[LINE + 1];

    memset(line, 'f', LINE - 1);
    line[LINE - 1] = '\n';
    line[LINE] = '\0';
    for (int number = 0; number < LINES; number++)
        fputs(line, stdout);
    fflush(stdout);
}

int main(int count, char **words)
{
    long long began = now(), figure = 0;
    const char *manner = count > 3 ? words[3] : "";
    sigset_t asked;

    if (count < 3)
        return 2;
    sigemptyset(&asked);
    sigaddset(&asked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &asked, NULL);
    signal(SIGTERM, strcmp(manner, "stubborn") == 0 ? SIG_IGN : leave);
    if (strcmp(manner, "tree") == 0 && count > 4) {
        figure = living(words[4]);
        grow(words[4]);
    }
    tell(words[1], words[2], began, figure);
    for (;;) {
        int number;

        if (sigwait(&asked, &number) == 0 && strcmp(manner, "flood") == 0) {
            began = now();
            flood();
            figure = now() - began;
            tell(words[1], words[2], now(), figure);
        }
    }
}
