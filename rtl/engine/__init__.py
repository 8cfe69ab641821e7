"""The table engine: clear_refs, scan and pagemap as a stream over the entries of a range."""
