// The compiled lane of a unit that is used by its registers: clock, a manager of AXI4-Lite and the tables' memory in
// compiled code, beside a model in the caller's process. Between two accesses the clock stands still.
//
// cosim/bench/unit_lane.py calls it. unit_records.h is made at each build. In each cycle all is driven, the inputs
// settle, all is sampled, then the clock rises.

#include <cstring>
#include <optional>
#include <vector>

#include "Vtop.h"
#include "clock.h"
#include "unit_records.h"
#include "words.h"
#include "caching_axi.h"

namespace {

constexpr unsigned LATE = 5000;  // cycles after which an access to a register has timed out
constexpr int UNSTABLE = -1, TOO_LATE = -2;

// The memory that software and unit share, and room for reports beside it.
class WithRoom {
public:
    explicit WithRoom(const UnitMemory &given) : words(given), room(given) {}
    // As `Words::find`.
    uint64_t *find(uint64_t address, bool &error) const {
        const uint64_t at = (address - room.room_base) / 8;
        if (address < room.room_base || at >= room.room_words) return words.find(address, error);
        error = false;
        return reinterpret_cast<uint64_t *>(room.room) + at;
    }

private:
    const Words words;
    const UnitMemory room;
};

class Lane {
public:
    std::vector<UnitEvent> log;

    void reset() {
        for (int edge = 0; edge < 8; ++edge) {
            top.rst = 1;
            top.clk = edge & 1;
            top.eval();
        }
        top.rst = 0;
        top.clk = 0;
        top.eval();
        axi = AxiWords{};
        log.clear();
        cycle = 0;
    }
    // Memory as it is from now on; software may have written anything, so no reservation stands.
    void remember(const UnitMemory &given) {
        memory = given;
        words.emplace(given);
        axi.forget();
        random.state = given.seed;
    }
    // The response; or less than 0.
    int read(uint32_t offset, uint32_t &value) {
        top.s_axil_araddr = offset;
        bool asking = true;
        quiet();
        for (unsigned spent = 0; spent < LATE; ++spent) {
            top.s_axil_arvalid = asking;
            top.s_axil_rready = !stalls();
            low();
            const bool taken = asking && top.s_axil_arready, answered = top.s_axil_rvalid && top.s_axil_rready;
            const int response = top.s_axil_rresp;
            if (answered) value = top.s_axil_rdata;
            high();
            asking = asking && !taken;
            if (axi.broken()) return UNSTABLE;
            if (answered) return response;
        }
        return TOO_LATE;
    }
    int write(uint32_t offset, uint32_t value) {
        top.s_axil_awaddr = offset;
        top.s_axil_wdata = value;
        top.s_axil_wstrb = 15;
        bool addressing = true, sending = true;
        quiet();
        for (unsigned spent = 0; spent < LATE; ++spent) {
            top.s_axil_awvalid = addressing;
            top.s_axil_wvalid = sending;
            top.s_axil_bready = !stalls();
            low();
            const bool addressed = addressing && top.s_axil_awready, sent = sending && top.s_axil_wready;
            const bool answered = top.s_axil_bvalid && top.s_axil_bready;
            const int response = top.s_axil_bresp;
            high();
            addressing = addressing && !addressed, sending = sending && !sent;
            if (axi.broken()) return UNSTABLE;
            if (answered) return response;
        }
        return TOO_LATE;
    }
    int wait(unsigned cycles) {
        quiet();
        for (unsigned spent = 0; spent < cycles; ++spent) low(), high();
        return axi.broken() ? UNSTABLE : 0;
    }
    uint64_t cycles() const { return cycle; }

private:
    // Nothing is offered or taken.
    void quiet() { top.s_axil_arvalid = top.s_axil_awvalid = top.s_axil_wvalid = top.s_axil_rready = top.s_axil_bready = 0; }
    bool stalls() { return random.happens(memory.stalls); }

    void low() {
        axi.drive(top, random, *words, cycle, memory.stalls, 0, [this](bool writes, uint64_t address) -> UnitEvent & {
            UnitEvent &e = log.emplace_back();
            std::memset(&e, 0, sizeof e);
            e.writes = writes;
            e.address = address;
            return e;
        });
        clock_low(top);
    }
    void high() {
        axi.sample(top, cycle + memory.latency + (memory.latency_spread ? random.below(static_cast<uint32_t>(memory.latency_spread) + 1) : 0));
        clock_high(top);
        ++cycle;
    }

    VerilatedContext context;
    Vtop top{&context};
    AxiWords axi;
    axi::Random random{0};
    UnitMemory memory{};
    std::optional<WithRoom> words;
    uint64_t cycle = 0;
};

}  // namespace

extern "C" {
uint64_t ptewalk_unit_size() { return sizeof(UnitMemory) + sizeof(UnitEvent); }
void *ptewalk_unit_open() { return new Lane; }
void ptewalk_unit_close(void *lane) { delete static_cast<Lane *>(lane); }
void ptewalk_unit_reset(void *lane) { static_cast<Lane *>(lane)->reset(); }
void ptewalk_unit_memory(void *lane, const UnitMemory *memory) { static_cast<Lane *>(lane)->remember(*memory); }
int ptewalk_unit_read(void *lane, uint32_t offset, uint32_t *value) { return static_cast<Lane *>(lane)->read(offset, *value); }
int ptewalk_unit_write(void *lane, uint32_t offset, uint32_t value) { return static_cast<Lane *>(lane)->write(offset, value); }
int ptewalk_unit_wait(void *lane, uint32_t cycles) { return static_cast<Lane *>(lane)->wait(cycles); }
uint64_t ptewalk_unit_cycles(void *lane) { return static_cast<Lane *>(lane)->cycles(); }
// What memory was asked for since the last call; where it lies until the next access.
const UnitEvent *ptewalk_unit_events(void *lane, uint64_t *count) {
    static thread_local std::vector<UnitEvent> told;
    told.clear();
    told.swap(static_cast<Lane *>(lane)->log);
    *count = told.size();
    return told.data();
}
}
