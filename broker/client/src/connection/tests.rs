//! A scripted peer that keeps, bends and breaks the protocol.

use tokio::io::DuplexStream;

use firn_protocol::library::messages::MetadataRequest;

use super::*;

async fn request(peer: &mut DuplexStream) -> Vec<u8> {
    let length = peer.read_i32().await.unwrap();
    let mut frame = vec![0; usize::try_from(length).unwrap()];
    peer.read_exact(&mut frame).await.unwrap();
    frame
}

fn correlation_id(frame: &[u8]) -> i32 {
    i32::from_be_bytes(frame[4..8].try_into().unwrap())
}

async fn reply(peer: &mut DuplexStream, correlation_id: i32, body: &[u8]) {
    peer.write_i32(i32::try_from(body.len() + 4).unwrap()).await.unwrap();
    peer.write_i32(correlation_id).await.unwrap();
    peer.write_all(body).await.unwrap();
}

/// Answers the handshake as a broker of old: version 0, and only Metadata up to version 1.
async fn greet(peer: &mut DuplexStream) {
    let asked = request(peer).await;
    reply(peer, correlation_id(&asked), &[0, 35, 0, 0, 0, 1, 0, 3, 0, 0, 0, 1]).await;
}

/// Metadata version 1 with no broker, this controller, no topic.
fn metadata(controller: u8) -> [u8; 12] {
    [0, 0, 0, 0, 0, 0, 0, controller, 0, 0, 0, 0]
}

fn options() -> ConnectionOptions {
    ConnectionOptions { frame_bytes_max: 1024, ..ConnectionOptions::default() }
}

async fn connected() -> (Connection, DuplexStream) {
    let (ours, mut theirs) = tokio::io::duplex(4096);
    let (connection, ()) =
        tokio::join!(Connection::over(ours, "peer".to_owned(), options()), greet(&mut theirs));
    (connection.unwrap(), theirs)
}

#[tokio::test]
async fn speaks_the_newest_version_that_an_old_broker_offers() {
    let (connection, _peer) = connected().await;
    assert_eq!(connection.version_of::<MetadataRequest>().unwrap(), 1);
    let refused =
        connection.version_of::<firn_protocol::library::messages::CreateTopicsRequest>().unwrap_err();
    assert!(matches!(refused, Error::Unsupported { ref api, .. } if api == "CreateTopics"), "{refused}");
}

#[tokio::test]
async fn requests_share_the_stream_and_each_gets_its_own_reply() {
    let (connection, mut peer) = connected().await;
    let ask = MetadataRequest::default();
    let broker = async {
        let first = request(&mut peer).await;
        let second = request(&mut peer).await;
        reply(&mut peer, correlation_id(&first), &metadata(7)).await;
        reply(&mut peer, correlation_id(&second), &metadata(8)).await;
    };
    let (first, second, ()) = tokio::join!(connection.call(&ask), connection.call(&ask), broker);
    assert_eq!((first.unwrap().controller_id.0, second.unwrap().controller_id.0), (7, 8));
}

#[tokio::test]
async fn a_reply_to_another_request_ends_the_connection() {
    let (connection, mut peer) = connected().await;
    let ask = MetadataRequest::default();
    let broker = async {
        let asked = request(&mut peer).await;
        reply(&mut peer, correlation_id(&asked) + 1, &metadata(7)).await;
    };
    let (answer, ()) = tokio::join!(connection.call(&ask), broker);
    let error = answer.unwrap_err().to_string();
    assert!(error.contains("reply 3 came where 2 was due"), "{error}");
    assert!(matches!(connection.call(&ask).await, Err(Error::Closed { .. })));
}

#[tokio::test]
async fn lengths_out_of_bounds_and_cut_replies_end_the_connection() {
    for (sent, told) in [
        (&1025_i32.to_be_bytes()[..], "a reply of 1025 bytes is outside 4 to 1024"),
        (&(-1_i32).to_be_bytes()[..], "a reply of -1 bytes"),
        (&[0, 0, 0, 9, 0, 0][..], "after 2 of 9 bytes"),
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], "it speaks HTTP, not Kafka"),
    ] {
        let (connection, mut peer) = connected().await;
        let ask = MetadataRequest::default();
        let broker = async move {
            request(&mut peer).await;
            peer.write_all(sent).await.unwrap();
        };
        let (answer, ()) = tokio::join!(connection.call(&ask), broker);
        let error = answer.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_meets_the_deadline_and_its_late_reply_harms_no_one() {
    let (connection, mut peer) = connected().await;
    let ask = MetadataRequest::default();
    let late = connection.call(&ask).await.unwrap_err();
    assert!(matches!(late, Error::Timeout { deadline_ms: 30_000, .. }), "{late}");
    let broker = async {
        let first = request(&mut peer).await;
        reply(&mut peer, correlation_id(&first), &metadata(7)).await;
        let second = request(&mut peer).await;
        reply(&mut peer, correlation_id(&second), &metadata(8)).await;
    };
    let (answer, ()) = tokio::join!(connection.call(&ask), broker);
    assert_eq!(answer.unwrap().controller_id.0, 8);
}

#[tokio::test]
async fn a_broker_that_lies_about_a_count_is_refused_before_there_is_room_for_it() {
    let (connection, mut peer) = connected().await;
    let ask = MetadataRequest::default();
    let broker = async {
        let asked = request(&mut peer).await;
        // 54 million brokers in five bytes.
        reply(&mut peer, correlation_id(&asked), &[0x03, 0x3c, 0x0c, 0x00, 0xb6]).await;
        let asked = request(&mut peer).await;
        reply(&mut peer, correlation_id(&asked), &metadata(7)).await;
    };
    let (lie, ()) = tokio::join!(
        async {
            let lie = connection.call(&ask).await.unwrap_err().to_string();
            assert_eq!(connection.call(&ask).await.unwrap().controller_id.0, 7, "the frames are still whole");
            lie
        },
        broker
    );
    assert!(lie.contains("54266880 elements"), "{lie}");
}

#[tokio::test]
async fn what_is_no_address_of_a_broker_is_told_without_looking_it_up() {
    for (address, told) in [
        ("http://h:9092", "leave 'http://' away, it is HOST:PORT alone, for example h:9092"),
        ("SASL_SSL://h:9092", "leave 'SASL_SSL://' away"),
        ("h", "it has no port, for example h:9092"),
        ("h:port", "'port' is no port"),
        ("h:", "'' is no port"),
        ("h:99999", "a port up to 65535"),
        (":9092", "it is HOST:PORT"),
    ] {
        let refused = Connection::connect(address, options()).await.unwrap_err();
        assert!(!refused.is_retriable());
        assert!(refused.to_string().contains(told), "{address}: {refused}");
    }
    assert!(check_address("[::1]:9092").is_ok() && check_address("h:1").is_ok());
}
