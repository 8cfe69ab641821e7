// Made part of the compiled lane of an MMU that caches whose tables lie behind AXI4 or AXI5: memory with a monitor, and with
// atomic transactions, one word at a time. It stands for the streams of the memory port.

#pragma once
#include <map>

#include "axi.h"
#include "words.h"

namespace {

AXI_MANAGER_OF_DESIGN(TableBus, m_axi)

class AxiWords {
public:
    struct Access {
        uint64_t due;
        bool writes;
        axi::Address address;
        axi::Beat beat, second;  // the second is of an atomic transaction
        bool atomic() const { return writes && address.atop == axi::COMPARE; }
    };
    bool broken() const { return unlawful || ar.broken || aw.broken || w.broken; }
    bool quiet() const { return pending.empty() && addresses.empty() && beats.empty(); }

    // Answers whose time has come; `note(writes, address)` makes an event of each.
    template <class Note>
    void drive(Vtop &t, axi::Random &random, const Words &words, uint64_t now, uint64_t stalls, uint64_t errors, Note note) {
        for (size_t at = 0; at < pending.size();) {
            const Access one = pending[at];
            bool waits = one.due > now || (one.writes && !b.queue.empty()) || ((!one.writes || one.atomic()) && !r.queue.empty());
            for (size_t before = 0; before < at; ++before)  // answers of an ID come in the order of its accesses
                waits = waits || (pending[before].writes == one.writes && pending[before].address.id == one.address.id);
            if (waits) {
                ++at;
                continue;
            }
            pending.erase(pending.begin() + static_cast<long>(at));
            bool error;
            uint64_t *const word = words.find(one.address.addr, error);
            error = error || random.happens(errors);
            auto &event = note(one.writes, one.address.addr);
            event.error = error;
            axi::Beat answer;
            answer.id = one.address.id, answer.last = true, answer.resp = error ? axi::SLVERR : axi::OKAY;
            const unsigned lane = one.address.addr / 8 % axi::WORDS;
            if (one.atomic()) {
                const bool upper = one.address.addr >> 3 & 1, two = one.address.len;
                const uint64_t low = one.beat.data[two ? 0 : lane & ~1u], high = two ? one.second.data[0] : one.beat.data[lane | 1u];
                axi::Beat found = answer;
                found.data[lane] = error || !word ? 0 : *word;
                event.old = upper ? high : low;
                event.new_ = upper ? low : high;
                event.done = word && !error && *word == event.old;
                if (event.done) *word = event.new_, written(one.address.addr);
                r.queue.push_back(found);
                b.queue.push_back(answer);
            } else if (one.writes && !one.address.lock) {  // a plain one, of whatever bytes
                event.old = word ? *word : 0;
                event.done = word && !error;
                for (unsigned byte = 0; byte < 8 && event.done; ++byte) {
                    const uint64_t mask = uint64_t{0xFF} << 8 * byte;
                    if (one.beat.strb >> (8 * lane + byte) & 1) *word = (*word & ~mask) | (one.beat.data[lane] & mask);
                }
                event.new_ = word ? *word : 0;
                if (event.done) written(one.address.addr & ~uint64_t{7});
                b.queue.push_back(answer);
            } else if (one.writes) {
                const auto own = reserved.find(one.address.id);
                const bool good = word && !error && own != reserved.end() && own->second == one.address.addr;
                if (!error) reserved.erase(one.address.id);
                event.old = word ? *word : 0;
                event.new_ = one.beat.data[lane];
                event.done = good;
                if (good) *word = one.beat.data[lane], answer.resp = axi::EXOKAY, written(one.address.addr);
                b.queue.push_back(answer);
            } else {
                if (one.address.lock && !error) answer.resp = axi::EXOKAY, reserved[one.address.id] = one.address.addr;
                event.old = error || !word ? 0 : *word;
                answer.data[lane] = event.old;
                r.queue.push_back(answer);
            }
        }
        aw.drive(t, random, stalls);
        w.drive(t, random, stalls);
        ar.drive(t, random, stalls);
        b.drive(t, random, stalls);
        r.drive(t, random, stalls);
    }
    void sample(const Vtop &t, uint64_t due) {
        b.sample(t);
        r.sample(t);
        if (ar.sample(t)) pending.push_back({due, false, ar.payload, {}, {}});
        if (aw.sample(t)) addresses.push_back(aw.payload);
        if (w.sample(t)) beats.push_back(w.payload);
        if (addresses.empty() || beats.size() <= addresses.front().len) return;
        Access &one = pending.emplace_back(Access{due, true, addresses.front(), beats.front(), {}});
        addresses.pop_front(), beats.pop_front();
        if (one.address.len) one.second = beats.front(), beats.pop_front();
        unlawful = unlawful || !lawful(one);
    }
    // Somebody may have written anywhere.
    void forget() { reserved.clear(); }
    // Somebody wrote there: whose reservation it was, it is over.
    void written(uint64_t address) {
        for (auto one = reserved.begin(); one != reserved.end();) one = one->second == address ? reserved.erase(one) : std::next(one);
    }

private:
    // Of what is not a word, only AtomicCompare of 16 bytes whose ID is nobody else's [IHI 0022, atomic transactions].
    bool lawful(const Access &one) const {
        if (!one.atomic()) return !one.address.atop && !one.address.len && one.beat.last;
        const bool two = one.address.len, upper = one.address.addr >> 3 & 1;
        unsigned same = 0;
        for (const Access &other : pending) same += other.address.id == one.address.id;
        const unsigned lane = one.address.addr / 8 % axi::WORDS & ~1u;
        const bool strobes = two ? one.beat.strb == 0xFF && one.second.strb == 0xFF : one.beat.strb == uint64_t{0xFFFF} << 8 * lane;
        return strobes && same == 1 && !one.address.lock && !(one.address.addr & 7) && one.address.burst == (upper ? axi::WRAP : axi::INCR) &&
               (two ? axi::WORDS == 1 && one.address.len == 1 && one.address.size == 3 && !one.beat.last && one.second.last
                    : axi::WORDS > 1 && one.address.size == 4 && one.beat.last);
    }
    bool unlawful = false;
    axi::Taker<TableBus::Aw> aw;
    axi::Taker<TableBus::W> w;
    axi::Taker<TableBus::Ar> ar;
    axi::Sender<TableBus::B> b;
    axi::Sender<TableBus::R> r;
    std::vector<Access> pending;
    std::deque<axi::Address> addresses;
    std::deque<axi::Beat> beats;
    std::map<uint64_t, uint64_t> reserved;  // ID to address
};

}  // namespace
