"""The gateware's way to memory: back ends of the memory port, and an AXI4 exclusive monitor."""
