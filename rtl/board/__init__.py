"""A unit on an FPGA board: block RAM for its tables and data, and a serial line."""
