"""A translating bridge between two AXI4 interfaces."""
