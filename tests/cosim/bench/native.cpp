// A native main on the same model, as one would write it by hand, beside the compiled lane: test_instructions.py counts the
// instructions of both. Arguments: plain|lane, number of requests. It prints the clock cycles.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "Vtop.h"
#include "pins.h"
#include "records.h"

extern "C" {
void *ptewalk_open();
void ptewalk_reset(void *);
int ptewalk_batch(void *, Batch *);
}

namespace {

constexpr uint64_t FRAMES = 64, P_RW_US_A_D = 0x67;

// Four levels of tables, each with four entries; every address is mapped.
std::vector<uint64_t> tables() {
    std::vector<uint64_t> words(FRAMES * 512);
    for (uint64_t frame = 1; frame < 5; ++frame)
        for (uint64_t index = 0; index < 4; ++index) words[frame * 512 + index] = ((frame + 1) << 12) | P_RW_US_A_D;
    return words;
}

std::vector<Request> requests(uint64_t count) {
    std::vector<Request> all(count);
    uint64_t x = 1;
    for (uint64_t i = 0; i < count; ++i) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        Request &r = all[i];
        r.linear = ((x >> 20) & 3) << 39 | ((x >> 22) & 3) << 30 | ((x >> 24) & 3) << 21 | ((x >> 26) & 3) << 12;
        r.root = 1;
        r.user = 1;
        r.tag = i & 255;
    }
    return all;
}

uint64_t plain(const std::vector<Request> &all, std::vector<uint64_t> &words) {
    VerilatedContext context;
    Vtop top(&context);
    uint64_t cycles = 0, next = 0, answered = 0, address = 0;
    bool pending = false;
    auto tick = [&] {
        top.clk = 0;
        top.eval();
    };
    top.rst = 1;
    for (int i = 0; i < 4; ++i) {
        tick();
        top.clk = 1;
        top.eval();
    }
    top.rst = 0;
    pins::contexts::put(top, all[0]);
    pins::contexts::set_valid(top, true);
    tick();
    top.clk = 1;
    top.eval();
    pins::contexts::set_valid(top, false);
    pins::responses::set_ready(top, true);
    pins::reads::set_ready(top, true);
    pins::swaps::set_ready(top, true);
    pins::faults::set_ready(top, true);
    struct { uint64_t address, id; } read{};
    while (answered < all.size()) {
        pins::requests::set_valid(top, next < all.size());
        if (next < all.size()) pins::requests::put(top, all[next]);
        pins::data::set_valid(top, pending);
        if (pending) {
            struct { uint64_t value; bool error; uint64_t id; } data{words[address >> 3], false, read.id};
            pins::data::put(top, data);
            pending = false;
        }
        tick();
        if (pins::requests::valid(top) && pins::requests::ready(top)) ++next;
        if (pins::responses::valid(top)) ++answered;
        if (pins::reads::valid(top)) {
            pins::reads::get(top, read);
            address = read.address;
            pending = true;
        }
        top.clk = 1;
        top.eval();
        ++cycles;
    }
    return cycles;
}

uint64_t lane(const std::vector<Request> &all, std::vector<uint64_t> &words) {
    constexpr unsigned BITS = 8;
    std::vector<uint64_t> keys(1 << BITS);
    std::vector<int32_t> rows(1 << BITS);
    for (uint64_t frame = 0; frame < FRAMES; ++frame) {
        uint64_t slot = (frame * 0x9E3779B97F4A7C15u) >> (64 - BITS);
        while (keys[slot]) slot = (slot + 1) & ((1 << BITS) - 1);
        keys[slot] = frame + 1;
        rows[slot] = static_cast<int32_t>(frame);
    }
    std::vector<Request> accepted(all.size());
    std::vector<Response> responses(all.size());
    std::vector<Translation> translations(all.size());
    Batch b{};
    b.requests = reinterpret_cast<uint64_t>(all.data());
    b.accepted_requests = reinterpret_cast<uint64_t>(accepted.data());
    b.responses = reinterpret_cast<uint64_t>(responses.data());
    b.translations = reinterpret_cast<uint64_t>(translations.data());
    b.keys = reinterpret_cast<uint64_t>(keys.data());
    b.rows = reinterpret_cast<uint64_t>(rows.data());
    b.words = reinterpret_cast<uint64_t>(words.data());
    b.request_count = all.size();
    b.key_bits = BITS;
    b.frame_limit = uint64_t{1} << 28;
    b.latency = 1;
    b.max_cycles = 100000;
    b.linger = 4;
    void *const model = ptewalk_open();
    ptewalk_reset(model);
    if (ptewalk_batch(model, &b) != 0 || b.response_count != all.size()) std::exit(3);
    return b.cycles;
}

}  // namespace

int main(int, char **argv) {
    const std::vector<Request> all = requests(std::strtoull(argv[2], nullptr, 10));
    std::vector<uint64_t> words = tables();
    std::printf("%llu\n", static_cast<unsigned long long>(std::strcmp(argv[1], "lane") ? plain(all, words) : lane(all, words)));
}
