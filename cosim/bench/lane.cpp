// The compiled lane: clock, requests, memory and second writer of a testbench in compiled code, beside a Verilator model.
//
// It is built in two ways. Linked into a model that cocotb drives, it runs between two awaits, with cocotb's clock stopped
// and low; simulated time stands still, and no cocotb callback runs. As a library (PTEWALK_LIBRARY) it owns its model.
// cosim/bench/lane.py calls it either way. records.h and pins.h are made by cosim/bench/headers.py at each build.
//
// A bench is a list of agents. In each cycle all drive, the inputs settle, then all sample, then the clock rises: as in
// cosim/bench/walker.py, so that all levels give the same answers in the same cycles. Expected values come from the
// golden model alone: here are stimulus, memory, rules of the ports and logs.

#include <array>
#include <deque>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include "Vtop.h"
#include "clock.h"
#include "pins.h"
#include "records.h"
#include "words.h"
#ifndef PTEWALK_LIBRARY
#include "Vtop__Syms.h"
#endif

namespace {

constexpr uint64_t SETTLE = 64;  // cycles, after the linger, in which the fault queue and a drain must come to their end

// Agents that a bench's others ask about, and what they share: the state of one batch.
struct Ledger {
    Ledger(Batch &batch, Vtop &top) : b(batch), top(top), request_count(batch.request_count), stop_on_fault(batch.stop_on_fault) {
        for (unsigned which = 0; which < CHANNELS; ++which) calm = calm && !batch.thresholds[which];
    }
    Batch &b;
    Vtop &top;
    const uint64_t request_count;
    const bool stop_on_fault;
    bool calm = true;  // nothing stalls, nothing is refused
    uint64_t cycle = 0, progress = 0;
    uint32_t status = Status::COMPLETE;
    uint64_t next = 0;     // first request that was not presented
    uint64_t current = 0;  // the newest accepted request
    uint64_t answered_reads = 0;
    bool presenting = false, in_flight = false, stopped = false, over = false;
    bool walking = false;    // a request is in flight in the cycle that is sampled
    bool draining = false;
    uint64_t outstanding = 0, grants = 0;  // accesses to memory; grants not retired
    uint64_t faults_answered = 0;
    bool response_taken = false;
    Response response{};

    bool done() const { return !in_flight && !presenting && (stopped || next == request_count) && !grants && !draining; }
    void violate(uint32_t rule) {
        if (status == Status::COMPLETE) status = rule;
    }
    uint64_t draw(uint64_t which, uint64_t number) const {
        uint64_t x = b.seed + (which + 1) * 0x9E3779B97F4A7C15u + number * 0xD1B54A32D192ED03u;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
        return (x ^ (x >> 31)) >> 32;
    }
    bool happens(uint64_t which, uint64_t number) const { return b.thresholds[which] && draw(which, number) < b.thresholds[which]; }
    // In a run of which it is known at compile time whether it is calm.
    template <class Calm>
    bool happens(Calm known_calm, uint64_t which, uint64_t number) const {
        return !known_calm && happens(which, number);
    }
    uint64_t extra(uint64_t which, uint64_t number, uint64_t spread) const { return spread ? draw(which, number) % (spread + 1) : 0; }
};

struct Logs {
    std::vector<Event> events;
    std::vector<Fault> faults;
    std::vector<Written> written;
    std::vector<Walked> walked;
    void clear() {
        events.clear();
        faults.clear();
        written.clear();
        walked.clear();
    }
};

// What is done to memory, in order: by the gateware, and by a second writer.
class Memory {
public:
    Memory(Ledger &ledger, Logs &logs) : l(ledger), words(ledger.b), logs(logs) {}

    uint64_t read(uint64_t address, bool &error) {
        bool refused;
        const uint64_t *const word = words.find(address, refused);
        error = error || refused;
        const uint64_t value = word && !error ? *word : 0;
        ++l.b.reads;
        log(address, value, value, Kind::READ, !error, error);
        ++l.answered_reads;
        interfere();
        return value;
    }

    bool swap(uint64_t address, uint64_t from, uint64_t to, bool &error) {
        bool refused;
        uint64_t *const word = words.find(address, refused);
        error = error || refused;
        const bool done = !error && word && *word == from;
        if (done) *word = to;
        ++l.b.swaps;
        l.b.failed_swaps += !done;
        log(address, from, to, Kind::SWAP, done, error);
        return done;
    }

    void interfere() {
        const auto *const all = reinterpret_cast<const Interference *>(l.b.interferences);
        for (; interference < l.b.interference_count; ++interference) {
            const Interference &i = all[interference];
            if (i.request > l.current || (i.request == l.current && i.after > l.answered_reads)) return;
            if (i.request < l.current) continue;  // its walk ended before
            bool error;
            uint64_t *const word = words.find(i.address, error);
            log(i.address, word ? *word : 0, i.value, Kind::FOREIGN, true, false);
            if (word) *word = i.value;
            ++l.b.foreign_writes;
        }
    }

private:
    void log(uint64_t address, uint64_t from, uint64_t to, uint32_t what, bool done, bool error) {
        Event &e = logs.events.emplace_back();
        e.address = address;
        e.old = from;
        e.new_ = to;
        e.request = static_cast<uint32_t>(l.current);
        e.kind = static_cast<uint8_t>(what);
        e.done = done;
        e.error = error;
    }

    Ledger &l;
    const Words words;
    Logs &logs;
    uint64_t interference = 0;
};

// Asks, with the context that each request needs, and watches what is accepted and answered.
class Requester {
public:
    Requester(Ledger &ledger, Memory &memory) : l(ledger), memory(memory) {}

    template <class Calm>
    void drive(Calm calm) {
        if (!l.presenting && pins::requests::valid(l.top)) {
            pins::requests::set_valid(l.top, false);
            pins::requests::flip(l.top);
        }
        if (!offering && pins::contexts::valid(l.top)) {
            pins::contexts::set_valid(l.top, false);
            pins::contexts::flip(l.top);
        }
        if (may_present() && !l.happens(calm, Channel::REQUESTS, l.cycle)) {
            const Request &r = asked()[l.next++];
            pins::requests::put(l.top, r);
            pins::requests::set_valid(l.top, true);
            l.presenting = true;
            if (!known || !pins::contexts::equal(r, in_force)) {
                pins::contexts::put(l.top, r);
                pins::contexts::set_valid(l.top, true);
                offering = true;
            }
        }
        pins::responses::set_ready(l.top, !l.happens(calm, Channel::RESPONSES, l.cycle));
    }

    void sample() {
        const bool valid = pins::responses::valid(l.top);
        const bool taken = valid && pins::responses::ready(l.top);
        const bool accepted = l.presenting && pins::requests::ready(l.top);
        const bool older = l.in_flight;
        if (!valid && !accepted && !waits && !offering) {
            l.walking = older;
            l.response_taken = false;
            return;
        }
        if (offering && pins::contexts::ready(l.top)) {
            pins::contexts::get(l.top, in_force);
            known = true;
            offering = false;
            if (older && !taken) return l.violate(Status::CONTEXT_IN_FLIGHT);
        } else if (accepted && offering) {
            return l.violate(Status::CONTEXT_OVERTAKEN);
        }
        if (older && taken) l.in_flight = false;
        if (accepted) {
            if (l.in_flight) return l.violate(Status::TWO_IN_FLIGHT);
            l.in_flight = true;
        }
        l.walking = older || accepted;
        l.response_taken = false;
        if (waits && !valid) return l.violate(Status::UNSTABLE_RESPONSE);
        if (valid && !l.walking) return l.violate(Status::STRAY_RESPONSE);
        if (valid && older) respond(taken);
        if (accepted) {
            accept();
            if (valid && !older) {
                if (taken) l.in_flight = false;
                respond(taken);
            }
        }
    }

    void idle() {
        pins::requests::set_valid(l.top, false);
        pins::contexts::set_valid(l.top, false);
        pins::responses::set_ready(l.top, false);
    }

private:
    const Request *asked() const { return reinterpret_cast<const Request *>(l.b.requests); }

    bool may_present() const {
        if (l.presenting || l.stopped || l.next == l.request_count) return false;
        return !l.in_flight || !l.stop_on_fault;
    }

    void accept() {
        l.presenting = false;
        l.current = l.b.accepted++;
        Request &r = reinterpret_cast<Request *>(l.b.accepted_requests)[l.current];
        r = in_force;
        pins::requests::get(l.top, r);
        accepted_at = l.progress = l.cycle;
        l.answered_reads = 0;
        memory.interfere();
    }

    void respond(bool taken) {
        if (!waits) {
            first_valid_at = l.cycle;
        } else if (!pins::responses::same(l.top, l.response)) {
            return l.violate(Status::UNSTABLE_RESPONSE);
        } else if (l.response.outcome == Outcome::OK && !pins::translation::same(l.top, translation)) {
            return l.violate(Status::UNSTABLE_RESPONSE);
        }
        l.response = Response{};
        pins::responses::get(l.top, l.response);
        pins::translation::get(l.top, translation);
        waits = !taken;
        if (!taken) return;
        if (l.outstanding) return l.violate(Status::STRAY_MEMORY);
        l.response.cycles = static_cast<uint32_t>(first_valid_at - accepted_at);
        if (pins::translation::present && l.b.translations)
            reinterpret_cast<Translation *>(l.b.translations)[l.b.translation_count++] = translation;
        reinterpret_cast<Response *>(l.b.responses)[l.b.response_count++] = l.response;
        l.response_taken = true;
        l.progress = l.cycle;
        l.stopped = l.stopped || (l.b.stop_on_fault && l.response.outcome != Outcome::OK);
    }

    Ledger &l;
    Memory &memory;
    Request in_force{};
    Translation translation{};
    bool known = false, offering = false, waits = false;
    uint64_t accepted_at = 0, first_valid_at = 0;
};

// Answers reads and swaps, each after a latency of its own; several may be outstanding, one of an id in each channel.
class MemoryPort {
public:
    MemoryPort(Ledger &ledger, Memory &memory, uint64_t limit) : l(ledger), memory(memory), limit(limit) {}

    template <class Calm>
    void drive(Calm calm) {
        pins::reads::set_ready(l.top, !l.happens(calm, Channel::READS, l.cycle));
        pins::swaps::set_ready(l.top, !l.happens(calm, Channel::SWAPS, l.cycle));
        if (const unsigned at = first_due(false); at != l.outstanding) {
            struct { uint64_t value; bool error; uint64_t id; } answer{0, pending[at].refused, pending[at].id};
            const uint64_t address = pending[at].address;
            finish(at);
            answer.value = memory.read(address, answer.error);
            pins::data::put(l.top, answer);
            pins::data::set_valid(l.top, true);
        } else if (pins::data::valid(l.top)) {
            pins::data::set_valid(l.top, false);
            pins::data::flip(l.top);
        }
        if (const unsigned at = first_due(true); at != l.outstanding) {
            const Transfer swap = pending[at];
            struct { bool done, error; uint64_t id; } answer{false, swap.refused, swap.id};
            finish(at);
            answer.done = memory.swap(swap.address, swap.old, swap.new_, answer.error);
            pins::swapped::put(l.top, answer);
            pins::swapped::set_valid(l.top, true);
        } else if (pins::swapped::valid(l.top)) {
            pins::swapped::set_valid(l.top, false);
            pins::swapped::flip(l.top);
        }
    }

    void sample() {
        const bool read = pins::reads::valid(l.top), swap = pins::swaps::valid(l.top);
        if (read_waits && (!read || !pins::reads::same(l.top, waiting_read))) l.violate(Status::UNSTABLE_READ);
        if (swap_waits && (!swap || !pins::swaps::same(l.top, waiting_swap))) l.violate(Status::UNSTABLE_SWAP);
        read_waits = swap_waits = false;
        if (!read && !swap) return;
        if (!l.walking) l.violate(Status::STRAY_MEMORY);
        if (l.outstanding + read + swap > limit) l.violate(Status::TWO_OUTSTANDING);
        if (read) {
            pins::reads::get(l.top, waiting_read);
            read_waits = !pins::reads::ready(l.top);
            if (!read_waits) begin(waiting_read);
        }
        if (swap) {
            waiting_swap.swaps = true;
            pins::swaps::get(l.top, waiting_swap);
            swap_waits = !pins::swaps::ready(l.top);
            if (!swap_waits) begin(waiting_swap);
        }
    }

    void idle() {
        pins::data::set_valid(l.top, false);
        pins::swapped::set_valid(l.top, false);
        pins::reads::set_ready(l.top, false);
        pins::swaps::set_ready(l.top, false);
    }

private:
    struct Transfer {
        uint64_t address, old, new_, id, due;
        bool swaps, refused;
    };

    void begin(Transfer &access) {
        for (unsigned at = 0; at < l.outstanding; ++at)
            if (pending[at].swaps == access.swaps && pending[at].id == access.id) l.violate(Status::TWO_OUTSTANDING);
        if (l.outstanding == MOST) return l.violate(Status::TWO_OUTSTANDING);
        access.due = l.cycle + l.b.latency + l.extra(Channel::LATENCY, accesses, l.b.latency_spread);
        access.refused = l.happens(Channel::ERRORS, accesses);
        ++accesses;
        pending[l.outstanding++] = access;
    }

    // The place of what is due first; the number of those outstanding for none.
    unsigned first_due(bool swaps) const {
        unsigned found = l.outstanding;
        for (unsigned at = 0; at < l.outstanding; ++at)
            if (pending[at].swaps == swaps && pending[at].due <= l.cycle && (found == l.outstanding || pending[at].due < pending[found].due))
                found = at;
        return found;
    }

    void finish(unsigned at) {
        --l.outstanding;
        for (; at < l.outstanding; ++at) pending[at] = pending[at + 1];
    }

    static constexpr unsigned MOST = 64;  // accesses outstanding, whatever the design
    Ledger &l;
    Memory &memory;
    const uint64_t limit;
    std::array<Transfer, MOST> pending;
    Transfer waiting_read{}, waiting_swap{};
    bool read_waits = false, swap_waits = false;
    uint64_t accesses = 0;
};

// Empties the fault queue, at the pace that the conditions say.
class FaultQueue {
public:
    FaultQueue(Ledger &ledger, Logs &logs) : l(ledger), logs(logs), lost_before(pins::lost_faults::get(ledger.top)) {}

    template <class Calm>
    void drive(Calm calm) {
        // When all is over it is emptied at full pace.
        pins::faults::set_ready(l.top, l.over || !l.happens(calm, Channel::FAULTS, l.cycle));
    }

    void sample() {
        if constexpr (!pins::faults::present) return;
        const bool valid = pins::faults::valid(l.top);
        if (!valid && !waits && !l.response_taken) return;
        if (waits && (!valid || !pins::faults::same(l.top, waiting))) l.violate(Status::UNSTABLE_FAULT);
        waits = false;
        if (valid) {
            waiting = Fault{};
            pins::faults::get(l.top, waiting);
            waits = !pins::faults::ready(l.top);
            if (!waits) logs.faults.push_back(waiting);
        }
        const Request *const accepted = reinterpret_cast<const Request *>(l.b.accepted_requests);
        if (l.response_taken && l.response.outcome == Outcome::PAGE_FAULT)
            l.faults_answered += accepted[l.b.response_count - 1].access != Access::PROBE;
        const uint64_t left = l.faults_answered - logs.faults.size();
        if (logs.faults.size() > l.faults_answered) l.violate(Status::STRAY_FAULT);
        else if (left > l.b.most_faults) l.b.most_faults = left;
    }

    void idle() { pins::faults::set_ready(l.top, false); }

    bool settled() const {
        if constexpr (!pins::faults::present) return true;
        const uint64_t lost = static_cast<uint32_t>(pins::lost_faults::get(l.top) - lost_before);
        return logs.faults.size() + lost == l.faults_answered;
    }

private:
    Ledger &l;
    Logs &logs;
    const uint64_t lost_before;
    bool waits = false;
    Fault waiting{};
};

// Retires each grant after a time of its own, and so in any order.
class Retirement {
public:
    explicit Retirement(Ledger &ledger) : l(ledger) {}

    template <class Calm>
    void drive(Calm) {
        if constexpr (!pins::retired::present) return;
        pins::retired::set_valid(l.top, false);
        if (!l.grants) return;
        auto found = grants.end();
        for (auto at = grants.begin(); at != grants.end(); ++at)
            if (at->due <= l.cycle && (found == grants.end() || at->due < found->due)) found = at;
        if (found == grants.end()) return;
        pins::retired::put(l.top, *found);
        pins::retired::set_valid(l.top, true);
        grants.erase(found);
        l.grants = grants.size();
    }

    void sample() {
        if constexpr (!pins::retired::present) return;
        if (!l.response_taken || l.response.outcome != Outcome::OK) return;
        const uint32_t how = reinterpret_cast<const Request *>(l.b.accepted_requests)[l.b.response_count - 1].access;
        if (how != Access::WRITE && how != Access::RMW) return;
        grants.push_back({l.cycle + l.b.latency + l.extra(Channel::RETIREMENT, number++, l.b.retirement_spread), l.response.tag});
        l.grants = grants.size();
    }

    void idle() { pins::retired::set_valid(l.top, false); }

private:
    struct Grant {
        uint64_t due;
        uint32_t tag;
    };
    Ledger &l;
    std::deque<Grant> grants;
    uint64_t number = 0;
};

// Drains: at any time, as the conditions say, and when all is over.
class Drain {
public:
    explicit Drain(Ledger &ledger) : l(ledger) {}

    template <class Calm>
    void drive(Calm calm) {
        if constexpr (!pins::drain::present) return;
        if (!l.draining && !l.over && l.happens(calm, Channel::DRAINS, l.cycle)) l.draining = true;
        pins::drain::set(l.top, l.draining || l.over);
        if (l.cycle < 2) pins::clear_status(l.top, l.cycle == 0);
        grants_before = l.grants;
    }

    void sample() {
        if constexpr (!pins::drain::present) return;
        drained = pins::drained::get(l.top);
        if (!drained) return;
        if (l.walking || grants_before) l.violate(Status::DRAINED_EARLY);
        l.b.drains += l.draining;
        l.draining = false;
        l.progress = l.cycle;
    }

    void idle() { pins::clear_status(l.top, false); }

    bool settled() const { return !pins::drain::present || drained; }

private:
    Ledger &l;
    uint64_t grants_before = 0;
    bool drained = false;
};

// Keeps what the trace port tells.
class Trace {
public:
    Trace(Ledger &ledger, Logs &logs) : l(ledger), logs(logs) {}

    template <class Calm>
    void drive(Calm) {}

    void sample() {
        if (pins::written::valid(l.top)) {
            pins::written::get(l.top, logs.written.emplace_back());
        }
        if (pins::walked::valid(l.top)) {
            pins::walked::get(l.top, logs.walked.emplace_back());
        }
    }

    void idle() {}

private:
    Ledger &l;
    Logs &logs;
};

template <class Calm, class... Agents>
[[gnu::flatten]] void run(Calm calm, Ledger &l, const FaultQueue &queue, const Drain &drain, Agents &...agents) {
    Batch &b = l.b;
    Vtop &top = l.top;
    uint64_t idle_cycles = 0;
    while (l.status == Status::COMPLETE) {
        l.over = l.done();
        if (l.over) {
            const bool settled = queue.settled() && drain.settled();
            if (idle_cycles >= b.linger && settled) break;
            if (idle_cycles >= b.linger + SETTLE) {
                l.violate(queue.settled() ? Status::NOT_DRAINED : Status::MISSING_FAULT);
                break;
            }
            ++idle_cycles;
        }
        (agents.drive(calm), ...);
        clock_low(top);
        (agents.sample(), ...);
        clock_high(top);
        ++l.cycle;
        if (!l.over && l.cycle - l.progress > b.max_cycles) l.violate(Status::TIMEOUT);
    }
    (agents.idle(), ...);
    top.clk = 0;
    top.eval();
    b.cycles = l.cycle;
    b.status = l.status;
}

void count(const Vtop &top, Batch &b, uint32_t sign) {
    b.marks = static_cast<uint32_t>(b.marks + sign * pins::marks::get(top));
    b.mends = static_cast<uint32_t>(b.mends + sign * pins::mends::get(top));
    b.delivered_faults = static_cast<uint32_t>(b.delivered_faults + sign * pins::delivered_faults::get(top));
    b.lost_faults = static_cast<uint32_t>(b.lost_faults + sign * pins::lost_faults::get(top));
}

void run_batch(Batch &b, Vtop &top, Logs &logs) {
    logs.clear();
    logs.events.reserve(8 * b.request_count);
    logs.walked.reserve(b.request_count);
    Ledger ledger(b, top);
    Memory memory(ledger, logs);
    Requester requester(ledger, memory);
    MemoryPort port(ledger, memory, 1);
    FaultQueue queue(ledger, logs);
    Retirement retirement(ledger);
    Drain drain(ledger);
    Trace trace(ledger, logs);
    count(top, b, -1);
    const auto go = [&](auto calm) { run(calm, ledger, queue, drain, requester, port, queue, retirement, drain, trace); };
    ledger.calm ? go(std::true_type{}) : go(std::false_type{});
    count(top, b, 1);
    b.events = reinterpret_cast<uint64_t>(logs.events.data());
    b.event_count = logs.events.size();
    b.faults = reinterpret_cast<uint64_t>(logs.faults.data());
    b.fault_count = logs.faults.size();
    b.written = reinterpret_cast<uint64_t>(logs.written.data());
    b.written_count = logs.written.size();
    b.walked = reinterpret_cast<uint64_t>(logs.walked.data());
    b.walked_count = logs.walked.size();
}

// Four cycles of reset.
void reset(Vtop &top) {
    for (int edge = 0; edge < 8; ++edge) {
        top.rst = 1;
        top.clk = edge & 1;
        top.eval();
    }
    top.rst = 0;
    top.clk = 0;
    top.eval();
}

}  // namespace

#ifdef PTEWALK_LIBRARY

namespace {
struct Lane {
    VerilatedContext context;
    Vtop top{&context};
    Logs logs;
};
}  // namespace

extern "C" void *ptewalk_open() { return new Lane; }

extern "C" void ptewalk_close(void *lane) { delete static_cast<Lane *>(lane); }

extern "C" void ptewalk_reset(void *lane) { reset(static_cast<Lane *>(lane)->top); }

// Runs a batch; the status is in it, too.
extern "C" int ptewalk_batch(void *lane, Batch *batch) {
    Lane &l = *static_cast<Lane *>(lane);
    run_batch(*batch, l.top, l.logs);
    return static_cast<int>(batch->status);
}

#else

namespace {
Vtop *model() {
    static Vtop *const found = [] {
        const VerilatedScope *scope = Verilated::threadContextp()->scopeFind("TOP");
        return scope ? static_cast<Vtop__Syms *>(scope->symsp())->__Vm_modelp : nullptr;
    }();
    return found;
}
}  // namespace

// Runs a batch on the model that the simulator drives; -1: it was not found.
extern "C" int ptewalk_linked_batch(Batch *batch) {
    static Logs logs;
    Vtop *const top = model();
    if (!top) return -1;
    run_batch(*batch, *top, logs);
    return static_cast<int>(batch->status);
}

extern "C" void ptewalk_linked_reset() {
    if (Vtop *const top = model()) reset(*top);
}

#endif

// The size of a batch's structure, in bytes: what calls it must agree.
extern "C" unsigned ptewalk_batch_size() { return sizeof(Batch); }
