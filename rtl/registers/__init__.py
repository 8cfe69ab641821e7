"""The MMU's registers: one table, and what is made of it."""
