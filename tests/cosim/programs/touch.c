// Eight pages: each is read three times (the zero page, then), and page k is stored to k + 1 times.
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>

int main(void) {
    volatile char *at = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int sum = 0;
    for (int round = 0; round < 3; round++)
        for (int page = 0; page < 8; page++) sum += at[page * 4096];
    for (int page = 0; page < 8; page++)
        for (int store = 0; store <= page; store++) at[page * 4096 + store] = 1;
    printf("%p %d\n", (void *)at, sum);
    return 0;
}
