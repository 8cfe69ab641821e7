/*
 * Runs in a guest (kernel_times.py): how long a real kernel takes for soft-dirty tracking of so many pages of 4 KiB.
 *
 * Maps private memory, writes to each page, and then in rounds: 4 to clear_refs; a store to each page; the page map of all.
 * Of each round it prints the nanoseconds of the three, and how many pages were soft-dirty behind the clear, and behind the
 * stores.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define SOFT_DIRTY (1ULL << 55)
#define AT_ONCE 65536UL /* pages whose words are read at once */

static uint64_t words[AT_ONCE];

static void give_up(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* The page map of all pages: how many are soft-dirty. */
static unsigned long read_pagemap(int pagemap, unsigned long first, unsigned long pages)
{
    unsigned long dirty = 0;
    for (unsigned long done = 0; done < pages;) {
        unsigned long count = pages - done < AT_ONCE ? pages - done : AT_ONCE;
        ssize_t bytes = pread(pagemap, words, count * 8, (first + done) * 8);
        if (bytes <= 0)
            give_up("pagemap");
        for (ssize_t i = 0; i < bytes / 8; i++)
            dirty += (words[i] & SOFT_DIRTY) != 0;
        done += bytes / 8;
    }
    return dirty;
}

static void store(volatile char *memory, unsigned long pages)
{
    for (unsigned long i = 0; i < pages; i++)
        memory[i * PAGE] = 1;
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    unsigned long pages = strtoul(arguments[1], 0, 10), rounds = strtoul(arguments[2], 0, 10);
    char *memory = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        give_up("mmap");
    if (madvise(memory, pages * PAGE, MADV_NOHUGEPAGE) < 0)
        give_up("madvise");
    int clear = open("/proc/self/clear_refs", O_WRONLY), pagemap = open("/proc/self/pagemap", O_RDONLY);
    if (clear < 0 || pagemap < 0)
        give_up("/proc/self");
    store(memory, pages);
    for (unsigned long round = 0; round < rounds; round++) {
        int64_t before = now();
        if (pwrite(clear, "4", 1, 0) != 1)
            give_up("clear_refs");
        int64_t cleared = now();
        unsigned long left = read_pagemap(pagemap, (unsigned long)memory / PAGE, pages);
        int64_t storing = now();
        store(memory, pages);
        int64_t stored = now();
        unsigned long dirty = read_pagemap(pagemap, (unsigned long)memory / PAGE, pages);
        int64_t end = now();
        printf("%lld %lld %lld %lu %lu\n", (long long)(cleared - before), (long long)(stored - storing),
               (long long)(end - stored), left, dirty);
    }
    return 0;
}
