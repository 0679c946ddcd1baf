//! The cluster's metadata: the image, the records that change it, and the decisions that write them.
