//! Suites that cross processes: real clients and tools, real stores, real power cuts, benchmarks.
