//! kill -9 under load: the broker comes back by itself, and a client that waits for it loses and doubles nothing.

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::ledger::Past;
use firn_tests::librdkafka::Load;
use firn_tests::segments::{self, Offsets};

const RECORDS: u64 = 200_000;

#[test]
fn one_idempotent_producer_lives_through_ten_kills() {
    let options = BrokerOptions::default().with("log.segment.bytes", "1048576");
    let mut broker = Broker::start(options);
    let address = broker.address();
    apache::create_topic(&address, "ledger", 3, &[]);
    let settings = ["reconnect.backoff.ms=10", "reconnect.backoff.max.ms=50", "retry.backoff.ms=10"];
    let load = Load::start(&address, "ledger", 3, RECORDS, 20_000, &settings);
    for kill in 0..10 {
        load.wait_for_more(2_000 + kill * 530);
        broker.kill();
        broker.start_again();
    }
    let ledger = load.wait();
    assert!(ledger.failures.is_empty(), "{:?}", ledger.failures);
    assert_eq!(ledger.len() as u64, RECORDS);
    let mut past = Past::default();
    past.check(&address, "ledger", 3, &ledger);
    assert_eq!(past.read as u64, RECORDS, "each once");
    broker.stop();
    segments::assert_valid_directory(&broker.data(), Offsets::Dense);
}
