//! That the simulation can fail: changes of the broker that are known to be wrong, each of which it has to find.
//!
//! A change stands at one place of the sources, where some words are put in the place of others. A copy of the sources gets all of
//! them at once, each behind a switch that the environment turns on, and `firn-sim` is built from it once. Where the words at a
//! place are not those any more, the test says so: then the change has to be found its new place.

use std::path::{Path, PathBuf};

use firn_tests::simulator::{self, Simulator};
use firn_tests::tools::repository;

/// Seeds that a change may take until it is found.
const SEEDS_MAX: u64 = 1_000;
/// Virtual seconds of each.
const SECONDS: u64 = 60;
const SWITCH: &str = "FIRN_KNOWN_BAD";
/// Of the workspace, and of its copy.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const CHANGED: &str = concat!(env!("CARGO_PKG_VERSION"), "-known-bad");

/// A change that is known to be wrong.
struct KnownBad {
    name: &'static str,
    /// The seed to begin with: what is found late takes minutes from the first one.
    from: u64,
    file: &'static str,
    /// Words of the file, once in it; what stands between `[[` and `]]` is changed.
    place: &'static str,
    wrong: &'static str,
}

const CHANGES: [KnownBad; 22] = [
    KnownBad {
        name: "what comes from the disk is handed out unseen",
        from: 80,
        file: "broker/storage/src/check.rs",
        place: "[[reach.is_ok_and(|reach| reach >= end) && file.is_in_memory(self.position, self.len as u64)]]",
        wrong: "reach.is_ok()",
    },
    KnownBad {
        name: "a batch is not held against the leader epochs",
        from: 55,
        file: "broker/storage/src/check.rs",
        place: ".filter(|written| [[*written != epoch]])",
        wrong: "*written != epoch && false",
    },
    KnownBad {
        name: "a replica vouches for what it has not flushed",
        from: 1,
        file: "broker/src/partition/state.rs",
        place: "[[if end - flushed >= self.config.flush_messages { flushed } else { end }]]",
        wrong: "end",
    },
    KnownBad {
        name: "records are committed before they are replicated",
        from: 1,
        file: "broker/core/replication/src/leader.rs",
        place: "self.high_watermark = self.high_watermark.max([[ends.unwrap_or(self.own_end)]]);",
        wrong: "self.own_end",
    },
    KnownBad {
        name: "a follower cuts its log at the high watermark",
        from: 1,
        file: "broker/src/partition/replica.rs",
        place: "[[log.forget_unwritten_epochs()]];",
        wrong: "{ let committed = self.high_watermark; log.truncate_to(committed).ok(); log.forget_unwritten_epochs() }",
    },
    KnownBad {
        name: "a leader does not look whether a follower has another history",
        from: 1,
        file: "broker/src/partition/replica.rs",
        place: "if [[epoch < fetch.last_epoch || end_offset < fetch.from]] {",
        wrong: "false",
    },
    KnownBad {
        name: "any replica that is alive may lead",
        from: 1,
        file: "broker/core/metadata/src/leadership.rs",
        place: "let eligible = |id: i32| alive(id) && [[next.elr.contains(&id)]];",
        wrong: "next.replicas.contains(&id)",
    },
    KnownBad {
        name: "a flush syncs no file",
        from: 1,
        file: "broker/storage/src/flush.rs",
        place: "[[file.sync_data().map_err(failed_to_sync(path)).map_err(stop)?]];",
        wrong: "drop((path, file))",
    },
    KnownBad {
        name: "a flush does not sync the names of new segments",
        from: 1,
        file: "broker/storage/src/flush.rs",
        place: "if [[self.sync_names]] {",
        wrong: "self.sync_names && self.done.created",
    },
    KnownBad {
        name: "producers are forgotten at a start",
        from: 1,
        file: "broker/storage/src/recovery.rs",
        place: "    [[log.load_producers()?]];\n",
        wrong: "()",
    },
    KnownBad {
        name: "a batch that is sent again is no duplicate",
        from: 1,
        file: "broker/storage/src/producers.rs",
        place: "[[self.entries.get(&header.producer_id)?.find_duplicate(header)]]",
        wrong: "None",
    },
    KnownBad {
        name: "consumers read past the high watermark",
        from: 1,
        file: "broker/src/partition.rs",
        place: "Isolation::ReadUncommitted => [[offsets.high_watermark]],",
        wrong: "offsets.log_end",
    },
    KnownBad {
        name: "producer ids are given out again after a restart",
        from: 1,
        file: "broker/core/metadata/src/decide/producer_ids.rs",
        place: "records: [[vec![MetadataRecord::ProducerIds(ProducerIdsRecord { broker_id, next_producer_id })]]],",
        wrong: "Vec::new()",
    },
    KnownBad {
        name: "a group is told that its offset is kept before it is",
        from: 1,
        file: "broker/src/coordinator_runtime.rs",
        place: "Ok(Some(committed)) => [[Stored::Later(committed)]],",
        wrong: "{ drop(committed); Stored::Now(Ok(())) }",
    },
    KnownBad {
        name: "a change of the metadata counts before it is on the disk",
        from: 1,
        file: "broker/quorum/src/flushing.rs",
        place: "let flushed = [[store.persist(\"a change\", LogStore::flush).await]];",
        wrong: "Ok::<(), crate::error::QuorumError>(())",
    },
    KnownBad {
        name: "a follower that has caught up is not taken back",
        from: 1,
        file: "broker/core/replication/src/leader.rs",
        place: "false => [[self.has_caught_up(*id, log_start) && may_join((*id, self.broker_epoch_of(*id)))]],",
        wrong: "false",
    },
    KnownBad {
        name: "a coordinator goes on with what it knew before another was one",
        from: 1,
        file: "broker/src/coordinator_runtime.rs",
        place: "seat.shard.take_if(|shard| [[!shard.is_current()]])",
        wrong: "shard.partition.is_closed()",
    },
    KnownBad {
        name: "a follower does not learn who has produced",
        from: 1,
        file: "broker/storage/src/append.rs",
        place: "[[self.producers.stage(&mut staged, &batch.header, marker, origin)?]];",
        wrong: "if origin != AppendOrigin::Leader { self.producers.stage(&mut staged, &batch.header, marker, origin)? }",
    },
    KnownBad {
        name: "a leader that nobody hears goes on as one",
        from: 1,
        file: "broker/src/replication.rs",
        place: "[[self.began.elapsed().as_millis() < u128::from(self.lease_ends.load(Ordering::Relaxed))]]",
        wrong: "true",
    },
    KnownBad {
        name: "nobody is fenced for its silence",
        from: 1,
        file: "broker/core/metadata/src/leases.rs",
        place: "now.saturating_sub(**heard) >= [[self.lease]]).collect();",
        wrong: "Duration::MAX",
    },
    KnownBad {
        name: "a leader that a full disk replaces is not waited for",
        from: 50,
        file: "broker/core/metadata/src/decide/room.rs",
        place: "true => [[now.isr.iter().any(|id| may_lead(*id)).then(|| turn.settle(may_lead))?]],",
        wrong: "{ turn.isr.retain(|id| *id != broker_id); turn.isr.iter().any(|id| may_lead(*id)).then(|| turn.settle(may_lead))? }",
    },
    KnownBad {
        name: "a full disk keeps what is written to it",
        from: 1,
        file: "broker/core/metadata/src/decide/room.rs",
        place: "if [[!is_known || now.isr.len() <= now.min_in_sync(min_isr)]] {",
        wrong: "true",
    },
];

impl KnownBad {
    /// The source with the change behind its switch.
    fn made_in(&self, source: &str) -> String {
        let (before, rest) = self.place.split_once("[[").expect("a place marks what is changed");
        let (right, after) = rest.rsplit_once("]]").expect("a place marks where that ends");
        let place = format!("{before}{right}{after}");
        let places = source.matches(&place).count();
        assert_eq!(places, 1, "{}: {places} places in {} say {place}", self.name, self.file);
        let is_on = format!(
            "*{{ static IS_ON: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| \
             std::env::var({SWITCH:?}).is_ok_and(|on| on == {:?})); &*IS_ON }}",
            self.name
        );
        let switched = format!("{{ if {is_on} {{ {} }} else {{ {right} }} }}", self.wrong);
        source.replace(&place, &format!("{before}{switched}{after}"))
    }

    /// Looks for the change, one seed after another.
    fn look_for(&self, simulator: &Simulator) -> Result<String, String> {
        let arguments = format!("soak --from={} --seeds={SEEDS_MAX} --seconds={SECONDS}", self.from);
        let output = simulator.command(&arguments).env(SWITCH, self.name).output().expect("firn-sim runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Err(format!("{}: not found in {SEEDS_MAX} seeds", self.name));
        }
        let seeds = said.lines().find(|line| line.contains(" seeds of ")).unwrap_or_default();
        let broken = said.lines().find(|line| line.starts_with("  ")).unwrap_or_default();
        // Whatever else ends a run has found nothing, nor has what the seed finds without the change.
        let told = said.lines().find(|line| line.starts_with("seed ") && line.contains(" broken promises, "));
        let Some(seed) = told.and_then(|told| told.strip_prefix("seed ")?.split(',').next()) else {
            return Err(format!("{}: a run ended before it could be judged:\n{said}", self.name));
        };
        let (without, said) = simulator.run(&format!("run --seed={seed} --seconds={SECONDS}"));
        if !without.status.success() {
            return Err(format!("{}: seed {seed} breaks a promise without it, too:\n{said}", self.name));
        }
        Ok(format!("{seeds}\n{broken}"))
    }
}

/// The sources, copied and changed.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Self {
        let copy = Self(simulator::target().join("known-bad"));
        std::fs::create_dir_all(&copy.0).expect("a directory of the copy");
        for part in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "broker", "libraries", "tests"] {
            copy.update(Path::new(part));
        }
        copy
    }

    /// Copies what differs: what is the same keeps its time, and is not built again.
    fn update(&self, part: &Path) {
        let (from, to) = (repository().join(part), self.0.join(part));
        if from.is_dir() {
            std::fs::create_dir_all(&to).expect("a directory of the copy");
            for entry in std::fs::read_dir(&from).expect("read the sources").flatten() {
                self.update(&part.join(entry.file_name()));
            }
            return;
        }
        let read = std::fs::read(&from).expect("read a source");
        let changed = changed(part, read.clone());
        if std::fs::read(&to).ok().as_ref() != Some(&changed) {
            std::fs::write(&to, &changed).expect("write the copy");
            if changed == read {
                // What is built from it is not older for having been copied.
                let modified = std::fs::metadata(&from).and_then(|from| from.modified()).expect("its time");
                let file = std::fs::File::options().write(true).open(&to).expect("open the copy");
                file.set_modified(modified).expect("date the copy");
            }
        }
    }
}

/// A file of the sources as the copy has it.
fn changed(part: &Path, bytes: Vec<u8>) -> Vec<u8> {
    let changes: Vec<&KnownBad> = CHANGES.iter().filter(|change| Path::new(change.file) == part).collect();
    let is_root = part.parent() == Some(Path::new(""));
    if changes.is_empty() && !is_root {
        return bytes;
    }
    let mut text = String::from_utf8(bytes).expect("a source is text");
    if is_root {
        // Packages of another version are others to cargo: where both are built, none takes the other's place.
        let ours = |package: &str| !package.contains("\nsource = ");
        let packages = text.split("\n\n").map(|package| match ours(package) {
            true => package.replace(&version(VERSION), &version(CHANGED)),
            false => package.to_owned(),
        });
        text = packages.collect::<Vec<_>>().join("\n\n");
    }
    for change in changes {
        text = change.made_in(&text);
    }
    text.into()
}

fn version(version: &str) -> String {
    format!("\nversion = \"{version}\"")
}

#[test]
fn every_change_that_is_known_to_be_wrong_is_found() {
    let simulator = Simulator::build(&Copy::new().0, "firn-sim-known-bad");
    let mut missed = Vec::new();
    for change in &CHANGES {
        match change.look_for(&simulator) {
            Ok(found) => println!("{}: {found}", change.name),
            Err(why) => missed.push(why),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
