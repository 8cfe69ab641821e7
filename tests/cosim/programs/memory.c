// What a program may ask of its memory: each line says what was seen, and a host says the same.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int seen;
static volatile long page;

static void handler(int number, siginfo_t *info, void *context) {
    (void)context;
    seen = number;
    page = (long)info->si_addr >> 12;
    printf("signal %d code %d\n", number, info->si_code);
    siglongjmp(back, 1);
}

static int deep(int n) {
    volatile char room[4096];
    room[n % 4096] = (char)n;
    return n ? deep(n - 1) + room[n % 4096] - (char)n : 0;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    char *at = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(at, 1, 64 * 4096);
    mprotect(at + 4096, 4096, PROT_READ);
    if (!sigsetjmp(back, 1)) at[4096 + 7] = 1;
    printf("page %ld\n", page - ((long)at >> 12));
    munmap(at + 8192, 4096);
    if (!sigsetjmp(back, 1)) printf("never %d\n", at[8192 + 9]);
    printf("page %ld\n", page - ((long)at >> 12));
    char *moved = mremap(at + 16 * 4096, 8 * 4096, 32 * 4096, MREMAP_MAYMOVE);
    printf("moved %d %d\n", moved[7 * 4096], moved[9 * 4096]);
    madvise(at + 4096 * 40, 4096, MADV_DONTNEED);
    printf("dropped %d\n", at[4096 * 40]);
    printf("deep %d\n", deep(500));
    char *before = sbrk(0);
    char *heap = sbrk(1 << 20);
    memset(heap, 3, 1 << 20);
    printf("heap %d %d\n", heap == before, heap[(1 << 20) - 1]);
    int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int private = 5, status;
    pid_t child = fork();
    if (!child) {
        *shared = 42;
        private = 6;
        heap[0] = 9;
        _exit(private);
    }
    waitpid(child, &status, 0);
    printf("child %d, shared %d, private %d, heap %d\n", WEXITSTATUS(status), *shared, private, heap[0]);
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int sum = 0;
    for (int i = 0; i < 20; i++) {
        memcpy(code, "\xb8\0\0\0\0\xc3", 6);  // mov eax, i; ret
        code[1] = (unsigned char)i;
        sum += ((int (*)(void))code)();
    }
    printf("code %d\n", sum);
    int ends[2];
    if (pipe(ends)) return 1;
    for (int i = 0; i < 20; i++) {  // by the kernel: read(2) into memory that was executed
        unsigned char fresh[6] = {0xb8, (unsigned char)i, 0, 0, 0, 0xc3};
        if (write(ends[1], fresh, 6) != 6 || read(ends[0], code, 6) != 6) return 1;
        sum += ((int (*)(void))code)();
    }
    printf("code by the kernel %d\n", sum);
    char *zeros = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int stale = 0;
    for (int i = 0; i < 64; i++) {  // a zero page that is cached for reading, broken by the kernel
        volatile char *page = zeros + i * 4096;
        stale += page[0] != 0;
        if (write(ends[1], "x", 1) != 1 || read(ends[0], (char *)page, 1) != 1) return 1;
        stale += page[0] != 'x';
    }
    printf("stale %d\n", stale);
    volatile int zero = 0, many = 7;
    if (!sigsetjmp(back, 1)) printf("never %d\n", many / zero);
    for (int round = 0; round < 40; round++) {  // frames are used again
        char *big = mmap(NULL, 256 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int page = 0; page < 256; page++) sum += big[page * 4096], big[page * 4096] = 1;
        munmap(big, 256 * 4096);
    }
    printf("sum %d, last signal %d\n", sum, seen);
    return 0;
}
