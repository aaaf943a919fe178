/* A clock that goes on by a microsecond whenever somebody looks at it, for benchmarks/instructions.py: under valgrind
   everything takes fifty times as long, and what depends on the time would do something else. */

#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static long long nanoseconds = 1000000000LL;
    (void)clock;
    nanoseconds += 1000;
    now->tv_sec = nanoseconds / 1000000000LL;
    now->tv_nsec = nanoseconds % 1000000000LL;
    return 0;
}
