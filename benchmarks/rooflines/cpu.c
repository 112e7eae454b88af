/* What the CPU can do, without torch in the way: read a working set over and over, and meet at a barrier.
 * Compiled when the benchmark runs; see cpu.py. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() __asm__ volatile("" ::: "memory")
#endif

enum { WIDTH = 16, CHAINS = 8, MOST_THREADS = 256 };
typedef float vector __attribute__((vector_size(4 * WIDTH)));

typedef struct {
    const vector *data; /* this thread's slice */
    size_t vectors;     /* a multiple of CHAINS */
    long repeats;
    int threads;
    long *arrived;
    float sink;
} Task;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void meet(long *arrived, long target) {
    __atomic_add_fetch(arrived, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(arrived, __ATOMIC_ACQUIRE) < target) PAUSE();
}

static void *read_slice(void *argument) {
    Task *task = argument;
    vector sums[CHAINS] = {0};
    meet(task->arrived, task->threads);
    for (long repeat = 0; repeat < task->repeats; repeat++) {
        for (size_t v = 0; v < task->vectors; v += CHAINS)
            for (int c = 0; c < CHAINS; c++) sums[c] += task->data[v + c];
        __asm__ volatile("" ::: "memory"); /* read again, don't reuse */
    }
    for (int c = 0; c < CHAINS; c++) task->sink += sums[c][0];
    return 0;
}

static void *wait_often(void *argument) {
    Task *task = argument;
    for (long repeat = 1; repeat <= task->repeats + 1; repeat++) meet(task->arrived, repeat * task->threads);
    return 0;
}

static double run(void *(*body)(void *), Task *tasks, int threads) {
    pthread_t others[MOST_THREADS];
    for (int i = 1; i < threads; i++) pthread_create(&others[i], 0, body, &tasks[i]);
    double start = now();
    body(&tasks[0]);
    double seconds = now() - start;
    for (int i = 1; i < threads; i++) pthread_join(others[i], 0);
    return seconds;
}

/* Seconds for `threads` threads to read `bytes`, split between them, `repeats` times. */
double read_repeatedly(size_t bytes, long repeats, int threads) {
    static _Alignas(64) long arrived;
    Task tasks[MOST_THREADS] = {0};
    size_t each = bytes / threads / sizeof(vector) / CHAINS * CHAINS;
    vector *data = aligned_alloc(4096, (threads * each * sizeof(vector) + 4095) / 4096 * 4096);
    for (size_t i = 0; i < threads * each * WIDTH; i++) ((float *)data)[i] = 1e-9f * i;
    arrived = 0;
    for (int i = 0; i < threads; i++) tasks[i] = (Task){data + i * each, each, repeats, threads, &arrived, 0};
    double seconds = run(read_slice, tasks, threads);
    free(data);
    return seconds;
}

/* Seconds for `threads` threads to meet `repeats` times. */
double meet_repeatedly(long repeats, int threads) {
    static _Alignas(64) long arrived;
    Task tasks[MOST_THREADS] = {0};
    arrived = 0;
    for (int i = 0; i < threads; i++) tasks[i] = (Task){0, 0, repeats, threads, &arrived, 0};
    return run(wait_often, tasks, threads);
}
