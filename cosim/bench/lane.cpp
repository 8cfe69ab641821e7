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
enum Access : uint8_t { LOAD, WRITE, RMW, FETCH, PROBE };  // x86.Access, as far as needed

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
    CONTEXT_IN_FLIGHT,
    CONTEXT_OVERTAKEN,
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
    bool offering = false;       // a context is on offer
    bool context_known = false;  // `context` was taken or is on offer
    Request context{};           // its control state alone counts
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
    uint64_t address = 0, old_value = 0, new_value = 0, id = 0;  // of the transfer that waits or is outstanding
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

    bool may_present() const {
        if (presenting || stopped || next == b.request_count) return false;
        return !in_flight || !b.stop_on_fault;
    }

    // A request, and with it its context when that is another than the one before: the design must take that first.
    void present(const Request &r) {
        if (!context_known || !same_control(r, context)) {
            top.contexts___05Fpayload___05Froot = r.root;
            top.contexts___05Fpayload___05Fcontrol = r.control;
            top.contexts___05Fpayload___05Fpkru = r.pkru;
            top.contexts___05Fpayload___05Fpkrs = r.pkrs;
#ifdef PTEWALK_TRACKING
            top.contexts___05Fpayload___05Ftrack = r.track;
            top.contexts___05Fpayload___05Fsaved_dirty = r.saved_dirty;
#endif
            top.contexts___05Fvalid = 1;
            offering = context_known = true;
            context = r;
        }
        top.requester___05Frequests___05Fpayload___05Flinear = r.linear;
        top.requester___05Frequests___05Fpayload___05Faccess = r.access;
        top.requester___05Frequests___05Fpayload___05Fuser = r.user;
        top.requester___05Frequests___05Fpayload___05Fimplicit = r.implicit;
        top.requester___05Frequests___05Fpayload___05Fac = r.ac;
        top.requester___05Frequests___05Fpayload___05Ftag = r.tag;
        top.requester___05Frequests___05Fvalid = 1;
        presenting = true;
        ++next;
    }

    // The context that is being taken, as the gateware sees it.
    Status observe_context() {
        if (!offering || !top.contexts___05Fready) return COMPLETE;
        if (in_flight) return CONTEXT_IN_FLIGHT;
        offering = false;
        context.root = top.contexts___05Fpayload___05Froot;
        context.control = top.contexts___05Fpayload___05Fcontrol;
        context.pkru = top.contexts___05Fpayload___05Fpkru;
        context.pkrs = top.contexts___05Fpayload___05Fpkrs;
#ifdef PTEWALK_TRACKING
        context.track = top.contexts___05Fpayload___05Ftrack;
        context.saved_dirty = top.contexts___05Fpayload___05Fsaved_dirty;
#endif
        return COMPLETE;
    }

    // The request that is being accepted, as the gateware sees it.
    void monitor(Request &r) const {
        r.linear = top.requester___05Frequests___05Fpayload___05Flinear;
        r.access = top.requester___05Frequests___05Fpayload___05Faccess;
        r.user = top.requester___05Frequests___05Fpayload___05Fuser;
        r.implicit = top.requester___05Frequests___05Fpayload___05Fimplicit;
        r.ac = top.requester___05Frequests___05Fpayload___05Fac;
        r.tag = top.requester___05Frequests___05Fpayload___05Ftag;
        r.root = context.root;
        r.control = context.control;
        r.pkru = context.pkru;
        r.pkrs = context.pkrs;
        r.track = context.track;
        r.saved_dirty = context.saved_dirty;
    }

    // Ends the transfers of the cycle before. What stands on a channel that is not valid is the complement of what stood there.
    void retract() {
        if (top.requester___05Frequests___05Fvalid && !presenting) {
            top.requester___05Frequests___05Fvalid = 0;
            top.requester___05Frequests___05Fpayload___05Flinear = ~top.requester___05Frequests___05Fpayload___05Flinear;
        }
        if (top.contexts___05Fvalid && !offering) {
            top.contexts___05Fvalid = 0;
            top.contexts___05Fpayload___05Froot = top.contexts___05Fpayload___05Froot ^ (b.frame_limit - 1);
            top.contexts___05Fpayload___05Fcontrol = ~top.contexts___05Fpayload___05Fcontrol;
            top.contexts___05Fpayload___05Fpkru = ~top.contexts___05Fpayload___05Fpkru;
            top.contexts___05Fpayload___05Fpkrs = ~top.contexts___05Fpayload___05Fpkrs;
        }
        if (top.memory___05Fdata___05Fvalid) {
            top.memory___05Fdata___05Fvalid = 0;
            top.memory___05Fdata___05Fpayload___05Fvalue = ~top.memory___05Fdata___05Fpayload___05Fvalue;
            top.memory___05Fdata___05Fpayload___05Ferror = !top.memory___05Fdata___05Fpayload___05Ferror;
            top.memory___05Fdata___05Fpayload___05Fid = top.memory___05Fdata___05Fpayload___05Fid ^ 3;
        }
        if (top.memory___05Fswapped___05Fvalid) {
            top.memory___05Fswapped___05Fvalid = 0;
            top.memory___05Fswapped___05Fpayload___05Fdone = !top.memory___05Fswapped___05Fpayload___05Fdone;
            top.memory___05Fswapped___05Fpayload___05Ferror = !top.memory___05Fswapped___05Fpayload___05Ferror;
            top.memory___05Fswapped___05Fpayload___05Fid = top.memory___05Fswapped___05Fpayload___05Fid ^ 3;
        }
    }

    void drive() {
        retract();
        if (may_present() && !stalls(REQUESTS)) present(b.requests[next]);
        top.requester___05Fresponses___05Fready = !stalls(RESPONSES);
        top.memory___05Freads___05Fready = !stalls(READS);
        top.memory___05Fswaps___05Fready = !stalls(SWAPS);
        drive_fault_unit();
        if (outstanding == NONE || due != cycle) return;
        bool error;
        uint64_t *word = memory.find(address, error);
        if (outstanding == READING) {
            const uint64_t value = word ? *word : 0;
            ++b.reads;
            log(READ, address, value, value, !error, error);
            top.memory___05Fdata___05Fpayload___05Fvalue = value;
            top.memory___05Fdata___05Fpayload___05Ferror = error;
            top.memory___05Fdata___05Fpayload___05Fid = id;
            top.memory___05Fdata___05Fvalid = 1;
            ++answered_reads;
            interfere();
        } else {
            const bool done = word && *word == old_value;
            if (done) *word = new_value;
            ++b.swaps;
            b.failed_swaps += !done;
            log(SWAP, address, old_value, new_value, done, error);
            top.memory___05Fswapped___05Fpayload___05Fdone = done;
            top.memory___05Fswapped___05Fpayload___05Ferror = error;
            top.memory___05Fswapped___05Fpayload___05Fid = id;
            top.memory___05Fswapped___05Fvalid = 1;
        }
        outstanding = NONE;
    }

#ifdef PTEWALK_FAULT_UNIT
    // Takes every fault, retires each grant `latency` cycles after it, and drains when there is nothing else to do.
    void drive_fault_unit() {
        top.supervisor___05Ffaults___05Fready = 1;
        top.supervisor___05Fdrain = over;
        top.requester___05Fretired___05Fvalid = !grants.empty() && grants.front().due <= cycle;
        if (top.requester___05Fretired___05Fvalid) {
            top.requester___05Fretired___05Fpayload___05Ftag = grants.front().tag;
            grants.pop_front();
        }
    }

    Status observe_fault_unit() {
        if (!top.supervisor___05Ffaults___05Fvalid) return COMPLETE;
        if (faults.empty()) return WRONG_FAULT;
        const Fault fault = faults.front();
        faults.pop_front();
        const bool same = fault.linear == top.supervisor___05Ffaults___05Fpayload___05Flinear &&
                          fault.code == top.supervisor___05Ffaults___05Fpayload___05Fcode && fault.tag == top.supervisor___05Ffaults___05Fpayload___05Ftag;
        return same ? COMPLETE : WRONG_FAULT;
    }

    Status settled() const {
        if (!faults.empty()) return MISSING_FAULT;
        return top.supervisor___05Fdrained ? COMPLETE : NOT_DRAINED;
    }

    // What an answered request leaves to be done.
    void follow_up() {
        const Request &request = b.requests[current];
        if (response.outcome == PAGE_FAULT && request.access != PROBE) faults.push_back({request.linear, response.code, response.tag});
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
        const bool response_valid = top.requester___05Fresponses___05Fvalid;
        const bool response_taken = response_valid && top.requester___05Fresponses___05Fready;
        const bool request_taken = presenting && top.requester___05Frequests___05Fready;
        const bool older = in_flight;
        if (request_taken && offering) return CONTEXT_OVERTAKEN;
        if (const Status status = observe_context()) return status;
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
        const Response now{top.requester___05Fresponses___05Fpayload___05Fphysical, 0,
                           static_cast<uint32_t>(top.requester___05Fresponses___05Fpayload___05Ftag),
                           top.requester___05Fresponses___05Fpayload___05Fcode, top.requester___05Fresponses___05Fpayload___05Foutcome,
                           top.requester___05Fresponses___05Fpayload___05Flevel, top.requester___05Fresponses___05Fpayload___05Fpwt,
                           top.requester___05Fresponses___05Fpayload___05Fpcd, top.requester___05Fresponses___05Fpayload___05Fpat, 0};
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
        const bool valid = top.memory___05Freads___05Fvalid;
        if (read_waits && (!valid || top.memory___05Freads___05Fpayload___05Faddress != address ||
                           top.memory___05Freads___05Fpayload___05Fid != id))
            return UNSTABLE_READ;
        read_waits = false;
        if (!valid) return COMPLETE;
        if (!walking) return STRAY_MEMORY;
        if (outstanding != NONE || swap_waits) return TWO_OUTSTANDING;
        address = top.memory___05Freads___05Fpayload___05Faddress;
        id = top.memory___05Freads___05Fpayload___05Fid;
        read_waits = !top.memory___05Freads___05Fready;
        if (!read_waits) {
            outstanding = READING;
            due = cycle + b.latency;
        }
        return COMPLETE;
    }

    Status swaps(bool walking) {
        const bool valid = top.memory___05Fswaps___05Fvalid;
        if (swap_waits && (!valid || top.memory___05Fswaps___05Fpayload___05Faddress != address ||
                           top.memory___05Fswaps___05Fpayload___05Fold != old_value || top.memory___05Fswaps___05Fpayload___05Fnew != new_value ||
                           top.memory___05Fswaps___05Fpayload___05Fid != id))
            return UNSTABLE_SWAP;
        swap_waits = false;
        if (!valid) return COMPLETE;
        if (!walking) return STRAY_MEMORY;
        if (outstanding != NONE || read_waits) return TWO_OUTSTANDING;
        address = top.memory___05Fswaps___05Fpayload___05Faddress;
        id = top.memory___05Fswaps___05Fpayload___05Fid;
        old_value = top.memory___05Fswaps___05Fpayload___05Fold;
        new_value = top.memory___05Fswaps___05Fpayload___05Fnew;
        swap_waits = !top.memory___05Fswaps___05Fready;
        if (!swap_waits) {
            outstanding = SWAPPING;
            due = cycle + b.latency;
        }
        return COMPLETE;
    }

    void idle() {
        top.requester___05Frequests___05Fvalid = 0;
        top.contexts___05Fvalid = 0;
        top.requester___05Fresponses___05Fready = 0;
        top.memory___05Freads___05Fready = 0;
        top.memory___05Fswaps___05Fready = 0;
        top.memory___05Fdata___05Fvalid = 0;
        top.memory___05Fswapped___05Fvalid = 0;
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
