//! openraft's own tests of what it demands from a log and a state machine.
//!
//! Left out are those that begin a log above index 0 without a snapshot: a hole, which this log refuses.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firn_quorum::log_store::{LogStore, NowMs, SnapshotLimits};
use firn_quorum::machine::Machine;
use firn_quorum::types::Types;
use firn_storage::directory::LogDirOptions;
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::simulated::SimulatedDisk;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

struct OnDisk;

impl StoreBuilder<Types, LogStore, Machine, LogDir> for OnDisk {
    async fn build(&self) -> Result<(LogDir, LogStore, Machine), StorageError<Types>> {
        let identity = Identity { cluster_id: "c".to_owned(), node_id: 1, directory_id: "d".to_owned() };
        let disk = Arc::new(SimulatedDisk::new());
        let dir = LogDir::open(disk, Path::new("/data"), &identity, LogDirOptions::default()).unwrap();
        let limits = SnapshotLimits { bytes_max: u64::MAX, interval_ms: 0, entries_kept: 0 };
        let found = LogStore::open(&dir, limits, NowMs(Arc::new(|| 1))).unwrap();
        let machine = Machine::new(&found);
        Ok((dir, found.store, machine))
    }
}

type Contract = Suite<Types, LogStore, Machine, OnDisk, LogDir>;

macro_rules! contract {
    ($($name:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                firn_blocking::do_in_place(|| Duration::ZERO);
                let (_dir, store, machine) = OnDisk.build().await.unwrap();
                Contract::$name(store, machine).await.unwrap();
            }
        )*
    };
}

contract! {
    last_membership_in_log_initial
    get_membership_initial
    get_membership_from_empty_log_and_sm
    get_initial_state_without_init
    get_initial_state_membership_from_empty_log_and_sm
    get_initial_state_membership_from_log_insm_is_smaller
    get_initial_state_with_state
    get_initial_state_last_log_gt_sm
    get_initial_state_log_ids
    save_vote
    get_log_entries
    limited_get_log_entries
    leader_bounded_stream
    entries_stream
    try_get_log_entry
    log_reader_reads_new_entries
    initial_logs
    get_log_state
    get_log_id
    last_id_in_log
    last_applied_state
    purge_logs_upto_0
    purge_logs_upto_5
    purge_logs_upto_20
    delete_logs_after_11
    delete_logs_after_5
    delete_logs_after_0
    delete_logs_after_none
    append_to_log
    snapshot_meta
    snapshot_meta_optional
    apply_single
    apply_multiple
}

#[tokio::test(start_paused = true)]
async fn transfer_snapshot() {
    firn_blocking::do_in_place(|| Duration::ZERO);
    Contract::transfer_snapshot(&OnDisk).await.unwrap();
}
