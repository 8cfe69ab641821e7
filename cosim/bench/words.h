// Made part of each compiled lane: physical memory as model/memory.py exports it.

#pragma once
#include <cstdint>

namespace {

// The words of a sparse memory that Python made.
class Words {
public:
    template <class Batch>
    explicit Words(const Batch &b)
        : keys(reinterpret_cast<const uint64_t *>(b.keys)), rows(reinterpret_cast<const int32_t *>(b.rows)),
          words(reinterpret_cast<uint64_t *>(b.words)), limit(b.frame_limit), mask((uint64_t{1} << b.key_bits) - 1),
          shift(64 - b.key_bits), absent_is_error(!b.absent_is_zero) {}

    // The word at `address`, or null; `error` says that the bus refuses.
    uint64_t *find(uint64_t address, bool &error) const {
        const uint64_t frame = address >> 12;
        error = frame >= limit;
        if (error) return nullptr;
        for (uint64_t slot = (frame * 0x9E3779B97F4A7C15u) >> shift; keys[slot]; slot = (slot + 1) & mask)
            if (keys[slot] == frame + 1) return words + (static_cast<uint64_t>(rows[slot]) << 9) + ((address >> 3) & 511);
        error = absent_is_error;
        return nullptr;
    }

private:
    const uint64_t *const keys;
    const int32_t *const rows;
    uint64_t *const words;
    const uint64_t limit, mask, shift;
    const bool absent_is_error;
};

}  // namespace
