// The batch level: the walker's clock, memory and second writer in compiled code, inside a Verilator model that cocotb drives.
//
// cosim/simulate/build.py compiles this file into the model; cosim/bench/lane.py calls ptewalk_batch() between two awaits, with cocotb's
// clock stopped and low. Structures and numbers below are repeated in cosim/bench/lane.py and cosim/bench/records.py, which compare
// sizes before the first call. Simulated time stands still in a batch, and no cocotb callback runs.
//
// Each cycle has the same steps as a cycle of cosim/bench/walker.py, so both levels give the same answers in the same cycles.

#include <cstddef>
#include <cstdint>
#include <deque>

#include "Vtop.h"
#include "Vtop__Syms.h"

namespace {

struct Request {
    uint64_t linear, root;
    uint32_t control, pkru, pkrs, tag;
    uint8_t access, user, implicit, ac, track, saved_dirty, reserved[2];
};

struct Response {
    uint64_t physical;
    uint32_t cycles, tag;
    uint16_t code;
    uint8_t outcome, level, pwt, pcd, pat, reserved;
};

struct Interference {
    uint64_t address, value;
    uint32_t request, after;
};

struct Event {
    uint64_t address, old_value, new_value;
    uint32_t request;
    uint8_t kind, done, error, reserved;
};

enum Outcome : uint8_t { OK, PAGE_FAULT };  // x86.Outcome, as far as needed
enum Access : uint8_t { LOAD, WRITE, RMW };  // x86.Access, as far as needed

enum Kind : uint8_t { READ, SWAP, FOREIGN };

enum Status : uint32_t {
    COMPLETE,
    TIMEOUT,
    STRAY_RESPONSE,
    STRAY_MEMORY,
    TWO_IN_FLIGHT,
    TWO_OUTSTANDING,
    UNSTABLE_RESPONSE,
    UNSTABLE_READ,
    UNSTABLE_SWAP,
    EVENTS_FULL,
    WRONG_FAULT,
    MISSING_FAULT,
    NOT_DRAINED,
};

enum Channel : uint64_t { REQUESTS, RESPONSES, READS, SWAPS, CHANNELS };

struct Batch {
    const Request *requests;
    Request *accepted_requests;  // out: as they stood at the pins
    Response *responses;
    const Interference *interferences;
    Event *events;
    const uint64_t *keys;
    const int32_t *rows;
    uint64_t *words;
    uint64_t request_count, interference_count, event_capacity;
    uint64_t key_bits;          // log2 of the slots of keys and rows
    uint64_t frame_limit;       // frames at and above it answer a bus error
    uint64_t absent_is_zero;    // frames below the limit that have no row: 1 read as 0, 0 bus error
    uint64_t latency, max_cycles, linger, stop_on_fault, seed;
    uint64_t stalls[CHANNELS];  // of 2**32: chance that a cycle stalls
    // Out:
    uint64_t status, response_count, event_count, cycles, reads, swaps, failed_swaps, foreign_writes, accepted;
    uint64_t marks, mends, delivered_faults;  // 0 without a fault unit
};

Vtop *model() {
    static Vtop *const found = [] {
        const VerilatedScope *scope = Verilated::threadContextp()->scopeFind("TOP");
        return scope ? static_cast<Vtop__Syms *>(scope->symsp())->__Vm_modelp : nullptr;
    }();
    return found;
}

uint64_t mix(uint64_t x) {  // splitmix64's finaliser
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

class Memory {
public:
    explicit Memory(const Batch &batch) : b(batch) {}

    // The word at `address`, or null; `error` says that the bus refuses.
    uint64_t *find(uint64_t address, bool &error) const {
        const uint64_t frame = address >> 12;
        error = frame >= b.frame_limit;
        if (error) return nullptr;
        const uint64_t mask = (uint64_t{1} << b.key_bits) - 1;
        for (uint64_t slot = (frame * 0x9E3779B97F4A7C15u) >> (64 - b.key_bits); b.keys[slot]; slot = (slot + 1) & mask)
            if (b.keys[slot] == frame + 1) return b.words + (static_cast<uint64_t>(b.rows[slot]) << 9) + ((address >> 3) & 511);
        error = !b.absent_is_zero;
        return nullptr;
    }

private:
    const Batch &b;
};

class Run {
public:
    Run(Batch &batch, Vtop &top) : b(batch), top(top), memory(batch) {}

    Status operator()() {
        Status status = COMPLETE;
        uint64_t idle_cycles = 0;
        count(false);
        while (status == COMPLETE) {
            over = !in_flight && !presenting && (stopped || next == b.request_count) && grants.empty();
            if (over && idle_cycles++ == b.linger) {
                status = settled();
                break;
            }
            drive();
            top.clk = 0;
            top.eval();
            status = observe();
            top.clk = 1;
            top.eval();
            ++cycle;
            if (!over && cycle - progress > b.max_cycles && status == COMPLETE) status = TIMEOUT;
        }
        count(true);
        idle();
        b.cycles = cycle;
        return status;
    }

private:
    Batch &b;
    Vtop &top;
    const Memory memory;
    uint64_t cycle = 0, progress = 0;
    uint64_t next = 0;           // first request that was not presented
    uint64_t current = 0;        // the newest accepted request
    uint64_t accepted_at = 0, first_valid_at = 0, answered_reads = 0, interference = 0;
    bool presenting = false, in_flight = false, stopped = false, over = false;
    struct Fault {
        uint64_t linear, code, tag;
    };
    struct Grant {
        uint64_t due, tag;
    };
    std::deque<Fault> faults;  // answered, not yet in the fault queue's output
    std::deque<Grant> grants;  // not yet retired
    bool response_waits = false, read_waits = false, swap_waits = false;
    Response response{};         // as it was when it began to wait
    uint64_t address = 0, old_value = 0, new_value = 0;  // of the transfer that waits or is outstanding
    enum Operation { NONE, READING, SWAPPING } outstanding = NONE;
    uint64_t due = 0;
    bool full = false;

    bool stalls(Channel channel) const {
        return b.stalls[channel] && (mix(b.seed + (channel + 1) * 0x9E3779B97F4A7C15u + cycle * 0xD1B54A32D192ED03u) >> 32) < b.stalls[channel];
    }

    void log(Kind kind, uint64_t at, uint64_t from, uint64_t to, bool done, bool error) {
        if (!b.event_capacity) return;
        if (b.event_count == b.event_capacity) {
            full = true;
            return;
        }
        b.events[b.event_count++] = {at, from, to, static_cast<uint32_t>(current), kind, done, error, 0};
    }

    void interfere() {
        for (; interference < b.interference_count; ++interference) {
            const Interference &i = b.interferences[interference];
            if (i.request > current || (i.request == current && i.after > answered_reads)) return;
            if (i.request < current) continue;  // its walk ended before
            bool error;
            uint64_t *word = memory.find(i.address, error);
            log(FOREIGN, i.address, *word, i.value, true, false);
            *word = i.value;
            ++b.foreign_writes;
        }
    }

    bool same_control(const Request &x, const Request &y) const {
        return x.root == y.root && x.control == y.control && x.pkru == y.pkru && x.pkrs == y.pkrs && x.track == y.track &&
               x.saved_dirty == y.saved_dirty;
    }

    // A request may be shown while an older one is in flight only if it needs no other control state.
    bool may_present() const {
        if (presenting || stopped || next == b.request_count) return false;
        return !in_flight || (!b.stop_on_fault && same_control(b.requests[next], b.requests[current]));
    }

    void present(const Request &r) {
        top.i_requests___05Fpayload___05Flinear = r.linear;
        top.i_requests___05Fpayload___05Faccess = r.access;
        top.i_requests___05Fpayload___05Fuser = r.user;
        top.i_requests___05Fpayload___05Fimplicit = r.implicit;
        top.i_requests___05Fpayload___05Fac = r.ac;
        top.i_requests___05Fpayload___05Ftag = r.tag;
        top.root = r.root;
        top.control = r.control;
        top.pkru = r.pkru;
        top.pkrs = r.pkrs;
#ifdef PTEWALK_TRACKING
        top.track = r.track;
        top.saved_dirty = r.saved_dirty;
#endif
        top.i_requests___05Fvalid = 1;
        presenting = true;
        ++next;
    }

    // The request that is being accepted, as the gateware sees it.
    void monitor(Request &r) const {
        r.linear = top.i_requests___05Fpayload___05Flinear;
        r.access = top.i_requests___05Fpayload___05Faccess;
        r.user = top.i_requests___05Fpayload___05Fuser;
        r.implicit = top.i_requests___05Fpayload___05Fimplicit;
        r.ac = top.i_requests___05Fpayload___05Fac;
        r.tag = top.i_requests___05Fpayload___05Ftag;
        r.root = top.root;
        r.control = top.control;
        r.pkru = top.pkru;
        r.pkrs = top.pkrs;
#ifdef PTEWALK_TRACKING
        r.track = top.track;
        r.saved_dirty = top.saved_dirty;
#endif
    }

    // Ends the transfers of the cycle before. What stands on a channel that is not valid is the complement of what stood there.
    void retract() {
        if (top.i_requests___05Fvalid && !presenting) {
            top.i_requests___05Fvalid = 0;
            top.i_requests___05Fpayload___05Flinear = ~top.i_requests___05Fpayload___05Flinear;
        }
        if (top.i_data___05Fvalid) {
            top.i_data___05Fvalid = 0;
            top.i_data___05Fpayload___05Fvalue = ~top.i_data___05Fpayload___05Fvalue;
            top.i_data___05Fpayload___05Ferror = !top.i_data___05Fpayload___05Ferror;
        }
        if (top.i_swapped___05Fvalid) {
            top.i_swapped___05Fvalid = 0;
            top.i_swapped___05Fpayload___05Fdone = !top.i_swapped___05Fpayload___05Fdone;
            top.i_swapped___05Fpayload___05Ferror = !top.i_swapped___05Fpayload___05Ferror;
        }
    }

    void drive() {
        retract();
        if (may_present() && !stalls(REQUESTS)) present(b.requests[next]);
        top.o_responses___05Fready = !stalls(RESPONSES);
        top.o_reads___05Fready = !stalls(READS);
        top.o_swaps___05Fready = !stalls(SWAPS);
        drive_fault_unit();
        if (outstanding == NONE || due != cycle) return;
        bool error;
        uint64_t *word = memory.find(address, error);
        if (outstanding == READING) {
            const uint64_t value = word ? *word : 0;
            ++b.reads;
            log(READ, address, value, value, !error, error);
            top.i_data___05Fpayload___05Fvalue = value;
            top.i_data___05Fpayload___05Ferror = error;
            top.i_data___05Fvalid = 1;
            ++answered_reads;
            interfere();
        } else {
            const bool done = word && *word == old_value;
            if (done) *word = new_value;
            ++b.swaps;
            b.failed_swaps += !done;
            log(SWAP, address, old_value, new_value, done, error);
            top.i_swapped___05Fpayload___05Fdone = done;
            top.i_swapped___05Fpayload___05Ferror = error;
            top.i_swapped___05Fvalid = 1;
        }
        outstanding = NONE;
    }

#ifdef PTEWALK_FAULT_UNIT
    // Takes every fault, retires each grant `latency` cycles after it, and drains when there is nothing else to do.
    void drive_fault_unit() {
        top.o_faults___05Fready = 1;
        top.i_drain = over;
        top.i_retired___05Fvalid = !grants.empty() && grants.front().due <= cycle;
        if (top.i_retired___05Fvalid) {
            top.i_retired___05Fpayload___05Ftag = grants.front().tag;
            grants.pop_front();
        }
    }

    Status observe_fault_unit() {
        if (!top.o_faults___05Fvalid) return COMPLETE;
        if (faults.empty()) return WRONG_FAULT;
        const Fault fault = faults.front();
        faults.pop_front();
        const bool same = fault.linear == top.o_faults___05Fpayload___05Flinear &&
                          fault.code == top.o_faults___05Fpayload___05Fcode && fault.tag == top.o_faults___05Fpayload___05Ftag;
        return same ? COMPLETE : WRONG_FAULT;
    }

    Status settled() const {
        if (!faults.empty()) return MISSING_FAULT;
        return top.o_drained ? COMPLETE : NOT_DRAINED;
    }

    // What an answered request leaves to be done.
    void follow_up() {
        const Request &request = b.requests[current];
        if (response.outcome == PAGE_FAULT) faults.push_back({request.linear, response.code, response.tag});
        if (response.outcome == OK && (request.access == WRITE || request.access == RMW))
            grants.push_back({cycle + b.latency, response.tag});
    }

    void count(bool after) {
        const uint32_t sign = after ? 1 : -1;
        b.delivered_faults = static_cast<uint32_t>(b.delivered_faults + sign * top.delivered_faults);
#ifdef PTEWALK_TRACKING
        b.marks = static_cast<uint32_t>(b.marks + sign * top.marks);
        b.mends = static_cast<uint32_t>(b.mends + sign * top.mends);
#endif
    }
#else
    void drive_fault_unit() {}
    Status observe_fault_unit() { return COMPLETE; }
    Status settled() const { return COMPLETE; }
    void follow_up() {}
    void count(bool) {}
#endif

    // The outputs of this cycle, before its clock edge.
    Status observe() {
        const bool response_valid = top.o_responses___05Fvalid;
        const bool response_taken = response_valid && top.o_responses___05Fready;
        const bool request_taken = presenting && top.i_requests___05Fready;
        const bool older = in_flight;
        if (older && response_taken) in_flight = false;
        if (request_taken) {
            if (in_flight) return TWO_IN_FLIGHT;
            in_flight = true;
        }
        if (response_waits && !response_valid) return UNSTABLE_RESPONSE;
        if (response_valid && !older && !request_taken) return STRAY_RESPONSE;
        if (response_valid && older) {
            if (const Status status = respond(response_taken)) return status;
        }
        if (request_taken) {
            presenting = false;
            current = b.accepted++;
            monitor(b.accepted_requests[current]);
            accepted_at = progress = cycle;
            answered_reads = 0;
            interfere();
            if (response_valid && !older) {
                if (response_taken) in_flight = false;
                if (const Status status = respond(response_taken)) return status;
            }
        }
        if (const Status status = reads(older || request_taken)) return status;
        if (const Status status = swaps(older || request_taken)) return status;
        if (const Status status = observe_fault_unit()) return status;
        return full ? EVENTS_FULL : COMPLETE;
    }

    Status respond(bool taken) {
        const Response now{top.o_responses___05Fpayload___05Fphysical, 0,
                           static_cast<uint32_t>(top.o_responses___05Fpayload___05Ftag),
                           top.o_responses___05Fpayload___05Fcode, top.o_responses___05Fpayload___05Foutcome,
                           top.o_responses___05Fpayload___05Flevel, top.o_responses___05Fpayload___05Fpwt,
                           top.o_responses___05Fpayload___05Fpcd, top.o_responses___05Fpayload___05Fpat, 0};
        if (!response_waits) {
            first_valid_at = cycle;
        } else if (now.physical != response.physical || now.tag != response.tag || now.code != response.code ||
                   now.outcome != response.outcome || now.level != response.level || now.pwt != response.pwt ||
                   now.pcd != response.pcd || now.pat != response.pat) {
            return UNSTABLE_RESPONSE;
        }
        response = now;
        response_waits = !taken;
        if (!taken) return COMPLETE;
        if (outstanding != NONE) return STRAY_MEMORY;
        response.cycles = static_cast<uint32_t>(first_valid_at - accepted_at);
        b.responses[b.response_count++] = response;
        follow_up();
        progress = cycle;
        stopped = stopped || (b.stop_on_fault && response.outcome);
        return COMPLETE;
    }

    Status reads(bool walking) {
        const bool valid = top.o_reads___05Fvalid;
        if (read_waits && (!valid || top.o_reads___05Fpayload___05Faddress != address)) return UNSTABLE_READ;
        read_waits = false;
        if (!valid) return COMPLETE;
        if (!walking) return STRAY_MEMORY;
        if (outstanding != NONE || swap_waits) return TWO_OUTSTANDING;
        address = top.o_reads___05Fpayload___05Faddress;
        read_waits = !top.o_reads___05Fready;
        if (!read_waits) {
            outstanding = READING;
            due = cycle + b.latency;
        }
        return COMPLETE;
    }

    Status swaps(bool walking) {
        const bool valid = top.o_swaps___05Fvalid;
        if (swap_waits && (!valid || top.o_swaps___05Fpayload___05Faddress != address ||
                           top.o_swaps___05Fpayload___05Fold != old_value || top.o_swaps___05Fpayload___05Fnew != new_value))
            return UNSTABLE_SWAP;
        swap_waits = false;
        if (!valid) return COMPLETE;
        if (!walking) return STRAY_MEMORY;
        if (outstanding != NONE || read_waits) return TWO_OUTSTANDING;
        address = top.o_swaps___05Fpayload___05Faddress;
        old_value = top.o_swaps___05Fpayload___05Fold;
        new_value = top.o_swaps___05Fpayload___05Fnew;
        swap_waits = !top.o_swaps___05Fready;
        if (!swap_waits) {
            outstanding = SWAPPING;
            due = cycle + b.latency;
        }
        return COMPLETE;
    }

    void idle() {
        top.i_requests___05Fvalid = 0;
        top.o_responses___05Fready = 0;
        top.o_reads___05Fready = 0;
        top.o_swaps___05Fready = 0;
        top.i_data___05Fvalid = 0;
        top.i_swapped___05Fvalid = 0;
        top.clk = 0;
        top.eval();
    }
};

}  // namespace

// The sizes of Request, Response, Interference, Event and Batch; -1 beyond.
extern "C" int ptewalk_batch_size(int which) {
    static const size_t sizes[] = {sizeof(Request), sizeof(Response), sizeof(Interference), sizeof(Event), sizeof(Batch)};
    return which >= 0 && which < 5 ? static_cast<int>(sizes[which]) : -1;
}

// Runs a batch; the status is in it, too. -1: the model was not found.
extern "C" int ptewalk_batch(Batch *batch) {
    Vtop *const top = model();
    if (!top) return -1;
    batch->status = Run(*batch, *top)();
    return static_cast<int>(batch->status);
}
