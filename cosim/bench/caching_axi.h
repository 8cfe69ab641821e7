// Made part of the compiled lanes of what has its tables behind AXI4 or AXI5: memory with a monitor, and with atomic
// transactions. What is asked for is a word at a time, or, by a table engine, a line.

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
        std::vector<axi::Beat> beats;
        bool atomic() const { return writes && address.atop == axi::COMPARE; }
    };
    bool broken() const { return unlawful || ar.broken || aw.broken || w.broken; }
    bool quiet() const { return pending.empty() && addresses.empty() && beats.empty(); }

    // Answers whose time has come, a burst all at once; `note(writes, address)` makes an event of each word. `words.find` is
    // that of `Words`.
    template <class Memory, class Note>
    void drive(Vtop &t, axi::Random &random, const Memory &words, uint64_t now, uint64_t stalls, uint64_t errors, Note note) {
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
            std::vector<Place> places = places_of(one.address);
            bool error = false;
            for (Place &place : places) {
                bool absent;
                place.word = words.find(place.address, absent);
                error = error || absent;
            }
            error = error || random.happens(errors);
            if (one.atomic()) finish_atomic(one, places.front(), error, note);
            else if (one.writes) finish_write(one, places, error, note);
            else finish_read(one, places, error, note);
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
        if (ar.sample(t)) {
            pending.push_back({due, false, ar.payload, {}});
            unlawful = unlawful || !lawful(pending.back());
        }
        if (aw.sample(t)) addresses.push_back(aw.payload);
        if (w.sample(t)) beats.push_back(w.payload);
        if (addresses.empty() || beats.size() <= addresses.front().len) return;
        const long length = addresses.front().len + 1;
        Access &one = pending.emplace_back(Access{due, true, addresses.front(), {beats.begin(), beats.begin() + length}});
        addresses.pop_front(), beats.erase(beats.begin(), beats.begin() + length);
        unlawful = unlawful || !lawful(one);
    }
    // Somebody may have written anywhere.
    void forget() { reserved.clear(); }
    // Somebody wrote to the word there: whose reservation it was, it is over.
    void written(uint64_t address) {
        for (auto one = reserved.begin(); one != reserved.end();) {
            const axi::Address &kept = one->second;
            const uint64_t end = kept.addr + ((kept.len + 1ull) << kept.size);
            one = address >= kept.addr && address < end ? reserved.erase(one) : std::next(one);
        }
    }

private:
    // A word of a burst: where it is, and in which beat and lane it goes.
    struct Place {
        uint64_t address;
        unsigned beat, lane;
        uint64_t *word;
    };
    static std::vector<Place> places_of(const axi::Address &a) {
        std::vector<Place> found;
        const unsigned words = a.atop || a.size < 3 ? 1 : (1u << a.size) / 8, length = a.atop ? 1 : a.len + 1;
        for (unsigned beat = 0; beat < length; ++beat)
            for (unsigned i = 0; i < words; ++i) {
                const uint64_t address = a.addr + 8 * (beat * words + i);
                found.push_back({address, beat, static_cast<unsigned>(address / 8 % axi::WORDS), nullptr});
            }
        return found;
    }
    static axi::Beat answer_to(const Access &one, bool error) {
        axi::Beat answer;
        answer.id = one.address.id, answer.last = true, answer.resp = error ? axi::SLVERR : axi::OKAY;
        return answer;
    }

    template <class Note> void finish_atomic(const Access &one, const Place &place, bool error, Note note) {
        auto &event = note(true, place.address);
        event.error = error;
        const bool upper = place.address >> 3 & 1, two = one.address.len;
        const unsigned lane = place.lane;
        const uint64_t low = one.beats[0].data[two ? 0 : lane & ~1u], high = two ? one.beats[1].data[0] : one.beats[0].data[lane | 1u];
        const axi::Beat answer = answer_to(one, error);
        axi::Beat found = answer;
        found.data[lane] = error || !place.word ? 0 : *place.word;
        event.old = upper ? high : low;
        event.new_ = upper ? low : high;
        event.done = place.word && !error && *place.word == event.old;
        if (event.done) *place.word = event.new_, written(place.address);
        r.queue.push_back(found);
        b.queue.push_back(answer);
    }
    // Bytes with a strobe; an exclusive one of what its ID has reserved, all of it or none.
    template <class Note> void finish_write(const Access &one, const std::vector<Place> &places, bool error, Note note) {
        const bool exclusive = one.address.lock;
        bool good = !error;
        if (exclusive) {
            const auto own = reserved.find(one.address.id);
            good = good && own != reserved.end() && own->second.addr == one.address.addr && own->second.len == one.address.len;
            if (!error && own != reserved.end()) reserved.erase(own);
            for (const Place &place : places) good = good && place.word;
        }
        for (const Place &place : places) {
            const axi::Beat &beat = one.beats[place.beat];
            uint64_t mask = 0;
            for (unsigned byte = 0; byte < 8; ++byte)
                if (beat.strb >> (8 * place.lane + byte) & 1) mask |= uint64_t{0xFF} << 8 * byte;
            if (!mask) continue;
            auto &event = note(true, place.address);
            event.error = error;
            event.old = place.word ? *place.word : 0;
            event.new_ = (event.old & ~mask) | (beat.data[place.lane] & mask);
            event.done = place.word && good;
            if (event.done) *place.word = event.new_, written(place.address & ~uint64_t{7});
        }
        axi::Beat answer = answer_to(one, error);
        if (exclusive && good) answer.resp = axi::EXOKAY;
        b.queue.push_back(answer);
    }
    template <class Note> void finish_read(const Access &one, const std::vector<Place> &places, bool error, Note note) {
        axi::Beat answer = answer_to(one, error);
        if (one.address.lock && !error) answer.resp = axi::EXOKAY, reserved[one.address.id] = one.address;
        for (size_t at = 0; at < places.size(); ++at) {
            const Place &place = places[at];
            auto &event = note(false, place.address);
            event.error = error;
            event.old = error || !place.word ? 0 : *place.word;
            answer.data[place.lane] = event.old;
            answer.last = place.beat == one.address.len;
            if (at + 1 == places.size() || places[at + 1].beat != place.beat) r.queue.push_back(answer);
        }
    }

    // Words, lines of whole beats that cross no line of 128 bytes, and AtomicCompare of 16 bytes whose ID is nobody else's
    // [IHI 0022, exclusive accesses, atomic transactions].
    bool lawful(const Access &one) const {
        const axi::Address &a = one.address;
        if (!one.atomic()) {
            for (size_t beat = 0; beat < one.beats.size(); ++beat)
                if (one.beats[beat].last != (beat == a.len)) return false;
            const uint64_t bytes = (a.len + 1ull) << a.size;
            const bool whole = a.size <= 3 || (1u << a.size) == axi::BYTES;
            return !a.atop && a.burst == axi::INCR && whole && (!a.len || ((1u << a.size) == axi::BYTES && bytes <= 128)) && !(a.addr & (bytes - 1));
        }
        const bool two = a.len, upper = a.addr >> 3 & 1;
        unsigned same = 0;
        for (const Access &other : pending) same += other.address.id == a.id;
        const unsigned lane = a.addr / 8 % axi::WORDS & ~1u;
        const axi::Beat &beat = one.beats.front(), &second = one.beats.back();
        const bool strobes = two ? beat.strb == 0xFF && second.strb == 0xFF : beat.strb == uint64_t{0xFFFF} << 8 * lane;
        return strobes && same == 1 && !a.lock && !(a.addr & 7) && a.burst == (upper ? axi::WRAP : axi::INCR) &&
               (two ? axi::WORDS == 1 && a.len == 1 && a.size == 3 && !beat.last && second.last
                    : axi::WORDS > 1 && a.size == 4 && beat.last);
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
    std::map<uint32_t, axi::Address> reserved;  // ID to what it read last
};

}  // namespace
