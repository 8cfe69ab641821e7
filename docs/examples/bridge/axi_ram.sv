// A memory on AXI4 with 64 bits of data: INCR bursts of whole words, one burst of each direction at a time. It takes no
// notice of AxLOCK, as most memory controllers of FPGAs.
module axi_ram #(
    parameter ADDRESS_BITS = 40,
    parameter ID_BITS = 4,
    parameter WORDS = 8192
) (
    input wire clk,
    input wire rst,
    input wire [ID_BITS-1:0] awid,
    input wire [ADDRESS_BITS-1:0] awaddr,
    input wire awvalid,
    output wire awready,
    input wire [63:0] wdata,
    input wire [7:0] wstrb,
    input wire wlast,
    input wire wvalid,
    output wire wready,
    output reg [ID_BITS-1:0] bid,
    output wire [1:0] bresp,
    output reg bvalid,
    input wire bready,
    input wire [ID_BITS-1:0] arid,
    input wire [ADDRESS_BITS-1:0] araddr,
    input wire [7:0] arlen,
    input wire arvalid,
    output wire arready,
    output reg [ID_BITS-1:0] rid,
    output wire [63:0] rdata,
    output wire [1:0] rresp,
    output wire rlast,
    output wire rvalid,
    input wire rready
);
  reg [63:0] words[0:WORDS-1];
  reg writing, reading;
  reg [$clog2(WORDS)-1:0] write_at, read_at;
  reg [7:0] left;
  integer lane;

  assign awready = !writing && !bvalid;
  assign wready = writing;
  assign bresp = 2'b00;
  assign arready = !reading;
  assign rvalid = reading;
  assign rdata = words[read_at];
  assign rlast = left == 0;
  assign rresp = 2'b00;

  always @(posedge clk) begin
    if (awvalid && awready) begin
      writing <= 1;
      write_at <= awaddr[3+:$clog2(WORDS)];
      bid <= awid;
    end
    if (wvalid && wready) begin
      for (lane = 0; lane < 8; lane = lane + 1)
        if (wstrb[lane]) words[write_at][8*lane+:8] <= wdata[8*lane+:8];
      write_at <= write_at + 1;
      if (wlast) begin
        writing <= 0;
        bvalid <= 1;
      end
    end
    if (bvalid && bready) bvalid <= 0;
    if (arvalid && arready) begin
      reading <= 1;
      read_at <= araddr[3+:$clog2(WORDS)];
      left <= arlen;
      rid <= arid;
    end
    if (rvalid && rready) begin
      read_at <= read_at + 1;
      left <= left - 1;
      if (rlast) reading <= 0;
    end
    if (rst) begin
      writing <= 0;
      reading <= 0;
      bvalid <= 0;
    end
  end
endmodule
