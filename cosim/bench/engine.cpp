// The compiled lane of a table engine: clock, commands and the memory behind its line port in compiled code, beside a
// Verilator model in the caller's process. Expected values come from elsewhere: here are memory and rules of the port.
//
// cosim/bench/engine_lane.py calls it. records.h, engine_records.h and engine_pins.h are made at each build. In each cycle
// all is driven, the inputs settle, all is sampled, then the clock rises.

#include <array>
#include <cstring>
#include <deque>
#include <vector>

#include "Vtop.h"
#include "clock.h"
#include "engine_pins.h"
#include "engine_records.h"
#include "words.h"

namespace {

constexpr uint64_t LATE = 20000;  // cycles without progress after which a command has timed out
constexpr unsigned TAGS = 128;

struct Random {
    uint64_t state;
    uint32_t draw() {
        uint64_t x = state += 0x9E3779B97F4A7C15u;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
        return static_cast<uint32_t>((x ^ (x >> 31)) >> 32);
    }
    bool happens(uint64_t threshold) { return threshold && draw() < threshold; }
};

struct Read {
    uint64_t address, line, link, tag;
};
struct Beat {
    uint64_t value, error, last, tag;
};
struct Swap {
    uint64_t address, line, old, new_, changed, last, tag;
};
struct Swapped {
    uint64_t done, error, tag;
};
struct Write {
    uint64_t address, value, strobes, last;
};
struct Receipt {
    uint64_t error;
};
struct Link {
    uint64_t start = 0, end = 0;  // none where they are equal
};

class Run {
public:
    Run(EngineBatch &batch, Vtop &model)
        : b(batch), top(model), words(batch), random{batch.seed}, report(reinterpret_cast<uint64_t *>(batch.report)),
          commands(reinterpret_cast<const EngineCommand *>(batch.commands)),
          completions(reinterpret_cast<EngineCompletion *>(batch.completions)),
          further(reinterpret_cast<EngineFurther *>(batch.further)) {}

    uint32_t go() {
        while (!status && next < b.command_count) {
            drive();
            clock_low(top);
            sample();
            clock_high(top);
            ++b.cycles;
            if (b.cycles - progress > LATE) status = EngineStatus::LATE;
        }
        pins::commands::set_valid(top, false);
        pins::completions::set_ready(top, false);
        return status;
    }

private:
    uint64_t due() { return b.cycles + b.latency + (b.latency_spread ? random.draw() % (b.latency_spread + 1) : 0); }

    // The place of what is answered next, of those that are due: any with a spread, else the oldest.
    template <class Queue>
    size_t chosen(const Queue &queue) {
        std::array<size_t, TAGS> ready;
        size_t count = 0;
        for (size_t at = 0; at < queue.size() && count < TAGS; ++at)
            if (queue[at].first <= b.cycles) ready[count++] = at;
        if (!count) return queue.size();
        return ready[b.latency_spread ? random.draw() % count : 0];
    }

    void drive() {
        pins::commands::put(top, commands[next]);
        pins::commands::set_valid(top, true);
        pins::completions::set_ready(top, true);
        pins::reads::set_ready(top, !random.happens(b.stalls));
        pins::swaps::set_ready(top, !random.happens(b.stalls));
        pins::writes::set_ready(top, !random.happens(b.stalls));
        drive_data();
        const size_t outcome = chosen(outcomes);
        pins::swapped::set_valid(top, outcome != outcomes.size());
        if (outcome != outcomes.size()) {
            pins::swapped::put(top, outcomes[outcome].second);
            busy[outcomes[outcome].second.tag] = false;
            outcomes.erase(outcomes.begin() + static_cast<long>(outcome));
        }
        const bool receipt = !receipts.empty() && receipts.front() <= b.cycles;
        pins::written::set_valid(top, receipt);
        if (receipt) {
            pins::written::put(top, Receipt{0});
            receipts.pop_front();
        }
    }

    void drive_data() {
        if (!left) {
            const size_t at = chosen(reads);
            if (at != reads.size()) {
                current = reads[at].second;
                reads.erase(reads.begin() + static_cast<long>(at));
                const uint64_t bytes = current.line ? b.line_bytes : 8;
                if (current.link) links[current.tag] = Link{current.address, current.address + bytes};
                left = bytes / 8;
            }
        }
        const bool sends = left && !random.happens(b.stalls);
        pins::data::set_valid(top, sends);
        if (!sends) return;
        --left;
        bool error;
        const uint64_t *const word = words.find(current.address, error);
        pins::data::put(top, Beat{word && !error ? *word : 0, error, !left, current.tag});
        current.address += 8;
        if (!left) busy[current.tag] = false;
    }

    // Whether a stream that waits is as it was; what it holds goes to `payload`.
    template <class T, class Same>
    bool stable(bool valid, bool ready, bool &waits, const T &before, Same same) {
        const bool kept = !waits || (valid && same(before));
        if (!kept) status = EngineStatus::UNSTABLE;
        waits = valid && !ready;
        return kept;
    }

    void sample() {
        const bool read = pins::reads::valid(top), swap = pins::swaps::valid(top), write = pins::writes::valid(top);
        stable(read, pins::reads::ready(top), read_waits, last_read, [&](const Read &r) { return pins::reads::same(top, r); });
        stable(swap, pins::swaps::ready(top), swap_waits, last_swap, [&](const Swap &s) { return pins::swaps::same(top, s); });
        stable(write, pins::writes::ready(top), write_waits, last_write, [&](const Write &w) { return pins::writes::same(top, w); });
        if (read) {
            pins::reads::get(top, last_read);
            if (!read_waits) take(last_read);
        }
        if (swap) {
            pins::swaps::get(top, last_swap);
            if (!swap_waits) take(last_swap);
        }
        if (write) {
            pins::writes::get(top, last_write);
            if (!write_waits) take(last_write);
        }
        if (pins::completions::valid(top)) {
            EngineCompletion told;
            pins::completions::get(top, told);
            progress = b.cycles;
            if (told.more) {
                if (pins::commands::ready(top)) status = EngineStatus::TAKEN_EARLY;
                if (b.further_count == b.further_room) status = EngineStatus::TOO_MANY;
                else further[b.further_count++] = EngineFurther{next, told.page, told.homeless};
                return;
            }
            completions[next] = told;
            if (!pins::commands::ready(top)) status = EngineStatus::NOT_TAKEN;
            if (left || !reads.empty() || !outcomes.empty() || !receipts.empty() || !swapping.empty() || !writing.empty())
                status = EngineStatus::EARLY;
            ++next;
        }
    }

    void begin(uint64_t tag) {
        if (tag >= TAGS || busy[tag]) {
            status = EngineStatus::TWO_IN_FLIGHT;
            return;
        }
        busy[tag] = true;
        progress = b.cycles;
    }

    void take(const Read &r) {
        if (r.address % (r.line ? b.line_bytes : 8)) status = EngineStatus::UNALIGNED;
        begin(r.tag);
        if (!status) reads.emplace_back(due(), r);
        ++b.reads;
    }

    void take(const Swap &s) {
        if (!swapping.empty() && (swapping[0].address != s.address || swapping[0].tag != s.tag)) status = EngineStatus::PARTED;
        swapping.push_back(s);
        if (!s.last || status) return;
        const uint64_t bytes = s.line ? b.line_bytes : 8;
        if (swapping.size() != bytes / 8) status = EngineStatus::PARTED;
        begin(s.tag);
        if (status) return;
        Link &link = links[s.tag];
        const bool done = link.start == s.address && link.end == s.address + bytes;
        link = Link{};
        bool any = false, refused = b.refused_start <= s.address && s.address < b.refused_end;
        for (size_t at = 0; at < swapping.size(); ++at) {
            const Swap &beat = swapping[at];
            if (!beat.changed) continue;
            any = true;
            bool error;
            uint64_t *const word = words.find(s.address + 8 * at, error);
            refused = refused || error || !word;
            if (!done || refused) continue;
            if (*word != beat.old) status = EngineStatus::OTHER_VALUE;
            *word = beat.new_;
            ++b.changed_words;
        }
        if (!any) status = EngineStatus::NOTHING_CHANGES;
        if (done) break_links(s.address, s.address + bytes);
        ++b.swaps;
        b.failed_swaps += !done;
        outcomes.emplace_back(due(), Swapped{done && !refused, refused, s.tag});
        swapping.clear();
    }

    void break_links(uint64_t start, uint64_t end) {
        for (Link &link : links)
            if (link.start < end && start < link.end) link = Link{};
    }

    void take(const Write &w) {
        if (w.strobes) {
            const uint64_t at = w.address + 8 * writing.size() - b.report_base;
            if (w.address < b.report_base || at >= b.report_bytes) status = EngineStatus::OUTSIDE;
            else report[at / 8] = w.value;
        }
        writing.push_back(w);
        if (!w.last) return;
        if (writing.size() != b.line_bytes / 8 || w.address % b.line_bytes) status = EngineStatus::PARTED;
        writing.clear();
        receipts.push_back(due());
        progress = b.cycles;
        ++b.writes;
    }

    EngineBatch &b;
    Vtop &top;
    const Words words;
    Random random;
    uint64_t *const report;
    const EngineCommand *const commands;
    EngineCompletion *const completions;
    EngineFurther *const further;
    uint32_t status = EngineStatus::COMPLETE;
    uint64_t next = 0, progress = 0, left = 0;
    Read current{}, last_read{};
    Swap last_swap{};
    Write last_write{};
    bool read_waits = false, swap_waits = false, write_waits = false;
    std::deque<std::pair<uint64_t, Read>> reads;
    std::deque<std::pair<uint64_t, Swapped>> outcomes;
    std::deque<uint64_t> receipts;
    std::vector<Swap> swapping;
    std::vector<Write> writing;
    std::array<Link, TAGS> links{};
    std::array<bool, TAGS> busy{};
};

// The model, in a time of its own: in a simulator's process there is another model, whose time goes on.
struct Engine {
    VerilatedContext context;
    Vtop top{&context};
};

}  // namespace

extern "C" {
uint64_t ptewalk_engine_size() { return sizeof(EngineBatch); }
void *ptewalk_engine_open() { return new Engine; }
void ptewalk_engine_close(void *engine) { delete static_cast<Engine *>(engine); }

// Commands one after the other, from a reset of four cycles.
int64_t ptewalk_engine_run(void *handle, void *batch) {
    Vtop &top = static_cast<Engine *>(handle)->top;
    EngineBatch &b = *static_cast<EngineBatch *>(batch);
    pins::commands::set_valid(top, false);
    pins::data::set_valid(top, false);
    pins::swapped::set_valid(top, false);
    pins::written::set_valid(top, false);
    for (int edge = 0; edge < 8; ++edge) {
        top.rst = 1;
        top.clk = edge & 1;
        top.eval();
    }
    top.rst = 0;
    top.clk = 0;
    top.eval();
    return Run(b, top).go();
}
}
