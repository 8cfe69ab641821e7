// AXI4 at the pins of a Verilator model: channels, who sends and who takes, and a memory with a monitor.
//
// AXI_BITS, the width of data, comes from the build. In each cycle all is driven, the inputs settle, all is sampled,
// then the clock rises.

#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "Vtop.h"

namespace axi {

constexpr unsigned BYTES = AXI_BITS / 8, WORDS = AXI_BITS / 64;
enum : uint32_t { OKAY, EXOKAY, SLVERR, DECERR };
enum : uint32_t { FIXED, INCR, WRAP };
enum : uint32_t { COMPARE = 0b110001 };  // AWATOP: AtomicCompare

struct Random {
    uint64_t state;
    uint32_t draw() {
        uint64_t x = state += 0x9E3779B97F4A7C15u;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
        return static_cast<uint32_t>((x ^ (x >> 31)) >> 32);
    }
    bool happens(uint64_t threshold) { return threshold && draw() < threshold; }
    uint32_t below(uint32_t most) { return draw() % most; }
};

// A transfer of AW or AR.
struct Address {
    uint64_t addr = 0;
    uint32_t id = 0, len = 0, size = 0, burst = INCR, lock = 0, cache = 0, prot = 0, atop = 0;
    bool same(const Address &o) const {
        return addr == o.addr && id == o.id && len == o.len && size == o.size && burst == o.burst && lock == o.lock && cache == o.cache && prot == o.prot && atop == o.atop;
    }
};

// A transfer of W, R or B.
struct Beat {
    std::array<uint64_t, WORDS> data{};
    uint64_t strb = 0;
    uint32_t id = 0, resp = 0;
    bool last = false;
    bool same(const Beat &o) const { return data == o.data && strb == o.strb && id == o.id && resp == o.resp && last == o.last; }
    uint8_t byte(unsigned lane) const { return static_cast<uint8_t>(data[lane / 8] >> 8 * (lane % 8)); }
    void set_byte(unsigned lane, uint8_t value) {
        data[lane / 8] = (data[lane / 8] & ~(uint64_t{0xFF} << 8 * (lane % 8))) | uint64_t{value} << 8 * (lane % 8);
    }
};

inline void put_data(QData &pin, const Beat &b) { pin = b.data[0]; }
inline void get_data(const QData &pin, Beat &b) { b.data[0] = pin; }
template <size_t N> void put_data(VlWide<N> &pin, const Beat &b) {
    for (size_t i = 0; i < N; ++i) pin[i] = static_cast<EData>(b.data[i / 2] >> 32 * (i % 2));
}
template <size_t N> void get_data(const VlWide<N> &pin, Beat &b) {
    for (size_t i = 0; i < N; ++i) b.data[i / 2] = (i % 2 ? b.data[i / 2] : 0) | uint64_t{pin[i]} << 32 * (i % 2);
}

// The beats' addresses [IHI 0022, A3.4.1].
inline std::vector<uint64_t> addresses(const Address &a) {
    const uint64_t size = uint64_t{1} << a.size, whole = size * (a.len + 1);
    std::vector<uint64_t> found{a.addr};
    for (unsigned beat = 1; beat <= a.len; ++beat) {
        const uint64_t next = (found.back() & ~(size - 1)) + size, base = a.addr & ~(whole - 1);
        found.push_back(a.burst == FIXED ? a.addr : a.burst == WRAP ? base + (next - base) % whole : next);
    }
    return found;
}

// What the design sends, and what it takes, on the five channels of the interface whose ports begin with `p`.
#define AXI_FLOW_OUT(p, x)                                                      \
    static bool valid(const Vtop &t) { return t.p##_##x##valid; }               \
    static bool ready(const Vtop &t) { return t.p##_##x##ready; }               \
    static void set_ready(Vtop &t, bool v) { t.p##_##x##ready = v; }
#define AXI_FLOW_IN(p, x)                                                       \
    static bool ready(const Vtop &t) { return t.p##_##x##ready; }               \
    static void set_valid(Vtop &t, bool v) { t.p##_##x##valid = v; }
#define AXI_ADDRESS_OUT(Name, p, x)                                             \
    struct Name {                                                               \
        using Payload = axi::Address;                                           \
        AXI_FLOW_OUT(p, x)                                                      \
        template <class T> static auto atop(const T &t, int) -> decltype(static_cast<uint32_t>(t.p##_##x##atop)) { return t.p##_##x##atop; } \
        template <class T> static uint32_t atop(const T &, long) { return 0; }  \
        static void get(const Vtop &t, Payload &a) {                            \
            a.atop = atop(t, 0);                                                \
            a.id = t.p##_##x##id; a.addr = t.p##_##x##addr; a.len = t.p##_##x##len; a.size = t.p##_##x##size;        \
            a.burst = t.p##_##x##burst; a.lock = t.p##_##x##lock; a.cache = t.p##_##x##cache; a.prot = t.p##_##x##prot; \
        }                                                                       \
    };
#define AXI_ADDRESS_IN(Name, p, x)                                              \
    struct Name {                                                               \
        using Payload = axi::Address;                                           \
        AXI_FLOW_IN(p, x)                                                       \
        static void put(Vtop &t, const Payload &a) {                            \
            t.p##_##x##id = a.id; t.p##_##x##addr = a.addr; t.p##_##x##len = a.len; t.p##_##x##size = a.size;        \
            t.p##_##x##burst = a.burst; t.p##_##x##lock = a.lock; t.p##_##x##cache = a.cache; t.p##_##x##prot = a.prot; \
        }                                                                       \
    };
#define AXI_MANAGER_OF_DESIGN(Name, p)                                          \
    struct Name {                                                               \
        AXI_ADDRESS_OUT(Aw, p, aw)                                              \
        AXI_ADDRESS_OUT(Ar, p, ar)                                              \
        struct W {                                                              \
            using Payload = axi::Beat;                                          \
            AXI_FLOW_OUT(p, w)                                                  \
            static void get(const Vtop &t, Payload &b) { axi::get_data(t.p##_wdata, b); b.strb = t.p##_wstrb; b.last = t.p##_wlast; } \
        };                                                                      \
        struct B {                                                              \
            using Payload = axi::Beat;                                          \
            AXI_FLOW_IN(p, b)                                                   \
            static void put(Vtop &t, const Payload &b) { t.p##_bid = b.id; t.p##_bresp = b.resp; } \
        };                                                                      \
        struct R {                                                              \
            using Payload = axi::Beat;                                          \
            AXI_FLOW_IN(p, r)                                                   \
            static void put(Vtop &t, const Payload &b) {                        \
                axi::put_data(t.p##_rdata, b); t.p##_rid = b.id; t.p##_rresp = b.resp; t.p##_rlast = b.last; \
            }                                                                   \
        };                                                                      \
    };
#define AXI_SUBORDINATE_OF_DESIGN(Name, p)                                      \
    struct Name {                                                               \
        AXI_ADDRESS_IN(Aw, p, aw)                                               \
        AXI_ADDRESS_IN(Ar, p, ar)                                               \
        struct W {                                                              \
            using Payload = axi::Beat;                                          \
            AXI_FLOW_IN(p, w)                                                   \
            static void put(Vtop &t, const Payload &b) { axi::put_data(t.p##_wdata, b); t.p##_wstrb = b.strb; t.p##_wlast = b.last; } \
        };                                                                      \
        struct B {                                                              \
            using Payload = axi::Beat;                                          \
            AXI_FLOW_OUT(p, b)                                                  \
            static void get(const Vtop &t, Payload &b) { b.id = t.p##_bid; b.resp = t.p##_bresp; } \
        };                                                                      \
        struct R {                                                              \
            using Payload = axi::Beat;                                          \
            AXI_FLOW_OUT(p, r)                                                  \
            static void get(const Vtop &t, Payload &b) {                        \
                axi::get_data(t.p##_rdata, b); b.id = t.p##_rid; b.resp = t.p##_rresp; b.last = t.p##_rlast; \
            }                                                                   \
        };                                                                      \
    };

// Offers what is queued, in order, and not always at once.
template <class Channel> struct Sender {
    std::deque<typename Channel::Payload> queue;
    bool offered = false;
    void drive(Vtop &t, Random &random, uint64_t idle) {
        if (!offered && !queue.empty() && !random.happens(idle)) {
            Channel::put(t, queue.front());
            offered = true;
        }
        Channel::set_valid(t, offered);
    }
    bool sample(const Vtop &t) {
        if (!offered || !Channel::ready(t)) return false;
        offered = false;
        queue.pop_front();
        return true;
    }
    void reset() { queue.clear(), offered = false; }
};

// Takes what is offered, and not always; `broken`: an offer changed before it was taken.
template <class Channel> struct Taker {
    typename Channel::Payload payload{}, shown{};
    bool waits = false, broken = false;
    void drive(Vtop &t, Random &random, uint64_t stalls) { Channel::set_ready(t, !random.happens(stalls)); }
    bool sample(const Vtop &t) {
        const bool valid = Channel::valid(t);
        if (valid) Channel::get(t, payload);
        broken = broken || (waits && (!valid || !payload.same(shown)));
        waits = valid && !Channel::ready(t);
        shown = payload;
        return valid && !waits;
    }
    void reset() { waits = false; }
};

// How a memory answers.
struct Manner {
    uint64_t latency = 1, latency_spread = 0, mixed = 0, errors = 0, refusals = 0, monitored = 1;
    std::array<uint64_t, 5> stalls{};  // of aw, w, b, ar, r
};

// A memory behind the interface `I` of the design. A read is done as its first beat is offered, a write as its B is.
// IDs are answered in any order when `mixed`, each ID in its own.
template <class I> class Memory {
public:
    struct Burst {
        Address address;
        uint64_t due;
        std::vector<Beat> beats;
    };
    Memory(uint64_t base, size_t size) : base(base), bytes(size) {}
    virtual ~Memory() = default;
    Manner manner;
    std::string trouble;
    const uint64_t base;
    std::vector<uint8_t> bytes;
    uint64_t failed = 0, refused = 0;  // exclusive writes, exclusive reads

    uint64_t word(uint64_t at) const {
        uint64_t value = 0;
        for (unsigned i = 0; i < 8; ++i) value |= uint64_t{bytes[at - base + i]} << 8 * i;
        return value;
    }
    // A word, written by whoever: reservations of it end.
    void set_word(uint64_t at, uint64_t value) {
        for (unsigned i = 0; i < 8; ++i) bytes[at - base + i] = static_cast<uint8_t>(value >> 8 * i);
        end_reservations(at, at + 8);
    }
    bool quiet() const { return reading.empty() && writing.empty() && unpaired.empty() && beats.empty() && r.queue.empty() && b.queue.empty(); }
    // With the design.
    void reset() {
        reading.clear(), writing.clear(), unpaired.clear(), beats.clear(), reserved.clear();
        wholes = 0;
        ar.reset(), aw.reset(), w.reset(), r.reset(), b.reset();
    }
    void drive(Vtop &t, Random &random, uint64_t now) {
        answer(reading, random, now, true);
        answer(writing, random, now, false);
        aw.drive(t, random, manner.stalls[0]);
        w.drive(t, random, manner.stalls[1]);
        b.drive(t, random, manner.stalls[2]);
        ar.drive(t, random, manner.stalls[3]);
        r.drive(t, random, manner.stalls[4]);
    }
    void sample(const Vtop &t, Random &random, uint64_t now) {
        r.sample(t);
        b.sample(t);
        if (ar.sample(t)) {
            asked(ar.payload, false);
            reading.push_back({ar.payload, due(random, now), {}});
        }
        if (aw.sample(t)) {
            asked(aw.payload, true);
            unpaired.push_back(aw.payload);
        }
        if (w.sample(t)) {
            beats.push_back(w.payload);
            wholes += w.payload.last;
        }
        if (wholes && !unpaired.empty()) {
            Burst &one = writing.emplace_back(Burst{unpaired.front(), due(random, now), {}});
            unpaired.pop_front();
            --wholes;
            do one.beats.push_back(beats.front()), beats.pop_front();
            while (!one.beats.back().last);
            if (one.beats.size() != one.address.len + 1) trouble = "W is not as long as AW says";
        }
        if (ar.broken || aw.broken || w.broken) trouble = "a transfer changed before it was taken";
    }

protected:
    // AR or AW was taken; a burst is about to be done. An answer other than OKAY stands for it.
    virtual void asked(const Address &, bool) {}
    virtual uint32_t about(const Burst &, bool) { return OKAY; }
    virtual void done(const Burst &, bool, uint32_t) {}

private:
    uint64_t due(Random &random, uint64_t now) { return now + manner.latency + (manner.latency_spread ? random.below(static_cast<uint32_t>(manner.latency_spread + 1)) : 0); }

    // One burst whose time has come: of its ID the oldest.
    void answer(std::vector<Burst> &bursts, Random &random, uint64_t now, bool reads) {
        if (bursts.empty() || (reads ? !r.queue.empty() : b.queue.size() > 1)) return;
        size_t at = bursts.size();
        uint64_t seen = 0;  // IDs
        unsigned found = 0;
        for (size_t i = 0; i < bursts.size(); ++i) {
            const uint64_t id = uint64_t{1} << bursts[i].address.id % 64;
            if (!(seen & id) && bursts[i].due <= now && (at == bursts.size() || (manner.mixed && random.below(++found + 1) == 0))) at = i;
            seen |= id;
            if (!manner.mixed) break;
        }
        if (at == bursts.size()) return;
        const Burst one = bursts[at];
        bursts.erase(bursts.begin() + static_cast<long>(at));
        uint32_t resp = about(one, !reads);
        const Address &a = one.address;
        const auto places = addresses(a);
        for (const uint64_t place : places)
            if (place < base || (place & ~((uint64_t{1} << a.size) - 1)) + (uint64_t{1} << a.size) > base + bytes.size()) resp = DECERR;
        if (resp == OKAY && random.happens(manner.errors)) resp = SLVERR;
        reads ? finish_read(one, places, resp, random) : finish_write(one, places, resp);
        done(one, !reads, resp);
    }
    void finish_read(const Burst &one, const std::vector<uint64_t> &places, uint32_t resp, Random &random) {
        const Address &a = one.address;
        if (a.lock && resp == OKAY) {
            reserved.erase(a.id);
            if (manner.monitored && !random.happens(manner.refusals)) reserved[a.id] = a, resp = EXOKAY;
            else ++refused;
        }
        for (size_t i = 0; i < places.size(); ++i) {
            Beat beat;
            beat.id = a.id, beat.resp = resp, beat.last = i + 1 == places.size();
            const uint64_t from = places[i] & ~uint64_t{BYTES - 1};
            for (unsigned lane = 0; lane < BYTES && resp < SLVERR; ++lane)
                if (from + lane >= base && from + lane < base + bytes.size()) beat.set_byte(lane, bytes[from + lane - base]);
            r.queue.push_back(beat);
        }
    }
    // AtomicCompare of 16 bytes: what must be there is sent where the address points to [IHI 0022, atomic transactions].
    void finish_atomic(const Burst &one, uint32_t resp) {
        const Address &a = one.address;
        const bool upper = a.addr >> 3 & 1, two = a.len;
        const unsigned lane = a.addr / 8 % WORDS, pair = lane & ~1u;
        const uint64_t strobes = two ? 0xFF : uint64_t{0xFFFF} << 8 * pair;
        bool lawful = !a.lock && !(a.addr & 7) && a.burst == (upper ? WRAP : INCR) && (two ? WORDS == 1 && a.len == 1 && a.size == 3 : WORDS > 1 && a.size == 4);
        for (const Beat &beat : one.beats) lawful = lawful && beat.strb == strobes;
        if (!lawful) return void(trouble = "an atomic transaction is not lawful");
        const uint64_t low = one.beats[0].data[two ? 0 : pair], high = two ? one.beats[1].data[0] : one.beats[0].data[pair | 1];
        Beat found, told;
        found.id = told.id = a.id, found.resp = told.resp = resp, found.last = true;
        if (resp == OKAY) {
            found.data[lane] = word(a.addr);
            if (found.data[lane] == (upper ? high : low)) set_word(a.addr, upper ? low : high);
            else ++failed;
        }
        r.queue.push_back(found);
        b.queue.push_back(told);
    }
    void finish_write(const Burst &one, const std::vector<uint64_t> &places, uint32_t &resp) {
        const Address &a = one.address;
        if (a.atop) return a.atop == COMPARE ? finish_atomic(one, resp) : void(trouble = "an atomic transaction that no memory here takes");
        if (a.lock && resp == OKAY) {
            const auto kept = reserved.find(a.id);
            const bool good = kept != reserved.end() && kept->second.addr == a.addr && kept->second.len == a.len && kept->second.size == a.size;
            if (kept != reserved.end()) reserved.erase(kept);
            if (good) resp = EXOKAY;
            else ++failed;
        }
        if (resp == (a.lock ? EXOKAY : OKAY))
            for (size_t i = 0; i < places.size(); ++i) {
                const uint64_t from = places[i] & ~uint64_t{BYTES - 1};
                for (unsigned lane = 0; lane < BYTES; ++lane)
                    if (one.beats[i].strb >> lane & 1) bytes[from + lane - base] = one.beats[i].byte(lane);
                end_reservations(from, from + BYTES);
            }
        Beat beat;
        beat.id = a.id, beat.resp = resp;
        b.queue.push_back(beat);
    }
    void end_reservations(uint64_t from, uint64_t to) {
        for (auto kept = reserved.begin(); kept != reserved.end();) {
            const uint64_t first = kept->second.addr, last = first + ((kept->second.len + 1ull) << kept->second.size);
            kept = first < to && from < last ? reserved.erase(kept) : std::next(kept);
        }
    }

    Taker<typename I::Aw> aw;
    Taker<typename I::W> w;
    Taker<typename I::Ar> ar;
    Sender<typename I::B> b;
    Sender<typename I::R> r;
    std::vector<Burst> reading, writing;
    std::deque<Address> unpaired;
    std::deque<Beat> beats;
    unsigned wholes = 0;
    std::map<uint32_t, Address> reserved;
};

}  // namespace axi
