//! Group coordination as a pure state machine, and the records of __consumer_offsets.
