// A stand-in for ptewalk_walker with the same ports: follows P and PS, sets A, and checks no rights. `pkrs` names a defect
// that it then has, so that one build serves all tests of the testbench.
module ptewalk_walker(
  input clk, input rst,
  input [63:0] requester__requests__payload__linear, input [2:0] requester__requests__payload__access,
  input requester__requests__payload__user, input requester__requests__payload__implicit,
  input requester__requests__payload__ac, input [7:0] requester__requests__payload__tag,
  input requester__requests__valid, output requester__requests__ready,
  output [1:0] requester__responses__payload__outcome, output [15:0] requester__responses__payload__code,
  output [39:0] requester__responses__payload__physical, output [2:0] requester__responses__payload__level,
  output requester__responses__payload__pwt, output requester__responses__payload__pcd,
  output requester__responses__payload__pat, output [7:0] requester__responses__payload__tag,
  output requester__responses__valid, input requester__responses__ready,
  input [27:0] contexts__payload__root, input [7:0] contexts__payload__control, input [31:0] contexts__payload__pkru,
  input [31:0] contexts__payload__pkrs, input [1:0] contexts__payload__track, input contexts__payload__saved_dirty,
  input contexts__valid, output contexts__ready,
  output [39:0] memory__reads__payload__address, output [1:0] memory__reads__payload__id, output memory__reads__valid,
  input memory__reads__ready,
  input [63:0] memory__data__payload__value, input memory__data__payload__error, input [1:0] memory__data__payload__id,
  input memory__data__valid,
  output [39:0] memory__swaps__payload__address, output [63:0] memory__swaps__payload__old,
  output [63:0] memory__swaps__payload__new, output [1:0] memory__swaps__payload__id, output memory__swaps__valid,
  input memory__swaps__ready,
  input memory__swapped__payload__done, input memory__swapped__payload__error, input [1:0] memory__swapped__payload__id,
  input memory__swapped__valid
);
  localparam NEVER_ACCEPTS = 1, NEVER_ANSWERS = 2, ANSWERS_TWICE = 3, READS_AFTERWARDS = 4, CHANGES_RESPONSE = 5,
             CHANGES_READ = 6, DROPS_SWAP = 7, READS_TWICE = 8, ACCEPTS_TWO = 9, DROPS_RESPONSE = 10,
             CONTEXT_IN_FLIGHT = 11, CONTEXT_LATE = 12;
  localparam IDLE = 0, READ = 1, WAIT = 2, SWAP = 3, SWAPPED = 4, DONE = 5, AGAIN = 6;

  reg [2:0] state = IDLE;
  reg [2:0] level = 0;
  reg [27:0] frame = 0;
  reg [63:0] linear = 0, entry = 0;
  reg [7:0] tag = 0;
  reg [1:0] outcome = 0;
  reg toggle = 0;
  reg [27:0] root = 0;
  reg [7:0] control = 0;
  reg [31:0] pkrs = 0;

  wire [63:0] shifted = linear >> (12 + 9 * (level - 1));
  wire [39:0] address = {frame, shifted[8:0], 3'b0};
  wire [63:0] value = memory__data__payload__value;
  wire [63:0] now = state == WAIT ? value : entry;
  wire leaf = level == 1 || (now[7] && level <= 3);
  wire [39:0] offset = level == 1 ? 40'hfff : level == 2 ? 40'h1fffff : 40'h3fffffff;

  // A context on offer goes first; those two defects show from the second request on, whose context is another.
  wire late = pkrs == CONTEXT_LATE && contexts__valid;
  assign contexts__ready = (state == IDLE && !late) || (pkrs == CONTEXT_IN_FLIGHT && state == WAIT);
  assign requester__requests__ready =
      (state == IDLE && pkrs != NEVER_ACCEPTS && (!contexts__valid || late)) || (pkrs == ACCEPTS_TWO && state == WAIT);
  // Any id will do, as long as it comes back.
  assign memory__reads__payload__id = address[4:3];
  assign memory__swaps__payload__id = address[5:4];
  wire data = memory__data__valid && memory__data__payload__id == address[4:3];
  wire swapped = memory__swapped__valid && memory__swapped__payload__id == address[5:4];
  assign memory__reads__valid = state == READ || (pkrs == READS_TWICE && state == WAIT) || (pkrs == READS_AFTERWARDS && state == AGAIN);
  assign memory__reads__payload__address = address ^ (pkrs == CHANGES_READ ? {toggle, 3'b0} : 0);
  assign memory__swaps__valid = state == SWAP && !(pkrs == DROPS_SWAP && toggle);
  assign memory__swaps__payload__address = address;
  assign memory__swaps__payload__old = entry;
  assign memory__swaps__payload__new = entry | 64'h20;
  assign requester__responses__valid = pkrs != NEVER_ANSWERS && (
      (state == DONE && !(pkrs == DROPS_RESPONSE && toggle)) || (state == AGAIN && pkrs == ANSWERS_TWICE));
  assign requester__responses__payload__outcome = outcome;
  assign requester__responses__payload__code = 0;
  assign requester__responses__payload__physical =
      ((entry[39:0] & ~40'hfff & ~offset) | (linear[39:0] & offset)) ^ (pkrs == CHANGES_RESPONSE ? toggle : 0);
  assign requester__responses__payload__level = level;
  assign requester__responses__payload__pwt = entry[3];
  assign requester__responses__payload__pcd = entry[4];
  assign requester__responses__payload__pat = 0;
  assign requester__responses__payload__tag = tag;

  always @(posedge clk) begin
    toggle <= !toggle && state != IDLE;
    if (contexts__valid && contexts__ready) begin
      root <= contexts__payload__root;
      control <= contexts__payload__control;
      pkrs <= contexts__payload__pkrs;
    end
    if (rst) begin
      state <= IDLE;
      pkrs <= 0;
    end else case (state)
      IDLE: if (requester__requests__valid && requester__requests__ready) begin
        linear <= requester__requests__payload__linear;
        tag <= requester__requests__payload__tag;
        frame <= root;
        level <= control[7] ? 5 : 4;
        state <= READ;
      end
      READ: if (memory__reads__ready) state <= WAIT;
      WAIT: if (data) begin
        entry <= value;
        outcome <= memory__data__payload__error ? 3 : !value[0] ? 1 : 0;
        if (memory__data__payload__error || !value[0]) state <= DONE;
        else if (!value[5]) state <= SWAP;
        else if (leaf) state <= DONE;
        else begin
          frame <= value[39:12];
          level <= level - 1;
          state <= READ;
        end
      end
      SWAP: if (memory__swaps__valid && memory__swaps__ready) state <= SWAPPED;
      SWAPPED: if (swapped) begin
        outcome <= memory__swapped__payload__error ? 3 : 0;
        if (memory__swapped__payload__error) state <= DONE;
        else if (!memory__swapped__payload__done) state <= READ;
        else if (leaf) state <= DONE;
        else begin
          frame <= entry[39:12];
          level <= level - 1;
          state <= READ;
        end
      end
      DONE: if (requester__responses__valid && requester__responses__ready)
        state <= pkrs == ANSWERS_TWICE || pkrs == READS_AFTERWARDS ? AGAIN : IDLE;
      AGAIN: if (pkrs == ANSWERS_TWICE ? requester__responses__ready : memory__reads__ready) state <= IDLE;
    endcase
  end
endmodule
