"""The dirty log: a record in memory for each page that the hardware marked. Meaning: docs/log.md."""
