// A stand-in for ptewalk_walker with the same ports: follows P and PS, sets A, and checks no rights. `pkrs` names a defect
// that it then has, so that one build serves all tests of the testbench.
module ptewalk_walker(
  input clk, input rst,
  input [63:0] i_requests__payload__linear, input [2:0] i_requests__payload__access, input i_requests__payload__user,
  input i_requests__payload__implicit, input i_requests__payload__ac, input [7:0] i_requests__payload__tag,
  input i_requests__valid, output i_requests__ready,
  output [1:0] o_responses__payload__outcome, output [15:0] o_responses__payload__code,
  output [39:0] o_responses__payload__physical, output [2:0] o_responses__payload__level, output o_responses__payload__pwt,
  output o_responses__payload__pcd, output o_responses__payload__pat, output [7:0] o_responses__payload__tag,
  output o_responses__valid, input o_responses__ready,
  output [39:0] o_reads__payload__address, output o_reads__valid, input o_reads__ready,
  input [63:0] i_data__payload__value, input i_data__payload__error, input i_data__valid,
  output [39:0] o_swaps__payload__address, output [63:0] o_swaps__payload__old, output [63:0] o_swaps__payload__new,
  output o_swaps__valid, input o_swaps__ready,
  input i_swapped__payload__done, input i_swapped__payload__error, input i_swapped__valid,
  input [27:0] root, input [7:0] control, input [31:0] pkru, input [31:0] pkrs, input [1:0] track, input saved_dirty
);
  localparam NEVER_ACCEPTS = 1, NEVER_ANSWERS = 2, ANSWERS_TWICE = 3, READS_AFTERWARDS = 4, CHANGES_RESPONSE = 5,
             CHANGES_READ = 6, DROPS_SWAP = 7, READS_TWICE = 8, ACCEPTS_TWO = 9, DROPS_RESPONSE = 10;
  localparam IDLE = 0, READ = 1, WAIT = 2, SWAP = 3, SWAPPED = 4, DONE = 5, AGAIN = 6;

  reg [2:0] state = IDLE;
  reg [2:0] level = 0;
  reg [27:0] frame = 0;
  reg [63:0] linear = 0, entry = 0;
  reg [7:0] tag = 0;
  reg [1:0] outcome = 0;
  reg toggle = 0;

  wire [63:0] shifted = linear >> (12 + 9 * (level - 1));
  wire [39:0] address = {frame, shifted[8:0], 3'b0};
  wire [63:0] value = i_data__payload__value;
  wire [63:0] now = state == WAIT ? value : entry;
  wire leaf = level == 1 || (now[7] && level <= 3);
  wire [39:0] offset = level == 1 ? 40'hfff : level == 2 ? 40'h1fffff : 40'h3fffffff;

  assign i_requests__ready = (state == IDLE && pkrs != NEVER_ACCEPTS) || (pkrs == ACCEPTS_TWO && state == WAIT);
  assign o_reads__valid = state == READ || (pkrs == READS_TWICE && state == WAIT) || (pkrs == READS_AFTERWARDS && state == AGAIN);
  assign o_reads__payload__address = address ^ (pkrs == CHANGES_READ ? {toggle, 3'b0} : 0);
  assign o_swaps__valid = state == SWAP && !(pkrs == DROPS_SWAP && toggle);
  assign o_swaps__payload__address = address;
  assign o_swaps__payload__old = entry;
  assign o_swaps__payload__new = entry | 64'h20;
  assign o_responses__valid = pkrs != NEVER_ANSWERS && (
      (state == DONE && !(pkrs == DROPS_RESPONSE && toggle)) || (state == AGAIN && pkrs == ANSWERS_TWICE));
  assign o_responses__payload__outcome = outcome;
  assign o_responses__payload__code = 0;
  assign o_responses__payload__physical =
      ((entry[39:0] & ~40'hfff & ~offset) | (linear[39:0] & offset)) ^ (pkrs == CHANGES_RESPONSE ? toggle : 0);
  assign o_responses__payload__level = level;
  assign o_responses__payload__pwt = entry[3];
  assign o_responses__payload__pcd = entry[4];
  assign o_responses__payload__pat = 0;
  assign o_responses__payload__tag = tag;

  always @(posedge clk) begin
    toggle <= !toggle && state != IDLE;
    if (rst) state <= IDLE;
    else case (state)
      IDLE: if (i_requests__valid && i_requests__ready) begin
        linear <= i_requests__payload__linear;
        tag <= i_requests__payload__tag;
        frame <= root;
        level <= control[7] ? 5 : 4;
        state <= READ;
      end
      READ: if (o_reads__ready) state <= WAIT;
      WAIT: if (i_data__valid) begin
        entry <= value;
        outcome <= i_data__payload__error ? 3 : !value[0] ? 1 : 0;
        if (i_data__payload__error || !value[0]) state <= DONE;
        else if (!value[5]) state <= SWAP;
        else if (leaf) state <= DONE;
        else begin
          frame <= value[39:12];
          level <= level - 1;
          state <= READ;
        end
      end
      SWAP: if (o_swaps__valid && o_swaps__ready) state <= SWAPPED;
      SWAPPED: if (i_swapped__valid) begin
        outcome <= i_swapped__payload__error ? 3 : 0;
        if (i_swapped__payload__error) state <= DONE;
        else if (!i_swapped__payload__done) state <= READ;
        else if (leaf) state <= DONE;
        else begin
          frame <= entry[39:12];
          level <= level - 1;
          state <= READ;
        end
      end
      DONE: if (o_responses__valid && o_responses__ready)
        state <= pkrs == ANSWERS_TWICE || pkrs == READS_AFTERWARDS ? AGAIN : IDLE;
      AGAIN: if (pkrs == ANSWERS_TWICE ? o_responses__ready : o_reads__ready) state <= IDLE;
    endcase
  end
endmodule
