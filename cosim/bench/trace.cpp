// The compiled lane of a trace: accesses by the million through an MMU that caches, counted, not logged; and the hooks by
// which Unicorn's accesses get into its buffer. cosim/bench/trace_lane.py calls it. records.h, pins.h, trace_pins.h and
// trace_records.h are made at each build. In each cycle all is driven, the inputs settle, all is sampled, then the clock rises.

#include <algorithm>
#include <array>
#include <vector>

#include "Vtop.h"
#include "clock.h"
#include "pins.h"
#include "records.h"
#include "trace_pins.h"
#include "trace_records.h"
#include "words.h"

namespace {

constexpr unsigned TAGS = 16;
constexpr uint64_t LATE = 100000;  // cycles without progress after which a request has timed out
constexpr unsigned KIND_SHIFT = 60;
constexpr uint64_t LINEAR = (uint64_t{1} << KIND_SHIFT) - 1;
constexpr uint64_t SUPERVISOR = 8;  // in a kind: the operating system's own access

struct Transfer {
    uint64_t address, old, new_, id;
};
struct Pending {
    uint64_t due;
    bool swaps;
    Transfer access;
};
struct Record {
    uint64_t address, value, id;
};
struct LogSetup {
    uint64_t mode, base, size, stalls, time_out, watermark, index;
};
constexpr bool LOGS = pins::record_writes::present;
constexpr LogSetup WHOLE_RING{1, 0, 18, 1, 0, 0, 0};  // where it lies counts for nothing: records are taken from the bus

// The dirty log as software has it: every record is read as it is there.
struct Log {
    bool set_up = !LOGS;
    std::vector<uint64_t> records;
    std::vector<uint64_t> unanswered;  // ids of writes
};

struct InFlight {
    bool flying = false, granted = false, stores = false, walked = false, last = false;
    uint64_t index = 0, reads = 0;
};

class Run {
public:
    Run(TraceBatch &batch, Vtop &model, Log &kept)
        : b(batch), top(model), log(kept), words(batch), accesses(reinterpret_cast<uint64_t *>(batch.accesses)),
          invalidations(reinterpret_cast<const TraceInvalidation *>(batch.invalidations)),
          last(reinterpret_cast<const Request *>(batch.last)), timings(reinterpret_cast<uint64_t *>(batch.timings)),
          total(batch.access_count + (batch.last ? 1 : 0)), offers_context(batch.context != 0) {}

    uint32_t go() {
        if (offers_context) pins::contexts::put(top, *reinterpret_cast<const Request *>(b.context));
        while (!status && !done()) {
            drive();
            clock_low(top);
            sample();
            clock_high(top);
            ++cycle;
            if (cycle - progress > LATE) status = answered() ? TraceStatus::MISSING_RECORD : TraceStatus::LATE_ANSWER;
        }
        b.logged = reinterpret_cast<uint64_t>(log.records.data());
        b.logged_count = log.records.size();
        pins::requests::set_valid(top, false);
        pins::contexts::set_valid(top, false);
        pins::invalidations::set_valid(top, false);
        pins::retired::set_valid(top, false);
        b.cycles += cycle;
        b.stopped = stopped;
        put_back();
        return status;
    }

private:
    bool done() const { return answered() && (!LOGS || (log.records.size() == b.marks && log.unanswered.empty())); }

    bool answered() const {
        return (stopped || next == total) && !offering && !flying && !granted && pending.empty() && !offers_context &&
               invalidation == b.invalidation_count;
    }

    // What did not succeed stands right before what was not asked, in the order of the trace.
    void put_back() {
        std::vector<uint64_t> again;
        for (const uint64_t at : failed)
            if (at < b.access_count) again.push_back(accesses[at]);
        b.done = std::min<uint64_t>(next, b.access_count) - again.size();
        std::copy(again.begin(), again.end(), accesses + b.done);
    }

    void drive() {
        answer_memory();
        if (LOGS) drive_log();
        if (!offering && next < total && !stopped && !offers_context && log.set_up && invalidation == b.invalidation_count && flying < b.outstanding) offer();
        if (!offers_context && invalidation < b.invalidation_count) pins::invalidations::put(top, invalidations[invalidation]);
        pins::requests::set_valid(top, offering);
        pins::contexts::set_valid(top, offers_context);
        pins::invalidations::set_valid(top, !offers_context && invalidation < b.invalidation_count);
        retire();
        pins::responses::set_ready(top, true);
        pins::reads::set_ready(top, true);
        pins::swaps::set_ready(top, true);
        pins::faults::set_ready(top, true);
    }

    void drive_log() {
        pins::setups::put(top, WHOLE_RING);
        pins::setups::set_valid(top, !log.set_up);
        pins::log::set_head(top, log.records.size() & 0x7FFFF);
        pins::log::set_epoch(top, b.epoch);
        pins::record_writes::set_ready(top, true);
        pins::record_written::set_valid(top, !log.unanswered.empty());
        if (log.unanswered.empty()) return;
        struct { bool error; uint64_t id; } answer{false, log.unanswered.front()};
        log.unanswered.erase(log.unanswered.begin());
        pins::record_written::put(top, answer);
    }

    void sample_log() {
        if (!log.set_up) log.set_up = pins::setups::ready(top);
        if (!pins::record_writes::valid(top)) return;
        Record r{};
        pins::record_writes::get(top, r);
        log.records.push_back(r.value);
        log.unanswered.push_back(r.id);
        if (log.records.size() > b.marks) status = TraceStatus::STRAY_RECORD;
        progress = cycle;
    }

    void offer() {
        for (unsigned tried = 0; tried < TAGS; ++tried) {
            const unsigned at = (tag + 1 + tried) % TAGS;
            if (tags[at].flying || tags[at].granted) continue;
            tag = at;
            Request r{};
            if (next == b.access_count) {
                r = *last;
            } else {
                const uint64_t kind = accesses[next] >> KIND_SHIFT;
                r.linear = accesses[next] & LINEAR;
                r.access = static_cast<uint8_t>(kind & ~SUPERVISOR);
                r.user = !(kind & SUPERVISOR);
                r.ac = !r.user;
            }
            r.tag = at;
            stores = r.access == Access::WRITE || r.access == Access::RMW;
            pins::requests::put(top, r);
            offering = true;
            return;
        }
    }

    void retire() {
        pins::retired::set_valid(top, false);
        for (unsigned at = 0; granted && at < TAGS; ++at) {
            if (!tags[at].granted) continue;
            struct { uint64_t tag; } gone{at};
            pins::retired::put(top, gone);
            pins::retired::set_valid(top, true);
            tags[at].granted = false;
            --granted;
            return;
        }
    }

    void answer_memory() {
        pins::data::set_valid(top, false);
        pins::swapped::set_valid(top, false);
        bool reads = false, swaps = false;
        for (size_t at = 0; at < pending.size();) {
            const Pending p = pending[at];
            if (p.due > cycle || (p.swaps ? swaps : reads)) {
                ++at;
                continue;
            }
            pending.erase(pending.begin() + static_cast<long>(at));
            bool error;
            uint64_t *const word = words.find(p.access.address, error);
            if (p.swaps) {
                swaps = true;
                const bool done = !error && word && *word == p.access.old;
                if (done) {
                    b.marks += (*word ^ p.access.new_) >> b.soft_dirty_bit & 1;
                    b.mends += (*word ^ p.access.new_) >> 1 & 1;
                    *word = p.access.new_;
                }
                struct { bool done, error; uint64_t id; } answer{done, error, p.access.id};
                pins::swapped::put(top, answer);
                pins::swapped::set_valid(top, true);
            } else {
                reads = true;
                struct { uint64_t value; bool error; uint64_t id; } answer{error || !word ? 0 : *word, error, p.access.id};
                pins::data::put(top, answer);
                pins::data::set_valid(top, true);
            }
        }
    }

    void sample() {
        if (offering && pins::requests::ready(top)) {
            InFlight &t = tags[tag];
            t = InFlight{};
            t.flying = true;
            t.index = next;
            t.stores = stores;
            ++flying;
            if (timings && next < b.access_count) timings[2 * next] = cycle;
            ++next;
            offering = false;
            progress = cycle;
        }
        if (offers_context && pins::contexts::ready(top)) {
            offers_context = false;
            progress = cycle;
        } else if (!offers_context && invalidation < b.invalidation_count && pins::invalidations::ready(top)) {
            ++invalidation;
            progress = cycle;
        }
        if (pins::walked::valid(top)) {
            Walked w{};
            pins::walked::get(top, w);
            if (w.tag < TAGS) tags[w.tag].walked = true;
            ++b.walks;
            uint64_t &reads = walk_reads[pins::walker::get(top)];
            ++b.walks_of_reads[std::min<uint64_t>(reads, 7)];
            reads = 0;
        }
        sample_memory();
        if (LOGS) sample_log();
        sample_response();
    }

    void sample_memory() {
        Transfer access{};
        if (pins::reads::valid(top)) {
            pins::reads::get(top, access);
            pending.push_back({cycle + b.latency, false, access});
            ++b.reads;
            ++walk_reads[access.id & pins::WALKER_MASK];
            progress = cycle;
        }
        if (pins::swaps::valid(top)) {
            pins::swaps::get(top, access);
            pending.push_back({cycle + b.latency, true, access});
            ++b.swaps;
            progress = cycle;
        }
    }

    void sample_response() {
        if (!pins::responses::valid(top)) return;
        Response r{};
        pins::responses::get(top, r);
        if (r.tag >= TAGS || !tags[r.tag].flying) {
            status = TraceStatus::STRAY_ANSWER;
            return;
        }
        InFlight &t = tags[r.tag];
        t.flying = false;
        --flying;
        progress = cycle;
        if (timings && t.index < b.access_count) timings[2 * t.index + 1] = cycle;
        if (r.outcome == Outcome::OK) {
            ++b.answered;
            if (!t.walked) ++b.hits_of_level[r.level & 7];
            if (t.stores) {
                t.granted = true;
                ++granted;
            }
        } else {
            stopped = true;
            size_t at = failed.size();
            failed.push_back(t.index);
            for (; at && failed[at - 1] > t.index; --at) std::swap(failed[at], failed[at - 1]);
        }
        if (t.index == b.access_count || (r.outcome != Outcome::OK && failed.front() == t.index)) {
            b.outcome = r.outcome;
            b.code = r.code;
            b.physical = r.physical;
            b.level = r.level;
            b.pwt = r.pwt;
            b.pcd = r.pcd;
            b.pat = r.pat;
        }
    }

    TraceBatch &b;
    Vtop &top;
    Log &log;
    const Words words;
    uint64_t *const accesses;
    const TraceInvalidation *const invalidations;
    const Request *const last;
    uint64_t *const timings;
    const uint64_t total;
    uint32_t status = 0;
    uint64_t cycle = 0, progress = 0, next = 0, flying = 0, granted = 0, invalidation = 0, walk_reads[pins::WALKER_MASK + 1] = {};
    unsigned tag = 0;
    bool offers_context, offering = false, stopped = false, stores = false;
    std::vector<Pending> pending;
    std::vector<uint64_t> failed;
    std::array<InFlight, TAGS> tags{};
};

struct Lane {
    VerilatedContext context;
    Vtop top{&context};
    Log log;
};

// What Unicorn's hooks write to.
inline void keep(TraceRecorder &r, uint64_t kind, uint64_t linear) {
    if (r.missed[kind] == linear >> 12) {  // the access for which the processor's TLB was filled: it was asked then
        r.missed[kind] = ~uint64_t{0};
        return;
    }
    if (r.count == r.capacity) reinterpret_cast<void (*)()>(r.full)();
    reinterpret_cast<uint64_t *>(r.buffer)[r.count++] = kind << KIND_SHIFT | linear;
}

inline void keep_all(TraceRecorder &r, uint64_t kind, uint64_t linear, uint64_t size) {
    keep(r, kind, linear);
    const uint64_t end = linear + size - 1;
    if (size && (linear ^ end) >> 12) keep(r, kind, end & ~uint64_t{4095});
}

}  // namespace

extern "C" {
bool ptewalk_trace_logs() { return LOGS; }
uint64_t ptewalk_trace_size() { return sizeof(TraceBatch); }
void *ptewalk_trace_open() { return new Lane; }
void ptewalk_trace_close(void *lane) { delete static_cast<Lane *>(lane); }

void ptewalk_trace_reset(void *handle) {
    Lane &lane = *static_cast<Lane *>(handle);
    for (int edge = 0; edge < 8; ++edge) {
        lane.top.rst = 1;
        lane.top.clk = edge & 1;
        lane.top.eval();
    }
    lane.top.rst = 0;
    lane.top.clk = 0;
    lane.top.eval();
}

int64_t ptewalk_trace_run(void *handle, void *batch) {
    Lane &lane = *static_cast<Lane *>(handle);
    return Run(*static_cast<TraceBatch *>(batch), lane.top, lane.log).go();
}

// UC_HOOK_MEM_READ and UC_HOOK_MEM_WRITE: Unicorn tells the physical address; the frame's page is where it was last filled.
void ptewalk_trace_memory(void *, int type, uint64_t physical, int size, int64_t, void *user) {
    TraceRecorder &r = *static_cast<TraceRecorder *>(user);
    const uint64_t frame = physical >> 12;
    if (frame >= r.frames) return;
    const uint64_t linear = reinterpret_cast<const uint64_t *>(r.pages)[frame] << 12 | (physical & 4095);
    keep_all(r, type == 17 ? Access::WRITE : Access::READ, linear, static_cast<uint64_t>(size));
}

// UC_HOOK_CODE.
void ptewalk_trace_code(void *, uint64_t linear, uint32_t size, void *user) {
    TraceRecorder &r = *static_cast<TraceRecorder *>(user);
    ++r.instructions;
    keep_all(r, Access::FETCH, linear, size);
}

// UC_HOOK_CODE, where instructions are counted and nothing else.
void ptewalk_trace_count(void *, uint64_t, uint32_t, void *user) { ++*static_cast<uint64_t *>(user); }
}
