// The compiled lane of an MMU with a table engine: clock, stores, software and memory in compiled code, beside a Verilator
// model in the caller's process. What happened is one log, which cosim/checks/mmu_engine.py judges.
//
// cosim/bench/mmu_engine_lane.py calls it. mmu_engine_records.h and mmu_engine_pins.h are made at each build. In each cycle
// all is driven, the inputs settle, all is sampled, then the clock rises.

#include <cstring>
#include <iterator>
#include <map>
#include <vector>

#include "Vtop.h"
#include "clock.h"
#include "mmu_engine_records.h"
#include "axi.h"
#include "mmu_engine_pins.h"

namespace {

AXI_MANAGER_OF_DESIGN(Bus, m_axi)

constexpr uint64_t LATE = 30000;  // cycles without progress after which all is over
constexpr uint64_t SETTLED = 64;  // cycles in which nothing happens, at the end
constexpr size_t TAGS = 16;

struct Request {
    uint64_t linear, access, user, implicit, ac, tag;
};
struct Response {
    uint64_t outcome, code, physical, level, pwt, pcd, pat, tag;
};
struct Tag {
    uint64_t tag;
};
struct Context {
    uint64_t root, control, pkru, pkrs, track, saved_dirty, pcid, keep;
};
struct Invalidation {
    uint64_t kind, linear, pcid, wait;
};
struct LogSetup {
    uint64_t mode, base, size, stalls, time_out, watermark, index;
};
struct InFlight {
    bool flying = false, granted = false;
    uint64_t store = 0, due = 0;
};

using Log = std::vector<TrackEvent>;

// Place in `TrackBins::entries` of an entry of level 1.
unsigned kind_of(uint64_t entry, uint64_t swap_soft_dirty) {
    if (!entry) return 0;
    if (entry & ENTRY_P) return (entry & ENTRY_RW ? 1 : 3) + !!(entry & ENTRY_SD);
    return entry & ENTRY_PROT_NONE ? 5 + !!(entry & ENTRY_SD) : 7 + !!(entry & swap_soft_dirty);
}

// A memory that tells each word of tables that a swap changed, before it does, and counts what lines of the engine hold.
class Tables : public axi::Memory<Bus> {
public:
    Tables(size_t size, uint64_t report_base, Log &log, const uint64_t &cycle) : Memory(0, size), log(log), cycle(cycle), report_base(report_base) {}
    TrackBins *bins = nullptr;  // of the command that is under way
    uint64_t line_ids = 0, swap_soft_dirty = 0, leaf_tables = 0;
    uint64_t swaps = 0, record_errors = 0;  // plain writes from there on are refused

protected:
    uint32_t about(const Burst &one, bool writes) override {
        before.clear();
        if (writes && record_errors && !one.address.lock && one.address.addr >= record_errors) return axi::SLVERR;
        if (writes)
            for (const uint64_t at : axi::addresses(one.address)) before.push_back(word(at & ~uint64_t{7}));
        return axi::OKAY;
    }
    void done(const Burst &one, bool writes, uint32_t resp) override {
        if (bins && one.address.id < line_ids && one.address.addr >= leaf_tables) count(one, writes, resp);
        if (!writes || resp != (one.address.lock ? axi::EXOKAY : axi::OKAY)) return;
        swaps += one.address.lock;
        const auto places = axi::addresses(one.address);
        for (size_t i = 0; i < places.size(); ++i)
            if (one.beats[i].strb) log.push_back({cycle, one.address.lock ? TrackKind::SWAP : TrackKind::WRITE, places[i], before[i], one.beats[i].data[0]});
    }

private:
    void count(const Burst &one, bool writes, uint32_t resp) {
        const auto places = axi::addresses(one.address);
        auto &read = seen[one.address.id];
        if (!writes) {
            read.clear();
            for (const uint64_t at : places) {
                read.push_back(word(at & ~uint64_t{7}));
                ++bins->entries[kind_of(read.back(), swap_soft_dirty)];
            }
        }
        if (!writes || !one.address.lock || read.size() != places.size()) return;
        uint64_t changed = 0;
        for (size_t i = 0; i < places.size(); ++i) {
            changed |= read[i] ^ before[i];
            if (one.beats[i].strb) ++(resp == axi::EXOKAY ? bins->done : bins->failed)[kind_of(read[i], swap_soft_dirty)];
        }
        if (resp == axi::EXOKAY) return;
        uint64_t named = 0;
        for (size_t what = 0; what < std::size(CHANGES); ++what) {
            bins->changed[what] += !!(changed & CHANGES[what]);
            named |= CHANGES[what];
        }
        bins->changed[0] += !changed;
        bins->changed[std::size(CHANGES) - 1] += !!(changed & ~named);
    }

    Log &log;
    const uint64_t &cycle;
    const uint64_t report_base;
    std::vector<uint64_t> before;
    std::map<uint64_t, std::vector<uint64_t>> seen;  // by ID, the line as it was read last
};

class Run {
public:
    Run(TrackBatch &batch, Vtop &model, Log &events)
        : b(batch), top(model), log(events), random{batch.seed}, stores(reinterpret_cast<const TrackStore *>(batch.stores)),
          steps(reinterpret_cast<const TrackStep *>(batch.steps)), commands(reinterpret_cast<const TrackCommand *>(batch.commands)),
          completions(reinterpret_cast<TrackCompletion *>(batch.completions)), memory(batch.memory_bytes, 0, events, cycle) {
        std::memcpy(memory.bytes.data(), reinterpret_cast<const void *>(b.memory), b.memory_bytes);
        memory.manner.latency = b.latency;
        memory.manner.latency_spread = b.latency_spread;
        memory.manner.mixed = b.latency_spread != 0;
        memory.manner.stalls.fill(b.stalls);
        memory.line_ids = b.line_ids, memory.swap_soft_dirty = b.swap_soft_dirty, memory.leaf_tables = b.leaf_tables;
    }

    uint32_t go() {
        while (!status && cycle - progress < (over() ? SETTLED : LATE)) {
            drive();
            clock_low(top);
            sample();
            clock_high(top);
            ++cycle;
        }
        if (!status && !over()) status = TrackStatus::LATE;
        std::memcpy(reinterpret_cast<void *>(b.memory), memory.bytes.data(), b.memory_bytes);
        b.cycles = cycle;
        b.step = step;
        return status;
    }

private:
    bool over() const { return step == b.step_count && next == b.store_count && !offering && !outstanding && !active && !waiting && memory.quiet(); }
    void tell(uint64_t kind, uint64_t a = 0, uint64_t c = 0, uint64_t d = 0) {
        log.push_back({cycle, kind, a, c, d});
        progress = cycle;
    }

    void drive() {
        memory.drive(top, random, cycle);
        drive_software();
        if (!offering && next < b.store_count && stores[next].after <= step && !random.happens(b.idle)) {
            for (size_t tag = 0; tag < TAGS && !offering; ++tag)
                if (!flights[tag].flying && !flights[tag].granted) {
                    offering = true;
                    offered = Request{stores[next].linear, stores[next].access, 1, 0, 0, tag};
                }
        }
        if (offering) pins::requests::put(top, offered);
        pins::requests::set_valid(top, offering);
        pins::responses::set_ready(top, !random.happens(b.stalls));
        pins::faults::set_ready(top, true);
        retiring = TAGS;
        const size_t first = random.below(TAGS);
        for (size_t i = 0; i < TAGS && retiring == TAGS; ++i) {
            const InFlight &one = flights[(first + i) % TAGS];
            if (one.granted && one.due <= cycle && stores[one.store].retires_after <= step) retiring = (first + i) % TAGS;
        }
        pins::retired::set_valid(top, retiring != TAGS);
        pins::retired::put(top, Tag{retiring % TAGS});
        if (active) pins::table_commands::put(top, given);
        pins::table_commands::set_valid(top, active);
        pins::table_completions::set_ready(top, !random.happens(b.stalls));
        const uint64_t done_with = (tail - lag) & 0x7FFFF;
        if (head != done_with && random.happens(reads_log)) {
            head = done_with;
            tell(TrackKind::HEAD, head);
        }
        pins::log::set_head(top, head);
        pins::log::set_epoch(top, parity);
    }

    // Steps that take no time are done; one that waits stays.
    void drive_software() {
        bool invalidates = false, changes = false, sets_up = false;
        pins::log::clear(top, false);
        while (step < b.step_count) {
            const TrackStep &one = steps[step];
            switch (one.kind) {
            case TrackOp::WRITE: memory.set_word(one.a, one.b); break;
            case TrackOp::XOR:
                if (memory.word(one.a)) memory.set_word(one.a, memory.word(one.a) ^ one.b);
                break;
            case TrackOp::COPY:
                for (uint64_t at = 0; at < 4096; at += 8) memory.set_word(one.b + at, memory.word(one.a + at));
                break;
            case TrackOp::FREE: tell(TrackKind::FREED, one.a); break;
            case TrackOp::REUSE: tell(TrackKind::REUSED, one.a); break;
            case TrackOp::COMMAND:
                if (active) goto waits;
                active = true;
                command = one.a;
                given = commands[command];
                memory.bins = reinterpret_cast<TrackBins *>(b.bins) + command;
                if (pins::list::asked(given)) {
                    pins::list::set(given, head, (tail - head) & 0x7FFFF);
                    tell(TrackKind::COMMAND, command, head, (tail - head) & 0x7FFFF);
                } else {
                    tell(TrackKind::COMMAND, command);
                }
                break;
            case TrackOp::PAUSE:
                if (!pausing) pausing = cycle + one.a + 1;
                progress = cycle;
                if (cycle < pausing) goto waits;
                pausing = 0;
                break;
            case TrackOp::AWAIT_DONE:
                if (active) goto waits;
                break;
            case TrackOp::AWAIT_COMPLETE:
                if (waiting) goto waits;
                break;
            case TrackOp::AWAIT_SWAPS:
                if (active && memory.swaps < one.a) goto waits;
                break;
            case TrackOp::AWAIT_GRANTS:
                if (grants < one.a && (next < b.store_count || offering || outstanding)) goto waits;
                break;
            case TrackOp::INVALIDATE:
                pins::invalidations::put(top, Invalidation{one.a, one.b, one.c, one.d});
                invalidates = true;
                goto waits;
            case TrackOp::CONTEXT:
                pins::contexts::put(top, Context{one.a, one.b, 0, 0, one.c, 0, one.d, 0});
                changes = true;
                goto waits;
            case TrackOp::LOG:
                pins::setups::put(top, LogSetup{one.a & 3, one.b, one.a >> 2 & 31, one.a >> 7 & 1, one.c, one.d, one.a >> 8});
                sets_up = true;
                goto waits;
            case TrackOp::HEAD:
                head = one.a;
                tell(TrackKind::HEAD, head);
                break;
            case TrackOp::READ_LOG: reads_log = one.a, lag = one.b; break;
            case TrackOp::EPOCH: parity = one.a; break;
            case TrackOp::CLEAR_LOG: pins::log::clear(top, true); break;
            case TrackOp::ERRORS: memory.record_errors = one.a; break;
            default: status = TrackStatus::BAD; goto waits;
            }
            ++step;
        }
    waits:
        pins::invalidations::set_valid(top, invalidates);
        pins::contexts::set_valid(top, changes);
        pins::setups::set_valid(top, sets_up);
        this->invalidates = invalidates, this->changes = changes, this->sets_up = sets_up;
    }

    void sample() {
        const size_t told = log.size();
        memory.sample(top, random, cycle);
        if (log.size() != told) progress = cycle;
        if (!memory.trouble.empty()) status = TrackStatus::BUS;
        if (changes && pins::contexts::ready(top)) ++step;
        if (sets_up && pins::setups::ready(top)) {
            ++step;
            tell(TrackKind::SET_UP, step - 1);
        }
        const uint64_t now = pins::log::tail(top), flags = pins::log::flags(top);
        if (now != tail) tell(TrackKind::TAIL, tail = now);
        if (flags != said) tell(TrackKind::FLAGS, said = flags, pins::log::lost(top));
        if (invalidates && pins::invalidations::ready(top)) {
            waiting += steps[step].d != 0;
            tell(TrackKind::TAKEN, step);
            ++step;
        }
        if (pins::completions::valid(top)) {
            if (!waiting) status = TrackStatus::STRAY;
            --waiting;
            tell(TrackKind::COMPLETE);
        }
        if (retiring != TAGS) {
            tell(TrackKind::RETIRED, flights[retiring].store);
            flights[retiring].granted = false;
            --outstanding;
        }
        if (offering && pins::requests::ready(top)) {
            flights[offered.tag] = InFlight{true, false, next, 0};
            ++outstanding;
            tell(TrackKind::ASKED, next);
            offering = false;
            ++next;
        }
        if (pins::responses::valid(top) && pins::responses::ready(top)) answered();
        if (pins::table_completions::valid(top) && pins::table_completions::ready(top)) {
            if (!pins::table_commands::ready(top)) status = TrackStatus::NOT_TAKEN;
            pins::table_completions::get(top, completions[command]);
            active = false;
            memory.bins = nullptr;
            tell(TrackKind::DONE, command);
            if (pins::list::asked(given)) {
                head = (head + completions[command].page) & 0x7FFFF;
                tell(TrackKind::HEAD, head);
            }
        }
    }

    void answered() {
        Response found;
        pins::responses::get(top, found);
        InFlight &one = flights[found.tag];
        if (!one.flying) status = TrackStatus::STRAY;
        one.flying = false;
        const TrackStore &store = stores[one.store];
        const bool grants_it = found.outcome == 0 && store.access == b.write;
        tell(grants_it ? TrackKind::GRANTED : TrackKind::ANSWERED, one.store, found.outcome, found.physical);
        one.granted = grants_it;
        one.due = cycle + 1 + store.delay;
        grants += grants_it;
        outstanding -= !grants_it;
    }

    TrackBatch &b;
    Vtop &top;
    Log &log;
    axi::Random random;
    const TrackStore *const stores;
    const TrackStep *const steps;
    const TrackCommand *const commands;
    TrackCompletion *const completions;
    uint64_t cycle = 0;
    Tables memory;
    uint32_t status = TrackStatus::COMPLETE;
    uint64_t head = 0, tail = 0, said = 0, reads_log = 0, lag = 0, parity = 0;
    uint64_t step = 0, next = 0, progress = 0, pausing = 0, command = 0, waiting = 0, outstanding = 0, grants = 0;
    bool offering = false, active = false, invalidates = false, changes = false, sets_up = false;
    Request offered{};
    TrackCommand given{};
    size_t retiring = TAGS;
    InFlight flights[TAGS];
};

// The model, in a time of its own, and the last run's log.
struct Model {
    VerilatedContext context;
    Vtop top{&context};
    Log log;
};

}  // namespace

extern "C" {
uint64_t ptewalk_track_size() { return sizeof(TrackBatch); }
void *ptewalk_track_open() { return new Model; }
void ptewalk_track_close(void *model) { delete static_cast<Model *>(model); }

// From a reset of four cycles.
int64_t ptewalk_track_run(void *handle, void *batch) {
    Model &model = *static_cast<Model *>(handle);
    Vtop &top = model.top;
    TrackBatch &b = *static_cast<TrackBatch *>(batch);
    model.log.clear();
    pins::requests::set_valid(top, false);
    pins::contexts::set_valid(top, false);
    pins::invalidations::set_valid(top, false);
    pins::retired::set_valid(top, false);
    pins::table_commands::set_valid(top, false);
    pins::setups::set_valid(top, false);
    for (int edge = 0; edge < 8; ++edge) {
        top.rst = 1;
        top.clk = edge & 1;
        top.eval();
    }
    top.rst = 0;
    top.clk = 0;
    top.eval();
    const int64_t status = Run(b, top, model.log).go();
    b.events = reinterpret_cast<uint64_t>(model.log.data());
    b.event_count = model.log.size();
    return status;
}
}
