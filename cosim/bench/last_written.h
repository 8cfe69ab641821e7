// Made part of the compiled lane of the bridge: which bytes a read may give, as cosim/checks/last_written.py says.

#pragma once
#include <algorithm>

#include "axi.h"

namespace {

constexpr uint64_t OPEN = ~uint64_t{0};
constexpr unsigned IDS = 8;

// A burst from above. A write that was never answered, since there was a reset, has no end.
struct Transaction {
    axi::Address address;
    bool write, lawful, still = true;  // no byte changes
    unsigned page;
    uint64_t begin, end = OPEN, aw = OPEN, w = OPEN, epoch;
    bool absent, gone;  // when it began its page was not mapped; nor was it cached any more
    std::vector<axi::Beat> beats;
    std::vector<uint32_t> touched;
};

// The writes of each byte, and the bursts that are under way.
struct Book {
    struct Write {
        uint32_t transaction;
        uint8_t value;
    };
    explicit Book(size_t size) : history(size) {}

    std::deque<Transaction> transactions;
    std::array<std::deque<uint32_t>, IDS> reading, writing;
    uint64_t judged = 0, choices = 0;

    void touch(uint32_t number, uint64_t place, uint8_t value, uint64_t now) {
        auto &writes = history[place];
        if (!writes.empty() && writes.back().transaction == number) {
            writes.back().value = value;  // FIXED: the later beat counts
            return;
        }
        if (writes.size() > 24) forget(writes, now);
        writes.push_back({number, value});
        transactions[number].touched.push_back(static_cast<uint32_t>(place));
    }
    // A write was answered.
    void end(uint32_t number, uint64_t now, bool written) {
        Transaction &t = transactions[number];
        t.end = now;
        for (const uint32_t place : t.touched)
            if (auto &writes = history[place]; !written)
                writes.erase(std::remove_if(writes.begin(), writes.end(), [&](const Write &one) { return one.transaction == number; }), writes.end());
        t.beats.clear(), t.touched.clear();
    }
    // Whether a read that began then, and ends now, may give this.
    bool permitted(uint64_t place, uint8_t value, uint64_t begin) {
        uint64_t latest = 0;
        bool any = false;
        const auto &writes = history[place];
        for (const Write &one : writes)
            if (end_of(one) < begin) latest = std::max(latest, begin_of(one)), any = true;
        const uint64_t since = any ? std::min(begin, latest) : 0;
        unsigned found = !any;
        bool good = !any && value == 0;
        for (const Write &one : writes)
            if (end_of(one) >= since) ++found, good = good || one.value == value;
        ++judged;
        choices += found > 1;
        return good;
    }

private:
    uint64_t begin_of(const Write &one) const { return transactions[one.transaction].begin; }
    uint64_t end_of(const Write &one) const { return transactions[one.transaction].end; }
    // Drop what no read can give any more.
    void forget(std::vector<Write> &writes, uint64_t now) {
        uint64_t since = now, latest = 0;
        for (const auto &of_id : reading)
            for (const uint32_t number : of_id) since = std::min(since, transactions[number].begin);
        for (const Write &one : writes)
            if (end_of(one) < since) latest = std::max(latest, begin_of(one));
        const auto gone = [&](const Write &one) { return end_of(one) < latest && end_of(one) < since; };
        writes.erase(std::remove_if(writes.begin(), writes.end(), gone), writes.end());
    }

    std::vector<std::vector<Write>> history;
};

}  // namespace
