//! How a person meets the broker: one command, one ready line, a clean stop, and configuration errors that help.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::process::{Process, TempDir, free_ports, run, wait_for};
use firn_tests::{apache, java, tools, wire};
use rustix::process::Signal;
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(30);

fn dev(port: u16, work: &Path) -> Process {
    let mut command = Command::new(tools::firn());
    command.args(["dev", "--port", &port.to_string(), "--data"]).arg(work.join("data"));
    Process::start("dev", command, work)
}

#[test]
fn dev_is_ready_within_a_second_and_stops_cleanly_on_both_signals() {
    for signal in [Signal::INT, Signal::TERM] {
        let work = TempDir::new("dev");
        let [port] = free_ports();
        let address = format!("127.0.0.1:{port}");
        let started = Instant::now();
        let mut broker = dev(port, work.path());
        wait_for("the ready line", DEADLINE, || {
            broker.assert_running();
            broker.stdout().contains(&address).then_some(())
        });
        let ready = started.elapsed();
        assert!(wire::answers(&address), "the ready line is true");
        assert!(ready < Duration::from_secs(1), "ready after {ready:?}");
        let line = broker.stdout();
        assert_eq!(line.lines().count(), 1, "one ready line: {line}");

        apache::create_topic(&address, "kept", 1, &[]);
        java::produce(&address, "kept", &[], &[json!({"value": "snow"})]).remove(0).expect("acknowledged");
        broker.signal(signal);
        assert_eq!(broker.wait(DEADLINE), 0, "{}", broker.stderr());

        let mut again = dev(port, work.path());
        wait_for("the second start", DEADLINE, || wire::answers(&address).then_some(()));
        let read = java::read(&address, "kept", &[]);
        assert_eq!(read.len(), 1);
        assert_eq!(again.stop(DEADLINE), 0);
    }
}

#[test]
fn a_taken_port_is_said_and_not_waited_for() {
    let broker = Broker::start(BrokerOptions::default());
    let work = TempDir::new("taken");
    let port: u16 = broker.address().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let mut second = dev(port, work.path());
    assert_ne!(second.wait(DEADLINE), 0);
    assert!(second.stderr().contains(&broker.address()), "{}", second.stderr());
}

fn serve(lines: &str, work: &Path) -> (i32, String) {
    let config = work.join("server.properties");
    std::fs::write(&config, lines).expect("write server.properties");
    let mut command = Command::new(tools::firn());
    let output = run(command.arg("serve").arg("--config").arg(&config), "", DEADLINE);
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_bad_value_is_refused_by_key_value_and_what_is_allowed() {
    let work = TempDir::new("bad");
    let data = work.path().join("data");
    for (key, value, allowed) in [
        ("log.retention.hours", "soon", "number"),
        ("log.cleanup.policy", "melt", "compact"),
        ("num.partitions", "0", "1"),
        ("compression.type", "brotli", "zstd"),
    ] {
        let (status, said) = serve(&format!("log.dirs={}\n{key}={value}\n", data.display()), work.path());
        assert_ne!(status, 0, "{key}={value} was taken");
        assert!(said.contains(key), "the key: {said}");
        assert!(said.contains(value), "the value: {said}");
        assert!(said.to_lowercase().contains(allowed), "what is allowed: {said}");
    }
}

/// The properties of a three-server lab of 2017, as its readers have them on disk.
#[test]
fn the_old_names_of_server_properties_start_a_broker_and_unknown_keys_are_warned_about() {
    let work = TempDir::new("old-names");
    let [port] = free_ports();
    let config = work.path().join("server-0.properties");
    let lines = format!(
        "broker.id=7\nport={port}\nlog.dirs={}\nzookeeper.connect=localhost:2181\nlog.retention.hours=48\nlog.retentoin.bytes=5\n",
        work.path().join("data").display()
    );
    std::fs::write(&config, lines).expect("write server.properties");
    let mut command = Command::new(tools::firn());
    command.arg("serve").arg("--config").arg(&config);
    let mut broker = Process::start("old-names", command, work.path());
    let address = format!("127.0.0.1:{port}");
    wait_for("its first answer", DEADLINE, || {
        broker.assert_running();
        wire::answers(&address).then_some(())
    });
    let said = format!("{}{}", broker.stdout(), broker.stderr());
    assert!(said.contains("log.retentoin.bytes"), "the unknown key is named: {said}");
    assert!(said.contains("log.retention.bytes"), "and the key that was meant: {said}");
    apache::create_topic(&address, "t", 1, &[]);
    let described = apache::topics(&address, &["--describe", "--topic", "t"]).ok();
    assert!(described.contains("Leader: 7"), "{described}");
    let configs = ["--describe", "--all", "--entity-type", "topics", "--entity-name", "t"];
    let configs = apache::configs(&address, &configs).ok();
    assert!(configs.contains("retention.ms=172800000 "), "{configs}");
    // Without a host every address is listened on, and what clients are told is one that they can connect to.
    java::produce(&address, "t", &[], &[json!({"value": "snow"})]).remove(0).expect("acknowledged");
    assert_eq!(java::read(&address, "t", &[]).len(), 1);
    assert_eq!(broker.stop(DEADLINE), 0);
}

/// As an image without a shell is told who it is.
#[test]
fn a_file_takes_values_from_kafkas_config_providers() {
    const CLASSES: &str = "org.apache.kafka.common.config.provider";
    let work = TempDir::new("providers");
    let [port] = free_ports();
    let places = work.path().join("places");
    std::fs::create_dir(&places).expect("a directory");
    std::fs::write(places.join("limits"), "partitions=3\n").expect("write a properties file");
    std::fs::write(places.join("rack"), "zone-b").expect("write a file");
    let lines = format!(
        "config.providers=env,file,dir\nconfig.providers.env.class={CLASSES}.EnvVarConfigProvider\n\
         config.providers.file.class={CLASSES}.FileConfigProvider\nconfig.providers.file.param.allowed.paths={places}\n\
         config.providers.dir.class={CLASSES}.DirectoryConfigProvider\n\
         node.id=${{env:FIRN_TEST_ORDINAL}}\nlisteners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={data}\n\
         num.partitions=${{file:{places}/limits:partitions}}\nbroker.rack=${{dir:{places}:rack}}\n",
        places = places.display(),
        data = work.path().join("data").display()
    );
    let config = work.path().join("server.properties");
    std::fs::write(&config, lines).expect("write server.properties");
    let mut command = Command::new(tools::firn());
    command.arg("serve").arg("--config").arg(&config);
    let refused = run(&mut command, "", DEADLINE);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("node.id: ${env:FIRN_TEST_ORDINAL}"), "{said}");
    let mut command = Command::new(tools::firn());
    command.arg("serve").arg("--config").arg(&config).env("FIRN_TEST_ORDINAL", "1007");
    let mut broker = Process::start("providers", command, work.path());
    let address = format!("127.0.0.1:{port}");
    wait_for("its first answer", DEADLINE, || {
        broker.assert_running();
        wire::answers(&address).then_some(())
    });
    assert!(!broker.stderr().contains("config.providers"), "{}", broker.stderr());
    let described = apache::configs(
        &address,
        &["--describe", "--all", "--entity-type", "brokers", "--entity-name", "1007"],
    );
    let described = described.ok();
    for told in ["node.id=1007 ", "num.partitions=3 ", "broker.rack=zone-b "] {
        assert!(described.contains(told), "{told}: {described}");
    }
    assert_eq!(broker.stop(DEADLINE), 0);
}

/// What Kafka 4 ships as `config/server.properties`, key by key, with ports that are free and a directory of its own.
#[test]
fn kafkas_own_file_starts_a_broker() {
    let work = TempDir::new("own-file");
    let [port, controller] = free_ports();
    let lines = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=localhost:{controller}\n\
         listeners=PLAINTEXT://:{port},CONTROLLER://:{controller}\ninter.broker.listener.name=PLAINTEXT\n\
         advertised.listeners=PLAINTEXT://localhost:{port},CONTROLLER://localhost:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
         num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
         socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\nlog.dirs={}\n\
         num.partitions=1\nnum.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         log.retention.hours=168\nlog.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n",
        work.path().join("data").display()
    );
    let config = work.path().join("server.properties");
    std::fs::write(&config, lines).expect("write server.properties");
    let mut command = Command::new(tools::firn());
    // As Kafka's own start script takes it: without a flag.
    command.arg("serve").arg(&config);
    let mut broker = Process::start("own-file", command, work.path());
    let address = format!("127.0.0.1:{port}");
    wait_for("its first answer", DEADLINE, || {
        broker.assert_running();
        wire::answers(&address).then_some(())
    });
    apache::create_topic(&address, "t", 1, &[]);
    java::produce(&address, "t", &[], &[json!({"value": "snow"})]).remove(0).expect("acknowledged");
    assert_eq!(broker.stop(DEADLINE), 0);
}

#[test]
fn a_store_that_does_not_answer_keeps_no_start_from_being_stopped() {
    // Takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let store = silent.local_addr().expect("its address");
    let work = TempDir::new("silent-store");
    let [port] = free_ports();
    let config = work.path().join("server.properties");
    let lines = format!(
        "node.id=1\nlisteners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\nfirn.store.url=s3://bucket/firn\n",
        work.path().join("data").display()
    );
    std::fs::write(&config, lines).expect("write server.properties");
    let mut command = Command::new(tools::firn());
    command.arg("serve").arg("--config").arg(&config);
    command.env("AWS_ENDPOINT", format!("http://{store}")).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_REGION", "here");
    let mut broker = Process::start("silent-store", command, work.path());
    wait_for("it asks the store", DEADLINE, || {
        broker.assert_running();
        let said = format!("{}{}", broker.stdout(), broker.stderr());
        said.contains("s3://bucket/firn").then_some(())
    });
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait(Duration::from_secs(10)), 1, "it was never ready");
    assert!(broker.stderr().contains("before the broker was ready"), "{}", broker.stderr());
}

#[test]
fn the_side_port_tells_health_and_the_metrics_that_dashboards_expect() {
    let mut broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "counted", 1, &[]);
    for _ in 0..3 {
        java::produce(&address, "counted", &[], &[json!({"value": "x"})]).remove(0).expect("acknowledged");
    }
    java::read(&address, "counted", &[]);
    for path in ["/healthz", "/readyz"] {
        let (status, _) = wire::http_get(&broker.http_address(), path).expect("the side port answers");
        assert_eq!(status, 200, "{path}");
    }
    let (status, _) = wire::http_get(&broker.http_address(), "/no-such-page").expect("the side port answers");
    assert_eq!(status, 404);
    assert_eq!(broker.metric("kafka_server_brokertopicmetrics_messagesin_total"), Some(3.0));
    for name in [
        "kafka_server_brokertopicmetrics_bytesin_total",
        "kafka_server_brokertopicmetrics_bytesout_total",
        "kafka_server_brokertopicmetrics_totalproducerequests_total",
        "kafka_server_brokertopicmetrics_totalfetchrequests_total",
        "kafka_server_replicamanager_leadercount",
        "kafka_server_replicamanager_partitioncount",
        "kafka_log_log_size",
    ] {
        let value = broker.metric(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(value > 0.0, "{name} is {value}");
    }
    for name in [
        "kafka_server_replicamanager_underreplicatedpartitions",
        "kafka_controller_kafkacontroller_offlinepartitionscount",
        "kafka_log_logmanager_offlinelogdirectorycount",
    ] {
        assert_eq!(broker.metric(name), Some(0.0), "{name}");
    }
    broker.stop();
}
