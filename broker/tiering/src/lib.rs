//! The cold log: uploads, ranged reads through a cache, collection.
