/* LD_PRELOAD shim: fsync and fdatasync take at least FSYNC_MS milliseconds, as on an SD card. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static int slow(const char *name, int descriptor)
{
    struct timespec until;
    const char *text = getenv("FSYNC_MS");
    long ms = text ? atol(text) : 5;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ms * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    result = real(descriptor);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
        ;
    return result;
}

int fsync(int descriptor) { return slow("fsync", descriptor); }
int fdatasync(int descriptor) { return slow("fdatasync", descriptor); }
