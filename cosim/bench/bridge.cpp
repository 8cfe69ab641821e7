// The compiled lane of the translating bridge: a master, memory for data and for tables, and software that clears and
// unmaps, beside a Verilator model in the caller's process.
//
// cosim/bench/bridge_lane.py calls it; bridge_records.h is made at each build. Judged here: each byte that is read is
// that of the last write before it or of one that overlaps it; a store lands in a page that is marked, or is being
// cleared; a mark has its store; nothing reaches a page after its unmapping is complete; AXI's rules of what the
// design sends.

#include <cstring>

#include "bridge_records.h"
#include "axi.h"
#include "clock.h"
#include "last_written.h"

using axi::Address, axi::Beat, axi::Random;

namespace {

AXI_SUBORDINATE_OF_DESIGN(Above, s_axi)
AXI_MANAGER_OF_DESIGN(Below, m_axi)
AXI_MANAGER_OF_DESIGN(Tables, t_axi)

constexpr uint64_t PAGE = 4096, LATE = 20000;
constexpr unsigned CHANNELS = 5;
// Pages from LINEAR on: those that are mapped, then these three.
constexpr unsigned MAPPED = 5, UNMAPPED = MAPPED, READ_ONLY = MAPPED + 1, BROKEN = MAPPED + 2, PAGES = MAPPED + 3;

class Run;

struct DataMemory : axi::Memory<Below> {
    DataMemory(uint64_t base, size_t size) : Memory(base, size) {}
    Run *run = nullptr;
    void asked(const Address &a, bool write) override;
    uint32_t about(const Burst &one, bool write) override;
    void done(const Burst &one, bool write, uint32_t resp) override;
};

class Run {
public:
    Run(BridgeBatch &batch, Vtop &model, std::string &told, std::vector<uint64_t> &times)
        : b(batch), top(model), problem(told), log(times), random{batch.seed}, data(batch.frame, PAGES * PAGE), tables(0, 0x5000),
          book(PAGES * PAGE), transactions(book.transactions), reading(book.reading), writing(book.writing) {
        data.run = this;
        data.manner = {b.latency, b.latency_spread, b.mixed, b.errors, 0, 1, {}};
        tables.manner = {b.table_latency, b.table_latency_spread, b.mixed, b.table_errors, b.refusals, b.monitored, {}};
        for (unsigned at = 0; at < CHANNELS; ++at) data.manner.stalls[at] = b.stalls[CHANNELS + at], tables.manner.stalls[at] = b.stalls[2 * CHANNELS + at];
        for (unsigned level = 4; level > 1; --level)
            tables.set_word(0x1000 * (5 - level) + (b.linear >> (3 + 9 * level) & 511) * 8, 0x1000 * (6 - level) | b.upper_entry);
        for (unsigned page = 0; page < PAGES; ++page) tables.set_word(leaf(page), entry(page));
    }

    void go() {
        restart();
        while (problem.empty() && (made < b.count || under_way || acting)) {
            cycle_once();
            if (cycle - progress > LATE) problem = "no progress";
            if (made > b.count / 8 && made < b.count && random.happens(b.resets)) reset_all();
        }
        for (unsigned idle = 0; idle < 200 && problem.empty(); ++idle) cycle_once();
        if (problem.empty()) settle();
        b.cycles = cycle;
        b.failed_swaps = tables.failed, b.refused_reads = tables.refused;
        b.judged = book.judged, b.choices = book.choices;
    }

    // Called by the memory of data.
    void sent(const Address &a, bool write) {
        const unsigned page = page_of(a.addr);
        if (page >= PAGES) return tell("memory is asked for what is mapped nowhere");
        if (gone[page]) tell("a burst was sent to a page whose unmapping is complete");
        if (page == UNMAPPED || (write && page == READ_ONLY)) tell("a burst was sent that must fault");
        if (write && (a.cache & 1)) tell("a write was sent that is bufferable");
        if (write) wrote[page] = true, owed[page] = false, ++b.sent_writes;
    }
    void lands(const Address &a, bool write) {
        const unsigned page = page_of(a.addr);
        if (gone[page]) tell("memory is accessed in a page whose unmapping is complete");
        if (!write || changing[page]) return;
        const uint64_t found = tables.word(leaf(page)), wanted = b.dirty | b.accessed | (b.tracks ? b.mark : 0);
        if ((found & wanted) != wanted) tell("a store lands without its mark");
        ++b.marked_stores;
    }
    bool broken(const Address &a) const { return page_of(a.addr) == BROKEN; }

private:
    unsigned page_of(uint64_t physical) const { return static_cast<unsigned>((physical - b.frame) / PAGE); }
    uint64_t leaf(unsigned page) const { return 0x4000 + ((b.linear >> 12) + page & 511) * 8; }
    uint64_t entry(unsigned page) const {
        if (page == UNMAPPED) return 0;
        return (b.frame + page * PAGE) | (page == READ_ONLY ? b.read_only_leaf : b.clean_leaf);
    }
    void tell(const char *text) {
        if (problem.empty()) problem = std::string(text) + ", cycle " + std::to_string(cycle);
    }

    void restart() {
        for (int edge = 0; edge < 8; ++edge) {
            top.rst = 1;
            top.clk = edge & 1;
            top.eval();
        }
        top.rst = 0;
        top.clk = 0;
        top.control___05Fenable = 1;
        top.control___05Ffinal_response = 1;
        top.control___05Ffault_mode = b.stall_mode;
        top.control___05Ftimeout = static_cast<uint32_t>(b.timeout);
        top.contexts___05Fpayload___05Froot = 1;
        top.contexts___05Fpayload___05Fcontrol = static_cast<CData>(b.control);
        top.contexts___05Fpayload___05Ftrack = static_cast<CData>(b.track);
        offers_context = true;
        context_known = false;
    }

    // In the middle of everything: what was on its way may have been done or not.
    void reset_all() {
        ++b.resets_done;
        aw.reset(), w.reset(), ar.reset(), r.reset(), answers.reset();
        data.reset(), tables.reset();
        for (unsigned id = 0; id < IDS; ++id) reading[id].clear(), writing[id].clear(), got[id].clear();
        unaddressed.clear(), unsent.clear(), unasked.clear();
        under_way = 0;
        counts_records = false;
        if (acting) {
            for (unsigned page = 0; page < PAGES; ++page) changing[page] = false;
            if (acting == UNMAPS && !gone[target]) gone[target] = true, pause = 20;
            if (acting == CLEARS) acting = 0;
            if (acting == UNMAPS) acting = AWAY;
            offers_invalidation = waits = false;
        }
        for (unsigned page = 0; page < PAGES; ++page) owed[page] = false;
        for (unsigned page = 0; page < PAGES; ++page) wrote[page] = wrote[page] || (tables.word(leaf(page)) & b.mark);
        restart();
    }

    void cycle_once() {
        act();
        if (context_known && made < b.count && under_way < b.outstanding && aw.queue.size() < 2 && ar.queue.size() < 2 && !random.happens(b.idle)) make();
        data.drive(top, random, cycle);
        tables.drive(top, random, cycle);
        aw.drive(top, random, b.stalls[0]);
        w.drive(top, random, b.stalls[1]);
        answers.drive(top, random, b.stalls[2]);
        ar.drive(top, random, b.stalls[3]);
        r.drive(top, random, b.stalls[4]);
        top.contexts___05Fvalid = offers_context;
        top.invalidations___05Fvalid = offers_invalidation;
        top.faults___05Fready = !random.happens(b.stalls[4]);
        decide();
        clock_low(top);
        sample();
        clock_high(top);
        ++cycle;
    }

    // What software makes of a burst that is stalled.
    void decide() {
        top.control___05Fretry_read = top.control___05Fabort_read = top.control___05Fretry_write = top.control___05Fabort_write = 0;
        if (!b.stall_mode || random.below(64)) return;
        (random.below(2) ? top.control___05Fretry_read : top.control___05Fabort_read) = 1;
        (random.below(2) ? top.control___05Fretry_write : top.control___05Fabort_write) = 1;
    }

    void make() {
        Transaction t{};
        Address &a = t.address;
        t.lawful = true;
        if (b.directed) {
            t.write = b.directed == 2 || (b.directed == 3 && made % 2);
            t.page = made % MAPPED;
            a.id = made % IDS;
            a.len = static_cast<uint32_t>(b.beats - 1);
            a.size = __builtin_ctz(axi::BYTES);
            a.addr = b.linear + t.page * PAGE + 16 * axi::BYTES * (made % (PAGE / (16 * axi::BYTES)));
        } else {
            t.write = random.below(2);
            t.page = random.below(4) ? random.below(MAPPED) : random.below(PAGES);
            a.id = random.below(IDS);
            a.burst = random.below(8) ? axi::INCR : random.below(2) ? axi::FIXED : axi::WRAP;
            a.size = random.below(2) ? __builtin_ctz(axi::BYTES) : random.below(__builtin_ctz(axi::BYTES) + 1);
            static const uint32_t beats[] = {1, 1, 1, 2, 4, 7, 16, 30};
            a.len = a.burst == axi::INCR ? beats[random.below(8)] - 1 : (2u << random.below(4)) - 1;
            uint64_t offset = random.below(0xA0) + (random.below(16) ? 0 : 0xF20);
            if (a.burst == axi::WRAP || random.below(2)) offset &= ~((uint64_t{1} << a.size) - 1);
            a.addr = b.linear + t.page * PAGE + offset;
            a.cache = random.below(16);
            const auto places = axi::addresses(a);
            t.lawful = places.back() / PAGE == a.addr / PAGE && (a.burst != axi::WRAP || places.front() % (1u << a.size) == 0);
            b.illegal += !t.lawful;
        }
        t.begin = cycle;
        t.epoch = epochs[t.page];
        t.absent = absent[t.page], t.gone = gone[t.page];
        const uint32_t number = static_cast<uint32_t>(transactions.size());
        if (t.write) {
            const auto places = axi::addresses(a);
            const bool none = !b.directed && !random.below(16), whole = b.directed || random.below(2);
            for (size_t i = 0; i < places.size(); ++i) {
                Beat beat;
                beat.last = i + 1 == places.size();
                for (auto &one : beat.data) one = uint64_t{random.draw()} << 32 | random.draw();
                const uint64_t first = places[i], end = (first & ~((uint64_t{1} << a.size) - 1)) + (uint64_t{1} << a.size);
                for (uint64_t at = first; at < end; ++at)
                    if (!none && (whole || random.below(2))) beat.strb |= uint64_t{1} << at % axi::BYTES;
                t.still = t.still && !beat.strb;
                t.beats.push_back(beat);
                w.queue.push_back(beat);
            }
            aw.queue.push_back(a);
            unaddressed.push_back(number), unsent.push_back(number);
            writing[a.id].push_back(number);
        } else {
            ar.queue.push_back(a);
            reading[a.id].push_back(number);
            unasked.push_back(number);
        }
        transactions.push_back(std::move(t));
        const Transaction &kept = transactions.back();
        if (kept.write && kept.lawful) {
            const auto places = axi::addresses(kept.address);
            for (size_t i = 0; i < places.size(); ++i)
                for (unsigned lane = 0; lane < axi::BYTES; ++lane)
                    if (kept.beats[i].strb >> lane & 1)
                        book.touch(number, (places[i] & ~uint64_t{axi::BYTES - 1}) + lane - b.linear, kept.beats[i].byte(lane), cycle);
        }
        ++made, ++under_way;
    }

    // Whether the burst may be refused; whether it may be done.
    bool may_fail(const Transaction &t) const {
        if (!t.lawful || t.page == UNMAPPED || b.may_err) return true;
        if (t.page == READ_ONLY) return t.write;
        if (t.page == BROKEN) return !t.write || !t.still;
        return t.absent || epochs[t.page] != t.epoch;
    }
    bool may_pass(const Transaction &t) const {
        if (!t.lawful || t.page == UNMAPPED) return false;
        if (t.page == READ_ONLY) return !t.write || t.still;
        if (t.page == BROKEN) return t.write && t.still;
        return !t.gone || epochs[t.page] != t.epoch;
    }

    void sample() {
        data.sample(top, random, cycle);
        tables.sample(top, random, cycle);
        if (!data.trouble.empty()) tell(data.trouble.c_str());
        if (!tables.trouble.empty()) tell(tables.trouble.c_str());
        if (aw.sample(top)) {
            transactions[unaddressed.front()].aw = cycle;
            begins(unaddressed.front());
            unaddressed.pop_front();
        }
        const bool last = w.offered && w.queue.front().last;
        if (w.sample(top) && last) {
            transactions[unsent.front()].w = cycle;
            begins(unsent.front());
            unsent.pop_front();
        }
        if (ar.sample(top)) {
            transactions[unasked.front()].begin = cycle;
            unasked.pop_front();
        }
        if (answers.sample(top)) answered(answers.payload);
        if (r.sample(top)) read(r.payload);
        if (answers.broken || r.broken) tell("an answer changed before it was taken");
        if (offers_context && top.contexts___05Fready) offers_context = false, context_known = true;
        if (offers_invalidation && top.invalidations___05Fready) offers_invalidation = false, waits = true;
        if (top.completions___05Fvalid) complete();
        if (top.faults___05Fvalid && top.faults___05Fready) record();
        overflowed = overflowed || top.status___05Ffault_overflow;
        if (top.mmu_status___05Ftag_reused || top.mmu_status___05Fstray_retirement) tell("a grant's tag was reused, or retired without a grant");
        if (!b.may_err && (top.port_status___05Fno_monitor || top.port_status___05Fretry_limit || top.port_status___05Foutcome_unknown)) tell("a swap was given up");
    }
    void begins(uint32_t number) {
        Transaction &t = transactions[number];
        if (t.aw != OPEN && t.w != OPEN) t.begin = cycle;
    }

    void answered(const Beat &answer) {
        if (answer.id >= IDS || writing[answer.id].empty()) return tell("B that nobody waits for");
        const uint32_t number = writing[answer.id].front();
        writing[answer.id].pop_front();
        Transaction &t = transactions[number];
        if (t.aw == OPEN || t.w == OPEN) return tell("B before AW or W was taken");
        finish(t, answer.resp);
        book.end(number, cycle, answer.resp < axi::SLVERR);
        if (b.directed) log.insert(log.end(), {1, t.begin, t.aw, cycle, cycle});
    }
    void read(const Beat &beat) {
        if (beat.id >= IDS || reading[beat.id].empty()) return tell("R that nobody waits for");
        Transaction &t = transactions[reading[beat.id].front()];
        auto &beats = got[beat.id];
        if (beats.empty()) firsts[beat.id] = cycle;
        beats.push_back(beat);
        if (beat.last != (beats.size() == t.address.len + 1)) return tell("RLAST is not at the last beat");
        if (!beat.last) return;
        for (const Beat &one : beats)
            if (one.resp != beat.resp) return tell("beats of a burst have answers of two kinds");
        reading[beat.id].pop_front();
        finish(t, beat.resp);
        const auto places = axi::addresses(t.address);
        for (size_t i = 0; i < places.size() && beat.resp < axi::SLVERR; ++i) {
            const uint64_t first = places[i], end = (first & ~((uint64_t{1} << t.address.size) - 1)) + (uint64_t{1} << t.address.size);
            for (uint64_t at = first; at < end; ++at)
                if (!book.permitted(at - b.linear, beats[i].byte(at % axi::BYTES), t.begin)) {
                    char text[120];
                    std::snprintf(text, sizeof text, "%#llx: read %#x, which is not permitted", static_cast<unsigned long long>(at), beats[i].byte(at % axi::BYTES));
                    return tell(text);
                }
        }
        if (b.directed) log.insert(log.end(), {0, t.begin, t.begin, firsts[beat.id], cycle});
        beats.clear();
    }
    void finish(Transaction &t, uint32_t resp) {
        const bool good = resp < axi::SLVERR;
        if (resp == axi::EXOKAY) tell("EXOKAY, and nothing is exclusive");
        if (resp == axi::DECERR) tell("DECERR, which nobody said");
        const unsigned asks = t.write ? 1 + t.still : 0;
        unsigned page = !t.lawful ? 4 : t.page < MAPPED ? 0 : t.page - MAPPED + 1;
        if (page == BROKEN - MAPPED + 1 && asks == 2) page = 0;  // memory is not asked
        ++b.bursts[((asks * 3 + t.address.burst) * 5 + page) * 2 + !good];
        if (good ? !may_pass(t) : !may_fail(t)) {
            char text[100];
            std::snprintf(text, sizeof text, "%s: page %u, begun in cycle %llu", good ? "a burst is answered that must fault" : "a burst is refused", t.page, static_cast<unsigned long long>(t.begin));
            tell(text);
        }
        b.refused += !good;
        ++b.answered;
        --under_way;
        progress = cycle;
        if (!good && (t.page != BROKEN || !t.lawful)) ++refused_here;
    }
    void record() {
        const uint64_t linear = top.faults___05Fpayload___05Flinear, page = (linear - b.linear) / PAGE;
        if (page >= PAGES) return tell("a record of a burst that nobody sent");
        ++b.records;
        if (!top.faults___05Fpayload___05Fstalled) ++records;
    }

    // Software: one thing after the other.
    void act() {
        if (b.directed || !context_known) return;
        if (!acting) {
            if (made >= b.count) return;
            const bool clears = random.happens(b.clears), unmaps = !clears && random.happens(b.unmaps);
            if (!clears && !unmaps) return;
            target = random.below(MAPPED);
            acting = clears ? CLEARS : UNMAPS;
            const uint64_t found = tables.word(leaf(target));
            if ((found & b.mark) && !wrote[target] && b.tracks) owed[target] = true;
            changing[target] = true;
            marked = found & b.mark;
            if (clears) {
                wrote[target] = false;
                tables.set_word(leaf(target), found & ~b.mark);
                b.cleared += marked;
                marked = false;
            } else {
                tables.set_word(leaf(target), 0);
                ++epochs[target];
                absent[target] = true;
            }
            ++b.clears_done;
            invalidate(clears && random.below(2) ? b.wait_stores : b.wait_all);
            ++b.around[4 * (clears ? waited == b.wait_all : 2) + (to_target(reading) ? 1 : 0) + (to_target(writing) ? 2 : 0)];
        } else if (acting == AWAY && (made >= b.count || !pause--)) {
            gone[target] = absent[target] = changing[target] = false;
            ++epochs[target];
            wrote[target] = owed[target] = false;
            tables.set_word(leaf(target), entry(target));
            acting = 0;
        }
    }
    bool to_target(const std::array<std::deque<uint32_t>, IDS> &bursts) const {
        for (const auto &of_id : bursts)
            for (const uint32_t number : of_id)
                if (transactions[number].page == target) return true;
        return false;
    }
    void invalidate(uint64_t wait) {
        top.invalidations___05Fpayload___05Fkind = static_cast<CData>(b.invlpg);
        top.invalidations___05Fpayload___05Flinear = b.linear + target * PAGE + random.below(PAGE);
        top.invalidations___05Fpayload___05Fpcid = 0;
        top.invalidations___05Fpayload___05Fwait = static_cast<CData>(wait);
        waited = wait;
        offers_invalidation = true;
    }
    void complete() {
        if (!waits || top.completions___05Fpayload___05Fwait != waited) return tell("an invalidation is complete that does not wait");
        waits = false;
        progress = cycle;
        if (owed[target]) tell("a page was marked, and nobody stored to it");
        changing[target] = false;
        if (acting == UNMAPS) gone[target] = true, acting = AWAY, pause = random.below(100);
        else acting = 0;
    }
    // All is answered.
    void settle() {
        top.clk = 0;
        top.eval();
        for (unsigned page = 0; page < MAPPED; ++page)
            if (b.tracks && (tables.word(leaf(page)) & b.mark) && !wrote[page]) tell("a page is marked at the end, and nobody stored to it");
        if (top.status___05Fbusy || top.granted) tell("a grant, or a burst, is left at the end");
        if (!data.quiet() || !tables.quiet()) tell("memory has something in work at the end");
        if (counts_records && !overflowed && !b.stall_mode && !b.may_err && records != refused_here) tell("as many records as bursts that were refused");
    }

    enum { CLEARS = 1, UNMAPS, AWAY };
    BridgeBatch &b;
    Vtop &top;
    std::string &problem;
    std::vector<uint64_t> &log;
    Random random;
    DataMemory data;
    axi::Memory<Tables> tables;
    Book book;
    std::deque<Transaction> &transactions;
    std::array<std::deque<uint32_t>, IDS> &reading, &writing;
    std::array<std::vector<Beat>, IDS> got;
    std::array<uint64_t, IDS> firsts{};
    std::deque<uint32_t> unaddressed, unsent, unasked;
    std::array<uint64_t, PAGES> epochs{};
    std::array<bool, PAGES> absent{}, gone{}, changing{}, wrote{}, owed{};
    axi::Sender<Above::Aw> aw;
    axi::Sender<Above::W> w;
    axi::Sender<Above::Ar> ar;
    axi::Taker<Above::B> answers;
    axi::Taker<Above::R> r;
    uint64_t cycle = 0, progress = 0, made = 0, under_way = 0, waited = 0, pause = 0, records = 0, refused_here = 0;
    unsigned acting = 0, target = 0;
    bool offers_context = false, context_known = false, offers_invalidation = false, waits = false, marked = false, overflowed = false, counts_records = true;
};

void DataMemory::asked(const Address &a, bool write) { run->sent(a, write); }
uint32_t DataMemory::about(const Burst &one, bool write) {
    run->lands(one.address, write);
    return run->broken(one.address) ? axi::SLVERR : axi::OKAY;
}
void DataMemory::done(const Burst &, bool, uint32_t) {}

struct Lane {
    VerilatedContext context;
    Vtop top{&context};
    std::string problem;
    std::vector<uint64_t> log;
};

}  // namespace

extern "C" {
uint64_t ptewalk_bridge_size() { return sizeof(BridgeBatch); }
void *ptewalk_bridge_open() { return new Lane; }
void ptewalk_bridge_close(void *lane) { delete static_cast<Lane *>(lane); }

// One run, from a reset; what went wrong first, or null.
const char *ptewalk_bridge_run(void *handle, void *batch) {
    Lane &lane = *static_cast<Lane *>(handle);
    BridgeBatch &b = *static_cast<BridgeBatch *>(batch);
    lane.problem.clear();
    lane.log.clear();
    Run(b, lane.top, lane.problem, lane.log).go();
    b.log = reinterpret_cast<uint64_t>(lane.log.data());
    b.log_count = lane.log.size() / 5;
    return lane.problem.empty() ? nullptr : lane.problem.c_str();
}
}
