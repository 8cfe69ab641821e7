// A hash join: a table of orders is built by key, partition after partition, and probed by order lines.
//
//   join [ROWS]
//
// Sixty times it makes system call 0x70746577, between parts of the work.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MARKER 0x70746577
#define PARTS 30

struct order {
    uint32_t key, next, customer, lines;
    uint64_t total;
};

static uint32_t chance = 99;

static uint32_t draw(void) {
    chance = chance * 1664525u + 1013904223u;
    return chance >> 7;
}

static void *room(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) exit(1);
    return at;
}

int main(int argc, char **argv) {
    const uint32_t rows = argc > 1 ? (uint32_t)atoi(argv[1]) : 30000;
    uint32_t buckets = 1, used = 0;
    if (rows < PARTS) return 1;
    while (buckets < rows) buckets *= 2;
    uint32_t *const heads = room(buckets * sizeof *heads);
    struct order *const orders = room((rows + 1) * sizeof *orders);
    for (uint32_t part = 0; part < PARTS; part++) {
        for (uint32_t row = rows / PARTS * part; row < rows / PARTS * (part + 1); row++) {
            struct order *const o = &orders[++used];
            o->key = draw() % (4 * rows);
            o->customer = row % 997;
            uint32_t *const head = &heads[o->key * 2654435761u & (buckets - 1)];
            o->next = *head;
            *head = used;
        }
        syscall(MARKER);
    }
    uint64_t matches = 0, sum = 0;
    for (uint32_t part = 0; part < PARTS; part++) {
        for (uint32_t row = 0; row < 2 * rows / PARTS; row++) {
            const uint32_t key = draw() % (4 * rows), price = draw() % 1000;
            for (uint32_t at = heads[key * 2654435761u & (buckets - 1)]; at; at = orders[at].next) {
                if (orders[at].key != key) continue;
                orders[at].lines++;
                orders[at].total += price;
                matches++;
            }
        }
        syscall(MARKER);
    }
    for (uint32_t at = 1; at <= used; at++) sum = sum * 31 + orders[at].total * orders[at].lines;
    printf("%u orders, %llu lines, sum %016llx\n", used, (unsigned long long)matches, (unsigned long long)sum);
    return 0;
}
