"""The driver: what software does with the unit's registers, without I/O, and who carries it out."""
