// The compiled lane of an MMU that caches: clock, requests, contexts, invalidations, memory and second writer in compiled
// code, beside a Verilator model in the caller's process. What happened is one log, which the golden TLB judges.
//
// cosim/bench/caching_lane.py calls it. records.h and pins.h are made at each build. In each cycle all is driven, the
// inputs settle, all is sampled, then the clock rises, as in cosim/bench/caching.py.

#include <array>
#include <cstring>
#include <deque>
#include <vector>

#include "Vtop.h"
#include "clock.h"
#include "caching_records.h"
#include "pins.h"
#include "records.h"
#include "words.h"
#ifdef AXI_BITS
#include "caching_axi.h"
#endif

namespace {

struct Random {
    uint64_t state;
    uint32_t draw() {
        uint64_t x = state += 0x9E3779B97F4A7C15u;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
        return static_cast<uint32_t>((x ^ (x >> 31)) >> 32);
    }
    bool happens(uint64_t threshold) { return draw() < threshold; }
};

struct Transfer {
    uint64_t address, old, new_, id;
};
struct Pending {
    uint64_t due;
    bool swaps;
    Transfer access;
};
struct InFlight {
    bool flying = false, granted = false, stores = false, probe = false;
    uint64_t retires = 0, linear = 0;
};

constexpr unsigned TAGS = 1024;
// An invalidation that waits, and the tags of what it waits for.
struct Waiting {
    uint8_t kind;
    unsigned left = 0;
    std::array<bool, TAGS> tags{};
    void add(size_t tag) { tags[tag] = true, ++left; }
    void drop(size_t tag) {
        left -= tags[tag];
        tags[tag] = false;
    }
};
constexpr uint64_t LATE = 5000;  // cycles without progress after which a request has timed out

class Run {
public:
    Run(CachingBatch &batch, Vtop &model, std::vector<CachingEvent> &events)
        : b(batch), top(model), log(events), random{batch.seed}, requests(reinterpret_cast<const Request *>(batch.requests)),
          contexts(reinterpret_cast<const Request *>(batch.contexts)), directives(reinterpret_cast<const Directive *>(batch.directives)),
          words(batch), lost_before(pins::lost_faults::get(model)), context_known(batch.go_on) {}

    uint32_t go() {
        while (!status && !done()) {
            drive();
            clock_low(top);
            sample();
            clock_high(top);
            ++cycle;
            if (cycle - progress > LATE) status = CachingStatus::LATE_ANSWER;
        }
        pins::requests::set_valid(top, false);
        pins::contexts::set_valid(top, false);
        pins::invalidations::set_valid(top, false);
        pins::drain::set(top, false);
        top.clk = 0;
        top.eval();
        b.cycles = cycle;
        return status;
    }

private:
    bool done() const {
        if (b.serial && !stopped && directive < b.directive_count) return false;
        return (stopped || next == b.request_count) && !offering && !flying && !granted && !draining && waiting.empty() && memory_is_quiet() && !offers_context &&
               !offers_invalidation && faults_seen + lost() >= faults_due;
    }
    bool memory_is_quiet() const {
#ifdef AXI_BITS
        return axi_words.quiet();
#else
        return pending.empty();
#endif
    }
    uint64_t lost() const { return static_cast<uint32_t>(pins::lost_faults::get(top) - lost_before); }

    CachingEvent &note(uint32_t kind) {
        CachingEvent &e = log.emplace_back();
        std::memset(&e, 0, sizeof e);
        e.kind = static_cast<uint8_t>(kind);
        e.cycle = cycle;
        return e;
    }

    // Which directives are due: in order, each so many cycles after the one before, and not before its request was accepted.
    void direct() {
        while (directive < b.directive_count) {
            const Directive &d = directives[directive];
            if (d.request > accepted || cycle < last_directive + d.delay) return;
            if (b.serial && (offers_context || offers_invalidation)) return;  // the one before is not taken yet
            if (d.kind == DirectiveKind::CHANGE) {
                bool error;
                uint64_t *const word = words.find(d.address, error);
                CachingEvent &e = note(CachingKind::FOREIGN);
                e.address = d.address;
                e.new_ = d.value;
                if (word) *word = d.value;
#ifdef AXI_BITS
                axi_words.written(d.address);
#endif
            } else if (d.kind == DirectiveKind::CONTEXT) {
                if (offers_context) return;
                pins::contexts::put(top, contexts[d.index]);
                context = d.index;
                offers_context = true;
            } else {
                if (offers_invalidation) return;
                struct { uint64_t kind, linear, pcid, wait; } asked{d.invalidation, d.address, d.pcid, d.wait};
                pins::invalidations::put(top, asked);
                invalidation = directive;
                offers_invalidation = true;
            }
            last_directive = cycle;
            ++directive;
        }
    }

    void drive() {
#ifdef AXI_BITS
        axi_words.drive(top, axi_random, words, cycle, b.stalls, b.errors, [this](bool writes, uint64_t address) -> CachingEvent & {
            CachingEvent &e = note(writes ? CachingKind::SWAP : CachingKind::READ);
            e.address = address;
            return e;
        });
#else
        answer_memory();
#endif
        direct();
        if (!offering && next < b.request_count && may_offer() && !random.happens(b.idle)) offer();
        pins::requests::set_valid(top, offering);
        pins::contexts::set_valid(top, offers_context);
        pins::invalidations::set_valid(top, offers_invalidation);
        retire();
        if (context_known && next < b.request_count && random.happens(b.drains)) draining = true;
        pins::drain::set(top, draining);
        pins::responses::set_ready(top, !random.happens(b.stalls));
        pins::reads::set_ready(top, !random.happens(b.stalls));
        pins::swaps::set_ready(top, !random.happens(b.stalls));
        pins::faults::set_ready(top, !random.happens(b.stalls));
    }

    // One after the other: a request waits for the answer before it, and for what is to be done before it.
    bool may_offer() const {
        if (!b.serial) return context_known;
        const bool due = directive < b.directive_count && directives[directive].request <= accepted;
        return !stopped && !flying && !due && !offers_context && !offers_invalidation;
    }

    void offer() {
        for (uint64_t tried = 0; tried < b.tags; ++tried) {
            const uint64_t at = (tag + 1 + tried) % b.tags;
            if (tags[at].flying || tags[at].granted) continue;
            tag = at;
            Request r = requests[next];
            r.tag = static_cast<uint32_t>(tag);
            pins::requests::put(top, r);
            offering = true;
            return;
        }
    }

    void retire() {
        pins::retired::set_valid(top, false);
        if (!granted) return;
        for (uint64_t at = 0; at < b.tags; ++at) {
            if (!tags[at].granted || tags[at].retires > cycle) continue;
            struct { uint64_t tag; } gone{at};
            pins::retired::put(top, gone);
            pins::retired::set_valid(top, true);
            tags[at].granted = false;
            --granted;
            for (Waiting &w : waiting) w.drop(at);
            return;
        }
    }

    void answer_memory() {
        pins::data::set_valid(top, false);
        pins::swapped::set_valid(top, false);
        bool given[2] = {false, false};  // a channel gives one answer a cycle
        for (size_t at = 0; at < pending.size();) {
            if (pending[at].due > cycle || given[pending[at].swaps]) {
                ++at;
                continue;
            }
            const Pending p = pending[at];
            given[p.swaps] = true;
            pending.erase(pending.begin() + static_cast<long>(at));
            bool error;
            uint64_t *const word = words.find(p.access.address, error);
            error = error || random.happens(b.errors);
            CachingEvent &e = note(p.swaps ? CachingKind::SWAP : CachingKind::READ);
            e.address = p.access.address;
            e.error = error;
            e.index = static_cast<uint32_t>(p.access.id & pins::WALKER_MASK);
            if (p.swaps) {
                e.old = p.access.old;
                e.new_ = p.access.new_;
                e.done = !error && word && *word == p.access.old;
                if (e.done) *word = p.access.new_;
                struct { bool done, error; uint64_t id; } answer{e.done != 0, error, p.access.id};
                pins::swapped::put(top, answer);
                pins::swapped::set_valid(top, true);
            } else {
                e.old = error || !word ? 0 : *word;
                struct { uint64_t value; bool error; uint64_t id; } answer{e.old, error, p.access.id};
                pins::data::put(top, answer);
                pins::data::set_valid(top, true);
            }
        }
    }

    void sample() {
        if (offering && pins::requests::ready(top)) {
            CachingEvent &e = note(CachingKind::ACCEPT);
            e.tag = static_cast<uint32_t>(tag);
            e.index = static_cast<uint32_t>(next);
            const Request &r = requests[next++];
            InFlight &t = tags[tag];
            t = InFlight{};
            t.flying = true;
            t.linear = r.linear;
            t.stores = r.access == Access::WRITE || r.access == Access::RMW;
            t.probe = r.access == Access::PROBE;
            ++flying;
            ++accepted;
            b.accepted_waiting += !waiting.empty();
            offering = false;
            progress = cycle;
        }
        if (offers_context && pins::contexts::ready(top)) {
            note(CachingKind::CONTEXT).index = static_cast<uint32_t>(context);
            offers_context = false;
            context_known = true;
            progress = cycle;
        }
        if (offers_invalidation && pins::invalidations::ready(top)) {
            note(CachingKind::INVALIDATE).index = static_cast<uint32_t>(invalidation);
            if (directives[invalidation].wait != Wait::NONE) begin_wait(directives[invalidation].wait);
            offers_invalidation = false;
            progress = cycle;
        }
        if (pins::walked::valid(top)) {
            Walked w{};
            pins::walked::get(top, w);
            CachingEvent &e = note(CachingKind::WALK_END);
            e.tag = w.tag;
            e.index = static_cast<uint32_t>(pins::walker::get(top));
        }
#ifdef AXI_BITS
        axi_words.sample(top, cycle + b.latency + random.draw() % (b.latency_spread + 1));
        if (axi_words.broken()) status = CachingStatus::UNSTABLE;
#else
        sample_memory();
#endif
        sample_response();
        if (pins::faults::valid(top) && pins::faults::ready(top)) {
            Fault f{};
            pins::faults::get(top, f);
            CachingEvent &e = note(CachingKind::FAULT);
            e.address = f.linear;
            e.code = f.code;
            e.tag = f.tag;
            ++faults_seen;
        }
        if (draining && pins::drained::get(top)) {
            if (flying || granted) status = CachingStatus::DRAINED_EARLY;
            draining = false;
            ++b.drains_done;
            progress = cycle;
        }
        if (pins::completions::valid(top)) {
            struct { uint8_t wait; } completion{};
            pins::completions::get(top, completion);
            if (waiting.empty() || waiting.front().left || waiting.front().kind != completion.wait) {
                status = CachingStatus::COMPLETE_EARLY;
                return;
            }
            ++(completion.wait == Wait::STORES ? b.completed_stores : b.completed_all);
            waiting.pop_front();
            progress = cycle;
        }
    }

    void begin_wait(uint8_t kind) {
        Waiting &w = waiting.emplace_back();
        w.kind = kind;
        for (size_t at = 0; at < b.tags; ++at)
            if (tags[at].flying || (tags[at].granted && (tags[at].stores || kind == Wait::ALL))) w.add(at);
    }

    void sample_memory() {
        const bool read = pins::reads::valid(top), swap = pins::swaps::valid(top);
        if ((read_waits && (!read || !pins::reads::same(top, waiting_read))) ||
            (swap_waits && (!swap || !pins::swaps::same(top, waiting_swap))))
            status = CachingStatus::UNSTABLE;
        if (read) begin(false, waiting_read, read_waits);
        else read_waits = false;
        if (swap) begin(true, waiting_swap, swap_waits);
        else swap_waits = false;
    }

    void begin(bool swaps, Transfer &access, bool &waits) {
        access = Transfer{};
        bool ready;
        if (swaps) {
            pins::swaps::get(top, access);
            ready = pins::swaps::ready(top);
        } else {
            pins::reads::get(top, access);
            ready = pins::reads::ready(top);
        }
        waits = !ready;
        if (!ready) return;
        for (const Pending &other : pending)
            if ((other.access.id & pins::WALKER_MASK) == (access.id & pins::WALKER_MASK)) status = CachingStatus::TWO_OUTSTANDING;
        pending.push_back({cycle + b.latency + random.draw() % (b.latency_spread + 1), swaps, access});
    }

    void sample_response() {
        const bool valid = pins::responses::valid(top);
        if (response_waits && (!valid || !pins::responses::same(top, response))) status = CachingStatus::UNSTABLE;
        response_waits = false;
        if (!valid) return;
        response = Response{};
        pins::responses::get(top, response);
        if (!pins::responses::ready(top)) {
            response_waits = true;
            return;
        }
        if (response.tag >= TAGS || !tags[response.tag].flying) {
            status = CachingStatus::STRAY_ANSWER;
            return;
        }
        InFlight &t = tags[response.tag];
        CachingEvent &e = note(CachingKind::ANSWER);
        e.tag = response.tag;
        e.address = response.physical;
        e.code = response.code;
        e.outcome = response.outcome;
        e.level = response.level;
        e.pwt = response.pwt;
        e.pcd = response.pcd;
        e.pat = response.pat;
        t.flying = false;
        --flying;
        progress = cycle;
        stopped = stopped || (b.stop_on_fault && response.outcome != Outcome::OK);
        const bool grants = response.outcome == Outcome::OK && (t.stores || (pins::READ_GRANTS && !t.probe));
        for (Waiting &w : waiting)
            if (!grants || !(t.stores || w.kind == Wait::ALL)) w.drop(response.tag);
        if (grants) {
            t.granted = true;
            t.retires = cycle + 1 + random.draw() % 31;
            ++granted;
        }
        faults_due += response.outcome == Outcome::PAGE_FAULT && !t.probe;
    }

    CachingBatch &b;
    Vtop &top;
    std::vector<CachingEvent> &log;
    Random random;
    const Request *const requests, *const contexts;
    const Directive *const directives;
    const Words words;
    const uint64_t lost_before;
    uint32_t status = 0;
    uint64_t cycle = 0, progress = 0, next = 0, accepted = 0, directive = 0, last_directive = 0;
    uint64_t flying = 0, granted = 0, faults_due = 0, faults_seen = 0, tag = 0, context = 0, invalidation = 0;
    bool offering = false, offers_context = false, offers_invalidation = false, context_known, draining = false, stopped = false;
    bool read_waits = false, swap_waits = false, response_waits = false;
    Transfer waiting_read{}, waiting_swap{};
    Response response{};
    std::vector<Pending> pending;
#ifdef AXI_BITS
    AxiWords axi_words;
    axi::Random axi_random{random.state};
#endif
    std::deque<Waiting> waiting;
    std::array<InFlight, TAGS> tags{};
};

struct Lane {
    VerilatedContext context;
    Vtop top{&context};
    std::vector<CachingEvent> log;
};

}  // namespace

extern "C" {
uint64_t ptewalk_caching_size() { return sizeof(CachingBatch); }
void *ptewalk_caching_open() { return new Lane; }
void ptewalk_caching_close(void *lane) { delete static_cast<Lane *>(lane); }

// One run, from a reset of four cycles, or going on from where the run before it ended.
int64_t ptewalk_caching_run(void *handle, void *batch) {
    Lane &lane = *static_cast<Lane *>(handle);
    CachingBatch &b = *static_cast<CachingBatch *>(batch);
    for (int edge = 0; edge < 8 && !b.go_on; ++edge) {
        lane.top.rst = 1;
        lane.top.clk = edge & 1;
        lane.top.eval();
    }
    lane.top.rst = 0;
    lane.top.clk = 0;
    lane.top.eval();
    lane.log.clear();
    const uint32_t status = Run(b, lane.top, lane.log).go();
    b.log = reinterpret_cast<uint64_t>(lane.log.data());
    b.log_count = lane.log.size();
    b.delivered_faults = pins::delivered_faults::get(lane.top);
    b.lost_faults = pins::lost_faults::get(lane.top);
    b.marks = pins::marks::get(lane.top);
    b.mends = pins::mends::get(lane.top);
    b.hits = pins::hits::get(lane.top);
    b.overtaken = pins::overtaken::get(lane.top);
    b.replays = pins::replays::get(lane.top);
    b.wraps = pins::wraps::get(lane.top);
    return status;
}
}
