// A DMA master stores through the bridge into virtual pages; software sets it up, and reads which pages were written,
// by registers alone. The map of registers is docs/registers.md.
`timescale 1ns / 1ps

module example_tb;
  localparam ID = 12'h000, CTRL = 12'h020, STATUS = 12'h024, DO = 12'h028, COMMAND = 12'h02c;
  localparam CR3_LO = 12'h084, TRACK = 12'h098, INV_LINEAR_LO = 12'h0c0, INV = 12'h0c8;
  localparam BRIDGE_FAULT = 12'h0e8, BRIDGE_LINEAR_LO = 12'h0f0;
  localparam MEMORY_ADDRESS_LO = 12'h120, MEMORY_OLD_LO = 12'h128, MEMORY_NEW_LO = 12'h130;
  localparam APPLY = 1, INVALIDATE = 2, SWAP = 5;
  localparam OKAY = 2'b00, SLVERR = 2'b10;
  localparam TABLE = 64'h4000;  // of the page tables' last level

  // Clock, reset, and the unit: a wire for each of its ports, and the instance.
  reg clock = 0, reset = 1;
  always #5 clock = !clock;
  `include "ptewalk_bridge.vh"
  assign clk = clock;
  assign rst = reset;

  // Its two memories: data, and tables, which the master cannot reach.
  axi_ram data (
      .clk(clk), .rst(rst),
      .awid(m_axi_awid), .awaddr(m_axi_awaddr), .awvalid(m_axi_awvalid), .awready(m_axi_awready),
      .wdata(m_axi_wdata), .wstrb(m_axi_wstrb), .wlast(m_axi_wlast), .wvalid(m_axi_wvalid), .wready(m_axi_wready),
      .bid(m_axi_bid), .bresp(m_axi_bresp), .bvalid(m_axi_bvalid), .bready(m_axi_bready),
      .arid(m_axi_arid), .araddr(m_axi_araddr), .arlen(m_axi_arlen), .arvalid(m_axi_arvalid), .arready(m_axi_arready),
      .rid(m_axi_rid), .rdata(m_axi_rdata), .rresp(m_axi_rresp), .rlast(m_axi_rlast), .rvalid(m_axi_rvalid),
      .rready(m_axi_rready)
  );
  axi_ram #(.ID_BITS(1)) tables (
      .clk(clk), .rst(rst),
      .awid(t_axi_awid), .awaddr(t_axi_awaddr), .awvalid(t_axi_awvalid), .awready(t_axi_awready),
      .wdata(t_axi_wdata), .wstrb(t_axi_wstrb), .wlast(t_axi_wlast), .wvalid(t_axi_wvalid), .wready(t_axi_wready),
      .bid(t_axi_bid), .bresp(t_axi_bresp), .bvalid(t_axi_bvalid), .bready(t_axi_bready),
      .arid(t_axi_arid), .araddr(t_axi_araddr), .arlen(t_axi_arlen), .arvalid(t_axi_arvalid), .arready(t_axi_arready),
      .rid(t_axi_rid), .rdata(t_axi_rdata), .rresp(t_axi_rresp), .rlast(t_axi_rlast), .rvalid(t_axi_rvalid),
      .rready(t_axi_rready)
  );

  // Registers.
  reg [11:0] register_at = 0;
  reg [31:0] register_value = 0;
  reg register_writes = 0, register_reads = 0;
  assign s_axil_awaddr = register_at;
  assign s_axil_awprot = 0;
  assign s_axil_awvalid = register_writes;
  assign s_axil_wdata = register_value;
  assign s_axil_wstrb = 4'hf;
  assign s_axil_wvalid = register_writes;
  assign s_axil_bready = 1;
  assign s_axil_araddr = register_at;
  assign s_axil_arprot = 0;
  assign s_axil_arvalid = register_reads;
  assign s_axil_rready = 1;

  // All that is driven here changes at a falling edge and is looked at at a rising one: no simulator can take it for
  // what it was before, or will be after.
  task write_register(input [11:0] at, input [31:0] value);
    begin
      @(negedge clk);
      register_at = at;
      register_value = value;
      register_writes = 1;
      @(posedge clk);
      while (!(s_axil_awready && s_axil_wready)) @(posedge clk);
      @(negedge clk);
      register_writes = 0;
      @(posedge clk);
      while (!s_axil_bvalid) @(posedge clk);
      check("a register's write", {62'b0, s_axil_bresp}, {62'b0, OKAY});
    end
  endtask

  task read_register(input [11:0] at, output [31:0] value);
    begin
      @(negedge clk);
      register_at = at;
      register_reads = 1;
      @(posedge clk);
      while (!s_axil_arready) @(posedge clk);
      @(negedge clk);
      register_reads = 0;
      @(posedge clk);
      while (!s_axil_rvalid) @(posedge clk);
      value = s_axil_rdata;
    end
  endtask

  // A command, with what was staged for it, until it has ended.
  task command(input [31:0] kind);
    reg [31:0] status;
    begin
      write_register(COMMAND, kind);
      status = 1;
      while (status[0]) read_register(STATUS, status);
    end
  endtask

  // The master: bursts of four words.
  reg [63:0] burst_at = 0, burst_value = 0;
  reg burst_writes = 0, burst_data = 0, burst_reads = 0;
  reg [1:0] beat = 0;
  assign s_axi_awid = 3;
  assign s_axi_awaddr = burst_at;
  assign s_axi_awlen = 3;
  assign s_axi_awsize = 3;
  assign s_axi_awburst = 2'b01;
  assign s_axi_awlock = 0;
  assign s_axi_awcache = 4'b0011;
  assign s_axi_awprot = 0;  // bit 0: unprivileged, so the user's
  assign s_axi_awqos = 0;
  assign s_axi_awvalid = burst_writes;
  assign s_axi_wdata = burst_value + {62'b0, beat};
  assign s_axi_wstrb = 8'hff;
  assign s_axi_wlast = beat == 3;
  assign s_axi_wvalid = burst_data;
  assign s_axi_bready = 1;
  assign s_axi_arid = 3;
  assign s_axi_araddr = burst_at;
  assign s_axi_arlen = 3;
  assign s_axi_arsize = 3;
  assign s_axi_arburst = 2'b01;
  assign s_axi_arlock = 0;
  assign s_axi_arcache = 4'b0011;
  assign s_axi_arprot = 0;
  assign s_axi_arqos = 0;
  assign s_axi_arvalid = burst_reads;
  assign s_axi_rready = 1;

  task write_burst(input [63:0] at, input [63:0] value, output [1:0] answer);
    begin
      @(negedge clk);
      burst_at = at;
      burst_value = value;
      beat = 0;
      burst_writes = 1;
      burst_data = 1;
      fork
        begin
          @(posedge clk);
          while (!s_axi_awready) @(posedge clk);
          @(negedge clk) burst_writes = 0;
        end
        while (burst_data) begin
          @(posedge clk);
          if (s_axi_wready) begin
            @(negedge clk);
            if (s_axi_wlast) burst_data = 0;
            beat = beat + 1;
          end
        end
      join
      @(posedge clk);
      while (!s_axi_bvalid) @(posedge clk);
      answer = s_axi_bresp;
    end
  endtask

  task read_burst(input [63:0] at, input [63:0] value);
    integer number;
    begin
      @(negedge clk);
      burst_at = at;
      burst_reads = 1;
      @(posedge clk);
      while (!s_axi_arready) @(posedge clk);
      @(negedge clk);
      burst_reads = 0;
      for (number = 0; number < 4; number = number + 1) begin
        @(posedge clk);
        while (!s_axi_rvalid) @(posedge clk);
        check("a word read", s_axi_rdata, value + number);
      end
    end
  endtask

  integer errors = 0;
  task check(input [8*40-1:0] what, input [63:0] found, input [63:0] expected);
    if (found !== expected) begin
      errors = errors + 1;
      $display("%0s: %h, not %h", what, found, expected);
    end
  endtask

  reg [31:0] value;
  reg [1:0] answer;
  integer word;
  initial begin
    for (word = 0; word < 8192; word = word + 1) begin
      tables.words[word] = 0;
      data.words[word] = 0;
    end
    // Four levels of tables at 1000, 2000, 3000 and 4000; page 1 is frame 8, page 2 is frame 9 and read-only.
    tables.words['h1000 >> 3] = 64'h2007;
    tables.words['h2000 >> 3] = 64'h3007;
    tables.words['h3000 >> 3] = 64'h4007;
    tables.words[(TABLE >> 3) + 1] = 64'h8007;
    tables.words[(TABLE >> 3) + 2] = 64'h9005;
    repeat (4) @(posedge clk);
    @(negedge clk) reset = 0;

    read_register(ID, value);
    check("ID", {32'b0, value}, 64'h57455450);
    write_register(CR3_LO, 32'h1000);
    write_register(TRACK, 2);  // the MMU marks by itself
    command(APPLY);
    write_register(CTRL, 32'h5);  // enabled; an answer to a write means that it is visible

    write_burst(64'h1040, 64'h1111_2222_3333_4440, answer);
    check("the store's answer", {62'b0, answer}, {62'b0, OKAY});
    check("the first word", data.words['h8040 >> 3], 64'h1111_2222_3333_4440);
    check("the last word", data.words['h8058 >> 3], 64'h1111_2222_3333_4443);
    check("the entry", tables.words[(TABLE >> 3) + 1], 64'h8867);  // accessed, dirty, soft-dirty
    read_burst(64'h1040, 64'h1111_2222_3333_4440);

    write_burst(64'h2000, 64'h5, answer);
    check("the answer of a fault", {62'b0, answer}, {62'b0, SLVERR});
    check("the read-only page", data.words['h9000 >> 3], 0);
    read_register(BRIDGE_FAULT, value);
    check("its record", {32'b0, value}, 64'h0007_0013);  // error code 7, a page fault, a write
    read_register(BRIDGE_LINEAR_LO, value);
    check("its address", {32'b0, value}, 64'h2000);
    write_register(DO, 32'h10);  // takes the record

    // Soft-dirty is cleared by a swap; after the invalidation each store marks anew.
    write_register(MEMORY_ADDRESS_LO, TABLE[31:0] + 8);
    write_register(MEMORY_OLD_LO, 32'h8867);
    write_register(MEMORY_NEW_LO, 32'h8067);
    command(SWAP);
    check("the entry, cleared", tables.words[(TABLE >> 3) + 1], 64'h8067);
    write_register(INV_LINEAR_LO, 32'h1000);
    write_register(INV, 32'h0104_0000);  // INVLPG, waits for stores
    command(INVALIDATE);
    write_burst(64'h1000, 64'h6, answer);
    check("the entry, marked anew", tables.words[(TABLE >> 3) + 1], 64'h8867);

    if (errors == 0) $display("PASSED");
    else $display("FAILED: %0d", errors);
    $finish;
  end

  initial begin
    #1000000;
    $display("FAILED: nothing happens");
    $finish;
  end
endmodule
